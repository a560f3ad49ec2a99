//! No EINTR and no short count reaches a program because of us.
//!
//! A signal ends most blocking calls with EINTR, whatever SA_RESTART says, and cuts a blocked write short. Both show in the
//! handler's frame: rip stands behind a `syscall` instruction, rax holds the result. EINTR: rip goes back to the
//! instruction and rax becomes the call's number again, or, where the call has a time-out, the frame is made to return into
//! [`again`], which waits for what is left of it. A short count: the frame is made to return into [`rest`], which transfers
//! the rest. Both then go on where the thread was.
//!
//! And every EINTR reaches a program that is its own due: when one of its handlers without SA_RESTART is to run as soon as
//! ours is through, a call that the kernel would restart for our handler is ended after all.
//!
//! Which call it was, the agent has read from /proc just before the signal. Where it came too early (the thread was still
//! running), the code tells: libc loads the number shortly before the instruction.
#![allow(unsafe_code)] // the frame of a signal, a register

use hijack_abi::SyscallHint;

use crate::call;

mod again;
mod code;
mod rest;
mod vectors;

const EINTR: u64 = -4_i64 as u64;
const NANOSLEEP: u64 = 35;
const FUTEX: u64 = 202;
const RESTART_SYSCALL: u64 = 219;
const CLOCK_NANOSLEEP: u64 = 230;
const TIMER_ABSTIME: u64 = 1;
const SA_RESTART: u64 = 0x1000_0000;
/// Bytes of a `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;
/// The kernel's frame of this handler, with the thread's vector registers, and the handler's own stack lie below the
/// thread's red zone and are in use until rt_sigreturn(2). What is put on the thread's stack goes below all of that, and as
/// far below this code's own stack pointer as what it still calls may reach.
const OWN_STACK: u64 = 2048;
/// What is put there takes so much at most: 64 buffers and what describes them.
const PUT_BYTES: u64 = 1280;
/// Below the stack pointer a leaf function may keep what it likes (System V ABI).
const RED_ZONE: u64 = 128;

/// ucontext_t up to its signal mask (arch/x86/include/uapi/asm/sigcontext.h).
#[repr(C)]
pub struct Context {
    flags_and_link: [u64; 2],
    /// The alternate stack, as sigaltstack(2) knows it: start, flags, bytes.
    alternate: [u64; 3],
    r8: u64,
    r9: u64,
    r10: u64,
    r11_to_r15: [u64; 5],
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    flags_to_fpstate: [u64; 7],
    /// The kernel's `reserved1`, which it neither sets nor reads: see [`note`].
    number: u64,
    noted: u64,
    reserved: [u64; 6],
    mask: u64,
}

const _: () = {
    assert!(core::mem::offset_of!(Context, rip) == 40 + 16 * 8);
    assert!(core::mem::offset_of!(Context, mask) == 296);
};

/// `Context::noted` when the call's number is known: "slkcall" and a zero, read as a little-endian number.
const NOTED: u64 = u64::from_le_bytes(*b"slkcall\0");
/// The same when the kernel is about to make the call again.
const REPEATED: u64 = u64::from_le_bytes(*b"slkagain");

/// Writes into the frame which call was interrupted, where the agent knew: so the next life knows it, too.
pub fn note(context: &mut Context, hint: &SyscallHint) {
    let arguments = [context.rdi, context.rsi, context.rdx, context.r10, context.r8, context.r9];
    let same = hint.valid == 1 && hint.sp == context.rsp && hint.arguments == arguments;
    (context.noted, context.number) = match hint.pc.wrapping_sub(context.rip) {
        0 if same => (NOTED, hint.number),
        SYSCALL_BYTES if same && context.rax == hint.number => (REPEATED, hint.number),
        _ => (0, 0),
    };
}

/// Makes the interrupted call whole, as the thread is about to leave the handler.
///
/// # Safety
/// `context` is the frame of this handler, and [`note`] has seen it.
pub unsafe fn repair(context: &mut Context) {
    if context.noted == REPEATED {
        if due_handler(context.mask).is_some_and(|flags| flags & SA_RESTART == 0) {
            context.rip += SYSCALL_BYTES;
            context.rax = EINTR;
        }
    } else if context.rax == EINTR {
        if due_handler(context.mask).is_none() {
            // SAFETY: the caller's.
            unsafe { call_again(context) };
        }
    } else if i64::try_from(context.rax).is_ok_and(|count| count > 0) {
        // SAFETY: the frame's registers are those of a call that has just returned, where a number is known.
        unsafe { rest::complete(context, number(context)) };
    }
}

/// # Safety
/// `context` is the frame of this handler.
unsafe fn call_again(context: &mut Context) {
    // SAFETY: as above; what the stubs find on the stack is their own.
    unsafe {
        if rest::call_again(context) || again::call_again(context) {
            return;
        }
        let Some(number) = number(context) else { return };
        context.rip -= SYSCALL_BYTES;
        context.rax = number;
        if !sleep_on(context, number) {
            again::wait_for_the_rest(context, number);
        }
    }
}

/// Which call has just returned, where that can be told.
///
/// # Safety
/// As [`call_again`].
unsafe fn number(context: &Context) -> Option<u64> {
    // Stopped and continued, a thread waits in another call than it has made; which, the kernel does not tell.
    match (context.noted == NOTED, context.number) {
        (true, RESTART_SYSCALL) => {
            // SAFETY: the agent has seen the thread in a call here.
            unsafe { code::number_before(context.rip) }.or_else(|| looks_like_futex(context).then_some(FUTEX))
        }
        (true, number) => Some(number),
        // The instruction leaves its successor's address in rcx.
        // SAFETY: so there is code before that.
        (false, _) if context.rcx == context.rip => unsafe { code::number_before(context.rip) },
        (false, _) => None,
    }
}

/// futex(2) is what is called through `syscall(3)`, which has its number from a register, and waits with a time-out.
fn looks_like_futex(context: &Context) -> bool {
    const WAIT: u64 = 0;
    const WAIT_BITSET: u64 = 9;
    const COMMAND: u64 = 0x7f;
    let aligned = context.rdi != 0 && context.rdi.is_multiple_of(4);
    aligned && matches!(context.rsi & COMMAND, WAIT | WAIT_BITSET) && context.rsi <= 0x1ff && context.r10 != 0
}

/// A relative sleep goes on with what the kernel says is left of it, where the program has given it a place to say so.
fn sleep_on(context: &mut Context, number: u64) -> bool {
    if number == NANOSLEEP && context.rsi != 0 {
        context.rdi = context.rsi;
    } else if number == CLOCK_NANOSLEEP && context.r10 != 0 && context.rsi & TIMER_ABSTIME == 0 {
        context.rdx = context.r10;
    } else {
        return false;
    }
    true
}

/// The flags of the handler of the program's own that runs as soon as this one returns: what it does to a call is its due.
fn due_handler(mask: u64) -> Option<u64> {
    let mut waiting = call::pending() & !mask;
    while waiting != 0 {
        let signal = waiting.trailing_zeros() as i32 + 1;
        waiting &= waiting - 1;
        let [handler, flags, ..] = call::action_of(signal);
        // SIG_DFL either ends the program or does nothing, SIG_IGN does nothing.
        if handler > 1 && signal != hijack_abi::PARK_SIGNAL {
            return Some(flags);
        }
    }
    None
}

/// An address on the thread's stack below which nobody has anything; None where that is an alternate stack with too
/// little left of it.
fn free_below(context: &Context) -> Option<u64> {
    let [start, _, bytes] = context.alternate;
    let on_alternate = |address: u64| (start..start.saturating_add(bytes)).contains(&address);
    let here = stack_pointer();
    if !on_alternate(here) {
        return Some(here - OWN_STACK);
    }
    if !on_alternate(context.rsp) {
        return Some(context.rsp - RED_ZONE); // the handler runs elsewhere
    }
    // The next park has to fit, too, below what is put there.
    let frame = context.rsp - here;
    (here - start > OWN_STACK + PUT_BYTES + frame + OWN_STACK).then(|| here - OWN_STACK)
}

fn stack_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}
