//! What the program may ask of the kernel: filters of system calls, and Landlock.

use std::fs;

use yakiros_core::component::seccomp::meaning_of;

use super::{Row, compare, compare_in, start};

#[test]
fn system_calls_are_filtered() {
    compare(&[
        Row {
            name: "allowed",
            free: "",
            bound: "[security]\nseccomp = [\"@service\"]",
            script: "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; \
                     mount -t tmpfs x /mnt 2>/dev/null && umount /mnt && echo mounted; true",
            without: "NoNewPrivs: 0 Seccomp: 0 mounted",
            with: "NoNewPrivs: 1 Seccomp: 2",
        },
        Row {
            name: "forbidden",
            free: "",
            bound: "[security]\nseccomp = [\"~@mount\", \"~uname\"]",
            script: "uname 2>/dev/null; mount -t tmpfs x /mnt 2>/dev/null && umount /mnt && echo mounted; true",
            without: "Linux mounted",
            with: "",
        },
        Row {
            name: "killed",
            free: "[security]\nseccomp = [\"~uname\"]",
            bound: "[security]\nseccomp = [\"~uname\"]\nseccomp_action = \"kill\"",
            // 128 and the number of SIGSYS.
            script: "uname 2>/dev/null; echo $?",
            without: "1",
            with: "159",
        },
    ]);
}

/// A program that was never allowed to ask for its own number is told it with the descriptors that it is given.
#[test]
fn what_is_given_under_a_filter_is_known_to_be_the_programs_own() {
    let calls = meaning_of(&["@service".to_owned()]).calls;
    let calls: Vec<_> = calls.into_iter().filter(|call| *call != "getpid").collect();
    let given = |name: &str| {
        format!(
            "[isolation]\nnamespaces = [\"pid\"]\n[[sockets]]\nname = \"web\"\nlisten = \"@DIR@/{name}.sock\"\n"
        )
    };
    let bound = format!("{}[security]\nseccomp = {calls:?}", given("bound")).leak();
    compare(&[Row {
        name: "given",
        free: given("free").leak(),
        bound,
        script: "echo $LISTEN_PID; grep Seccomp: /proc/self/status",
        without: "1 Seccomp: 0",
        with: "1 Seccomp: 2",
    }]);
}

#[test]
fn paths_are_restricted_by_landlock() {
    let Some(guest) = start() else { return };
    for dir in ["in", "out"] {
        fs::create_dir(guest.dir.path().join(dir)).expect("a directory");
        fs::write(guest.dir.path().join(dir).join("file"), dir).expect("a file");
    }
    compare_in(
        &guest,
        &[
            Row {
                name: "write",
                free: "",
                bound: "[security]\nlandlock_write = [\"@DIR@/in\", \"/dev/null\"]",
                script: "touch @DIR@/in/$$ && echo in; touch @DIR@/out/$$ 2>/dev/null && echo out; \
                         echo > /dev/null && echo null",
                without: "in out null",
                with: "in null",
            },
            Row {
                name: "read",
                free: "",
                bound: "[security]\nlandlock_read = [\"/usr\", \"/lib\", \"/lib64\", \"/bin\", \"/etc/ld.so.cache\", \"@DIR@/in\"]",
                script: "cat @DIR@/in/file; cat @DIR@/out/file 2>/dev/null; true",
                without: "inout",
                with: "in",
            },
            Row {
                name: "execute",
                free: "",
                bound: "[security]\nlandlock_execute = [\"/usr/lib\", \"/lib64\", \"/usr/bin/id\"]",
                script: "/usr/bin/id -u; /usr/bin/whoami 2>/dev/null; true",
                without: "0 root",
                with: "0",
            },
        ],
    );
}
