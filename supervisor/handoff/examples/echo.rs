//! A TCP server that survives upgrades together with its connections: it gives back what it is sent.
//!
//! Declare it with `handoff = "fd-passing"`, replace the program, and run `graphctl upgrade NAME`.

use std::error::Error;
use std::os::fd::AsFd as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use yakiros_handoff::{Start, State, Verdict};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (listener, mut connections, mut channel) = match yakiros_handoff::start()? {
        Start::Fresh(channel) => (std::net::TcpListener::bind("127.0.0.1:7007")?, Vec::new(), channel),
        Start::Successor(successor) => {
            let (mut all, ready) = successor.take()?;
            let listener = all.remove("listener").ok_or("no listener")?.into();
            let connections = all.remove_all("connection").into_iter().map(|(_, one)| one.into()).collect();
            (listener, connections, ready.serve()?)
        }
    };
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stop, stopped) = watch::channel(());
        let mut served = JoinSet::new();
        for connection in connections.drain(..) {
            served.spawn(echo(connection, stopped.clone()));
        }
        let offer = loop {
            tokio::select! {
                offer = channel.offered() => break offer?,
                Ok((client, _)) = listener.accept() => {
                    served.spawn(echo(client.into_std()?, stopped.clone()));
                }
                Some(_) = served.join_next() => {}
            }
        };
        drop(stop);
        connections = served.join_all().await.into_iter().flatten().collect();
        let mut items: Vec<_> = connections.iter().map(|one| ("connection", one.as_fd())).collect();
        items.push(("listener", listener.as_fd()));
        match offer.give(items.iter().map(|(name, one)| (*name, one)), State::empty)? {
            Verdict::Released => return Ok(()),
            Verdict::Resume(why) => eprintln!("serving on: {why}"),
        }
    }
}

/// Serve a client until it has enough, or until the server is to stop: then the connection is returned. Nothing that
/// was read is left unanswered.
async fn echo(client: std::net::TcpStream, mut stop: watch::Receiver<()>) -> Option<std::net::TcpStream> {
    client.set_nonblocking(true).ok()?;
    let mut client = TcpStream::from_std(client).ok()?;
    let mut bytes = [0; 4096];
    loop {
        let count = tokio::select! {
            _ = stop.changed() => return client.into_std().ok(),
            count = client.read(&mut bytes) => count.ok()?,
        };
        if count == 0 {
            return None;
        }
        client.write_all(&bytes[..count]).await.ok()?;
    }
}
