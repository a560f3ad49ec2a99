//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Bytes of a message, at most: the address table of a job on ten thousand nodes has two to four million.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes of a hello, at most: it is held before anybody has said that this agent is welcome.
pub const HELLO_BYTES_MAX: usize = 64 << 10;
/// Bytes that wait to be acknowledged by one peer, at most: three greatest messages. More is waiting for a peer that
/// cannot keep up, and the sender has to hear of it.
pub const OUTBOX_BYTES_MAX: usize = 32 << 20;
/// Bytes from one peer that were received and not yet taken by the caller, at most; then the peer has to wait.
pub const INBOX_BYTES_MAX: usize = 16 << 20;
/// What a waiting message counts for beside its bytes, so that empty ones have a limit too.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64;
/// Agents of one coordinator, at most: ten thousand, and those of them that have come back in a new session.
pub const SESSIONS_MAX: usize = 16_384;
/// Connections that have not shown a key yet, at most; each has some 30 KB. What is one too many is not answered and an
/// honest client asks again by itself.
pub const HANDSHAKES_AT_ONCE_MAX: usize = 512;
/// An honest handshake is done in a few round trips: one that is older than this has to go when others want in.
pub const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);
/// New connections in a second, at most: each costs somewhat below a millisecond of computing.
pub const HANDSHAKES_PER_SECOND_MAX: u32 = 500;
/// From a connection's first datagram to its session, at most. Long enough for a node that swaps.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that the peer may have on their way to us on one connection; what a fast network needs at 1 ms and 10 Gbit/s.
pub const WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of a file with keys, at most: there are two kilobytes in it.
pub const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a job's name, at most: it stands in a certificate.
pub const JOB_BYTES_MAX: usize = 64;
/// Addresses of a coordinator, at most: more than any node has, few enough to try them all.
pub const ADDRESSES_MAX: usize = 64;
/// Bytes of the text that tells why an agent is turned away or a connection closed, at most.
pub const REASON_BYTES_MAX: usize = 4096;
/// Kinds of refusals that are counted apart, at most; there are a dozen.
pub const REFUSALS_MAX: usize = 32;
/// The same refusal is reported once in this time.
pub const REFUSAL_INTERVAL: Duration = Duration::from_secs(60);

/// A session that has no connection for this long is lost.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// A quiet client says that it lives this often.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A connection on which nothing has come for this long is broken: four lost keep-alives and a bit.
pub const IDLE: Duration = Duration::from_secs(5);
/// An attempt to connect takes at most this long. Short, because what was cut may be whole again at any moment.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// The next address is tried this long after the one before it.
pub const STAGGER: Duration = Duration::from_millis(200);
/// Pause after the first failed attempt; it doubles up to [`BACK_OFF_MAX`].
pub const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause between attempts.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// An acknowledgement waits this long for a message to travel with.
pub const ACK_DELAY: Duration = Duration::from_millis(25);
/// Bytes received after which an acknowledgement waits no longer.
pub const ACK_BYTES: usize = 1 << 20;
/// Bytes handed to a connection in one go, so that acknowledgements come in between.
pub const WRITE_BYTES: usize = 256 << 10;
/// How long the side that was told the end waits for the other to hang up.
pub const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes of datagrams that the kernel keeps for the coordinator, as far as the machine's limits allow: a thousand agents
/// may answer in the same moment.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// How long a handle that is dropped waits for its last datagram to leave.
pub const DROP_TIMEOUT: Duration = Duration::from_millis(200);
