//! Children that run in the supervisor's own memory until they execute.
//!
//! A copy of the memory, as `fork` makes it, costs more than everything else at a start: the page tables are copied, each
//! side pays a fault for each page that it writes to next, and exec takes the copy apart again. `vfork` copies nothing but
//! holds its caller until exec, and exec may wait for a disk for ever. So the child is cloned with `CLONE_VM` and without
//! `CLONE_VFORK`: on a stack of its own, with a plan of its own, while the supervisor goes on. A thread that waits in
//! `vfork` would do as well; but with a second thread every other child of this program would be a copy of a process in
//! which somebody else may hold a lock.
//!
//! What makes that safe:
//! - The child makes raw system calls and writes to its stack and its plan only (see [`super::child`]). Signal handlers,
//!   mask, limits and working directory are its own from the clone on. So is its table of descriptors where it is copied;
//!   where it is not, the child takes one before anything else (see [`super::lanes`]).
//! - What it uses is lent: a [`Loan`] that is not ended is never freed, whatever becomes of its owner. It ends when the
//!   report pipe was closed without a word (exec takes the memory away before it closes descriptors, as an exit does) or
//!   when the child was reaped.
//! - When the supervisor itself executes a program its old memory lives on, unchanged, until the last child has left it.
//! - The kernel ends all who have the memory of a process that it ends for want of memory, process 1 of the machine
//!   excepted; and an OOM score is written for all of them. So nothing is shared where the child's group has a limit of
//!   memory, or where the child's score has to be changed before exec.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

use super::child::{OWN_NUMBER_BYTES, Plan, Table};
use super::clone::clone_onto;
use super::lanes::Lane;
use super::stacks::{STACK_BYTES, Stack};
use super::{Common, Descriptors, Image, Started, handoff_fd, notify_fd};
use crate::sys;

/// Everything that a child uses before exec.
pub struct Launch {
    plan: Plan,
    stack: Stack,
    /// The child has a table of descriptors of its own. Behind a pointer, for the child writes to it.
    table_taken: Box<AtomicBool>,
    /// What the child finds in the supervisor's table until then.
    lane: Option<Lane>,
    /// What the plan points to.
    _image: Image,
    _argv: Vec<*const libc::c_char>,
    _environment: Vec<*const libc::c_char>,
    _given: Vec<RawFd>,
    _numbers: Vec<*mut u8>,
    _slots: Vec<OwnNumber>,
}

/// Memory of a variable that the child completes. Nobody else touches it until the child has executed or ended.
struct OwnNumber {
    memory: NonNull<[u8]>,
    /// The bytes of the name and the equals sign.
    prefix: usize,
}

impl OwnNumber {
    fn new(name: &str) -> Self {
        let mut text = format!("{name}=").into_bytes();
        let prefix = text.len();
        text.resize(prefix + OWN_NUMBER_BYTES, 0);
        Self { memory: NonNull::from(Box::leak(text.into_boxed_slice())), prefix }
    }

    fn text(&self) -> *const libc::c_char {
        self.memory.as_ptr().cast::<libc::c_char>().cast_const()
    }

    fn number(&self) -> *mut u8 {
        // SAFETY: it lies within the memory, which has the prefix and more.
        unsafe { self.memory.as_ptr().cast::<u8>().add(self.prefix) }
    }
}

impl Drop for OwnNumber {
    fn drop(&mut self) {
        // SAFETY: it was leaked from a box of that type, and nobody uses it any more.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

/// A [`Launch`] that a child may still use. Dropping it frees nothing.
pub struct Loan(NonNull<Launch>);

impl Launch {
    /// Lay out what the child needs. With a lane it shares the supervisor's table of descriptors, which only a child may
    /// that shares the memory.
    pub fn new(
        image: Image,
        fds: &Descriptors<'_>,
        report: &OwnedFd,
        common: &Common,
        lane: Option<Lane>,
    ) -> Box<Self> {
        // The variables with the child's own number go before the null at the end.
        let slots: Vec<_> = image.own_numbers.iter().map(|name| OwnNumber::new(name)).collect();
        let own = slots.iter().map(OwnNumber::text);
        let numbers: Vec<_> = slots.iter().map(OwnNumber::number).collect();
        let argv = pointers(&image.argv, []);
        let environment = pointers(&image.environment, own);
        let given = fds.given.to_vec();
        let table_taken = Box::new(AtomicBool::new(false));
        let shared = lane.as_ref().map(Lane::shared);
        let plan = Plan {
            program: image.program.as_ptr(),
            argv: argv.as_ptr(),
            environment: environment.as_ptr(),
            own_steps: (image.steps.as_ptr(), image.steps.len()),
            umask: image.umask,
            files: (!image.limits_files).then_some(common.files),
            null: shared.map_or(common.null.as_raw_fd(), |shared| shared.null),
            log: shared.map_or(fds.log.as_raw_fd(), |shared| shared.log),
            given: (given.as_ptr(), given.len()),
            notify_at: notify_fd(given.len()),
            handoff_at: handoff_fd(given.len()),
            notify: shared.map_or(fds.notify.map(OwnedFd::as_raw_fd), |shared| shared.notify),
            handoff: fds.handoff.map(OwnedFd::as_raw_fd),
            report: shared.map_or(report.as_raw_fd(), |shared| shared.report),
            table: shared.map(|shared| Table {
                beyond: shared.beyond,
                taken: &raw const *table_taken,
                wake: shared.wake,
            }),
            maps: image.mapped,
            reset_oom: common.oom_lowered,
            own_numbers: (numbers.as_ptr(), numbers.len()),
        };
        let stack = Stack::take();
        Box::new(Self {
            plan,
            stack,
            table_taken,
            lane,
            _image: image,
            _argv: argv,
            _environment: environment,
            _given: given,
            _numbers: numbers,
            _slots: slots,
        })
    }

    /// What the child is to do.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Create a child that uses this, in the supervisor's memory.
    pub fn lend(mut self: Box<Self>, cgroup: Option<&OwnedFd>, namespaces: u64) -> io::Result<Started> {
        let table = if self.lane.is_some() { libc::CLONE_FILES as u64 } else { 0 };
        let mut args = sys::clone_args(cgroup, namespaces | libc::CLONE_VM as u64 | table);
        args.stack = self.stack.as_mut_ptr() as u64;
        args.stack_size = STACK_BYTES as u64;
        let lent = NonNull::from(Box::leak(self));
        // SAFETY: the stack is the child's alone, and the plan is lent until the child has executed or ended.
        let result = unsafe { clone_onto(&args, run, &raw const (*lent.as_ptr()).plan) };
        let loan = Loan(lent);
        if result > 0 {
            return Ok(Started { pid: result as i32, loan: Some(loan) });
        }
        // SAFETY: there is no child.
        unsafe { loan.end() };
        Err(io::Error::from_raw_os_error(-result as i32))
    }
}

impl Loan {
    /// Take back what a child needed of the supervisor's table of descriptors, once it has its own.
    pub fn settle(&mut self) {
        // SAFETY: it is alive until the loan ends. The child reads its plan and writes to the flag and its stack; the lane
        // is the supervisor's alone.
        unsafe {
            let launch = self.0.as_ptr();
            if (*launch).table_taken.load(Ordering::Acquire) {
                (*launch).lane = None;
            }
        }
    }

    /// Free what was lent.
    ///
    /// # Safety
    /// The child must have executed or ended.
    pub unsafe fn end(self) {
        // SAFETY: it was leaked by `Launch::lend`, and nobody uses it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
impl Loan {
    /// Whether nothing of the table of descriptors is lent any more.
    fn is_settled(&self) -> bool {
        // SAFETY: it is alive until the loan ends, and the lane is the supervisor's alone.
        unsafe { (*self.0.as_ptr()).lane.is_none() }
    }
}

/// Pointers to the texts, more, and null.
fn pointers(
    texts: &[CString],
    last: impl IntoIterator<Item = *const libc::c_char>,
) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain(last).chain([ptr::null()]).collect()
}

/// The child's first function.
unsafe extern "C" fn run(plan: *const Plan) -> ! {
    // SAFETY: `Launch::lend` gives a valid plan to a new child.
    unsafe { (*plan).run() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::lanes::LANES;
    use crate::spawn::sandbox::{MESSAGE_LIMIT, Message, Op, Step};
    use crate::spawn::stacks::Slot;
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;
    use std::io::Read as _;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;
    use std::rc::Rc;

    /// Bytes that no child writes by accident.
    const UNTOUCHED: Slot = Slot::from_ne_bytes([0xA5; 16]);

    struct Ended {
        status: WaitStatus,
        report: Vec<u8>,
        output: String,
        /// Bytes of its stack that the child has used.
        depth: usize,
    }

    /// What a report says: the step and the number of the error.
    fn failure_of(bytes: &[u8]) -> Option<(Rc<str>, i32)> {
        crate::spawn::read_report(bytes, &[]).map(|report| (report.step, report.errno))
    }

    const NO_BINARY: (&str, i32) = ("execute the binary", libc::ENOENT);

    /// Run a command in this memory until it has ended, with a copy of the table of descriptors.
    fn run_shared(words: &[&str], common: &Common) -> Ended {
        run_with(words, common, false)
    }

    /// The same, with a lane if asked for.
    fn run_with(words: &[&str], common: &Common, shares_table: bool) -> Ended {
        run_image(Image::probe(words, "a").expect("an image"), common, shares_table)
    }

    fn run_image(image: Image, common: &Common, shares_table: bool) -> Ended {
        let (mut output, log) = io::pipe().expect("a pipe");
        let (mut read, report) = io::pipe().expect("a pipe");
        let (log, report) = (OwnedFd::from(log), OwnedFd::from(report));
        let fds = Descriptors {
            log: &log,
            given: &[],
            notify: Some(&log),
            handoff: None,
            report: &report,
            cgroup: None,
        };
        let lane = shares_table.then(|| Lane::take(&fds).expect("a lane"));
        let mut launch = Launch::new(image, &fds, &report, common, lane);
        launch.stack.fill(MaybeUninit::new(UNTOUCHED));
        let started = launch.lend(None, 0).expect("a process");
        drop((log, report));
        let mut loan = started.loan.expect("a loan");
        while shares_table && !loan.is_settled() {
            std::thread::yield_now();
            loan.settle();
        }
        let mut bytes = Vec::new();
        read.read_to_end(&mut bytes).expect("a report");
        let mut text = String::new();
        output.read_to_string(&mut text).expect("its output");
        let status = waitpid(Pid::from_raw(started.pid), None).expect("its end");
        // SAFETY: the child has ended, and the whole stack was written before.
        let depth = unsafe {
            let stack = &loan.0.as_ref().stack;
            let untouched = stack.iter().take_while(|slot| slot.assume_init() == UNTOUCHED).count();
            loan.end();
            STACK_BYTES - untouched * size_of::<Slot>()
        };
        Ended { status, report: bytes, output: text, depth }
    }

    #[test]
    fn a_child_starts_with_default_signals_and_no_descriptor_but_its_own() {
        let common = crate::machine::common().expect("/dev/null");
        SigSet::from(Signal::SIGUSR1).thread_block().expect("blocked here");
        // Not by a shell, which would set its mask itself.
        let ended = run_shared(&["/bin/cat", "/proc/self/status"], &common);
        let status = |key: &str| {
            let line = ended.output.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
            u64::from_str_radix(line.trim(), 16).expect("a mask")
        };
        assert_eq!(["SigBlk:", "SigCgt:"].map(status), [0, 0]);
        let ended = run_shared(&["/bin/sh", "-c", "ls -l /proc/$$/fd; pwd; umask"], &common);
        assert!(matches!(ended.status, WaitStatus::Exited(_, 0)), "{:?}", ended.status);
        let lines: Vec<&str> = ended.output.lines().collect();
        // 0 to 2, and the one for notifications.
        assert_eq!(lines.iter().filter(|line| line.contains(" -> ")).count(), 4, "{lines:?}");
        assert_eq!(lines[lines.len() - 2..], ["/", "0022"]);
    }

    #[test]
    fn a_child_that_shares_the_table_keeps_nothing_of_it_but_its_own() {
        let common = crate::machine::common().expect("/dev/null");
        let Some(woken) = crate::spawn::prepare_lanes(&common.null).expect("lanes") else {
            eprintln!("skipped: on this kernel children copy all descriptors");
            return;
        };
        // What was open before, after, and in another's lane.
        let (_before, other) = io::pipe().expect("a pipe");
        let other = OwnedFd::from(other);
        let others = Descriptors {
            log: &other,
            given: &[],
            notify: None,
            handoff: None,
            report: &other,
            cgroup: None,
        };
        let held = Lane::take(&others).expect("a lane");
        for _ in 0..100 {
            let ended = run_with(&["/bin/sh", "-c", "ls -l /proc/$$/fd; pwd; umask"], &common, true);
            assert!(
                matches!(ended.status, WaitStatus::Exited(_, 0)),
                "{:?} {:?}",
                ended.status,
                ended.report
            );
            let lines: Vec<&str> = ended.output.lines().collect();
            assert_eq!(lines.iter().filter(|line| line.contains(" -> ")).count(), 4, "{lines:?}");
            assert_eq!(lines[lines.len() - 2..], ["/", "0022"]);
            let ended = run_with(&["/nonexistent/program"], &common, true);
            let failure = failure_of(&ended.report);
            assert_eq!(
                failure.as_ref().map(|(step, errno)| (&**step, *errno)),
                Some(NO_BINARY),
                "{:?}",
                ended.report
            );
        }
        let mut count = [0; size_of::<u64>()];
        assert_eq!(sys::read_now(&woken, &mut count).expect("it was woken"), Some(8));
        assert_eq!(u64::from_ne_bytes(count), 200);
        drop(held);
        // All lanes are back, and one that is lent is not lent twice.
        let lanes: Vec<_> = std::iter::from_fn(|| Lane::take(&others)).collect();
        let mut numbers: Vec<_> = lanes.iter().map(|lane| lane.shared().report).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!((numbers.len(), lanes.len()), (LANES, LANES));
        assert!(Lane::take(&others).is_none());
        drop(lanes);
        assert!(Lane::take(&others).is_some());
    }

    #[test]
    fn a_thousand_failures_name_their_step_and_leave_the_memory_alone() {
        let common = crate::machine::common().expect("/dev/null");
        let memory: Vec<Box<[usize; 32]>> = (0..1000).map(|number| Box::new([number; 32])).collect();
        for _ in 0..1000 {
            let ended = run_shared(&["/nonexistent/program", "with", "arguments"], &common);
            let failure = failure_of(&ended.report);
            assert_eq!(
                failure.as_ref().map(|(step, errno)| (&**step, *errno)),
                Some(NO_BINARY),
                "{:?}",
                ended.report
            );
            assert!(matches!(ended.status, WaitStatus::Exited(_, 127)), "{:?}", ended.status);
            // Deep inside of an unoptimised build; the shipped one takes a tenth.
            assert!(ended.depth > 0 && ended.depth < STACK_BYTES / 2, "{} bytes of stack", ended.depth);
        }
        assert!(memory.iter().enumerate().all(|(number, all)| **all == [number; 32]));
    }

    /// Operations that may be tried on the machine of whoever runs the tests: they change the child alone, or nothing.
    /// Those that keep most on the stack are among them.
    fn harmless(folder: &Path) -> Vec<Op> {
        let path = |name: &str| CString::new(folder.join(name).as_os_str().as_bytes()).expect("a path");
        std::fs::write(folder.join("secret"), [b'x'; 3000]).expect("a file");
        let message = Message { bytes: vec![0; MESSAGE_LIMIT], link_at: Some(20), process_at: None };
        vec![
            Op::FindUser(c"no-such-user".into()),
            Op::FindOtherGroup(c"no-such-group".into()),
            Op::Source { path: path("secret"), flags: libc::O_RDONLY },
            Op::Secret { source: 0, target: path("copy") },
            Op::OpenLinks,
            Op::Link(message),
            Op::RaiseLink(c"no-such-link".into()),
            Op::Write { path: path("absent"), text: b"x".to_vec() },
            Op::ReadOnly(path("absent")),
            Op::Hide { path: path("absent"), null: 0 },
            Op::Bind { source: 0, target: path("absent"), read_only: false },
            Op::Capabilities { keep: u64::MAX, inheritable: 0 },
            Op::LandlockBegin(4),
            Op::LandlockAllow { path: path("secret"), access: 4 },
            Op::LandlockRestrict,
        ]
    }

    #[test]
    fn no_step_of_a_component_leaves_its_stack() {
        let common = crate::machine::common().expect("/dev/null");
        let folder = tempfile::tempdir().expect("a folder");
        let mut image = Image::probe(&["/nonexistent/program"], "a").expect("an image");
        let step = |op| Step { name: "try".into(), optional: true, op };
        image.steps = harmless(folder.path()).into_iter().map(step).collect();
        let ended = run_image(image, &common, false);
        let copied = std::fs::read(folder.path().join("copy")).expect("a copy");
        assert_eq!(copied, [b'x'; 3000]);
        // Deep inside of an unoptimised build.
        assert!(ended.depth < STACK_BYTES * 3 / 4, "{} bytes of stack", ended.depth);
        assert!(ended.depth > 1024, "{} bytes: nothing was done", ended.depth);
        assert_eq!(
            failure_of(&ended.report[ended.report.len() - 8..]).map(|(_, errno)| errno),
            Some(libc::ENOENT)
        );
    }

    #[test]
    fn a_failed_call_of_the_child_is_not_the_supervisors_errno() {
        let common = crate::machine::common().expect("/dev/null");
        // SAFETY: the C library's own place of this thread's `errno`.
        let errno = unsafe { &mut *libc::__errno_location() };
        for _ in 0..100 {
            let image = Image::probe(&["/nonexistent/program"], "a").expect("an image");
            let (mut read, report) = io::pipe().expect("a pipe");
            let report = OwnedFd::from(report);
            let fds = Descriptors {
                log: &common.null,
                given: &[],
                notify: None,
                handoff: None,
                report: &report,
                cgroup: None,
            };
            let launch = Launch::new(image, &fds, &report, &common, None);
            *errno = libc::EXDEV;
            let started = launch.lend(None, 0).expect("a process");
            drop(report);
            read.read_to_end(&mut Vec::new()).expect("a report");
            waitpid(Pid::from_raw(started.pid), None).expect("its end");
            assert_eq!(*errno, libc::EXDEV);
            // SAFETY: the child has ended.
            unsafe { started.loan.expect("a loan").end() };
        }
    }
}
