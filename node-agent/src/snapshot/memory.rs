//! Mappings and what is behind them.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use node_agent_image::model::{Backing, FileIdentity, ObjectIndex, Vma};
use node_agent_proc::maps::{self, Area};
use xxhash_rust::xxh3::Xxh3;

use super::process::Source;
use super::{SnapshotError, read};

/// VmFlags that a restart has to apply.
const FLAGS: [&str; 10] = ["lo", "gd", "dc", "dd", "wf", "hg", "nh", "mg", "nr", "ht"];
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
}

/// The mappings of a process but the control segment and vsyscall.
pub fn vmas(source: &Source, objects: &mut dyn MappedObjects) -> Result<Vec<Vma>, SnapshotError> {
    let text = read(source.host_pid, source.pid, "maps")?;
    let areas = maps::parse(&text).map_err(|_| SnapshotError::Text { pid: source.pid, what: "maps" })?;
    let flags = maps::flags(&read(source.host_pid, source.pid, "smaps")?);
    let segment = source.facts.segment_address;
    let segment = segment..segment + size_of::<hijack_abi::Segment>() as u64;
    let mut vmas = Vec::with_capacity(areas.len());
    for area in areas.iter().filter(|it| !segment.contains(&it.start) && it.path != b"[vsyscall]") {
        let own = flags.get(&area.start).map(Vec::as_slice).unwrap_or_default();
        vmas.push(Vma {
            start: area.start,
            end: area.end,
            protection: area.protection,
            shared: area.shared,
            backing: backing(source, area, objects)?,
            flags: own.iter().filter(|it| FLAGS.contains(&it.as_str())).cloned().collect(),
        });
    }
    Ok(vmas)
}

fn backing(source: &Source, area: &Area, objects: &mut dyn MappedObjects) -> Result<Backing, SnapshotError> {
    let path = String::from_utf8_lossy(&area.path).into_owned();
    let error = |source_error| SnapshotError::Read { pid: source.pid, what: path.clone(), source: source_error };
    let special = match path.as_str() {
        "[heap]" => Some(Backing::Heap),
        "[stack]" => Some(Backing::Stack),
        name if name.starts_with("[vvar") || name == "[vdso]" => Some(Backing::Vdso(path.clone())),
        "[uprobes]" => {
            return Err(SnapshotError::Refused { pid: source.pid, reason: "a tracer has uprobes in it".into() });
        }
        _ => None,
    };
    if let Some(special) = special {
        return Ok(special);
    }
    if area.inode == 0 && !area.shared {
        return Ok(Backing::Anonymous);
    }
    let writable = area.shared && area.protection & libc::PROT_WRITE as u32 != 0;
    if area.path.ends_with(DELETED) || !path.starts_with('/') || path.starts_with("/dev/shm/") || writable {
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
