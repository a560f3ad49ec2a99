//! The way through a wrapper.
//!
//! libc's functions are called for what they are, not the kernel: they are cancellation points and set errno. A thread that
//! is cancelled there is unwound through its callers, and Rust functions are not made for that. So none is on the stack then:
//! the frame is that of some lines of assembly, which unwinders find their way past.
//!
//! ```text
//! no table, for most: jump to libc's function
//! frame.given = the caller's six registers; frame.round = 0
//! again:  before(frame)         fills frame.passed, returns libc's function
//!         function(frame.passed)
//!         after(frame, result)  returns the caller's result, or: again
//! ```
#![allow(unsafe_code)] // assembler, and what it is told

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;

use crate::libc;
use crate::objects::Next;

/// What lives on the stack during a call.
#[repr(C, align(16))]
pub struct Frame<T> {
    /// The caller's arguments.
    pub given: [usize; 6],
    /// Those of libc's function.
    pub passed: [usize; 6],
    /// 0 when it is called for the first time; `before` and `after` may change it.
    pub round: usize,
    /// What `before` keeps for libc's function and for `after`. Uninitialised at first.
    pub kept: MaybeUninit<T>,
}

impl<T> Frame<T> {
    /// Passes on what was given.
    pub fn pass_all(&mut self) {
        self.passed = self.given;
    }
}

/// What `after` says.
#[repr(C)]
pub struct Outcome {
    /// The caller's result.
    pub result: isize,
    /// Not 0: call once more.
    pub again: usize,
}

impl Outcome {
    /// The call is over.
    pub const fn over(result: isize) -> Self {
        Self { result, again: 0 }
    }
}

/// libc's function behind a wrapper, or one that says that there is none.
pub fn real(next: &Next) -> *const c_void {
    next.address().unwrap_or(missing as *const c_void)
}

/// In the place of libc's function, one that returns what the kernel has said to a call that has been made: `passed[0]`.
pub fn done() -> *const c_void {
    extern "C" fn done(result: isize) -> isize {
        libc::result(result) as isize
    }
    done as *const c_void
}

extern "C" fn missing() -> isize {
    const ENOSYS: isize = -38;
    libc::result(ENOSYS) as isize
}

/// Where `__recvfrom_chk` has found that the buffer is smaller than what is to be received.
pub extern "C" fn overflow() -> ! {
    static CHK_FAIL: Next = Next::new(c"__chk_fail");
    if let Some(fail) = CHK_FAIL.address() {
        // SAFETY: glibc's function of that name has this type; it ends the program.
        unsafe { core::mem::transmute::<*const c_void, extern "C" fn()>(fail)() };
    }
    crate::call::exit_group(127)
}

/// Results of functions that return an int, whose upper half is nobody's.
pub const fn as_int(result: isize) -> c_int {
    result as c_int
}

/// The way above. `$short` is what comes before it.
macro_rules! through {
    ($name:ident, $next:path, $before:path, $after:path, [$($short:literal),*] $($operands:tt)*) => {
        /// The C function of this name.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            ::core::arch::naked_asm!(
                ".cfi_startproc",
                $($short,)*
                "push rbp",
                ".cfi_def_cfa_offset 16",
                ".cfi_offset rbp, -16",
                "mov rbp, rsp",
                ".cfi_def_cfa_register rbp",
                "sub rsp, {bytes}",
                "mov [rsp], rdi",
                "mov [rsp + 8], rsi",
                "mov [rsp + 16], rdx",
                "mov [rsp + 24], rcx",
                "mov [rsp + 32], r8",
                "mov [rsp + 40], r9",
                "mov qword ptr [rsp + 96], 0",
                "2:",
                "mov rdi, rsp",
                "lea rsi, [rip + {next}]",
                "call {before}",
                "mov rdi, [rsp + 48]",
                "mov rsi, [rsp + 56]",
                "mov rdx, [rsp + 64]",
                "mov rcx, [rsp + 72]",
                "mov r8, [rsp + 80]",
                "mov r9, [rsp + 88]",
                "call rax",
                "mov rdi, rsp",
                "mov rsi, rax",
                "call {after}",
                "test rdx, rdx",
                "jne 2b",
                "leave",
                ".cfi_def_cfa rsp, 8",
                "ret",
                ".cfi_endproc",
                bytes = const { crate::addresses::through::frame_bytes($before, $after) },
                next = sym $next,
                before = sym $before,
                after = sym $after
                $($operands)*
            )
        }
    };
}

/// Functions with nothing to do where there is no table.
macro_rules! where_moved {
    ($($name:ident => $next:path, $before:path, $after:path),* $(,)?) => {$(
        $crate::addresses::through::through! {
            $name, $next, $before, $after,
            [
                "mov rax, [rip + {mapped}]",
                "test rax, rax",
                "je 3f",
                "cmp qword ptr [rax + {generation}], 0",
                "jne 3f",
                "mov rax, [rip + {next}]",
                "test rax, rax",
                "je 3f",
                "jmp rax",
                "3:"
            ],
            mapped = sym crate::segment::MAPPED,
            generation = const core::mem::offset_of!(Segment, addresses)
        }
    )*};
}

/// Functions in which a thread may be while the table comes.
macro_rules! always {
    ($($name:ident => $next:path, $before:path, $after:path),* $(,)?) => {$(
        $crate::addresses::through::through! { $name, $next, $before, $after, [] }
    )*};
}

/// recvfrom(2) of programs built with _FORTIFY_SOURCE: an argument more, the buffer's size.
macro_rules! recvfrom_of_chk {
    ($name:ident => $to:path) => {
        /// The C function `__recvfrom_chk`.
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            ::core::arch::naked_asm!(
                "cmp rdx, rcx",
                "ja {overflow}",
                "mov rcx, r8",
                "mov r8, r9",
                "mov r9, [rsp + 8]",
                "jmp {to}",
                overflow = sym crate::addresses::through::overflow,
                to = sym $to,
            )
        }
    };
}

pub(super) use {always, recvfrom_of_chk, through, where_moved};

/// Bytes of the frame that both take.
pub const fn frame_bytes<T>(
    _: unsafe extern "C" fn(&mut Frame<T>, &Next) -> *const c_void,
    _: unsafe extern "C" fn(&mut Frame<T>, isize) -> Outcome,
) -> usize {
    size_of::<Frame<T>>()
}

const _: () = {
    assert!(core::mem::offset_of!(Frame<()>, passed) == 48);
    assert!(core::mem::offset_of!(Frame<()>, round) == 96);
    assert!(size_of::<Frame<u8>>().is_multiple_of(16));
};
