//! A call with a time-out that was interrupted: made again for what is left of the time, in place of the program's code, on
//! its stack.
//!
//! The kernel does not say how long the call has waited, so the first interruption gives it all of its time once more. But
//! from then on it is here that the thread waits, with the end of its time beside it, so a call ends at the latest after
//! twice its time, however often it is interrupted. Neither can calls be told apart that come from one place in the
//! program: without this one that waits for a minute, in a job with a checkpoint in each, would wait for ever.
#![allow(unsafe_code)] // a thread's own stack and its arguments, assembler

use core::arch::naked_asm;
use core::sync::atomic::{Ordering, compiler_fence};

use super::{Context, FUTEX, NANOSLEEP, SYSCALL_BYTES, TIMER_ABSTIME, free_below};
use crate::call;

const POLL: u64 = 7;
const RT_SIGTIMEDWAIT: u64 = 128;
const SEMTIMEDOP: u64 = 220;
const CLOCK_NANOSLEEP: u64 = super::CLOCK_NANOSLEEP;
const EPOLL_WAIT: u64 = 232;
const EPOLL_PWAIT: u64 = 281;
const EPOLL_PWAIT2: u64 = 441;
/// read, readv, accept, recvfrom, recvmsg, accept4: interrupted only where their socket has SO_RCVTIMEO.
const RECEIVING: [u64; 6] = [0, 19, 43, 45, 47, 288];
/// write, writev, sendto, sendmsg: the same with SO_SNDTIMEO.
const SENDING: [u64; 4] = [1, 20, 44, 46];
const SO_RCVTIMEO: usize = 20;
const SO_SNDTIMEO: usize = 21;
const EAGAIN: u64 = -11_i64 as u64;
const FUTEX_COMMAND: u64 = 0x7f;
const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// Where a call has its time-out.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Place {
    /// Milliseconds.
    Rdx,
    R10,
    /// The address of a timespec.
    AtRdi,
    AtRdx,
    AtR10,
    /// With its socket: the call itself is not changed, but not made again when the time is over.
    Socket,
}

/// What [`wait`] finds on top of the stack.
#[repr(C)]
struct Wait {
    number: u64,
    /// Nanoseconds of CLOCK_MONOTONIC.
    end: u64,
    rdi: u64,
    rdx: u64,
    rip: u64,
    rsp: u64,
    r10: u64,
    place: Place,
    /// A timespec: what is left.
    left: [u64; 2],
}

/// Lets a call that is about to be made again wait no longer than its time-out, from now.
///
/// # Safety
/// `context` is a live frame before system call `number`, with its arguments.
pub unsafe fn wait_for_the_rest(context: &mut Context, number: u64) {
    let Some(place) = place(context, number) else { return };
    // SAFETY: the kernel has just read it.
    let Some(time) = (unsafe { time_out(context, number, place) }) else { return };
    let Some(top) = free_below(context) else { return };
    let top = (top - size_of::<Wait>() as u64) & !15;
    let Context { rdi, rdx, rip, rsp, r10, .. } = *context;
    let end = call::monotonic_ns().saturating_add(time);
    let rip = rip + SYSCALL_BYTES;
    // SAFETY: on the thread's own stack, below what its code and this handler use there.
    let wait = unsafe {
        (top as *mut Wait).write(Wait { number, end, rdi, rdx, rip, rsp, r10, place, left: [0; 2] });
        &mut *(top as *mut Wait)
    };
    context.rsp = top;
    context.rip = self::wait as *const () as u64;
    set_time_out(context, wait, time);
}

/// Makes the call of [`wait`] again, when it was that which was interrupted.
///
/// # Safety
/// `context` is the frame of this handler.
pub unsafe fn call_again(context: &mut Context) -> bool {
    if context.rip != wait as *const () as u64 + WAIT_AFTER_CALL {
        return false;
    }
    // SAFETY: `wait` has it on top of its stack.
    let wait = unsafe { &mut *(context.rsp as *mut Wait) };
    let left = wait.end.saturating_sub(call::monotonic_ns());
    if wait.place == Place::Socket && left == 0 {
        context.rax = EAGAIN;
        return true;
    }
    context.rip -= SYSCALL_BYTES;
    context.rax = wait.number;
    set_time_out(context, wait, left);
    true
}

fn place(context: &Context, number: u64) -> Option<Place> {
    Some(match number {
        POLL if (context.rdx as i32) > 0 => Place::Rdx,
        EPOLL_WAIT | EPOLL_PWAIT if (context.r10 as i32) > 0 => Place::R10,
        NANOSLEEP => Place::AtRdi,
        CLOCK_NANOSLEEP if context.rsi & TIMER_ABSTIME == 0 && is_wall_clock(context.rdi) => Place::AtRdx,
        RT_SIGTIMEDWAIT if context.rdx != 0 => Place::AtRdx,
        FUTEX if context.rsi & FUTEX_COMMAND == 0 && context.r10 != 0 => Place::AtR10,
        SEMTIMEDOP | EPOLL_PWAIT2 if context.r10 != 0 => Place::AtR10,
        _ if RECEIVING.contains(&number) || SENDING.contains(&number) => Place::Socket,
        _ => return None,
    })
}

/// CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME: as long as each other.
fn is_wall_clock(clock: u64) -> bool {
    matches!(clock as u32, 0 | 1 | 7)
}

/// Nanoseconds.
///
/// # Safety
/// The time-out's address is one that the kernel has just read.
unsafe fn time_out(context: &Context, number: u64, place: Place) -> Option<u64> {
    let milliseconds = |count: u64| count as u32 as u64 * MILLISECOND;
    let at = |address: u64| {
        // SAFETY: the caller's.
        let [seconds, nanoseconds] = unsafe { (address as *const [u64; 2]).read_unaligned() };
        seconds.saturating_mul(SECOND).saturating_add(nanoseconds)
    };
    Some(match place {
        Place::Rdx => milliseconds(context.rdx),
        Place::R10 => milliseconds(context.r10),
        Place::AtRdi => at(context.rdi),
        Place::AtRdx => at(context.rdx),
        Place::AtR10 => at(context.r10),
        Place::Socket => {
            let option = if SENDING.contains(&number) { SO_SNDTIMEO } else { SO_RCVTIMEO };
            let [seconds, microseconds] = call::socket_time_out(context.rdi as usize, option)?;
            seconds.saturating_mul(SECOND).saturating_add(microseconds * 1000)
        }
    })
}

fn set_time_out(context: &mut Context, wait: &mut Wait, left: u64) {
    wait.left = [left / SECOND, left % SECOND];
    // The kernel reads it when this handler has returned.
    compiler_fence(Ordering::SeqCst);
    let at = (&raw const wait.left) as u64;
    let milliseconds = left.div_ceil(MILLISECOND);
    match wait.place {
        Place::Rdx => context.rdx = milliseconds,
        Place::R10 => context.r10 = milliseconds,
        Place::AtRdi => context.rdi = at,
        Place::AtRdx => context.rdx = at,
        Place::AtR10 => context.r10 = at,
        Place::Socket => {}
    }
}

/// Offset of the place behind the `syscall` instruction in [`wait`]: `mov rax, [rsp]` has 4 bytes, `syscall` 2.
const WAIT_AFTER_CALL: u64 = 6;

/// The call. Only registers that a system call changes anyway are changed. Unwinders find the way past it (a thread that is
/// cancelled here, an exception of its handler's): the caller's rsp and rip are at rsp + 40 and rsp + 32.
#[unsafe(naked)]
extern "C" fn wait() {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_escape 0x0f, 0x03, 0x77, 0x28, 0x06", // CFA = *(rsp + 40)
        ".cfi_escape 0x10, 0x10, 0x02, 0x77, 0x20", // rip at rsp + 32
        "mov rax, [rsp]",
        "syscall",
        "mov rdi, [rsp + 16]",
        "mov rdx, [rsp + 24]",
        "mov r10, [rsp + 48]",
        "mov rcx, [rsp + 32]",
        "mov rsp, [rsp + 40]",
        ".cfi_def_cfa rsp, 0",
        ".cfi_register rip, rcx",
        "jmp rcx",
        ".cfi_endproc",
    )
}
