//! Sockets by `/proc/PID/net`, once for each network namespace.

use yakiros_guest::ledger::{Process, Socket};

use super::{Holders, lines};

/// A file of `/proc/net`, the columns of name and inode, counted from 0. proc_pid_net(5); of packet sockets the name is
/// the protocol.
const PROTOCOLS: [(&str, usize, usize); 8] = [
    ("tcp", 1, 9),
    ("tcp6", 1, 9),
    ("udp", 1, 9),
    ("udp6", 1, 9),
    ("raw", 1, 9),
    ("raw6", 1, 9),
    ("packet", 3, 8),
    ("unix", 7, 6),
];

/// All sockets that somebody can have open. Those of connections that are over, or that nobody has accepted yet, have no
/// inode and no owner, and go by themselves.
pub fn all(processes: &[Process], holders: &Holders) -> Vec<Socket> {
    let mut namespaces: Vec<(u64, i32)> = Vec::new();
    for process in processes {
        if let Some(&namespace) = process.namespaces.get("net")
            && !namespaces.iter().any(|(known, _)| *known == namespace)
        {
            namespaces.push((namespace, process.pid));
        }
    }
    let mut all = Vec::new();
    for (namespace, pid) in namespaces {
        for (protocol, name_at, inode_at) in PROTOCOLS {
            for line in lines(&format!("/proc/{pid}/net/{protocol}")).skip(1) {
                let Some((inode, name)) = socket(&line, name_at, inode_at) else { continue };
                let holders = holders.get(&inode).cloned().unwrap_or_default();
                all.push(Socket { namespace, protocol: protocol.into(), inode, name, holders });
            }
        }
    }
    all
}

fn socket(line: &str, name_at: usize, inode_at: usize) -> Option<(u64, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let inode = fields.get(inode_at)?.parse().ok().filter(|inode| *inode != 0)?;
    Some((inode, fields.get(name_at).copied().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_by_their_columns() {
        let tcp = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 812 1 0 100";
        assert_eq!(socket(tcp, 1, 9), Some((812, "0100007F:1F90".into())));
        let waiting = tcp.replace(" 812 ", " 0 ");
        assert_eq!(socket(&waiting, 1, 9), None);
        let unix = "000000004a06ebde: 00000002 00000000 00010000 0001 01    77 /run/graph-resolver.sock";
        assert_eq!(socket(unix, 7, 6), Some((77, "/run/graph-resolver.sock".into())));
        let pair = "00000000300e7119: 00000003 00000000 00000000 0001 03    75";
        assert_eq!(socket(pair, 7, 6), Some((75, String::new())));
    }
}
