//! What goes on under the next kernel, and how that is seen.

use std::time::Duration;

use crate::check;
use crate::failure::Failure;
use crate::suites::kexec::jump::{BOOT, another_boot, settled};
use crate::suites::kexec::trial::count;
use crate::vm::{Status, Vm};

/// What goes on.
const SERVICES: [&str; 4] = ["asker", "counter", "echo", "talker"];
/// Where the client of the echo server writes what came back.
pub const TALKED: &str = "/var/talked";
/// Where boot files are kept over a jump.
pub const BOOT_DISK: &str = "/mnt";
/// For the client to get another answer; it asks ten times a second.
const TALK: Duration = Duration::from_secs(10);
/// Answers that are waited for, so that they are not all from before.
const ANSWERS: usize = 5;

/// Lines of that other client that are under way at once.
const UNDER_WAY: u64 = 256;

/// What services remember before a jump.
pub struct Before {
    status: Status,
    counted: u64,
    talked: usize,
    asked: u64,
}

impl Before {
    pub async fn look(vm: &Vm) -> Result<Self, Failure> {
        talks(vm, 0).await?;
        let (status, counted) = (vm.status().await?, count(vm).await?);
        Ok(Self { status, counted, talked: talked(vm).await?, asked: asks(vm, 0).await? })
    }

    /// Every service is the process that it was, and remembers all; the clients go on with the connections that they had.
    pub async fn goes_on(&self, vm: &Vm) -> Result<(), Failure> {
        self.goes_on_but(vm, &[]).await?;
        let counted = count(vm).await?;
        check!(counted == self.counted + 1, "the counter was at {}, and goes on at {counted}", self.counted);
        Ok(())
    }

    /// The same of all but some, and without the counter's memory.
    pub async fn goes_on_but(&self, vm: &Vm, lost: &[&str]) -> Result<(), Failure> {
        let now = vm.status().await?;
        for name in SERVICES.into_iter().filter(|name| !lost.contains(name)) {
            let (was, is) = (self.status.component(name)?, now.component(name)?);
            check!(
                is.state == "ACTIVE" && is.pid == was.pid && was.pid.is_some(),
                "{name} was {was:?}, and is {is:?} under the next kernel"
            );
        }
        // They end with their connections, which are the only ones that they ever make.
        talks(vm, self.talked).await?;
        asks(vm, self.asked + UNDER_WAY).await?;
        let anew = now.component("passing")?;
        check!(anew.state == "ACTIVE", "what declares no checkpoints is {anew:?}");
        Ok(())
    }
}

/// Waits until the client got more answers than these, without a gap since its first.
async fn talks(vm: &Vm, more_than: usize) -> Result<(), Failure> {
    let enough = format!("test $(cat {TALKED} | wc -l) -ge {}", more_than + ANSWERS);
    vm.until("the client gets answers", &enough, TALK).await?;
    talked(vm).await.map(drop)
}

/// Waits until the client of the echo server, which is another component, got more answers than these; how many it got. It
/// ends itself when one is not in its place.
async fn asks(vm: &Vm, more_than: u64) -> Result<u64, Failure> {
    let enough = format!(
        "asked=$(graphctl log asker --lines 1 | grep -o '[0-9]*$') && test $asked -gt {more_than} && echo $asked"
    );
    let asked = vm.until("the client of another component gets answers", &enough, TALK).await?;
    asked.trim().parse().map_err(|error| Failure::harness(format!("it got {asked:?} answers: {error}")))
}

/// How many answers the client got.
async fn talked(vm: &Vm) -> Result<usize, Failure> {
    let text = vm.read(TALKED).await?;
    let lines: Vec<_> = text.lines().collect();
    let gap = lines.iter().zip(1_u64..).find(|(line, number)| **line != number.to_string());
    check!(gap.is_none(), "the client got {gap:?}");
    Ok(lines.len())
}

/// Begins a jump, and does not wait for anything. What it says is on the console.
pub async fn begin(vm: &Vm, kernel: &str, initrd: &str, more: &str) -> Result<(), Failure> {
    let command = format!(
        "setsid sh -c 'graphctl kexec --force {kernel} --initrd {initrd} {more} 2>&1 | tee /run/said >/dev/console' \
         >/dev/null 2>&1 </dev/null &"
    );
    vm.sh(&command).await.map(drop)
}

/// A jump; gives the release of the kernel that runs then.
pub async fn jump(vm: &Vm, kernel: &str, initrd: &str, more: &str) -> Result<String, Failure> {
    let boot = vm.read(BOOT).await?;
    begin(vm, kernel, initrd, more).await?;
    another_boot(vm, &boot).await?;
    settled(vm).await?;
    release(vm).await
}

/// `uname -r`.
pub async fn release(vm: &Vm) -> Result<String, Failure> {
    Ok(vm.sh("uname -r").await?.trim().to_owned())
}
