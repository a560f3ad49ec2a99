//! Where this process finds the control segment.
#![allow(unsafe_code)] // memory that other processes share

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use hijack_abi::{MAGIC, PROBES, Segment, Slot, VERSION, slot_index};

use crate::call;

static MAPPED: AtomicPtr<Segment> = AtomicPtr::new(ptr::null_mut());

/// The segment; None in a process that is not of a job.
pub fn get() -> Option<&'static Segment> {
    // SAFETY: set once, by `map`, to a mapping that is never taken away; zero is a value of every field, and what others
    // change while we look is atomic.
    unsafe { MAPPED.load(Ordering::Relaxed).as_ref() }
}

/// Maps the segment from a path that ends with a zero byte; false when it is not there or not ours.
pub fn map(path: &[u8]) -> bool {
    let Ok(descriptor) = usize::try_from(call::open(path)) else { return false };
    let address = call::map_shared(descriptor, size_of::<Segment>());
    call::close(descriptor);
    if !(1..=isize::MAX).contains(&address) {
        return false;
    }
    let segment = address as *mut Segment;
    // SAFETY: the mapping is as long as a segment; where its file is shorter it was not made by us, and who can put such a
    // file into the job's folder is its owner, whose program then gets the SIGBUS that he asked for.
    let (magic, version, size_kib) = unsafe { ((*segment).magic, (*segment).version, (*segment).size_kib as usize) };
    if magic != MAGIC || version != VERSION || size_kib != size_of::<Segment>() >> 10 {
        call::unmap(address as u64, size_of::<Segment>() as u64);
        return false;
    }
    MAPPED.store(segment, Ordering::Relaxed);
    true
}

/// The slot that the agent has prepared for a thread.
pub fn slot(segment: &'static Segment, tid: u32) -> Option<&'static Slot> {
    (0..PROBES)
        .filter_map(|probe| segment.slots.get(slot_index(tid, probe)))
        .find(|slot| slot.tid.load(Ordering::Acquire) == tid)
}
