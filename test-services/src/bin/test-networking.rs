//! Takes an interface up, and keeps it so.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsRawFd, OwnedFd};
use yakiros_test_services::args::{Opt, Program, Values};
use yakiros_test_services::stop::Signals;
use yakiros_test_services::{Error, ready};

const PROGRAM: Program = Program {
    name: "test-networking",
    about: "Takes a network interface up, and up again whenever it goes down, until SIGTERM or SIGINT.",
    options: &[
        Opt { name: "--interface", value: Some("NAME"), default: Some("lo"), help: "which one" },
        Opt {
            name: "--check",
            value: None,
            default: None,
            help: "only tell by the exit status whether it is up",
        },
        Opt { name: "--interval-ms", value: Some("N"), default: Some("1000"), help: "between two looks" },
    ],
};

fn main() -> ExitCode {
    yakiros_test_services::main(&PROGRAM, run)
}

fn run(values: &Values<'_>) -> Result<ExitCode, Error> {
    let name: String = values.parse("--interface")?;
    if name.len() >= libc::IFNAMSIZ {
        return Err(Error::Usage(format!("--interface {name}: longer than any name of an interface")));
    }
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let any = any.map_err(io::Error::from).map_err(Error::failed("make a socket"))?;
    let look = || flags(&any, &name).map_err(Error::failed(format!("ask for {name}")));
    if values.switch("--check") {
        return Ok(if is_up(look()?) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let interval = Duration::from_millis(values.parse("--interval-ms")?);
    let signals = Signals::to_stop().map_err(Error::failed("take signals"))?;
    let mut announced = false;
    loop {
        let now = look()?;
        if !is_up(now) {
            set_flags(&any, &name, now | libc::IFF_UP as i16)
                .map_err(Error::failed(format!("take {name} up")))?;
            println!("{name} is up");
        }
        if !announced {
            ready::announce(None).map_err(Error::failed("announce readiness"))?;
            announced = true;
        }
        if signals.wait_for(interval).map_err(Error::failed("wait for a signal"))?.is_some() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn is_up(flags: i16) -> bool {
    i32::from(flags) & libc::IFF_UP != 0
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: the structure is plain data; zero is valid for it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn flags(socket: &OwnedFd, name: &str) -> io::Result<i16> {
    let mut request = request(name);
    // SAFETY: the pointer is to a local structure of the kind that this call fills.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this call fills the flags.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

fn set_flags(socket: &OwnedFd, name: &str, flags: i16) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the pointer is to a local structure of the kind that this call reads.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
