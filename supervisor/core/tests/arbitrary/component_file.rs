//! What holds for any bytes that are given as a component file.

use std::time::Duration;

use yakiros_core::component::{Component, parse_bytes};
use yakiros_core::control::{Answer, encode_answer};
use yakiros_core::diagnostic::{Diagnostic, rules};
use yakiros_core::engine::{Config, Engine, Event, FileChange, FileContent};

use super::takeover;

/// Panics if something does not hold.
pub fn check(bytes: &[u8]) {
    let parsed = parse_bytes(bytes);
    assert_eq!(parsed, parse_bytes(bytes), "the same bytes read differently");
    let failed = parsed.diagnostics.iter().any(Diagnostic::is_error);
    assert_eq!(parsed.component.is_none(), failed, "a file is refused exactly when it has an error");
    let source = str::from_utf8(bytes).unwrap_or_default();
    for finding in &parsed.diagnostics {
        check_finding(finding, source);
    }
    let content = match parsed.component {
        Some(component) => FileContent::Component(Box::new(component)),
        None => FileContent::Rejected(parsed.diagnostics),
    };
    check_report(content);
}

fn check_finding(finding: &Diagnostic, source: &str) {
    let rule = rules::find(&finding.code).expect("a code of the table");
    assert_eq!(rule.severity, finding.severity);
    if finding.line > 0 {
        let line = source.split('\n').nth(finding.line - 1).expect("the line is in the file");
        let length = line.chars().count();
        assert!((1..=length + 1).contains(&finding.column), "{finding:?} is outside of {line:?}");
        let from_there: String = line.chars().skip(finding.column - 1).collect();
        assert!(from_there.starts_with(finding.text.as_str()), "{finding:?} is not in {line:?}");
    }
    assert!(finding.compact("file.toml").contains(&*finding.code));
    for colour in [false, true] {
        assert!(finding.render("file.toml", source, colour).contains(&*finding.code));
    }
}

/// The supervisor takes it, and tells of it in one line that can be read again.
fn check_report(content: FileContent) {
    let component =
        if let FileContent::Component(component) = &content { Some(component.clone()) } else { None };
    let mut engine = Engine::new(Config::default());
    let file = "/etc/graph.d/file.toml".to_owned();
    let change = |content| Event::Files(vec![FileChange { file: file.clone(), content }]);
    engine.handle(Duration::from_secs(1), change(content));
    let status = engine.status_page(None);
    let known = status.components.len() + status.rejected.len();
    let extends_kernel = component.as_ref().is_some_and(|c| c.name == "kernel");
    assert_eq!(known, usize::from(!extends_kernel), "{status:?}");
    for answer in [Answer::Status(status), Answer::Graph(engine.graph_page(None))] {
        let line = encode_answer(answer);
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "one line");
        serde_json::from_slice::<serde_json::Value>(&line).expect("JSON");
    }
    takeover::check(&engine);
    if let Some(component) = component {
        check_twins(&mut engine, &component, change);
    }
}

/// A component equals itself: declared again, it changes nothing.
fn check_twins(engine: &mut Engine, component: &Component, change: impl Fn(FileContent) -> Event) {
    assert!(component.same_process(component));
    let before = engine.journal().revision();
    let content = FileContent::Component(Box::new(component.clone()));
    engine.handle(Duration::from_secs(1), change(content));
    assert_eq!(engine.journal().revision(), before, "{component:?} was declared twice");
}
