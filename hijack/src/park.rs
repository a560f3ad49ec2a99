//! The handler: a thread publishes where it is, waits on its slot, does what it is asked, and leaves when the gate opens.
//!
//! After a restart the thread comes to life behind the same wait. Nothing that it needs then may live in the stack frames
//! of this code: the process's twin, from which the image is read, goes on using the same stack. So the way back needs the
//! stack pointer, the address of the signal frame and this library's static memory, no more.
#![allow(unsafe_code)] // a signal handler: the kernel's frame, a way in and a way back in assembler

use core::arch::{global_asm, naked_asm};
use core::ptr;
use core::sync::atomic::Ordering;

use hijack_abi::{Segment, Slot, SyscallHint, ThreadState, command, state};

use crate::interrupted::{self, Context};
use crate::{call, commands, segment, signal};

const SI_TKILL: u32 = -6_i32 as u32;
const ARCH_GET_FS: usize = 0x1003;
const ARCH_GET_GS: usize = 0x1004;
const PR_GET_PDEATHSIG: usize = 2;
const PR_GET_TIMERSLACK: usize = 30;
const PR_GET_TID_ADDRESS: usize = 40;
/// What glibc registers: see rseq(2) in its manual; the kernel cannot be asked.
const RSEQ_SIGNATURE: u32 = 0x5305_3053;
const RSEQ_BYTES_MIN: u32 = 32;

/// What the kernel calls. `2:` is where a restarted thread comes to life: rsp as published, rbx = its ucontext.
#[unsafe(naked)]
pub extern "C" fn entry(signal: i32, information: *const u32, context: *mut u64) {
    naked_asm!(
        "push rbx",
        "mov rbx, rdx",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rsp",
        "lea rcx, [rip + 2f]",
        "call {arrive}",
        "pop rbx",
        "ret",
        "2:",
        "mov rdi, rbx",
        "call {come_back}",
        "pop rbx",
        "ret",
        arrive = sym arrive,
        come_back = sym come_back,
    )
}

/// In the handler of a live thread. `stack` and `way_back` are where a restart resumes it.
unsafe extern "C" fn arrive(information: *const u32, context: *mut Context, stack: u64, way_back: u64) {
    // SAFETY: a siginfo_t of the kernel: signal, errno, code, then the sender's pid.
    let (code, sender) = unsafe { (information.add(2).read(), information.add(4).read()) };
    if code == SI_TKILL && sender == call::getpid() {
        // SAFETY: the handler's own arguments.
        unsafe { signal::chain(information, context.cast()) };
        return;
    }
    // SAFETY: the handler's own arguments.
    if !unsafe { park(context, stack, way_back) } {
        // Nobody waits for us, but a call was interrupted all the same. What the agent knew of it may be of another signal.
        // SAFETY: the kernel's frame of this handler, alive until it returns.
        unsafe { interrupted::note(&mut *context, &SyscallHint::default()) };
    }
    // SAFETY: the same frame.
    unsafe { interrupted::repair(&mut *context) };
}

/// Parks, if that is what the signal is for. A signal that comes late finds the gate open, or a slot that was not prepared
/// for it: an attempt to park the job may have been given up meanwhile.
///
/// # Safety
/// As in `arrive`.
unsafe fn park(context: *mut Context, stack: u64, way_back: u64) -> bool {
    let Some(segment) = segment::get_or_map() else { return false };
    let epoch = segment.epoch.load(Ordering::Acquire);
    let tid = call::gettid();
    let Some(slot) = segment::slot(segment, tid) else { return false };
    let asked = slot.state.load(Ordering::Acquire) == state::ASKED && slot.epoch.load(Ordering::Acquire) == epoch;
    if !asked || segment.gate.load(Ordering::Acquire) >= epoch {
        return false;
    }
    signal::let_ignored_through();
    // SAFETY: while the slot's state is ASKED, `thread` is this thread's to write and nobody's to read.
    unsafe { publish(slot, tid, context, stack, way_back) };
    // SAFETY: the kernel's frame of this handler, alive until it returns; the hint is the agent's, written before the
    // signal and not changed while the slot is ours.
    unsafe { interrupted::note(&mut *context, &(&raw const slot.hint).read_volatile()) };
    stay(segment, slot, epoch);
    true
}

/// In the same handler after a restart: the segment is a new one at the old address, with a slot prepared for us.
unsafe extern "C" fn come_back(context: *mut Context) {
    let Some(segment) = segment::get() else { return };
    let epoch = segment.epoch.load(Ordering::Acquire);
    let Some(slot) = segment::slot(segment, call::gettid()) else { return };
    stay(segment, slot, epoch);
    // SAFETY: the frame is as it was in the last life, when it was noted what had been interrupted.
    unsafe { interrupted::repair(&mut *context) };
}

/// Counts in, waits, counts out.
fn stay(segment: &'static Segment, slot: &'static Slot, epoch: u32) {
    slot.state.store(state::PARKED, Ordering::Release);
    segment.parked.fetch_add(1, Ordering::AcqRel);
    call::futex_wake(&slot.state);
    call::futex_wake(&segment.parked);
    loop {
        let asked = slot.command.load(Ordering::Acquire);
        if asked == command::RESUME || segment.gate.load(Ordering::Acquire) >= epoch {
            break;
        }
        if asked == command::NONE {
            call::futex_wait(&slot.command, command::NONE);
            continue;
        }
        let result = commands::obey(segment, slot, asked, epoch);
        slot.result.store(result, Ordering::Relaxed);
        // Unless it says RESUME by now.
        let _ = slot.command.compare_exchange(asked, command::NONE, Ordering::AcqRel, Ordering::Acquire);
        call::futex_wake(&slot.command);
        segment.acks.fetch_add(1, Ordering::AcqRel);
        call::futex_wake(&segment.acks);
    }
    segment.parked.fetch_sub(1, Ordering::AcqRel);
    slot.state.store(state::LEFT, Ordering::Release);
    call::futex_wake(&slot.state);
}

/// Writes what only the thread itself can tell.
///
/// # Safety
/// `slot.thread` is this thread's alone.
unsafe fn publish(slot: &Slot, tid: u32, context: *mut Context, stack: u64, way_back: u64) {
    let [robust_list, robust_len] = call::robust_list();
    let fs_base = call::arch_value(ARCH_GET_FS);
    let (rseq, rseq_len) = rseq(fs_base);
    let thread = ThreadState {
        pid: call::getpid(),
        tid,
        rip: way_back,
        rsp: stack,
        rbx: context as u64,
        fs_base,
        gs_base: call::arch_value(ARCH_GET_GS),
        ucontext: context as u64,
        robust_list,
        robust_len,
        clear_tid: call::prctl_value(PR_GET_TID_ADDRESS),
        altstack: call::alternate_stack(),
        rseq,
        rseq_len,
        rseq_signature: RSEQ_SIGNATURE,
        pdeathsig: call::prctl_value(PR_GET_PDEATHSIG) as u32,
        timerslack_ns: call::prctl_number(PR_GET_TIMERSLACK),
        ..ThreadState::default()
    };
    // SAFETY: as the caller vouches; aligned, in the shared mapping.
    unsafe { ptr::from_ref(&slot.thread).cast_mut().write_volatile(thread) };
}

// glibc's since 2.35. Weak: an older one has neither, and must load this library all the same.
global_asm!(".weak __rseq_offset", ".weak __rseq_size");

#[unsafe(naked)]
extern "C" fn rseq_offset() -> *const i64 {
    naked_asm!("mov rax, [rip + __rseq_offset@GOTPCREL]", "ret")
}

#[unsafe(naked)]
extern "C" fn rseq_size() -> *const u32 {
    naked_asm!("mov rax, [rip + __rseq_size@GOTPCREL]", "ret")
}

/// Address and length of this thread's rseq area; zeros where glibc has registered none.
fn rseq(fs_base: u64) -> (u64, u32) {
    // SAFETY: null, or libc's constants of these types.
    match unsafe { (rseq_offset().as_ref(), rseq_size().as_ref()) } {
        (Some(offset), Some(size)) if *size != 0 => (fs_base.wrapping_add_signed(*offset), (*size).max(RSEQ_BYTES_MIN)),
        _ => (0, 0),
    }
}
