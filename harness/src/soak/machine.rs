//! The machine of a soak: that of the suite `reliability`, with probes that are further apart, and with what drives it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use yakiros_vm::cpio::LayerBuilder;
use yakiros_vm::error::VmError;
use yakiros_vm::machine::Machine;
use yakiros_vm::qemu::{Alone, Clock, Process, STREAM_PORT};

use crate::prepare::PrepareError;
use crate::vm::{COMPONENTS, FAULTY_SUPERVISOR};

/// In the harness's folder: components that take the place of the suite's.
const FOLDER: &str = "soak/components";
/// What CRIU asks about sockets with, and keeps their peers waiting with.
const MODULES: &str =
    "yakiros.modules=nfnetlink,nf_tables,unix_diag,inet_diag,tcp_diag,udp_diag,af_packet_diag,netlink_diag";
/// Goes to process 1 as a variable: how much a supervisor loses that was made to (`supervisor/init/src/reexec/injection.rs`).
const LEAK: &str = "yakiros_leak";
/// In the guest.
const CHECKPOINT_PROGRAM: &str = "/sbin/graph-checkpoint";
/// The journal keeps so many records (`yakiros_core::journal::CAPACITY`). Until it has them it grows.
const RECORDS: u32 = 2048;

/// What drives the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    /// What is done follows from it.
    pub seed: u64,
    /// For how long, by the guest's clock.
    pub seconds: u64,
    /// Between two events on average, in milliseconds.
    pub pace_ms: u64,
    /// Between two samples.
    pub sample_ms: u64,
    /// Between two rounds of requests.
    pub load_ms: u64,
    /// Fill the journal before the time begins.
    pub fill: bool,
    /// Under a clock that skips idle time.
    pub virtual_time: bool,
    /// A supervisor that loses so many bytes with each restart; made for tests.
    #[serde(default)]
    pub leak_bytes: Option<u32>,
}

impl Drive {
    /// As much as is done by default: in real time what a machine is used for, in virtual time what ends in time.
    pub fn usual(seed: u64, length: Duration, virtual_time: bool) -> Self {
        let (pace_ms, sample_ms, load_ms) =
            if virtual_time { (45_000, 60_000, 20_000) } else { (6_000, 30_000, 1_000) };
        Self {
            seed,
            seconds: length.as_secs(),
            pace_ms,
            sample_ms,
            load_ms,
            fill: true,
            virtual_time,
            leak_bytes: None,
        }
    }

    fn component(&self) -> String {
        let arguments = [
            ("--seed", self.seed),
            ("--seconds", self.seconds),
            ("--pace-ms", self.pace_ms),
            ("--sample-ms", self.sample_ms),
            ("--load-ms", self.load_ms),
            ("--records", if self.fill { RECORDS.into() } else { 0 }),
            ("--port", STREAM_PORT.into()),
        ];
        let words: Vec<String> =
            arguments.iter().map(|(name, value)| format!("\"{name}\", \"{value}\"")).collect();
        format!(
            "[component]\nname = \"soak\"\nbinary = \"/usr/local/bin/test-soak\"\nargs = [{}]\n\n\
             [requires]\ncapabilities = [\"network.configured\", \"filesystem.sys\"]\n",
            words.join(", ")
        )
    }

    fn clock(&self) -> Clock {
        if self.virtual_time { Clock::Counted } else { Clock::Real }
    }
}

/// Makes the machine of a drive out of that of the suite. `work` is for files that are needed only now.
pub fn machine(of_suite: &Machine, drive: &Drive, work: &Path) -> Result<Machine, PrepareError> {
    let layer = work.join("soak.cpio");
    write_layer(drive, &layer)?;
    let machine = of_suite.with_layer(&layer)?.with_hardware(|hardware| {
        // Two would run in turns, and a clock that counts instructions has only one.
        hardware.cpus = 1;
        let end = hardware.arguments.iter().position(|word| word == "--").unwrap_or(hardware.arguments.len());
        let leak = drive.leak_bytes.iter();
        let leak = leak.flat_map(|bytes| [format!("init={FAULTY_SUPERVISOR}"), format!("{LEAK}={bytes}")]);
        hardware.arguments.splice(end..end, leak.chain([MODULES.into()]));
        if drive.leak_bytes.is_some() {
            // It is not beside what it looks for there.
            hardware.arguments.extend(["--".into(), format!("--checkpoint-program {CHECKPOINT_PROGRAM}")]);
        }
    });
    std::fs::remove_file(layer)?;
    Ok(machine)
}

fn write_layer(drive: &Drive, to: &Path) -> io::Result<()> {
    let mut layer = LayerBuilder::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        layer.host_file(format!("{COMPONENTS}/{name}"), 0o644, &path)?;
    }
    layer.file(format!("{COMPONENTS}/soak.toml"), 0o644, drive.component().into_bytes())?;
    layer.write_file(to).map(drop)
}

/// Starts it; what it writes goes to `stream`.
pub fn start(
    machine: &Machine,
    drive: &Drive,
    stream: PathBuf,
    console: &Path,
    directory: &Path,
) -> Result<Process, VmError> {
    machine.run_alone(&Alone { stream, clock: drive.clock() }, directory, console)
}
