//! Requests: their lines, and the way there and back through the socket of a supervisor that runs.

use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use tempfile::TempDir;
use yakiros_benches::speed::{PROGRAMS, ROUND_TRIP};
use yakiros_core::control::{Answer, Request, decode_request, encode_answer, encode_request};

use crate::engine::started;
use crate::shapes::{LAYERS, changes, files};

/// Components in a page.
const COMPONENTS: usize = 300;

/// Time that the supervisor has to open its socket.
const START: Duration = Duration::from_secs(10);

pub fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("messages");
    let request = Request::Status { name: None, after: None };
    let line = encode_request(request.clone()).expect("a request");
    group.bench_function("encode request", |bencher| {
        bencher.iter(|| encode_request(black_box(request.clone())));
    });
    group.bench_function("decode request", |bencher| {
        bencher.iter(|| decode_request(black_box(&line)).is_ok());
    });
    let engine = started(changes(&files(COMPONENTS, LAYERS)));
    group.throughput(Throughput::Elements(COMPONENTS as u64));
    group.bench_function("status page of 300", |bencher| bencher.iter(|| engine.status_page(None)));
    let page = engine.status_page(None);
    group.bench_function("encode status of 300", |bencher| {
        let answer = || Answer::Status(page.clone());
        bencher.iter_batched(answer, encode_answer, BatchSize::SmallInput);
    });
    group.finish();
}

/// A supervisor in user mode with folders of its own and nothing to supervise.
struct Supervisor {
    child: Child,
    folder: TempDir,
}

impl Supervisor {
    fn start(program: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("graph.d")).expect("a directory");
        let child = Command::new(program)
            .arg("--config-dir")
            .arg(path("graph.d"))
            .arg("--control-socket")
            .arg(path("sock"))
            .arg("--state-dir")
            .arg(path("state"))
            // No control groups: nothing of the machine's is touched.
            .arg("--cgroup-root")
            .arg(path("none"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("failed to run {}: {error}", program.display()));
        Self { child, folder }
    }

    fn connect(&self) -> Option<BufReader<UnixStream>> {
        UnixStream::connect(self.folder.path().join("sock")).ok().map(BufReader::new)
    }

    fn await_socket(&self) -> BufReader<UnixStream> {
        let limit = Instant::now() + START;
        loop {
            if let Some(stream) = self.connect() {
                return stream;
            }
            assert!(Instant::now() < limit, "graph-resolver has no socket after {START:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // It supervises nothing, so nothing is left behind; that it has ended already is as good.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Ask, and read the whole answer.
fn ask(stream: &mut BufReader<UnixStream>, line: &[u8], answer: &mut Vec<u8>) {
    answer.clear();
    stream.get_mut().write_all(line).expect("a request");
    stream.read_until(b'\n', answer).expect("an answer");
    assert!(answer.ends_with(b"\n"), "a whole answer");
}

pub fn socket(criterion: &mut Criterion) {
    let Some(programs) = std::env::var_os(PROGRAMS).map(PathBuf::from) else {
        eprintln!("{ROUND_TRIP}: left out, {PROGRAMS} names no folder with graph-resolver");
        return;
    };
    let supervisor = Supervisor::start(&programs.join("graph-resolver"));
    let mut stream = supervisor.await_socket();
    let line = encode_request(Request::Status { name: None, after: None }).expect("a request");
    let mut answer = Vec::new();
    let mut group = criterion.benchmark_group(ROUND_TRIP);
    group.bench_function("one connection", |bencher| {
        bencher.iter(|| ask(&mut stream, &line, &mut answer));
    });
    group.bench_function("a connection each", |bencher| {
        bencher.iter(|| {
            let mut stream = supervisor.connect().expect("a connection");
            ask(&mut stream, &line, &mut answer);
        });
    });
    group.finish();
}
