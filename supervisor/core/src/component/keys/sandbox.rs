//! Keys of what a component is kept from.

use super::{EMPTY, FALSE, Fallback, Key, NONE, OWN, Shape, key, words};
use crate::component::{Namespace, Restriction, SeccompAction, SecureBit};

pub(super) const ISOLATION: &[Key] = &[
    key("namespaces", Shape::Words(words::<Namespace>), EMPTY, "Namespaces of its own."),
    key(
        "hostname",
        Shape::HostName,
        Fallback::Words("the machine's"),
        "Host name that the component sees. Needs the namespace `uts`.",
    ),
    key(
        "root",
        Shape::Path,
        Fallback::Words("the machine's"),
        "Directory that becomes the component's `/`. Needs the namespace `mount`.",
    ),
    key(
        "private_tmp",
        Shape::Truth,
        Fallback::Words("`true` with the namespace `mount`, else `false`"),
        "A `/tmp` of its own. Needs the namespace `mount`.",
    ),
    key(
        "read_only",
        Shape::Paths,
        EMPTY,
        "Below these nothing can be written, but for what `private_tmp`, `tmpfs` and `binds` mount there. Needs the \
         namespace `mount`.",
    ),
    key(
        "inaccessible",
        Shape::Paths,
        EMPTY,
        "An empty directory, or a file that cannot be opened, stands in the place of these. Needs the namespace `mount`.",
    ),
    key(
        "binds",
        Shape::Binds,
        EMPTY,
        "What is seen in another place: `\"/source:/target\"`, with `:ro` behind if nothing can be written there. Sources \
         lie outside of `root`, targets inside, and have to be there. Needs the namespace `mount`.",
    ),
    key(
        "tmpfs",
        Shape::Tmpfs,
        EMPTY,
        "Empty file systems in memory: `\"/path\"`, or `\"/path:size=16M\"`. Needs the namespace `mount`.",
    ),
    key(
        "hidepid",
        Shape::Truth,
        FALSE,
        "Whether `/proc` shows a process only to who may trace it. Needs the namespaces `mount` and `pid`.",
    ),
    key(
        "uid_map",
        Shape::IdMaps,
        Fallback::Words("the first 65536, each as it is"),
        "Users of the namespace: `\"INSIDE OUTSIDE COUNT\"`. Needs the namespace `user`.",
    ),
    key(
        "gid_map",
        Shape::IdMaps,
        Fallback::Words("the first 65536, each as it is"),
        "Groups of the namespace: the same. Needs the namespace `user`.",
    ),
    key(
        "time_offsets",
        Shape::TimeOffsets,
        Fallback::Words("none"),
        "Seconds that the clocks are ahead, or behind: `{ monotonic = 3600, boottime = 3600 }`. Needs the namespace `time`.",
    ),
    key(
        "network",
        Shape::Network,
        Fallback::Words("none"),
        "An interface `eth0` in the namespace, with the other end at a bridge of the machine, and its address: \
         `{ bridge = \"br0\", address = \"10.0.0.2/24\", gateway = \"10.0.0.1\" }`; the gateway may be missing. It goes with \
         the namespace. Needs the namespace `net`.",
    ),
    key(
        "init",
        Shape::Truth,
        FALSE,
        "Whether a small process of the supervisor's is the first of the namespace: it reaps whom the program leaves \
         behind, passes signals on to it, and ends as it ends (by a signal: with 128 and its number). Needs the namespace \
         `pid`.",
    ),
    key(
        "secrets",
        Shape::Secrets,
        NONE,
        "Files of at most 1 MiB that are copied to memory at each start, in a directory that `CREDENTIALS_DIRECTORY` \
         tells and only this component sees; only its user can read them: `{ password = \"/etc/web/password\" }`. Needs \
         the namespace `mount`.",
    ),
];

pub(super) const SECURITY: &[Key] = &[
    key(
        "user",
        Shape::Account,
        OWN,
        "Whose processes they are: a number, or a name in `/etc/passwd`, which is looked up at each start.",
    ),
    key(
        "group",
        Shape::Account,
        Fallback::Words(
            "that of the user in `/etc/passwd`; for a number, the group of that number; without a user the supervisor's own",
        ),
        "Their group: a number, or a name in `/etc/group`.",
    ),
    key(
        "groups",
        Shape::Accounts,
        EMPTY,
        "Their other groups; with a `user` or a `group` they have no others.",
    ),
    key(
        "no_new_privs",
        Shape::Truth,
        Fallback::Words("`true` with `seccomp`, else `false`"),
        "Whether exec gives nobody privileges: neither set-user-ID bits nor capabilities of files count.",
    ),
    key(
        "capabilities",
        Shape::CapabilitySet,
        Fallback::Words("the supervisor's own"),
        "All capabilities that they may ever have (capabilities(7)): the bounding, permitted and effective set. `[]` for \
         none. A program that is not root's gets those that `ambient_capabilities` names, too.",
    ),
    key(
        "ambient_capabilities",
        Shape::CapabilitySet,
        EMPTY,
        "What the program has although it is not root's: the ambient and the inheritable set.",
    ),
    key(
        "securebits",
        Shape::Words(words::<SecureBit>),
        EMPTY,
        "How root differs from others (capabilities(7)).",
    ),
    key(
        "seccomp",
        Shape::Seccomp,
        EMPTY,
        "System calls that may be made, by name or by set, as `[\"@service\"]`; or, each with `~` before it, those that \
         may not. See docs/reference/system-calls.md for the sets.",
    ),
    key(
        "seccomp_action",
        Shape::Word(words::<SeccompAction>),
        Fallback::Value("\"errno\""),
        "What becomes of one that may not be made. `errno`: it fails with EPERM. `kill`: it ends the process by SIGSYS. \
         `log`: it is made, and the kernel logs it.",
    ),
    key(
        "landlock_read",
        Shape::Paths,
        EMPTY,
        "Below these files can be read and directories listed, and nowhere else (landlock(7)). Where it is given, it has \
         to name the program and its libraries, too.",
    ),
    key("landlock_write", Shape::Paths, EMPTY, "The same for what writes, makes, renames and removes."),
    key("landlock_execute", Shape::Paths, EMPTY, "The same for programs, with their loader."),
    key(
        "optional",
        Shape::Words(words::<Restriction>),
        EMPTY,
        "What the component is started without if it cannot be set: that is told in the log then.",
    ),
];

pub(super) const ENVIRONMENT: &[Key] = &[
    key(
        "variables",
        Shape::Variables,
        EMPTY,
        "Variables for the process, `NAME=VALUE`, or `NAME` to pass the supervisor's own value on; they replace those of \
         `hotswap.env_vars`.",
    ),
    key("working_directory", Shape::Path, Fallback::Value("\"/\""), "Where the program starts."),
    key("umask", Shape::Mode, Fallback::Value("\"022\""), "Permissions that files it makes do not get."),
];
