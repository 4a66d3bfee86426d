//! Every code is given by its bad example and by nothing else there; good examples give nothing.

use yakiros_core::component::{Declared, check_together, parse};
use yakiros_core::diagnostic::Diagnostic;
use yakiros_core::diagnostic::rules::{Example, RULES, Rule};

/// The first code that concerns several files, or the machine.
const ACROSS_FILES: &str = "Y0400";

/// The first code about the machine. Those, and what needs a shell, `graphctl lint` is tested with.
const MACHINE: &str = "Y0405";

/// What is found in an example, file by file. `None` when only a machine can tell.
fn findings(rule: &Rule, example: &Example) -> Option<Vec<Diagnostic>> {
    let files = match example {
        Example::File(text) if rule.code < ACROSS_FILES => return Some(parse(text).diagnostics),
        Example::File(text) if rule.code < MACHINE => &[("web.toml", *text)][..],
        Example::Files(files) => files,
        _ => return None,
    };
    let parsed: Vec<_> = files.iter().map(|(_, text)| parse(text)).collect();
    let declared: Vec<_> = files
        .iter()
        .zip(&parsed)
        .map(|((file, source), parsed)| {
            assert_eq!(parsed.diagnostics, [], "{file}");
            Declared { file, source, component: parsed.component.as_ref().expect("a component") }
        })
        .collect();
    Some(check_together(&declared).into_iter().flatten().collect())
}

#[test]
fn codes_are_unique_and_sorted_and_well_formed() {
    assert!(RULES.is_sorted_by(|a, b| a.code < b.code));
    for rule in RULES {
        let digits = rule.code.strip_prefix('Y').unwrap_or_default();
        assert!(digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()), "{}", rule.code);
        assert!(rule.explanation.ends_with('.') && !rule.title.ends_with('.'), "{}", rule.code);
    }
}

#[test]
fn bad_examples_give_their_code_and_good_ones_nothing() {
    for rule in RULES {
        if let Some(found) = findings(rule, &rule.bad) {
            let codes: Vec<_> = found.iter().map(|d| (&*d.code, d.severity)).collect();
            assert_eq!(codes, [(rule.code, rule.severity)], "{found:#?}");
        }
        if let Some(found) = findings(rule, &rule.good) {
            assert_eq!(found, [], "the good example of {}", rule.code);
        }
    }
}

/// What is found in files of these texts, as code, file and offending text.
fn together(texts: &[&str]) -> Vec<(String, usize, String)> {
    let parsed: Vec<_> = texts.iter().map(|text| parse(text).component.expect("a component")).collect();
    let declared: Vec<_> = texts
        .iter()
        .zip(&parsed)
        .map(|(source, component)| Declared { file: "a file", source, component })
        .collect();
    let found = check_together(&declared).into_iter().enumerate();
    found.flat_map(|(at, found)| found.into_iter().map(move |d| (d.code.into_owned(), at, d.text))).collect()
}

fn one(name: &str, provides: &str, requires: &str) -> String {
    format!(
        "[component]\nname = \"{name}\"\nbinary = \"/a\"\n[provides]\ncapabilities = [{provides}]\n\
         [requires]\ncapabilities = [{requires}]\n"
    )
}

fn found(code: &str, at: usize, text: &str) -> (String, usize, String) {
    (code.to_owned(), at, text.to_owned())
}

#[test]
fn findings_across_files_stand_where_they_come_from() {
    let (hen, egg) = (one("hen", "\"hen\"", "\"egg\""), one("egg", "\"egg\"", "\"x\", \"hen\""));
    let expected = [found("Y0403", 0, "\"hen\""), found("Y0402", 0, "\"x\"")];
    let mut seen = together(&[&egg, &hen]);
    seen.sort_by(|a, b| b.cmp(a));
    assert_eq!(seen, expected);
}

#[test]
fn what_breaks_a_ring_or_serves_a_need_is_seen() {
    let (hen, egg) = (one("hen", "\"hen\"", "\"egg\""), one("egg", "\"egg\"", "\"hen\""));
    let farm = one("farm", "\"egg\"", "\"filesystem.proc\"");
    assert_eq!(together(&[&hen, &egg, &farm]), [], "another provider of eggs");
    let kernel = "[component]\nname = \"kernel\"\n[provides]\ncapabilities = [\"fuse\"]\n";
    assert_eq!(together(&[&one("a", "", "\"fuse\", \"filesystem.run\""), kernel]), []);
    let twin = one("hen", "\"x\"", "");
    assert_eq!(together(&[&twin, &hen]), [found("Y0401", 1, "\"hen\"")], "the second does not count");
}

#[test]
fn groups_clash_by_whole_names_only() {
    let grouped = |name: &str, group: &str| {
        format!("[component]\nname = \"{name}\"\nbinary = \"/a\"\n[resources]\ncgroup = \"{group}\"\n")
    };
    let web = one("web", "", "");
    assert_eq!(together(&[&web, &grouped("b", "web2"), &grouped("c", "front/web")]), []);
    let inside = grouped("b", "web/x/y");
    assert_eq!(together(&[&web, &inside]), [found("Y0404", 1, "\"web/x/y\"")]);
    assert_eq!(together(&[&grouped("b", "web"), &web]), [found("Y0404", 1, "")]);
}
