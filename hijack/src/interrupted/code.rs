//! Which call a thread has just made, from its code.
#![allow(unsafe_code)] // reads the code before an instruction pointer

/// Calls that return EINTR although SA_RESTART is set, signal(7): poll, select, pause, semop, msgsnd, msgrcv, nanosleep,
/// recvfrom and sendto with time-outs, rt_sigtimedwait, rt_sigsuspend, io_getevents, futex, semtimedop, clock_nanosleep,
/// epoll_wait, pselect6, ppoll, epoll_pwait, epoll_pwait2, and their kin; and getrandom, which is cut short.
const PRONE: [u64; 31] = [
    0, 1, 7, 19, 20, 23, 34, 35, 42, 43, 44, 45, 46, 47, 65, 69, 70, 128, 130, 202, 208, 220, 230, 232, 270, 271, 281,
    288, 299, 318, 441,
];
/// Instructions that a compiler puts between the number and `syscall` load other arguments: a few bytes.
const BETWEEN: usize = 12;
/// `mov eax, NUMBER`.
const MOVE: u8 = 0xb8;
const MOVE_BYTES: usize = 5;
/// With this before it, the same bytes load r8.
const REX_B: u8 = 0x41;
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const CODE: usize = 1 + MOVE_BYTES + BETWEEN + SYSCALL.len();

/// The number in `mov eax, NUMBER; …; syscall` before `rip`, if it is one of a call that a signal ends.
///
/// # Safety
/// There is code at the address before `rip`.
pub unsafe fn number_before(rip: u64) -> Option<u64> {
    const PAGE: u64 = 4096;
    // The page before need not be there.
    let there = (rip % PAGE).min(CODE as u64) as usize;
    let mut code = [0; CODE];
    for (at, byte) in code.iter_mut().rev().take(there).enumerate() {
        // SAFETY: the same page as the instruction before `rip`, so it is mapped; code is readable.
        *byte = unsafe { ((rip - 1 - at as u64) as *const u8).read() };
    }
    let (before, instruction) = code.split_at(CODE - SYSCALL.len());
    if instruction != SYSCALL {
        return None;
    }
    before.windows(1 + MOVE_BYTES).rev().find_map(|window| match *window {
        [rex, MOVE, a, b, c, d] if rex != REX_B => {
            let number = u64::from(u32::from_le_bytes([a, b, c, d]));
            PRONE.contains(&number).then_some(number)
        }
        _ => None,
    })
}
