//! Every code is given by its bad example and by nothing else there; good examples give nothing.

use yakiros_core::component::parse;
use yakiros_core::diagnostic::Diagnostic;
use yakiros_core::diagnostic::rules::{Example, RULES, Rule};

/// What is found in an example, file by file. `None` when only a machine can tell.
fn findings(rule: &Rule, example: &Example) -> Option<Vec<Diagnostic>> {
    /// The first code that concerns several files, or the machine.
    const ACROSS_FILES: &str = "Y0400";
    match example {
        Example::File(text) if rule.code < ACROSS_FILES => Some(parse(text).diagnostics),
        _ => None,
    }
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
