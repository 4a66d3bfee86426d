//! The examples are what people copy: `graphctl lint` finds nothing in them.

use std::path::Path;
use std::process::Command;

#[test]
fn examples_have_no_findings() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for example in std::fs::read_dir(&examples).expect("examples").flatten() {
        let folder = example.path().join("graph.d");
        let files = std::fs::read_dir(&folder).expect("component files").flatten().map(|file| file.path());
        let files: Vec<_> = files.collect();
        assert!(!files.is_empty(), "{}", folder.display());
        let lint =
            Command::new(env!("CARGO_BIN_EXE_graphctl")).args(["lint", "--strict"]).args(&files).output();
        let lint = lint.expect("graphctl");
        let (text, said) = (String::from_utf8_lossy(&lint.stdout), String::from_utf8_lossy(&lint.stderr));
        assert!(lint.status.success(), "{}: {text}{said}", folder.display());
        for word in ["warning", "error"] {
            assert!(!said.contains(word), "{}: {said}", folder.display());
        }
        seen += 1;
    }
    assert!(seen > 0);
}
