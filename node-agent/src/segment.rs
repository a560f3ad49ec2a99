//! The agent's hands on the control segment: slots, commands, and what threads have written for it.
//!
//! Which slot is whose:
//!
//! ```text
//! tid 0          never used; a search by tid need not go further
//! tid T          thread T's; reused when T is gone
//! tid ABANDONED  its thread was still in the handler of an earlier park when the next one began (it was stopped there):
//!                it leaves through this slot and finds another one prepared for it; `argument[0]` says who it is
//! ```
//!
//! # Safety
//! Unsafe because the segment holds plain fields that the threads of other processes write, and futexes. Plain fields are
//! copied whole and volatile while the protocol gives them to us; a thread that breaks it makes the values wrong, which
//! its own process suffers from, and nothing else: every bit pattern is a value of these fields.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hijack_abi::{PENDING, PROBES, ProcessFacts, Segment, Slot, SyscallHint, ThreadState, command, slot_index, state};

/// What /proc/PID/maps calls the segment, once a process has mapped it: the library does when it is first needed.
pub const MAPPED_AS: &str = "/memfd:slackwater-segment";
/// Tid of a slot whose thread has got another one. No thread has it: pids end far below.
const ABANDONED: u32 = u32::MAX;
/// POSIX timers that a slot has room for.
const TIMERS: usize = 16;
/// siginfo_t as the segment holds it.
pub type Information = [u64; 16];

/// The slot of a thread, where it has one.
#[must_use]
pub fn find(segment: &'static Segment, tid: u32) -> Option<&'static Slot> {
    probes(segment, tid).find(|slot| slot.tid.load(Ordering::Acquire) == tid)
}

/// The slot of a thread, a new one where it has none; `None` when all places are taken. `is_gone` is asked about threads
/// whose slots are in the way.
#[must_use]
pub fn claim(segment: &'static Segment, tid: u32, mut is_gone: impl FnMut(u32) -> bool) -> Option<&'static Slot> {
    if let Some(slot) = find(segment, tid) {
        return Some(slot);
    }
    let slot = probes(segment, tid).find(|slot| is_free(segment, slot, &mut is_gone))?;
    slot.tid.store(0, Ordering::Release);
    slot.state.store(state::FREE, Ordering::Release);
    slot.command.store(command::NONE, Ordering::Release);
    slot.tid.store(tid, Ordering::Release);
    Some(slot)
}

/// Takes a slot away from a thread that is still in the handler of an earlier park: it leaves through it, see above.
pub fn abandon(slot: &Slot) {
    let tid = slot.tid.swap(ABANDONED, Ordering::AcqRel);
    slot.argument[0].store(tid.into(), Ordering::Release);
}

/// Prepares a slot for a signal that parks its thread in `epoch`. The thread must not be in the handler.
pub fn ask(slot: &Slot, epoch: u32, hint: SyscallHint) {
    slot.state.store(state::FREE, Ordering::Release);
    slot.epoch.store(epoch, Ordering::Release);
    slot.command.store(command::NONE, Ordering::Release);
    hint_at(slot, hint);
    slot.state.store(state::ASKED, Ordering::Release);
}

/// Replaces the hint of a thread that has been asked and has not taken the signal.
pub fn hint_at(slot: &Slot, hint: SyscallHint) {
    let place = (&raw const slot.hint).cast_mut();
    // SAFETY: aligned and inside the mapping, which is writable and never unmapped. `Slot` has interior mutability, so
    // nothing is assumed of the memory behind the reference. While the thread is not in the handler nobody reads it.
    unsafe { place.write_volatile(hint) };
}

/// Whether a slot's thread is parked in `epoch`.
#[must_use]
pub fn is_parked(slot: &Slot, epoch: u32) -> bool {
    slot.state.load(Ordering::Acquire) == state::PARKED && slot.epoch.load(Ordering::Acquire) == epoch
}

/// Tells a parked thread to do something, and wakes it.
pub fn tell(slot: &Slot, what: u32) {
    slot.command.store(what, Ordering::Release);
    wake(&slot.command);
}

/// Whether a parked thread has done what it was told.
#[must_use]
pub fn has_done(slot: &Slot) -> bool {
    slot.command.load(Ordering::Acquire) == command::NONE
}

/// What a parked thread has published.
#[must_use]
pub fn thread(slot: &Slot) -> ThreadState {
    // SAFETY: as in `hint_at`; the thread has written it before it said PARKED and does not change it.
    unsafe { (&raw const slot.thread).read_volatile() }
}

/// Puts the ids of a process's POSIX timers where its thread finds them when it is asked for FACTS. More than there is
/// room for are only counted.
pub fn set_timers(slot: &Slot, ids: &[i32]) {
    let facts = (&raw const slot.process).cast_mut();
    // SAFETY: as in `hint_at`; until it is asked for facts the thread leaves them alone. `zip` stays inside the array.
    unsafe {
        for (index, id) in (0..TIMERS).zip(ids) {
            (&raw mut (*facts).timers[index]).write_volatile([*id as u64, 0, 0, 0, 0]);
        }
        (&raw mut (*facts).timers_len).write_volatile(ids.len() as u64);
    }
}

/// What a thread has answered to FACTS.
#[must_use]
pub fn facts(slot: &Slot) -> ProcessFacts {
    // SAFETY: as in `thread`, once the command is done.
    unsafe { (&raw const slot.process).read_volatile() }
}

/// What a thread has answered to PENDING: signals that wait for it, and for its process; `None` when they are too many.
#[must_use]
pub fn pending(slot: &Slot) -> Option<[Vec<Information>; 2]> {
    let [of_thread, of_process] = [0, 1].map(|which: usize| slot.pending_len[which].load(Ordering::Acquire) as usize);
    if of_thread > PENDING || of_process > PENDING {
        return None;
    }
    // SAFETY: as in `thread`, once the command is done.
    let all = unsafe {
        [(&raw const slot.pending_thread).read_volatile(), (&raw const slot.pending_process).read_volatile()]
    };
    Some([all[0][..of_thread].to_vec(), all[1][..of_process].to_vec()])
}

/// Sleeps while a word of the segment has a value, at most `limit`.
pub fn wait(word: &AtomicU32, value: u32, limit: Duration) {
    let time = libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    // SAFETY: word and time outlive the call; not private, since other processes wake.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const time, 0, 0) };
}

/// Wakes everybody who sleeps on a word.
pub fn wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE uses the word's address only.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX, 0, 0, 0) };
}

fn probes(segment: &'static Segment, tid: u32) -> impl Iterator<Item = &'static Slot> {
    (0..PROBES).filter_map(move |probe| segment.slots.get(slot_index(tid, probe)))
}

fn is_free(segment: &'static Segment, slot: &Slot, is_gone: &mut impl FnMut(u32) -> bool) -> bool {
    match slot.tid.load(Ordering::Acquire) {
        0 => true,
        ABANDONED => {
            let owner = slot.argument[0].load(Ordering::Acquire) as u32;
            has_parked_since(segment, slot, owner) || is_gone(owner)
        }
        tid => is_gone(tid),
    }
}

/// A thread that has entered the handler again has left through the slot that it abandoned.
fn has_parked_since(segment: &'static Segment, abandoned: &Slot, owner: u32) -> bool {
    probes(segment, owner).any(|slot| {
        let is_its_own = match slot.tid.load(Ordering::Acquire) {
            ABANDONED => slot.argument[0].load(Ordering::Acquire) == u64::from(owner),
            tid => tid == owner,
        };
        let been_there = matches!(slot.state.load(Ordering::Acquire), state::PARKED | state::LEFT);
        is_its_own && been_there && slot.epoch.load(Ordering::Acquire) > abandoned.epoch.load(Ordering::Acquire)
    })
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::guardian::control::Control;

    fn slots_from(segment: &'static Segment, tid: u32) -> usize {
        let found = find(segment, tid).unwrap();
        (0..PROBES).find(|probe| ptr::eq(found, &raw const segment.slots[slot_index(tid, *probe)])).unwrap()
    }

    /// Tids with the same first place.
    fn rivals(count: u32) -> Vec<u32> {
        (0..count).map(|at| 100 + at * hijack_abi::SLOTS as u32).collect()
    }

    #[test]
    fn a_slot_is_found_again_and_reused_when_its_thread_is_gone() {
        let segment = Control::create().unwrap().segment();
        let rivals = rivals(PROBES as u32 + 2);
        for (place, tid) in rivals[..PROBES].iter().enumerate() {
            assert!(claim(segment, *tid, |_| false).is_some());
            assert_eq!(slots_from(segment, *tid), place);
        }
        assert!(claim(segment, rivals[PROBES], |_| false).is_none(), "no place is left");
        assert!(claim(segment, rivals[PROBES], |tid| tid == rivals[7]).is_some());
        assert_eq!((slots_from(segment, rivals[PROBES]), find(segment, rivals[7]).is_none()), (7, true));
        assert!(claim(segment, rivals[3], |_| panic!("it has a slot")).is_some());
    }

    #[test]
    fn an_abandoned_slot_is_reused_when_its_thread_has_parked_in_another() {
        let segment = Control::create().unwrap().segment();
        let rivals = rivals(3);
        let old = claim(segment, rivals[0], |_| false).unwrap();
        ask(old, 1, SyscallHint::default());
        old.state.store(state::PARKED, Ordering::Release);
        assert!(is_parked(old, 1) && !is_parked(old, 2));
        abandon(old);
        let new = claim(segment, rivals[0], |_| false).unwrap();
        assert_eq!(slots_from(segment, rivals[0]), 1);
        ask(new, 2, SyscallHint::default());
        assert!(claim(segment, rivals[1], |_| false).is_some());
        assert_eq!(slots_from(segment, rivals[1]), 2, "the first place is not free yet");
        new.state.store(state::PARKED, Ordering::Release);
        let third = claim(segment, rivals[2], |_| false).unwrap();
        assert_eq!(slots_from(segment, rivals[2]), 0);
        third.state.store(state::LEFT, Ordering::Release);
    }

    #[test]
    fn a_thread_that_is_stopped_in_every_park_needs_few_slots() {
        let segment = Control::create().unwrap().segment();
        for epoch in 1..100 {
            let slot = claim(segment, 7, |_| false).unwrap();
            assert!(slots_from(segment, 7) < 3);
            ask(slot, epoch, SyscallHint::default());
            slot.state.store(state::PARKED, Ordering::Release);
            abandon(slot);
        }
    }

    #[test]
    fn what_threads_write_is_copied() {
        let segment = Control::create().unwrap().segment();
        let slot = claim(segment, 7, |_| false).unwrap();
        set_timers(slot, &[3, 4]);
        assert_eq!((facts(slot).timers_len, facts(slot).timers[1][0]), (2, 4));
        set_timers(slot, &[1; 20]);
        assert_eq!(facts(slot).timers_len, 20);
        assert_eq!(pending(slot), Some([vec![], vec![]]));
        slot.pending_len[1].store(PENDING as u32 + 1, Ordering::Release);
        assert_eq!(pending(slot), None);
        assert_eq!(thread(slot), ThreadState::default());
        tell(slot, command::FACTS);
        assert!(!has_done(slot));
    }
}
