//! What a restarting process tells the restorer, and what the restorer tells the agent.
//!
//! [`Orders`] lies at a page boundary of memory that the process shares with the agent, followed by the arrays that its
//! [`Span`]s name. The process writes all of it before it jumps; then the restorer writes `stage` and `failure`, the
//! agent writes `go`. Plain data: every address is one of the restarting process.

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

/// First eight bytes of orders: "slkorder" read as a little-endian number.
pub const ORDERS_MAGIC: u64 = u64::from_le_bytes(*b"slkorder");
/// Bytes of stack that each thread has until it jumps.
pub const STACK_BYTES: u64 = 16 * 1024;
/// Words of a CPU mask: 1024 CPUs.
pub const CPU_WORDS: usize = 16;

/// `Orders::stage`, in this order.
pub mod stage {
    /// Still in ordinary code.
    pub const NONE: u32 = 0;
    /// In the restorer.
    pub const STARTED: u32 = 1;
    /// Every mapping is in its place, without contents; waits for `go`.
    pub const MAPPED: u32 = 2;
    /// Process state is back, threads are being made.
    pub const THREADS: u32 = 3;
    /// The leader jumps.
    pub const LEFT: u32 = 4;
    /// Nothing more will come; see `failed_step`.
    pub const FAILED: u32 = 5;
}

/// `Orders::go`.
pub mod go {
    /// Wait.
    pub const WAIT: u32 = 0;
    /// The contents are there.
    pub const FILLED: u32 = 1;
}

/// What the restorer was doing, for `Orders::failed_step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // `name` says it
pub enum Step {
    Orders = 1,
    Rseq,
    Unmap,
    Vdso,
    Map,
    Attach,
    MmMap,
    Advice,
    Umask,
    Prctl,
    Membarrier,
    Xcomp,
    Sigaction,
    Itimer,
    Timer,
    Rlimit,
    Pending,
    Close,
    Thread,
    ThreadState,
    Capabilities,
}

/// All steps with their names.
const STEPS: [(Step, &str); 21] = [
    (Step::Orders, "read its orders"),
    (Step::Rseq, "unregister the old rseq area"),
    (Step::Unmap, "unmap the old address space"),
    (Step::Vdso, "map the vDSO"),
    (Step::Map, "map memory"),
    (Step::Attach, "attach System V shared memory"),
    (Step::MmMap, "set brk, stack, arguments and exe (PR_SET_MM_MAP)"),
    (Step::Advice, "advise or lock memory"),
    (Step::Umask, "set the umask"),
    (Step::Prctl, "set a process attribute (prctl)"),
    (Step::Membarrier, "register for membarrier"),
    (Step::Xcomp, "ask for extended CPU state"),
    (Step::Sigaction, "set a signal's action"),
    (Step::Itimer, "set an interval timer"),
    (Step::Timer, "make a POSIX timer"),
    (Step::Rlimit, "set a resource limit"),
    (Step::Pending, "queue a pending signal"),
    (Step::Close, "close the restart's own descriptors"),
    (Step::Thread, "make a thread with its old id"),
    (Step::ThreadState, "set a thread's attributes"),
    (Step::Capabilities, "give its capabilities up"),
];

impl Step {
    /// The deed as words that follow "cannot"; a number of another version gives a general phrase.
    pub fn name(number: u32) -> &'static str {
        STEPS.iter().find(|(step, _)| *step as u32 == number).map_or("do a step of another version", |(_, name)| name)
    }
}

/// An array: where it begins, in bytes from the head of [`Orders`], and how many elements it has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    #[allow(missing_docs)]
    pub offset: u32,
    #[allow(missing_docs)]
    pub len: u32,
}

/// Advice bits of [`Mapping`], applied after the contents are there.
pub mod advice {
    /// mlock.
    pub const LOCK: u32 = 1;
    /// MADV_DONTFORK.
    pub const DONTFORK: u32 = 2;
    /// MADV_DONTDUMP.
    pub const DONTDUMP: u32 = 4;
    /// MADV_WIPEONFORK.
    pub const WIPEONFORK: u32 = 8;
    /// MADV_HUGEPAGE.
    pub const HUGEPAGE: u32 = 16;
    /// MADV_NOHUGEPAGE.
    pub const NOHUGEPAGE: u32 = 32;
    /// MADV_MERGEABLE.
    pub const MERGEABLE: u32 = 64;
}

/// One mmap or shmat.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    #[allow(missing_docs)]
    pub start: u64,
    #[allow(missing_docs)]
    pub end: u64,
    /// Offset in the file.
    pub offset: u64,
    /// PROT_*, final.
    pub protection: u32,
    /// MAP_*; MAP_FIXED_NOREPLACE is added.
    pub flags: u32,
    /// Descriptor, or -1.
    pub descriptor: i32,
    /// A System V id when `attach` is 1.
    pub shm: i32,
    /// 1: shmat of `shm` in place of mmap.
    pub attach: u32,
    /// See [`advice`].
    pub advice: u32,
}

/// struct prctl_mm_map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmMap {
    /// start_code … env_end.
    pub fields: [u64; 11],
    /// Address of the auxiliary vector.
    pub auxv: u64,
    /// Its bytes.
    pub auxv_bytes: u32,
    /// Descriptor of the executable.
    pub exe: u32,
}

/// A POSIX timer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    #[allow(missing_docs)]
    pub id: i32,
    #[allow(missing_docs)]
    pub clock: i32,
    /// SIGEV_*.
    pub notify: i32,
    #[allow(missing_docs)]
    pub signal: i32,
    #[allow(missing_docs)]
    pub value: u64,
    /// For SIGEV_THREAD_ID.
    pub tid: u32,
    #[allow(missing_docs)]
    pub _pad: u32,
    /// Interval s, ns, value s, ns.
    pub setting: [u64; 4],
}

/// A thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    #[allow(missing_docs)]
    pub tid: u32,
    /// Words of `affinity`; 0 = leave it.
    pub affinity_words: u32,
    #[allow(missing_docs)]
    pub affinity: [u64; CPU_WORDS],
    /// Where to jump, with rax = 1.
    pub rip: u64,
    /// rsp, rbx, rbp, r12, r13, r14, r15.
    pub registers: [u64; 7],
    #[allow(missing_docs)]
    pub fs_base: u64,
    #[allow(missing_docs)]
    pub gs_base: u64,
    /// Address and length.
    pub robust_list: [u64; 2],
    #[allow(missing_docs)]
    pub clear_tid: u64,
    /// struct sigaltstack: ss_sp, ss_flags, ss_size.
    pub altstack: [u64; 3],
    /// Address (0 = none).
    pub rseq: u64,
    #[allow(missing_docs)]
    pub rseq_len: u32,
    #[allow(missing_docs)]
    pub rseq_signature: u32,
    #[allow(missing_docs)]
    pub pdeathsig: u32,
    #[allow(missing_docs)]
    pub policy: i32,
    #[allow(missing_docs)]
    pub priority: i32,
    #[allow(missing_docs)]
    pub nice: i32,
    #[allow(missing_docs)]
    pub timerslack_ns: u64,
    #[allow(missing_docs)]
    pub comm: [u8; 16],
    /// siginfo_t each.
    pub pending: Span,
    /// Lowest address of its stack until it jumps.
    pub stack: u64,
}

/// All that one process must become.
#[repr(C)]
pub struct Orders {
    /// [`ORDERS_MAGIC`].
    pub magic: u64,
    /// [`crate::VERSION`].
    pub version: u32,
    /// See [`stage`]; futex word of the agent.
    pub stage: AtomicU32,
    /// See [`go`]; futex word of the restorer, written by the agent.
    pub go: AtomicU32,
    /// A [`Step`]; valid when the stage is FAILED.
    pub failed_step: AtomicU32,
    /// errno of it.
    pub failed_errno: AtomicI32,
    /// The process.
    pub pid: u32,
    /// What the step was about: an address, a signal, a tid, a limit, a prctl.
    pub failed_argument: AtomicU64,
    /// The restorer, its orders and its stacks: all else is unmapped.
    pub region: [u64; 2],
    /// Where the first of `[vvar]`, `[vvar_vclock]`, `[vdso]` was; 0 = none.
    pub vdso: u64,
    /// rseq area of the process that jumps (address, length, signature); address 0 = none.
    pub old_rseq: [u64; 3],
    /// Descriptors from here on are the restart's own.
    pub close_from: u32,
    #[allow(missing_docs)]
    pub umask: u32,
    /// brk, stack, arguments, exe.
    pub mm: MmMap,
    /// rt_sigaction of signals 1..=64: handler, flags, restorer, mask.
    pub actions: [[u64; 4]; 64],
    /// REAL, VIRTUAL, PROF: interval s, µs, value s, µs.
    pub itimers: [[u64; 4]; 3],
    /// Soft and hard limits, already cut to what may be set.
    pub rlimits: [[u64; 2]; 16],
    /// prctl number and value, in this order.
    pub prctls: [[u64; 2]; 6],
    /// Registrations.
    pub membarrier: u32,
    /// 1: the leader had ended before its threads.
    pub leader_gone: u32,
    /// 1: it ran with capabilities (root): keep them.
    pub keep_capabilities: u32,
    #[allow(missing_docs)]
    pub _pad: u32,
    #[allow(missing_docs)]
    pub xcomp_permitted: u64,
    /// [`Mapping`]s in ascending order.
    pub mappings: Span,
    /// [`Thread`]s, the leader first (unless it is gone).
    pub threads: Span,
    /// [`Timer`]s.
    pub timers: Span,
    /// siginfo_t of signals that wait for the process.
    pub pending: Span,
    /// Auxiliary vector (u64).
    pub auxv: Span,
}

const _: () = {
    assert!(size_of::<MmMap>() == 104);
    assert!(size_of::<Mapping>() == 48);
    assert!(offset_of!(Orders, stage) == 12);
    assert!(offset_of!(Thread, registers) == 144);
    assert!(
        size_of::<Orders>().is_multiple_of(8)
            && size_of::<Thread>().is_multiple_of(8)
            && size_of::<Timer>().is_multiple_of(8)
    );
};
