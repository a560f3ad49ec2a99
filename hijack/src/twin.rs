//! A copy-on-write twin: a copy of the process as it is now, which does nothing but wait until it has been read.
//!
//! ```text
//! parked thread ──clone(VM|VFORK)──▶ mid ──clone(0)──▶ twin        the copying, and with it the stall, is here
//!       │◀── wait4(mid, __WCLONE) ─── exit
//! ```
//!
//! The one between makes the twin an orphan at once, so that the program never has a child that it did not make: the twin
//! goes to the nearest subreaper. Neither has an exit signal. The one between shares this stack and therefore runs in
//! registers only.
#![allow(unsafe_code)] // clone in assembler

use core::arch::naked_asm;
use core::sync::atomic::Ordering;

use hijack_abi::Segment;

use crate::call;

const PR_SET_PDEATHSIG: usize = 1;
const SIGKILL: usize = 9;
const OOM_SCORE: &[u8] = b"/proc/self/oom_score_adj\0";

/// Makes a twin that lives until `segment.twins_gone` reaches `epoch`: its pid, or a negative errno.
pub fn make(segment: &'static Segment, epoch: u32) -> i64 {
    let mut twin = -11_i64; // EAGAIN, should the one between die before it can say
    // SAFETY: all other threads of the process are parked; `twin` outlives the call, which returns once the one between
    // is gone; `live` never returns.
    let between = unsafe { clone_twice(&raw mut twin, segment, epoch) };
    match u32::try_from(between) {
        Ok(between) => call::reap_clone(between),
        Err(_) => return between,
    }
    // SAFETY: another process has written it, with our memory for its own.
    unsafe { (&raw const twin).read_volatile() }
}

/// The pid of the one between, or a negative errno; `*twin` is the twin's.
#[unsafe(naked)]
unsafe extern "C" fn clone_twice(twin: *mut i64, segment: &'static Segment, epoch: u32) -> i64 {
    naked_asm!(
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rbx",
        "mov r12, rdi",
        "mov r13, rsi",
        "mov r14d, edx",
        "mov edi, 0x4100", // CLONE_VM | CLONE_VFORK
        "xor esi, esi",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, 56", // clone
        "syscall",
        "test rax, rax",
        "jnz 3f",
        // The one between, on its parent's stack.
        "mov eax, 39", // getpid
        "syscall",
        "mov r15, rax",
        "xor edi, edi",
        "xor esi, esi",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, 56",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "mov [r12], rax",
        "xor edi, edi",
        "mov eax, 60", // exit
        "syscall",
        "ud2",
        "2:",
        "mov rdi, r13",
        "mov esi, r14d",
        "mov edx, r15d",
        "call {live}",
        "ud2",
        "3:",
        "pop rbx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "ret",
        live = sym live,
    )
}

/// All of the twin's life.
unsafe extern "C" fn live(segment: &'static Segment, epoch: u32, between: u32) -> ! {
    // Where memory gets tight the twin goes first, and the checkpoint with it, not the job.
    if let Ok(file) = usize::try_from(call::open(OOM_SCORE)) {
        call::write(file, b"1000");
    }
    // Pipes and sockets would stay open for as long as we live.
    call::close_all();
    while call::getppid() == between {
        call::sched_yield();
    }
    // The parent is the job's subreaper by now: without it nobody would ever end this process.
    call::set_prctl(PR_SET_PDEATHSIG, SIGKILL);
    loop {
        let gone = segment.twins_gone.load(Ordering::Acquire);
        if gone >= epoch {
            call::exit_group(0);
        }
        call::futex_wait(&segment.twins_gone, gone);
    }
}
