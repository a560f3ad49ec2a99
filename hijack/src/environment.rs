//! Keeps the job in the environment of what is executed.
//!
//! A script that runs `env -i`, a launcher with `-x LD_PRELOAD=` or a tool that preloads something else would leave the
//! new program without this library, and a job with such a program in it cannot be checkpointed. The exec and spawn
//! wrappers put back what is missing: the job's folder, and the library, before whatever else is to be preloaded.
//! An environment that names *another* job is that job's, and left alone.
#![allow(unsafe_code)] // other people's pointers, a static that is written once

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicUsize, Ordering};

use hijack_abi::{JOB_FOLDER_VARIABLE, LIBRARY_FILE};

use crate::libc;
use crate::stack;
use crate::strings::{List, Writer, pointers, value, variable};

const PRELOAD_VARIABLE: &str = "LD_PRELOAD";
/// Bytes of the longest folder of a job; `/tmp/slackwater-UID/JOB` has half as many. All that this library writes to
/// lies in one page.
pub const FOLDER_MAX: usize = 128;
/// `SLACKWATER_JOB=`, the longest folder, its end.
const ASSIGNMENT_MAX: usize = JOB_FOLDER_VARIABLE.len() + 1 + FOLDER_MAX + 1;
/// The most bytes of stack that a repaired environment may take, pointers and the new LD_PRELOAD: a larger one is left
/// as it is. Some 2000 variables; a thread's smallest stack is not asked for it unless the program itself has as many.
const REPAIR_BYTES_MAX: usize = 16 * 1024 + 2 * 4096;

/// Notes the job of this process, once, at its start. Without it the process is of no job.
///
/// # Safety
/// Called by the library's constructor before there are threads. `arguments` is the third argument of the constructor:
/// the environment, with glibc; musl gives constructors none, but has set `environ`.
pub unsafe fn remember(argument: List) {
    let environ = libc::environ();
    // SAFETY: libc's environment is valid; where there is none yet it is glibc that calls, with a valid argument.
    let folder = unsafe { variable(if environ.is_null() { argument } else { environ }, JOB_FOLDER_VARIABLE) };
    if let Some(folder) = folder.filter(|folder| !folder.is_empty() && folder.len() <= FOLDER_MAX) {
        // SAFETY: no thread reads before the length is set.
        let mut writer = unsafe { Writer::new(JOB.text.get().cast()) };
        for part in [JOB_FOLDER_VARIABLE.as_bytes(), b"=", folder, b"\0"] {
            writer.write(part);
        }
        JOB.folder_bytes.store(folder.len(), Ordering::Release);
    }
}

/// The job's folder; none in a process that is of no job.
pub fn job_folder() -> Option<&'static CStr> {
    // SAFETY: the folder begins behind `NAME=` and ends with the text.
    assignment().map(|text| unsafe { CStr::from_ptr(text.as_ptr().add(JOB_FOLDER_VARIABLE.len() + 1)) })
}

/// Calls `then` with `environment`, or with one that has what was missing in it, and returns what it returns.
///
/// # Safety
/// `environment` is null or a list of strings that ends with null.
pub unsafe fn repaired(environment: List, then: impl FnOnce(List) -> isize) -> isize {
    let (Some(assignment), Some(folder)) = (assignment(), job_folder()) else { return then(environment) };
    // SAFETY: as the caller promises.
    let Some(repair) = (unsafe { Repair::needed(environment, folder.to_bytes()) }) else { return then(environment) };
    let bytes = repair.bytes();
    if bytes > REPAIR_BYTES_MAX {
        return then(environment);
    }
    // SAFETY: `memory` has as many bytes as `write` asks for, aligned for pointers.
    stack::with(bytes, |memory| then(unsafe { repair.write(memory, environment, assignment) }))
}

/// `SLACKWATER_JOB=folder` in memory that never goes.
struct Job {
    folder_bytes: AtomicUsize,
    text: UnsafeCell<[u8; ASSIGNMENT_MAX]>,
}

// SAFETY: written once, before there are threads, and published by `folder_bytes`.
unsafe impl Sync for Job {}

static JOB: Job = Job { folder_bytes: AtomicUsize::new(0), text: UnsafeCell::new([0; ASSIGNMENT_MAX]) };

fn assignment() -> Option<&'static CStr> {
    if JOB.folder_bytes.load(Ordering::Acquire) == 0 {
        return None;
    }
    // SAFETY: written with its end before the length, and never again.
    Some(unsafe { CStr::from_ptr(JOB.text.get().cast::<c_char>()) })
}

/// What an environment lacks.
struct Repair<'a> {
    folder: &'a [u8],
    /// Variables that it has.
    variables: usize,
    /// What it preloads besides, possibly nothing; none when the library is preloaded already.
    preload: Option<&'a [u8]>,
}

impl<'a> Repair<'a> {
    /// # Safety
    /// As for [`repaired`]; the strings live for `'a`.
    unsafe fn needed(environment: List, folder: &'a [u8]) -> Option<Self> {
        let mut has_job = false;
        let mut preload = None;
        let mut variables = 0;
        // SAFETY: as the caller promises.
        for entry in unsafe { pointers(environment) } {
            variables += 1;
            // SAFETY: as the caller promises.
            match unsafe { value(entry, JOB_FOLDER_VARIABLE) }.map(CStr::to_bytes) {
                Some(other) if other == folder => has_job = true,
                None | Some([]) => {}
                Some(_) => return None,
            }
            // SAFETY: as the caller promises. glibc's linker takes the last one.
            preload = unsafe { value(entry, PRELOAD_VARIABLE) }.or(preload);
        }
        let preload = preload.map(CStr::to_bytes).unwrap_or_default();
        let preloaded = preloads(preload, folder);
        (!has_job || !preloaded).then_some(Self { folder, variables, preload: (!preloaded).then_some(preload) })
    }

    /// Bytes that [`Repair::write`] needs.
    fn bytes(&self) -> usize {
        let text = self.preload_parts().iter().map(|part| part.len()).sum::<usize>();
        (self.variables + 3) * size_of::<*const c_char>() + text
    }

    /// Makes the new list in `memory`.
    ///
    /// # Safety
    /// `memory` has [`Repair::bytes`] bytes and is aligned for pointers; `environment` is what was looked at.
    unsafe fn write(&self, memory: *mut u8, environment: List, assignment: &'static CStr) -> List {
        let list = memory.cast::<*const c_char>();
        // SAFETY: at most all variables, two more and the null; the text lies behind room for as many.
        let mut text = unsafe { Writer::new(list.add(self.variables + 3).cast()) };
        let mut next = list;
        let mut push = |entry: *const c_char| {
            // SAFETY: as above.
            unsafe {
                next.write(entry);
                next = next.add(1);
            }
        };
        if self.preload.is_some() {
            push(text.position().cast_const().cast());
            for part in self.preload_parts() {
                text.write(part);
            }
        }
        push(assignment.as_ptr());
        // SAFETY: as the caller promises.
        for entry in unsafe { pointers(environment) } {
            // SAFETY: as the caller promises.
            let has = |name| unsafe { value(entry, name) }.is_some();
            if !has(JOB_FOLDER_VARIABLE) && (self.preload.is_none() || !has(PRELOAD_VARIABLE)) {
                push(entry);
            }
        }
        push(core::ptr::null());
        list
    }

    /// The new LD_PRELOAD; nothing when there is to be none.
    fn preload_parts(&self) -> [&[u8]; 8] {
        let Some(others) = self.preload else { return [&[]; 8] };
        let colon: &[u8] = if others.is_empty() { b"" } else { b":" };
        let library = LIBRARY_FILE.as_bytes();
        [PRELOAD_VARIABLE.as_bytes(), b"=", self.folder, b"/", library, colon, others, b"\0"]
    }
}

/// Whether a value of LD_PRELOAD has the library of the job in this folder.
fn preloads(value: &[u8], folder: &[u8]) -> bool {
    value.split(|byte| matches!(byte, b':' | b' ')).any(|path| {
        let file = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix(b"/"));
        file == Some(LIBRARY_FILE.as_bytes())
    })
}
