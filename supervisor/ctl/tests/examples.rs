//! The examples are what people copy: `graphctl lint` finds nothing in them, on a machine that has their programs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

#[test]
fn examples_have_no_findings() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for example in fs::read_dir(&examples).expect("examples").flatten() {
        let folder = example.path().join("graph.d");
        let root = tempfile::tempdir().expect("temporary directory");
        for file in fs::read_dir(&folder).expect("component files").flatten() {
            install_program(&file.path(), root.path());
        }
        let lint = Command::new(env!("CARGO_BIN_EXE_graphctl"))
            .args(["lint", "--strict", "--root"])
            .args([root.path(), &folder])
            .output()
            .expect("graphctl");
        let (text, said) = (String::from_utf8_lossy(&lint.stdout), String::from_utf8_lossy(&lint.stderr));
        assert!(lint.status.success(), "{}: {text}{said}", folder.display());
        seen += 1;
    }
    assert!(seen > 0);
}

/// Puts a program below `root` where the component file expects it.
fn install_program(file: &Path, root: &Path) {
    let text = fs::read_to_string(file).expect("component file");
    let line = text.lines().find_map(|line| line.strip_prefix("binary = \"/"));
    let program = line.and_then(|line| line.strip_suffix('"')).expect("a binary");
    let path = root.join(program);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
    fs::write(&path, "").expect("program");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("program");
}
