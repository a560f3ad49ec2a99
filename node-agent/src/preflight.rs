//! What can be seen, without stopping anybody, to make a checkpoint impossible: programs that the library is not in, and
//! descriptors of kinds that nobody can save.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hijack_abi::LIBRARY_FILE;
use thiserror::Error;

use crate::segment::MAPPED_AS;

/// What the name of a descriptor or of a mapping begins with, and why it is in the way.
const KINDS: [(&str, &str); 4] = [
    ("anon_inode:[io_uring]", "io_uring is not done yet: most programs have a switch to do without"),
    ("/dev/xpmem", "XPMEM memory cannot be saved: start with `UCX_TLS=posix,sysv,cma` or vader's `cma`"),
    ("/dev/knem", "KNEM memory cannot be saved: start with `UCX_TLS=posix,sysv,cma` or vader's `cma`"),
    ("/dev/nvidia", "CUDA is not done yet"),
];
/// Bytes of an ELF header of 64 bits.
const ELF_HEADER_BYTES: usize = 64;
/// Bytes of an ELF program header, and how many of them a sane program has at most.
const PROGRAM_HEADER_BYTES: usize = 56;
const PROGRAM_HEADERS_MAX: usize = 1024;
/// Bytes of an environment, at most: the kernel's limit for arguments and environment together, execve(2).
const ENVIRONMENT_BYTES_MAX: usize = 6 << 20;
/// The segment that names the dynamic loader.
const PT_INTERP: u32 = 3;

/// Why a process cannot be checkpointed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("pid {pid} ({program}): {reason}")]
pub struct Offence {
    /// As the caller sees it.
    pub pid: u32,
    /// Its path.
    pub program: String,
    #[allow(missing_docs)]
    pub reason: String,
}

/// What is in the way, for each of these processes. One that is gone meanwhile is no offence.
#[must_use]
pub fn check(pids: impl IntoIterator<Item = u32>) -> Vec<Offence> {
    pids.into_iter().flat_map(of_process).collect()
}

/// Why a process does not have the library and never will; `None` when it has, or when it may only just have been
/// executed.
#[must_use]
pub fn unloaded(pid: u32) -> Option<String> {
    let process = Path::new("/proc").join(pid.to_string());
    let maps = fs::read_to_string(process.join("maps")).ok()?;
    if maps.is_empty() || shows_library(&maps) { None } else { without_library(&process) }
}

/// Whether a process has the library: its file, or, in a later life, where that may be an upgraded one, the segment.
#[must_use]
pub fn shows_library(maps: &str) -> bool {
    maps.contains(LIBRARY_FILE) || maps.contains(MAPPED_AS)
}

/// What is in the way with one process.
fn of_process(pid: u32) -> Vec<Offence> {
    let process = Path::new("/proc").join(pid.to_string());
    let program = fs::read_link(process.join("exe")).map_or_else(|_| "unknown".into(), |it| it.display().to_string());
    let offence = |reason: String| Offence { pid, program: program.clone(), reason };
    match fs::read_to_string(process.join("maps")) {
        // Gone, or on its way out: a zombie has no mappings.
        Ok(maps) if maps.is_empty() => Vec::new(),
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Vec::new(),
        Err(_) => {
            let reason = "it may not be looked into: a setuid or an unreadable program; run a copy that you own";
            vec![offence(reason.into())]
        }
        Ok(maps) => {
            let library = if shows_library(&maps) { None } else { without_library(&process) };
            let names = maps.lines().filter_map(|line| line.split_whitespace().nth(5).map(str::to_owned));
            let files = descriptors(&process).map(|(number, name)| (format!("descriptor {number}, {name}"), name));
            let mappings = names.map(|name| (format!("mapping of {name}"), name));
            let kinds = files.chain(mappings).filter_map(|(what, name)| Some(format!("{what}: {}", trouble(&name)?)));
            let mut reasons: Vec<String> = library.into_iter().chain(kinds).collect();
            reasons.dedup();
            reasons.into_iter().map(offence).collect()
        }
    }
}

/// Numbers and names of descriptors.
fn descriptors(process: &Path) -> impl Iterator<Item = (String, String)> {
    let entries = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), name.to_string_lossy().into_owned()))
    })
}

fn trouble(name: &str) -> Option<&'static str> {
    KINDS.iter().find(|(kind, _)| name.starts_with(kind)).map(|(_, reason)| *reason)
}

/// Why the library is not in a process; `None` when its loader may be about to load it.
fn without_library(process: &Path) -> Option<String> {
    let exe = process.join("exe");
    if fs::metadata(&exe).is_ok_and(|about| about.mode() & (libc::S_ISUID | libc::S_ISGID) != 0) {
        return Some("it is setuid, and the kernel drops preloaded libraries: run a copy that you own".into());
    }
    if let Ok(false) = File::open(&exe).and_then(|mut file| names_loader(&mut file)) {
        let reason = "it is statically linked, and the library that parks threads is preloaded: link it dynamically";
        return Some(reason.into());
    }
    let environment = environment(process).unwrap_or_default();
    // The kernel gives a new program its environment a moment after its memory: an empty one may mean that.
    (!environment.is_empty() && !asks_for_library(&environment))
        .then(|| format!("it has not loaded {LIBRARY_FILE}: something has cleaned LD_PRELOAD out of its environment"))
}

/// A process's environment, by one call: between two it may execute another program, and the rest is missing then.
fn environment(process: &Path) -> io::Result<Vec<u8>> {
    let mut environment = vec![0; ENVIRONMENT_BYTES_MAX];
    let length = File::open(process.join("environ"))?.read(&mut environment)?;
    environment.truncate(length);
    Ok(environment)
}

/// Whether an environment makes the loader load the library.
fn asks_for_library(environment: &[u8]) -> bool {
    environment.split(|byte| *byte == 0).any(|variable| {
        let value = variable.strip_prefix(b"LD_PRELOAD=").unwrap_or_default();
        value.windows(LIBRARY_FILE.len()).any(|it| it == LIBRARY_FILE.as_bytes())
    })
}

/// Whether an ELF program asks for the dynamic loader.
fn names_loader(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    let mut header = [0; ELF_HEADER_BYTES];
    file.read_exact(&mut header)?;
    // elf(5): magic, class 2 = 64 bits, data 1 = little-endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let short = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let offset = header[32..].first_chunk::<8>().map_or(0, |it| u64::from_le_bytes(*it));
    let (size, count) = (short(54), short(56));
    if size != PROGRAM_HEADER_BYTES || count > PROGRAM_HEADERS_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut table = vec![0; size * count];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut table)?;
    Ok(table.chunks_exact(size).any(|it| it.starts_with(&PT_INTERP.to_le_bytes())))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn program(kinds: &[u32]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(ELF_HEADER_BYTES, 0);
        bytes[32] = ELF_HEADER_BYTES as u8;
        bytes[54] = PROGRAM_HEADER_BYTES as u8;
        bytes[56] = kinds.len() as u8;
        for kind in kinds {
            bytes.extend(kind.to_le_bytes());
            bytes.resize(bytes.len() + PROGRAM_HEADER_BYTES - 4, 0);
        }
        bytes
    }

    #[test]
    fn static_and_dynamic_programs() {
        assert!(names_loader(&mut Cursor::new(program(&[6, PT_INTERP, 1]))).unwrap());
        assert!(!names_loader(&mut Cursor::new(program(&[1, 1]))).unwrap());
        assert!(names_loader(&mut File::open("/proc/self/exe").unwrap()).is_ok());
    }

    #[test]
    fn bad_programs_are_errors() {
        let whole = program(&[1, PT_INTERP]);
        for cut in 0..whole.len() {
            assert!(names_loader(&mut Cursor::new(&whole[..cut])).is_err(), "{cut}");
        }
        assert!(names_loader(&mut Cursor::new(b"#!/bin/sh\n".repeat(20))).is_err());
    }

    #[test]
    fn environments() {
        assert!(asks_for_library(b"A=1\0LD_PRELOAD=/tmp/x/libckpt_hijack.so:/usr/lib/other.so\0B=2\0"));
        for text in ["", "A=1\0", "LD_PRELOAD=\0", "OLD_LD_PRELOAD=/tmp/libckpt_hijack.so\0"] {
            assert!(!asks_for_library(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn one_that_is_gone_is_no_offence() {
        assert_eq!(check([u32::MAX]), []);
    }

    #[test]
    fn a_program_outside_of_jobs_lacks_the_library() {
        use std::process::{Command, Stdio};
        let mut child = Command::new("cat").env("OF_NO_JOB", "1").stdin(Stdio::piped()).spawn().unwrap();
        // What is said of it while it is being executed is nothing.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut found = check([child.id()]);
        while found.is_empty() && std::time::Instant::now() < end {
            found = check([child.id()]);
        }
        assert!(found.iter().any(|it| it.to_string().contains("LD_PRELOAD")), "{found:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
