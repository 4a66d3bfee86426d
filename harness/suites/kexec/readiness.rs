//! What is looked at before anything is done.

use serde_json::Value;

use super::report::{nothing_is_loaded, refused};
use super::{LOOK, OWN};
use crate::check;
use crate::failure::Failure;
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, Vm};

pub async fn system_readiness(vm: &Vm) -> Result<(), Failure> {
    let arguments = ["kexec", "--check-prereq", BOOT_KERNEL, "--initrd", BOOT_INITRD, "--json"];
    let text = vm.graphctl_within(&arguments, LOOK).await?;
    let found: Value = serde_json::from_str(&text).unwrap_or_default();
    check!(found["usable"] == true, "a kernel cannot be loaded here: {text}");
    let release = vm.sh("uname -r").await?;
    check!(text.contains(release.trim()), "the guest's own kernel is not told by its release: {text}");
    nothing_is_loaded(vm).await?;
    let text = vm.graphctl_within(&["checkpoint", "--check", "--json"], LOOK).await?;
    let found: Value = serde_json::from_str(&text).unwrap_or_default();
    check!(found["usable"] == true, "no checkpoints can be made here: {text}");
    for feature in ["tcp-sockets", "unix-sockets", "udp-sockets", "netlink-sockets", "socket-options"] {
        let there = found["features"].as_array().is_some_and(|features| {
            features.iter().any(|one| one["name"] == feature && one["verdict"] == "supported")
        });
        check!(there, "{feature} are not supported: {text}");
    }
    Ok(())
}

/// How a file is made, and what is said of it.
const NO_KERNELS: [(&str, &str); 4] = [
    ("echo '#!/bin/sh' > /run/image", "it is no kernel for x86"),
    ("head -c 1000000 /boot/vmlinuz > /run/image", "it is truncated"),
    ("cp /sbin/graph-resolver /run/image", "it is an ELF file"),
    ("rm -f /run/image", "No such file"),
];

pub async fn kernel_validation(vm: &Vm) -> Result<(), Failure> {
    let before = vm.status().await?;
    for (make, expected) in NO_KERNELS {
        vm.sh(make).await?;
        let report =
            refused(vm, &["kexec", "--dry-run", "/run/image", "--initrd", BOOT_INITRD], LOOK).await?;
        let note = report.note("files")?;
        check!(
            !note.ok && note.detail.contains(expected) && note.detail.contains("/run/image"),
            "after `{make}` it says {note:?}"
        );
    }
    vm.sh("echo hello > /run/initrd").await?;
    let report = refused(vm, &["kexec", "--dry-run", BOOT_KERNEL, "--initrd", "/run/initrd"], LOOK).await?;
    let note = report.note("files")?;
    check!(!note.ok && note.detail.contains("no initrd"), "of a text as initrd it says {note:?}");
    vm.sh("rm /run/initrd").await?;
    let report = refused(vm, &["kexec", "--dry-run", BOOT_KERNEL], LOOK).await?;
    let note = report.note("place")?;
    check!(!note.ok && note.detail.contains("no initrd"), "without an initrd it says {note:?}");
    let long = "x".repeat(5000);
    let report = refused(vm, &[&OWN[..], &["--append", &long]].concat(), LOOK).await?;
    let note = report.note("command-line")?;
    check!(!note.ok, "of 5000 characters more it says {note:?}");
    let after = vm.status().await?;
    check!(after.revision == before.revision, "a refused kernel has changed something: {after:?}");
    Ok(())
}

pub async fn kexec_prerequisites(vm: &Vm) -> Result<(), Failure> {
    // Each name, and whether `--check-prereq` says it, which does without CRIU and the supervisor.
    const NEEDED: [(&str, bool); 11] = [
        ("kexec", true),
        ("allowed", true),
        ("right", true),
        ("lockdown", true),
        ("files", true),
        ("command-line", false),
        ("nothing-else", false),
        ("criu", false),
        ("supervisor", false),
        ("memory", false),
        ("storage", false),
    ];
    let early =
        vm.graphctl_within(&["kexec", "--check-prereq", BOOT_KERNEL, "--initrd", BOOT_INITRD], LOOK).await?;
    // It stays off until the next boot.
    vm.sh("echo 1 > /proc/sys/kernel/kexec_load_disabled").await?;
    let report = refused(vm, &OWN, LOOK).await?;
    for (name, is_early) in NEEDED {
        let note = report.note(name)?;
        check!(note.ok == (name != "allowed"), "of {name} it says {note:?}");
        check!(!is_early || early.contains(name), "--check-prereq does not name {name}: {early}");
    }
    let note = report.note("allowed")?;
    check!(
        note.detail.contains("kexec_load_disabled is 1")
            && note.fix.as_ref().is_some_and(|fix| fix.contains("kexec_load_disabled=0")),
        "of what is switched off it says {note:?}"
    );
    let late = vm.run(&["graphctl", "kexec", "--check-prereq"], vm.limit(LOOK)).await?;
    check!(
        !late.success() && late.text().contains("No kernel can be loaded here"),
        "it says {}",
        late.text()
    );
    Ok(())
}
