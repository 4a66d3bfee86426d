//! What the program sees of the file system.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Row, compare, compare_in, start};

#[test]
fn mounts_show_what_is_declared_and_nothing_else_changes() {
    let Some(guest) = start() else { return };
    for dir in ["data", "data/inner", "other", "locked", "sealed"] {
        fs::create_dir(guest.dir.path().join(dir)).expect("a directory");
    }
    fs::write(guest.dir.path().join("other/file"), "found").expect("a file");
    fs::write(guest.dir.path().join("locked/file"), "seen").expect("a file");
    // As on a machine of its own, where what one process mounts others see.
    let shared = guest.command_inside(&["-m"]).args(["mount", "--make-rshared", "/"]).status();
    assert!(shared.expect("nsenter").success());
    // Only the mount is read-only, and not what is mounted.
    let (other, sealed) = (guest.dir.path().join("other"), guest.dir.path().join("sealed"));
    let sealed =
        guest.command_inside(&["-m"]).args(["mount", "--bind", "-o", "ro"]).args([other, sealed]).status();
    assert!(sealed.expect("nsenter").success());
    let before = fs::read_to_string(format!("/proc/{}/mountinfo", guest.init_pid())).expect("mounts");
    compare_in(
        &guest,
        &[
            Row {
                name: "tmp",
                free: "",
                bound: "[isolation]\nnamespaces = [\"mount\"]",
                script: "test -e @DIR@ && echo seen; stat -f -c %T /tmp | grep -c tmpfs; stat -c %a /tmp; \
                         grep ' /tmp ' /proc/self/mountinfo | grep -c nosuid,nodev; true",
                without: if tmp_is_tmpfs() { "seen 1 1777 0" } else { "seen 0 1777 0" },
                with: "1 1777 1",
            },
            Row {
                name: "read-only",
                free: "",
                bound: "[isolation]\nnamespaces = [\"mount\"]\nprivate_tmp = false\nread_only = [\"@DIR@/data\"]",
                script: "touch @DIR@/data/inner/$$ 2>/dev/null && echo inside; touch @DIR@/$$ && echo beside",
                without: "inside beside",
                with: "beside",
            },
            Row {
                name: "whole",
                free: "",
                bound: "[isolation]\nnamespaces = [\"mount\"]\nprivate_tmp = false\nread_only = [\"/\"]\n\
                        tmpfs = [\"@DIR@/data\"]\nbinds = [\"@DIR@/other:@DIR@/locked\"]",
                script: "touch @DIR@/$$ 2>/dev/null && echo whole; touch @DIR@/data/$$ && echo memory; \
                         touch @DIR@/locked/x && echo bind",
                without: "whole memory bind",
                with: "memory bind",
            },
            Row {
                name: "sealed",
                free: "",
                bound: "[isolation]\nnamespaces = [\"mount\"]\nprivate_tmp = false\nread_only = [\"/\"]\n\
                        binds = [\"@DIR@/sealed:@DIR@/locked\", \"@DIR@:/mnt\"]",
                script: "touch @DIR@/locked/x 2>/dev/null && echo bind; touch /mnt/sealed/x 2>/dev/null && echo below; \
                         touch /mnt/x && echo beside",
                without: "bind beside",
                with: "beside",
            },
            Row {
                name: "bind",
                free: "",
                bound: "[isolation]\nnamespaces = [\"mount\"]\nprivate_tmp = false\n\
                        binds = [\"@DIR@/other:@DIR@/data/inner:ro\"]",
                script: "cat @DIR@/data/inner/file 2>/dev/null; touch @DIR@/data/inner/$$ 2>/dev/null && echo written; true",
                without: "written",
                with: "found",
            },
            Row {
                name: "hidden",
                free: "",
                bound: "[isolation]\nnamespaces = [\"mount\"]\nprivate_tmp = false\n\
                        inaccessible = [\"@DIR@/other/file\", \"@DIR@/locked\"]",
                script: "cat @DIR@/other/file @DIR@/locked/file 2>/dev/null; true",
                without: "foundseen",
                with: "",
            },
        ],
    );
    let after = fs::read_to_string(format!("/proc/{}/mountinfo", guest.init_pid())).expect("mounts");
    assert_eq!(before, after, "mounts came out of their namespaces");
}

fn tmp_is_tmpfs() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    mounts.lines().any(|line| line.split(' ').skip(1).take(2).eq(["/tmp", "tmpfs"]))
}

#[test]
fn a_root_of_its_own_cannot_be_left() {
    let Some(guest) = start() else { return };
    for dir in ["root", "root/usr", "root/proc", "root/tmp", "root/run"] {
        fs::create_dir(guest.dir.path().join(dir)).expect("a directory");
    }
    for link in ["bin", "lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), guest.dir.path().join("root").join(link))
            .expect("a link");
    }
    // A link that leads out of the root does not.
    std::os::unix::fs::symlink("/etc", guest.dir.path().join("root/outside")).expect("a link");
    compare_in(
        &guest,
        &[Row {
            name: "root",
            free: "",
            bound: "[isolation]\nnamespaces = [\"mount\", \"pid\"]\nroot = \"@DIR@/root\"\nbinds = [\"/usr:/usr:ro\"]",
            script: "test -e /etc/passwd && echo outside; test -e @DIR@ && echo seen; \
                     test -e /proc/1/root/etc && echo root; cd ../../..; test -e etc && echo above; \
                     test -e /outside/passwd && echo through; \
                     grep -q ' - sysfs ' /proc/self/mountinfo && echo old; touch /usr/x-$$ 2>&- && rm /usr/x-$$ && echo written; true",
            without: "outside seen root above old written",
            with: "",
        }],
    );
}

#[test]
fn secrets_are_for_the_components_user_alone() {
    let Some(guest) = start() else { return };
    let secret = guest.dir.path().join("password");
    fs::write(&secret, "hush").expect("a secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("its mode");
    compare_in(
        &guest,
        &[
            Row {
                name: "secret",
                free: "[security]\nuser = 33",
                bound: "[security]\nuser = 33\n[isolation]\nnamespaces = [\"mount\"]\nsecrets = { key = \"@DIR@/password\" }",
                script: "cd ${CREDENTIALS_DIRECTORY:-@DIR@} && cat key password 2>/dev/null; stat -c '%a %u' key 2>/dev/null; \
                     touch x 2>/dev/null && echo written; true",
                without: "",
                with: "hush400 33",
            },
            // What gives the program little room gives what is done before enough.
            Row {
                name: "narrow",
                free: "[security]\nuser = 33\n[resources]\nfiles_max = 4\nrlimits = { fsize = 1 }",
                bound: "[security]\nuser = 33\n[resources]\nfiles_max = 4\nrlimits = { fsize = 1 }\n[isolation]\n\
                        namespaces = [\"mount\"]\nsecrets = { key = \"@DIR@/password\" }\n\
                        binds = [\"/usr:/mnt:ro\", \"/etc:/media:ro\"]",
                script: "test -z \"$CREDENTIALS_DIRECTORY\" || cat $CREDENTIALS_DIRECTORY/key; ulimit -n",
                without: "4",
                with: "hush4",
            },
        ],
    );
    assert!(!std::path::Path::new("/run/secrets/key").exists(), "it is seen outside");
}

#[test]
fn the_file_system_of_processes_shows_its_namespace() {
    compare(&[
        Row {
            name: "proc",
            free: "",
            bound: "[isolation]\nnamespaces = [\"mount\", \"pid\"]\nprivate_tmp = false",
            script: "test -e /proc/$PPID/stat && echo parent; cat /proc/1/comm",
            without: "parent graph-resolver",
            with: "sh",
        },
        Row {
            name: "hidepid",
            free: "[isolation]\nnamespaces = [\"mount\", \"pid\"]\ninit = true\n[security]\nuser = 33",
            bound: "[isolation]\nnamespaces = [\"mount\", \"pid\"]\nhidepid = true\n[security]\nuser = 33",
            script: "grep ' /proc ' /proc/self/mountinfo | grep -c hidepid; true",
            without: "0",
            with: "1",
        },
    ]);
}
