//! No EINTR and no short count reaches a program because of us.
//!
//! A signal ends most blocking calls with EINTR, whatever SA_RESTART says, and cuts a blocked write short. Both show in the
//! handler's frame: rip stands behind a `syscall` instruction, rax holds the result. EINTR: rip goes back to the
//! instruction and rax becomes the call's number again. A short count: the frame is made to return into [`finish`], which
//! transfers the rest and then goes on where the thread was, with the sum.
//!
//! Which call it was, the agent has read from /proc just before the signal. Where it came too early (the thread was still
//! running), the code tells: libc loads the number right before the instruction.
#![allow(unsafe_code)] // the frame of a signal, the code before an instruction pointer, a thread's own stack

use core::arch::naked_asm;

use hijack_abi::SyscallHint;

use crate::call;

mod vectors;

const EINTR: u64 = -4_i64 as u64;
const WRITE: u64 = 1;
const WRITEV: u64 = 20;
const NANOSLEEP: u64 = 35;
const SENDTO: u64 = 44;
const RECVFROM: u64 = 45;
const SENDMSG: u64 = 46;
const RECVMSG: u64 = 47;
const CLOCK_NANOSLEEP: u64 = 230;
const MSG_PEEK: u64 = 2;
const MSG_DONTWAIT: u64 = 0x40;
const MSG_WAITALL: u64 = 0x100;
const TIMER_ABSTIME: u64 = 1;
/// The kernel's frame of this handler, with the thread's vector registers, and the handler's own stack lie below the
/// thread's red zone and are in use until rt_sigreturn(2). What is put on the thread's stack goes below all of that, and as
/// far below this code's own stack pointer as what it still calls may reach.
const OWN_STACK: u64 = 2048;
/// Calls that return EINTR although SA_RESTART is set, signal(7): poll, select, pause, semop, msgsnd, msgrcv, nanosleep,
/// recvfrom and sendto with time-outs, rt_sigtimedwait, rt_sigsuspend, io_getevents, futex, semtimedop, clock_nanosleep,
/// epoll_wait, pselect6, ppoll, epoll_pwait, epoll_pwait2, and their kin.
const PRONE: [u64; 23] =
    [0, 1, 7, 19, 20, 23, 34, 35, 42, 43, 44, 45, 46, 47, 65, 69, 70, 128, 130, 202, 220, 230, 232];
/// The same, of larger numbers.
const PRONE_TOO: [u64; 7] = [208, 270, 271, 281, 288, 299, 441];

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

/// What [`finish`] finds on top of the stack.
#[repr(C)]
struct Rest {
    number: u64,
    sum: u64,
    rsi: u64,
    rdx: u64,
    rip: u64,
    rsp: u64,
    /// 1: rsi and rdx are address and length, and go on as bytes are transferred.
    plain: u64,
    _pad: u64,
}

/// `Context::noted` when the call's number is known: "slkcall" and a zero, read as a little-endian number.
const NOTED: u64 = u64::from_le_bytes(*b"slkcall\0");

/// Writes into the frame which call was interrupted, where the agent knew: so the next life knows it, too.
pub fn note(context: &mut Context, hint: &SyscallHint) {
    let known = hint.valid == 1
        && (hint.pc, hint.sp) == (context.rip, context.rsp)
        && hint.arguments[..2] == [context.rdi, context.rsi];
    (context.noted, context.number) = if known { (NOTED, hint.number) } else { (0, 0) };
}

/// Makes the interrupted call whole, as the thread is about to leave the handler.
///
/// # Safety
/// `context` is the frame of this handler, and [`note`] has seen it.
pub unsafe fn repair(context: &mut Context) {
    let known = context.noted == NOTED;
    if context.rax == EINTR {
        let number = if known { Some(context.number) } else { number_in_code(context.rip) };
        if let Some(number) = number
            && !handler_is_due(context.mask)
        {
            context.rip -= 2;
            context.rax = number;
            sleep_on(context, number);
        }
    } else if known && !in_finish(context) && i64::try_from(context.rax).is_ok_and(|count| count > 0) {
        // SAFETY: the frame's registers are those of a call that has just returned.
        unsafe { complete(context, context.number) };
    }
}

/// A relative sleep goes on with what the kernel says is left of it, where the program has given it a place to say so.
fn sleep_on(context: &mut Context, number: u64) {
    if number == NANOSLEEP && context.rsi != 0 {
        context.rdi = context.rsi;
    } else if number == CLOCK_NANOSLEEP && context.r10 != 0 && context.rsi & TIMER_ABSTIME == 0 {
        context.rdx = context.r10;
    }
}

/// Whether one of the program's own handlers runs as soon as this one returns: then EINTR is its due.
fn handler_is_due(mask: u64) -> bool {
    let mut waiting = call::pending() & !mask;
    while waiting != 0 {
        let signal = waiting.trailing_zeros() as i32 + 1;
        waiting &= waiting - 1;
        let [handler, ..] = call::action_of(signal);
        // SIG_DFL either ends the program or does nothing, SIG_IGN does nothing.
        if handler > 1 && signal != hijack_abi::PARK_SIGNAL {
            return true;
        }
    }
    false
}

/// The number in `mov eax, NUMBER; syscall` before `rip`, if it is one of a call that a signal ends.
fn number_in_code(rip: u64) -> Option<u64> {
    const BYTES: u64 = 7;
    const PAGE: u64 = 4096;
    if rip % PAGE < BYTES {
        return None; // the page before need not be there
    }
    // SAFETY: the same page as the instruction that the thread goes on with, so it is mapped; code is readable.
    let code: [u8; 7] = unsafe { ((rip - BYTES) as *const [u8; 7]).read_unaligned() };
    match code {
        [0xb8, a, b, c, d, 0x0f, 0x05] => {
            let number = u64::from(u32::from_le_bytes([a, b, c, d]));
            let prone = PRONE.iter().chain(&PRONE_TOO).any(|it| *it == number);
            prone.then_some(number)
        }
        _ => None,
    }
}

/// [`finish`] itself was interrupted, and looks after its own count.
fn in_finish(context: &Context) -> bool {
    context.rip == finish as *const () as u64 + FINISH_AFTER_CALL
}

/// Sees to the rest of a transfer that a signal has cut short.
///
/// # Safety
/// `context` is a live frame behind system call `number`, which has transferred `rax` bytes.
unsafe fn complete(context: &mut Context, number: u64) {
    let done = context.rax;
    let short = match number {
        WRITE => done < context.rdx,
        SENDTO => done < context.rdx && context.r10 & MSG_DONTWAIT == 0,
        RECVFROM => done < context.rdx && context.r10 & (MSG_WAITALL | MSG_PEEK | MSG_DONTWAIT) == MSG_WAITALL,
        WRITEV => true,
        SENDMSG => context.rdx & MSG_DONTWAIT == 0,
        RECVMSG => context.rdx & (MSG_WAITALL | MSG_PEEK | MSG_DONTWAIT) == MSG_WAITALL,
        _ => false,
    };
    if !short {
        return;
    }
    let mut rest = Rest {
        number,
        sum: done,
        rsi: context.rsi,
        rdx: context.rdx,
        rip: context.rip,
        rsp: context.rsp,
        plain: 1,
        _pad: 0,
    };
    let mut top = free_below(context);
    // SAFETY: on the thread's own stack, below what its code and this handler use there.
    unsafe {
        match number {
            WRITE | SENDTO | RECVFROM => {
                context.rsi += done;
                context.rdx -= done;
            }
            _ => {
                let Some((address, count)) = vectors::remaining(number, context.rsi, context.rdx, done, &mut top)
                else {
                    return;
                };
                rest.plain = 0;
                (context.rsi, context.rdx) = (address, count);
            }
        }
        top = (top - size_of::<Rest>() as u64) & !15;
        (top as *mut Rest).write(rest);
    }
    context.rsp = top;
    context.rip = finish as *const () as u64;
}

/// An address on the thread's stack below which nobody has anything.
fn free_below(context: &Context) -> u64 {
    let [start, _, bytes] = context.alternate;
    let on_alternate = |address: u64| (start..start.saturating_add(bytes)).contains(&address);
    let here = stack_pointer();
    if on_alternate(here) && !on_alternate(context.rsp) {
        return context.rsp - RED_ZONE; // the handler runs elsewhere
    }
    here - OWN_STACK
}

fn stack_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Offset of the place behind the `syscall` instruction in [`finish`]: `mov rax, [rsp]` has 4 bytes, `syscall` 2.
const FINISH_AFTER_CALL: u64 = 6;

/// In place of the program's code, on its stack: the rest of a transfer. An error or an end of file ends it with the
/// sum so far, as it would have ended the call itself. Only registers that a system call changes anyway are changed.
#[unsafe(naked)]
extern "C" fn finish() {
    naked_asm!(
        "2:",
        "mov rax, [rsp]",
        "syscall",
        "test rax, rax",
        "jle 3f",
        "add [rsp + 8], rax",
        "cmp qword ptr [rsp + 48], 0",
        "je 3f",
        "add rsi, rax",
        "sub rdx, rax",
        "jnz 2b",
        "3:",
        "mov rax, [rsp + 8]",
        "mov rsi, [rsp + 16]",
        "mov rdx, [rsp + 24]",
        "mov rcx, [rsp + 32]",
        "mov rsp, [rsp + 40]",
        "jmp rcx",
    )
}
