//! Listening TCP sockets of a virtual node, bound before its processes are made: on a new host a port may be another's, and
//! all nodes have to know where it is instead.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use hijack_abi::addresses::loopback;
use node_agent_image::model::{FileIndex, NodeModel, Socket};

use super::{FilesError, ports, socket, sys_socket as raw, tcp};

/// What [`bind_all`] has bound.
#[derive(Debug, Default)]
pub struct Listeners {
    /// By file of the model.
    pub sockets: Vec<(FileIndex, OwnedFd)>,
    /// Where the program thinks that it listens, and where it does.
    pub moved: Vec<(SocketAddr, SocketAddr)>,
}

/// Binds all of a node's listening sockets, on their old ports where these are free. `place`: which of the virtual nodes of this
/// host it is; all but the first have loopback addresses of their own.
///
/// # Errors
/// Names the socket for which there is no port.
pub fn bind_all(model: &NodeModel, place: u8) -> Result<Listeners, FilesError> {
    let mut listeners = Listeners::default();
    for (at, file) in model.files.iter().enumerate() {
        let Some(socket) = socket::of(file).filter(|it| tcp::is_tcp(it) && it.backlog.is_some()) else { continue };
        let Some(old) = raw::inet(&socket.local) else { continue };
        let error = || FilesError::restore("bind", format!("TCP {}", socket::describe(socket)));
        let (made, new) = bind(socket, old, place).map_err(error())?;
        if new != old {
            listeners.moved.push((old, new));
        }
        listeners.sockets.push((at, made));
    }
    Ok(listeners)
}

fn bind(socket: &Socket, old: SocketAddr, place: u8) -> io::Result<(OwnedFd, SocketAddr)> {
    let ip = if place > 0 { loopback(place, old.ip()).unwrap_or(old.ip()) } else { old.ip() };
    let unspecified: IpAddr = if old.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    // The address was another machine's: the port is what counts.
    let candidates = [(ip, old.port()), (unspecified, old.port()), (unspecified, 0)];
    let mut last = io::Error::from_raw_os_error(libc::EADDRINUSE);
    for (ip, port) in candidates {
        let made = tcp::reusable(socket)?;
        let bound = ports::bind(made.as_raw_fd(), &raw::address(socket.family, SocketAddr::new(ip, port))?);
        // Two sockets that do not listen may share a port: only who listens has it. The builder undoes it for as long as
        // it makes connections anew that have this port, too.
        match bound.and_then(|()| raw::listen(made.as_raw_fd(), 1)) {
            Ok(()) => {
                let bound = raw::inet(&raw::name(made.as_raw_fd(), false)?);
                return Ok((made, bound.unwrap_or(old)));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
