//! Messages of sock_diag(7) about Unix sockets: pure bytes ⇄ meaning.

/// Length of a request.
pub const REQUEST_BYTES: usize = 40;

/// One Unix socket of the network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSocket {
    /// Inode, as in `socket:[N]`.
    pub inode: u32,
    /// TCP_ESTABLISHED (1), TCP_CLOSE (7: not connected) or TCP_LISTEN (10).
    pub state: u8,
    /// Inode of the other end, where connected.
    pub peer: Option<u32>,
    /// Of a listening socket: inodes of the ends that wait in connect(2)'ed state, as far as they have one.
    pub pending: Vec<u32>,
    /// Of a listening socket: connections waiting and backlog; else bytes in the queues (received, sent).
    pub queues: (u32, u32),
    /// RCV_SHUTDOWN (1) and SEND_SHUTDOWN (2).
    pub shutdown: u8,
}

/// What a datagram of the kernel held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Sockets, in the kernel's order.
    pub sockets: Vec<UnixSocket>,
    /// NLMSG_DONE was seen.
    pub done: bool,
    /// NLMSG_ERROR: errno.
    pub error: Option<i32>,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_UNIX: u8 = 1;
/// UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN.
const SHOW: u32 = 0x4 | 0x8 | 0x10;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_SHUTDOWN: u16 = 6;
const NLMSG_HEADER: usize = 16;
const DIAG_HEADER: usize = 16;

/// The request for all Unix sockets of this network namespace.
pub fn request() -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[0..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes[16] = AF_UNIX;
    bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes[28..32].copy_from_slice(&SHOW.to_ne_bytes());
    bytes[32..40].copy_from_slice(&[0xff; 8]);
    bytes
}

/// Reads one datagram; a torn message ends it.
pub fn parse(mut bytes: &[u8]) -> Answer {
    let mut answer = Answer::default();
    while let Some((length, kind)) = u32_at(bytes, 0).zip(u16_at(bytes, 4)) {
        let Some(message) = bytes.get(NLMSG_HEADER..length as usize) else { break };
        match kind {
            NLMSG_DONE => answer.done = true,
            NLMSG_ERROR => answer.error = Some(u32_at(message, 0).map_or(0, |it| (it as i32).wrapping_neg())),
            SOCK_DIAG_BY_FAMILY => answer.sockets.extend(socket(message)),
            _ => {}
        }
        bytes = bytes.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    answer
}

fn socket(message: &[u8]) -> Option<UnixSocket> {
    let mut socket = UnixSocket { state: *message.get(2)?, inode: u32_at(message, 4)?, ..Default::default() };
    let mut rest = message.get(DIAG_HEADER..)?;
    while let Some((length, kind)) = u16_at(rest, 0).zip(u16_at(rest, 2)) {
        let Some(value) = rest.get(4..length as usize) else { break };
        match kind {
            UNIX_DIAG_PEER => socket.peer = u32_at(value, 0).filter(|it| *it != 0),
            UNIX_DIAG_ICONS => socket.pending = (0..value.len() / 4).filter_map(|at| u32_at(value, at * 4)).collect(),
            UNIX_DIAG_RQLEN => socket.queues = (u32_at(value, 0)?, u32_at(value, 4)?),
            UNIX_DIAG_SHUTDOWN => socket.shutdown = value.first().copied().unwrap_or_default(),
            _ => {}
        }
        rest = rest.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(socket)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connected_socket_and_the_end() {
        let mut bytes = Vec::new();
        bytes.extend(40u32.to_ne_bytes());
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([1, 1, 1, 0]);
        bytes.extend(77u32.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(UNIX_DIAG_PEER.to_ne_bytes());
        bytes.extend(78u32.to_ne_bytes());
        bytes.extend(16u32.to_ne_bytes());
        bytes.extend(NLMSG_DONE.to_ne_bytes());
        bytes.extend([0; 10]);
        let answer = parse(&bytes);
        assert!(answer.done);
        let expected = UnixSocket { inode: 77, state: 1, peer: Some(78), ..Default::default() };
        assert_eq!(answer.sockets, [expected]);
        for length in 0..bytes.len() {
            parse(&bytes[..length]);
        }
    }

    #[test]
    fn a_length_of_zero_ends_the_reading() {
        assert_eq!(parse(&[0; 64]), Answer::default());
    }
}
