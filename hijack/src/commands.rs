//! What the agent can ask of a parked thread.
#![allow(unsafe_code)] // plain fields of the slot that this thread may write while it is asked

use core::ptr;
use core::sync::atomic::Ordering;

use hijack_abi::{PENDING, ProcessFacts, Segment, Slot, command};

use crate::{call, twin};

const EINVAL: i64 = -22;
const ARCH_GET_XCOMP_PERM: usize = 0x1022;
const PR_GET_DUMPABLE: usize = 3;
const PR_GET_KEEPCAPS: usize = 7;
const PR_GET_CHILD_SUBREAPER: usize = 37;
const PR_GET_NO_NEW_PRIVS: usize = 39;
const PR_GET_THP_DISABLE: usize = 42;
const SIGNALS: usize = 64;

/// Does it; what goes into `slot.result`.
pub fn obey(segment: &'static Segment, slot: &'static Slot, asked: u32, epoch: u32) -> i64 {
    match asked {
        command::FACTS => facts(segment, slot),
        command::TWIN => twin::make(segment, epoch),
        command::UNMAP => {
            let [address, length] = [&slot.argument[0], &slot.argument[1]].map(|it| it.load(Ordering::Acquire));
            call::unmap(address, length) as i64
        }
        command::PENDING => pending(slot),
        _ => EINVAL,
    }
}

fn facts(segment: &'static Segment, slot: &'static Slot) -> i64 {
    let at = ptr::from_ref(&slot.process).cast_mut();
    // SAFETY: while this command is being obeyed the facts are ours to write; the agent has put the timers' ids there
    // before and looks again when the command is done. Each place is aligned and inside the slot.
    unsafe {
        (&raw mut (*at).segment_address).write_volatile(ptr::from_ref(segment) as u64);
        (&raw mut (*at).brk).write_volatile(call::program_break());
        for signal in 0..SIGNALS {
            (&raw mut (*at).actions[signal]).write_volatile(call::action_of(signal as i32 + 1));
        }
        for which in 0..3 {
            (&raw mut (*at).itimers[which]).write_volatile(call::interval_timer(which));
        }
        attributes(at);
        let known = (&raw const (*at).timers_len).read_volatile() as usize;
        for index in 0..known.min(16) {
            let [id, ..] = (&raw const (*at).timers[index]).read_volatile();
            let [interval_s, interval_ns, value_s, value_ns] = call::posix_timer(id);
            (&raw mut (*at).timers[index]).write_volatile([id, interval_s, interval_ns, value_s, value_ns]);
        }
    }
    0
}

/// # Safety
/// As in `facts`.
unsafe fn attributes(at: *mut ProcessFacts) {
    let number = |code| call::prctl_number(code) as u32;
    // SAFETY: aligned places inside the slot, ours to write.
    unsafe {
        (&raw mut (*at).child_subreaper).write_volatile(call::prctl_value(PR_GET_CHILD_SUBREAPER) as u32);
        (&raw mut (*at).dumpable).write_volatile(number(PR_GET_DUMPABLE));
        (&raw mut (*at).keepcaps).write_volatile(number(PR_GET_KEEPCAPS));
        (&raw mut (*at).thp_disable).write_volatile(number(PR_GET_THP_DISABLE));
        (&raw mut (*at).no_new_privs).write_volatile(number(PR_GET_NO_NEW_PRIVS));
        (&raw mut (*at).membarrier).write_volatile(call::membarrier_registrations());
        (&raw mut (*at).xcomp_permitted).write_volatile(call::arch_value(ARCH_GET_XCOMP_PERM));
    }
}

/// Takes every pending signal, writes it down, and queues all of them again, in their order. `argument[0]` is the set
/// that waits for this thread alone (SigPnd of /proc): the kernel hands those out first and does not say when they end.
fn pending(slot: &'static Slot) -> i64 {
    let mut mine = slot.argument[0].load(Ordering::Acquire);
    let mut lengths = [0_usize; 2];
    let mut information = [0_u64; 16];
    let lists = [ptr::from_ref(&slot.pending_thread).cast_mut(), ptr::from_ref(&slot.pending_process).cast_mut()];
    while let Some(signal) = call::take_pending(&mut information) {
        let bit = 1_u64 << (signal - 1);
        let of_thread = mine & bit != 0;
        if of_thread && signal < 32 {
            mine &= !bit; // a standard signal waits at most once in each queue
        }
        let which = usize::from(!of_thread);
        // SAFETY: as below; these entries have been written.
        if unsafe { is_known_timer(&information, lists[which], lengths[which]) } {
            information = [0; 16];
            continue;
        }
        if lengths[which] >= PENDING {
            requeue(slot, lengths);
            // What was taken last must not be lost either.
            if of_thread {
                call::queue_for_thread(signal, &information)
            } else {
                call::queue_for_process(signal, &information)
            }
            lengths[which] = PENDING + 1;
            break;
        }
        // SAFETY: ours to write while this command is obeyed; the index is below the length.
        unsafe { (&raw mut (*lists[which])[lengths[which]]).write_volatile(information) };
        lengths[which] += 1;
        information = [0; 16];
    }
    if lengths.iter().all(|length| *length <= PENDING) {
        requeue(slot, lengths);
    }
    for (place, length) in slot.pending_len.iter().zip(lengths) {
        place.store(length as u32, Ordering::Release);
    }
    0
}

/// Whether a POSIX timer's signal is in the list already. A timer has one at most; but taking it winds the timer up again,
/// and what is queued in its place does not keep the timer from sending another.
///
/// # Safety
/// `length` entries of `list` are there and nobody writes to them.
unsafe fn is_known_timer(information: &[u64; 16], list: *const [[u64; 16]; PENDING], length: usize) -> bool {
    const SI_TIMER: u32 = -2_i32 as u32;
    // siginfo_t: signal and errno, code, then timer id and overruns.
    let who = |it: &[u64; 16]| (it[0] as u32, it[1] as u32, it[2] as u32);
    let sent_by_timer = information[1] as u32 == SI_TIMER;
    // SAFETY: the caller's; by pointer, since an index that could be too large brings the formatting of panics with it.
    let known =
        || (0..length).any(|at| who(&unsafe { list.cast::<[u64; 16]>().add(at).read_volatile() }) == who(information));
    sent_by_timer && known()
}

fn requeue(slot: &Slot, lengths: [usize; 2]) {
    for information in slot.pending_thread.iter().take(lengths[0]) {
        call::queue_for_thread(information[0] as u32, information);
    }
    for information in slot.pending_process.iter().take(lengths[1]) {
        call::queue_for_process(information[0] as u32, information);
    }
}
