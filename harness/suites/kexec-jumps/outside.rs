//! A client that is not in the guest, and that has one connection to a service there.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use yakiros_vm::qemu::NETWORK;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

/// The guest's address on the network that QEMU makes for it (its `-netdev user`), and the echo server's port.
const ECHO: ([u8; 4], u16) = ([10, 0, 2, 15], 8080);
/// Between two lines.
const INTERVAL: Duration = Duration::from_millis(20);
/// Lines that are under way at once.
const AHEAD: usize = 64;
/// For more answers to come. Who has waited for a kernel to boot is sent something again in growing pauses, the longest as
/// long as it has waited.
const ANSWERS: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// The client, which sends lines with numbers for as long as it is there, and waits for each to come back.
pub struct Outside {
    answered: Arc<AtomicU64>,
    sending: JoinHandle<std::io::Error>,
    receiving: JoinHandle<String>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.sending.abort();
        self.receiving.abort();
    }
}

impl Outside {
    /// Connect to the echo server, and begin.
    pub async fn connect(vm: &Vm) -> Result<Self, Failure> {
        // QEMU's network drops what it has for a guest whose hardware address it does not know: it has to hear of it first.
        vm.until("QEMU's network answers", "ping -c 1 -W 1 10.0.2.2 >/dev/null", ANSWERS).await?;
        let (address, port) = ECHO;
        let address = vm.guest.qmp().forward_port(NETWORK, SocketAddrV4::new(address.into(), port)).await?;
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| Failure::harness(format!("connect to {address}: {error}")))?;
        let (read, mut write) = stream.into_split();
        let answered = Arc::new(AtomicU64::new(0));
        let room = Arc::new(Semaphore::new(AHEAD));
        let (sent, count) = (Arc::clone(&room), Arc::clone(&answered));
        let sending = tokio::spawn(async move {
            for number in 1_u64.. {
                if let Ok(permit) = sent.acquire().await {
                    permit.forget();
                }
                if let Err(error) = write.write_all(format!("{number}\n").as_bytes()).await {
                    return error;
                }
                sleep(INTERVAL).await;
            }
            std::io::Error::other("all numbers were sent")
        });
        let receiving = tokio::spawn(receive(BufReader::new(read), count, room));
        let outside = Self { answered, sending, receiving };
        outside.goes_on(vm).await?;
        Ok(outside)
    }

    /// Waits until more answers have come than are under way at once: all of those were sent after now. Every one is in its
    /// place, and comes on the connection that was there at the begin.
    pub async fn goes_on(&self, vm: &Vm) -> Result<(), Failure> {
        let until = self.answered() + 2 * AHEAD as u64;
        let begun = tokio::time::Instant::now();
        let limit = vm.limit(ANSWERS);
        while self.answered() < until {
            check!(
                !self.sending.is_finished() && !self.receiving.is_finished(),
                "the connection of a client outside of the guest has ended after {} answers",
                self.answered()
            );
            check!(
                begun.elapsed() < limit,
                "a client outside of the guest got {} answers, and no more for {limit:.0?}",
                self.answered()
            );
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// Take answers, for ever; why there are no more.
async fn receive(mut lines: BufReader<OwnedReadHalf>, count: Arc<AtomicU64>, room: Arc<Semaphore>) -> String {
    for number in 1_u64.. {
        let mut line = String::new();
        match lines.read_line(&mut line).await {
            Ok(_) if line == format!("{number}\n") => {}
            other => return format!("in place of {number} came {other:?}, {line:?}"),
        }
        count.store(number, Ordering::Relaxed);
        room.add_permits(1);
    }
    "all numbers came back".to_owned()
}
