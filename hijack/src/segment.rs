//! Where this process finds the control segment, and when.
//!
//! To open and map it takes half as long as all the rest that this library adds to the start of a program, and most
//! programs that a job starts are gone before anybody asks for them. So it is mapped when it is first needed: before the
//! first thread is made, while a descriptor that comes and goes is seen by nobody, or by the first park of a process
//! with one thread. Ranks announce themselves in it at their start (constructor.rs).
#![allow(unsafe_code)] // memory that other processes share

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use hijack_abi::{MAGIC, PROBES, SEGMENT_FILE, Segment, Slot, VERSION, slot_index};

use crate::environment::FOLDER_MAX;
use crate::strings::Writer;
use crate::{call, environment};

/// Bytes of the segment's path at most, with its end.
const PATH_BYTES_MAX: usize = FOLDER_MAX + 1 + SEGMENT_FILE.len() + 1;
const EMFILE: isize = -24;

/// Where it is mapped; null: not yet. Wrappers in assembler read it.
pub static MAPPED: AtomicPtr<Segment> = AtomicPtr::new(ptr::null_mut());

/// The segment, where it is mapped.
pub fn get() -> Option<&'static Segment> {
    // SAFETY: set once, by `map`, to a mapping of that size that is never taken away; zero is a value of every field, and what others
    // change while we look is atomic.
    unsafe { MAPPED.load(Ordering::Relaxed).as_ref() }
}

/// The segment, mapped now if it has not been; None in a process that is not of a job, or cannot open its segment. May be
/// called by several threads at once.
pub fn get_or_map() -> Option<&'static Segment> {
    get().or_else(|| {
        map(environment::job_folder()?.to_bytes());
        get()
    })
}

fn map(folder: &[u8]) {
    let mut path = [0; PATH_BYTES_MAX];
    // SAFETY: a folder has at most FOLDER_MAX bytes; the last byte stays zero.
    let mut writer = unsafe { Writer::new(path.as_mut_ptr()) };
    for part in [folder, b"/", SEGMENT_FILE.as_bytes()] {
        writer.write(part);
    }
    let Ok(descriptor) = usize::try_from(open(&path)) else { return };
    let address = call::map_shared(descriptor, size_of::<Segment>());
    call::close(descriptor);
    if !(1..=isize::MAX).contains(&address) {
        return;
    }
    let segment = address as *mut Segment;
    // Another thread may have been faster.
    if !is_ours(segment)
        || MAPPED.compare_exchange(ptr::null_mut(), segment, Ordering::Relaxed, Ordering::Relaxed).is_err()
    {
        call::unmap(address as u64, size_of::<Segment>() as u64);
    }
}

fn is_ours(segment: *const Segment) -> bool {
    // SAFETY: the mapping is as long as a segment; where its file is shorter it was not made by us, and who can put such a
    // file into the job's folder is its owner, whose program then gets the SIGBUS that he asked for.
    let (magic, version, size_kib) = unsafe { ((*segment).magic, (*segment).version, (*segment).size_kib as usize) };
    magic == MAGIC && version == VERSION && size_kib == size_of::<Segment>() >> 10
}

/// Opens a file, also where a program has as many descriptors as it may have and may have more.
fn open(path: &[u8]) -> isize {
    let opened = call::open(path);
    if opened != EMFILE {
        return opened;
    }
    let [soft, hard] = call::descriptor_limit();
    call::set_descriptor_limit([hard, hard]);
    let opened = call::open(path);
    call::set_descriptor_limit([soft, hard]);
    opened
}

/// The slot that the agent has prepared for a thread.
pub fn slot(segment: &'static Segment, tid: u32) -> Option<&'static Slot> {
    (0..PROBES)
        .filter_map(|probe| segment.slots.get(slot_index(tid, probe)))
        .find(|slot| slot.tid.load(Ordering::Acquire) == tid)
}
