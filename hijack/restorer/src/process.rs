//! What belongs to the process as a whole.

use hijack_abi::orders::{Orders, Step, Timer};

use crate::call::{Failure, array, may, must};

const SYS_RT_SIGACTION: usize = 13;
const SYS_SETITIMER: usize = 38;
const SYS_UMASK: usize = 95;
const SYS_RT_SIGQUEUEINFO: usize = 129;
const SYS_PRCTL: usize = 157;
const SYS_ARCH_PRCTL: usize = 158;
const SYS_TIMER_CREATE: usize = 222;
const SYS_TIMER_SETTIME: usize = 223;
const SYS_TIMER_DELETE: usize = 226;
const SYS_PRLIMIT: usize = 302;
const SYS_MEMBARRIER: usize = 324;
const SYS_CLOSE_RANGE: usize = 436;
const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
const XFEATURE_TILE_DATA: u64 = 18;
const PR_TIMER_CREATE_RESTORE_IDS: usize = 77;
const SIGSET_BYTES: usize = 8;
/// Timers made and deleted at most until one has the right id, where the kernel takes no wishes.
const TIMER_ATTEMPTS: i32 = 100_000;

/// Signals' actions, limits, attributes, pending signals; closes the restart's own descriptors.
pub fn restore(orders: &'static Orders) -> Result<(), Failure> {
    must(Step::Umask, 0, SYS_UMASK, [orders.umask as usize, 0, 0, 0, 0, 0])?;
    for [number, value] in orders.prctls {
        if number != 0 {
            must(Step::Prctl, number, SYS_PRCTL, [number as usize, value as usize, 0, 0, 0, 0])?;
        }
    }
    for bit in (0..32).filter(|bit| orders.membarrier & 1 << bit != 0) {
        must(Step::Membarrier, bit, SYS_MEMBARRIER, [1 << bit, 0, 0, 0, 0, 0])?;
    }
    if orders.xcomp_permitted & 1 << XFEATURE_TILE_DATA != 0 {
        let arguments = [ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA as usize, 0, 0, 0, 0];
        must(Step::Xcomp, XFEATURE_TILE_DATA, SYS_ARCH_PRCTL, arguments)?;
    }
    actions(orders)?;
    let close_from = orders.close_from as usize;
    must(Step::Close, close_from as u64, SYS_CLOSE_RANGE, [close_from, u32::MAX as usize, 0, 0, 0, 0])?;
    for (number, limit) in orders.rlimits.iter().enumerate() {
        let limit = limit.as_ptr() as usize;
        must(Step::Rlimit, number as u64, SYS_PRLIMIT, [0, number, limit, 0, 0, 0])?;
    }
    for signal in array::<[u64; 16]>(orders, orders.pending) {
        let number = (signal[0] & 0xffff_ffff) as usize;
        let arguments = [orders.pid as usize, number, signal.as_ptr() as usize, 0, 0, 0];
        must(Step::Pending, number as u64, SYS_RT_SIGQUEUEINFO, arguments)?;
    }
    Ok(())
}

/// First to the default, which throws away what restarted children have sent meanwhile (SIGCHLD), then as it was.
fn actions(orders: &Orders) -> Result<(), Failure> {
    const KILL: usize = 9;
    const STOP: usize = 19;
    const CHILD: usize = 17;
    let default = [0u64; 4];
    must(Step::Sigaction, CHILD as u64, SYS_RT_SIGACTION, [CHILD, default.as_ptr() as usize, 0, SIGSET_BYTES, 0, 0])?;
    for (index, action) in orders.actions.iter().enumerate() {
        let signal = index + 1;
        if signal != KILL && signal != STOP {
            let arguments = [signal, action.as_ptr() as usize, 0, SIGSET_BYTES, 0, 0];
            must(Step::Sigaction, signal as u64, SYS_RT_SIGACTION, arguments)?;
        }
    }
    Ok(())
}

/// Interval timers and POSIX timers; after the threads, which the latter may name.
pub fn start_timers(orders: &'static Orders) -> Result<(), Failure> {
    let timers: &[Timer] = array(orders, orders.timers);
    if !timers.is_empty() {
        let wishes = may(SYS_PRCTL, [PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0, 0]) >= 0;
        for timer in timers {
            create_timer(timer, wishes)?;
            let setting = timer.setting.as_ptr() as usize;
            must(Step::Timer, timer.id as u64, SYS_TIMER_SETTIME, [timer.id as usize, 0, setting, 0, 0, 0])?;
        }
        if wishes {
            may(SYS_PRCTL, [PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0, 0]);
        }
    }
    for (which, timer) in orders.itimers.iter().enumerate() {
        if *timer != [0; 4] {
            must(Step::Itimer, which as u64, SYS_SETITIMER, [which, timer.as_ptr() as usize, 0, 0, 0, 0])?;
        }
    }
    Ok(())
}

fn create_timer(timer: &Timer, wishes: bool) -> Result<(), Failure> {
    // struct sigevent: value, signal and notify, tid.
    let mut event = [0u64; 8];
    event[0] = timer.value;
    event[1] = timer.signal as u32 as u64 | (timer.notify as u32 as u64) << 32;
    event[2] = timer.tid.into();
    let mut id = timer.id;
    for _ in 0..TIMER_ATTEMPTS {
        let arguments = [timer.clock as usize, event.as_ptr() as usize, &raw mut id as usize, 0, 0, 0];
        must(Step::Timer, timer.id as u64, SYS_TIMER_CREATE, arguments)?;
        // SAFETY: the kernel wrote the number behind the compiler's back.
        let got = unsafe { (&raw const id).read_volatile() };
        if got == timer.id {
            return Ok(());
        }
        must(Step::Timer, timer.id as u64, SYS_TIMER_DELETE, [got as usize, 0, 0, 0, 0, 0])?;
        if wishes || got > timer.id {
            break;
        }
    }
    Err(Failure::new(Step::Timer, -16, timer.id as u64))
}
