//! What can be asked about another kernel.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::checkpoints::arguments::Place;

/// Examples of the command.
pub const EXAMPLES: &str = "\
Examples:
  graphctl kexec --check-prereq           whether this kernel lets another one be loaded
  graphctl kexec --check-prereq /boot/vmlinuz-virt --initrd /boot/initramfs-virt
  graphctl kexec --dry-run /boot/vmlinuz-virt --initrd /boot/initramfs-virt
                                          everything but the jump, and back: every service runs on
  graphctl kexec /boot/vmlinuz-virt --initrd /boot/initramfs-virt --append \"loglevel=5\"
                                          into the new kernel, with every service as it is
  graphctl kexec --list-checkpoints       the checkpoint that each component would be restored from
  graphctl kexec --create-manifest /mnt/manifest.json
  graphctl kexec --unload                 take back a kernel that is loaded

The new kernel is told what this one was told, and what --append adds. What it has to find lies in its initrd, unless it is
told yakiros.checkpoint=DIR: then in DIR, which has to be on a disk that is mounted
before its process 1 starts.

Exit codes: 0 done, 1 refused or failed, and everything is as before, 2 usage, 3 no supervisor.";

/// About another kernel.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(
    ["kernel", "check_prereq", "list_checkpoints", "create_manifest", "unload"]
))]
pub struct Kexec {
    /// The kernel: a bzImage
    pub kernel: Option<PathBuf>,
    /// What it is to begin with: an archive (cpio), as it is or compressed
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// What it is told beside what this kernel was told
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Go through everything but the jump, then undo it
    #[arg(long, requires = "kernel", conflicts_with_all = ["force", "check_prereq", "list_checkpoints", "create_manifest", "unload"])]
    pub dry_run: bool,
    /// Do not ask before services are stopped
    #[arg(long, short, requires = "kernel", conflicts_with_all = ["check_prereq", "list_checkpoints", "create_manifest", "unload"])]
    pub force: bool,
    /// Show what each phase found, one by one
    #[arg(long, short)]
    pub verbose: bool,
    /// Seconds that the checkpoint of one component may take
    #[arg(long, value_parser = crate::arguments::seconds, default_value = "20", value_name = "SECONDS")]
    pub timeout: Duration,
    /// Where the supervisor keeps checkpoints
    #[command(flatten)]
    pub place: Place,
    /// CRIU, as a path or a name
    #[arg(long, default_value = yakiros_checkpoint::criu::NAME, value_name = "PROGRAM")]
    pub criu: PathBuf,
    /// Tell what is needed to load a kernel beside this one, and what is missing
    #[arg(long, conflicts_with_all = ["list_checkpoints", "create_manifest", "unload"])]
    pub check_prereq: bool,
    /// Show the newest usable checkpoint of each component
    #[arg(long, conflicts_with_all = ["create_manifest", "unload", "kernel"])]
    pub list_checkpoints: bool,
    /// Write a manifest of the newest usable checkpoint of each component
    #[arg(long, value_name = "FILE", conflicts_with = "unload")]
    pub create_manifest: Option<PathBuf>,
    /// Take back a kernel that is loaded
    #[arg(long, conflicts_with = "kernel")]
    pub unload: bool,
}
