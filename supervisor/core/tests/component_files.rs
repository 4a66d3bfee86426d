//! Component files: every key is accepted, every mistake is found, at its place.

use std::time::Duration;

use yakiros_core::component::{
    Command, Handoff, Kind, Namespace, Readiness, Signal, SocketKind, parse, parse_bytes,
};

const EVERYTHING: &str = r#"
[component]
name = "web"                # a comment after a value
binary = "/usr/bin/web"
args = [
    "--port", "80",
    "tab\there",
]
type = "service"
[provides]
capabilities = ["http"]
[requires]
capabilities = ["net"]
[optional]
capabilities = ["log"]
[lifecycle]
handoff = "fd-passing"
reload_signal = "HUP"
readiness = "command"
readiness_command = ["/bin/true"]
readiness_timeout = 2.5
readiness_interval = "100ms"
health_check = "curl -s localhost"
health_interval = 10
health_timeout = 3
health_failures = 2
health_restart_threshold = 4
restart_max = 9
restart_window = 60
[resources]
cgroup_path = "web/front"
memory_max = "64M"
memory_high = 1_048_576
cpu_weight = 200
io_weight = 50
cpu_max = "50000 100000"
processes_max = 20
files_max = 1024
[isolation]
namespaces = "mnt, uts,pid"
hostname = "web"
root = "/srv/web"
private_tmp = false
[checkpoint]
enabled = true
preserve_fds = "3, 4"
leave_running = false
memory_estimate = 64
rounds = 2
max_age = 24
[hotswap]
transfer_fds = true
env_vars = ["MODE=fast", "HOME"]
shutdown_grace = 3
preserve_state = true
"#;

#[test]
fn every_key_is_read() {
    let parsed = parse(EVERYTHING);
    let found: Vec<_> = parsed.diagnostics.iter().map(|found| &*found.code).collect();
    assert_eq!(found, [] as [&str; 0]);
    let c = parsed.component.expect("a component");
    assert_eq!(c.args, ["--port", "80", "tab\there"]);
    assert_eq!((c.kind, c.lifecycle.handoff), (Kind::Service, Handoff::FdPassing));
    assert_eq!(c.provides, ["http"]);
    assert_eq!(c.lifecycle.reload_signal, Some(Signal(1)));
    let direct = Command::Direct(vec!["/bin/true".to_owned()]);
    assert_eq!(c.lifecycle.readiness, Readiness::Command(direct));
    assert_eq!(c.lifecycle.readiness_timeout, Duration::from_millis(2500));
    assert_eq!(c.lifecycle.readiness_interval, Duration::from_millis(100));
    let health = c.lifecycle.health.as_ref().expect("a health check");
    assert_eq!((health.fail_threshold, health.restart_threshold), (2, 4));
    assert_eq!(c.resources.memory_max, Some(64 << 20));
    assert_eq!(c.resources.pids_max, Some(20));
    assert_eq!(c.cgroup(), "web/front");
    let spaces = [Namespace::Mount, Namespace::Pid, Namespace::Uts];
    assert_eq!(c.isolation.namespaces, spaces);
    assert_eq!(c.checkpoint.preserve_fds, ["3", "4"]);
    assert_eq!((c.checkpoint.memory_estimate, c.checkpoint.rounds), (Some(64 << 20), 2));
    assert_eq!(c.hotswap.shutdown_grace, Duration::from_secs(3));
}

/// Line, column and a part of the message and the help of every finding.
type Expected = (usize, usize, &'static str, &'static str);

fn check(source: &str, expected: &[Expected]) {
    let found = parse(source).diagnostics;
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (finding, (line, column, message, help)) in found.iter().zip(expected) {
        assert_eq!((finding.line, finding.column), (*line, *column), "{finding:?}");
        assert!(finding.message.contains(message), "{finding:?}");
        let given = finding.help.as_deref().unwrap_or_default();
        assert!(given.contains(help), "{finding:?}");
    }
}

#[test]
fn several_mistakes_are_found_in_one_pass() {
    check(
        "[component]\nname = \"a\"\nbinary = \"bin/a\"\ntype = \"servise\"\nrestart_max = 3\n\
         [lifecycle]\nrestart_max = \"many\"\nhealth_intervall = 3\nreload_signal = \"SIGHUB\"\n\
         [resources]\nmemory_max = \"64 apples\"\ncgroup = \"../other\"\n[hotswop]\n",
        &[
            (3, 10, "must be an absolute path", "nothing is searched in PATH"),
            (4, 8, "cannot be \"servise\"", "did you mean \"service\"?"),
            (5, 1, "unknown key `component.restart_max`", "belongs in `[lifecycle]`"),
            (7, 15, "must be a whole number", "without quotes"),
            (8, 1, "unknown key", "did you mean `health_interval`?"),
            (9, 17, "unknown signal", "did you mean \"SIGHUP\"?"),
            (11, 14, "is no size", "64M"),
            (12, 10, "leaves the supervisor's cgroup", "relative"),
            (13, 2, "unknown section `[hotswop]`", "did you mean `[hotswap]`?"),
        ],
    );
}

#[test]
fn only_free_signals_report_to_the_supervisor() {
    let file = |signal: &str| {
        format!(
            "[component]\nname = \"a\"\nbinary = \"/a\"\n\
             [lifecycle]\nreadiness = \"signal\"\nreadiness_signal = {signal}\n"
        )
    };
    for signal in ["\"SIGCHLD\"", "\"TERM\"", "\"KILL\"", "11", "32"] {
        check(&file(signal), &[(6, 20, "is not free", "SIGUSR1, SIGUSR2, or a real-time signal (34 to 64)")]);
    }
    for signal in ["34", "64"] {
        assert!(parse(&file(signal)).diagnostics.is_empty(), "{signal}");
    }
    for signal in ["\"SIGUSR1\"", "\"usr2\""] {
        let parsed = parse(&file(signal));
        assert!(parsed.component.is_some(), "{signal} is taken");
        let found: Vec<_> = parsed.diagnostics.iter().map(|d| (&*d.code, d.line)).collect();
        assert_eq!(found, [("Y0322", 6)], "{signal}");
    }
}

#[test]
fn what_one_key_demands_of_another() {
    check(
        "[component]\nname = \"a\"\nbinary = \"/a\"\n[lifecycle]\nreadiness = \"file\"\n\
         [isolation]\nhostname = \"x\"\n",
        &[
            (5, 13, "needs `lifecycle.readiness_file`", ""),
            (7, 12, "needs the namespace \"uts\"", "host's own"),
        ],
    );
}

#[test]
fn syntax_errors_have_a_place() {
    let found = parse("[component]\nname = \"a\nbinary = \"/a\"\n").diagnostics;
    assert!(found[0].is_error());
    assert_eq!(found[0].line, 2, "{found:?}");
}

#[test]
fn what_is_not_closed_costs_no_other_section() {
    check(
        "[component]\nname = a\nbinary = /a\nargs = [1,\n[lifecycle] # next\nrestart_max = = 3\n\
         reload_signal = \"SIGHUB\"\nhealth_check = \"\"\"\n[resources]\npids_max = 0\n\
         [isolation]\nnamespaces = \"uts, nte\"\nprivate_tmp = [\n",
        &[
            (2, 8, "string values must be quoted", ""),
            (3, 10, "string values must be quoted", ""),
            (4, 8, "not closed; what follows it up to the next section", ""),
            (6, 15, "extra `=`", ""),
            (7, 17, "unknown signal", "SIGHUP"),
            (8, 16, "not closed", ""),
            (10, 12, "out of range", "between 1 and"),
            (12, 14, "unknown namespace \"nte\"", "\"net\""),
            (13, 15, "not closed", ""),
        ],
    );
}

#[test]
fn a_table_that_is_not_closed_and_a_section_that_comes_twice_cost_nothing_else() {
    check(
        "[component]\nname = \"a\"\nbinary = \"/a\"\n[hotswap]\nenv_vars = { A = \"1\", B = \"}\"\n\
         [requires]\ncapabilities = [\"a b\"]\n[component]\nargs = [3]\n[isolation]\nnamespaces = \"uts\n",
        &[
            (5, 12, "not closed", ""),
            (7, 17, "bad name", ""),
            (8, 2, "duplicate key", ""),
            (9, 9, "must be an array of strings", ""),
            (11, 18, "invalid basic string", ""),
        ],
    );
}

#[test]
fn a_key_that_cannot_be_read_is_not_said_to_be_missing() {
    check("[component]\nname \"a\"\nbinary = \"/a\"\n", &[(2, 6, "key with no value", "")]);
}

#[test]
fn the_item_that_is_wrong_is_the_place() {
    check(
        "[component]\nname = \"a\"\nbinary = \"/a\"\nargs = [\"x\", 8]\n[provides]\n\
         capabilities = [\"b\", \"c d\"]\n[requires]\ncapabilities = [\"e\", \"f\", \"e\"]\n\
         [isolation]\nnamespaces = [\"uts\", \"ptd\"]\n",
        &[
            (4, 14, "must be an array of strings, not the number 8", "quotes"),
            (6, 22, "bad name \"c d\"", "white space"),
            (8, 27, "\"e\" is named twice", "once"),
            (10, 22, "unknown namespace \"ptd\"", "\"pid\""),
        ],
    );
}

#[test]
fn an_error_after_many_warnings_refuses_the_file() {
    let strangers: Vec<_> = (0..200).map(|number| format!("stranger_{number} = 1\n")).collect();
    let parsed =
        parse(&format!("[component]\nname = \"a\"\nbinary = \"/a\"\n{}args = 3\n", strangers.concat()));
    assert!(parsed.component.is_none());
    assert_eq!(parsed.diagnostics.len(), 100);
    assert_eq!(parsed.diagnostics.iter().filter(|d| d.is_error()).count(), 1);
}

/// Files full of mistakes cost about as much as good ones: what is quadratic here does not end.
#[test]
fn large_files_full_of_mistakes_are_read() {
    const HEAD: &str = "[component]\nname = \"a\"\nbinary = \"/a\"\n";
    let names: Vec<_> = (0..15_000).map(|number| format!("\"{number}\"")).collect();
    let names = names.join(",");
    let keys: Vec<_> = (0..15_000).map(|number| format!("restart_{number} = 1\n")).collect();
    let long = "x".repeat(300_000);
    for text in [
        format!("{HEAD}[provides]\ncapabilities = [{names}]\n[requires]\ncapabilities = [{names}]\n"),
        format!("{HEAD}[provides]\ncapabilities = [{names},{names}]\n"),
        format!("{HEAD}[lifecycle]\n{}", keys.concat()),
        format!("{HEAD}{long} = 1\n[{long}]\n"),
        format!("{HEAD}type = \"{long}\"\n"),
        format!("{HEAD}{}", "= ".repeat(50_000)),
        format!("{HEAD}{}", "=\n".repeat(50_000)),
        format!("{HEAD}args = [{}", "[component]\n".repeat(20_000)),
        format!("{HEAD}{}", "a = [\n[component]\n".repeat(10_000)),
    ] {
        let found = parse(&text).diagnostics;
        assert!((1..=100).contains(&found.len()), "{}", &text[..80]);
    }
}

#[test]
fn unusable_names_are_refused() {
    for name in ["a/b", "", "..", ".hidden", "-x", "a b", &"x".repeat(300)] {
        let parsed = parse(&format!("[component]\nname = {name:?}\nbinary = \"/a\"\n"));
        assert!(parsed.component.is_none(), "{name:?}");
    }
}

#[test]
fn what_is_no_text_or_too_long_is_refused() {
    assert!(parse_bytes(b"[component]\nname = \"\xff\"\n").component.is_none());
    let long = vec![b'#'; 1024 * 1024 + 1];
    let found = parse_bytes(&long).diagnostics;
    assert!(found[0].message.contains("1048577 bytes"), "{found:?}");
}

#[test]
fn only_what_the_process_sees_needs_a_restart() {
    let parse = |source: &str| parse(source).component.expect("a component");
    let before = parse(EVERYTHING);
    let unseen = EVERYTHING
        .replace("health_interval = 10", "health_interval = 20")
        .replace("[\"net\"]", "[\"net\", \"disk\"]");
    assert!(before.same_process(&parse(&unseen)));
    let seen = EVERYTHING.replace("\"80\"", "\"81\"");
    assert!(!before.same_process(&parse(&seen)));
}

#[test]
fn health_probes_are_read_and_checked() {
    let with = |lines: &str| {
        parse(&format!(
            "[component]\nname = \"a\"\nbinary = \"/a\"\n[lifecycle]\n{lines}\nhealth_interval = 5"
        ))
    };
    for (line, said) in [
        ("health_check = \"true\"", "health_check \"true\""),
        ("health_tcp = \"127.0.0.1:8080\"", "health_tcp 127.0.0.1:8080"),
        ("health_tcp = \"localhost:8080\"", "health_tcp 127.0.0.1:8080"),
        ("health_tcp = \"[::1]:8080\"", "health_tcp [::1]:8080"),
        ("health_http = \"http://127.0.0.1:81/s?a=1\"", "health_http http://127.0.0.1:81/s?a=1"),
        ("health_http = \"http://[::1]\"", "health_http http://[::1]/"),
        ("health_unix = \"/run/a\"", "health_unix /run/a"),
        ("health_file = \"/run/a\"", "health_file /run/a"),
        ("health_signal = \"SIGUSR1\"", "health_signal SIGUSR1"),
    ] {
        let parsed = with(line);
        let component = parsed.component.unwrap_or_else(|| panic!("{line}: {:?}", parsed.diagnostics));
        let health = component.lifecycle.health.clone().expect("a probe");
        assert_eq!(health.check.to_string(), said);
        assert_eq!((health.fail_threshold, health.restart_threshold), (3, 5));
        assert_eq!((health.interval.as_secs(), health.timeout.as_secs()), (5, 10));
    }
    for (line, problem) in [
        ("health_tcp = \"example.org:80\"", "is no address and port"),
        ("health_tcp = \"127.0.0.1\"", "is no address and port"),
        ("health_tcp = \"127.0.0.1:0\"", "is no address and port"),
        ("health_http = \"https://127.0.0.1/\"", "cannot be https"),
        ("health_http = \"http://127.0.0.1/a b\"", "is no URL of a local server"),
        ("health_http = \"127.0.0.1:80\"", "is no URL of a local server"),
        ("health_unix = \"run/a\"", "must be an absolute path"),
        ("health_file = 3", "must be text in quotes"),
        ("health_signal = \"SIGFOO\"", "names an unknown signal"),
        ("health_interval = 0\nhealth_file = \"/a\"", "must be more than zero"),
        ("health_file = \"/a\"\nhealth_tcp = \"127.0.0.1:80\"", "are both given"),
    ] {
        let file = format!("[component]\nname = \"a\"\nbinary = \"/a\"\n[lifecycle]\n{line}\n");
        let parsed = parse(&file);
        let found = parsed.diagnostics.iter().any(|d| d.is_error() && d.message.contains(problem));
        assert!(found && parsed.component.is_none(), "{line}: {:?}", parsed.diagnostics);
    }
}

#[test]
fn sockets_are_read_each_and_checked_at_their_place() {
    let head = "[component]\nname = \"a\"\nbinary = \"/a\"\n";
    let with = |lines: &str| parse(&format!("{head}{lines}"));
    let two = with(
        "[[sockets]]\nlisten = \"[::]:80\"\n[[sockets]]\nlisten = \"/run/a\"\nname = \"b\"\ntype = \"seqpacket\"\n\
         mode = \"0640\"\nuser = 7\n",
    );
    assert_eq!(two.diagnostics, []);
    let sockets = two.component.expect("a component").sockets;
    let told: Vec<_> = sockets.iter().map(|s| (s.listen.to_string(), s.name.as_str(), s.mode)).collect();
    assert_eq!(told, [("[::]:80".to_owned(), "socket", 0o666), ("/run/a".to_owned(), "b", 0o640)]);
    assert_eq!((sockets[1].kind, sockets[1].user, sockets[1].group), (SocketKind::SeqPacket, Some(7), None));
    let good = "[[sockets]]\nlisten = \"127.0.0.1:80\"\n";
    for (lines, line, problem) in [
        ("[[sockets]]\nlisen = \"/run/a\"", 7, "unknown key `sockets.lisen`"),
        ("[[sockets]]\nname = \"a\"", 6, "`sockets.listen` is missing"),
        ("[[sockets]]\nlisten = \"127.0.0.1:80\"", 7, "127.0.0.1:80 is listened on twice"),
        ("[[sockets]]\nlisten = \"127.0.0.1:81\"\nmode = \"0600\"", 8, "`sockets.mode` has no effect"),
        ("[[sockets]]\nlisten = \"127.0.0.1:81\"\ntype = \"datagram\"\nbacklog = 5", 9, "has no effect"),
        ("[[sockets]]\nlisten = \"127.0.0.1:81\"\ntype = \"seqpacket\"", 8, "the network has no"),
        ("[[sockets]]\nlisten = \"/x\"\nname = \"a:b\"", 8, "`sockets.name` cannot be"),
    ] {
        let found = with(&format!("{good}{lines}")).diagnostics;
        assert!(found.iter().any(|d| d.line == line && d.message.contains(problem)), "{lines}: {found:#?}");
    }
    let one = with("[sockets]\nlisten = \"127.0.0.1:80\"").diagnostics;
    assert!(
        one.iter().any(|d| d.help.as_deref().is_some_and(|help| help.contains("[[sockets]]"))),
        "{one:#?}"
    );
    let all: Vec<_> = (1..=65).map(|port| format!("[[sockets]]\nlisten = \"127.0.0.1:{port}\"\n")).collect();
    let many = all.concat();
    assert!(with(&many).diagnostics.iter().any(|d| d.message.contains("at most 64 sockets")));
}
