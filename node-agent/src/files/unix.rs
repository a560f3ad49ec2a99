//! Unix sockets: who is connected to whom is asked of the kernel (sock_diag), what is in them is peeked.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;

use node_agent_image::model::{FileIndex, FileKind, OpenFile, Packet, Socket};

use super::snapshot::Capture;
use super::{FilesError, socket, sys_socket as raw};

/// Longest datagram: what the largest send buffer holds (net.core.wmem_max is rarely more), and a stream's chunk.
const PACKET_BYTES: usize = 8 << 20;
/// Packets in one queue; net.unix.max_dgram_qlen is 10 by default, streams cut only at passed descriptors.
const PACKETS_MAX: usize = 65536;
const RCV_SHUTDOWN: u8 = 1;
const SEND_SHUTDOWN: u8 = 2;

/// Peeks into every Unix socket of the job. Descriptors on their way are files of the job too, and may themselves be
/// sockets with more of them.
pub fn look_into_queues(capture: &mut Capture<'_>) -> Result<(), FilesError> {
    let mut index = 0;
    while index < capture.table.descriptions.len() {
        let description = &capture.table.descriptions[index];
        let known = capture.sockets.unix.get(&description.stat.inode);
        if description.is_socket() && description.stream.is_none() && known.is_some_and(|it| it.state != LISTEN) {
            let pid = description.pid;
            let file = capture.table.open(index)?;
            let kind = raw::option_int(file.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TYPE).unwrap_or(libc::SOCK_STREAM);
            let (mut packets, passed) =
                peek_packets(file.as_raw_fd(), kind).map_err(capture.table.error("peek into", index))?;
            for (packet, files) in packets.iter_mut().zip(passed) {
                for file in files {
                    packet.files.push(capture.table.enter_in_flight(file, pid)?);
                }
            }
            capture.sockets.unix_queues.insert(index, packets);
        }
        index += 1;
    }
    Ok(())
}

const LISTEN: u8 = 10;

/// Everything in a receive queue, with the descriptors of each packet. SO_PEEK_OFF walks over what a single peek does
/// not pass: packet boundaries and passed descriptors.
pub fn peek_packets(fd: RawFd, kind: i32) -> io::Result<(Vec<Packet>, Vec<Vec<OwnedFd>>)> {
    let before = raw::option_int(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF)?;
    raw::set_option_int(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0)?;
    let result = peek_all(fd, kind);
    raw::set_option_int(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, before)?;
    result
}

fn peek_all(fd: RawFd, kind: i32) -> io::Result<(Vec<Packet>, Vec<Vec<OwnedFd>>)> {
    let (mut packets, mut passed) = (Vec::new(), Vec::new());
    let mut buffer = Vec::new();
    while packets.len() < PACKETS_MAX {
        if buffer.is_empty() {
            // Most queues are empty: a byte tells.
            let mut byte = [0];
            match raw::receive(fd, &mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
                Err(error) if is_empty(&error) => break,
                Err(error) => return Err(error),
                Ok(received) if received.length == 0 && kind != libc::SOCK_DGRAM => break,
                Ok(_) => raw::set_option_int(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0)?,
            }
            buffer = vec![0; PACKET_BYTES];
        }
        match raw::receive(fd, &mut buffer, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
            Err(error) if is_empty(&error) => break,
            Err(error) => return Err(error),
            Ok(received) if received.length == 0 && kind != libc::SOCK_DGRAM => break,
            Ok(received) => {
                let bytes = buffer[..received.length].to_vec();
                let from = if kind == libc::SOCK_DGRAM { received.from } else { Vec::new() };
                packets.push(Packet { bytes, files: Vec::new(), from });
                passed.push(received.files);
            }
        }
    }
    Ok((packets, passed))
}

/// Nothing there, or a socket that was never connected.
fn is_empty(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL | libc::ENOTCONN | libc::ECONNRESET))
}

/// A Unix socket.
pub fn capture(
    capture: &mut Capture<'_>,
    index: FileIndex,
    fd: RawFd,
    mut socket: Socket,
) -> Result<FileKind, FilesError> {
    let inode = capture.table.descriptions[index].stat.inode;
    let Some(known) = capture.sockets.unix.get(&inode).cloned() else {
        return Ok(capture.refuse(index, "a Unix socket of another network namespace"));
    };
    socket.received = capture.sockets.unix_queues.remove(&index).unwrap_or_default();
    if known.state == LISTEN {
        socket.backlog = Some(known.queues.1 as i32);
        let outside = known.pending.iter().find(|it| **it != 0 && file_of(capture, **it).is_none());
        if outside.is_some() {
            return Ok(capture.refuse(index, "a process outside the job waits for its connection to be accepted"));
        }
        return Ok(FileKind::Socket(Box::new(socket)));
    }
    socket.shut_read = known.shutdown & RCV_SHUTDOWN != 0;
    socket.shut_write = known.shutdown & SEND_SHUTDOWN != 0;
    if let Some(listener) = listener_of(capture, inode) {
        let unread =
            super::sys::ioctl_int(fd, libc::TIOCOUTQ).map_err(capture.table.error("ask the queue of", index))?;
        if unread != 0 {
            let reason = "it has sent bytes over a connection that is not accepted yet: try again shortly";
            return Ok(capture.refuse(index, reason));
        }
        socket.in_backlog_of = Some(listener);
        return Ok(FileKind::Socket(Box::new(socket)));
    }
    let connected = known.state == 1 || !socket.remote.is_empty();
    match known.peer {
        Some(peer) => match file_of(capture, peer) {
            Some(peer) => socket.peer = Some(peer),
            // Like /dev/log: a service that is found by its name.
            None if socket.kind == libc::SOCK_DGRAM && !socket.remote.is_empty() => {}
            None => {
                let reason = "a Unix socket whose other end is in no process of the job";
                return Ok(capture.refuse(index, reason));
            }
        },
        // A datagram socket whose peer had a name goes on by that name, be anybody there or not.
        None => {
            socket.peer_closed =
                connected && (socket.kind != libc::SOCK_DGRAM || (socket.remote.len() <= 2 && !is_named(&socket)));
        }
    }
    Ok(FileKind::Socket(Box::new(socket)))
}

fn file_of(capture: &Capture<'_>, inode: u32) -> Option<FileIndex> {
    let table = &capture.table;
    table.by_inode(inode.into()).find(|at| table.descriptions[*at].is_socket())
}

fn listener_of(capture: &Capture<'_>, inode: u64) -> Option<FileIndex> {
    let listener = capture.sockets.unix.values().find(|it| it.pending.iter().any(|it| u64::from(*it) == inode))?;
    file_of(capture, listener.inode)
}

/// Opens all Unix sockets of the model. Listening ones first: connections are made anew through them, so that both
/// ends tell the names that they told.
pub fn open_all(files: &[OpenFile], opened: &mut [Option<OwnedFd>]) -> Result<(), FilesError> {
    let mine: Vec<(FileIndex, &Socket)> = files
        .iter()
        .enumerate()
        .filter_map(|(at, file)| Some((at, socket::of(file).filter(|it| it.family == libc::AF_UNIX)?)))
        .collect();
    for (at, socket) in &mine {
        let alone = socket.peer.is_none_or(|peer| !is_pair(files, *at, peer));
        if socket.backlog.is_some() || (alone && !socket.peer_closed && socket.in_backlog_of.is_none()) {
            opened[*at] = Some(named(socket)?);
        }
    }
    for (at, socket) in &mine {
        if let Some(peer) = socket.peer.filter(|peer| is_pair(files, *at, *peer) && opened[*at].is_none()) {
            let (one, other) = pair(&mine, opened, socket, socket::of(&files[peer]).unwrap_or(socket))?;
            (opened[*at], opened[peer]) = (Some(one), Some(other));
        }
    }
    for (at, socket) in &mine {
        if socket.in_backlog_of.is_some() {
            opened[*at] = Some(connect(socket)?);
        }
    }
    for (at, socket) in &mine {
        if socket.kind == libc::SOCK_DGRAM && socket.peer.is_none_or(|it| !is_pair(files, *at, it)) {
            reconnect(socket, opened[*at].as_ref())?;
        }
    }
    for (at, socket) in &mine {
        if let Some(made) = &opened[*at] {
            socket::set_options(made.as_raw_fd(), socket).map_err(error("set options of", socket))?;
        }
    }
    for (at, socket) in &mine {
        fill(&mine, opened, *at, socket)?;
    }
    for (at, socket) in &mine {
        half_close(socket, opened[*at].as_ref())?;
    }
    Ok(())
}

/// Each is the other's peer, and no name is needed to connect them (datagram sockets may point at a third).
fn is_pair(files: &[OpenFile], one: FileIndex, other: FileIndex) -> bool {
    let Some(peer) = files.get(other).and_then(socket::of) else { return false };
    peer.peer == Some(one) && one != other && (peer.kind != libc::SOCK_DGRAM || peer.local.len() <= 2)
}

fn error(deed: &'static str, socket: &Socket) -> impl FnOnce(io::Error) -> FilesError {
    FilesError::restore(deed, format!("Unix {}", socket::describe(socket)))
}

fn is_named(socket: &Socket) -> bool {
    socket.local.len() > 2
}

/// A socket that is connected to nobody: with its name, listening if it was.
fn named(socket: &Socket) -> Result<OwnedFd, FilesError> {
    let made = socket::fresh(socket).map_err(error("make", socket))?;
    if is_named(socket) {
        if let Some(path) = raw::unix_path(&socket.local)
            && fs::symlink_metadata(&path).is_ok_and(|it| it.file_type().is_socket())
        {
            fs::remove_file(&path).map_err(error("remove the stale name of", socket))?;
        }
        if let Some(folder) = raw::unix_path(&socket.local).as_deref().and_then(|it| std::path::Path::new(it).parent())
        {
            fs::create_dir_all(folder).map_err(error("make the folder of", socket))?;
        }
        raw::bind(made.as_raw_fd(), &socket.local).map_err(error("bind", socket))?;
    }
    if let Some(backlog) = socket.backlog {
        raw::listen(made.as_raw_fd(), backlog).map_err(error("listen on", socket))?;
    }
    Ok(made)
}

fn connect(socket: &Socket) -> Result<OwnedFd, FilesError> {
    let made = named(socket)?;
    raw::connect(made.as_raw_fd(), &socket.remote).map_err(error("connect", socket))?;
    Ok(made)
}

/// Two connected ends. Where one was accepted from a listening socket of the job, it is so again.
fn pair(
    all: &[(FileIndex, &Socket)],
    opened: &[Option<OwnedFd>],
    one: &Socket,
    other: &Socket,
) -> Result<(OwnedFd, OwnedFd), FilesError> {
    let listener = |server: &Socket| {
        let found = all.iter().find(|(_, it)| it.backlog.is_some() && is_named(server) && it.local == server.local)?;
        opened[found.0].as_ref()
    };
    if let Some(listener) = listener(one) {
        let client = connect(other)?;
        return Ok((raw::accept(listener.as_raw_fd()).map_err(error("accept", one))?, client));
    }
    if let Some(listener) = listener(other) {
        let client = connect(one)?;
        return Ok((client, raw::accept(listener.as_raw_fd()).map_err(error("accept", other))?));
    }
    raw::socketpair(one.kind).map_err(error("make", one))
}

/// A datagram socket that sends to a name. That nobody has the name now is what the program would have seen as well.
fn reconnect(socket: &Socket, made: Option<&OwnedFd>) -> Result<(), FilesError> {
    let Some(made) = made.filter(|_| socket.remote.len() > 2) else { return Ok(()) };
    match raw::connect(made.as_raw_fd(), &socket.remote) {
        Err(it) if matches!(it.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOENT)) => Ok(()),
        other => other.map_err(error("connect", socket)),
    }
}

/// Puts back what it had received: through its peer, or through a passing one that is then closed.
fn fill(
    all: &[(FileIndex, &Socket)],
    opened: &mut [Option<OwnedFd>],
    at: FileIndex,
    socket: &Socket,
) -> Result<(), FilesError> {
    let passing;
    let mut to: &[u8] = &[];
    let peer = socket.peer.and_then(|it| opened[it].as_ref());
    let sender = if socket.peer_closed {
        let (kept, other) = raw::socketpair(socket.kind).map_err(error("make", socket))?;
        socket::set_options(kept.as_raw_fd(), socket).map_err(error("set options of", socket))?;
        opened[at] = Some(kept);
        passing = other;
        &passing
    } else if socket.kind == libc::SOCK_DGRAM && is_named(socket) {
        to = &socket.local;
        passing = raw::socket(libc::AF_UNIX, socket.kind, 0).map_err(error("make", socket))?;
        &passing
    } else if let Some(peer) = peer {
        peer
    } else {
        return Ok(());
    };
    for packet in &socket.received {
        let numbers: Option<Vec<RawFd>> =
            packet.files.iter().map(|it| Some(opened.get(*it)?.as_ref()?.as_raw_fd())).collect();
        let numbers = numbers.ok_or_else(|| FilesError::Model("a file in flight that is not open".into()))?;
        let known = all.iter().find(|(_, it)| !to.is_empty() && packet.from.len() > 2 && it.local == packet.from);
        let sender = known.and_then(|(at, _)| opened[*at].as_ref()).unwrap_or(sender);
        let sent = raw::send(sender.as_raw_fd(), &packet.bytes, &numbers, to, libc::MSG_DONTWAIT);
        if sent.map_err(error("fill", socket))? != packet.bytes.len() {
            return Err(error("fill", socket)(io::Error::from_raw_os_error(libc::ENOBUFS)));
        }
    }
    Ok(())
}

fn half_close(socket: &Socket, made: Option<&OwnedFd>) -> Result<(), FilesError> {
    let Some(made) = made.filter(|_| !socket.peer_closed) else { return Ok(()) };
    for (is_shut, how) in [(socket.shut_read, libc::SHUT_RD), (socket.shut_write, libc::SHUT_WR)] {
        if is_shut {
            raw::shutdown(made.as_raw_fd(), how).map_err(error("half-close", socket))?;
        }
    }
    Ok(())
}
