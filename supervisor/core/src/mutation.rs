//! Ways to break the engine on purpose, to see that the checkers of [`crate::sim`] see it.
//!
//! Without the feature `mutations` nothing is ever broken, and the compiler takes every question
//! away: what is shipped has none of this in it.

#[cfg(feature = "mutations")]
use std::cell::Cell;

macro_rules! mutations {
    ($($name:ident: $what:literal,)+) => {
        /// One way. See the module documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutation {
            $(#[doc = $what] $name,)+
        }

        #[cfg(feature = "mutations")]
        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What is broken, in words.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$name => $what,)+
                }
            }
        }
    };
}

mutations! {
    SkipRequirements: "starts without looking at requirements",
    StartHeld: "starts what a user has stopped",
    ForgetRestart: "leaves a failed service FAILED",
    DropPause: "forgets the timer of a pause",
    DropGrace: "forgets the timer of a grace",
    DropReadiness: "forgets the timer of a readiness limit",
    KillAtOnce: "kills together with SIGTERM",
    TerminateTheAborted: "sends SIGTERM together with SIGABRT",
    StartBeforeEnd: "starts the new process before the old one has ended",
    ForgetDependents: "stops a component before those that need it",
    KeepOldDeclaration: "lets a process run on when its declaration changes",
    ForgetLimits: "does not change the limits of what runs",
    StartUnsliced: "starts what lies in a slice that nobody declares",
    ForgetSliceLimits: "does not change the limits of slices",
    RewriteSlice: "changes the limits of a slice that comes back while the change before is under way",
    ComplainForEver: "says that limits of a slice do not hold that were written for a start",
    RunOnStarved: "lets what lost a process to want of memory run on",
    RestartStarved: "starts what is to stay FAILED for want of memory again",
    KeepConfined: "keeps what has taken over to what the one before it left of the limits",
    ProbeFrozen: "probes what is frozen",
    WatchFrozen: "expects signs of life of what is frozen",
    StopFrozen: "does not thaw what it tells to end",
    ThawEarly: "thaws what is to end before it is told to",
    AnswerUnfrozen: "says that a component is frozen before the kernel does",
    ProbeDumped: "probes what is being written down",
    KeepDump: "takes what could not be written down for what still is",
    HoldTheEnding: "holds what it has told to end",
    HoldForEver: "never lets go on by itself what a checkpoint has left held",
    StopHeld: "does not let go on what it tells to end while it is held",
    StopKept: "stops what is held before another kernel is executed",
    ForgetMoved: "does not make again what it has written down and ended",
    RestoreForEver: "waits for ever for what is made from a checkpoint",
    StartUnwanted: "starts anew what is to be made from a checkpoint or not at all",
    RetryWarm: "makes a start from an image again from which none could be made",
    WarmAnyDeclaration: "makes starts from what was written down of another declaration",
    IgnoreExtension: "does not put a limit off for a process that asks for it",
    ExtendForEver: "puts a limit off without an end",
    DropWatchdog: "never expects a sign of life",
    WatchTheEnding: "expects signs of life of what has announced its end",
    ForgetAnnouncedEnd: "lets what has announced its end run on for ever",
    LoseAnswer: "loses the answer to a wait that runs out",
    AnswerTwice: "answers a refusal twice",
    AnswerEarly: "says that a component is stopped while it is not",
    UpgradeInPlace: "says that a component is upgraded while the old process runs on",
    MissNews: "does not tell who waits for news",
    ForgetReaders: "does not tell who waits for a log",
    TellUnready: "says that a component is waited for that is up",
    SkipRevision: "leaves out a revision",
    NameWrongCause: "names the wrong record as the cause of a change",
    KeepLevel: "does not withdraw the capabilities of what stops",
    HideDegraded: "does not mark the capabilities of what is DEGRADED",
    CountOneLess: "takes one more failed probe for DEGRADED than declared",
    ProbeTwice: "sends a probe while one is under way",
    ReadyAtOnce: "does not wait for a component to be ready",
    TakeAnyReady: "takes READY=1 for ready however readiness is declared",
    LeakTimers: "keeps timers that nobody needs any more",
    StayInCycle: "does not notice that a cycle is gone",
    ForgetGranted: "does not tell dependents that a capability is up",
    StartInShutdown: "starts components during the shutdown",
    HaltEarly: "goes down before everything is stopped",
    TrustTaker: "lets a process take over that has not got what was given",
    KeepPredecessor: "does not tell the old process that it is released",
    PromoteEmpty: "lets a new process take the place of the old one before it has what that one gives",
    PromoteUnready: "takes a process that starts beside the old one for ready once it is executed",
    ForgetAbort: "does not tell the old process that the upgrade has failed",
    BlameTheOld: "restarts an old process from which the new one does not take",
    TakeStaleWords: "takes what is said about one upgrade for the next one",
    ForgetHeir: "lets who took over from a process that died be ACTIVE without serving",
    ResumeEarly: "lets the old process go on while the new one may yet serve",
    SkipProbation: "does not keep the old process for the probation of the new one",
    TrustTheNew: "does not roll a new process back that fails on probation",
    RollBackEarly: "lets the old process go on before the new one, which has failed, is gone",
    TrustTheCanary: "does not end a canary that fails",
    AcceptEarly: "lets the old process accept again before the canary, which has failed, is gone",
    ForgetRest: "lets the old process go after a canary without moving the rest",
    HashOrder: "acts on dependents in the order of a hash map",
}

#[cfg(feature = "mutations")]
thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Break every engine of this thread in one way, or in none.
#[cfg(feature = "mutations")]
pub fn break_engine(mutation: Option<Mutation>) {
    ACTIVE.set(mutation);
}

/// Whether the engine is broken in this way.
#[cfg(feature = "mutations")]
pub(crate) fn broken(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

/// Whether the engine is broken in this way: it is not.
#[cfg(not(feature = "mutations"))]
#[inline]
pub(crate) const fn broken(_: Mutation) -> bool {
    false
}
