//! New threads: glibc takes the park signal for itself in the first `pthread_create`; it is taken back right after.
//!
//! glibc does it before the thread starts, so there is a moment in which a park goes to glibc's handler, which does
//! nothing with it: the agent signals again. Calling `pthread_create` from our constructor, so that the moment would be
//! over before `main`, ends glibc's single-threaded mode and costs serial programs (getc: +30 to 70 %).
#![allow(unsafe_code)] // calls libc's function

use core::ffi::{c_int, c_void};

use crate::environment;
use crate::objects::Next;
use crate::{segment, signal};

/// What they point to goes through unseen.
type PthreadCreate = unsafe extern "C" fn(*mut c_void, *const c_void, *const c_void, *mut c_void) -> c_int;
type ThrdCreate = unsafe extern "C" fn(*mut c_void, *const c_void, *mut c_void) -> c_int;

const ENOSYS: c_int = 38;
/// `thrd_error` of <threads.h>.
const THRD_ERROR: c_int = 2;

static PTHREAD_CREATE: Next = Next::new(c"pthread_create");
static THRD_CREATE: Next = Next::new(c"thrd_create");

/// pthread_create(3).
///
/// # Safety
/// As the C function.
pub unsafe fn pthread_create(
    thread: *mut c_void,
    attributes: *const c_void,
    start: *const c_void,
    argument: *mut c_void,
) -> c_int {
    let Some(real) = PTHREAD_CREATE.address() else { return ENOSYS };
    make_ready();
    // SAFETY: libc's function of that name has this type; the arguments are the caller's.
    let result =
        unsafe { core::mem::transmute::<*const c_void, PthreadCreate>(real)(thread, attributes, start, argument) };
    take_back();
    result
}

/// thrd_create(3).
///
/// # Safety
/// As the C function.
pub unsafe fn thrd_create(thread: *mut c_void, start: *const c_void, argument: *mut c_void) -> c_int {
    let Some(real) = THRD_CREATE.address() else { return THRD_ERROR };
    make_ready();
    // SAFETY: as above.
    let result = unsafe { core::mem::transmute::<*const c_void, ThrdCreate>(real)(thread, start, argument) };
    take_back();
    result
}

/// The last moment at which nobody sees the descriptor of the segment come and go.
fn make_ready() {
    segment::get_or_map();
}

fn take_back() {
    if environment::job_folder().is_some() {
        signal::take_back();
    }
}
