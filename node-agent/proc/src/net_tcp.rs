//! `/proc/net/tcp` and `/proc/net/tcp6`: who is connected to whom, also sockets that nobody holds.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP_* states of the kernel that matter here.
pub mod state {
    #![allow(missing_docs)]
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpEntry {
    /// Own address; IPv4 written in IPv6 is turned into IPv4.
    pub local: SocketAddr,
    /// The other end's address, likewise.
    pub remote: SocketAddr,
    /// See [`state`].
    pub state: u8,
    /// Bytes that the other end has not acknowledged.
    pub send_queue: u64,
    /// Bytes received and not read; of a listening socket: connections not accepted.
    pub receive_queue: u64,
    /// 0 when no descriptor refers to it (not yet accepted, closed, TIME_WAIT).
    pub inode: u64,
}

/// Reads all lines of either file; lines that are no entry (the heading, a torn line) are passed over.
pub fn parse(text: &str) -> Vec<TcpEntry> {
    text.lines().filter_map(entry).collect()
}

/// IPv4 addresses in IPv6 clothes become IPv4, so that the two ends of one connection can be compared.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn entry(line: &str) -> Option<TcpEntry> {
    let mut words = line.split_whitespace();
    words.next()?.strip_suffix(':')?;
    let local = address(words.next()?)?;
    let remote = address(words.next()?)?;
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let (send, receive) = words.next()?.split_once(':')?;
    let inode = words.nth(4)?.parse().ok()?;
    let queue = |text| u64::from_str_radix(text, 16).ok();
    Some(TcpEntry { local, remote, state, send_queue: queue(send)?, receive_queue: queue(receive)?, inode })
}

/// Words of the address are printed as native integers, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(plain(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                    0: 0100007F:0402 0200007F:9C40 01 0000000A:00000003 00:00000000 00000000     0        0 1042 1 x\n";
        let entry = parse(text)[0];
        assert_eq!(entry.local, "127.0.0.1:1026".parse().unwrap());
        assert_eq!(entry.remote, "127.0.0.2:40000".parse().unwrap());
        assert_eq!((entry.state, entry.send_queue, entry.receive_queue, entry.inode), (1, 10, 3, 1042));

        let text =
            "   1: 0000000000000000FFFF00000100007F:0050 00000000000000000000000001000000:0051 08 0:0 0:0 0 0 0 7 1\n";
        let entry = parse(text)[0];
        assert_eq!(entry.local, "127.0.0.1:80".parse().unwrap());
        assert_eq!(entry.remote, "[::1]:81".parse().unwrap());
    }

    #[test]
    fn torn_lines_are_passed_over() {
        assert!(parse("   0: 0100007F:0402 02000\n garbage\n\n 3: é:1 2 3 4 5 6 7 8 9 10").is_empty());
    }
}
