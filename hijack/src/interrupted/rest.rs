//! A transfer that was cut short: the rest of it, in place of the program's code, on its stack.
#![allow(unsafe_code)] // a thread's own stack, assembler

use core::arch::naked_asm;

use super::{Context, SYSCALL_BYTES, free_below, vectors};

const WRITE: u64 = 1;
const WRITEV: u64 = 20;
const SENDTO: u64 = 44;
const RECVFROM: u64 = 45;
const SENDMSG: u64 = 46;
const RECVMSG: u64 = 47;
const GETRANDOM: u64 = 318;
const MSG_PEEK: u64 = 2;
const MSG_DONTWAIT: u64 = 0x40;
const MSG_WAITALL: u64 = 0x100;

/// `Rest::kind`: a list of buffers.
const LISTED: u64 = 0;
/// rsi and rdx are address and length, and go on as bytes are transferred.
const PLAIN: u64 = 1;
/// The same with rdi and rsi.
const PLAIN_FIRST: u64 = 2;

/// What [`finish`] finds on top of the stack.
#[repr(C)]
struct Rest {
    number: u64,
    sum: u64,
    rsi: u64,
    rdx: u64,
    rip: u64,
    rsp: u64,
    kind: u64,
    rdi: u64,
}

/// Sees to the rest of a transfer that a signal has cut short.
///
/// # Safety
/// `context` is a live frame; with a number, it is behind that system call, which has transferred `rax` bytes.
pub unsafe fn complete(context: &mut Context, number: Option<u64>) {
    if is_in_finish(context) {
        // SAFETY: `finish` has it on top of its stack.
        return unsafe { go_on(context, &mut *(context.rsp as *mut Rest)) };
    }
    let Some(number) = number else { return };
    let done = context.rax;
    let kind = match number {
        WRITE if done < context.rdx => PLAIN,
        SENDTO if done < context.rdx && context.r10 & MSG_DONTWAIT == 0 => PLAIN,
        RECVFROM if done < context.rdx && waits_for_all(context.r10) => PLAIN,
        GETRANDOM if done < context.rsi => PLAIN_FIRST,
        WRITEV => LISTED,
        SENDMSG if context.rdx & MSG_DONTWAIT == 0 => LISTED,
        RECVMSG if waits_for_all(context.rdx) => LISTED,
        _ => return,
    };
    let Some(mut top) = free_below(context) else { return };
    let Context { rdi, rsi, rdx, rip, rsp, .. } = *context;
    let rest = Rest { number, sum: done, rsi, rdx, rip, rsp, kind, rdi };
    // SAFETY: on the thread's own stack, below what its code and this handler use there.
    unsafe {
        if kind == LISTED {
            let Some((address, count)) = vectors::remaining(number, rsi, rdx, done, &mut top) else { return };
            (context.rsi, context.rdx) = (address, count);
        } else {
            advance(context, kind, done);
        }
        top = (top - size_of::<Rest>() as u64) & !15;
        (top as *mut Rest).write(rest);
    }
    context.rsp = top;
    context.rip = finish as *const () as u64;
}

/// Makes the call of [`finish`] again, when it was that which was interrupted before it had transferred anything.
///
/// # Safety
/// `context` is the frame of this handler.
pub unsafe fn call_again(context: &mut Context) -> bool {
    if !is_in_finish(context) {
        return false;
    }
    context.rip -= SYSCALL_BYTES;
    // SAFETY: `finish` has it on top of its stack.
    context.rax = unsafe { (*(context.rsp as *const Rest)).number };
    true
}

/// [`finish`] itself was cut short. It looks after lengths, but not after lists.
///
/// # Safety
/// `rest` and the list are those of the interrupted [`finish`].
unsafe fn go_on(context: &mut Context, rest: &mut Rest) {
    if rest.kind != LISTED {
        return;
    }
    // SAFETY: the list was written by `complete`, is on the stack above `rest`, and nobody else's.
    if let Some((address, count)) = unsafe { vectors::advance(rest.number, context.rsi, context.rdx, context.rax) } {
        rest.sum += context.rax;
        (context.rsi, context.rdx) = (address, count);
        context.rip = finish as *const () as u64;
    }
}

fn waits_for_all(flags: u64) -> bool {
    flags & (MSG_WAITALL | MSG_PEEK | MSG_DONTWAIT) == MSG_WAITALL
}

fn advance(context: &mut Context, kind: u64, done: u64) {
    if kind == PLAIN {
        context.rsi += done;
        context.rdx -= done;
    } else {
        context.rdi += done;
        context.rsi -= done;
    }
}

/// Whether the call of [`finish`] has just returned.
fn is_in_finish(context: &Context) -> bool {
    context.rip == finish as *const () as u64 + FINISH_AFTER_CALL
}

/// Offset of the place behind the `syscall` instruction in [`finish`]: `mov rax, [rsp]` has 4 bytes, `syscall` 2.
const FINISH_AFTER_CALL: u64 = 6;

/// The rest of a transfer. An error or an end of file ends it with the sum so far, as it would have ended the call itself.
/// Only registers that a system call changes anyway are changed. Unwinders find the way past it: the caller's rsp and rip
/// are at rsp + 40 and rsp + 32.
#[unsafe(naked)]
extern "C" fn finish() {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_escape 0x0f, 0x03, 0x77, 0x28, 0x06", // CFA = *(rsp + 40)
        ".cfi_escape 0x10, 0x10, 0x02, 0x77, 0x20", // rip at rsp + 32
        "2:",
        "mov rax, [rsp]",
        "syscall",
        "test rax, rax",
        "jle 3f",
        "add [rsp + 8], rax",
        "cmp qword ptr [rsp + 48], 1",
        "jb 3f",
        "ja 4f",
        "add rsi, rax",
        "sub rdx, rax",
        "jnz 2b",
        "jmp 3f",
        "4:",
        "add rdi, rax",
        "sub rsi, rax",
        "jnz 2b",
        "3:",
        "mov rax, [rsp + 8]",
        "mov rsi, [rsp + 16]",
        "mov rdx, [rsp + 24]",
        "mov rdi, [rsp + 56]",
        "mov rcx, [rsp + 32]",
        "mov rsp, [rsp + 40]",
        ".cfi_def_cfa rsp, 0",
        ".cfi_register rip, rcx",
        "jmp rcx",
        ".cfi_endproc",
    )
}
