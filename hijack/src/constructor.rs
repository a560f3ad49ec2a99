//! What runs in every program of a job before its own first instruction: silent, and quick.
#![allow(unsafe_code)] // the loader calls it with pointers

use core::ffi::c_char;
use core::sync::atomic::Ordering;

use hijack_abi::{RANKS, Segment};

use crate::{call, environment, libc, segment, signal, strings};

/// Variables by which MPI launchers tell a process that it is a rank: Open MPI, PMIx, PMI (MPICH).
const RANK_VARIABLES: [&str; 3] = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"];

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: unsafe extern "C" fn(i32, *const *const c_char, *const *const c_char) = construct;

unsafe extern "C" fn construct(_: i32, _: *const *const c_char, arguments: *const *const c_char) {
    // SAFETY: this is the constructor; the loader passes the program's environment, which ends with a null pointer.
    unsafe { environment::remember(arguments) };
    if environment::job_folder().is_none() {
        return; // the signal stays as it is: nobody sends it to a process that is of no job
    }
    signal::install();
    signal::unblock();
    let own = libc::environ();
    let list = if own.is_null() { arguments } else { own };
    // SAFETY: the environment as it is, before any code of the program has run.
    if unsafe { strings::has_one_of(list, &RANK_VARIABLES) } {
        segment::get_or_map().into_iter().for_each(announce_rank);
    }
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
