//! System calls with a step to blame, the stage word, and the end of a process that cannot go on.

use core::sync::atomic::{AtomicU32, Ordering};

use hijack_abi::orders::{Orders, Span, Step, go, stage};

const SYS_PAUSE: usize = 34;
const SYS_FUTEX: usize = 202;
const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;

/// What went wrong.
pub struct Failure {
    step: Step,
    result: isize,
    argument: u64,
}

impl Failure {
    /// `result`: a negative errno.
    pub fn new(step: Step, result: isize, argument: u64) -> Self {
        Self { step, result, argument }
    }
}

/// A call that must work; `argument` says what it is about.
pub fn must(step: Step, argument: u64, number: usize, arguments: [usize; 6]) -> Result<usize, Failure> {
    let result = may(number, arguments);
    if result < 0 { Err(Failure::new(step, result, argument)) } else { Ok(result as usize) }
}

/// A call whose failure costs nothing that the program can rely on.
pub fn may(number: usize, arguments: [usize; 6]) -> isize {
    // SAFETY: this program owns the whole process; the orders say what is mapped where, and no call here names memory
    // outside of the orders, of this program's stacks, or of what the calls themselves map.
    unsafe { hijack_sys::syscall(number, arguments) }
}

/// Publishes a stage.
pub fn enter(orders: &Orders, stage: u32) {
    orders.stage.store(stage, Ordering::Release);
    wake(&orders.stage);
}

fn wake(word: &AtomicU32) {
    may(SYS_FUTEX, [word.as_ptr() as usize, FUTEX_WAKE, i32::MAX as usize, 0, 0, 0]);
}

/// Waits for the agent, without a time limit: it kills the process if it gives up.
pub fn wait_until_filled(orders: &Orders) {
    while orders.go.load(Ordering::Acquire) != go::FILLED {
        may(SYS_FUTEX, [orders.go.as_ptr() as usize, FUTEX_WAIT, go::WAIT as usize, 0, 0, 0]);
    }
}

/// Says what failed.
pub fn fail(orders: &Orders, failure: Failure) {
    orders.failed_step.store(failure.step as u32, Ordering::Relaxed);
    orders.failed_errno.store(-failure.result as i32, Ordering::Relaxed);
    orders.failed_argument.store(failure.argument, Ordering::Relaxed);
    enter(orders, stage::FAILED);
}

/// Waits to be killed.
pub fn halt() -> ! {
    loop {
        may(SYS_PAUSE, [0; 6]);
    }
}

/// The array that a span of the orders names.
pub fn array<T>(orders: &'static Orders, span: Span) -> &'static [T] {
    let head = core::ptr::from_ref(orders).cast::<u8>();
    // SAFETY: whoever wrote the orders laid the arrays out behind them, 8-aligned, of plain data; nobody changes them.
    unsafe { core::slice::from_raw_parts(head.add(span.offset as usize).cast(), span.len as usize) }
}
