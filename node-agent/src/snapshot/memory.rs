//! Mappings and what is behind them.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use node_agent_image::model::{Backing, FileIdentity, ObjectIndex, Vma};
use node_agent_proc::maps::{self, Area};
use xxhash_rust::xxh3::Xxh3;

use super::process::Source;
use super::{SnapshotError, flags, read};

const DELETED: &[u8] = b" (deleted)";
/// Bytes read at once for a hash.
const CHUNK: usize = 1 << 20;

/// Where shared memory and deleted files are entered whose contents belong in the image.
pub trait MappedObjects {
    /// The object behind a mapping of the process `host_pid`; the same one for the same inode.
    ///
    /// # Errors
    /// When it cannot be looked at.
    fn mapped(&mut self, host_pid: u32, area: &Area) -> io::Result<ObjectIndex>;

    /// Whether the bytes behind a mapping belong in the image rather than to the file system. What other processes do
    /// with the same file may decide.
    fn keeps(&self, area: &Area) -> bool {
        belongs_in_image(area)
    }

    /// VmFlags of `areas`, all those of the process, by start address.
    ///
    /// # Errors
    /// When they cannot be read.
    fn flags(&mut self, host_pid: u32, _areas: &[Area]) -> io::Result<HashMap<u64, Vec<String>>> {
        flags::flags_now(host_pid)
    }
}

/// What a mapping alone tells: shared memory, deleted files, and files that the process writes to through it.
#[must_use]
pub fn belongs_in_image(area: &Area) -> bool {
    let writable = area.shared && area.protection & libc::PROT_WRITE as u32 != 0;
    writable || area.path.ends_with(DELETED) || !area.path.starts_with(b"/") || area.path.starts_with(b"/dev/shm/")
}

/// The mappings of a process but the control segment and vsyscall.
pub fn vmas(source: &Source, objects: &mut dyn MappedObjects) -> Result<Vec<Vma>, SnapshotError> {
    let text = read(source.host_pid, source.pid, "maps")?;
    let areas = maps::parse(&text).map_err(|_| SnapshotError::Text { pid: source.pid, what: "maps" })?;
    let error = |error| SnapshotError::Read { pid: source.pid, what: "smaps".into(), source: error };
    let known = objects.flags(source.host_pid, &areas).map_err(error)?;
    let segment = source.facts.segment_address;
    let segment = segment..segment + size_of::<hijack_abi::Segment>() as u64;
    let mut vmas = Vec::with_capacity(areas.len());
    for area in areas.iter().filter(|it| !segment.contains(&it.start) && it.path != b"[vsyscall]") {
        let mut flags = flags::kept(area, known.get(&area.start).map(Vec::as_slice).unwrap_or_default());
        if is_own_library(area) {
            flags.push(flags::WHOLE.into());
        }
        vmas.push(Vma {
            start: area.start,
            end: area.end,
            protection: area.protection,
            shared: area.shared,
            backing: backing(source, area, objects)?,
            flags,
        });
    }
    Ok(vmas)
}

/// The library that parks: an upgrade, or a move to another node, has another file in its place.
fn is_own_library(area: &Area) -> bool {
    let path = area.path.strip_suffix(DELETED).unwrap_or(&area.path);
    let name = path.rsplit(|byte| *byte == b'/').next();
    !area.shared && path.starts_with(b"/") && name == Some(hijack_abi::LIBRARY_FILE.as_bytes())
}

/// Private memory that no file shines through, though a name is shown: MAP_HUGETLB, and /dev/zero of old.
fn is_anonymous(area: &Area) -> bool {
    const NAMES: [&[u8]; 2] = [b"/anon_hugepage (deleted)", b"/dev/zero"];
    !area.shared && (area.inode == 0 || NAMES.contains(&area.path.as_slice()))
}

fn backing(source: &Source, area: &Area, objects: &mut dyn MappedObjects) -> Result<Backing, SnapshotError> {
    let path = String::from_utf8_lossy(&area.path).into_owned();
    let error = |source_error| SnapshotError::Read { pid: source.pid, what: path.clone(), source: source_error };
    match path.as_str() {
        "[heap]" => return Ok(Backing::Heap),
        "[stack]" => return Ok(Backing::Stack),
        name if name.starts_with("[vvar") || name == "[vdso]" => return Ok(Backing::Vdso(path)),
        "[uprobes]" => {
            return Err(SnapshotError::Refused { pid: source.pid, reason: "a tracer has uprobes in it".into() });
        }
        _ if is_anonymous(area) || is_own_library(area) => return Ok(Backing::Anonymous),
        _ => {}
    }
    if objects.keeps(area) {
        let object = objects.mapped(source.host_pid, area).map_err(error)?;
        return Ok(Backing::Object { object, offset: area.offset });
    }
    let seen = format!("/proc/{}/root{path}", source.host_pid);
    let now = fs::metadata(&seen).map_err(error)?;
    if now.file_type().is_char_device() {
        return Ok(Backing::Device(path));
    }
    if now.ino() != area.inode {
        let reason = format!("{path} was replaced after it had been mapped");
        return Err(SnapshotError::Refused { pid: source.pid, reason });
    }
    Ok(Backing::File { file: identity(&path, &now), offset: area.offset })
}

fn identity(path: &str, now: &fs::Metadata) -> FileIdentity {
    FileIdentity {
        path: path.into(),
        device: now.dev(),
        inode: now.ino(),
        size: now.size(),
        modified_ns: now.mtime().saturating_mul(1_000_000_000).saturating_add(now.mtime_nsec()),
        hash: String::new(),
    }
}

/// A file as it is now, without its hash.
///
/// # Errors
/// Of stat.
pub fn identify(path: &str) -> io::Result<FileIdentity> {
    fs::metadata(path).map(|now| identity(path, &now))
}

/// XXH3-128 of a file's bytes, 32 hex digits.
///
/// # Errors
/// Of open and read.
pub fn hash_file(path: &str) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:032x}", hash.digest128())),
            length => hash.update(&buffer[..length]),
        }
    }
}
