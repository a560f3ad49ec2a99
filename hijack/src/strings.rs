//! Strings and lists of strings as C has them.
#![allow(unsafe_code)] // other people's pointers

use core::ffi::{CStr, c_char};

/// A list of strings that ends with a null pointer: `argv`, `envp`.
pub type List = *const *const c_char;

/// The entries of a list; of none when it is null, as the kernel has it.
///
/// # Safety
/// `list` is null, or a list that ends with a null pointer and lives, with its strings, for `'a`.
pub unsafe fn entries<'a>(list: List) -> impl Iterator<Item = &'a CStr> {
    // SAFETY: the caller's list ends with a null pointer, where this iterator ends; its strings are C strings.
    unsafe { pointers(list).map(|entry| CStr::from_ptr(entry)) }
}

/// The pointers of a list, without the null.
///
/// # Safety
/// As for [`entries`], without the strings.
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

/// The value of an entry `NAME=value` of this name.
pub fn value<'a>(entry: &'a CStr, name: &str) -> Option<&'a [u8]> {
    entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// The value of the variable `name` in an environment, the first one, as getenv(3) has it.
///
/// # Safety
/// As for [`entries`].
pub unsafe fn variable<'a>(environment: List, name: &str) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    unsafe { entries(environment) }.find_map(|entry| value(entry, name))
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
