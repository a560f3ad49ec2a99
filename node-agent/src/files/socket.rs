//! Sockets of all families: what they have in common.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use node_agent_image::model::{FileIndex, FileKind, OpenFile, Packet, Socket};

use node_agent_proc::net_tcp::{self, TcpEntry};
use node_agent_proc::net_unix::UnixSocket;

use super::pairing::{self, Meeting};
use super::snapshot::Capture;
use super::table::Table;
use super::{FilesError, netlink, sys, sys_socket as raw, tcp, udp, unix};

/// Options whose value is kept where it differs from a fresh socket's, by level.
const OPTIONS: [(i32, &[i32]); 4] = [
    (
        libc::SOL_SOCKET,
        &[
            libc::SO_REUSEADDR,
            libc::SO_REUSEPORT,
            libc::SO_KEEPALIVE,
            libc::SO_BROADCAST,
            libc::SO_LINGER,
            libc::SO_OOBINLINE,
            libc::SO_RCVTIMEO,
            libc::SO_SNDTIMEO,
            libc::SO_RCVLOWAT,
            libc::SO_PRIORITY,
            libc::SO_PASSCRED,
            libc::SO_TIMESTAMP,
            libc::SO_TIMESTAMPNS,
            libc::SO_PEEK_OFF,
            libc::SO_BUSY_POLL,
        ],
    ),
    (
        libc::IPPROTO_TCP,
        &[
            libc::TCP_NODELAY,
            libc::TCP_CORK,
            libc::TCP_KEEPIDLE,
            libc::TCP_KEEPINTVL,
            libc::TCP_KEEPCNT,
            libc::TCP_SYNCNT,
            libc::TCP_LINGER2,
            libc::TCP_DEFER_ACCEPT,
            libc::TCP_USER_TIMEOUT,
            libc::TCP_CONGESTION,
        ],
    ),
    (libc::IPPROTO_IP, &[libc::IP_TOS, libc::IP_TTL, libc::IP_MTU_DISCOVER, libc::IP_RECVERR, libc::IP_PKTINFO]),
    (libc::IPPROTO_IPV6, &[libc::IPV6_V6ONLY, libc::IPV6_UNICAST_HOPS, libc::IPV6_TCLASS, libc::IPV6_RECVPKTINFO]),
];
/// SO_BUF_LOCK: which buffer sizes the program has set itself; the kernel adapts the others.
const SO_BUF_LOCK: i32 = 72;
const BUFFERS: [(i32, i32); 2] = [(1, libc::SO_SNDBUF), (2, libc::SO_RCVBUF)];

/// What the kernel tells of all sockets of the network namespace.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Unix sockets by inode.
    pub unix: HashMap<u64, UnixSocket>,
    /// What is in their receive queues.
    pub unix_queues: HashMap<FileIndex, Vec<Packet>>,
    /// The job's TCP sockets by (own address, other end's address).
    pub tcp_files: HashMap<(SocketAddr, SocketAddr), FileIndex>,
    /// The job's listening TCP sockets.
    pub tcp_listeners: Vec<(SocketAddr, FileIndex)>,
    /// See `all_tcp`.
    tcp: OnceCell<HashMap<(SocketAddr, SocketAddr), TcpEntry>>,
    /// Options of fresh sockets by family, kind, protocol.
    fresh: HashMap<(i32, i32, i32), Vec<SocketOption>>,
}

impl Sockets {
    /// Reads what there is, if the job has any socket.
    pub fn list(table: &Table) -> Result<Self, FilesError> {
        let mut sockets = Self::default();
        for (index, description) in table.descriptions.iter().enumerate() {
            if !description.is_socket() || description.stream.is_some() {
                continue;
            }
            if sockets.unix.is_empty() {
                let unix = raw::unix_sockets().map_err(|source| FilesError::Sockets { what: "Unix", source })?;
                sockets.unix = unix.into_iter().map(|it| (it.inode.into(), it)).collect();
            }
            if !sockets.unix.contains_key(&description.stat.inode) {
                let file = table.open(index)?;
                sockets.enter_tcp(index, file.as_raw_fd()).map_err(table.error("ask the addresses of", index))?;
            }
        }
        Ok(sockets)
    }

    fn enter_tcp(&mut self, index: FileIndex, fd: RawFd) -> io::Result<()> {
        if raw::option_int(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)? != libc::IPPROTO_TCP {
            return Ok(());
        }
        let Some(local) = raw::inet(&raw::name(fd, false)?).map(net_tcp::plain) else { return Ok(()) };
        if let Some(remote) = raw::name(fd, true).ok().and_then(|it| raw::inet(&it)) {
            self.tcp_files.insert((local, net_tcp::plain(remote)), index);
        } else if raw::option_int(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0 {
            self.tcp_listeners.push((local, index));
        }
        Ok(())
    }

    /// All TCP sockets of the network namespace, also those without descriptor. The kernel walks a large table for it:
    /// only asked where an end is missing.
    pub fn all_tcp(&self) -> Result<&HashMap<(SocketAddr, SocketAddr), TcpEntry>, FilesError> {
        if let Some(tcp) = self.tcp.get() {
            return Ok(tcp);
        }
        let entries = tcp_entries()?;
        Ok(self.tcp.get_or_init(|| entries.into_iter().map(|it| ((it.local, it.remote), it)).collect()))
    }
}

/// All TCP sockets of this network namespace.
pub fn tcp_entries() -> Result<Vec<TcpEntry>, FilesError> {
    let mut entries = Vec::new();
    for path in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        match fs::read_to_string(path) {
            Ok(text) => entries.extend(net_tcp::parse(&text)),
            // A kernel without IPv6 has no tcp6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(FilesError::Sockets { what: "TCP", source }),
        }
    }
    Ok(entries)
}

/// Any socket.
pub fn capture(capture: &mut Capture<'_>, index: FileIndex) -> Result<FileKind, FilesError> {
    let file = capture.table.open(index)?;
    let fd = file.as_raw_fd();
    let fresh = &mut capture.sockets.fresh;
    let socket = common(fd, fresh).map_err(capture.table.error("look into", index))?;
    match (socket.family, socket.kind) {
        (libc::AF_UNIX, _) => unix::capture(capture, index, fd, socket),
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) if socket.protocol == libc::IPPROTO_TCP => {
            tcp::capture(capture, index, fd, socket)
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) if socket.protocol == libc::IPPROTO_UDP => {
            udp::capture(capture, index, fd, socket)
        }
        (libc::AF_NETLINK, _) => Ok(FileKind::Socket(Box::new(socket))),
        (family, kind) => {
            let reason = format!("a socket of family {family}, type {kind}, which Slackwater does not know");
            Ok(capture.refuse(index, reason))
        }
    }
}

fn common(fd: RawFd, fresh: &mut HashMap<(i32, i32, i32), Vec<SocketOption>>) -> io::Result<Socket> {
    let get = |name| raw::option_int(fd, libc::SOL_SOCKET, name);
    let (family, kind, protocol) = (get(libc::SO_DOMAIN)?, get(libc::SO_TYPE)?, get(libc::SO_PROTOCOL)?);
    let mut socket = Socket { family, kind, protocol, ..Socket::default() };
    socket.local = raw::name(fd, false).unwrap_or_default();
    socket.remote = raw::name(fd, true).unwrap_or_default();
    if tcp::is_tcp(&socket) {
        // When the job is killed its connections stay in TIME_WAIT for a minute and, without this, keep a restart on the
        // same node from binding its ports. It has to be set while they live; accepted connections inherit it.
        raw::set_option_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    }
    let key = (family, kind, protocol);
    let usual = match fresh.entry(key) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => place.insert(known_options(raw::socket(family, kind, protocol)?.as_raw_fd())),
    };
    socket.options = options(fd, usual)?;
    Ok(socket)
}

/// Level, name, value.
type SocketOption = (i32, i32, Vec<u8>);

/// All of `OPTIONS` that a socket knows; not every family knows every one.
fn known_options(fd: RawFd) -> Vec<SocketOption> {
    let all = OPTIONS.iter().flat_map(|(level, names)| names.iter().map(|name| (*level, *name)));
    all.filter_map(|(level, name)| Some((level, name, raw::option(fd, level, name).ok()?))).collect()
}

/// Options in which it differs from a fresh socket of its kind.
fn options(fd: RawFd, fresh: &[SocketOption]) -> io::Result<Vec<SocketOption>> {
    let mut options = Vec::new();
    for (level, name, usual) in fresh {
        if let Ok(value) = raw::option(fd, *level, *name)
            && value != *usual
        {
            options.push((*level, *name, value));
        }
    }
    let locked = raw::option_int(fd, libc::SOL_SOCKET, SO_BUF_LOCK).unwrap_or(0);
    for (bit, name) in BUFFERS {
        if locked & bit != 0 {
            options.push((libc::SOL_SOCKET, name, raw::option(fd, libc::SOL_SOCKET, name)?));
        }
    }
    Ok(options)
}

/// Sets what `options` found. Buffer sizes: the kernel doubles what it is given.
pub fn set_options(fd: RawFd, socket: &Socket) -> io::Result<()> {
    for (level, name, value) in &socket.options {
        if *level == libc::SOL_SOCKET && BUFFERS.iter().any(|it| it.1 == *name) {
            let size = value.first_chunk().map_or(0, |it| i32::from_ne_bytes(*it));
            raw::set_option_int(fd, *level, *name, size / 2)?;
        } else if (*level, *name) == (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) {
            // Cannot be changed on a bound socket: `fresh` sets it.
        } else {
            raw::set_option(fd, *level, *name, value).map_err(|error| {
                io::Error::new(error.kind(), format!("option {name} of level {level} to {value:?}: {error}"))
            })?;
        }
    }
    Ok(())
}

/// A fresh socket with what has to be set before it gets an address.
pub fn fresh(socket: &Socket) -> io::Result<OwnedFd> {
    let file = raw::socket(socket.family, socket.kind, socket.protocol)?;
    for (level, name, value) in &socket.options {
        if (*level, *name) == (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) {
            raw::set_option(file.as_raw_fd(), *level, *name, value)?;
        }
    }
    Ok(file)
}

/// The bytes that wait in a byte stream, left where they are.
pub fn peek_stream(fd: RawFd) -> io::Result<Vec<u8>> {
    let waiting = sys::ioctl_int(fd, libc::FIONREAD)? as usize;
    let mut bytes = vec![0; waiting];
    if waiting > 0 {
        let length = raw::receive(fd, &mut bytes, libc::MSG_PEEK | libc::MSG_DONTWAIT)?.length;
        bytes.truncate(length);
    }
    Ok(bytes)
}

/// One packet of plain bytes, or none.
pub fn packet(bytes: Vec<u8>) -> Vec<Packet> {
    if bytes.is_empty() { Vec::new() } else { vec![Packet { bytes, ..Packet::default() }] }
}

/// The socket of a file, if it is one.
pub fn of(file: &OpenFile) -> Option<&Socket> {
    match &file.kind {
        FileKind::Socket(socket) => Some(socket),
        _ => None,
    }
}

/// Opens all sockets of the model.
pub fn open_all(
    files: &[OpenFile],
    opened: &mut [Option<OwnedFd>],
    meeting: Option<&Meeting>,
) -> Result<(), FilesError> {
    pairing::pair_all(meeting, files, opened)?;
    tcp::open_all(files, opened)?;
    udp::open_all(files, opened)?;
    netlink::open_all(files, opened)?;
    unix::open_all(files, opened)?;
    for (file, place) in files.iter().zip(opened.iter()) {
        if let (Some(socket), Some(place)) = (of(file), place) {
            set_options(place.as_raw_fd(), socket).map_err(FilesError::restore("set options of", describe(socket)))?;
        }
    }
    Ok(())
}

/// For messages.
pub fn describe(socket: &Socket) -> String {
    let address = |bytes: &[u8]| match (raw::inet(bytes), raw::unix_path(bytes)) {
        (Some(address), _) => address.to_string(),
        (_, Some(path)) if socket.family == libc::AF_UNIX => path.display().to_string(),
        _ => "unnamed".to_owned(),
    };
    format!("socket {} ⇄ {}", address(&socket.local), address(&socket.remote))
}
