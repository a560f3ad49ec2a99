//! Strings and lists of strings as C has them.
#![allow(unsafe_code)] // other people's pointers

use core::ffi::{CStr, c_char};

/// A list of strings that ends with a null pointer: `argv`, `envp`.
pub type List = *const *const c_char;

/// The pointers of a list, without the null; of none when it is null, as the kernel has it.
///
/// # Safety
/// `list` is null, or a list that ends with a null pointer.
pub unsafe fn pointers(list: List) -> impl Iterator<Item = *const c_char> {
    let mut next = list;
    core::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: not beyond the null pointer that ends the list: there `next` stays.
        let entry = unsafe { *next };
        if entry.is_null() {
            return None;
        }
        // SAFETY: the list goes on behind an entry that is not null.
        next = unsafe { next.add(1) };
        Some(entry)
    })
}

/// The value of an entry `NAME=value` of this name. Reads no further than it has to: environments are long, and looked
/// through at every start and every exec.
///
/// # Safety
/// `entry` is a C string that lives for `'a`.
pub unsafe fn value<'a>(entry: *const c_char, name: &str) -> Option<&'a CStr> {
    let wanted = name.bytes().chain([b'=']);
    // SAFETY: a byte is read only when all before it were those of the name, so none of them was the string's end; what
    // follows the name is a C string, too.
    unsafe {
        wanted
            .enumerate()
            .all(|(at, byte)| *entry.add(at) as u8 == byte)
            .then(|| CStr::from_ptr(entry.add(name.len() + 1)))
    }
}

/// The value of the variable `name` in an environment, the first one, as getenv(3) has it.
///
/// # Safety
/// `environment` is null, or a list that ends with a null pointer and lives, with its strings, for `'a`.
pub unsafe fn variable<'a>(environment: List, name: &str) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    unsafe { pointers(environment).find_map(|entry| value(entry, name)) }.map(CStr::to_bytes)
}

/// Whether an environment has one of these variables.
///
/// # Safety
/// As for [`variable`].
pub unsafe fn has_one_of(environment: List, names: &[&str]) -> bool {
    // SAFETY: as the caller promises.
    unsafe { pointers(environment).any(|entry| names.iter().any(|name| value(entry, name).is_some())) }
}

/// Writes bytes one behind the other into memory that is known to be large enough.
pub struct Writer {
    at: *mut u8,
}

impl Writer {
    /// Begins at `at`.
    ///
    /// # Safety
    /// All that will be written has room at `at`, and nobody else looks there meanwhile.
    pub unsafe fn new(at: *mut u8) -> Self {
        Self { at }
    }

    /// Where the next byte goes.
    pub fn position(&self) -> *mut u8 {
        self.at
    }

    /// Writes `bytes`.
    pub fn write(&mut self, bytes: &[u8]) {
        // SAFETY: there is room, says who made this writer, and these bytes are not in it.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at, bytes.len());
            self.at = self.at.add(bytes.len());
        }
    }
}
