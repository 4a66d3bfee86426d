//! TCP connections that are made inside the guest and carried to the host.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use yakiros_guest::frame::Kind;
use yakiros_guest::protocol::{GuestError, Reply, Started};

use crate::error::system;
use crate::port;
use crate::stream::{Input, Stream};

/// Connects and relays until either side closes.
pub fn tcp(address: &str, timeout_ms: u64, stream: &Stream) -> Result<Reply, GuestError> {
    let error = |error: io::Error| system(&format!("connect to {address}"), &error);
    let mut connection = connect(address, Duration::from_millis(timeout_ms)).map_err(error)?;
    let reader = connection.try_clone().map_err(error)?;
    stream.output.started(Started::Connected).map_err(error)?;

    let received = Arc::new(AtomicU64::new(0));
    let (output, closed, count) = (stream.output.clone(), stream.to_self.clone(), Arc::clone(&received));
    std::thread::spawn(move || {
        read_to_host(reader, &count, |bytes| output.send(Kind::Data, bytes));
        drop(closed.send(Input::OutputClosed));
    });
    loop {
        match stream.input.recv() {
            Ok(Input::Data(bytes)) => connection.write_all(&bytes).map_err(error)?,
            // Half-closed: the other side may still have something to say.
            Ok(Input::End) => connection.shutdown(Shutdown::Write).map_err(error)?,
            Ok(Input::OutputClosed) => break,
            Ok(Input::Cancel) | Err(_) => {
                // The reader's thread ends by this as well.
                drop(connection.shutdown(Shutdown::Both));
                break;
            }
            Ok(Input::Resize(_) | Input::Exited(_)) => {}
        }
    }
    Ok(Reply::Closed { received_bytes: received.load(Ordering::Acquire) })
}

fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let first =
        addresses.first().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such address"))?;
    let stream = TcpStream::connect_timeout(first, timeout.max(Duration::from_millis(1)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn read_to_host(mut from: TcpStream, count: &AtomicU64, mut send: impl FnMut(Vec<u8>) -> io::Result<()>) {
    let mut buffer = port::payload_buffer();
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(bytes) => {
                count.fetch_add(bytes as u64, Ordering::AcqRel);
                if send(buffer[..bytes].to_vec()).is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Nobody listens at the port of a client, and nobody else gets it.
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = client.local_addr().unwrap().to_string();
        let error = connect(&address, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
