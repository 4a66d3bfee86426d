//! What is kept of a guest in which a scenario failed: enough to understand it without running it again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use yakiros_guest::protocol::Exec;
use yakiros_vm::machine::Guest;

/// For each piece; a guest in trouble must not hold up the run.
const PIECE_LIMIT: Duration = Duration::from_secs(3);

/// File name and the command whose output goes into it. The console's log is there already.
const PIECES: [(&str, &[&str]); 8] = [
    ("dmesg.txt", &["dmesg"]),
    ("status.json", &["graphctl", "status", "--json"]),
    ("journal.json", &["graphctl", "events", "--json"]),
    ("processes.txt", &["ps", "-o", "pid,ppid,stat,vsz,rss,args"]),
    ("pid1.txt", &["sh", "-c", "cat /proc/1/status /proc/1/wchan; ls -l /proc/1/fd; cat /proc/1/mountinfo"]),
    ("cgroups.txt", &["sh", "-c", "find /sys/fs/cgroup -name cgroup.procs -exec grep -H . {} +"]),
    ("memory.txt", &["sh", "-c", "cat /proc/meminfo; df"]),
    ("logs.txt", &["sh", "-c", "tail -n 50 /run/graph/*.log; cat /etc/graph.d/*.toml"]),
];

/// Collects what the guest still gives into the folder. What it does not give is said in the file.
pub async fn collect(guest: &Guest, folder: &Path) {
    if guest.has_ended() {
        return; // its console and its disks are all there is
    }
    for (file, argv) in PIECES {
        let argv = argv.iter().map(ToString::to_string).collect();
        let text = match guest.exec(Exec { argv, ..Exec::default() }, PIECE_LIMIT).await {
            Ok(output) => [output.stdout, output.stderr].concat(),
            Err(error) => format!("{error}\n").into_bytes(),
        };
        if let Err(error) = fs::write(folder.join(file), text) {
            eprintln!("failed to write {}: {error}", folder.join(file).display());
        }
        if guest.console.fatal_finding().is_some() {
            return; // it will answer nothing more
        }
    }
}
