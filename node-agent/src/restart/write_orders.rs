//! Model → orders.
#![allow(unsafe_code)] // writes plain data to addresses

use hijack_abi::orders::{CPU_WORDS, Mapping, MmMap, ORDERS_MAGIC, Orders, STACK_BYTES, Span, Thread, Timer, advice};
use nix::sys::resource::getrlimit;
use node_agent_image::model::{Backing, PosixTimer, Process, Vma};

use super::builder::Inheritance;

/// Where things are in the process that restores itself.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub region: [u64; 2],
    pub orders: u64,
    /// The first stack; those of the threads follow in their order.
    pub leader_stack: u64,
    pub entry: u64,
}

/// Bytes of the orders of a process with their arrays.
pub fn bytes(process: &Process) -> u64 {
    let pending = process.pending.len() + process.threads.iter().map(|it| it.pending.len()).sum::<usize>();
    // One mapping more: the control segment.
    let arrays = (process.memory.vmas.len() + 1) * size_of::<Mapping>()
        + process.threads.len() * size_of::<Thread>()
        + process.timers.len() * size_of::<Timer>()
        + pending * size_of::<[u64; 16]>()
        + process.memory.auxv.len() * size_of::<u64>();
    (size_of::<Orders>() + arrays) as u64
}

/// MAP_* of a VMA, without FIXED and ANONYMOUS.
pub fn map_flags(vma: &Vma) -> i32 {
    let has = |flag: &str| vma.flags.iter().any(|it| it == flag);
    let mut flags = if vma.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    if has("gd") || vma.backing == Backing::Stack {
        flags |= libc::MAP_GROWSDOWN;
    }
    if has("nr") {
        flags |= libc::MAP_NORESERVE;
    }
    if has("ht") {
        flags |= libc::MAP_HUGETLB;
    }
    flags
}

/// Bits of [`advice`].
pub fn advice_bits(vma: &Vma) -> u32 {
    const BITS: [(&str, u32); 7] = [
        ("lo", advice::LOCK),
        ("dc", advice::DONTFORK),
        ("dd", advice::DONTDUMP),
        ("wf", advice::WIPEONFORK),
        ("hg", advice::HUGEPAGE),
        ("nh", advice::NOHUGEPAGE),
        ("mg", advice::MERGEABLE),
    ];
    BITS.iter().filter(|(name, _)| vma.flags.iter().any(|it| it == name)).map(|it| it.1).sum()
}

/// Writes arrays one after the other behind the head.
struct Writer {
    base: u64,
    at: u64,
}

impl Writer {
    /// # Safety
    /// The memory up to what `bytes` said is this process's alone.
    unsafe fn put<T: Copy>(&mut self, items: &[T]) -> Span {
        let span = Span { offset: (self.at - self.base) as u32, len: items.len() as u32 };
        // SAFETY: all element types have a size that is a multiple of 8, so the place is aligned; `bytes` counted them.
        unsafe { std::ptr::copy_nonoverlapping(items.as_ptr(), self.at as *mut T, items.len()) };
        self.at += size_of_val(items) as u64;
        span
    }
}

/// Writes the orders of `process`.
///
/// # Safety
/// `addresses.orders` is mapped, zero-filled, page-aligned, at least [`bytes`] long, and only this process writes there.
pub unsafe fn write(
    addresses: Addresses,
    inheritance: &Inheritance<'_>,
    process: &Process,
    mappings: &[Mapping],
    exe: i32,
) {
    let mut writer = Writer { base: addresses.orders, at: addresses.orders + size_of::<Orders>() as u64 };
    // SAFETY: as this function's caller vouches.
    let (mappings, timers, pending, auxv, threads) = unsafe {
        let mappings = writer.put(mappings);
        let timers: Vec<Timer> = process.timers.iter().map(timer).collect();
        let timers = writer.put(&timers);
        let pending = writer.put(&process.pending);
        let auxv = writer.put(&process.memory.auxv);
        let mut threads = Vec::with_capacity(process.threads.len());
        for (index, thread) in process.threads.iter().enumerate() {
            let pending = writer.put(&thread.pending);
            let stack = addresses.leader_stack + STACK_BYTES * (index as u64 + 1);
            threads.push(thread_orders(thread, pending, stack));
        }
        (mappings, timers, pending, auxv, writer.put(&threads))
    };
    // SAFETY: as above; the head is zero-filled, which is a valid value of every field.
    let orders = unsafe { &mut *(addresses.orders as *mut Orders) };
    (orders.mappings, orders.timers, orders.pending, orders.auxv, orders.threads) =
        (mappings, timers, pending, auxv, threads);
    orders.magic = ORDERS_MAGIC;
    orders.version = hijack_abi::VERSION;
    orders.pid = process.pid;
    orders.region = addresses.region;
    orders.vdso = process.memory.vmas.iter().find(|it| matches!(it.backing, Backing::Vdso(_))).map_or(0, |it| it.start);
    orders.old_rseq = super::sys::own_rseq();
    orders.close_from = inheritance.base as u32;
    orders.umask = process.umask;
    orders.mm = MmMap {
        fields: process.memory.mm,
        auxv: addresses.orders + u64::from(auxv.offset),
        auxv_bytes: auxv.len * size_of::<u64>() as u32,
        exe: exe as u32,
    };
    for (place, action) in orders.actions.iter_mut().zip(&process.actions) {
        *place = *action;
    }
    orders.itimers = process.itimers;
    orders.rlimits = limits(process);
    orders.prctls = prctls(process);
    orders.membarrier = process.membarrier;
    orders.leader_gone = process.threads.first().is_none_or(|it| it.tid != process.pid).into();
    orders.keep_capabilities = (inheritance.plan.model.machine.uid == 0).into();
    orders.xcomp_permitted = process.xcomp_permitted;
}

/// Saved limits; a hard limit that is lower here stays, since only root could raise it.
fn limits(process: &Process) -> [[u64; 2]; 16] {
    use nix::sys::resource::Resource as R;
    const ALL: [R; 16] = [
        R::RLIMIT_CPU,
        R::RLIMIT_FSIZE,
        R::RLIMIT_DATA,
        R::RLIMIT_STACK,
        R::RLIMIT_CORE,
        R::RLIMIT_RSS,
        R::RLIMIT_NPROC,
        R::RLIMIT_NOFILE,
        R::RLIMIT_MEMLOCK,
        R::RLIMIT_AS,
        R::RLIMIT_LOCKS,
        R::RLIMIT_SIGPENDING,
        R::RLIMIT_MSGQUEUE,
        R::RLIMIT_NICE,
        R::RLIMIT_RTPRIO,
        R::RLIMIT_RTTIME,
    ];
    let mut limits = [[u64::MAX; 2]; 16];
    for (number, place) in limits.iter_mut().enumerate() {
        let (soft, hard) = getrlimit(ALL[number]).unwrap_or((u64::MAX, u64::MAX));
        let (old_soft, old_hard) = process.rlimits.get(number).copied().unwrap_or((soft, hard));
        *place = [old_soft.min(hard), old_hard.min(hard)];
    }
    limits
}

fn prctls(process: &Process) -> [[u64; 2]; 6] {
    const PR_SET_DUMPABLE: u64 = 4;
    const PR_SET_KEEPCAPS: u64 = 8;
    const PR_SET_CHILD_SUBREAPER: u64 = 36;
    const PR_SET_NO_NEW_PRIVS: u64 = 38;
    const PR_SET_THP_DISABLE: u64 = 41;
    let when = |wanted: bool, number: u64, value: u64| if wanted { [number, value] } else { [0, 0] };
    [
        when(process.dumpable < 2, PR_SET_DUMPABLE, process.dumpable.into()),
        when(process.keepcaps, PR_SET_KEEPCAPS, 1),
        [PR_SET_CHILD_SUBREAPER, process.child_subreaper.into()],
        when(process.no_new_privs, PR_SET_NO_NEW_PRIVS, 1),
        [PR_SET_THP_DISABLE, process.thp_disable.into()],
        [0, 0],
    ]
}

fn timer(timer: &PosixTimer) -> Timer {
    Timer {
        id: timer.id,
        clock: timer.clock,
        notify: timer.notify,
        signal: timer.signal,
        value: timer.value,
        tid: timer.tid,
        _pad: 0,
        setting: timer.setting,
    }
}

fn thread_orders(thread: &node_agent_image::model::Thread, pending: Span, stack: u64) -> Thread {
    let mut affinity = [0u64; CPU_WORDS];
    for cpu in thread.affinity.iter().map(|it| *it as usize).filter(|it| *it < CPU_WORDS * 64) {
        affinity[cpu / 64] |= 1 << (cpu % 64);
    }
    let mut comm = [0u8; 16];
    for (place, byte) in comm.iter_mut().take(15).zip(thread.comm.bytes()) {
        *place = byte;
    }
    let (rseq, rseq_len, rseq_signature) = thread.rseq;
    Thread {
        tid: thread.tid,
        affinity_words: if thread.affinity.is_empty() { 0 } else { CPU_WORDS as u32 },
        affinity,
        rip: thread.rip,
        registers: thread.registers,
        fs_base: thread.fs_base,
        gs_base: thread.gs_base,
        robust_list: [thread.robust_list.0, thread.robust_list.1],
        clear_tid: thread.clear_tid,
        altstack: thread.altstack,
        rseq,
        rseq_len,
        rseq_signature,
        pdeathsig: thread.pdeathsig,
        policy: thread.policy,
        priority: thread.priority,
        nice: thread.nice,
        timerslack_ns: thread.timerslack_ns,
        comm,
        pending,
        stack,
    }
}
