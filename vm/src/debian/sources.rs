//! Derives a private list of package sources from the system's own.
//!
//! Reads both formats (one line each, and stanzas), keeps only what belongs to the distribution's release, and can
//! point it at another release. No server is named here: the user's own sources say where packages come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Suite;
use crate::fetch::{LOCAL_LIMIT, run};
use crate::image::{ImageError, Progress};

/// Keys of all Debian releases, on every Debian system: an entry for one release may be signed by fewer keys.
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Names that move from release to release.
const MOVING_SUITES: [&str; 5] = ["stable", "oldstable", "testing", "unstable", "sid"];

/// One source of binary packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// Further fields, such as `Signed-By`; continuation lines included.
    fields: Vec<(String, String)>,
}

/// The text of a sources file for `suite`.
pub(super) fn derive(
    suite: Suite<'_>,
    doing: &str,
    instead: &str,
    progress: &dyn Progress,
) -> Result<String, ImageError> {
    let system = read_system(doing, progress)?;
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = os_release(&release, "VERSION_CODENAME");
    let unsupported = |reason: String| ImageError::unsupported(doing, reason, instead);
    let chosen = match suite {
        Suite::System => own_release(&system, &codename),
        Suite::Named(_) if os_release(&release, "ID") != "debian" => {
            return Err(unsupported(
                "this system is not Debian, so its package sources hold no CRIU for it".into(),
            ));
        }
        Suite::Named(name) => other_release(&system, &codename, name, Path::new(DEBIAN_KEYRING).exists()),
    };
    if chosen.is_empty() {
        return Err(unsupported("apt's configuration names no usable package source".into()));
    }
    Ok(chosen.iter().map(Source::stanza).collect::<Vec<_>>().join("\n"))
}

/// What belongs to this system's release; everything, when nothing is recognised.
fn own_release(system: &[Source], codename: &str) -> Vec<Source> {
    let own = |suite: &str| {
        let base = suite.split(['-', '/']).next().unwrap_or_default();
        base == codename || MOVING_SUITES.contains(&base)
    };
    let chosen: Vec<Source> = system
        .iter()
        .filter_map(|source| {
            let suites: Vec<String> = source.suites.iter().filter(|s| own(s)).cloned().collect();
            (!suites.is_empty()).then(|| Source { suites, ..source.clone() })
        })
        .collect();
    if chosen.is_empty() { system.to_vec() } else { chosen }
}

/// The places that hold this system's release, pointed at release `name`.
fn other_release(system: &[Source], codename: &str, name: &str, keyring: bool) -> Vec<Source> {
    let main = |suite: &String| suite == codename || suite == name || MOVING_SUITES.contains(&suite.as_str());
    let mut chosen: Vec<Source> = Vec::new();
    for source in
        system.iter().filter(|s| s.suites.iter().any(main) && s.components.iter().any(|c| c == "main"))
    {
        let mut source =
            Source { suites: vec![name.into()], components: vec!["main".into()], ..source.clone() };
        if keyring {
            source.fields.retain(|(key, _)| !key.eq_ignore_ascii_case("Signed-By"));
            source.fields.push(("Signed-By".into(), DEBIAN_KEYRING.into()));
        }
        if !chosen.contains(&source) {
            chosen.push(source);
        }
    }
    chosen
}

fn read_system(doing: &str, progress: &dyn Progress) -> Result<Vec<Source>, ImageError> {
    let mut command = Command::new("apt-config");
    command.args(["shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]);
    let text = run(doing, command, LOCAL_LIMIT, None, progress)?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(PathBuf::from(line.trim_matches('\'')))
    };
    let mut files: Vec<PathBuf> = value("LIST").into_iter().collect();
    if let Some(items) = value("PARTS").and_then(|parts| fs::read_dir(parts).ok()) {
        files.extend(items.flatten().map(|item| item.path()));
    }
    files.sort();
    let mut all = Vec::new();
    for file in files {
        // What this user cannot read, apt run by this user could not read either.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => all.extend(text.lines().filter_map(parse_line)),
            Some("sources") => all.extend(parse_stanzas(&text)),
            _ => {}
        }
    }
    Ok(all)
}

/// `deb [signed-by=/key arch=amd64] URI suite component…`
fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    let fields = options.split_whitespace().filter_map(|option| option.split_once('='));
    Some(Source {
        uris: vec![uri],
        suites: vec![suite],
        components: words.collect(),
        fields: fields.map(|(key, value)| (field_name(key), value.replace(',', " "))).collect(),
    })
}

/// The stanza format's name of a one-line option.
fn field_name(option: &str) -> String {
    const RENAMED: [(&str, &str); 4] =
        [("arch", "Architectures"), ("lang", "Languages"), ("target", "Targets"), ("signed-by", "Signed-By")];
    let found = RENAMED.iter().find(|(from, _)| option.eq_ignore_ascii_case(from));
    found.map_or_else(|| option.to_owned(), |(_, to)| (*to).to_owned())
}

fn parse_stanzas(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    // The empty line at the end closes the last stanza.
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(from_fields(std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    sources
}

fn from_fields(mut fields: Vec<(String, String)>) -> Option<Source> {
    let mut take = |name: &str| {
        let at = fields.iter().position(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(fields.remove(at).1)
    };
    let words = |text: Option<String>| -> Vec<String> {
        text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let types = words(take("Types"));
    let enabled =
        take("Enabled").is_none_or(|text| !matches!(text.to_ascii_lowercase().as_str(), "no" | "false"));
    let source = Source {
        uris: words(take("URIs")),
        suites: words(take("Suites")),
        components: words(take("Components")),
        fields,
    };
    let usable =
        enabled && types.iter().any(|t| t == "deb") && !source.uris.is_empty() && !source.suites.is_empty();
    usable.then_some(source)
}

impl Source {
    fn stanza(&self) -> String {
        let mut lines = vec![
            "Types: deb".to_owned(),
            format!("URIs: {}", self.uris.join(" ")),
            format!("Suites: {}", self.suites.join(" ")),
        ];
        if !self.components.is_empty() {
            lines.push(format!("Components: {}", self.components.join(" ")));
        }
        lines.extend(self.fields.iter().map(|(key, value)| format!("{key}: {value}")));
        lines.push(String::new());
        lines.join("\n")
    }
}

/// The value of `key` in the text of an os-release file.
fn os_release(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "\
Types: deb deb-src
# a remark
URIs: mirror:/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN
 .
 -----END

Types: deb
URIs: mirror:/security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: mirror:/other
Suites: bookworm
";

    #[test]
    fn stanzas_are_read() {
        let sources = parse_stanzas(STANZAS);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert!(sources[0].stanza().ends_with("Signed-By: \n -----BEGIN\n .\n -----END\n"));
    }

    #[test]
    fn lines_are_read() {
        let source =
            parse_line("deb [ arch=amd64,i386 signed-by=/k.gpg ] mirror:/d bookworm main # x").unwrap();
        let expected = "Types: deb\nURIs: mirror:/d\nSuites: bookworm\nComponents: main\n\
                        Architectures: amd64 i386\nSigned-By: /k.gpg\n";
        assert_eq!(source.stanza(), expected);
        assert_eq!(parse_line("deb-src mirror:/d bookworm main"), None);
        assert_eq!(parse_line("# deb mirror:/d bookworm main"), None);
    }

    #[test]
    fn the_own_release_leaves_other_vendors_out() {
        let mut sources = parse_stanzas(STANZAS);
        sources.push(parse_line("deb mirror:/vendor nodistro main").unwrap());
        let own = own_release(&sources, "bookworm");
        assert_eq!(own.len(), 2);
        assert!(own.iter().all(|s| s.uris != ["mirror:/vendor"]));
    }

    #[test]
    fn another_release_comes_from_the_same_place() {
        let other = other_release(&parse_stanzas(STANZAS), "bookworm", "trixie", true);
        let [source] = other.as_slice() else { panic!("{other:?}") };
        assert_eq!(source.uris, ["mirror:/debian"]);
        assert_eq!(source.suites, ["trixie"]);
        assert_eq!(source.fields, [("Signed-By".to_owned(), DEBIAN_KEYRING.to_owned())]);
    }

    #[test]
    fn os_release_values_lose_their_quotes() {
        assert_eq!(os_release("ID=debian\nVERSION_CODENAME=\"bookworm\"\n", "VERSION_CODENAME"), "bookworm");
        assert_eq!(os_release("ID=debian\n", "VERSION_CODENAME"), "");
    }
}
