//! TCP connections inside the job: matched by their addresses, made anew in pairs.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use node_agent_image::model::{FileIndex, FileKind, OpenFile, Remote, Socket};
use node_agent_proc::net_tcp::{self, state};

use super::snapshot::Capture;
use super::{FilesError, ports, socket, sys, sys_socket as raw};

/// A TCP socket.
pub fn capture(
    capture: &mut Capture<'_>,
    index: FileIndex,
    fd: RawFd,
    mut socket: Socket,
) -> Result<FileKind, FilesError> {
    let info = raw::tcp_info(fd).map_err(capture.table.error("ask the state of", index))?;
    match info.state {
        state::LISTEN => {
            if info.unacked > 0
                && let Some(stranger) = stranger_in_backlog(capture, &socket)?
            {
                let reason = format!("a connection from {stranger}, outside the job, waits to be accepted");
                return Ok(capture.refuse(index, reason));
            }
            socket.backlog = Some(info.sacked as i32);
        }
        state::CLOSE => socket.peer_closed = info.bytes_acked + info.bytes_received > 0,
        state::SYN_SENT => return Ok(capture.refuse(index, "a connection that is just being made: try again shortly")),
        _ => {
            if let Err(reason) = connected(capture, &mut socket, fd, info.state) {
                return Ok(capture.refuse(index, reason));
            }
            socket.received = socket::packet(received(capture, index, fd)?);
        }
    }
    Ok(FileKind::Socket(Box::new(socket)))
}

/// What it had received: in its buffer or, if it was full, in the ledger; never in both.
fn received(capture: &Capture<'_>, index: FileIndex, fd: RawFd) -> Result<Vec<u8>, FilesError> {
    let inode = capture.table.descriptions[index].stat.inode;
    let drained = capture.ledger.received(inode).map_err(capture.table.error("read the drained bytes of", index))?;
    let peeked = socket::peek_stream(fd).map_err(capture.table.error("peek into", index))?;
    match drained {
        Some(drained) if peeked.is_empty() => Ok(drained),
        Some(_) => Err(capture.table.error("capture", index)(io::Error::other("bytes arrived after it was drained"))),
        None => Ok(peeked),
    }
}

/// Finds the other end. The error is the reason for a refusal.
fn connected(capture: &Capture<'_>, socket: &mut Socket, fd: RawFd, own_state: u8) -> Result<(), String> {
    let (Some(local), Some(remote)) = (raw::inet(&socket.local), raw::inet(&socket.remote)) else {
        return Err("a connection without addresses".into());
    };
    let key = (net_tcp::plain(local), net_tcp::plain(remote));
    let reverse = (key.1, key.0);
    let got_fin = matches!(own_state, state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING | state::TIME_WAIT);
    let sent_fin = matches!(own_state, state::FIN_WAIT1 | state::FIN_WAIT2)
        || matches!(own_state, state::LAST_ACK | state::CLOSING | state::TIME_WAIT);
    if raw::receive(fd, &mut [0], libc::MSG_OOB | libc::MSG_PEEK | libc::MSG_DONTWAIT).is_ok_and(|it| it.length > 0) {
        return Err(format!("urgent data from {remote} that the program has not read"));
    }
    socket.shut_write = sent_fin;
    socket.shut_read = !got_fin && sys::poll(fd, libc::POLLRDHUP, 0).is_ok_and(|it| it & libc::POLLRDHUP != 0);
    if let Some(peer) = capture.sockets.tcp_files.get(&reverse) {
        socket.peer = Some(*peer);
        return Ok(());
    }
    let ends = Remote::new(0, key.0, key.1);
    if let Some(remote) = capture.remotes.iter().find(|it| (it.local, it.remote) == (ends.local, ends.remote)) {
        socket.peer_node = Some(*remote);
        return Ok(());
    }
    let other = capture.sockets.all_tcp().map_err(|error| error.to_string())?.get(&reverse);
    let waiting = other.filter(|it| it.inode == 0 && matches!(it.state, state::ESTABLISHED | state::CLOSE_WAIT));
    if let (Some(other), Some(listener)) = (waiting, listener_of(capture, key.1)) {
        if other.receive_queue > 0 || sys::ioctl_int(fd, libc::TIOCOUTQ).unwrap_or(0) > 0 {
            return Err(format!("it has sent bytes to {remote}, which has not accepted it yet: try again shortly"));
        }
        socket.in_backlog_of = Some(listener);
        return Ok(());
    }
    match other {
        // The end of a stream comes in order, after all that was sent.
        Some(other) if other.inode == 0 && got_fin => socket.peer_closed = true,
        None if got_fin => socket.peer_closed = true,
        Some(other) if other.inode == 0 => {
            return Err(format!("{remote} has closed it while bytes were on their way: try again shortly"));
        }
        _ => return Err(format!("a TCP connection from {local} to {remote}, which is outside the job")),
    }
    Ok(())
}

fn listener_of(capture: &Capture<'_>, address: SocketAddr) -> Option<FileIndex> {
    let any = |port| [SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), SocketAddr::new([0u16; 8].into(), port)];
    let [any_v4, any_v6] = any(address.port());
    let listening = |local| capture.sockets.tcp_listeners.iter().find(|it| it.0 == local).map(|it| it.1);
    listening(address).or_else(|| listening(any_v4)).or_else(|| listening(any_v6))
}

/// Who waits in a listening socket's backlog without being of the job.
fn stranger_in_backlog(capture: &Capture<'_>, listener: &Socket) -> Result<Option<SocketAddr>, FilesError> {
    let Some(local) = raw::inet(&listener.local).map(net_tcp::plain) else { return Ok(None) };
    let mut waits = capture.sockets.all_tcp()?.values().filter(|it| {
        let to_us = it.local.port() == local.port() && (local.ip().is_unspecified() || it.local.ip() == local.ip());
        to_us && it.inode == 0 && it.state == state::ESTABLISHED
    });
    let stranger = |it: &&net_tcp::TcpEntry| !capture.sockets.tcp_files.contains_key(&(it.remote, it.local));
    Ok(waits.find(stranger).map(|it| it.remote))
}

type Sockets<'a> = [(FileIndex, &'a Socket)];

/// Opens all TCP sockets of the model: connections first, because a port on which somebody listens cannot be bound.
pub fn open_all(files: &[OpenFile], opened: &mut [Option<OwnedFd>]) -> Result<(), FilesError> {
    let mine: Vec<(FileIndex, &Socket)> = files
        .iter()
        .enumerate()
        .filter_map(|(at, file)| Some((at, socket::of(file).filter(|it| is_tcp(it))?)))
        .collect();
    let passing = connect_pairs(files, &mine, opened)?;
    for (at, socket) in &mine {
        match &opened[*at] {
            // Bound before, see [`super::listeners`].
            Some(bound) if socket.backlog.is_some() => listen(bound, socket)?,
            None if socket.in_backlog_of.is_none() => opened[*at] = Some(unconnected(socket)?),
            _ => {}
        }
    }
    for (at, socket) in &mine {
        if socket.in_backlog_of.is_some() {
            opened[*at] = Some(connect_to_listener(socket)?);
        }
    }
    for (at, socket) in &mine {
        let sender = passing.get(at).or_else(|| socket.peer.and_then(|it| opened[it].as_ref()));
        if let (Some(sender), Some(receiver), Some(packet)) = (sender, &opened[*at], socket.received.first()) {
            super::refill::send_stream(sender.as_raw_fd(), receiver.as_raw_fd(), &packet.bytes)
                .map_err(error("fill", socket))?;
        }
    }
    // Ends that nobody holds close now: their ends see it after what they had received.
    drop(passing);
    for (at, socket) in &mine {
        let Some(made) = &opened[*at] else { continue };
        for (is_shut, how) in [(socket.shut_read, libc::SHUT_RD), (socket.shut_write, libc::SHUT_WR)] {
            if is_shut {
                raw::shutdown(made.as_raw_fd(), how).map_err(error("half-close", socket))?;
            }
        }
    }
    Ok(())
}

pub(super) fn is_tcp(socket: &Socket) -> bool {
    matches!(socket.family, libc::AF_INET | libc::AF_INET6) && socket.kind == libc::SOCK_STREAM
}

fn error(deed: &'static str, socket: &Socket) -> impl FnOnce(io::Error) -> FilesError {
    FilesError::restore(deed, format!("TCP {}", socket::describe(socket)))
}

/// Makes all connections. Ends whose other end was closed get a passing one, by the index of the end that stays.
fn connect_pairs(
    files: &[OpenFile],
    mine: &Sockets<'_>,
    opened: &mut [Option<OwnedFd>],
) -> Result<BTreeMap<FileIndex, OwnedFd>, FilesError> {
    let mut passing = BTreeMap::new();
    let ports: Vec<u16> =
        mine.iter().filter(|it| it.1.backlog.is_some()).filter_map(|it| Some(raw::inet(&it.1.local)?.port())).collect();
    let is_server = |socket: &Socket| raw::inet(&socket.local).is_some_and(|it| ports.contains(&it.port()));
    for (at, socket) in mine {
        if opened[*at].is_some() {
            continue;
        }
        if let Some(peer) = socket.peer {
            let other = files.get(peer).and_then(socket::of);
            let other = other.ok_or_else(|| FilesError::Model(format!("file {at} is connected to no socket")))?;
            let (one, two) = if is_server(socket) {
                let (server, client) = pair(socket, other)?;
                (server, client)
            } else {
                let (server, client) = pair(other, socket)?;
                (client, server)
            };
            (opened[*at], opened[peer]) = (Some(one), Some(two));
        } else if socket.peer_closed {
            let mirror = Socket { local: socket.remote.clone(), remote: socket.local.clone(), ..(*socket).clone() };
            let (server, client) = pair(socket, &mirror)?;
            opened[*at] = Some(server);
            passing.insert(*at, client);
        }
    }
    Ok(passing)
}

/// A connection with the old addresses; where these cannot be had, with other ports; at last over loopback.
fn pair(server: &Socket, client: &Socket) -> Result<(OwnedFd, OwnedFd), FilesError> {
    let loopback = |socket: &Socket| match socket.family {
        libc::AF_INET6 => inet6_any_loopback(),
        _ => inet4_loopback(),
    };
    let attempts = [
        (server.local.clone(), client.local.clone()),
        (server.local.clone(), without_port(&client.local)),
        (without_port(&server.local), without_port(&client.local)),
        (loopback(server), loopback(client)),
    ];
    let mut last = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
    for (server_address, client_address) in attempts {
        match connect_once((server, &server_address), (client, &client_address)) {
            Ok(pair) => return Ok(pair),
            Err(it) => last = it,
        }
    }
    Err(error("connect", client)(last))
}

fn connect_once(server: (&Socket, &[u8]), client: (&Socket, &[u8])) -> io::Result<(OwnedFd, OwnedFd)> {
    let listener = reusable(server.0)?;
    ports::bind(listener.as_raw_fd(), server.1)?;
    raw::listen(listener.as_raw_fd(), 1)?;
    let mut target = raw::name(listener.as_raw_fd(), false)?;
    if client.0.family != server.0.family {
        target = translate(&target, client.0.family).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    }
    let connecting = reusable(client.0)?;
    raw::bind(connecting.as_raw_fd(), client.1)?;
    raw::connect(connecting.as_raw_fd(), &target)?;
    let accepted = raw::accept(listener.as_raw_fd())?;
    Ok((accepted, connecting))
}

pub(super) fn reusable(socket: &Socket) -> io::Result<OwnedFd> {
    let made = socket::fresh(socket)?;
    raw::set_option_int(made.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    Ok(made)
}

/// Listening, or bound, or nothing yet.
fn unconnected(socket: &Socket) -> Result<OwnedFd, FilesError> {
    let made = reusable(socket).map_err(error("make", socket))?;
    let port = raw::inet(&socket.local).map_or(0, |it| it.port());
    if port != 0 || socket.backlog.is_some() {
        match ports::bind(made.as_raw_fd(), &socket.local) {
            // The address was another machine's: the port is what counts.
            Err(it) if it.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                raw::bind(made.as_raw_fd(), &any_address(&socket.local)).map_err(error("bind", socket))?;
            }
            other => other.map_err(error("bind", socket))?,
        }
    }
    listen(&made, socket)?;
    Ok(made)
}

fn listen(bound: &OwnedFd, socket: &Socket) -> Result<(), FilesError> {
    match socket.backlog {
        Some(backlog) => raw::listen(bound.as_raw_fd(), backlog).map_err(error("listen on", socket)),
        None => Ok(()),
    }
}

fn connect_to_listener(socket: &Socket) -> Result<OwnedFd, FilesError> {
    let connect = |local: &[u8]| {
        let made = reusable(socket)?;
        raw::bind(made.as_raw_fd(), local)?;
        raw::connect(made.as_raw_fd(), &socket.remote)?;
        Ok(made)
    };
    connect(&socket.local).or_else(|_| connect(&without_port(&socket.local))).map_err(error("connect", socket))
}

fn without_port(address: &[u8]) -> Vec<u8> {
    let mut address = address.to_vec();
    if let Some(port) = address.get_mut(2..4) {
        port.fill(0);
    }
    address
}

/// The same port at every address.
fn any_address(address: &[u8]) -> Vec<u8> {
    let mut any = address.to_vec();
    any.iter_mut().skip(4).for_each(|byte| *byte = 0);
    any
}

fn inet4_loopback() -> Vec<u8> {
    let mut address = vec![0; 16];
    address[0..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[4..8].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    address
}

/// ::ffff:127.0.0.1, which an IPv6 socket binds even where IPv6 has no loopback address.
fn inet6_any_loopback() -> Vec<u8> {
    let mut address = vec![0; 28];
    address[0..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    address[8..24].copy_from_slice(&Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
    address
}

/// An IPv4 address in IPv6 clothes, or out of them.
fn translate(address: &[u8], family: i32) -> Option<Vec<u8>> {
    let plain = net_tcp::plain(raw::inet(address)?);
    let SocketAddr::V4(plain) = plain else { return None };
    let mut other = if family == libc::AF_INET6 { inet6_any_loopback() } else { inet4_loopback() };
    other[2..4].copy_from_slice(&plain.port().to_be_bytes());
    if family == libc::AF_INET6 {
        other[8..24].copy_from_slice(&plain.ip().to_ipv6_mapped().octets());
    } else {
        other[4..8].copy_from_slice(&plain.ip().octets());
    }
    Some(other)
}
