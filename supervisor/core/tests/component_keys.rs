//! The table of keys and the parser agree: each row is read, takes what its shape says and nothing
//! else, and has the default that it claims.

use yakiros_core::component::keys::{Fallback, Key, SECTIONS, Section, Shape};
use yakiros_core::component::schema::schema;
use yakiros_core::component::{Component, Parsed, parse};

/// What the interface promises: section, names, default (in TOML; empty for none).
const INTERFACE: &[(&str, &[&str], &str)] = &[
    ("component", &["name"], ""),
    ("component", &["binary"], ""),
    ("component", &["args"], "[]"),
    ("component", &["type"], "\"service\""),
    ("component", &["handoff"], ""),
    ("provides", &["capabilities"], "[]"),
    ("requires", &["capabilities"], "[]"),
    ("optional", &["capabilities"], "[]"),
    ("lifecycle", &["handoff"], "\"none\""),
    ("lifecycle", &["reload_signal"], ""),
    ("lifecycle", &["readiness"], ""),
    ("lifecycle", &["readiness_file"], ""),
    ("lifecycle", &["readiness_check", "readiness_command"], ""),
    ("lifecycle", &["readiness_signal"], ""),
    ("lifecycle", &["readiness_timeout"], "30"),
    ("lifecycle", &["readiness_interval"], "5"),
    ("lifecycle", &["health_check"], ""),
    ("lifecycle", &["health_interval"], "60"),
    ("lifecycle", &["health_timeout"], "10"),
    ("lifecycle", &["health_fail_threshold", "health_failures"], "3"),
    ("lifecycle", &["health_restart_threshold"], "5"),
    ("lifecycle", &["restart_max"], "5"),
    ("lifecycle", &["restart_window"], "30"),
    ("resources", &["cgroup", "cgroup_path"], ""),
    ("resources", &["memory_max"], ""),
    ("resources", &["memory_high"], ""),
    ("resources", &["cpu_weight"], ""),
    ("resources", &["io_weight"], ""),
    ("resources", &["cpu_max"], ""),
    ("resources", &["pids_max", "processes_max"], ""),
    ("resources", &["files_max"], ""),
    ("isolation", &["namespaces"], "[]"),
    ("isolation", &["hostname"], ""),
    ("isolation", &["root"], ""),
    ("isolation", &["private_tmp"], ""),
    ("isolation", &["read_only"], "[]"),
    ("isolation", &["inaccessible"], "[]"),
    ("isolation", &["binds"], "[]"),
    ("isolation", &["tmpfs"], "[]"),
    ("isolation", &["secrets"], ""),
    ("security", &["user"], ""),
    ("security", &["group"], ""),
    ("security", &["groups"], "[]"),
    ("security", &["no_new_privs"], ""),
    ("security", &["capabilities"], ""),
    ("security", &["ambient_capabilities"], "[]"),
    ("security", &["seccomp"], "[]"),
    ("security", &["seccomp_action"], "\"errno\""),
    ("security", &["optional"], "[]"),
    ("environment", &["variables"], "[]"),
    ("environment", &["working_directory"], "\"/\""),
    ("environment", &["umask"], "\"022\""),
    ("checkpoint", &["enabled"], "false"),
    ("checkpoint", &["preserve_fds"], "[]"),
    ("checkpoint", &["leave_running"], "false"),
    ("checkpoint", &["memory_estimate"], ""),
    ("checkpoint", &["rounds"], "4"),
    ("checkpoint", &["max_age"], ""),
    ("hotswap", &["transfer_fds"], "true"),
    ("hotswap", &["env_vars"], "[]"),
    ("hotswap", &["shutdown_grace"], "10"),
    ("hotswap", &["preserve_state"], "false"),
];

/// Keys that another key needs, or without which it would have no effect.
const COMPANIONS: &[(&str, &str)] = &[
    ("readiness", "readiness_file = \"/r\"\nreadiness_check = \"true\"\nreadiness_signal = \"USR1\""),
    ("readiness_interval", "readiness_check = \"true\""),
    ("readiness_timeout", "readiness_file = \"/r\""),
    ("health_interval", "health_file = \"/h\""),
    ("health_timeout", "health_file = \"/h\""),
    ("health_fail_threshold", "health_file = \"/h\""),
    ("health_restart_threshold", "health_file = \"/h\""),
    ("health_start_grace", "health_file = \"/h\""),
    ("health_jitter", "health_file = \"/h\""),
    ("hostname", "namespaces = [\"uts\"]"),
    ("root", "namespaces = [\"mount\"]"),
    ("private_tmp", "namespaces = [\"mount\"]"),
    ("read_only", "namespaces = [\"mount\"]"),
    ("inaccessible", "namespaces = [\"mount\"]"),
    ("binds", "namespaces = [\"mount\"]"),
    ("tmpfs", "namespaces = [\"mount\"]"),
    ("hidepid", "namespaces = [\"mount\", \"pid\"]"),
    ("uid_map", "namespaces = [\"user\"]"),
    ("gid_map", "namespaces = [\"user\"]"),
    ("time_offsets", "namespaces = [\"time\"]"),
    ("init", "namespaces = [\"pid\"]"),
    ("network", "namespaces = [\"net\"]"),
    ("secrets", "namespaces = [\"mount\"]"),
    ("seccomp_action", "seccomp = [\"@service\"]"),
];

/// Keys of sockets that only a path has.
const PATHS_ONLY: &[&str] = &["mode", "user", "group", "type"];

/// A file with one key in it, on the last line, and what it needs.
fn file(section: &Section, key: &Key, line: &str) -> String {
    let (head, section) = (section.head(), section.name);
    if section == "slice" {
        let name = if key.name == "name" { "" } else { "name = \"a\"" };
        return [&*head, name, line].join("\n");
    }
    let mut lines = vec!["[component]".to_owned()];
    let program = [("name", "a"), ("binary", "/a")].into_iter();
    let program = program.filter(|(name, _)| section != "component" || key.name != *name);
    lines.extend(program.map(|(name, value)| format!("{name} = \"{value}\"")));
    if section != "component" {
        lines.push(head);
    }
    let path = if PATHS_ONLY.contains(&key.name) { "/run/a.sock" } else { "127.0.0.1:80" };
    if section == "sockets" && key.name != "listen" {
        lines.push(format!("listen = {path:?}"));
    }
    let companions = COMPANIONS.iter().filter(|(name, _)| *name == key.name);
    lines.extend(companions.map(|(_, companions)| (*companions).to_owned()));
    lines.push(line.to_owned());
    lines.join("\n")
}

fn component(text: &str) -> Component {
    let Parsed { component, diagnostics } = parse(text);
    component.unwrap_or_else(|| panic!("{text}\n{diagnostics:#?}"))
}

fn quoted(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("{word:?}")).collect()
}

/// Values that a shape takes and some that it does not, in TOML.
fn samples(shape: Shape) -> (Vec<String>, Vec<String>) {
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    let both = |good: &[&str], bad: &[&str]| (owned(good), owned(bad));
    let long_path = format!("\"/{}\"", "x".repeat(107));
    match shape {
        Shape::Name => both(&["\"b-1.2_x+@:\""], &["\"\"", "\"a/b\"", "\".b\"", "\"-b\"", "\"a b\"", "1"]),
        Shape::HostName => {
            let long = format!("\"{}\"", "x".repeat(65));
            both(&["\"web\""], &["\"\"", "7", "[\"web\"]", &long])
        }
        Shape::Path => both(&["\"/b\"", "'/b c'"], &["\"b\"", "\"\"", "\"/b\\u0000\"", "1", "[]"]),
        Shape::CgroupPath => {
            both(&["\"b\"", "\"b/c\""], &["\"/b\"", "\"../b\"", "\"b//c\"", "\"\"", "\"cgroup.procs\"", "1"])
        }
        Shape::SlicePath => both(
            &["\"b\"", "\"b-1/c.d\"", "\"memories\""],
            &[
                "\"\"",
                "\"/b\"",
                "\"b/\"",
                "\"../b\"",
                "\"b//c\"",
                "\".b\"",
                "\"b.slice/c\"",
                "\"memory\"",
                "\"a/cpu.x\"",
                "\"a b\"",
                "1",
            ],
        ),
        Shape::Controllers(words) => {
            let mut good = quoted(&words());
            good.push(format!("[{}]", good.join(", ")));
            good.extend(["true".to_owned(), "\"memory, pids\"".to_owned()]);
            (good, owned(&["\"rdma\"", "[\"disk\"]", "3", "[1]"]))
        }
        Shape::Text => both(&["\"for b\""], &["\"\"", "\"\\u0000\"", "1", "[]"]),
        Shape::Word(words) => (quoted(&words()), owned(&["\"nonsense\"", "\"\"", "true", "3"])),
        Shape::Words(words) => {
            let mut good = quoted(&words());
            good.push(format!("[{}]", good.join(", ")));
            good.push(format!("{:?}", words().join(", ")));
            (good, owned(&["\"nonsense\"", "[\"nonsense\"]", "true", "3"]))
        }
        Shape::Arguments => both(&["[\"x\", \"\"]"], &["\"x\"", "[1]", "[\"\\u0000\"]", "true"]),
        Shape::Capabilities => both(&["[\"x.y\"]"], &["\"x\"", "[1]", "[\"\"]", "[\"x y\"]", "true"]),
        Shape::Command => {
            both(&["\"x | y\"", "[\"/x\", \"y\"]"], &["\"\"", "[]", "[\"x\"]", "[\"/x\", 1]", "1", "true"])
        }
        Shape::Signal => both(
            &["\"HUP\"", "\"SIGTERM\"", "\"sigusr1\"", "10", "\"34\""],
            &["\"HUB\"", "0", "65", "true", "[]"],
        ),
        Shape::FreeSignal => both(&["\"SIGUSR1\"", "\"usr2\"", "34", "64"], &["\"HUP\"", "32", "65", "true"]),
        Shape::Seconds => both(
            &["0", "1_0", "0.5", "\"500ms\"", "\"2m\"", "\"1.5h\"", "0x10"],
            &["-1", "nan", "inf", "1e12", "\"5 days\"", "\"\"", "true", "[]", "-0x1"],
        ),
        Shape::PositiveSeconds => both(&["0.5", "\"500ms\"", "7"], &["0", "\"0s\"", "-1", "true", "[]"]),
        Shape::Interval => {
            both(&["0.01", "\"10ms\"", "7"], &["0", "\"0s\"", "0.009", "0.000001", "-1", "true", "[]"])
        }
        Shape::Number(low, high) => {
            let good = vec![low.to_string(), (low + 1).to_string(), format!("{high:#x}")];
            let mut bad: Vec<String> = owned(&["-1", "1.5", "\"3\"", "true", "[1]"]);
            bad.push((high + 1).to_string());
            bad.extend(low.checked_sub(1).map(|below| below.to_string()));
            (good, bad)
        }
        Shape::Bytes => both(
            &["1", "1_048_576", "\"64M\"", "\"64 KiB\"", "\"1g\"", "\"5\""],
            &["0", "-1", "\"\"", "\"64 apples\"", "\"99999999T\"", "1.5", "true"],
        ),
        Shape::Size => both(&["0", "64", "\"0\"", "\"64M\""], &["-1", "\"\"", "\"64 apples\"", "true", "[]"]),
        Shape::IoMax => both(
            &[
                "[\"8:0 rbps=1M\"]",
                "[\"/dev/sda wbps=1024 wiops=5\", \"/dev/disk/by-id/x riops=max rbps=2g\"]",
            ],
            &[
                "\"8:0 rbps=1\"",
                "[\"8:0\"]",
                "[\"8 rbps=1\"]",
                "[\"/etc/passwd rbps=1\"]",
                "[\"8:0 rbps=0\"]",
                "[\"8:0 riops=1M\"]",
                "[\"8:0 bps=1\"]",
                "[\"\"]",
                "[1]",
                "true",
            ],
        ),
        Shape::Numbers => both(
            &["\"0\"", "\"0-3,8\"", "\" 1, 2 - 3\""],
            &["\"\"", "\"0..3\"", "\"1,\"", "\"-1\"", "\"a\"", "1", "[1]"],
        ),
        Shape::Pressure => both(
            &["\"some 150ms 1s\"", "\"full 0.5 2\""],
            &[
                "\"150ms 1s\"",
                "\"any 150ms 1s\"",
                "\"some 1s\"",
                "\"some 0 1s\"",
                "\"some 1s 1s 1s\"",
                "1",
                "[]",
            ],
        ),
        Shape::CpuMax => both(
            &["\"50000 100000\"", "\"max 100000\"", "\"max\"", "\"1000\""],
            &["\"999 100000\"", "\"1000 999\"", "\"1000 1000001\"", "\"1 2 3\"", "\"\"", "5000"],
        ),
        Shape::Truth => both(&["true", "false"], &["\"true\"", "1", "[]"]),
        Shape::List => both(&["[\"3\", 4]", "\"3, 4\"", "[]"], &["3", "true", "[true]", "[[1]]"]),
        Shape::ListOrTruth => both(&["[\"3\", 4]", "\"3, 4\"", "true", "false"], &["3", "[true]"]),
        Shape::Variables => both(
            &["[\"A=1\", \"B\"]", "\"A=1,B\"", "{ A = \"1\" }"],
            &["[\"=1\"]", "{ A = 1 }", "3", "true", "[\"A=\\u0000\"]"],
        ),
        Shape::Address => both(
            &["\"127.0.0.1:80\"", "\"[::1]:80\"", "\"localhost:80\""],
            &["\"example.org:80\"", "\"127.0.0.1\"", "\"127.0.0.1:0\"", "\"\"", "80"],
        ),
        Shape::Listen => both(
            &["\"0.0.0.0:80\"", "\"[::]:80\"", "\"/run/x.sock\""],
            &["\"example.org:80\"", "\"0.0.0.0\"", "\"0.0.0.0:0\"", "\"x.sock\"", "80", "\"\"", &long_path],
        ),
        Shape::DescriptorName => {
            both(&["\"http\"", "\"a b\""], &["\"a:b\"", "\"ä\"", "\"\"", "1", "\"\\n\""])
        }
        Shape::Mode => both(&["\"0660\"", "\"600\""], &["\"rw\"", "\"1777\"", "\"66\"", "\"0888\"", "432"]),
        Shape::Integer(low, high) => {
            let good = vec![low.to_string(), high.to_string(), "+1".to_owned()];
            let bad = vec![(low - 1).to_string(), (high + 1).to_string(), "1.5".into(), "\"1\"".into()];
            (good, bad)
        }
        Shape::Account => both(
            &["\"www-data\"", "33", "\"33\"", "0"],
            &["\"a b\"", "\"a:b\"", "\"\"", "\"-a\"", "-1", "4294967295", "true", "[]"],
        ),
        Shape::Accounts => both(&["[\"audio\", 33]", "\"audio, 33\"", "[]"], &["[\"a b\"]", "33", "[true]"]),
        Shape::CapabilitySet => both(
            &["[\"CAP_CHOWN\", \"net_raw\"]", "\"cap_kill, CHOWN\"", "[]"],
            &["[\"CAP_CHOWNER\"]", "\"root\"", "true", "3", "[3]"],
        ),
        Shape::Paths => both(&["[\"/b\", \"/b c\"]"], &["\"/b\"", "[\"b\"]", "[\"\"]", "[1]", "true"]),
        Shape::Binds => both(
            &["[\"/a:/b\", \"/a:/b:ro\", \"/:/b:rw\"]"],
            &["[\"/a\"]", "[\"a:/b\"]", "[\"/a:/\"]", "[\"/a:/b:no\"]", "\"/a:/b\"", "[\"/a:/b:ro:ro\"]"],
        ),
        Shape::Tmpfs => both(
            &["[\"/a\", \"/b:size=16M\"]"],
            &["[\"a\"]", "[\"/\"]", "[\"/a:size=0\"]", "[\"/a:16M\"]", "\"/a\"", "[\"/a:size=\"]"],
        ),
        Shape::IdMaps => both(
            &["[\"0 100000 65536\"]", "[\"0 0 1\", \"1 1 1\"]"],
            &["[\"0 1\"]", "[\"0 1 0\"]", "[\"a b c\"]", "\"0 0 1\"", "[\"0 0 1 1\"]", "[\"-1 0 1\"]"],
        ),
        Shape::TimeOffsets => both(
            &["{ monotonic = 5, boottime = -60 }"],
            &[
                "{ realtime = 5 }",
                "{ monotonic = \"5\" }",
                "{ monotonic = 1.5 }",
                "5",
                "{ boottime = 4000000000 }",
            ],
        ),
        Shape::Network => both(
            &[
                "{ bridge = \"br0\", address = \"10.0.0.2/24\" }",
                "{ bridge = \"br0\", address = \"10.0.0.2/24\", gateway = \"10.0.0.1\" }",
                "{ bridge = \"b\", address = \"fd00::2/64\", gateway = \"fd00::1\" }",
            ],
            &[
                "\"br0\"",
                "{ bridge = \"br0\" }",
                "{ address = \"10.0.0.2/24\" }",
                "{ bridge = \"br0\", address = \"10.0.0.2\" }",
                "{ bridge = \"br0\", address = \"10.0.0.2/0\" }",
                "{ bridge = \"br/0\", address = \"10.0.0.2/24\" }",
                "{ bridge = \"a-name-that-is-too-long\", address = \"10.0.0.2/24\" }",
                "{ bridge = \"br0\", address = \"10.0.0.2/24\", route = \"10.0.0.1\" }",
                "{ bridge = \"br0\", address = \"10.0.0.2/24\", gateway = \"here\" }",
            ],
        ),
        Shape::Secrets => both(
            &["{ a = \"/b\", \"x.key\" = \"/c\" }"],
            &["{ a = \"b\" }", "{ \"a/b\" = \"/b\" }", "{ \"..\" = \"/b\" }", "[\"/b\"]", "{ a = 1 }"],
        ),
        Shape::Rlimits => both(
            &["{ core = 0, nproc = \"64:128\" }", "{ as = \"64M\", stack = \"8M:infinity\" }"],
            &[
                "{ cores = 0 }",
                "{ core = -1 }",
                "{ core = true }",
                "\"core\"",
                "{ core = \"\" }",
                "{ core = \"1:2:3\" }",
            ],
        ),
        Shape::Scheduling => both(
            &["\"batch\"", "\"idle\"", "\"fifo:10\"", "\"rr:99\""],
            &["\"fifo\"", "\"fifo:0\"", "\"rr:100\"", "\"batch:1\"", "\"\"", "\"nonsense\"", "3"],
        ),
        Shape::IoClass => both(
            &["\"idle\"", "\"best-effort:4\"", "\"realtime:0\"", "\"realtime\""],
            &["\"idle:1\"", "\"best-effort:8\"", "\"\"", "\"nonsense\"", "3"],
        ),
        Shape::Cpus => both(
            &["\"0-3, 8\"", "[0, 1]", "[\"0-3\", 8]", "\"5\""],
            &["\"a\"", "[9000]", "[-1]", "3", "true", "\"1-\"", "\"10000\""],
        ),
        Shape::Seccomp => both(
            &["[\"@service\"]", "[\"~@mount\", \"~ptrace\"]", "\"read, write\""],
            &["[\"@\"]", "[\"open file\"]", "3", "[\"\"]", "[\"READ\"]"],
        ),
        Shape::Url => both(
            &["\"http://127.0.0.1\"", "\"http://[::1]:8080/x?y\"", "\"http://localhost:81/\""],
            &[
                "\"https://127.0.0.1/\"",
                "\"127.0.0.1:80\"",
                "\"http://a.b/\"",
                "\"http://127.0.0.1/a b\"",
                "80",
            ],
        ),
    }
}

#[test]
fn every_key_of_the_interface_is_in_the_table_with_its_default() {
    for (section, names, default) in INTERFACE {
        let keys = SECTIONS.iter().find(|s| s.name == *section).map(|s| s.keys);
        let key = keys.and_then(|keys| keys.iter().find(|key| key.name == names[0]));
        let key = key.unwrap_or_else(|| panic!("{section}.{} is missing", names[0]));
        assert_eq!(key.names().collect::<Vec<_>>(), *names, "{section}");
        let value = if let Fallback::Value(value) = key.fallback { value } else { "" };
        assert_eq!(value, *default, "{section}.{}", key.name);
    }
}

#[test]
fn every_key_and_alias_is_read_and_takes_what_its_shape_says() {
    for section in SECTIONS {
        for key in section.keys {
            let without = parse(&file(section, key, "")).component;
            let (good, bad) = samples(key.shape);
            for name in key.names() {
                let with = |value: &str| file(section, key, &format!("{name} = {value}"));
                let read = good.iter().map(|value| component(&with(value)));
                let changes = read.filter(|component| Some(component) != without.as_ref()).count();
                assert!(changes > 0, "{}.{name} changes nothing", section.name);
                for value in &bad {
                    let text = with(value);
                    let Parsed { component, diagnostics } = parse(&text);
                    let line = text.lines().count();
                    let told = diagnostics.iter().any(|d| d.is_error() && d.line == line);
                    assert!(told && component.is_none(), "{text}\n{diagnostics:#?}");
                }
            }
        }
    }
}

/// Values that no pattern can refuse: the product is too large for 64 bits.
const BEYOND_A_PATTERN: &[&str] = &["\"99999999T\""];

/// What a file says, for a validator of JSON. `None` for numbers that JSON does not have.
fn as_json(text: &str) -> Option<serde_json::Value> {
    toml::from_str(text).ok()
}

#[test]
fn the_schema_for_editors_takes_and_refuses_what_the_parser_does() {
    let validator = jsonschema::validator_for(&schema()).expect("a valid schema");
    for section in SECTIONS {
        for key in section.keys {
            let (good, bad) = samples(key.shape);
            for name in key.names() {
                let with = |value: &str| file(section, key, &format!("{name} = {value}"));
                for value in &good {
                    let json = as_json(&with(value)).expect("TOML");
                    let errors: Vec<_> = validator.iter_errors(&json).map(|e| e.to_string()).collect();
                    assert_eq!(errors, Vec::<String>::new(), "{}.{name} = {value}", section.name);
                }
                for value in bad.iter().filter(|value| !BEYOND_A_PATTERN.contains(&value.as_str())) {
                    let valid = as_json(&with(value)).is_some_and(|json| validator.is_valid(&json));
                    assert!(!valid, "{}.{name} = {value}", section.name);
                }
            }
        }
    }
}

#[test]
fn an_absent_key_means_what_the_table_says() {
    for section in SECTIONS {
        for key in section.keys {
            let without = parse(&file(section, key, ""));
            match key.fallback {
                Fallback::Value(value) => {
                    let text = file(section, key, &format!("{} = {value}", key.name));
                    assert_eq!(Some(component(&text)), without.component, "{text}");
                }
                Fallback::Required => assert!(without.component.is_none(), "{}", key.name),
                Fallback::Words(_) => assert!(without.component.is_some(), "{}", key.name),
            }
        }
    }
}

#[test]
fn a_key_and_its_alias_at_once_are_refused() {
    let aliases = SECTIONS.iter().flat_map(|section| {
        let keys = section.keys.iter().filter(|key| !key.aliases.is_empty());
        keys.map(move |key| (section, key))
    });
    for (section, key) in aliases {
        let value = &samples(key.shape).0[1];
        let lines: Vec<_> = key.names().map(|name| format!("{name} = {value}")).collect();
        let parsed = parse(&file(section, key, &lines.join("\n")));
        let told = parsed.diagnostics.iter().any(|d| d.message.contains("is another name for"));
        assert!(
            told && parsed.component.is_none(),
            "{}.{}: {:?}",
            section.name,
            key.name,
            parsed.diagnostics
        );
    }
}
