//! Open file descriptions and the descriptors that name them.

use serde::{Deserialize, Serialize};

use super::{FileIdentity, FileIndex, ObjectIndex, Pid, Remote};

/// A descriptor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    #[allow(missing_docs)]
    pub number: i32,
    #[allow(missing_docs)]
    pub file: FileIndex,
    #[allow(missing_docs)]
    pub close_on_exec: bool,
}

/// An open file description.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenFile {
    /// O_ACCMODE and status flags (fdinfo `flags`, without O_CLOEXEC).
    pub flags: u32,
    /// F_SETOWN pid (negative: group) and F_SETSIG, 0 = none.
    pub owner: i32,
    #[allow(missing_docs)]
    pub owner_signal: i32,
    #[allow(missing_docs)]
    pub kind: FileKind,
}

/// Kinds of [`OpenFile`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Descriptor 0, 1 or 2 that ckpt-run was started with; its successor's takes its place.
    #[default]
    Nothing,
    #[allow(missing_docs)]
    Inherited {
        /// 0, 1 or 2.
        stream: u32,
    },
    /// Regular file or folder by path.
    Path {
        #[allow(missing_docs)]
        file: FileIdentity,
        /// Offset of the description.
        position: u64,
        #[allow(missing_docs)]
        folder: bool,
        /// O_PATH.
        path_only: bool,
    },
    /// Description on an [`Object`].
    Object {
        #[allow(missing_docs)]
        object: ObjectIndex,
        #[allow(missing_docs)]
        position: u64,
    },
    /// A character device by path (/dev/null, a terminal that is not a pty of the job).
    Device {
        #[allow(missing_docs)]
        path: String,
    },
    /// One end of a pipe, or a FIFO.
    Pipe {
        /// Which pipe: index into a numbering of this image; ends of one pipe share it.
        pipe: usize,
        /// Path of a FIFO.
        path: Option<String>,
        /// F_GETPIPE_SZ.
        capacity: u32,
        /// What is in it (the same bytes at each end; base64).
        #[serde(with = "crate::base64")]
        contents: Vec<u8>,
        /// O_DIRECT packets: lengths.
        packets: Vec<u32>,
    },
    #[allow(missing_docs)]
    Socket(Box<Socket>),
    #[allow(missing_docs)]
    Epoll {
        /// Registered descriptors.
        entries: Vec<EpollEntry>,
    },
    #[allow(missing_docs)]
    Eventfd {
        #[allow(missing_docs)]
        count: u64,
        #[allow(missing_docs)]
        semaphore: bool,
    },
    #[allow(missing_docs)]
    Timerfd {
        #[allow(missing_docs)]
        clock: i32,
        #[allow(missing_docs)]
        ticks: u64,
        /// TFD_TIMER_ABSTIME etc. as it was set.
        settime_flags: u32,
        /// ns.
        value_ns: u64,
        #[allow(missing_docs)]
        interval_ns: u64,
    },
    #[allow(missing_docs)]
    Signalfd {
        #[allow(missing_docs)]
        mask: u64,
    },
    #[allow(missing_docs)]
    Inotify {
        /// (wd, path, mask)
        watches: Vec<(i32, String, u32)>,
    },
    #[allow(missing_docs)]
    Pidfd {
        #[allow(missing_docs)]
        pid: Pid,
    },
    /// Master or slave of a pty of the job.
    Pty {
        /// pts number.
        index: u32,
        #[allow(missing_docs)]
        master: bool,
        /// TIOCSPTLCK is open.
        unlocked: bool,
        /// struct termios2 as bytes (of either end: they share it).
        #[serde(with = "crate::base64")]
        termios: Vec<u8>,
        /// rows, columns, x pixels, y pixels.
        window: [u16; 4],
        /// What the slave has written and nobody read yet (master), or what waits for the slave (slave).
        #[serde(with = "crate::base64")]
        contents: Vec<u8>,
    },
}

/// An epoll registration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpollEntry {
    /// Number under which it was registered.
    pub number: i32,
    /// The file that it watches.
    pub file: FileIndex,
    #[allow(missing_docs)]
    pub events: u32,
    #[allow(missing_docs)]
    pub data: u64,
}

/// A socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Socket {
    /// AF_UNIX, AF_INET, AF_INET6, AF_NETLINK.
    pub family: i32,
    /// SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_RAW.
    pub kind: i32,
    #[allow(missing_docs)]
    pub protocol: i32,
    /// sockaddr bytes of getsockname(2) and getpeername(2) as the program knows them; empty = none.
    #[serde(with = "crate::base64")]
    pub local: Vec<u8>,
    #[allow(missing_docs)]
    #[serde(with = "crate::base64")]
    pub remote: Vec<u8>,
    /// Some(backlog) when listening.
    pub backlog: Option<i32>,
    /// The file at the other end of a connection: Some when it is on this virtual node.
    pub peer: Option<FileIndex>,
    /// The other end of a TCP connection to another virtual node of the job; then [`Socket::peer`] is None.
    #[serde(default)]
    pub peer_node: Option<Remote>,
    /// The connection waits in this listening file's backlog and has no descriptor yet.
    pub in_backlog_of: Option<FileIndex>,
    /// What it has received and nobody read: packets for datagram kinds, else one chunk (each: bytes, files passed
    /// along by SCM_RIGHTS, sender's address for datagrams).
    pub received: Vec<Packet>,
    /// Shut down for reading, for writing; the other end has closed.
    pub shut_read: bool,
    #[allow(missing_docs)]
    pub shut_write: bool,
    #[allow(missing_docs)]
    pub peer_closed: bool,
    /// (level, name, value) of options that differ from a fresh socket's.
    pub options: Vec<(i32, i32, Vec<u8>)>,
}

/// Something in a socket's receive queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Packet {
    #[serde(with = "crate::base64")]
    #[allow(missing_docs)]
    pub bytes: Vec<u8>,
    /// Files in flight.
    pub files: Vec<FileIndex>,
    /// sockaddr of the sender.
    #[serde(with = "crate::base64")]
    pub from: Vec<u8>,
}
