//! Conversions from TOML values to typed ones. Each says what it expected and what to write.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::de::{DeInteger, DeValue};

use super::keys::{SHORTEST_INTERVAL, Word, nearest};
use super::{Command, HttpTarget};
use crate::diagnostic::rules::{self, Rule};

/// Why a value does not convert. The message completes "`section.key` …".
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) rule: &'static Rule,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// The part of the value that it is about; the whole value without.
    pub(super) place: Option<Range<usize>>,
}

impl Problem {
    pub(super) fn new(rule: &'static Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into(), help: None, place: None }
    }

    pub(super) fn at(mut self, place: Range<usize>) -> Self {
        self.place.get_or_insert(place);
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn wrong_type(expected: &str, value: &DeValue<'_>) -> Self {
        Self::new(&rules::WRONG_TYPE, format!("must be {expected}, not {}", describe(value)))
    }
}

/// A signal by its number on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal(pub i32);

/// Names and numbers as on every Linux architecture that this runs on (x86, arm, risc-v).
pub(super) const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Highest number of a real-time signal.
pub(super) const SIGNAL_MAX: i32 = 64;

/// Lowest number of a real-time signal that the C library leaves to programs.
const SIGNAL_RT_MIN: i32 = 34;

impl Signal {
    /// Ends a process that does not handle it, with a core.
    pub const ABORT: Self = Self(6);

    /// Whether it has no meaning but what sender and receiver agree on: SIGUSR1, SIGUSR2 and the
    /// real-time signals. The first two mean something to the supervisor when somebody else than
    /// a component sends them; it tells the two apart by the sender.
    pub fn is_free(self) -> bool {
        const USR1: i32 = 10;
        const USR2: i32 = 12;
        matches!(self.0, USR1 | USR2 | SIGNAL_RT_MIN..=SIGNAL_MAX)
    }

    /// Whether the kernel keeps each one that is sent, with its sender. Of the others it keeps one of
    /// several that come before the first is read.
    pub fn is_queued(self) -> bool {
        self.0 >= SIGNAL_RT_MIN
    }

    /// From `HUP`, `SIGHUP`, `sighup` or `1`.
    pub fn from_name(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<i32>() {
            return (1..=SIGNAL_MAX).contains(&number).then_some(Self(number));
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        SIGNALS.iter().find(|(name, _)| *name == bare).map(|(_, number)| Self(*number))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// What a value is, for a message.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {:?}", text.as_ref()),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(truth) => format!("{truth}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, Problem> {
    match value.as_str() {
        Some("") => Err(Problem::new(&rules::UNUSABLE_TEXT, "is empty")),
        Some(text) if text.contains('\0') => Err(Problem::new(&rules::UNUSABLE_TEXT, "contains a NUL byte")),
        Some(text) => Ok(text.to_owned()),
        None => Err(Problem::wrong_type("text in quotes", value)),
    }
}

/// The longest host name that Linux takes, in bytes (`__NEW_UTS_LEN`).
pub(super) const HOST_NAME_LIMIT: usize = 64;

pub(super) fn host_name(value: &DeValue<'_>) -> Result<String, Problem> {
    let name = text(value)?;
    if name.len() <= HOST_NAME_LIMIT {
        return Ok(name);
    }
    Err(Problem::new(&rules::HOST_NAME, format!("is too long with {} bytes", name.len()))
        .help(format!("the kernel takes at most {HOST_NAME_LIMIT}")))
}

pub(super) fn truth(value: &DeValue<'_>) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| Problem::wrong_type("true or false", value).help("without quotes"))
}

/// A path that names a program or file wherever the supervisor stands.
pub(super) fn absolute_path(value: &DeValue<'_>) -> Result<String, Problem> {
    let path = text(value)?;
    if path.starts_with('/') {
        return Ok(path);
    }
    Err(relative_path(&path))
}

fn relative_path(path: &str) -> Problem {
    Problem::new(&rules::RELATIVE_PATH, format!("must be an absolute path, not {path:?}"))
        .help("nothing is searched in PATH; write the whole path")
}

/// Whether a text is an absolute path.
pub(super) fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0')
}

/// An array of absolute paths.
pub(super) fn paths(value: &DeValue<'_>) -> Result<Vec<String>, Problem> {
    let paths = arguments(value)?;
    match paths.iter().find(|path| !is_absolute(path)) {
        Some(bad) => Err(relative_path(bad)),
        None => Ok(paths),
    }
}

/// Arguments: any text, the empty one included.
pub(super) fn arguments(value: &DeValue<'_>) -> Result<Vec<String>, Problem> {
    let DeValue::Array(items) = value else {
        return Err(
            Problem::wrong_type("an array of strings", value).help("for example [\"--port\", \"80\"]")
        );
    };
    items
        .iter()
        .map(|item| match item.get_ref().as_str() {
            Some(text) if text.contains('\0') => {
                Err(Problem::new(&rules::UNUSABLE_TEXT, "contains a NUL byte").at(item.span()))
            }
            Some(text) => Ok(text.to_owned()),
            None => Err(Problem::wrong_type("an array of strings", item.get_ref())
                .help("write numbers in quotes")
                .at(item.span())),
        })
        .collect()
}

/// Capability names: an array of words without white space, each kept once.
pub(super) fn capabilities(value: &DeValue<'_>) -> Result<Vec<String>, Problem> {
    let mut names = arguments(value)?;
    if let Some(bad) = names.iter().position(|name| !is_word(name)) {
        let problem = Problem::new(&rules::CAPABILITY_NAME, format!("has the bad name {:?}", names[bad]))
            .help("a capability's name has no white space and is not empty");
        let place = value.as_array().and_then(|items| Some(items.get(bad)?.span()));
        return Err(place.into_iter().fold(problem, Problem::at));
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// A list given as an array of strings or numbers, or as one comma-separated text.
pub(super) fn list(value: &DeValue<'_>) -> Result<Vec<String>, Problem> {
    match value {
        DeValue::String(text) => {
            Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
        }
        DeValue::Array(items) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                DeValue::Integer(number) => Ok(number.as_str().to_owned()),
                other => Err(Problem::wrong_type("a list of names or numbers", other).at(item.span())),
            })
            .collect(),
        other => Err(Problem::wrong_type("an array or a comma-separated text", other)),
    }
}

/// Like [`list`]; `true` means all (`None`), `false` none.
pub(super) fn list_or_truth(value: &DeValue<'_>) -> Result<Option<Vec<String>>, Problem> {
    match value {
        DeValue::Boolean(all) => Ok((!all).then(Vec::new)),
        other => list(other).map(Some),
    }
}

/// Variables: a list of `NAME=VALUE` or `NAME`, or a table of values.
pub(super) fn variables(value: &DeValue<'_>) -> Result<Vec<String>, Problem> {
    let given = match value {
        DeValue::Table(table) => table
            .iter()
            .map(|(name, value)| {
                let value = value
                    .get_ref()
                    .as_str()
                    .ok_or_else(|| Problem::wrong_type("a table of strings", value.get_ref()))?;
                Ok(format!("{}={value}", name.get_ref()))
            })
            .collect::<Result<Vec<_>, Problem>>()?,
        other => list(other)?,
    };
    match given.iter().find(|v| v.is_empty() || v.starts_with('=') || v.contains('\0')) {
        Some(bad) => Err(Problem::new(&rules::NO_VARIABLE, format!("has the bad variable {bad:?}"))
            .help("write NAME=VALUE, or NAME to pass the supervisor's own value on")),
        None => Ok(given),
    }
}

pub(super) fn command(value: &DeValue<'_>) -> Result<Command, Problem> {
    if value.is_array() {
        let words = arguments(value)?;
        return match words.first() {
            Some(program) if program.starts_with('/') => Ok(Command::Direct(words)),
            _ => Err(Problem::new(&rules::NO_PROGRAM, "as an array must begin with an absolute path")
                .help("or write one text, which /bin/sh runs")),
        };
    }
    text(value).map(Command::Shell)
}

/// An address and a port. Names are not looked up (a resolver would block the supervisor), but
/// `localhost` is known.
pub(super) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, Problem> {
    let given = text(value)?;
    parse_address(&given).ok_or_else(|| {
        Problem::new(&rules::NO_ADDRESS, format!("is no address and port: {given:?}"))
            .help("write numbers, as \"127.0.0.1:8080\" or \"[::1]:8080\"; names are not looked up")
    })
}

pub(super) fn parse_address(text: &str) -> Option<SocketAddr> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address: SocketAddr = numeric.as_deref().unwrap_or(text).parse().ok()?;
    (address.port() > 0).then_some(address)
}

/// `http://ADDRESS[:PORT][/PATH]`, with addresses as in [`socket_address`].
pub(super) fn http_target(value: &DeValue<'_>) -> Result<HttpTarget, Problem> {
    const DEFAULT_PORT: u16 = 80;
    let given = text(value)?;
    if given.starts_with("https://") {
        return Err(Problem::new(&rules::NO_URL, "cannot be https: the probe speaks plain HTTP")
            .help("probe a plain local port, or use health_check with a client that speaks TLS"));
    }
    let rest = given.strip_prefix("http://").filter(|rest| rest.bytes().all(|b| b.is_ascii_graphic()));
    let target = rest.and_then(|rest| {
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let with_port = || parse_address(&format!("{host}:{DEFAULT_PORT}"));
        let address = parse_address(host).or_else(with_port)?;
        let path = if path.is_empty() { "/" } else { path };
        Some(HttpTarget { address, host: host.to_owned(), path: path.to_owned() })
    });
    target.ok_or_else(|| {
        Problem::new(&rules::NO_URL, format!("is no URL of a local server: {given:?}"))
            .help("write \"http://127.0.0.1:8080/path\"; names are not looked up")
    })
}

pub(super) fn signal(value: &DeValue<'_>) -> Result<Signal, Problem> {
    let name = match value {
        DeValue::Integer(number) => number.as_str().to_owned(),
        other => text(other)?,
    };
    Signal::from_name(&name).ok_or_else(|| {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let problem = Problem::new(&rules::UNKNOWN_SIGNAL, format!("names an unknown signal {name:?}"));
        match nearest(bare, SIGNALS.iter().map(|(name, _)| *name)) {
            Some(near) => problem.help(format!("did you mean \"SIG{near}\"?")),
            None => problem.help("for example \"SIGHUP\""),
        }
    })
}

/// A signal that a component sends to the supervisor. The others have a meaning of their own
/// there (SIGCHLD, SIGTERM, ...) or cannot be received at all.
pub(super) fn signal_to_supervisor(value: &DeValue<'_>) -> Result<Signal, Problem> {
    let given = signal(value)?;
    if given.is_free() {
        return Ok(given);
    }
    Err(Problem::new(
        &rules::SIGNAL_NOT_FREE,
        format!("cannot be {given}, which is not free for the supervisor to receive"),
    )
    .help(format!("send SIGUSR1, SIGUSR2, or a real-time signal ({SIGNAL_RT_MIN} to {SIGNAL_MAX})")))
}

/// One of the words for `T`.
pub(super) fn word<T: Word>(value: &DeValue<'_>) -> Result<T, Problem> {
    meaning(&text(value)?, |given| format!("cannot be {given:?}"))
}

/// What `given` means, or `complaint` about it and the nearest word.
pub(super) fn meaning<T: Word>(given: &str, complaint: impl Fn(&str) -> String) -> Result<T, Problem> {
    if let Some((_, meaning)) = T::WORDS.iter().find(|(word, _)| *word == given) {
        return Ok(*meaning);
    }
    let problem = Problem::new(&rules::UNKNOWN_WORD, complaint(given));
    let all = || {
        let all: Vec<_> = T::WORDS.iter().map(|(word, _)| format!("{word:?}")).collect();
        format!("it is one of {}", all.join(", "))
    };
    let near = nearest(given, T::WORDS.iter().map(|(word, _)| *word));
    Err(problem.help(near.map_or_else(all, |near| format!("did you mean {near:?}?"))))
}

/// A whole number within `low..=high`.
pub(super) fn number(low: u64, high: u64) -> impl Fn(&DeValue<'_>) -> Result<u64, Problem> {
    move |value| {
        let DeValue::Integer(given) = value else {
            return Err(Problem::wrong_type("a whole number", value).help("without quotes"));
        };
        whole(given).filter(|number| (low..=high).contains(number)).ok_or_else(|| {
            Problem::new(&rules::OUT_OF_RANGE, format!("is out of range with {}", given.as_str()))
                .help(format!("it lies between {low} and {high}"))
        })
    }
}

/// A whole number within `low..=high`, which may be negative.
pub(super) fn integer(low: i64, high: i64) -> impl Fn(&DeValue<'_>) -> Result<i64, Problem> {
    move |value| {
        let DeValue::Integer(given) = value else {
            return Err(Problem::wrong_type("a whole number", value).help("without quotes"));
        };
        whole_integer(given).filter(|number| (low..=high).contains(number)).ok_or_else(|| {
            Problem::new(&rules::OUT_OF_RANGE, format!("is out of range with {}", given.as_str()))
                .help(format!("it lies between {low} and {high}"))
        })
    }
}

/// A number in whatever base it is written.
pub(super) fn whole_integer(number: &DeInteger<'_>) -> Option<i64> {
    let digits = number.as_str().replace('_', "");
    i64::from_str_radix(&digits, number.radix()).ok()
}

/// A number that is not negative, in whatever base it is written.
fn whole(number: &DeInteger<'_>) -> Option<u64> {
    let digits = number.as_str().replace('_', "");
    u64::from_str_radix(digits.trim_start_matches('+'), number.radix()).ok()
}

/// The longest time that can be declared: a year. Longer ones are slips of the keyboard, and
/// adding them to the clock must never overflow.
pub(super) const LONGEST: f64 = 366.0 * 24.0 * 3600.0;

/// Seconds as a number, or a text with a unit (`"500ms"`, `"5s"`, `"2m"`, `"1h"`).
pub(super) fn seconds(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let parsed = match value {
        DeValue::Integer(number) => whole(number).map(|seconds| seconds as f64),
        DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
        DeValue::String(text) => with_unit(text),
        other => return Err(Problem::wrong_type("a time in seconds", other)),
    };
    parsed.filter(|seconds| (0.0..=LONGEST).contains(seconds)).map(Duration::from_secs_f64).ok_or_else(|| {
        Problem::new(&rules::NO_TIME, format!("is no time: {}", describe(value)))
            .help("write seconds, as 30 or 0.5, or a text like \"500ms\"; at most a year")
    })
}

/// Like [`seconds`], more than zero: an interval of nothing would never let go of the processor.
pub(super) fn positive_seconds(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let time = seconds(value)?;
    if time.is_zero() {
        return Err(Problem::new(&rules::ZERO_TIME, "must be more than zero"));
    }
    Ok(time)
}

/// Like [`seconds`], long enough to be repeated for ever.
pub(super) fn interval(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let time = positive_seconds(value)?;
    if time < SHORTEST_INTERVAL {
        let least = format!("must be at least {SHORTEST_INTERVAL:?}");
        return Err(Problem::new(&rules::SHORT_INTERVAL, least));
    }
    Ok(time)
}

/// Seconds, of a number with a unit or without.
pub(super) fn with_unit(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    digits.trim().parse::<f64>().ok().map(|n| n * factor)
}

/// Bytes as a number, or a text with K, M, G or T (powers of 1024). More than nothing.
pub(super) fn bytes(value: &DeValue<'_>) -> Result<u64, Problem> {
    size_from(1, value)
}

/// The same, or nothing.
pub(super) fn bytes_or_none(value: &DeValue<'_>) -> Result<u64, Problem> {
    size_from(0, value)
}

fn size_from(least: u64, value: &DeValue<'_>) -> Result<u64, Problem> {
    if value.is_integer() {
        return number(least, u64::MAX)(value);
    }
    let given = text(value)?;
    size(&given).filter(|size| *size >= least).ok_or_else(|| {
        Problem::new(&rules::NO_SIZE, format!("is no size: {given:?}"))
            .help("write bytes, or a text like \"64M\"")
    })
}

/// A number, or one with K, M, G or T (powers of 1024).
pub fn size(given: &str) -> Option<u64> {
    let digits = given.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match given[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(0),
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        "T" | "TB" | "TIB" => Some(40),
        _ => None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(1_u64 << shift?)
}

/// The longest path of a control group below the supervisor's own or that of a slice, and that of a slice, in bytes: one
/// after the other, behind the root of all groups and before the name of a file, they are a path for the kernel, which
/// takes 4,096 bytes.
pub(super) const GROUP_LIMIT: usize = 1024;

/// The longest name in a directory, in bytes.
const FILE_NAME_LIMIT: usize = 255;

/// Whether a text can be a name, or a part of one with slashes, that becomes a control group or a file.
pub(super) fn is_part_of_a_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_alphanumeric() || "._-+@:".contains(c))
}

/// A relative path that stays inside the supervisor's own cgroup, and is short enough for the kernel.
pub(super) fn cgroup_path(value: &DeValue<'_>) -> Result<String, Problem> {
    let path = text(value)?;
    if path.len() > GROUP_LIMIT || path.split('/').any(|part| part.len() > FILE_NAME_LIMIT) {
        let problem = Problem::new(&rules::CGROUP_ESCAPES, format!("is too long: {} bytes", path.len()));
        let help = format!("{GROUP_LIMIT} bytes are the most, and {FILE_NAME_LIMIT} between two slashes");
        return Err(problem.help(help));
    }
    let inside = !path.starts_with('/')
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !is_cgroup_file(part));
    if inside {
        return Ok(path);
    }
    Err(Problem::new(&rules::CGROUP_ESCAPES, format!("leaves the supervisor's cgroup: {path:?}"))
        .help("write a relative path without `.`, `..` or a leading `/`"))
}

/// Names that the kernel itself puts into a cgroup directory.
pub(super) fn is_cgroup_file(name: &str) -> bool {
    ["cgroup.", "memory.", "cpu.", "io.", "pids.", "cpuset."].iter().any(|prefix| name.starts_with(prefix))
}

/// A list of words, each once and in order.
pub(super) fn words<T: Word + Ord>(value: &DeValue<'_>) -> Result<Vec<T>, Problem> {
    let names = list(value)?;
    let unknown = |name: &str| format!("names an unknown {} {name:?}", T::WHAT);
    // In an array, the place of the name; in a text, that of the text.
    let place = |at: usize| value.as_array().and_then(|items| Some(items.get(at)?.span()));
    let found = names.iter().enumerate().map(|(at, name)| {
        meaning(name, unknown).map_err(|problem| place(at).into_iter().fold(problem, Problem::at))
    });
    let mut found = found.collect::<Result<Vec<T>, _>>()?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
