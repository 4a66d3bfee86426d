//! Everything that can be found in component files: the one table of codes.
//!
//! A code never changes its meaning and is never used again. `graphctl explain` and the reference
//! in `docs/` are made from this table; tests see to it that each bad example gives its code and
//! nothing else, and that no good example gives anything.
//!
//! The first two digits tell where a finding lies: 00 the file itself, 01 its sections and keys,
//! 02 a single value, 03 several keys together, 04 several files, or a file and the machine.

use std::fmt;

use super::Severity;

/// A kind of finding.
#[derive(Debug)]
pub struct Rule {
    /// `Y` and four digits.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, in a few words.
    pub title: &'static str,
    /// Why it is one, and what to do.
    pub explanation: &'static str,
    /// What gives it.
    pub bad: Example,
    /// The same, mended.
    pub good: Example,
}

/// How to come to a finding, or not.
#[derive(Debug)]
pub enum Example {
    /// The text of a component file.
    File(&'static str),
    /// Several files of one directory, by their names.
    Files(&'static [(&'static str, &'static str)]),
    /// A line for the shell, in the directory of component files.
    Shell(&'static str),
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(text) => f.write_str(text),
            Self::Files(files) => {
                for (position, (name, text)) in files.iter().enumerate() {
                    let blank = if position > 0 { "\n" } else { "" };
                    write!(f, "{blank}# {name}\n{text}")?;
                }
                Ok(())
            }
            Self::Shell(line) => writeln!(f, "{line}"),
        }
    }
}

/// The rule of that code; case does not count.
pub fn find(code: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.code.eq_ignore_ascii_case(code)).copied()
}

/// A component named web, and more lines.
macro_rules! web {
    ($($more:literal)*) => {
        concat!("[component]\nname = \"web\"\nbinary = \"/bin/sh\"\n", $($more, "\n"),*)
    };
}

/// A component of that name, and more lines.
macro_rules! component {
    ($name:literal $($more:literal)*) => {
        concat!("[component]\nname = \"", $name, "\"\nbinary = \"/bin/sh\"\n", $($more, "\n"),*)
    };
}

/// Makes a constant of each rule, and the table of all.
macro_rules! rules {
    ($($name:ident $severity:ident $code:literal $title:literal $explanation:literal
       bad $bad:expr; good $good:expr;)*) => {
        $(
            #[doc = $title]
            pub static $name: Rule = Rule {
                code: $code,
                severity: Severity::$severity,
                title: $title,
                explanation: $explanation,
                bad: $bad,
                good: $good,
            };
        )*
        /// All rules, sorted by code.
        pub static RULES: &[&Rule] = &[$(&$name),*];
    };
}

use Example::{File, Files, Shell};

const ONLY_WEB: Example = File(web!());

rules! {
    UNREADABLE Error "Y0001" "file cannot be read"
        "A component file is a regular file, or a link to one, that the supervisor may read. \
         Make the link point to an existing file, or remove it."
        bad Shell("ln -s nowhere web.toml");
        good ONLY_WEB;

    TOO_LARGE Error "Y0002" "file is too large"
        "A component file describes one program and has at most 1 MiB. A larger one is taken for \
         a mistake, and reading it would let it grow the supervisor."
        bad Shell("head -c 1048577 /dev/zero | tr '\\0' '#' > web.toml");
        good ONLY_WEB;

    NOT_UTF8 Error "Y0003" "file is not UTF-8"
        "TOML is UTF-8 text. Convert the file, for example with `iconv -f latin1 -t utf8`."
        bad Shell("printf '# caf\\351\\n' > web.toml");
        good Shell("printf '[component]\\nname = \"web\"\\nbinary = \"/bin/sh\"\\n' > web.toml");

    FILE_NAME Error "Y0004" "file's name is not UTF-8"
        "The file's name is shown in answers and kept in the journal, which are UTF-8 text. \
         Rename the file."
        bad Shell("printf '' > \"$(printf 'caf\\351').toml\"");
        good Shell("printf '[component]\\nname = \"web\"\\nbinary = \"/bin/sh\"\\n' > café.toml");

    SYNTAX Error "Y0005" "file is not TOML"
        "Component files are TOML 1.0: texts stand in quotes, each key stands once in its \
         section, and what is opened is closed. What can be read in spite of the error is \
         checked too; keys that seem to be missing are not reported before it is mended."
        bad File("[component]\nname = web\nbinary = \"/bin/sh\"\n");
        good ONLY_WEB;

    UNKNOWN_SECTION Warning "Y0101" "unknown section"
        "No section has this name, so nothing in it has an effect."
        bad File(web!("[lifecycel]" "restart_max = 3"));
        good File(web!("[lifecycle]" "restart_max = 3"));

    UNKNOWN_KEY Warning "Y0102" "unknown key"
        "The section has no such key, so it has no effect. It may be misspelt, or belong in \
         another section. docs/reference/component-files.md lists all keys."
        bad File(web!("[lifecycle]" "restart_maximum = 3"));
        good File(web!("[lifecycle]" "restart_max = 3"));

    NOT_A_SECTION Error "Y0103" "value in place of a section"
        "The name is that of a section. Write it in brackets, and its keys below."
        bad File(concat!("requires = \"network\"\n", web!()));
        good File(web!("[provides]" "capabilities = [\"network\"]"));

    TWO_NAMES Error "Y0104" "key is given under two names"
        "Some keys have two names. Which of the two values is meant cannot be told; keep one."
        bad File(web!("[resources]" "pids_max = 20" "processes_max = 30"));
        good File(web!("[resources]" "pids_max = 20"));

    MISSING_KEY Error "Y0105" "required key is missing"
        "Every component has a name and, but for an extension of `kernel`, a program."
        bad File("[component]\nname = \"web\"\n");
        good ONLY_WEB;

    WRONG_TYPE Error "Y0106" "value of the wrong type"
        "Texts stand in quotes, numbers and `true` or `false` do not, and lists stand in brackets."
        bad File(web!("[lifecycle]" "restart_max = \"3\""));
        good File(web!("[lifecycle]" "restart_max = 3"));

    COMPONENT_NAME Error "Y0201" "unusable name of a component"
        "The name becomes a control group and a log file. It has letters, digits and . _ - + @ :, \
         does not begin with . or -, and has at most 200 bytes."
        bad File("[component]\nname = \"web server\"\nbinary = \"/bin/sh\"\n");
        good File(component!("web-server"));

    UNKNOWN_WORD Error "Y0202" "unknown word"
        "The key takes one of some words, and this is none of them."
        bad File(web!("type = \"one-shot\""));
        good File(web!("type = \"oneshot\""));

    RELATIVE_PATH Error "Y0203" "path is not absolute"
        "Nothing is searched in PATH, and no directory is the current one. Write the whole path."
        bad File("[component]\nname = \"web\"\nbinary = \"sh\"\n");
        good ONLY_WEB;

    UNUSABLE_TEXT Error "Y0204" "text is empty or has a NUL byte"
        "The key needs a text, and a text that is passed to the kernel ends at a NUL byte."
        bad File(web!("args = [\"a\\u0000b\"]"));
        good File(web!("args = [\"ab\"]"));

    CAPABILITY_NAME Error "Y0205" "unusable name of a capability"
        "A capability is a word: not empty, without white space and control characters."
        bad File(web!("[provides]" "capabilities = [\"web server\"]"));
        good File(web!("[provides]" "capabilities = [\"web.server\"]"));

    UNKNOWN_SIGNAL Error "Y0206" "unknown signal"
        "A signal is named as in signal(7), with or without SIG, or numbered from 1 to 64."
        bad File(web!("[lifecycle]" "reload_signal = \"SIGHUB\""));
        good File(web!("[lifecycle]" "reload_signal = \"SIGHUP\""));

    SIGNAL_NOT_FREE Error "Y0207" "signal is not free for reports"
        "A component reports to the supervisor by a signal that means nothing else there: \
         a real-time signal (34 to 64), SIGUSR1 or SIGUSR2."
        bad File(web!("[lifecycle]" "readiness_signal = \"SIGTERM\""));
        good File(web!("[lifecycle]" "readiness_signal = 34"));

    OUT_OF_RANGE Error "Y0208" "number is out of range"
        "The kernel, or the supervisor, takes no such value. docs/reference/component-files.md \
         gives each key's range."
        bad File(web!("[resources]" "pids_max = 0"));
        good File(web!("[resources]" "pids_max = 20"));

    NO_TIME Error "Y0209" "value is no time"
        "A time is a number of seconds, whole or not, or a text with one of the units ms, s, m, \
         min and h; it is not negative and at most a year."
        bad File(web!("[lifecycle]" "restart_window = \"5 days\""));
        good File(web!("[lifecycle]" "restart_window = \"120h\""));

    ZERO_TIME Error "Y0210" "time is zero"
        "An interval or a limit of nothing would never let go of the processor, or fail at once."
        bad File(web!("[lifecycle]" "readiness_file = \"/run/web\"" "readiness_timeout = 0"));
        good File(web!("[lifecycle]" "readiness_file = \"/run/web\"" "readiness_timeout = 10"));

    NO_SIZE Error "Y0211" "value is no size"
        "A size is a number of bytes, or a text with one of K, M, G and T (powers of 1024)."
        bad File(web!("[resources]" "memory_max = \"64 apples\""));
        good File(web!("[resources]" "memory_max = \"64M\""));

    NO_CPU_LIMIT Error "Y0212" "value is no processor limit"
        "The limit is \"QUOTA PERIOD\" in microseconds. The kernel takes quotas of at least 1000 \
         and periods from 1000 to 1000000; `max` is no limit."
        bad File(web!("[resources]" "cpu_max = \"500 100000\""));
        good File(web!("[resources]" "cpu_max = \"50000 100000\""));

    CGROUP_ESCAPES Error "Y0213" "control group leaves the supervisor's"
        "A component's group is a relative path below the supervisor's own, without `.`, `..` and \
         names that the kernel uses there. It has at most 1,024 bytes, and 255 between two slashes."
        bad File(web!("[resources]" "cgroup = \"../system\""));
        good File(web!("[resources]" "cgroup = \"front/web\""));

    NO_ADDRESS Error "Y0214" "value is no address and port"
        "Names are not looked up: that would keep the supervisor waiting. Write numbers, or \
         localhost."
        bad File(web!("[lifecycle]" "health_tcp = \"www.example.org:80\""));
        good File(web!("[lifecycle]" "health_tcp = \"127.0.0.1:80\""));

    NO_URL Error "Y0215" "value is no URL that can be probed"
        "The probe speaks plain HTTP to an address in numbers, or to localhost. For TLS, use \
         `health_check` with a client that speaks it."
        bad File(web!("[lifecycle]" "health_http = \"https://127.0.0.1/\""));
        good File(web!("[lifecycle]" "health_http = \"http://127.0.0.1/\""));

    NO_VARIABLE Error "Y0216" "value is no variable"
        "Write NAME=VALUE, or NAME alone to pass the supervisor's own value on."
        bad File(web!("[hotswap]" "env_vars = [\"=fast\"]"));
        good File(web!("[hotswap]" "env_vars = [\"MODE=fast\"]"));

    NO_PROGRAM Error "Y0217" "command does not begin with a program"
        "A command in an array is executed directly, so it begins with an absolute path. A \
         command in one text is run by /bin/sh."
        bad File(web!("[lifecycle]" "health_check = [\"true\"]"));
        good File(web!("[lifecycle]" "health_check = \"true\""));

    HOST_NAME Error "Y0218" "host name is too long"
        "The kernel takes host names of at most 64 bytes."
        bad File(web!(
            "[isolation]" "namespaces = [\"uts\"]"
            "hostname = \"a-host-name-of-more-than-sixty-four-bytes-which-the-kernel-does-not-take\""
        ));
        good File(web!("[isolation]" "namespaces = [\"uts\"]" "hostname = \"web\""));

    SHORT_INTERVAL Error "Y0219" "interval is too short"
        "What is repeated more often than every 10 ms would keep the supervisor busy for one component."
        bad File(web!("[lifecycle]" "health_file = \"/run/web\"" "health_interval = 0.001"));
        good File(web!("[lifecycle]" "health_file = \"/run/web\"" "health_interval = 1"));

    NO_LISTEN Error "Y0220" "value is nothing to listen on"
        "A socket listens on an address and a port in numbers (names are not looked up: that would keep the \
         supervisor waiting), or on an absolute path, of which the kernel takes 107 bytes."
        bad File(web!("[[sockets]]" "listen = \"www.example.org:80\""));
        good File(web!("[[sockets]]" "listen = \"0.0.0.0:80\""));

    DESCRIPTOR_NAME Error "Y0221" "unusable name of a descriptor"
        "Names of descriptors stand in one variable with colons between them, so they have none themselves. They are \
         ASCII, without control characters, of at most 255 bytes."
        bad File(web!("[[sockets]]" "listen = \"0.0.0.0:80\"" "name = \"web:http\""));
        good File(web!("[[sockets]]" "listen = \"0.0.0.0:80\"" "name = \"web-http\""));

    NO_MODE Error "Y0222" "value is no permissions"
        "Permissions are written in octal, as chmod(1) takes them: three digits, with or without a 0 before."
        bad File(web!("[[sockets]]" "listen = \"/run/web.sock\"" "mode = \"rw-rw----\""));
        good File(web!("[[sockets]]" "listen = \"/run/web.sock\"" "mode = \"0660\""));

    NO_IO_LIMIT Error "Y0223" "value is no limit of a device"
        "A limit is a text with a device, as `MAJOR:MINOR` or the path of a whole disk below `/dev`, and what it may do in a \
         second: `rbps` and `wbps` are bytes, `riops` and `wiops` requests. Each device and each limit of it is named \
         once; `max` is no limit."
        bad File(web!("[resources]" "io_max = [\"/dev/sda 10M\"]"));
        good File(web!("[resources]" "io_max = [\"/dev/sda wbps=10M wiops=500\"]"));

    NO_NUMBERS Error "Y0224" "value is no list of numbers"
        "A list of processors or of nodes of memory has numbers and ranges with commas between them."
        bad File(web!("[resources]" "cpuset = \"0..3\""));
        good File(web!("[resources]" "cpuset = \"0-3,8\""));

    NO_PRESSURE Error "Y0225" "value is no pressure"
        "A pressure has three words: `some` or `full`, how long tasks wait, and within which time. The kernel takes times from \
         500 ms to 10 s for the last."
        bad File(web!("[resources]" "memory_pressure = \"150ms\""));
        good File(web!("[resources]" "memory_pressure = \"some 150ms 1s\""));

    NO_ACCOUNT Error "Y0231" "value is no user or group"
        "A user or a group is a number, or a name as it stands in the first column of /etc/passwd or /etc/group: without \
         white space, colons and slashes."
        bad File(web!("[security]" "user = \"www data\""));
        good File(web!("[security]" "user = \"www-data\""));

    UNKNOWN_CAPABILITY Error "Y0232" "unknown capability of Linux"
        "Capabilities have the names of capabilities(7), with or without CAP_."
        bad File(web!("[security]" "capabilities = [\"CAP_NET_BIND\"]"));
        good File(web!("[security]" "capabilities = [\"CAP_NET_BIND_SERVICE\"]"));

    NO_RLIMIT Error "Y0233" "value is no limit of a process"
        "A limit is a number for both the soft and the hard limit, or \"SOFT:HARD\", of which the soft one is not above the \
         hard one. `infinity` is no limit."
        bad File(web!("[resources]" "rlimits = { nproc = \"64 processes\" }"));
        good File(web!("[resources]" "rlimits = { nproc = \"64:128\" }"));

    NO_SCHEDULING Error "Y0234" "value is no scheduling policy"
        "The policies are those of sched(7). Only `fifo` and `rr` have a priority, and they need one, from 1 to 99."
        bad File(web!("[resources]" "scheduling = \"fifo\""));
        good File(web!("[resources]" "scheduling = \"fifo:10\""));

    NO_IO_CLASS Error "Y0235" "value is no class of input and output"
        "The classes are those of ioprio_set(2). `best-effort` and `realtime` have levels from 0 to 7, of which 0 is first."
        bad File(web!("[resources]" "io_class = \"realtime:8\""));
        good File(web!("[resources]" "io_class = \"realtime:7\""));

    NO_CPUS Error "Y0236" "value names no processors"
        "Processors are numbers from 0, and ranges of them."
        bad File(web!("[resources]" "cpu_affinity = \"1..3\""));
        good File(web!("[resources]" "cpu_affinity = \"1-3\""));

    NO_BIND Error "Y0237" "value is no bind mount"
        "A bind mount is \"/source:/target\", both absolute, with `:ro` behind if nothing can be written there. The target \
         is not `/`: see `root` for that."
        bad File(web!("[isolation]" "namespaces = [\"mount\"]" "binds = [\"/srv\"]"));
        good File(web!("[isolation]" "namespaces = [\"mount\"]" "binds = [\"/srv:/mnt:ro\"]"));

    NO_TMPFS Error "Y0238" "value is no mount in memory"
        "A mount in memory is an absolute path other than `/`, with `:size=BYTES` behind for the most that it holds."
        bad File(web!("[isolation]" "namespaces = [\"mount\"]" "tmpfs = [\"/mnt:16M\"]"));
        good File(web!("[isolation]" "namespaces = [\"mount\"]" "tmpfs = [\"/mnt:size=16M\"]"));

    NO_ID_MAP Error "Y0239" "value is no map of ids"
        "A line of user_namespaces(7) has three numbers: the first id inside, what that is outside, and how many there are."
        bad File(web!("[isolation]" "namespaces = [\"user\"]" "uid_map = [\"0 100000\"]"));
        good File(web!("[isolation]" "namespaces = [\"user\"]" "uid_map = [\"0 100000 65536\"]"));

    NO_TIME_OFFSET Error "Y0240" "value is no offset of a clock"
        "The clocks are `monotonic` and `boottime` (time_namespaces(7)); offsets are whole seconds."
        bad File(web!("[isolation]" "namespaces = [\"time\"]" "time_offsets = { realtime = 60 }"));
        good File(web!("[isolation]" "namespaces = [\"time\"]" "time_offsets = { boottime = 60 }"));

    NO_SECRET Error "Y0241" "unusable name of a secret"
        "A secret becomes a file of that name, so it has no slash, does not begin with a dot, and has at most 255 bytes."
        bad File(web!("[isolation]" "namespaces = [\"mount\"]" "secrets = { \"a/b\" = \"/etc/hostname\" }"));
        good File(web!("[isolation]" "namespaces = [\"mount\"]" "secrets = { a = \"/etc/hostname\" }"));

    UNKNOWN_SYSCALL Error "Y0242" "unknown system call"
        "System calls have the names of syscalls(2), sets those of docs/reference/system-calls.md."
        bad File(web!("[security]" "seccomp = [\"~@mounts\"]"));
        good File(web!("[security]" "seccomp = [\"~@mount\"]"));

    NO_NETWORK Error "Y0243" "value is no interface to a network"
        "An interface needs the bridge at which its other end is, and an address with the number of bits that are the \
         network's. Address and gateway are both of IPv4, or both of IPv6."
        bad File(web!("[isolation]" "namespaces = [\"net\"]" "network = { bridge = \"br0\", address = \"10.0.0.2\" }"));
        good File(web!("[isolation]" "namespaces = [\"net\"]" "network = { bridge = \"br0\", address = \"10.0.0.2/24\" }"));

    SLICE_NAME Error "Y0244" "unusable name of a slice"
        "A slice is named by where it lies: `batch/reports` lies in `batch`. Each part becomes the directory of a control \
         group, with .slice behind it: it has letters, digits and . _ - + @ :, does not begin with . or -, does not end in \
         .slice and is not the name of a controller of the kernel. With all directories that it lies in its path has at most \
         1,024 bytes."
        bad File("[slice]\nname = \"batch.slice\"\n");
        good File("[slice]\nname = \"batch\"\n");

    READINESS_INCOMPLETE Error "Y0301" "method of readiness lacks its key"
        "`readiness = \"file\"` needs `readiness_file`, \"command\" needs `readiness_check`, and \
         \"signal\" needs `readiness_signal`."
        bad File(web!("[lifecycle]" "readiness = \"file\""));
        good File(web!("[lifecycle]" "readiness = \"file\"" "readiness_file = \"/run/web\""));

    TWO_PROBES Error "Y0302" "two health probes"
        "A component has one health probe. A command can ask for several things."
        bad File(web!("[lifecycle]" "health_file = \"/run/web\"" "health_tcp = \"127.0.0.1:80\""));
        good File(web!("[lifecycle]" "health_tcp = \"127.0.0.1:80\""));

    TWO_HANDOFFS Error "Y0303" "two different hand-overs"
        "`component.handoff` is another place for `lifecycle.handoff`. Keep one of the two."
        bad File(web!("handoff = \"checkpoint\"" "[lifecycle]" "handoff = \"fd-passing\""));
        good File(web!("[lifecycle]" "handoff = \"fd-passing\""));

    NEEDS_NAMESPACE Error "Y0304" "isolation needs a namespace"
        "A host name of its own needs the namespace \"uts\", whatever is mounted the namespace \"mount\", maps of ids the \
         namespace \"user\", offsets of clocks the namespace \"time\", a first process the namespace \"pid\": without it the \
         machine's own would change."
        bad File(web!("[isolation]" "hostname = \"web\""));
        good File(web!("[isolation]" "namespaces = [\"uts\"]" "hostname = \"web\""));

    SEQPACKET_ADDRESS Error "Y0305" "socket of a type that the network does not have"
        "Connections of messages (\"seqpacket\") are between processes of one machine: they listen on a path."
        bad File(web!("[[sockets]]" "listen = \"127.0.0.1:80\"" "type = \"seqpacket\""));
        good File(web!("[[sockets]]" "listen = \"/run/web.sock\"" "type = \"seqpacket\""));

    SOCKET_TWICE Error "Y0306" "address is listened on twice"
        "Two sockets of one type cannot listen on one address."
        bad File(web!("[[sockets]]" "listen = \"127.0.0.1:80\"" "[[sockets]]" "listen = \"127.0.0.1:80\""));
        good File(web!("[[sockets]]" "listen = \"127.0.0.1:80\"" "[[sockets]]" "listen = \"127.0.0.1:81\""));

    AMBIENT_NOT_KEPT Error "Y0307" "ambient capability is taken away"
        "What a program is to have it must be allowed to have: `capabilities` names all that its processes may ever have."
        bad File(web!("[security]" "capabilities = []" "ambient_capabilities = [\"CAP_NET_RAW\"]"));
        good File(web!("[security]" "capabilities = [\"CAP_NET_RAW\"]" "ambient_capabilities = [\"CAP_NET_RAW\"]"));

    TWO_FILE_LIMITS Error "Y0308" "two limits of open files"
        "`rlimits.nofile` and `files_max` set the same limit. Which of the two is meant cannot be told; keep one."
        bad File(web!("[resources]" "files_max = 100" "rlimits = { nofile = 200 }"));
        good File(web!("[resources]" "files_max = 100"));

    SECCOMP_MIXED Error "Y0309" "filter both allows and forbids"
        "A list of system calls either names all that may be made or, with ~ before each item, those that may not."
        bad File(web!("[security]" "seccomp = [\"@service\", \"~ptrace\"]"));
        good File(web!("[security]" "seccomp = [\"~@mount\", \"~ptrace\"]"));

    NO_EFFECT Warning "Y0311" "key has no effect"
        "Another key, or the lack of one, makes this one useless: details of a probe without a \
         probe, of a readiness that is not the one declared, readiness or health of a oneshot \
         (which is DONE when it exits with 0), a program for `kernel`."
        bad File(web!("[lifecycle]" "health_interval = 10"));
        good File(web!("[lifecycle]" "health_interval = 10" "health_tcp = \"127.0.0.1:80\""));

    RESTART_FIRST Warning "Y0312" "component is restarted before it is DEGRADED"
        "`health_restart_threshold` is lower than `health_fail_threshold`, so the latter is never \
         reached."
        bad File(web!("[lifecycle]" "health_file = \"/run/web\"" "health_fail_threshold = 5"
                      "health_restart_threshold = 2"));
        good File(web!("[lifecycle]" "health_file = \"/run/web\"" "health_fail_threshold = 2"
                       "health_restart_threshold = 5"));

    MEMORY_HIGH Warning "Y0313" "`memory_high` can never act"
        "The kernel kills at `memory_max`; throttling above that never happens."
        bad File(web!("[resources]" "memory_high = \"128M\"" "memory_max = \"64M\""));
        good File(web!("[resources]" "memory_high = \"48M\"" "memory_max = \"64M\""));

    RARE_CHECK Warning "Y0314" "readiness is asked for only once"
        "The second run of the command would come after `readiness_timeout`, when the component \
         has FAILED."
        bad File(web!("[lifecycle]" "readiness_check = \"true\"" "readiness_interval = 20"
                      "readiness_timeout = 10"));
        good File(web!("[lifecycle]" "readiness_check = \"true\"" "readiness_interval = 1"
                       "readiness_timeout = 10"));

    SLOW_PROBE Warning "Y0315" "probe may take longer than its interval"
        "There is never a second probe beside one that hangs, so probes are left out, and the \
         declared number of failures in a row takes longer to reach."
        bad File(web!("[lifecycle]" "health_file = \"/run/web\"" "health_interval = 5"
                      "health_timeout = 20"));
        good File(web!("[lifecycle]" "health_file = \"/run/web\"" "health_interval = 5"
                       "health_timeout = 2"));

    LONG_GRACE Warning "Y0316" "grace is very long"
        "A component that hangs at its end keeps a shutdown of the machine waiting this long. \
         Five minutes are enough for large databases."
        bad File(web!("[hotswap]" "shutdown_grace = \"1h\""));
        good File(web!("[hotswap]" "shutdown_grace = \"2m\""));

    SELF_DEPENDENCY Warning "Y0317" "component requires what it provides"
        "Unless another component provides the capability too, this one waits for itself and can \
         never start."
        bad File(web!("[provides]" "capabilities = [\"web\"]" "[requires]" "capabilities = [\"web\"]"));
        good File(web!("[provides]" "capabilities = [\"web\"]"));

    REQUIRED_AND_OPTIONAL Warning "Y0318" "capability is required and optional"
        "A required capability is waited for in any case, so the optional one has no effect."
        bad File(web!("[requires]" "capabilities = [\"filesystem.run\"]"
                      "[optional]" "capabilities = [\"filesystem.run\"]"));
        good File(web!("[requires]" "capabilities = [\"filesystem.run\"]"));

    CAPABILITY_TWICE Warning "Y0319" "capability is named twice"
        "The second one has no effect; perhaps another was meant."
        bad File(web!("[provides]" "capabilities = [\"web\", \"web\"]"));
        good File(web!("[provides]" "capabilities = [\"web\", \"web.admin\"]"));

    WIDE_JITTER Warning "Y0320" "jitter is longer than the interval"
        "First probes are spread over one interval at most: a component that is up is probed within \
         its first interval."
        bad File(web!("[lifecycle]" "health_file = \"/run/web\"" "health_interval = 30"
                      "health_jitter = 60"));
        good File(web!("[lifecycle]" "health_file = \"/run/web\"" "health_interval = 30"
                       "health_jitter = 20"));

    MERGING_SIGNAL Warning "Y0322" "reports by this signal may be lost"
        "SIGUSR1 and SIGUSR2 are not queued: of several that come before the supervisor has read the first, the \
         kernel keeps one and forgets who sent the others. Of components that report at one moment some are not \
         heard, and neither may be what an administrator sends. Real-time signals, 34 to 64, are all kept."
        bad File(web!("[lifecycle]" "readiness_signal = \"SIGUSR1\""));
        good File(web!("[lifecycle]" "readiness_signal = 34"));

    LONG_PROBATION Warning "Y0323" "probation is very long"
        "Until its end the old process of a hot swap is kept beside the new one, with all of its memory and a \
         duplicate of every descriptor, and no other upgrade begins. What fails later than an hour after an upgrade \
         is hardly found by keeping the old process."
        bad File(web!("[lifecycle]" "handoff = \"fd-passing\"" "[hotswap]" "probation = \"6h\""));
        good File(web!("[lifecycle]" "handoff = \"fd-passing\"" "[hotswap]" "probation = \"5m\""));

    CANARY_WITHOUT_TIME Error "Y0324" "a canary without a time"
        "With `strategy = \"canary\"` the new process takes only new connections for the time of `hotswap.probation`, and \
         then everything else. Without that time there is nothing to find out before everything moves."
        bad File(web!("[lifecycle]" "handoff = \"fd-passing\"" "[hotswap]" "strategy = \"canary\""));
        good File(web!("[lifecycle]" "handoff = \"fd-passing\"" "[hotswap]" "strategy = \"canary\"" "probation = \"30s\""));

    LOST_CAPABILITIES Warning "Y0331" "capabilities are lost at exec"
        "A program that is not root's has only capabilities that its file or the ambient set gives it, however many its \
         processes may have."
        bad File(web!("[security]" "user = 33" "capabilities = [\"CAP_NET_RAW\"]"));
        good File(web!("[security]" "user = 33" "capabilities = [\"CAP_NET_RAW\"]"
                       "ambient_capabilities = [\"CAP_NET_RAW\"]"));

    NOT_IN_A_SLICE Error "Y0332" "nothing for the file of a slice"
        "A slice has no process: its file has a section [slice] and limits of control groups in [resources], and nothing \
         that is about a program. Components that lie in it have files of their own."
        bad File("[slice]\nname = \"batch\"\n[resources]\nmemory_max = \"64M\"\nfiles_max = 100\n");
        good File("[slice]\nname = \"batch\"\n[resources]\nmemory_max = \"64M\"\n");

    GROUP_OF_SLICE Error "Y0333" "control group of a slice"
        "Directories that end in .slice are those of slices, and hold no processes: the kernel does not give limits to groups \
         in a group that has some. Name the slice in `resources.slice`. No component is called so either, whatever its group is."
        bad File(web!("[resources]" "cgroup = \"batch.slice/web\""));
        good File(web!("[resources]" "cgroup = \"web\""));

    DELEGATED_TO_NOBODY Error "Y0334" "control group of a user namespace"
        "A control group is given to the component's user, by a number of the machine. In a user namespace numbers are \
         others, and nobody in it may give away what is outside."
        bad File(web!("[isolation]" "namespaces = [\"user\"]" "[resources]" "delegate = true"));
        good File(web!("[security]" "user = 33" "[resources]" "delegate = true"));

    DELEGATED_TWICE Error "Y0335" "control group of two processes"
        "While a component hands over it has two processes, and the supervisor divides its control group for them. So it \
         cannot be given to be divided by either, with what is listed in `resources.delegate`."
        bad File(web!("[lifecycle]" "handoff = \"fd-passing\"" "[resources]" "delegate = [\"memory\"]"));
        good File(web!("[resources]" "delegate = [\"memory\"]"));

    NO_CHECKPOINT Warning "Y0336" "checkpoint of what is not made again"
        "Users of a user namespace, an interface to a bridge, the channel of a hot swap in a network namespace, rules of \
         Landlock, and in a mount namespace the control groups of a cgroup namespace and the first process of `init` are \
         not made again from a checkpoint, so none is made of a process that has one: `graphctl checkpoint` refuses it, starts are not warm, and an upgrade goes the way of `fd-passing` or starts the component anew."
        bad File(web!("[isolation]" "namespaces = [\"user\"]" "[checkpoint]" "enabled = true"));
        good File(web!("[isolation]" "namespaces = [\"mount\"]" "[checkpoint]" "enabled = true"));

    DUPLICATE_NAME Error "Y0401" "two files declare one component"
        "A component, or a slice, is declared by one file. The one that was there first stays in force, the \
         other is refused until one of the two is renamed or goes."
        bad Files(&[("a.toml", component!("web")), ("b.toml", component!("web"))]);
        good Files(&[("a.toml", component!("web")), ("b.toml", component!("mail"))]);

    UNPROVIDED Warning "Y0402" "nobody provides what is required"
        "No file provides the capability, so the component waits until one does. The name may be \
         misspelt, or the file that provides it may lie elsewhere."
        bad File(web!("[requires]" "capabilities = [\"netwrok\"]"));
        good Files(&[
            ("net.toml", component!("net" "[provides]" "capabilities = [\"network\"]")),
            ("web.toml", component!("web" "[requires]" "capabilities = [\"network\"]")),
        ]);

    CYCLE Error "Y0403" "components wait for each other"
        "Each of them requires what another of them provides, so none can ever start. Take one \
         requirement away, make it optional, or let another component provide it too."
        bad Files(&[
            ("a.toml", component!("a" "[provides]" "capabilities = [\"egg\"]"
                                  "[requires]" "capabilities = [\"hen\"]")),
            ("b.toml", component!("b" "[provides]" "capabilities = [\"hen\"]"
                                  "[requires]" "capabilities = [\"egg\"]")),
        ]);
        good Files(&[
            ("a.toml", component!("a" "[provides]" "capabilities = [\"egg\"]"
                                  "[optional]" "capabilities = [\"hen\"]")),
            ("b.toml", component!("b" "[provides]" "capabilities = [\"hen\"]"
                                  "[requires]" "capabilities = [\"egg\"]")),
        ]);

    SHARED_CGROUP Warning "Y0404" "control group of another component"
        "Two components in one group, or one inside the other's, share their limits, and neither \
         group can be emptied when its component ends. In one group, a limit \
         that one of the two no longer declares holds until both have left it."
        bad Files(&[
            ("a.toml", component!("a" "[resources]" "cgroup = \"web\"")),
            ("b.toml", component!("b" "[resources]" "cgroup = \"web/back\"")),
        ]);
        good Files(&[
            ("a.toml", component!("a" "[resources]" "cgroup = \"web/front\"")),
            ("b.toml", component!("b" "[resources]" "cgroup = \"web/back\"")),
        ]);

    NO_BINARY Warning "Y0405" "program does not exist"
        "There is no such file on this machine (or below the directory given with `--root`), so \
         the component cannot be started until there is."
        bad File("[component]\nname = \"web\"\nbinary = \"/usr/bin/no-such-program\"\n");
        good ONLY_WEB;

    NOT_EXECUTABLE Warning "Y0406" "program cannot be executed"
        "It is no regular file, or nobody may execute it. Mend it with `chmod +x`."
        bad File("[component]\nname = \"web\"\nbinary = \"/etc/passwd\"\n");
        good ONLY_WEB;

    UNKNOWN_SLICE Warning "Y0407" "nobody declares the slice"
        "A component, or another slice, lies in a slice that no file declares. It waits until one does. The name may be \
         misspelt, or the file may lie elsewhere. All that `batch/reports` lies in has to be declared: `batch`, too."
        bad Files(&[("web.toml", web!("[resources]" "slice = \"batch\""))]);
        good Files(&[
            ("batch.toml", "[slice]\nname = \"batch\"\n[resources]\nmemory_max = \"64M\"\n"),
            ("web.toml", web!("[resources]" "slice = \"batch\"")),
        ]);
}
