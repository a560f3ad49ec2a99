//! Getting a port back that dead connections still hold.
//!
//! A connection that a program closed stays in TIME_WAIT for a minute and keeps its port from everybody who has not set
//! SO_REUSEADDR *on both sides*. What the job had open is set so while it is captured, and what its servers had accepted
//! was born so (hijack/src/sockets.rs); what a program closed that calls no libc cannot be reached any more. Such a
//! remnant goes away when its other end disowns it: the kernel answers a new connection attempt from the same port with
//! what that end takes for nonsense and resets (RFC 1337 describes it as an accident; `net.ipv4.tcp_rfc1337` forbids it).
//! Where somebody has the other end's port, be it another remnant, there is only waiting.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use node_agent_proc::net_tcp::{self, TcpEntry, state};

use super::{socket, sys, sys_socket as raw};

/// TCP_TIMEWAIT_LEN of the kernel and a little.
pub const TIME_WAIT: Duration = Duration::from_secs(61);
const LOOK_AGAIN_MS: i32 = 50;
/// A wait that is longer is told to the user.
const QUIET: Duration = Duration::from_secs(2);

/// bind(2) of a TCP socket with SO_REUSEADDR, past the remnants of dead connections. Says on standard error what it waits
/// for when that takes long.
///
/// # Errors
/// EADDRINUSE when somebody alive has the port, or a closed connection still after its time.
pub fn bind(fd: RawFd, address: &[u8]) -> io::Result<()> {
    let start = Instant::now();
    let mut told = false;
    loop {
        let remnants = match raw::bind(fd, address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => remnants(address),
            other => return other,
        };
        let disowned = remnants.iter().filter(|it| disown(it).is_ok()).count();
        // Once more in any case: a remnant may have gone between the first attempt and the look for it.
        let error = match raw::bind(fd, address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            other => return other,
        };
        let Some(remnant) = remnants.first() else {
            let text = "another process has this port: end it, or restart on another node";
            return Err(io::Error::new(error.kind(), text));
        };
        let what = format!("the closed connection {} ⇄ {}", remnant.local, remnant.remote);
        if start.elapsed() > TIME_WAIT {
            return Err(io::Error::new(error.kind(), format!("{what} still has this port: restart on another node")));
        }
        if start.elapsed() > QUIET && !std::mem::replace(&mut told, true) {
            eprintln!("ckpt-restart: waiting up to a minute for the kernel to forget {what}");
        }
        // Nothing to wait for but time, unless there were several between the same two ports.
        sys::poll(fd, 0, if disowned > 0 { 1 } else { LOOK_AGAIN_MS })?;
    }
}

/// Connections in TIME_WAIT or its like on the port of `address`; none when somebody alive has it too.
fn remnants(address: &[u8]) -> Vec<TcpEntry> {
    let (Some(wanted), Ok(entries)) = (raw::inet(address).map(net_tcp::plain), socket::tcp_entries()) else {
        return Vec::new();
    };
    let on_port = entries.into_iter().filter(|it| it.local.port() == wanted.port() && wanted.port() != 0);
    let on_port: Vec<_> = on_port.collect();
    if on_port.iter().any(|it| it.state == state::LISTEN && it.local.ip() == wanted.ip()) {
        return Vec::new();
    }
    on_port.into_iter().filter(|it| it.inode == 0 && it.state != state::ESTABLISHED).collect()
}

/// Begins a connection from the other end's port, if that is a port of this machine, and drops it.
fn disown(remnant: &TcpEntry) -> io::Result<()> {
    let family = if remnant.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let attempt = raw::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
    raw::set_option_int(attempt.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    raw::bind(attempt.as_raw_fd(), &raw::address(family, remnant.remote)?)?;
    match raw::connect(attempt.as_raw_fd(), &raw::address(family, remnant.local)?) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => other,
    }
}
