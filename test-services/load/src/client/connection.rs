//! One connection after the other, as the load says.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

use super::target::Stream;
use super::{BURST_BYTES, IdleState, Load, Pace, Shared};
use crate::frame::Frame;
use crate::history::{self, Kind};

/// Limit of establishing a connection: beyond what a lost SYN costs twice (1 s and 2 s).
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a connection that failed, so that a server that is gone is not asked in a busy loop.
const PAUSE: Duration = Duration::from_millis(50);

/// What sender and receiver of one connection share.
struct Pipe {
    number: u32,
    /// Set when the sender has sent its last request.
    all_sent: Cell<bool>,
    /// A reply came, or there will be none.
    heard: Notify,
    /// Any reply came.
    replied: Cell<bool>,
    /// The numbers of the requests without a reply, in order.
    due: RefCell<VecDeque<u64>>,
}

/// How a connection is used.
#[derive(Clone, Copy)]
enum Use {
    /// With the part of an interval by which this connection is behind the first.
    Busy(Pace, f64),
    Idle(IdleState),
}

/// Keep a connection until the end of the load; `place` is its number among those at one time. One
/// that ends before is followed by another one.
pub(super) async fn keep(shared: Rc<Shared>, place: u32) {
    let Load { connections, pace, .. } = shared.load;
    let phase = f64::from(place) / f64::from(connections.max(1));
    let how = if place < connections { Use::Busy(pace, phase) } else { Use::Idle(shared.load.idle_state) };
    let mut stop = shared.stop.clone();
    let settled = Cell::new(false);
    loop {
        let number = shared.next_connection();
        let well = match connect(&shared).await {
            Ok((stream, turn)) => {
                shared.log(Kind::Opened, number);
                converse(&shared, number, how, stream, turn, &settled).await
            }
            Err(error) => {
                shared.log(Kind::Refused(code(&error)), number);
                false
            }
        };
        if *stop.borrow_and_update() {
            return;
        }
        if !well {
            // Ending without it is as good.
            let _ = timeout(PAUSE, stop.wait_for(|stop| *stop)).await;
        }
        if *stop.borrow_and_update() {
            return;
        }
    }
}

/// A connection, and its turn to be established, which may not be over yet.
async fn connect(shared: &Shared) -> io::Result<(Box<dyn Stream>, SemaphorePermit<'_>)> {
    // It is never closed.
    let turn = shared.connecting.acquire().await.map_err(io::Error::other)?;
    let connected = timeout(CONNECT_LIMIT, shared.load.target.connect()).await;
    Ok((connected.map_err(|_| io::ErrorKind::TimedOut)??, turn))
}

/// Ask and listen until the connection ends; whether it ended well. It is settled when it has its first reply and, if
/// idle, its state.
async fn converse(
    shared: &Shared,
    number: u32,
    how: Use,
    stream: Box<dyn Stream>,
    turn: SemaphorePermit<'_>,
    settled: &Cell<bool>,
) -> bool {
    let (mut read, mut write) = tokio::io::split(stream);
    let pipe = Pipe {
        number,
        all_sent: Cell::new(false),
        heard: Notify::new(),
        replied: Cell::new(false),
        due: RefCell::new(VecDeque::new()),
    };
    let settle = || {
        if !settled.replace(true) {
            shared.settled();
        }
    };
    let mut stop = shared.stop.clone();
    let is_unread = matches!(how, Use::Idle(IdleState::HalfClosed));
    // Of what may be lost, or is not read, no reply is waited for.
    let turn = Cell::new(Some(turn).filter(|_| shared.load.target.has_an_end() && !is_unread));
    let sending = async {
        send(shared, &pipe, how, &mut write, settle).await?;
        pipe.all_sent.set(true);
        let has_end = shared.load.target.has_an_end();
        if has_end {
            write.shutdown().await?;
        }
        if is_unread {
            settle();
            let _ = shared.stop.clone().wait_for(|stop| *stop).await;
        }
        // From here on the other side has to come to an end.
        timeout(shared.load.drain, async {
            if has_end {
                std::future::pending::<()>().await;
            }
            while !pipe.due.borrow().is_empty() {
                pipe.heard.notified().await;
            }
            Ok(Kind::Ended)
        })
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
    };
    let receiving = async {
        if is_unread {
            let _ = stop.wait_for(|stop| *stop).await;
        }
        let first = || {
            drop(turn.take());
            if matches!(how, Use::Busy(..)) {
                settle();
            }
        };
        receive(shared, &pipe, &mut read, first).await
    };
    let ended = tokio::select! {
        ended = receiving => ended,
        ended = sending => ended,
    };
    let kind = ended.unwrap_or_else(|error| Kind::Broken(code(&error)));
    shared.log(kind, number);
    kind == Kind::Ended
}

/// Send requests until the load or this connection is to end.
async fn send(
    shared: &Shared,
    pipe: &Pipe,
    how: Use,
    write: &mut WriteHalf<Box<dyn Stream>>,
    settle: impl Fn(),
) -> io::Result<()> {
    let mut buffer = vec![0; shared.load.bytes];
    let mut stop = shared.stop.clone();
    match how {
        Use::Busy(pace, phase) => {
            let begun = Instant::now();
            for sequence in 0..shared.load.requests_per_connection.unwrap_or(u64::MAX) {
                let due = tokio::select! {
                    due = turn(pipe, pace, phase, begun, sequence) => due,
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                };
                request(shared, pipe, sequence, due, &mut buffer, write).await?;
            }
        }
        Use::Idle(IdleState::HalfClosed) => {
            for sequence in 0..(BURST_BYTES / buffer.len()) as u64 {
                request(shared, pipe, sequence, history::now(), &mut buffer, write).await?;
            }
        }
        Use::Idle(state) => {
            request(shared, pipe, 0, history::now(), &mut buffer, write).await?;
            tokio::select! {
                () = pipe.has_replied() => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            let begin = buffer.len() / 2;
            if state == IdleState::HalfSent {
                begin_request(shared, pipe, 1, history::now(), &mut buffer);
                write.write_all(&buffer[..begin]).await?;
            }
            settle();
            let _ = stop.wait_for(|stop| *stop).await;
            match state {
                IdleState::HalfSent => write.write_all(&buffer[begin..]).await?,
                _ => request(shared, pipe, 1, history::now(), &mut buffer, write).await?,
            }
        }
    }
    Ok(())
}

/// Wait until the next request is due, and since when it is.
async fn turn(pipe: &Pipe, pace: Pace, phase: f64, begun: Instant, sequence: u64) -> u64 {
    match pace {
        Pace::Closed { pipeline } => {
            while pipe.due.borrow().len() >= pipeline {
                pipe.heard.notified().await;
            }
            history::now()
        }
        Pace::Open { interval } => {
            let due = begun + interval.mul_f64(sequence as f64 + phase);
            tokio::time::sleep_until(due).await;
            let late = Instant::now().saturating_duration_since(due);
            history::now() - u64::try_from(late.as_nanos()).unwrap_or(0)
        }
    }
}

async fn request(
    shared: &Shared,
    pipe: &Pipe,
    sequence: u64,
    due: u64,
    buffer: &mut [u8],
    write: &mut WriteHalf<Box<dyn Stream>>,
) -> io::Result<()> {
    begin_request(shared, pipe, sequence, due, buffer);
    match shared.load.split {
        None => write.write_all(buffer).await,
        Some(pause) => {
            let (first, second) = buffer.split_at(buffer.len() / 2);
            write.write_all(first).await?;
            sleep(pause).await;
            write.write_all(second).await
        }
    }
}

/// From here on the request counts as sent.
fn begin_request(shared: &Shared, pipe: &Pipe, sequence: u64, due: u64, buffer: &mut [u8]) {
    Frame { connection: pipe.number, sequence }.encode(buffer);
    pipe.due.borrow_mut().push_back(sequence);
    shared.log_at(Kind::Sent(sequence), pipe.number, due);
}

/// Listen until the other side ends.
async fn receive(
    shared: &Shared,
    pipe: &Pipe,
    read: &mut ReadHalf<Box<dyn Stream>>,
    replied: impl Fn(),
) -> io::Result<Kind> {
    let mut buffer = vec![0; shared.load.bytes];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            let count = read.read(&mut buffer[filled..]).await?;
            if count == 0 {
                if filled > 0 {
                    shared.log(Kind::Damaged(pipe.next_due()), pipe.number);
                }
                let due = !pipe.due.borrow().is_empty();
                return Ok(if pipe.all_sent.get() && !due { Kind::Ended } else { Kind::Closed });
            }
            filled += count;
        }
        let kind = match Frame::decode(&buffer) {
            Some(frame) if frame.connection == pipe.number => Kind::Received(frame.sequence),
            Some(frame) => Kind::Stranger(u64::from(frame.connection)),
            None => Kind::Damaged(pipe.next_due()),
        };
        shared.log(kind, pipe.number);
        pipe.note_reply(kind);
        replied();
    }
}

impl Pipe {
    fn next_due(&self) -> u64 {
        self.due.borrow().front().copied().unwrap_or(0)
    }

    async fn has_replied(&self) {
        while !self.replied.get() {
            self.heard.notified().await;
        }
    }

    fn note_reply(&self, kind: Kind) {
        self.replied.set(true);
        let mut due = self.due.borrow_mut();
        match kind {
            Kind::Received(sequence) if due.front() != Some(&sequence) => {
                due.retain(|waiting| *waiting != sequence);
            }
            _ => drop(due.pop_front()),
        }
        self.heard.notify_one();
    }
}

fn code(error: &io::Error) -> u64 {
    let number = error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::TimedOut => nix::Error::ETIMEDOUT as i32,
        _ => 0,
    });
    u64::from(number.unsigned_abs())
}
