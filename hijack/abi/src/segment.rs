//! The control segment.
//!
//! ```text
//! agent                                       thread (in the handler of PARK_SIGNAL)
//! ------------------------------------------  ------------------------------------------------
//! epoch += 1
//! slot(tid): hint, state = ASKED, tgkill  →   finds its slot by tid; stale or none: returns at once
//!                                             fills `thread`, state = PARKED, parked += 1, wakes `parked`
//! waits for `parked`                          waits on slot.command (FUTEX_WAIT, not private)
//! slot.command = FACTS | TWIN | UNMAP     →   does it, slot.result, slot.command = NONE, acks += 1, wakes `acks`
//! gate = epoch, slot.command = RESUME     →   state = LEFT, parked -= 1, repairs EINTR or a short count, returns
//! ```
//!
//! A thread may also leave when it sees `gate >= its epoch` whatever its command says: that is how a guardian frees
//! everybody after an agent has died. After a restart the same threads wait in the same place on a new segment:
//! `epoch` is what it was when they parked and `gate` is one less.

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use crate::addresses::Addresses;

/// First eight bytes of a segment: "slkwater" read as a little-endian number.
pub const MAGIC: u64 = u64::from_le_bytes(*b"slkwater");
/// Slots in a segment: the most threads that one node's part of a job may have (power of two; open addressing by tid).
pub const SLOTS: usize = 8192;
/// A slot is looked for in at most this many places after its first.
pub const PROBES: usize = 64;
/// Ranks that can be announced on one node.
pub const RANKS: usize = 2048;
/// Pending signals kept per thread (and as many for its process); more are a refusal.
pub const PENDING: usize = 16;

/// `Slot::state`.
pub mod state {
    /// Not in use.
    pub const FREE: u32 = 0;
    /// The agent has prepared the slot and is about to signal.
    pub const ASKED: u32 = 1;
    /// The thread is in the handler and `Slot::thread` is valid.
    pub const PARKED: u32 = 2;
    /// The thread has left the handler.
    pub const LEFT: u32 = 3;
}

/// `Slot::command`.
pub mod command {
    /// Nothing: wait.
    pub const NONE: u32 = 0;
    /// Leave the handler.
    pub const RESUME: u32 = 1;
    /// Fill `Slot::process` (asked of one thread of each process).
    pub const FACTS: u32 = 2;
    /// Make a copy-on-write twin; `Slot::result` is its pid or a negative errno.
    pub const TWIN: u32 = 3;
    /// munmap `argument[0]`, length `argument[1]` (the restorer, after a restart).
    pub const UNMAP: u32 = 4;
    /// Drain pending signals of this thread and of its process into `Slot::pending*` and queue them again; `argument[0]` is
    /// the set that waits for this thread alone.
    pub const PENDING: u32 = 5;
}

/// The whole segment. Every process of a job on a node maps all of it.
#[repr(C, align(4096))]
pub struct Segment {
    /// Who writes: the agent, before any process maps it.
    pub magic: u64,
    /// [`crate::VERSION`].
    pub version: u32,
    /// `size_of::<Segment>()` in KiB, so that a library of another build notices.
    pub size_kib: u32,
    /// The current park; agent writes.
    pub epoch: AtomicU32,
    /// Threads parked for an epoch `<= gate` may leave; agent and guardian write. Futex word.
    pub gate: AtomicU32,
    /// Threads in state PARKED in this epoch; threads add and subtract. Futex word of the agent.
    pub parked: AtomicU32,
    /// Commands done; threads add. Futex word of the agent.
    pub acks: AtomicU32,
    /// Twins live while this is 0; the agent sets it to the epoch whose twins may go. Futex word (not private).
    pub twins_gone: AtomicU32,
    /// Ranks announced so far (entries of `ranks` used); library constructors add. Futex word of the agent.
    pub ranks_len: AtomicU32,
    /// `parked → captured` of the current epoch, see [`captured`]; compare-and-swap by agent and guardian.
    pub capture: AtomicU32,
    _reserved: [u32; 5],
    /// Pids (as seen by the process itself) of MPI ranks, announced by the library's constructor.
    pub ranks: [AtomicU32; RANKS],
    /// One per thread, by open addressing of the tid.
    pub slots: [Slot; SLOTS],
    /// Where moved programs find what they remember; agent writes.
    pub addresses: Addresses,
}

/// `Segment::capture`: who won, the agent that captures or the guardian that frees.
pub mod captured {
    /// Threads are being parked or are parked.
    pub const OPEN: u32 = 0;
    /// The agent has all that it must remember: the capture counts.
    pub const CAPTURED: u32 = 1;
    /// The guardian has freed the threads: a capture of this epoch is void.
    pub const VOID: u32 = 2;
}

/// One thread, on pages of its own, so that no two threads share a cache line and nobody's slot costs memory before it is used.
#[repr(C, align(4096))]
pub struct Slot {
    /// The tid as the thread itself sees it; 0 = free. Agent writes.
    pub tid: AtomicU32,
    /// See [`state`].
    pub state: AtomicU32,
    /// See [`command`]. Futex word of the thread.
    pub command: AtomicU32,
    /// The epoch that this slot was prepared for. Agent writes.
    pub epoch: AtomicU32,
    /// Arguments of `command`.
    pub argument: [AtomicU64; 2],
    /// Result of `command`.
    pub result: AtomicI64,
    /// What `/proc/PID/task/TID/syscall` said just before the signal. Agent writes while state is ASKED.
    pub hint: SyscallHint,
    /// Valid while PARKED. The thread writes.
    pub thread: ThreadState,
    /// Valid after `command::FACTS`. The thread writes.
    pub process: ProcessFacts,
    /// Number of valid entries in `pending_thread` and `pending_process`; over [`PENDING`] = too many.
    pub pending_len: [AtomicU32; 2],
    /// siginfo_t of the signals that wait for this thread.
    pub pending_thread: [[u64; 16]; PENDING],
    /// siginfo_t of the signals that wait for the process.
    pub pending_process: [[u64; 16]; PENDING],
}

/// A system call in which a thread is blocked, see proc_pid_syscall(5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyscallHint {
    /// 1 when the thread was in a call, 0 when it ran or nothing is known.
    pub valid: u64,
    /// Number of the call.
    pub number: u64,
    /// Its arguments (rdi, rsi, rdx, r10, r8, r9).
    pub arguments: [u64; 6],
    /// Stack pointer.
    pub sp: u64,
    /// Address after the `syscall` instruction.
    pub pc: u64,
}

/// What only the thread itself can tell, and where it is to go on after a restart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadState {
    /// Its process (getpid).
    pub pid: u32,
    /// Its tid (gettid).
    pub tid: u32,
    /// Where a restart jumps to, with rax = 1 and the seven registers below.
    pub rip: u64,
    /// Callee-saved registers at that place.
    pub rsp: u64,
    #[allow(missing_docs)]
    pub rbx: u64,
    #[allow(missing_docs)]
    pub rbp: u64,
    #[allow(missing_docs)]
    pub r12: u64,
    #[allow(missing_docs)]
    pub r13: u64,
    #[allow(missing_docs)]
    pub r14: u64,
    #[allow(missing_docs)]
    pub r15: u64,
    /// FS base (TLS) and GS base.
    pub fs_base: u64,
    #[allow(missing_docs)]
    pub gs_base: u64,
    /// Address of the ucontext_t in the signal frame.
    pub ucontext: u64,
    /// set_robust_list(2): head and length.
    pub robust_list: u64,
    #[allow(missing_docs)]
    pub robust_len: u64,
    /// PR_GET_TID_ADDRESS.
    pub clear_tid: u64,
    /// sigaltstack(2): ss_sp, ss_flags, ss_size.
    pub altstack: [u64; 3],
    /// rseq(2) registration: address, length, signature; address 0 = none known.
    pub rseq: u64,
    #[allow(missing_docs)]
    pub rseq_len: u32,
    #[allow(missing_docs)]
    pub rseq_signature: u32,
    /// prctl(PR_GET_PDEATHSIG), PR_GET_TIMERSLACK.
    pub pdeathsig: u32,
    #[allow(missing_docs)]
    pub _pad: u32,
    #[allow(missing_docs)]
    pub timerslack_ns: u64,
}

/// What only a thread of the process can tell.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Where this segment is mapped in the process.
    pub segment_address: u64,
    /// brk(0).
    pub brk: u64,
    /// rt_sigaction of signals 1..=64: handler, flags, restorer, mask.
    pub actions: [[u64; 4]; 64],
    /// getitimer of REAL, VIRTUAL, PROF: interval s, µs, value s, µs.
    pub itimers: [[u64; 4]; 3],
    /// PR_GET_CHILD_SUBREAPER, PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_GET_THP_DISABLE, PR_GET_NO_NEW_PRIVS, PR_GET_TSC.
    pub child_subreaper: u32,
    #[allow(missing_docs)]
    pub dumpable: u32,
    #[allow(missing_docs)]
    pub keepcaps: u32,
    #[allow(missing_docs)]
    pub thp_disable: u32,
    #[allow(missing_docs)]
    pub no_new_privs: u32,
    /// membarrier(MEMBARRIER_CMD_GET_REGISTRATIONS); 0 where the kernel cannot tell.
    pub membarrier: u32,
    /// arch_prctl(ARCH_GET_XCOMP_PERM).
    pub xcomp_permitted: u64,
    /// Number of posix timers in `timers`, over 16 = too many.
    pub timers_len: u64,
    /// timer_gettime of the first 16 posix timers, whose ids the agent put there first: id, interval s, ns, value s, ns.
    pub timers: [[u64; 5]; 16],
}

/// First place to look for the slot of `tid`.
pub const fn slot_index(tid: u32, probe: usize) -> usize {
    (tid as usize).wrapping_mul(0x9E37_79B1).wrapping_add(probe) & (SLOTS - 1)
}

const _: () = {
    assert!(SLOTS.is_power_of_two());
    assert!(size_of::<Slot>().is_multiple_of(4096));
    assert!(offset_of!(Segment, epoch) == 16);
    assert!(offset_of!(Segment, ranks) == 64);
    assert!(offset_of!(Segment, addresses) == offset_of!(Segment, slots) + SLOTS * size_of::<Slot>());
    assert!(offset_of!(Slot, hint) == 40);
    assert!(offset_of!(Slot, thread) == 40 + size_of::<SyscallHint>());
    assert!(size_of::<SyscallHint>() == 80);
};
