//! The fence: socket calls with addresses and control messages as bytes, as safe functions.
#![allow(unsafe_code)] // addresses are kept as the bytes that the program saw, which nix's types do not do

use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::sys::check;

/// Descriptors that one message can carry (SCM_MAX_FD of the kernel).
const SCM_FILES_MAX: usize = 253;
const CONTROL_BYTES: usize = 16 + SCM_FILES_MAX * 4 + 128;
const ADDRESS_BYTES: usize = size_of::<libc::sockaddr_storage>();
const OPTION_BYTES_MAX: usize = 256;

/// What one recvmsg(2) brought.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes written into the buffer.
    pub length: usize,
    /// Descriptors passed along.
    pub files: Vec<OwnedFd>,
    /// Sender's address.
    pub from: Vec<u8>,
}

/// The part of tcp_info that tells where the bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// TCP_* state.
    pub state: u8,
    /// Of a listening socket: connections that wait, and the most that may.
    pub unacked: u32,
    #[allow(missing_docs)]
    pub sacked: u32,
    /// Bytes (and SYN) that the other end has acknowledged.
    pub bytes_acked: u64,
    /// Bytes (and FIN) received in order.
    pub bytes_received: u64,
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    let number = check(result.into())?;
    // SAFETY: the kernel has just made this descriptor for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// socket(2), close-on-exec.
pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// socketpair(2) of AF_UNIX, close-on-exec.
pub fn socketpair(kind: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two ints.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) }.into())?;
    Ok((owned(ends[0])?, owned(ends[1])?))
}

/// getsockname(2), or getpeername(2) where `peer`.
pub fn name(fd: RawFd, peer: bool) -> io::Result<Vec<u8>> {
    let mut bytes = [0u8; ADDRESS_BYTES];
    let mut length = ADDRESS_BYTES as libc::socklen_t;
    // SAFETY: the buffer is as long as said.
    let result = unsafe {
        if peer {
            libc::getpeername(fd, bytes.as_mut_ptr().cast(), &raw mut length)
        } else {
            libc::getsockname(fd, bytes.as_mut_ptr().cast(), &raw mut length)
        }
    };
    check(result.into())?;
    Ok(bytes[..(length as usize).min(ADDRESS_BYTES)].to_vec())
}

/// An address as a socket of this family is told it: IPv4 in IPv6 clothes where the socket is of IPv6.
pub fn address(family: i32, address: std::net::SocketAddr) -> io::Result<Vec<u8>> {
    use std::net::SocketAddr;
    let mut bytes = (family as u16).to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    match (family, address) {
        (libc::AF_INET, SocketAddr::V4(it)) => {
            bytes.extend(it.ip().octets());
            bytes.resize(size_of::<libc::sockaddr_in>(), 0);
        }
        (libc::AF_INET6, it) => {
            let ip = match it {
                SocketAddr::V4(it) => it.ip().to_ipv6_mapped(),
                SocketAddr::V6(it) => *it.ip(),
            };
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.resize(size_of::<libc::sockaddr_in6>(), 0);
        }
        _ => return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    }
    Ok(bytes)
}

/// bind(2).
pub fn bind(fd: RawFd, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as said.
    check(unsafe { libc::bind(fd, address.as_ptr().cast(), address.len() as u32) }.into()).map(drop)
}

/// connect(2).
pub fn connect(fd: RawFd, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as said.
    check(unsafe { libc::connect(fd, address.as_ptr().cast(), address.len() as u32) }.into()).map(drop)
}

/// listen(2).
pub fn listen(fd: RawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::listen(fd, backlog) }.into()).map(drop)
}

/// accept4(2), close-on-exec.
pub fn accept(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no address is asked for.
    owned(unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) })
}

/// shutdown(2).
pub fn shutdown(fd: RawFd, how: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::shutdown(fd, how) }.into()).map(drop)
}

/// getsockopt(2): the bytes as the kernel gives them.
pub fn option(fd: RawFd, level: i32, name: i32) -> io::Result<Vec<u8>> {
    let mut bytes = [0u8; OPTION_BYTES_MAX];
    let mut length = OPTION_BYTES_MAX as libc::socklen_t;
    // SAFETY: the buffer is as long as said.
    check(unsafe { libc::getsockopt(fd, level, name, bytes.as_mut_ptr().cast(), &raw mut length) }.into())?;
    Ok(bytes[..(length as usize).min(OPTION_BYTES_MAX)].to_vec())
}

/// getsockopt(2) of an int.
pub fn option_int(fd: RawFd, level: i32, name: i32) -> io::Result<i32> {
    let bytes = option(fd, level, name)?;
    let bytes = bytes.first_chunk().ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))?;
    Ok(i32::from_ne_bytes(*bytes))
}

/// setsockopt(2).
pub fn set_option(fd: RawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as said.
    check(unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as u32) }.into()).map(drop)
}

/// setsockopt(2) of an int.
pub fn set_option_int(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_option(fd, level, name, &value.to_ne_bytes())
}

/// TCP_INFO.
pub fn tcp_info(fd: RawFd) -> io::Result<TcpInfo> {
    // linux/tcp.h: fixed offsets, part of the kernel's ABI; bytes_acked and bytes_received since 4.1.
    const UNACKED: usize = 24;
    const SACKED: usize = 28;
    const BYTES_ACKED: usize = 120;
    const BYTES_RECEIVED: usize = 128;
    let bytes = option(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let u32_at = |at: usize| bytes.get(at..at + 4).and_then(|it| it.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let u64_at = |at: usize| bytes.get(at..at + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_ne_bytes);
    Ok(TcpInfo {
        state: bytes.first().copied().unwrap_or_default(),
        unacked: u32_at(UNACKED),
        sacked: u32_at(SACKED),
        bytes_acked: u64_at(BYTES_ACKED),
        bytes_received: u64_at(BYTES_RECEIVED),
    })
}

/// recvmsg(2).
pub fn receive(fd: RawFd, buffer: &mut [u8], flags: i32) -> io::Result<Received> {
    let mut control = [0u64; CONTROL_BYTES.div_ceil(8)];
    let mut address = [0u8; ADDRESS_BYTES];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr of zeroes is valid; its padding is private.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = address.as_mut_ptr().cast();
    message.msg_namelen = ADDRESS_BYTES as u32;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES;
    // SAFETY: all parts are as long as said and outlive the call.
    let length = check(unsafe { libc::recvmsg(fd, &raw mut message, flags | libc::MSG_CMSG_CLOEXEC) } as i64)? as usize;
    let from = address[..(message.msg_namelen as usize).min(ADDRESS_BYTES)].to_vec();
    Ok(Received { length, files: passed_files(&message), from })
}

fn passed_files(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    // SAFETY: the kernel wrote the control part of this message; CMSG_* walk inside of msg_controllen.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while !head.is_null() {
            if (*head).cmsg_level == libc::SOL_SOCKET && (*head).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*head).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                let numbers = libc::CMSG_DATA(head).cast::<RawFd>();
                files.extend((0..count).map(|at| OwnedFd::from_raw_fd(numbers.add(at).read_unaligned())));
            }
            head = libc::CMSG_NXTHDR(message, head);
        }
    }
    files
}

/// sendmsg(2) with descriptors to pass along and, where `to` is not empty, an address. SIGPIPE is not raised.
pub fn send(fd: RawFd, bytes: &[u8], files: &[RawFd], to: &[u8], flags: i32) -> io::Result<usize> {
    let mut control = [0u64; CONTROL_BYTES.div_ceil(8)];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: a msghdr of zeroes is valid; its padding is private.
    let mut message: libc::msghdr = unsafe { zeroed() };
    if !to.is_empty() {
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen = to.len() as u32;
    }
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let files = &files[..files.len().min(SCM_FILES_MAX)];
    if !files.is_empty() {
        let length = size_of_val(files) as u32;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: arithmetic only.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as usize;
        // SAFETY: the control buffer holds a header and SCM_FILES_MAX descriptors and is aligned for the header.
        unsafe {
            let head = libc::CMSG_FIRSTHDR(&raw const message);
            (*head).cmsg_level = libc::SOL_SOCKET;
            (*head).cmsg_type = libc::SCM_RIGHTS;
            (*head).cmsg_len = libc::CMSG_LEN(length) as usize;
            libc::CMSG_DATA(head).copy_from(files.as_ptr().cast(), length as usize);
        }
    }
    // SAFETY: all parts are as long as said and outlive the call.
    check(unsafe { libc::sendmsg(fd, &raw const message, flags | libc::MSG_NOSIGNAL) } as i64).map(|it| it as usize)
}

/// Takes `length` bytes out of a TCP receive queue without copying them; they must be there.
pub fn discard(fd: RawFd, length: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC TCP writes nothing to the buffer, see tcp(7).
    let result = unsafe { libc::recv(fd, std::ptr::null_mut(), length, libc::MSG_TRUNC | libc::MSG_DONTWAIT) };
    check(result as i64).map(|it| it as usize)
}

/// All Unix sockets of this network namespace.
pub fn unix_sockets() -> io::Result<Vec<node_agent_proc::net_unix::UnixSocket>> {
    const ANSWER_BYTES: usize = 1 << 16;
    let netlink = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG)?;
    send(netlink.as_raw_fd(), &node_agent_proc::net_unix::request(), &[], &[], 0)?;
    let mut sockets = Vec::new();
    let mut buffer = vec![0; ANSWER_BYTES];
    loop {
        let length = receive(netlink.as_raw_fd(), &mut buffer, 0)?.length;
        let answer = node_agent_proc::net_unix::parse(&buffer[..length]);
        if let Some(error) = answer.error {
            return Err(io::Error::from_raw_os_error(error));
        }
        sockets.extend(answer.sockets);
        if answer.done || length == 0 {
            return Ok(sockets);
        }
    }
}

/// Address of a Unix socket: its path, None for unnamed and abstract ones.
pub fn unix_path(address: &[u8]) -> Option<std::path::PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let path = address.get(offset_of!(libc::sockaddr_un, sun_path)..)?;
    let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
    (end > 0).then(|| std::ffi::OsStr::from_bytes(&path[..end]).into())
}

/// Address of a TCP or UDP socket.
pub fn inet(address: &[u8]) -> Option<std::net::SocketAddr> {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    let family = i32::from(u16::from_ne_bytes(*address.first_chunk()?));
    let port = u16::from_be_bytes(address.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => {
            Some(SocketAddr::new(Ipv4Addr::from(<[u8; 4]>::try_from(address.get(4..8)?).ok()?).into(), port))
        }
        libc::AF_INET6 => {
            Some(SocketAddr::new(Ipv6Addr::from(<[u8; 16]>::try_from(address.get(8..24)?).ok()?).into(), port))
        }
        _ => None,
    }
}
