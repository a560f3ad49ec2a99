//! The search along PATH, as glibc's `execvp` does it.
#![allow(unsafe_code)] // writes paths to the stack

use core::ffi::{CStr, c_char};

use crate::libc;
use crate::stack;
use crate::strings::{Writer, variable};

/// Where to look without PATH.
const DEFAULT: &[u8] = b"/bin:/usr/bin";
/// The longest file name, and the most of PATH that is looked at.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;
const ENOENT: isize = -2;
const EACCES: isize = -13;
const ENODEV: isize = -19;
const ENOTDIR: isize = -20;
const ENAMETOOLONG: isize = -36;
const ETIMEDOUT: isize = -110;
const ESTALE: isize = -116;

/// Calls `exec`, which returns the kernel's error, for `file` in each folder of PATH until one is decisive. A name with
/// a slash is no matter of PATH.
pub fn along_path(file: &CStr, exec: impl Fn(*const c_char) -> isize) -> isize {
    let name = file.to_bytes();
    if name.is_empty() {
        return ENOENT;
    }
    if name.contains(&b'/') {
        return exec(file.as_ptr());
    }
    if name.len() > NAME_MAX {
        return ENAMETOOLONG;
    }
    // SAFETY: the process's own environment.
    let path = unsafe { variable(libc::environ(), "PATH") }.unwrap_or(DEFAULT);
    let longest = path.len().min(PATH_MAX - 1);
    stack::with(longest + 1 + name.len() + 1, |memory| {
        let mut denied = false;
        let mut last = ENOENT;
        for folder in path.split(|byte| *byte == b':').filter(|folder| folder.len() <= longest) {
            // SAFETY: there is room for the longest folder, a slash, the name and its end.
            let mut writer = unsafe { Writer::new(memory) };
            writer.write(folder);
            // An empty folder is the current one.
            writer.write(if folder.is_empty() { b"" } else { b"/" });
            writer.write(file.to_bytes_with_nul());
            last = exec(memory.cast_const().cast());
            match last {
                EACCES => denied = true,
                // Not there, or on a file system that cannot say better: look on.
                ENOENT | ESTALE | ENOTDIR | ENODEV | ETIMEDOUT => {}
                _ => return last,
            }
        }
        // It was there and may not be executed: worth more than "not found" in the last folder.
        if denied { EACCES } else { last }
    })
}
