//! What is remembered of one node's part of a job.
//!
//! Numbers that the job itself sees (pids, tids, descriptors, addresses) are the job's own: the agent that looks in from
//! an outer pid namespace translates at once. All tables refer to each other by index.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

mod check;
mod files;
mod memory;
mod remote;

pub(crate) use check::check;
pub use files::{Descriptor, EpollEntry, FileKind, OpenFile, Packet, Socket};
pub use memory::{Backing, FileIdentity, MemoryLayout, Object, ObjectKind, Vma};
pub use remote::{Connection, Remote};

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
    /// Number of the virtual node; the head's is 0.
    #[serde(default)]
    pub node: u32,
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
    /// Addresses of the host on which the job began, as its programs know them.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
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
    /// Launchers' daemons on this node that live: number of the launch, pid.
    #[serde(default)]
    pub launches: Vec<(u64, Pid)>,
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
