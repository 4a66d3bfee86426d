//! What cannot be done here and now.

use super::report::{nothing_is_loaded, refused};
use super::{KEPT, LOOK, OWN};
use crate::check;
use crate::failure::Failure;
use crate::vm::{BOOT_KERNEL, Vm};

pub async fn error_handling(vm: &Vm) -> Result<(), Failure> {
    vm.step("an ordinary user", an_ordinary_user(vm)).await?;
    vm.step("too little memory", too_little_memory(vm)).await?;
    vm.step("too little room", too_little_room(vm)).await?;
    vm.step("what is there already", what_is_there_already(vm)).await?;
    let report = refused(vm, &[&OWN[..], &["--criu", "/nowhere/criu"]].concat(), LOOK).await?;
    let note = report.note("criu")?;
    check!(!note.ok && note.detail.contains("no CRIU"), "without CRIU it says {note:?}");
    let report = refused(vm, &[&["--socket", "/nowhere"], &OWN[..]].concat(), LOOK).await?;
    let note = report.note("supervisor")?;
    check!(!note.ok && note.detail.contains("/nowhere"), "without a supervisor it says {note:?}");
    let report = refused(vm, &[&OWN[..], &["--append", "root=/dev/vda"]].concat(), LOOK).await?;
    let note = report.note("place")?;
    check!(!note.ok && note.detail.contains("/dev/vda"), "with another root it says {note:?}");
    let report = refused(vm, &[&OWN[..], &["--append", "yakiros.checkpoint=/mnt"]].concat(), LOOK).await?;
    let note = report.note("place")?;
    check!(!note.ok && note.detail.contains("in memory"), "with a base that is no disk it says {note:?}");
    check!(!vm.run(&["test", "-e", KEPT], LOOK).await?.success(), "{KEPT} was made");
    Ok(())
}

async fn an_ordinary_user(vm: &Vm) -> Result<(), Failure> {
    let command = format!("graphctl --json {}", OWN.join(" "));
    for mode in ["600", "644"] {
        vm.sh(&format!("chmod {mode} /boot/*")).await?;
        let output = vm.run(&["su", "-s", "/bin/sh", "nobody", "-c", &command], vm.limit(LOOK)).await?;
        let said = output.text();
        check!(
            !output.success() && said.contains("CAP_SYS_BOOT is missing") && said.contains("do it as root"),
            "an ordinary user is told {said} {}",
            output.error_text()
        );
    }
    vm.sh("chmod 600 /boot/*").await?;
    let output = vm.run(&["su", "-s", "/bin/sh", "nobody", "-c", "graphctl kexec --unload"], LOOK).await?;
    check!(!output.success(), "an ordinary user may unload a kernel");
    nothing_is_loaded(vm).await
}

async fn too_little_memory(vm: &Vm) -> Result<(), Failure> {
    // It has no blocks but the first.
    vm.sh("head -c 4096 /boot/initrd > /run/large; truncate -s 3G /run/large").await?;
    let report = refused(vm, &["kexec", "--dry-run", BOOT_KERNEL, "--initrd", "/run/large"], LOOK).await?;
    vm.sh("rm /run/large").await?;
    let note = report.note("memory")?;
    check!(
        !note.ok && note.detail.contains("MiB") && note.fix.is_some(),
        "of an initrd that is larger than memory it says {note:?}"
    );
    Ok(())
}

async fn too_little_room(vm: &Vm) -> Result<(), Failure> {
    vm.sh(&format!("mkdir -p {KEPT}; mount -t tmpfs -o size=1m,mode=700 small {KEPT}")).await?;
    let report = refused(vm, &OWN, LOOK).await?;
    vm.sh(&format!("umount {KEPT}; rmdir -p {KEPT} 2>/dev/null || true")).await?;
    let note = report.note("storage")?;
    check!(!note.ok && note.detail.contains(KEPT), "with 1 MiB for all images it says {note:?}");
    Ok(())
}

/// A manifest that waits, and a kernel that somebody else has loaded, stay.
async fn what_is_there_already(vm: &Vm) -> Result<(), Failure> {
    vm.sh("mkdir /checkpoint; echo '{}' > /checkpoint/manifest.json").await?;
    let report = refused(vm, &OWN, LOOK).await?;
    let note = report.note("nothing-else")?;
    check!(!note.ok && note.detail.contains("/checkpoint/manifest.json"), "with a manifest it says {note:?}");
    vm.sh("grep -q '{}' /checkpoint/manifest.json; rm -r /checkpoint").await?;
    vm.succeed(&["kexec", "--no-checks", "-c", "-l", "/boot/vmlinuz", "--reuse-cmdline"], LOOK).await?;
    let output = vm.run(&[&["graphctl", "--json"], &OWN[..]].concat(), vm.limit(LOOK)).await?;
    let said = output.text();
    check!(!output.success() && said.contains("a kernel is loaded already"), "with a kernel it says {said}");
    let loaded = vm.read(super::LOADED).await?;
    check!(loaded.trim() == "1", "somebody else's kernel was taken back");
    vm.graphctl(&["kexec", "--unload"]).await?;
    nothing_is_loaded(vm).await
}
