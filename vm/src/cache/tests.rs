use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use super::*;
use crate::image::Silent;

/// Names the cache for the re-executed test binary, see [`child`].
const CHILD_CACHE: &str = "YAKIROS_TEST_CACHE";

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache")).unwrap();
    (dir, cache)
}

fn write_one(space: &Workspace) -> Result<Built, ImageError> {
    let path = space.out.join("file");
    fs::write(&path, "content").at("build", &path)?;
    let mut built = Built::default();
    built.notes.insert("colour".into(), "blue".into());
    Ok(built)
}

fn never(_: &Workspace) -> Result<Built, ImageError> {
    panic!("built again")
}

fn tmp_is_empty(cache: &Cache) -> bool {
    fs::read_dir(cache.root().join("tmp")).unwrap().next().is_none()
}

/// Collects the steps.
#[derive(Default)]
struct Steps(Mutex<Vec<String>>);

impl Progress for Steps {
    fn step(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

#[test]
fn built_once_and_then_used() {
    let (_dir, cache) = cache();
    let entry = cache.entry("a-1", &Silent, &write_one).unwrap();
    assert_eq!(fs::read_to_string(entry.path("file")).unwrap(), "content");
    drop(entry);
    let entry = cache.entry("a-1", &Silent, &never).unwrap();
    assert_eq!((entry.note("colour"), entry.note("size")), ("blue", ""));
    assert!(tmp_is_empty(&cache));
}

#[test]
fn a_failed_build_leaves_nothing() {
    let (_dir, cache) = cache();
    let fail = |space: &Workspace| {
        write_one(space)?;
        Err(ImageError::unsupported("build", "no", "yes"))
    };
    assert!(cache.entry("a", &Silent, &fail).is_err());
    assert!(cache.entries().unwrap().is_empty());
    assert!(tmp_is_empty(&cache));
    cache.entry("a", &Silent, &write_one).unwrap();
}

#[test]
fn a_changed_file_is_noticed_and_built_anew() {
    let (_dir, cache) = cache();
    let path = cache.entry("a", &Silent, &write_one).unwrap().path("file");
    for damage in ["longer than before", ""] {
        fs::write(&path, damage).unwrap();
        let steps = Steps::default();
        cache.entry("a", &steps, &write_one).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
        assert!(steps.0.lock().unwrap()[0].starts_with("build a anew: file: "));
    }
    fs::remove_file(&path).unwrap();
    cache.entry("a", &Silent, &write_one).unwrap();
    assert!(path.exists());
}

#[test]
fn verify_finds_what_a_glance_cannot() {
    let (_dir, cache) = cache();
    let path = cache.entry("a", &Silent, &write_one).unwrap().path("file");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "CONTENT").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    assert_eq!(cache.entries().unwrap()[0].damage, None);
    let found = cache.verify(&Silent).unwrap();
    assert!(found[0].damage.as_ref().unwrap().starts_with("file: sha256 expected"), "{found:?}");
    cache.entry("a", &Silent, &write_one).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    assert_eq!(cache.verify(&Silent).unwrap()[0].damage, None);
}

#[test]
fn a_manifest_that_is_half_written_does_not_count() {
    let (_dir, cache) = cache();
    let manifest = cache.entry("a", &Silent, &write_one).unwrap().path(MANIFEST);
    fs::write(&manifest, "{\"schema\": 1, ").unwrap();
    assert!(cache.entries().unwrap()[0].damage.is_some());
    cache.entry("a", &Silent, &write_one).unwrap();
    assert_eq!(cache.entries().unwrap()[0].damage, None);
}

#[test]
fn entries_in_use_are_not_removed() {
    let (_dir, cache) = cache();
    let entry = cache.entry("a", &Silent, &write_one).unwrap();
    let copy = entry.clone();
    drop(entry);
    assert_eq!(cache.remove("a").unwrap(), Removal::InUse);
    assert!(copy.path("file").exists());
    drop(copy);
    assert_eq!(cache.remove("a").unwrap(), Removal::Removed);
    assert!(cache.entries().unwrap().is_empty());
}

#[test]
fn two_threads_build_once() {
    let (_dir, cache) = cache();
    let count = AtomicU32::new(0);
    let build = |space: &Workspace| {
        count.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(200));
        write_one(space)
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| cache.entry("a", &Silent, &build).unwrap());
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn unwritable_directories_can_be_removed() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, cache) = cache();
    let build = |space: &Workspace| {
        let inner = space.out.join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o555)).unwrap();
        Ok(Built::default())
    };
    cache.entry("a", &Silent, &build).unwrap();
    assert_eq!(cache.remove("a").unwrap(), Removal::Removed);
}

/// Runs in a process of its own, started by the tests below: builds slowly, marking each build in a file.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD_CACHE) else { return };
    let cache = Cache::at(&root).unwrap();
    let build = |space: &Workspace| {
        use std::io::Write;
        let log = Path::new(&root).join("builds");
        File::options().append(true).create(true).open(log).unwrap().write_all(b"x").unwrap();
        fs::write(space.out.join("half"), "half").unwrap();
        thread::sleep(Duration::from_secs(1));
        write_one(space)
    };
    cache.entry("a", &Silent, &build).unwrap();
}

fn start_child(cache: &Cache) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cache::tests::child"]).env(CHILD_CACHE, cache.root());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn wait_for_build(cache: &Cache) {
    let start = Instant::now();
    while !cache.root().join("builds").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "the child never built");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_processes_build_once() {
    let (_dir, cache) = cache();
    let mut children = [start_child(&cache), start_child(&cache)];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(cache.root().join("builds")).unwrap(), "x");
    cache.entry("a", &Silent, &never).unwrap();
}

#[test]
fn a_killed_build_leaves_no_half_entry_and_is_cleaned_up() {
    let (_dir, cache) = cache();
    let mut child = start_child(&cache);
    wait_for_build(&cache);
    // While it lives, its work is left alone.
    Cache::at(cache.root()).unwrap();
    assert!(!tmp_is_empty(&cache));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(cache.entries().unwrap().is_empty());
    Cache::at(cache.root()).unwrap();
    assert!(tmp_is_empty(&cache), "leftovers of the killed build");
    cache.entry("a", &Silent, &write_one).unwrap();
}

#[test]
fn a_run_that_waits_says_so_once() {
    let (_dir, cache) = cache();
    let mut child = start_child(&cache);
    wait_for_build(&cache);
    let steps = Steps::default();
    cache.entry("a", &steps, &never).unwrap();
    assert_eq!(*steps.0.lock().unwrap(), ["wait for another run that holds a"]);
    child.wait().unwrap();
}
