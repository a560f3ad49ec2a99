//! UDP sockets and the datagrams in their queues.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use node_agent_image::model::{FileIndex, FileKind, OpenFile, Socket};

use super::snapshot::Capture;
use super::{FilesError, socket, sys_socket as raw, unix};

/// A UDP socket; where its datagrams came from does not matter, nobody waits for their arrival.
pub fn capture(
    capture: &mut Capture<'_>,
    index: FileIndex,
    fd: RawFd,
    mut socket: Socket,
) -> Result<FileKind, FilesError> {
    let (packets, _) = unix::peek_packets(fd, socket.kind).map_err(capture.table.error("peek into", index))?;
    socket.received = packets;
    Ok(FileKind::Socket(Box::new(socket)))
}

/// Opens all UDP sockets of the model.
pub fn open_all(files: &[OpenFile], opened: &mut [Option<OwnedFd>]) -> Result<(), FilesError> {
    let mine = |file| socket::of(file).filter(|it| is_udp(it));
    for (file, place) in files.iter().zip(&mut *opened) {
        let Some(socket) = mine(file) else { continue };
        let what = socket::describe(socket);
        let made = socket::fresh(socket).map_err(FilesError::restore("make", &what))?;
        socket::set_options(made.as_raw_fd(), socket).map_err(FilesError::restore("set options of", &what))?;
        if raw::inet(&socket.local).is_some_and(|it| it.port() != 0) {
            raw::bind(made.as_raw_fd(), &socket.local).map_err(FilesError::restore("bind", &what))?;
        }
        *place = Some(made);
    }
    for at in 0..files.len() {
        let Some(socket) = mine(&files[at]) else { continue };
        deliver(files, opened, at, socket)?;
    }
    for (file, place) in files.iter().zip(opened) {
        let (Some(socket), Some(made)) = (mine(file), place) else { continue };
        if !socket.remote.is_empty() {
            let what = socket::describe(socket);
            raw::connect(made.as_raw_fd(), &socket.remote).map_err(FilesError::restore("connect", what))?;
        }
    }
    Ok(())
}

fn is_udp(socket: &Socket) -> bool {
    matches!(socket.family, libc::AF_INET | libc::AF_INET6) && socket.kind == libc::SOCK_DGRAM
}

/// Sends each datagram again, from the socket of the job that has sent it, else from any.
fn deliver(files: &[OpenFile], opened: &[Option<OwnedFd>], at: FileIndex, socket: &Socket) -> Result<(), FilesError> {
    let Some(receiver) = &opened[at] else { return Ok(()) };
    let what = || format!("a datagram to {}", socket::describe(socket));
    let address = raw::name(receiver.as_raw_fd(), false).map_err(FilesError::restore("address", what()))?;
    for packet in &socket.received {
        let sender = files.iter().position(|it| socket::of(it).is_some_and(|it| is_udp(it) && it.local == packet.from));
        let made;
        let sender = match sender.and_then(|at| opened[at].as_ref()) {
            Some(sender) => sender,
            None => {
                made = socket::fresh(socket).map_err(FilesError::restore("make a socket for", what()))?;
                &made
            }
        };
        let sent = raw::send(sender.as_raw_fd(), &packet.bytes, &[], &address, libc::MSG_DONTWAIT);
        sent.map_err(FilesError::restore("send", what()))?;
    }
    Ok(())
}
