//! Threads: made with their ids, given what is theirs, and sent back into the handler in which they were parked.

use core::arch::asm;

use hijack_abi::orders::{Orders, STACK_BYTES, Step, Thread};

use crate::call::{self, Failure, array, may, must};

const SYS_EXIT: usize = 60;
const SYS_SIGALTSTACK: usize = 131;
const SYS_SETPRIORITY: usize = 141;
const SYS_SCHED_SETSCHEDULER: usize = 144;
const SYS_PRCTL: usize = 157;
const SYS_ARCH_PRCTL: usize = 158;
const SYS_SCHED_SETAFFINITY: usize = 203;
const SYS_SET_TID_ADDRESS: usize = 218;
const SYS_SET_ROBUST_LIST: usize = 273;
const SYS_RT_TGSIGQUEUEINFO: usize = 297;
const SYS_RSEQ: usize = 334;
const SYS_CAPSET: usize = 126;
const SYS_CLONE3: usize = 435;
const ARCH_SET_GS: usize = 0x1001;
const ARCH_SET_FS: usize = 0x1002;
const PR_SET_PDEATHSIG: usize = 1;
const PR_SET_NAME: usize = 15;
const PR_SET_TIMERSLACK: usize = 29;
const SS_ONSTACK: u64 = 1;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS.
const THREAD_FLAGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000 | 0x8_0000;

/// struct clone_args up to set_tid_size.
#[repr(C)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

/// Makes all threads but the one that runs this.
pub fn make(orders: &'static Orders) -> Result<(), Failure> {
    let threads: &[Thread] = array(orders, orders.threads);
    let others = if orders.leader_gone == 0 { threads.get(1..).unwrap_or_default() } else { threads };
    for thread in others {
        let arguments = CloneArguments {
            flags: THREAD_FLAGS,
            pidfd: 0,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: 0,
            stack: thread.stack,
            stack_size: STACK_BYTES,
            tls: thread.fs_base,
            set_tid: &raw const thread.tid as u64,
            set_tid_size: 1,
        };
        let result = clone(&arguments, thread, orders);
        if result < 0 {
            return Err(Failure::new(Step::Thread, result, thread.tid.into()));
        }
    }
    Ok(())
}

fn clone(arguments: &CloneArguments, thread: &Thread, orders: &Orders) -> isize {
    let result: isize;
    // SAFETY: clone3 with a stack of the region's that nobody else has; the child never comes back from `enter`, whose
    // two arguments live as long as the region. The parent goes on behind the label with its registers as they were.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "mov rsi, r13",
            "call r14",
            "ud2",
            "2:",
            inlateout("rax") SYS_CLONE3 as isize => result,
            in("rdi") core::ptr::from_ref(arguments), in("rsi") size_of::<CloneArguments>(),
            in("r12") thread, in("r13") orders, in("r14") enter as *const () as usize,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// Where a new thread begins.
extern "C" fn enter(thread: &'static Thread, orders: &'static Orders) -> ! {
    if let Err(failure) = state(thread, orders) {
        call::fail(orders, failure);
        call::halt();
    }
    jump(thread)
}

/// The leader's own way back, or its end where it had ended before its threads.
pub fn leave_as_leader(orders: &'static Orders) -> Result<(), Failure> {
    let threads: &[Thread] = array(orders, orders.threads);
    match threads.first() {
        Some(leader) if orders.leader_gone == 0 => {
            must(
                Step::ThreadState,
                ARCH_SET_FS as u64,
                SYS_ARCH_PRCTL,
                [ARCH_SET_FS, leader.fs_base as usize, 0, 0, 0, 0],
            )?;
            state(leader, orders)?;
            jump(leader)
        }
        _ => {
            may(SYS_SET_TID_ADDRESS, [0; 6]);
            may(SYS_EXIT, [0; 6]);
            Ok(())
        }
    }
}

/// All that clone does not hand on.
fn state(thread: &Thread, orders: &'static Orders) -> Result<(), Failure> {
    let tid = u64::from(thread.tid);
    let set = |number: usize, arguments: [usize; 6]| must(Step::ThreadState, tid, number, arguments).map(drop);
    may(SYS_SET_TID_ADDRESS, [thread.clear_tid as usize, 0, 0, 0, 0, 0]);
    if thread.robust_list[1] != 0 {
        let [head, length] = thread.robust_list;
        set(SYS_SET_ROBUST_LIST, [head as usize, length as usize, 0, 0, 0, 0])?;
    }
    if thread.rseq != 0 {
        let (length, signature) = (thread.rseq_len as usize, thread.rseq_signature as usize);
        set(SYS_RSEQ, [thread.rseq as usize, length, 0, signature, 0, 0])?;
    }
    let mut altstack = thread.altstack;
    // The frame puts the flag back; nobody may set it.
    altstack[1] &= !SS_ONSTACK;
    set(SYS_SIGALTSTACK, [altstack.as_ptr() as usize, 0, 0, 0, 0, 0])?;
    set(SYS_PRCTL, [PR_SET_NAME, thread.comm.as_ptr() as usize, 0, 0, 0, 0])?;
    set(SYS_PRCTL, [PR_SET_TIMERSLACK, thread.timerslack_ns as usize, 0, 0, 0, 0])?;
    if thread.gs_base != 0 {
        set(SYS_ARCH_PRCTL, [ARCH_SET_GS, thread.gs_base as usize, 0, 0, 0, 0])?;
    }
    schedule(thread);
    for signal in array::<[u64; 16]>(orders, thread.pending) {
        let number = (signal[0] & 0xffff_ffff) as usize;
        let arguments = [orders.pid as usize, thread.tid as usize, number, signal.as_ptr() as usize, 0, 0];
        must(Step::Pending, number as u64, SYS_RT_TGSIGQUEUEINFO, arguments)?;
    }
    if orders.keep_capabilities == 0 {
        let head = [CAPABILITY_VERSION_3, 0];
        let none = [0u32; 6];
        let arguments = [head.as_ptr() as usize, none.as_ptr() as usize, 0, 0, 0, 0];
        must(Step::Capabilities, tid, SYS_CAPSET, arguments)?;
    }
    set(SYS_PRCTL, [PR_SET_PDEATHSIG, thread.pdeathsig as usize, 0, 0, 0, 0])
}

/// Policy, nice and CPUs as far as this node grants them: a node with fewer CPUs or rights still runs the job.
fn schedule(thread: &Thread) {
    const SCHED_OTHER: i32 = 0;
    if thread.policy != SCHED_OTHER {
        may(SYS_SCHED_SETSCHEDULER, [0, thread.policy as usize, &raw const thread.priority as usize, 0, 0, 0]);
    }
    may(SYS_SETPRIORITY, [0, 0, thread.nice as usize, 0, 0, 0]);
    if thread.affinity_words != 0 {
        let bytes = thread.affinity_words as usize * size_of::<u64>();
        may(SYS_SCHED_SETAFFINITY, [0, bytes, thread.affinity.as_ptr() as usize, 0, 0, 0]);
    }
}

fn jump(thread: &Thread) -> ! {
    // SAFETY: the registers are those that the handler saved together with this address, and the memory around them is
    // as it was then.
    unsafe {
        asm!(
            "mov rsp, [rdi]",
            "mov rbx, [rdi + 8]",
            "mov rbp, [rdi + 16]",
            "mov r12, [rdi + 24]",
            "mov r13, [rdi + 32]",
            "mov r14, [rdi + 40]",
            "mov r15, [rdi + 48]",
            "mov eax, 1",
            "jmp rsi",
            in("rdi") thread.registers.as_ptr(), in("rsi") thread.rip, options(noreturn)
        )
    }
}
