//! What is remembered of one node's part of a job.
//!
//! Numbers that the job itself sees (pids, tids, descriptors, addresses) are the job's own: the agent that looks in from
//! an outer pid namespace translates at once. All tables refer to each other by index.

use serde::{Deserialize, Serialize};

/// A pid or tid as the job sees it.
pub type Pid = u32;
/// Index into [`NodeModel::files`].
pub type FileIndex = usize;
/// Index into [`NodeModel::objects`].
pub type ObjectIndex = usize;

/// Everything but page contents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeModel {
    /// `hijack_abi::VERSION` of the library that parked these processes.
    pub abi_version: u32,
    /// The park epoch that the parked handlers hold.
    pub epoch: u32,
    /// Where and on what it was taken.
    pub machine: Machine,
    /// The job.
    pub job: JobModel,
    /// Parents before children.
    pub processes: Vec<Process>,
    /// Pids that the job knows but that are not of the job: the guardian that was its parent, the leaders of its
    /// caller's session and group. A restart makes stand-ins.
    pub outsiders: Vec<Outsider>,
    /// Open file descriptions, each once, however many descriptors refer to it.
    pub files: Vec<OpenFile>,
    /// Things whose contents are in the image: shared memory, deleted files.
    pub objects: Vec<Object>,
    /// System V semaphores.
    #[serde(default)]
    pub semaphores: Vec<SemaphoreSet>,
    /// System V message queues.
    #[serde(default)]
    pub queues: Vec<MessageQueue>,
}

/// What semget(2) gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SemaphoreSet {
    #[allow(missing_docs)]
    pub id: i32,
    /// 0 = IPC_PRIVATE.
    pub key: i32,
    /// Permission bits.
    pub mode: u32,
    #[allow(missing_docs)]
    pub values: Vec<u16>,
}

/// What msgget(2) gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MessageQueue {
    #[allow(missing_docs)]
    pub id: i32,
    /// 0 = IPC_PRIVATE.
    pub key: i32,
    /// Permission bits.
    pub mode: u32,
    /// Oldest first.
    pub messages: Vec<Message>,
}

/// A message in a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// mtype.
    pub kind: i64,
    #[allow(missing_docs)]
    #[serde(with = "crate::base64")]
    pub bytes: Vec<u8>,
}

/// Where an image was taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// uname.nodename.
    pub host: String,
    /// uname.release.
    pub kernel: String,
    /// uname.machine.
    pub architecture: String,
    /// /proc/cpuinfo flags, sorted.
    pub cpu_flags: Vec<String>,
    /// CLOCK_REALTIME, ns since 1970.
    pub realtime_ns: u64,
    /// CLOCK_MONOTONIC as the job saw it, ns.
    pub monotonic_ns: u64,
    /// CLOCK_BOOTTIME as the job saw it, ns.
    pub boottime_ns: u64,
    /// Real and effective uid and gid.
    pub uid: u32,
    #[allow(missing_docs)]
    pub gid: u32,
}

/// The job as its user named it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobModel {
    /// Unique id, also the name of its folder.
    pub id: String,
    /// `--name`, or the program's name.
    pub name: String,
    /// Command line.
    pub command: Vec<String>,
    /// The job's folder on its node (holds `segment` and the library; in every process's environment).
    pub folder: String,
    /// Pid of the process that ckpt-run started.
    pub root: Pid,
    /// MPI ranks: pids announced by the library.
    pub ranks: Vec<Pid>,
    /// Options that later lives inherit.
    pub keep: u32,
    /// Seconds between checkpoints by the clock; 0 = none.
    pub every_s: u64,
}

/// A process that only has to exist, so that getppid, getsid and getpgrp tell what they told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outsider {
    /// Its pid.
    pub pid: Pid,
    /// Its session.
    pub sid: Pid,
    /// Its group.
    pub pgid: Pid,
    /// True for the job's guardian: parent of the root and subreaper.
    pub guardian: bool,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    #[allow(missing_docs)]
    pub pid: Pid,
    #[allow(missing_docs)]
    pub ppid: Pid,
    #[allow(missing_docs)]
    pub pgid: Pid,
    #[allow(missing_docs)]
    pub sid: Pid,
    /// Some(wait status) for a zombie: then nothing below `comm` is set.
    pub zombie: Option<i32>,
    /// Stopped by job control with this signal.
    pub stopped: bool,
    /// Name of the leader.
    pub comm: String,
    /// /proc/PID/exe.
    pub exe: FileIdentity,
    #[allow(missing_docs)]
    pub cwd: String,
    #[allow(missing_docs)]
    pub umask: u32,
    /// (soft, hard) of RLIMIT_* 0..16; u64::MAX = unlimited.
    pub rlimits: Vec<(u64, u64)>,
    #[allow(missing_docs)]
    pub oom_score_adj: i32,
    /// The session's controlling terminal, as an index of a file, and its foreground group.
    pub terminal: Option<Terminal>,
    /// Layout.
    pub memory: MemoryLayout,
    /// Descriptors, by number.
    pub descriptors: Vec<Descriptor>,
    /// 64 kernel sigactions: handler, flags, restorer, mask.
    pub actions: Vec<[u64; 4]>,
    /// REAL, VIRTUAL, PROF: interval s, µs, value s, µs.
    pub itimers: [[u64; 4]; 3],
    #[allow(missing_docs)]
    pub timers: Vec<PosixTimer>,
    /// siginfo_t of signals pending for the process.
    pub pending: Vec<[u64; 16]>,
    #[allow(missing_docs)]
    pub child_subreaper: bool,
    #[allow(missing_docs)]
    pub dumpable: u32,
    #[allow(missing_docs)]
    pub keepcaps: bool,
    #[allow(missing_docs)]
    pub thp_disable: bool,
    #[allow(missing_docs)]
    pub no_new_privs: bool,
    /// MEMBARRIER_CMD_* registrations.
    pub membarrier: u32,
    /// ARCH_GET_XCOMP_PERM.
    pub xcomp_permitted: u64,
    /// Leader first.
    pub threads: Vec<Thread>,
}

/// A controlling terminal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Terminal {
    /// st_rdev of the terminal.
    pub device: u64,
    /// Foreground process group.
    pub foreground: Pid,
}

/// timer_create(2).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PosixTimer {
    #[allow(missing_docs)]
    pub id: i32,
    #[allow(missing_docs)]
    pub clock: i32,
    /// SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD_ID (4).
    pub notify: i32,
    #[allow(missing_docs)]
    pub signal: i32,
    #[allow(missing_docs)]
    pub value: u64,
    /// For SIGEV_THREAD_ID.
    pub tid: Pid,
    /// interval s, ns, value s, ns.
    pub setting: [u64; 4],
}

/// A thread. The registers are in its signal frame, which is in memory; these are what `hijack_abi::ThreadState` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    #[allow(missing_docs)]
    pub tid: Pid,
    #[allow(missing_docs)]
    pub comm: String,
    /// Where to jump, with rax = 1.
    pub rip: u64,
    /// rsp, rbx, rbp, r12, r13, r14, r15 there.
    pub registers: [u64; 7],
    #[allow(missing_docs)]
    pub fs_base: u64,
    #[allow(missing_docs)]
    pub gs_base: u64,
    /// Address of the ucontext in memory.
    pub ucontext: u64,
    /// Address and length.
    pub robust_list: (u64, u64),
    #[allow(missing_docs)]
    pub clear_tid: u64,
    /// ss_sp, ss_flags, ss_size.
    pub altstack: [u64; 3],
    /// Address, length, signature; address 0 = not registered.
    pub rseq: (u64, u32, u32),
    #[allow(missing_docs)]
    pub pdeathsig: u32,
    #[allow(missing_docs)]
    pub timerslack_ns: u64,
    /// sched_getscheduler(2), priority, nice.
    pub policy: i32,
    #[allow(missing_docs)]
    pub priority: i32,
    #[allow(missing_docs)]
    pub nice: i32,
    /// CPUs, or empty when it may run on all that were online.
    pub affinity: Vec<u32>,
    /// siginfo_t of signals pending for this thread.
    pub pending: Vec<[u64; 16]>,
}

/// Memory of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryLayout {
    /// start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end
    /// (the order of struct prctl_mm_map).
    pub mm: [u64; 11],
    /// Auxiliary vector, key and value by turns.
    pub auxv: Vec<u64>,
    /// Where the control segment is mapped.
    pub segment_address: u64,
    /// In ascending order; the control segment and vsyscall are not among them.
    pub vmas: Vec<Vma>,
}

/// A virtual memory area.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vma {
    #[allow(missing_docs)]
    pub start: u64,
    #[allow(missing_docs)]
    pub end: u64,
    /// PROT_* bits.
    pub protection: u32,
    /// MAP_SHARED.
    pub shared: bool,
    #[allow(missing_docs)]
    pub backing: Backing,
    /// VmFlags of smaps that matter: lo, gd, dc, dd, wf, hg, nh, mg, nr, ht; and `whole`: all its pages are in the image,
    /// whatever is behind it (our own library, whose file may be another one where the job is restarted).
    pub flags: Vec<String>,
}

/// What is behind a VMA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// Private anonymous memory; Some(name) of PR_SET_VMA_ANON_NAME.
    #[default]
    Anonymous,
    /// `[heap]`.
    Heap,
    /// `[stack]` of the leader.
    Stack,
    /// `[vvar]`, `[vvar_vclock]`, `[vdso]`: never with contents.
    Vdso(String),
    /// A file on disk from `offset` bytes on. Private: pages written to are in the image. Shared: read-only use.
    File {
        #[allow(missing_docs)]
        file: FileIdentity,
        #[allow(missing_docs)]
        offset: u64,
    },
    /// An [`Object`] of the image from `offset` bytes on (shared, or a private mapping of a deleted file).
    Object {
        #[allow(missing_docs)]
        object: ObjectIndex,
        #[allow(missing_docs)]
        offset: u64,
    },
    /// A character device such as /dev/zero (private).
    Device(String),
}

/// Which file, and how to see at a restart that it still is that file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    #[allow(missing_docs)]
    pub path: String,
    #[allow(missing_docs)]
    pub device: u64,
    #[allow(missing_docs)]
    pub inode: u64,
    #[allow(missing_docs)]
    pub size: u64,
    /// ns since 1970.
    pub modified_ns: i64,
    /// XXH3-128 of its bytes as 32 hex digits; filled for programs and libraries, may be empty elsewhere.
    pub hash: String,
}

/// Something whose bytes are in the image, once, with holes left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Object {
    #[allow(missing_docs)]
    pub kind: ObjectKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// Kinds of [`Object`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// Anonymous MAP_SHARED memory, /dev/zero shared.
    #[default]
    Anonymous,
    /// memfd_create(2): name and seals.
    Memfd {
        #[allow(missing_docs)]
        name: String,
        #[allow(missing_docs)]
        seals: u32,
        #[allow(missing_docs)]
        hugetlb: bool,
    },
    /// shmget(2).
    SysV {
        #[allow(missing_docs)]
        id: i32,
        #[allow(missing_docs)]
        key: i32,
        /// Marked for removal.
        removed: bool,
    },
    /// A file with a name that has to come back with its contents: mapped shared and writable, or on /dev/shm.
    Named {
        #[allow(missing_docs)]
        file: FileIdentity,
    },
    /// A small file that the job has open in a folder for temporary files: comes back with its contents where it is gone (a
    /// launcher that aborts clears its session's folder away), and is left alone where it is there.
    Spare {
        #[allow(missing_docs)]
        file: FileIdentity,
    },
    /// A deleted file: its last path.
    Deleted {
        #[allow(missing_docs)]
        path: String,
    },
}

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
    /// sockaddr bytes of getsockname(2) and getpeername(2); empty = none.
    #[serde(with = "crate::base64")]
    pub local: Vec<u8>,
    #[allow(missing_docs)]
    #[serde(with = "crate::base64")]
    pub remote: Vec<u8>,
    /// Some(backlog) when listening.
    pub backlog: Option<i32>,
    /// The file at the other end of a connection: Some when it is in the job.
    pub peer: Option<FileIndex>,
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
