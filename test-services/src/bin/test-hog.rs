//! Takes as much of one thing as it can get: what a limit is for.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, fork, pause};
use yakiros_test_services::Error;
use yakiros_test_services::args::{Opt, Program, Values};

const PROGRAM: Program = Program {
    name: "test-hog",
    about: "Takes as much of one thing as it can get, and keeps it. Kinds:\n\
            cpu        spins, with --threads threads\n\
            files      opens files, and says how many it got\n\
            io         writes to --path and waits for the disk, again and again; --direct past the page cache\n\
            memory     takes --mebibytes at once and touches them, or without end by 1 MiB\n\
            processes  starts processes that start processes, and says how many it got",
    options: &[
        Opt { name: "--kind", value: Some("NAME"), default: None, help: "what to take, see above" },
        Opt { name: "--threads", value: Some("N"), default: Some("1"), help: "cpu: threads that spin" },
        Opt { name: "--path", value: Some("FILE"), default: Some("/tmp/hog"), help: "io: the file" },
        Opt { name: "--direct", value: None, default: None, help: "io: with O_DIRECT" },
        Opt {
            name: "--mebibytes",
            value: Some("N"),
            default: Some("0"),
            help: "memory: how much; 0 = without end",
        },
        Opt { name: "--after-ms", value: Some("N"), default: Some("0"), help: "time until it begins" },
    ],
};

/// What is taken at once, of memory and of a disk.
const PIECE: usize = 1 << 20;
/// The least of memory that is touched for it to be taken: a page.
const PAGE: usize = 4096;
/// Between two tries to get more once there was none: it goes on trying, and takes no processor for it.
const AGAIN: Duration = Duration::from_millis(20);
/// What is written at once with O_DIRECT: a request that is throttled waits for the whole of it, so smaller ones show a
/// limit more exactly.
const DIRECT_PIECE: usize = 64 << 10;
/// Size at which the file begins anew.
const FILE_SIZE: usize = 8 << 20;

/// Takes one thing. It ends only by what it takes, or by an error.
type Hog = fn(&Values<'_>) -> Result<ExitCode, Error>;

/// By kind.
const HOGS: [(&str, Hog); 5] =
    [("cpu", cpu), ("files", files), ("io", disk), ("memory", memory), ("processes", processes)];

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let kind: String = values.optional("--kind")?.ok_or_else(|| Error::Usage("--kind is missing".into()))?;
    let (_, hog) = HOGS
        .iter()
        .find(|(known, _)| *known == kind)
        .ok_or_else(|| Error::Usage(format!("--kind {kind}: no such kind")))?;
    thread::sleep(Duration::from_millis(values.parse("--after-ms")?));
    hog(values)
}

/// For ever.
fn rest() -> ! {
    loop {
        pause();
    }
}

fn cpu(values: &Values<'_>) -> Result<ExitCode, Error> {
    let threads: usize = values.parse("--threads")?;
    for _ in 1..threads {
        thread::spawn(spin);
    }
    spin()
}

fn spin() -> ! {
    let mut value = 1_u64;
    loop {
        value = black_box(value.wrapping_mul(3));
    }
}

fn files(_: &Values<'_>) -> Result<ExitCode, Error> {
    let mut open = Vec::new();
    let refused = loop {
        match File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) => break error,
        }
    };
    say(&format!("held at {} files: {refused}", open.len()))?;
    rest()
}

fn disk(values: &Values<'_>) -> Result<ExitCode, Error> {
    let path: String = values.parse("--path")?;
    let direct = values.switch("--direct");
    let failed = || format!("write {path}");
    let (piece, flags) = if direct { (DIRECT_PIECE, OFlag::O_DIRECT) } else { (PIECE, OFlag::empty()) };
    let buffer = vec![0x5a; piece + PAGE];
    // O_DIRECT wants memory at a multiple of a disk's block.
    let start = buffer.as_ptr().align_offset(PAGE);
    let content = &buffer[start..start + piece];
    loop {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits())
            .open(&path)
            .map_err(Error::failed(failed()))?;
        for _ in 0..FILE_SIZE / piece {
            let written = file.write_all(content);
            let written = written.and_then(|()| if direct { Ok(()) } else { file.sync_data() });
            written.map_err(Error::failed(failed()))?;
        }
    }
}

fn memory(values: &Values<'_>) -> Result<ExitCode, Error> {
    let mebibytes: usize = values.parse("--mebibytes")?;
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while mebibytes == 0 || taken.len() < mebibytes {
        let mut piece = vec![0_u8; PIECE];
        piece.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        taken.push(black_box(piece));
    }
    say(&format!("has taken {} MiB", taken.len()))?;
    rest()
}

/// Each child does what its parent does, so that they are twice as many at each step, until there are no more.
fn processes(_: &Values<'_>) -> Result<ExitCode, Error> {
    let mut told = false;
    let first = std::process::id();
    loop {
        // SAFETY: one thread, so the child may do what the parent may.
        match unsafe { fork() } {
            Ok(ForkResult::Child | ForkResult::Parent { .. }) => {}
            Err(error) => {
                if !told && std::process::id() == first {
                    say(&format!("held: {error}"))?;
                    told = true;
                }
                thread::sleep(AGAIN);
            }
        }
    }
}

/// One line, at once: what is left in a buffer would be every child's, too.
fn say(line: &str) -> Result<(), Error> {
    let mut out = io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Error::failed("say it"))
}
