//! Signal 33: installed beside glibc, which uses it too, and held back where its default action would end a program.
#![allow(unsafe_code)] // a signal handler and its restorer, glibc's handler called by its address

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use hijack_abi::PARK_SIGNAL;

use crate::call::{self, Action};
use crate::park;

const SA_SIGINFO: u64 = 4;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_ONSTACK: u64 = 0x0800_0000;
const SA_RESTART: u64 = 0x1000_0000;
/// Bit of the signal in a kernel set.
const BIT: u64 = 1 << (PARK_SIGNAL - 1);
/// Actions that are no handlers: SIG_DFL, SIG_IGN.
const IGNORE: u64 = 1;

/// What glibc had installed: it sends itself this signal when a program with threads changes its user or group.
static THEIRS: AtomicU64 = AtomicU64::new(0);

/// Makes the handler ours, in a process that has one thread: nobody sends the signal before the old one is noted.
pub fn install() {
    let [before, ..] = set();
    remember(before);
}

/// Makes the handler ours again where somebody has changed it. Cheap, and may be called at any time.
pub fn take_back() {
    let [handler, ..] = call::action_of(PARK_SIGNAL);
    if handler != ours() {
        remember(handler);
        set();
    }
}

fn ours() -> u64 {
    park::entry as *const () as u64
}

fn remember(handler: u64) {
    if handler > IGNORE {
        THEIRS.store(handler, Ordering::Relaxed);
    }
}

/// Installs the handler; the action before it.
fn set() -> Action {
    // Every signal waits while a thread is parked: none of the program's handlers may run there. Runtimes with small
    // stacks of their own keep an alternate one for signals; see altstack.rs for those that are too small.
    let flags = SA_SIGINFO | SA_RESTART | SA_RESTORER | SA_ONSTACK;
    call::set_action(PARK_SIGNAL, &[ours(), flags, restorer as *const () as u64, u64::MAX])
}

/// Lets the signal through, whatever the program before this one (see exec) had set.
pub fn unblock() {
    call::unblock(BIT);
}

/// In the handler: lets through what the program ignores, so that it goes on being ignored. Blocked here it would wait for
/// the process, the kernel would look for a thread that takes it, and end a call of one that is not parked yet with EINTR:
/// a child's end during a park did that to whoever sat in epoll_wait.
pub fn let_ignored_through() {
    const SIGNALS: i32 = 64;
    /// SIGCHLD, SIGCONT, SIGURG, SIGWINCH: ignored where nothing else is said, signal(7).
    const IGNORED_BY_DEFAULT: [i32; 4] = [17, 18, 23, 28];
    let ignored = |signal: &i32| {
        let [handler, ..] = call::action_of(*signal);
        handler == IGNORE || (handler == 0 && IGNORED_BY_DEFAULT.contains(signal))
    };
    let through = (1..=SIGNALS).filter(ignored).fold(0, |set, signal| set | 1_u64 << (signal - 1));
    if through != 0 {
        call::set_mask(!through);
    }
}

/// Hands a signal that this process has sent itself to glibc.
///
/// # Safety
/// The arguments are those of the handler.
pub unsafe fn chain(information: *const u32, context: *const u64) {
    let theirs = THEIRS.load(Ordering::Relaxed);
    if theirs > IGNORE {
        // SAFETY: the address was that of a handler of this signal with SA_SIGINFO (glibc's sighandler_setxid), and libc
        // is never unloaded; the arguments are the kernel's.
        unsafe {
            let handler: extern "C" fn(i32, *const u32, *const u64) = core::mem::transmute(theirs);
            handler(PARK_SIGNAL, information, context);
        }
    }
}

/// Where the kernel returns to from a handler: rt_sigreturn(2) with the frame on top of the stack.
#[unsafe(naked)]
extern "C" fn restorer() {
    naked_asm!("mov eax, 15", "syscall", "ud2")
}
