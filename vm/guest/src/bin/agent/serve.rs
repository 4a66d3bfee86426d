//! The reader of the port: it opens streams, hands them what comes in, and forgets them when they are done.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use yakiros_guest::frame::{Decoder, Frame, Kind};
use yakiros_guest::protocol::{ErrorKind, Fresh, GuestError, MAX_STREAMS, Reply, Request, VERSION};

use crate::error::{invalid, system};
use crate::port::{self, Sender};
use crate::stream::{Input, Output, Stream};
use crate::{exec, files, ledger, machine, relay};

struct Entry {
    input: SyncSender<Input>,
    output: Output,
}

type Streams = Arc<Mutex<HashMap<u32, Entry>>>;

/// Serves the host until the port fails.
pub fn serve(mut port: File) -> io::Result<()> {
    let sender = Sender::new(port.try_clone()?);
    let streams = Streams::default();
    let mut decoder = Decoder::default();
    let mut buffer = port::payload_buffer();
    loop {
        let count = port::read_some(&mut port, &mut buffer)?;
        decoder.push(&buffer[..count]);
        while let Some(frame) = decoder.next_frame() {
            handle(&streams, &sender, frame)?;
        }
    }
}

fn handle(streams: &Streams, sender: &Sender, frame: Frame) -> io::Result<()> {
    let input = match frame.kind {
        Kind::Open => return open(streams, sender, frame.stream, &frame.payload),
        Kind::Data => Input::Data(frame.payload),
        Kind::End => Input::End,
        Kind::Cancel => Input::Cancel,
        Kind::Resize => match serde_json::from_slice(&frame.payload) {
            Ok(size) => Input::Resize(size),
            Err(_) => return Ok(()),
        },
        Kind::Started | Kind::ErrorData | Kind::Done => return Ok(()), // only ever ours
    };
    let to = lock(streams).get(&frame.stream).map(|entry| entry.input.clone());
    if let Some(to) = to {
        // An error means that the stream has just ended by itself.
        drop(to.send(input));
    }
    Ok(())
}

fn open(streams: &Streams, sender: &Sender, id: u32, payload: &[u8]) -> io::Result<()> {
    let output = Output::new(id, sender.clone());
    let request = match serde_json::from_slice(payload) {
        Ok(request) => request,
        Err(error) => return output.done(&Err(invalid(format!("parse the request: {error}")))),
    };
    if let Request::Hello { version, nonce, fresh } = request {
        forget_all(streams);
        return output.done(&greet(version, nonce, fresh.as_ref()));
    }
    let (stream, feed) = Stream::new(output.clone());
    {
        let mut open = lock(streams);
        if open.len() >= MAX_STREAMS {
            let message = format!("open another stream: {MAX_STREAMS} are open");
            return output.done(&Err(GuestError { kind: ErrorKind::Busy, message }));
        }
        open.insert(id, Entry { input: feed, output: output.clone() });
    }
    let (all, refused, streams) = (Arc::clone(streams), output.clone(), Arc::clone(streams));
    let body = move || {
        let result = answer(request, &stream);
        forget(&streams, id, &output);
        if let Err(error) = output.done(&result) {
            eprintln!("agent: failed to answer the host: {error}");
        }
    };
    let started = std::thread::Builder::new().name(format!("stream-{id}")).spawn(body);
    if let Err(error) = started {
        // A guest without room for another process is what some scenarios bring about.
        lock(&all).remove(&id);
        return refused
            .done(&Err(GuestError { kind: ErrorKind::Busy, message: format!("start a thread: {error}") }));
    }
    Ok(())
}

/// Forgets a stream, unless a later host has opened another one of that number.
fn forget(streams: &Streams, id: u32, output: &Output) {
    let mut open = lock(streams);
    if open.get(&id).is_some_and(|entry| entry.output.is(output)) {
        open.remove(&id);
    }
}

fn forget_all(streams: &Streams) {
    for (_, entry) in lock(streams).drain() {
        entry.output.silence();
        drop(entry.input.try_send(Input::Cancel));
    }
}

fn greet(version: u32, nonce: u64, fresh: Option<&Fresh>) -> Result<Reply, GuestError> {
    if version != VERSION {
        return Err(invalid(format!(
            "talk to a host of version {version}: this agent has version {VERSION}"
        )));
    }
    if let Some(fresh) = fresh {
        machine::reseed(&fresh.entropy)?;
        machine::set_clock(fresh.realtime_ns)?;
    }
    let name =
        nix::sys::utsname::uname().map_err(|error| system("read the kernel's release", &error.into()))?;
    Ok(Reply::Hello { nonce, kernel_release: name.release().to_string_lossy().into_owned() })
}

fn answer(request: Request, stream: &Stream) -> Result<Reply, GuestError> {
    match request {
        Request::Hello { .. } => Err(invalid("greet on a stream that is open".into())),
        Request::Exec(exec) => exec::run(&exec, stream),
        Request::WriteFile { path, mode, atomic } => files::write(&path, mode, atomic, stream),
        Request::ReadFile { path, limit_bytes } => files::read(&path, limit_bytes, stream),
        Request::WaitPath { path, absent, timeout_ms } => files::wait(&path, absent, timeout_ms, stream),
        Request::TcpConnect { address, timeout_ms } => relay::tcp(&address, timeout_ms, stream),
        Request::Signal { pid, signal } => machine::signal(pid, signal),
        Request::Clock { set_realtime_ns } => machine::clock(set_realtime_ns),
        Request::Ledger => ledger::take(stream),
        Request::Shutdown(how) => Ok(machine::shutdown(how)),
    }
}

fn lock(streams: &Streams) -> std::sync::MutexGuard<'_, HashMap<u32, Entry>> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}
