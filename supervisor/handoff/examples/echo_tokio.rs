//! `echo.rs` with tokio: a TCP server that survives upgrades together with its connections, and waits for slow readers.
//!
//! It begins as `echo.rs` does, which says how to try it.

use std::{error::Error, io, net, os::fd::AsFd as _, sync::Arc};

use tokio::{io::Interest, net::TcpListener, net::TcpStream, task::JoinSet};
use yakiros_handoff::{State, Verdict};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut given, ready) = yakiros_handoff::start()?.inherit()?;
    let bind = || net::TcpListener::bind(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:7007"));
    let listener = given.remove("listener").map_or_else(bind, |fd| Ok(fd.into()))?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let clients =
        given.remove_all("client").into_iter().map(|(_, fd)| TcpStream::from_std(fd.into()).map(Arc::new));
    let mut clients = clients.collect::<io::Result<Vec<_>>>()?;
    let mut channel = ready.serve()?;
    loop {
        let mut served: JoinSet<_> = clients.iter().cloned().map(echo).collect();
        let offer = loop {
            tokio::select! {
                offer = channel.offered() => break offer?,
                Ok((client, _)) = listener.accept() => {
                    clients.push(Arc::new(client));
                    served.spawn(echo(Arc::clone(&clients[clients.len() - 1])));
                }
                Some(_) = served.join_next() => clients.retain(|client| Arc::strong_count(client) > 1),
            }
        };
        served.shutdown().await;
        let items = clients.iter().map(|client| ("client", client.as_fd()));
        let items: Vec<_> = items.chain([("listener", listener.as_fd())]).collect();
        match offer.give(items.iter().map(|(name, fd)| (*name, fd)), State::empty)? {
            Verdict::Released => return Ok(()),
            Verdict::Resume(why) => eprintln!("serving on: {why}"),
        }
    }
}

/// Serve a client until it ends. What it sends is taken only once it is answered: this can be stopped anywhere.
async fn echo(client: Arc<TcpStream>) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let count = client.peek(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        let count = client.async_io(Interest::WRITABLE, || client.try_write(&bytes[..count])).await?;
        client.try_read(&mut bytes[..count])?;
    }
}
