//! A TCP server that survives upgrades together with its connections: it gives back what it is sent.
//!
//! Declare it with `handoff = "fd-passing"`, replace the program, and run `graphctl upgrade NAME`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;

use yakiros_handoff::{State, Verdict, start};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut given, ready) = start()?.inherit()?;
    let bind = || TcpListener::bind(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:7007"));
    let listener = given.remove("listener").map_or_else(bind, |fd| Ok(fd.into()))?;
    listener.set_nonblocking(true)?;
    let clients = given.remove_all("client").into_iter();
    let mut clients: Vec<TcpStream> = clients.map(|(_, fd)| fd.into()).collect();
    let (mut channel, mut bytes) = (ready.serve()?, [0; 4096]);
    loop {
        let sockets = clients.iter().map(|client| ("client", client.as_fd()));
        let sockets: Vec<_> = sockets.chain([("listener", listener.as_fd())]).collect();
        let offer = channel.wait_or_readable(sockets.iter().map(|(_, fd)| *fd))?;
        let items = sockets.iter().map(|(name, fd)| (*name, fd));
        if offer.map(|offer| offer.give(items, State::empty)).transpose()? == Some(Verdict::Released) {
            return Ok(());
        }
        // Who does not read what he gets is cut off: nobody waits for him, nor does an upgrade.
        clients.retain(|mut client| match client.read(&mut bytes) {
            Ok(count) => count > 0 && client.write_all(&bytes[..count]).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        while let Ok((client, _)) = listener.accept() {
            client.set_nonblocking(true)?;
            clients.push(client);
        }
    }
}
