//! What runs in every program of a job before its own first instruction: silent, and quick.
#![allow(unsafe_code)] // the loader calls it with pointers

use core::ffi::{CStr, c_char};
use core::sync::atomic::Ordering;

use hijack_abi::{JOB_FOLDER_VARIABLE, RANKS, SEGMENT_FILE, Segment};

use crate::{call, segment, signal};

/// Bytes of the segment's path at most (PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;
/// Variables by which MPI launchers tell a process that it is a rank: Open MPI, PMIx, PMI (MPICH).
const RANK_VARIABLES: [&str; 3] = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"];

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: unsafe extern "C" fn(i32, *const *const c_char, *const *const c_char) = construct;

unsafe extern "C" fn construct(_: i32, _: *const *const c_char, environment: *const *const c_char) {
    // SAFETY: the loader passes the program's environment, which ends with a null pointer.
    let Some(folder) = (unsafe { variable(environment, JOB_FOLDER_VARIABLE) }) else { return };
    if !map_segment(folder.to_bytes()) {
        return; // the signal stays as it is: nobody sends it to a process that cannot take it
    }
    signal::install();
    signal::unblock();
    if let Some(segment) = segment::get()
        // SAFETY: as above.
        && RANK_VARIABLES.iter().any(|name| unsafe { variable(environment, name) }.is_some())
    {
        announce_rank(segment);
    }
}

fn map_segment(folder: &[u8]) -> bool {
    let mut path = [0; PATH_BYTES_MAX];
    let parts = [folder, b"/", SEGMENT_FILE.as_bytes()];
    for (at, byte) in parts.into_iter().flatten().enumerate() {
        // The last byte stays zero.
        match path[..PATH_BYTES_MAX - 1].get_mut(at) {
            Some(place) => *place = *byte,
            None => return false,
        }
    }
    segment::map(&path)
}

/// The value of an environment variable.
///
/// # Safety
/// `environment` is null or a null-terminated array of strings.
unsafe fn variable(environment: *const *const c_char, name: &str) -> Option<&'static CStr> {
    let mut at = environment;
    // SAFETY: as the caller vouches; the strings live as long as the process, or until it overwrites its own environment,
    // which no program does before its constructors have run.
    unsafe {
        while !at.is_null() && !(*at).is_null() {
            let bytes = CStr::from_ptr(*at).to_bytes_with_nul();
            if let Some(value) = bytes.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) {
                return CStr::from_bytes_with_nul(value).ok();
            }
            at = at.add(1);
        }
    }
    None
}

/// The agent watches ranks. What a rank starts inherits the variables and is none; a rank that execs is the same rank.
fn announce_rank(segment: &'static Segment) {
    let (pid, parent) = (call::getpid(), call::getppid());
    let len = (segment.ranks_len.load(Ordering::Acquire) as usize).min(RANKS);
    let known = segment.ranks.iter().take(len).any(|rank| [pid, parent].contains(&rank.load(Ordering::Acquire)));
    if known {
        return;
    }
    let at = segment.ranks_len.fetch_add(1, Ordering::AcqRel) as usize;
    if let Some(place) = segment.ranks.get(at) {
        place.store(pid, Ordering::Release);
    }
    call::futex_wake(&segment.ranks_len);
}
