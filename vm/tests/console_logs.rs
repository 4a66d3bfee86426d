//! Each form of kernel trouble against a log of it.
//!
//! A log in `console/` begins with what must be found in it: a line `# class: title` for each finding, in order, and
//! `# end of init` if the first of them is PID 1's fault. A new form is one row in the table and one log here.

use std::fs;
use std::path::Path;

use yakiros_vm::console::Analyzer;

#[test]
fn every_log_is_classified_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console");
    let mut logs = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (head, log): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("# "));
        let expected: Vec<&str> =
            head.iter().filter(|line| **line != "# end of init").map(|line| &line[2..]).collect();

        let mut analyzer = Analyzer::default();
        // In cuts that fall into the middle of lines, as they come from a socket.
        for piece in (log.join("\r\n") + "\r\n").as_bytes().chunks(7) {
            analyzer.push(piece);
        }
        let found = analyzer.findings();
        let titles: Vec<String> = found.iter().map(|f| format!("{}: {}", f.class.name(), f.title)).collect();
        assert_eq!(titles, expected, "{}", path.display());
        let end_of_init = found.first().is_some_and(yakiros_vm::console::Finding::is_end_of_init);
        assert_eq!(end_of_init, head.contains(&"# end of init"), "{}", path.display());
        logs += 1;
    }
    assert!(logs >= 14, "only {logs} logs were found");
}
