//! One connection after the other, as the load says.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::target::Stream;
use super::{Load, Pace, Shared};
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
    /// The numbers of the requests without a reply, in order.
    due: RefCell<VecDeque<u64>>,
}

/// How a connection is used.
#[derive(Clone, Copy)]
enum Use {
    /// With the part of an interval by which this connection is behind the first.
    Busy(Pace, f64),
    Idle,
}

/// Keep a connection until the end of the load; `place` is its number among those at one time. One
/// that ends before is followed by another one.
pub(super) async fn keep(shared: Rc<Shared>, place: u32) {
    let Load { connections, pace, .. } = shared.load;
    let phase = f64::from(place) / f64::from(connections.max(1));
    let how = if place < connections { Use::Busy(pace, phase) } else { Use::Idle };
    let mut stop = shared.stop.clone();
    loop {
        let number = shared.next_connection();
        let well = match connect(&shared).await {
            Ok(stream) => {
                shared.log(Kind::Opened, number);
                converse(&shared, number, how, stream).await
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

async fn connect(shared: &Shared) -> io::Result<Box<dyn Stream>> {
    // It is never closed.
    let _turn = shared.connecting.acquire().await.map_err(io::Error::other)?;
    timeout(CONNECT_LIMIT, shared.load.target.connect()).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Ask and listen until the connection ends; whether it ended well.
async fn converse(shared: &Shared, number: u32, how: Use, stream: Box<dyn Stream>) -> bool {
    let (mut read, mut write) = tokio::io::split(stream);
    let pipe =
        Pipe { number, all_sent: Cell::new(false), heard: Notify::new(), due: RefCell::new(VecDeque::new()) };
    let sending = async {
        send(shared, &pipe, how, &mut write).await?;
        pipe.all_sent.set(true);
        // From here on the other side has to come to an end.
        timeout(shared.load.drain, async {
            if shared.load.target.has_an_end() {
                write.shutdown().await?;
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
    let ended = tokio::select! {
        ended = receive(shared, &pipe, &mut read) => ended,
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
) -> io::Result<()> {
    let mut buffer = vec![0; shared.load.bytes];
    let mut stop = shared.stop.clone();
    let begun = Instant::now();
    let last =
        shared.load.requests_per_connection.filter(|_| matches!(how, Use::Busy(..))).unwrap_or(u64::MAX);
    for sequence in 0..last {
        let due = tokio::select! {
            due = turn(pipe, how, begun, sequence) => due,
            _ = stop.wait_for(|stop| *stop) => {
                if matches!(how, Use::Idle) {
                    request(shared, pipe, sequence, history::now(), &mut buffer, write).await?;
                }
                return Ok(());
            }
        };
        request(shared, pipe, sequence, due, &mut buffer, write).await?;
    }
    Ok(())
}

/// Wait until the next request is due, and since when it is.
async fn turn(pipe: &Pipe, how: Use, begun: Instant, sequence: u64) -> u64 {
    match how {
        Use::Busy(Pace::Closed { pipeline }, _) => {
            while pipe.due.borrow().len() >= pipeline {
                pipe.heard.notified().await;
            }
            history::now()
        }
        Use::Busy(Pace::Open { interval }, phase) => {
            let due = begun + interval.mul_f64(sequence as f64 + phase);
            tokio::time::sleep_until(due).await;
            let late = Instant::now().saturating_duration_since(due);
            history::now() - u64::try_from(late.as_nanos()).unwrap_or(0)
        }
        Use::Idle if sequence == 0 => history::now(),
        Use::Idle => std::future::pending().await,
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
    Frame { connection: pipe.number, sequence }.encode(buffer);
    pipe.due.borrow_mut().push_back(sequence);
    shared.log_at(Kind::Sent(sequence), pipe.number, due);
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

/// Listen until the other side ends.
async fn receive(shared: &Shared, pipe: &Pipe, read: &mut ReadHalf<Box<dyn Stream>>) -> io::Result<Kind> {
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
        pipe.replied(kind);
    }
}

impl Pipe {
    fn next_due(&self) -> u64 {
        self.due.borrow().front().copied().unwrap_or(0)
    }

    fn replied(&self, kind: Kind) {
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
