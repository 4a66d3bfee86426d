//! The supervisors: where they come from, and how each is told to keep the same services running.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::arena::SERVICE;

/// What services are declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    /// So many, none of which needs another.
    Independent(usize),
    /// So many, each of which needs the one before.
    Chain(usize),
    /// So many, each with a native probe each second, spread over the kinds of probes.
    Probed(usize),
}

/// A supervisor.
#[derive(Debug)]
pub struct Init {
    /// Its name.
    pub name: &'static str,
    /// Debian's packages of it, the first of which gives the version; none where there is no package.
    pub packages: &'static [&'static str],
    /// How it is executed as process 1.
    pub argv: &'static [&'static str],
    /// Write its files. `false` when it has no such thing.
    pub declare: fn(&Path, Services) -> io::Result<bool>,
}

/// Our own.
pub const RESOLVER: Init = Init {
    name: "graph-resolver",
    packages: &[],
    argv: &["/sbin/graph-resolver", "--log", "stderr"],
    declare: declare_resolver,
};

/// No supervisor: what the machine itself takes to do what a supervisor does.
pub const FLOOR: Init = Init {
    name: "floor",
    packages: &[],
    argv: &["/sbin/test-floor", "--program", SERVICE, "--count-file", "/etc/count"],
    declare: declare_floor,
};

/// The others. Debian has no package of dinit; its folder has to be given.
pub const PEERS: [Init; 4] = [
    Init { name: "dinit", packages: &[], argv: &["/usr/sbin/dinit"], declare: declare_dinit },
    Init { name: "finit", packages: &["finit"], argv: &["/usr/sbin/finit"], declare: declare_finit },
    Init {
        name: "s6",
        packages: &["s6", "execline"],
        argv: &["/usr/bin/s6-svscan", "-c", "500", "/services"],
        declare: declare_s6,
    },
    Init {
        name: "runit",
        packages: &["runit"],
        argv: &["/usr/bin/runsvdir", "-P", "/services"],
        declare: declare_runit,
    },
];

fn declare_resolver(root: &Path, services: Services) -> io::Result<bool> {
    let folder = root.join("etc/graph.d");
    fs::create_dir_all(&folder)?;
    let component = |name: &str, args: &str, more: &str| {
        let text = format!("[component]\nname = \"{name}\"\nbinary = \"{SERVICE}\"\nargs = [{args}]\n{more}");
        fs::write(folder.join(format!("{name}.toml")), text)
    };
    match services {
        Services::Independent(count) => {
            for at in 0..count {
                component(&format!("s{at}"), "", "")?;
            }
        }
        Services::Chain(count) => {
            for at in 0..count {
                let mut more = format!("[provides]\ncapabilities = [\"c{at}\"]\n");
                if at > 0 {
                    let _ = write!(more, "[requires]\ncapabilities = [\"c{}\"]\n", at - 1);
                }
                component(&format!("s{at}"), "", &more)?;
            }
        }
        Services::Probed(count) => {
            let kinds =
                ["health_tcp = \"127.0.0.1:7\"", "health_unix = \"/run/s\"", "health_file = \"/dev/null\""];
            component("target", "\"--tcp\", \"127.0.0.1:7\", \"--unix\", \"/run/s\"", "")?;
            for at in 0..count {
                let more = format!("[lifecycle]\nhealth_interval = 1\n{}\n", kinds[at % kinds.len()]);
                component(&format!("s{at}"), "", &more)?;
            }
        }
    }
    Ok(true)
}

/// One after the other is started when the one before is executed: independent ones and a chain are the same.
fn declare_floor(root: &Path, services: Services) -> io::Result<bool> {
    let (Services::Independent(count) | Services::Chain(count)) = services else {
        return Ok(false);
    };
    fs::write(root.join("etc/count"), count.to_string())?;
    Ok(true)
}

fn declare_dinit(root: &Path, services: Services) -> io::Result<bool> {
    let folder = root.join("etc/dinit.d");
    fs::create_dir_all(folder.join("boot.d"))?;
    let (count, chain) = match services {
        Services::Independent(count) => (count, false),
        Services::Chain(count) => (count, true),
        Services::Probed(_) => return Ok(false),
    };
    for at in 0..count {
        // Restarted at once and without limit, which is the least it can be told to wait.
        let mut text = format!(
            "type = process\ncommand = {SERVICE}\nrestart = true\nsmooth-recovery = true\nrestart-delay = 0\n\
             restart-limit-count = 0\n"
        );
        if chain && at > 0 {
            let _ = writeln!(text, "depends-on = s{}", at - 1);
        }
        fs::write(folder.join(format!("s{at}")), text)?;
        symlink(format!("../s{at}"), folder.join(format!("boot.d/s{at}")))?;
    }
    fs::write(folder.join("boot"), "type = internal\nwaits-for.d = boot.d\n")?;
    Ok(true)
}

fn declare_finit(root: &Path, services: Services) -> io::Result<bool> {
    let Services::Independent(count) = services else {
        return Ok(false);
    };
    let mut text = String::from("runlevel 2\nhostname bench\n");
    for at in 0..count {
        let _ = writeln!(text, "service [2] name:stamp :{at} {SERVICE} -- service {at}");
    }
    fs::create_dir_all(root.join("etc/finit.d"))?;
    fs::write(root.join("etc/finit.conf"), text)?;
    Ok(true)
}

fn declare_runit(root: &Path, services: Services) -> io::Result<bool> {
    declare_scanned(root, services, |run| symlink(SERVICE, run))
}

/// s6 gives each program its directory's name as an argument, which its own script language drops.
fn declare_s6(root: &Path, services: Services) -> io::Result<bool> {
    declare_scanned(root, services, |run| {
        fs::write(run, format!("#!/usr/bin/execlineb -P\n{SERVICE}\n"))?;
        fs::set_permissions(run, fs::Permissions::from_mode(0o755))
    })
}

/// A directory for each service, with its program in it.
fn declare_scanned(
    root: &Path,
    services: Services,
    program: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    let Services::Independent(count) = services else {
        return Ok(false);
    };
    for at in 0..count {
        let folder = root.join(format!("services/s{at}"));
        fs::create_dir_all(&folder)?;
        program(&folder.join("run"))?;
    }
    Ok(true)
}
