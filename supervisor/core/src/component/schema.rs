//! The JSON Schema of a component file, for editors: made from the table of keys.
//!
//! It refuses what the parser refuses of a single value as far as a pattern can tell, and unknown
//! keys, of which the parser only warns. What several keys demand of each other it does not know.

use serde_json::{Map, Value, json};

use super::isolation::{OFFSET_MAX, SECRET_LIMIT};
use super::keys::{Fallback, Key, SECTIONS, SHORTEST_INTERVAL, Section, Shape, Word};
use super::process::CPU_MAX;
use super::seccomp::SETS;
use super::security::ID_MAX;
use super::{CAPABILITIES, KERNEL, NAME_LIMIT, RlimitResource, Signal, resources, slice, values};

/// Letters, digits and what else a name may have; see `build::name`.
const NAME: &str = "^[\\p{Alphabetic}\\p{N}_+@:][\\p{Alphabetic}\\p{N}._+@:-]*$";

/// No NUL byte, not empty.
const TEXT: &str = "^[^\\u0000]+$";

/// No NUL byte.
const ARGUMENT: &str = "^[^\\u0000]*$";

/// No white space, no control characters, not empty.
const WORD: &str = "^[^\\s\\p{Cc}]+$";

const ABSOLUTE: &str = "^/[^\\u0000]*$";

/// Neither absolute nor with empty, `.` and `..` parts, nor with names that the kernel uses.
const CGROUP: &str =
    "^(?!/)(?!.*(^|/)(\\.{0,2}|(cgroup|memory|cpu|io|pids|cpuset)\\.[^/]*)(/|$))[^\\u0000]+$";

/// Parts that are names, neither a controller's nor with the end that their directories get.
const SLICE: &str = "^(?!.*\\.slice(/|$))(?!(.*/)?(cgroup|memory|cpu|io|pids|cpuset)(\\.|/|$))\
                     [\\p{Alphabetic}\\p{N}_+@:][\\p{Alphabetic}\\p{N}._+@:-]*\
                     (/[\\p{Alphabetic}\\p{N}_+@:][\\p{Alphabetic}\\p{N}._+@:-]*)*$";

/// A number with or without a unit; the parser trims it.
const TIME: &str = "^\\s*(\\d+\\.?\\d*|\\.\\d+)\\s*(ms|s|m|min|h)?\\s*$";

/// The same, with a digit that is not zero.
const POSITIVE_TIME: &str = "^\\s*(?=[\\d.]*[1-9])(\\d+\\.?\\d*|\\.\\d+)\\s*(ms|s|m|min|h)?\\s*$";

const SIZE: &str = "^0*[1-9]\\d*\\s*([bB]|[kKmMgGtT]([iI]?[bB])?)?$";

/// The same, or 0.
const SIZE_OR_NONE: &str = "^\\d+\\s*([bB]|[kKmMgGtT]([iI]?[bB])?)?$";

/// A device and at least one limit; that none is there twice a pattern cannot tell.
const IO_MAX: &str = "^\\s*(\\d+:\\d+|/dev/\\S+)(\\s+([rw]bps=(max|0*[1-9]\\d*([bB]|[kKmMgGtT]([iI]?[bB])?)?)|\
                      [rw]iops=(max|0*[1-9]\\d*)))+\\s*$";

/// Numbers and ranges; their order and their size a pattern cannot tell.
const NUMBERS: &str = "^\\s*\\d+\\s*(-\\s*\\d+\\s*)?(,\\s*\\d+\\s*(-\\s*\\d+\\s*)?)*$";

/// Two times; whether they fit together a pattern cannot tell.
const PRESSURE: &str = "^\\s*(some|full)(\\s+(?=[\\d.]*[1-9])(\\d+\\.?\\d*|\\.\\d+)(ms|s|m|min|h)?){2}\\s*$";

const QUOTA: &str = "^\\s*(max|\\d{4,})(\\s+(\\d{4,6}|1000000))?\\s*$";

const ADDRESS: &str = "^([0-9.]+|localhost|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]):0*[1-9]\\d{0,4}$";

const URL: &str = "^http://([0-9.]+|localhost|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\])(:0*[1-9]\\d{0,4})?(/[!-~]*)?$";

/// An absolute path that fits into an address, as far as it has no letters of several bytes.
const SOCKET_PATH: &str = "^/[^\\u0000]{0,106}$";

/// ASCII without control characters and colons.
const DESCRIPTOR_NAME: &str = "^[ -9;-~]{1,255}$";

const VARIABLE: &str = "^[^=\\u0000][^\\u0000]*$";

/// A name of `/etc/passwd`, or digits.
const ACCOUNT: &str = "^[^\\s\\p{Cc}:/-][^\\s\\p{Cc}:/]*$";

const BIND: &str = "^/[^:\\u0000]*:/[^:\\u0000]+(:(ro|rw))?$";

/// Neither blank nor what the kernel does not take.
const INTERFACE: &str = "^(?!\\.{1,2}$)[^\\s/:\\p{Cc}]{1,15}$";

const PREFIXED: &str = "^[0-9A-Fa-f:.]+/0*[1-9]\\d{0,2}$";

const BARE: &str = "^[0-9A-Fa-f:.]+$";

const TMPFS: &str = "^/[^:\\u0000]+(:size=0*[1-9]\\d*([bB]|[kKmMgGtT]([iI]?[bB])?)?)?$";

const ID_MAP: &str = "^\\s*\\d{1,10}\\s+\\d{1,10}\\s+0*[1-9]\\d{0,9}\\s*$";

const RLIMIT: &str =
    "^\\s*(infinity|unlimited|\\d+[a-zA-Z]{0,3})\\s*(:\\s*(infinity|unlimited|\\d+[a-zA-Z]{0,3})\\s*)?$";

const SCHEDULING: &str = "^(other|batch|idle|(fifo|rr):0*[1-9]\\d?)$";

const IO_CLASS: &str = "^(idle|(best-effort|realtime)(:0*[0-7])?)$";

const CPUS: &str = "^\\s*\\d{1,4}\\s*(-\\s*\\d{1,4}\\s*)?(,\\s*\\d{1,4}\\s*(-\\s*\\d{1,4}\\s*)?)*$";

/// The schema, version 2020-12.
pub fn schema() -> Value {
    let sections: Map<_, _> = SECTIONS.iter().map(|s| (s.name.to_owned(), sections(s))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Component file of YakirOS",
        "description": "One program that the supervisor looks after, or a control group that several share.",
        "type": "object",
        "properties": sections,
        "oneOf": [{"required": ["component"]}, {"required": ["slice"]}],
        "additionalProperties": false,
    })
}

/// One section, or several of a name.
fn sections(of: &Section) -> Value {
    if of.several { json!({"type": "array", "items": section(of)}) } else { section(of) }
}

fn section(section: &Section) -> Value {
    let mut properties = Map::new();
    for row in section.keys {
        properties.insert(row.name.to_owned(), key(row));
        for alias in row.aliases {
            let mut other = shape(row.shape);
            other["description"] = json!(format!("Another name for `{}`.", row.name));
            properties.insert((*alias).to_owned(), other);
        }
    }
    let mut schema = json!({
        "description": section.about,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    let aliased = section.keys.iter().filter(|key| !key.aliases.is_empty());
    let once = aliased.map(|key| json!({"not": {"required": key.names().collect::<Vec<_>>()}}));
    let once: Vec<_> = once.collect();
    if !once.is_empty() {
        schema["allOf"] = json!(once);
    }
    let is_required = |key: &&Key| matches!(key.fallback, Fallback::Required);
    let required: Vec<_> = section.keys.iter().filter(is_required).map(|key| key.name).collect();
    if section.several || required == ["name"] {
        schema["required"] = json!(required);
    } else if !required.is_empty() {
        schema["required"] = json!(["name"]);
        schema["if"] = json!({"properties": {"name": {"const": KERNEL}}});
        schema["else"] = json!({"required": required});
    }
    schema
}

fn key(key: &Key) -> Value {
    let mut schema = shape(key.shape);
    schema["description"] = match key.fallback {
        Fallback::Words(words) => json!(format!("{}\n\nDefault: {words}.", key.about)),
        Fallback::Required | Fallback::Value(_) => json!(key.about),
    };
    if let Fallback::Value(value) = key.fallback {
        // Defaults are simple values, which TOML and JSON write alike; a test reads them all.
        schema["default"] = serde_json::from_str(value).unwrap_or_default();
    }
    schema
}

fn shape(shape: Shape) -> Value {
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let array = |items: Value| json!({"type": "array", "items": items});
    let list = || array(json!({"type": ["string", "integer"]}));
    match shape {
        Shape::Name => json!({"type": "string", "pattern": NAME, "maxLength": NAME_LIMIT}),
        Shape::HostName => json!({"type": "string", "pattern": TEXT, "maxLength": values::HOST_NAME_LIMIT}),
        Shape::Path => text(ABSOLUTE),
        Shape::CgroupPath => text(CGROUP),
        Shape::SlicePath => {
            json!({"type": "string", "pattern": SLICE, "maxLength": values::GROUP_LIMIT - slice::SUFFIX.len()})
        }
        Shape::Text => text(TEXT),
        Shape::Controllers(words) => {
            let one = format!("^({})$", words().join("|"));
            let several = format!("^\\s*(({0})\\s*(,\\s*(({0})\\s*)?)*)?$", words().join("|"));
            json!({"anyOf": [{"type": "boolean"}, array(text(&one)), text(&several)]})
        }
        Shape::Word(words) => json!({"enum": words()}),
        Shape::Words(words) => {
            let words = words();
            let one = words.join("|");
            let several = format!("^\\s*(({one})\\s*(,\\s*({one})?\\s*)*)?$");
            json!({"anyOf": [array(json!({"enum": words})), text(&several)]})
        }
        Shape::Arguments => array(text(ARGUMENT)),
        Shape::Capabilities => array(text(WORD)),
        Shape::Command => {
            let program = json!({"type": "array", "prefixItems": [text(ABSOLUTE)], "items": text(ARGUMENT),
                                 "minItems": 1});
            json!({"anyOf": [text(TEXT), program]})
        }
        Shape::Signal => signals(|_| true),
        Shape::FreeSignal => signals(Signal::is_free),
        Shape::Seconds => json!({"anyOf": [
            {"type": "number", "minimum": 0, "maximum": values::LONGEST}, text(TIME)]}),
        Shape::PositiveSeconds => json!({"anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": values::LONGEST}, text(POSITIVE_TIME)]}),
        // A text may be too short all the same: its number and its unit cannot be told together here.
        Shape::Interval => json!({"anyOf": [
            {"type": "number", "minimum": SHORTEST_INTERVAL.as_secs_f64(), "maximum": values::LONGEST},
            text(POSITIVE_TIME)]}),
        Shape::Number(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        Shape::Bytes => json!({"anyOf": [{"type": "integer", "minimum": 1}, text(SIZE)]}),
        Shape::Size => json!({"anyOf": [{"type": "integer", "minimum": 0}, text(SIZE_OR_NONE)]}),
        Shape::CpuMax => text(QUOTA),
        Shape::IoMax => {
            let mut lines = array(text(IO_MAX));
            lines["maxItems"] = json!(resources::DEVICES_LIMIT);
            lines
        }
        Shape::Numbers => text(NUMBERS),
        Shape::Pressure => text(PRESSURE),
        Shape::Truth => json!({"type": "boolean"}),
        Shape::List => json!({"anyOf": [list(), {"type": "string"}]}),
        Shape::ListOrTruth => json!({"anyOf": [list(), {"type": ["string", "boolean"]}]}),
        Shape::Variables => json!({"anyOf": [
            array(json!({"anyOf": [{"type": "integer"}, text(VARIABLE)]})),
            {"type": "string", "pattern": ARGUMENT},
            {"type": "object", "additionalProperties": text(ARGUMENT)}]}),
        Shape::Address => text(ADDRESS),
        Shape::Url => text(URL),
        Shape::Listen => json!({"anyOf": [text(ADDRESS), text(SOCKET_PATH)]}),
        Shape::DescriptorName => text(DESCRIPTOR_NAME),
        Shape::Mode => text("^0?[0-7]{3}$"),
        Shape::Integer(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        Shape::Account => account(),
        Shape::Accounts => json!({"anyOf": [array(account()), text(ARGUMENT)]}),
        Shape::CapabilitySet => capabilities(),
        Shape::Paths => array(text(ABSOLUTE)),
        Shape::Binds => array(text(BIND)),
        Shape::Tmpfs => array(text(TMPFS)),
        Shape::IdMaps => array(text(ID_MAP)),
        Shape::TimeOffsets => {
            let offset = json!({"type": "integer", "minimum": -OFFSET_MAX, "maximum": OFFSET_MAX});
            table(json!({"monotonic": offset, "boottime": offset}))
        }
        Shape::Network => {
            let mut network =
                table(json!({"bridge": text(INTERFACE), "address": text(PREFIXED), "gateway": text(BARE)}));
            network["required"] = json!(["bridge", "address"]);
            network
        }
        Shape::Secrets => json!({"type": "object", "additionalProperties": text(ABSOLUTE),
            "propertyNames": {"pattern": "^[^./\\p{Cc}][^/\\p{Cc}]*$", "maxLength": SECRET_LIMIT}}),
        Shape::Rlimits => {
            let limit = json!({"anyOf": [{"type": "integer", "minimum": 0}, text(RLIMIT)]});
            let names = RlimitResource::WORDS.iter().map(|(name, _)| ((*name).to_owned(), limit.clone()));
            table(json!(names.collect::<Map<_, _>>()))
        }
        Shape::Scheduling => text(SCHEDULING),
        Shape::IoClass => text(IO_CLASS),
        Shape::Cpus => {
            let one = json!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": CPU_MAX}, text(CPUS)]});
            json!({"anyOf": [array(one), text(CPUS)]})
        }
        Shape::Seccomp => {
            // Which calls there are, the kernel's headers say.
            let sets: Vec<_> = SETS.iter().map(|(name, _)| *name).collect();
            let one = format!("^~?({}|[a-z_][a-z0-9_]*)$", sets.join("|"));
            json!({"anyOf": [array(text(&one)), text(ARGUMENT)]})
        }
    }
}

/// A table of nothing but these keys.
fn table(properties: Value) -> Value {
    let mut schema = json!({"type": "object", "additionalProperties": false});
    schema["properties"] = properties;
    schema
}

fn account() -> Value {
    json!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": ID_MAX}, {"type": "string", "pattern": ACCOUNT}]})
}

/// Names, with or without CAP_ in any case, in an array or a text with commas.
fn capabilities() -> Value {
    let names: Vec<_> = CAPABILITIES.iter().map(|name| any_case(&name[4..])).collect();
    let one = format!("({})?({})", any_case("CAP_"), names.join("|"));
    let several = format!("^\\s*({one}\\s*(,\\s*({one})?\\s*)*)?$");
    json!({"anyOf": [
        {"type": "array", "items": {"type": "string", "pattern": format!("^{one}$")}},
        {"type": "string", "pattern": several}]})
}

/// Names, with or without SIG in any case, and numbers.
fn signals(takes: impl Fn(Signal) -> bool) -> Value {
    let names = values::SIGNALS.iter().filter(|(_, number)| takes(Signal(*number)));
    let names: Vec<_> = names.map(|(name, _)| any_case(name)).collect();
    let numbers: Vec<_> = (1..=values::SIGNAL_MAX).filter(|number| takes(Signal(*number))).collect();
    let digits: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    let pattern = format!("^(({})?({})|{})$", any_case("SIG"), names.join("|"), digits.join("|"));
    json!({"anyOf": [{"type": "string", "pattern": pattern}, {"enum": numbers}]})
}

/// A pattern for a word in capitals or not.
fn any_case(word: &str) -> String {
    word.chars().flat_map(|c| ['[', c, c.to_ascii_lowercase(), ']']).collect()
}
