//! Where the bytes of an object are read from.
#![allow(clippy::single_range_in_vec_init)] // a list of ranges that begins with one is what is meant

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::unistd::{Whence, lseek};
use node_agent_image::model::{Backing, ObjectIndex, ObjectKind, Vma};
use node_agent_proc::maps::Area;

use super::open::Readable;
use super::{Entry, ObjectsError};
use crate::memory::{Bytes, Owner, Source, Stretch, pages};

const PAGE: u64 = 4096;

/// A mapping of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    host_pid: u32,
    start: u64,
    end: u64,
    offset: u64,
    readable: bool,
    private: bool,
}

impl Window {
    pub fn new(host_pid: u32, area: &Area) -> Self {
        let readable = area.protection & libc::PROT_READ as u32 != 0;
        Self { host_pid, start: area.start, end: area.end, offset: area.offset, readable, private: !area.shared }
    }

    /// Offset where the object ends that is at least `known` bytes long, as far as this window tells: a mapping may be
    /// longer than what is behind it (a deleted file, a mapping that mremap has made longer), and what lies behind the
    /// end cannot be read.
    ///
    /// # Errors
    /// When the process's memory cannot be read at all.
    pub fn reach(&self, known: u64) -> io::Result<u64> {
        let end = self.offset + (self.end - self.start);
        if end <= known {
            return Ok(known);
        }
        let memory = File::open(format!("/proc/{}/mem", self.host_pid))?;
        let there = |page: u64| memory.read_exact_at(&mut [0], self.start + page * PAGE).is_ok();
        let pages = (self.end - self.start) / PAGE;
        if there(pages - 1) {
            return Ok(end);
        }
        let (mut low, mut high) = (0, pages - 1);
        while low < high {
            let middle = low.midpoint(high);
            if there(middle) { low = middle + 1 } else { high = middle }
        }
        Ok(known.max(if low == 0 { 0 } else { self.offset + low * PAGE }))
    }

    /// Offsets that can be read here. Where a private mapping has pages of its own the object's are not to be seen.
    fn offsets(&self) -> io::Result<Vec<Range<u64>>> {
        let mut offsets = vec![self.offset..self.offset + (self.end - self.start)];
        if self.private {
            let vma = Vma {
                start: self.start,
                end: self.end,
                backing: Backing::Object { object: 0, offset: self.offset },
                ..Vma::default()
            };
            for own in pages::private(self.host_pid, &[vma])? {
                let at = |address: u64| address - self.start + self.offset;
                subtract(&mut offsets, &(at(own.start)..at(own.end)));
            }
        }
        Ok(offsets)
    }
}

/// Appends where the bytes of `entry` are.
pub fn sources(index: ObjectIndex, entry: &Entry, sources: &mut Vec<Source>) -> Result<(), ObjectsError> {
    let size = entry.object.size.next_multiple_of(PAGE);
    if size == 0 {
        return Ok(());
    }
    let error = |source| ObjectsError::Contents { object: name(entry), source };
    let Some(readable) = &entry.file else {
        let missing = from_windows(index, entry, size, sources).map_err(error)?;
        return match (missing.first(), &entry.object.kind) {
            // What nobody has mapped nobody can come to see again, but for a segment that can be attached anew.
            (Some(part), ObjectKind::SysV { removed: false, .. }) => {
                Err(ObjectsError::Unmapped { object: name(entry), start: part.start, end: part.end })
            }
            _ => Ok(()),
        };
    };
    let stretches = data(readable, size);
    if !stretches.is_empty() {
        let file = readable.file.try_clone().map_err(error)?;
        sources.push(Source { owner: Owner::Object(index), bytes: Bytes::File(file), stretches });
    }
    Ok(())
}

fn name(entry: &Entry) -> String {
    match &entry.object.kind {
        ObjectKind::Anonymous => "anonymous shared memory".into(),
        ObjectKind::Memfd { name, .. } => format!("memfd {name}"),
        ObjectKind::SysV { id, .. } => format!("System V segment {id}"),
        ObjectKind::Named { file } | ObjectKind::Spare { file } => file.path.clone(),
        ObjectKind::Deleted { path } => format!("{path} (deleted)"),
    }
}

fn stretch(range: &Range<u64>) -> Stretch {
    Stretch { start: range.start, end: range.end, keep_zeros: false }
}

/// What is no hole of a file, in whole pages. A file system that knows of no holes has none.
fn data(readable: &Readable, size: u64) -> Vec<Stretch> {
    if !readable.own_offset {
        return vec![stretch(&(0..size))];
    }
    let seek = |from: u64, whence| lseek(&readable.file, from as i64, whence).map(|it| it as u64);
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(at, Whence::SeekData) {
            Ok(start) => start / PAGE * PAGE,
            Err(nix::Error::ENXIO) => break,
            Err(_) => at,
        };
        let hole = seek(start.max(at), Whence::SeekHole).unwrap_or(size);
        let end = hole.next_multiple_of(PAGE).min(size);
        match stretches.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => stretches.push(stretch(&(start..end))),
        }
        at = end;
    }
    stretches
}

/// Each offset once, from whoever has it mapped, those first who may read it. Returns what nobody has.
fn from_windows(
    index: ObjectIndex,
    entry: &Entry,
    size: u64,
    sources: &mut Vec<Source>,
) -> io::Result<Vec<Range<u64>>> {
    let mut windows = entry.windows.clone();
    windows.sort_by_key(|it| (it.private, !it.readable));
    let mut missing = vec![0..size];
    for window in windows {
        if missing.is_empty() {
            break;
        }
        let mut stretches = Vec::new();
        for range in window.offsets()? {
            stretches.extend(subtract(&mut missing, &range).iter().map(stretch));
        }
        if !stretches.is_empty() {
            let bytes = Bytes::Memory { pid: window.host_pid, base: window.start.wrapping_sub(window.offset) };
            sources.push(Source { owner: Owner::Object(index), bytes, stretches });
        }
    }
    Ok(missing)
}

/// Takes `range` out of ascending ranges; returns what was there of it.
fn subtract(ranges: &mut Vec<Range<u64>>, range: &Range<u64>) -> Vec<Range<u64>> {
    let (mut rest, mut taken) = (Vec::with_capacity(ranges.len() + 1), Vec::new());
    for it in ranges.drain(..) {
        let common = it.start.max(range.start)..it.end.min(range.end);
        if common.is_empty() {
            rest.push(it);
            continue;
        }
        rest.extend([it.start..common.start, common.end..it.end].into_iter().filter(|it| !it.is_empty()));
        taken.push(common);
    }
    *ranges = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_once() {
        let mut ranges = vec![0..10];
        assert_eq!(subtract(&mut ranges, &(3..5)), [3..5]);
        assert_eq!(ranges, [0..3, 5..10]);
        assert_eq!(subtract(&mut ranges, &(2..7)), [2..3, 5..7]);
        assert_eq!(ranges, [0..2, 7..10]);
        assert!(subtract(&mut ranges, &(2..7)).is_empty());
        assert_eq!(subtract(&mut ranges, &(0..20)), [0..2, 7..10]);
        assert!(ranges.is_empty());
    }

    #[test]
    fn a_window_that_begins_far_into_its_file_has_a_base_below_zero() {
        let area = Area { start: 0x1000, end: 0x3000, offset: 0x10_0000, shared: true, ..Area::default() };
        let window = Window::new(1, &area);
        assert_eq!(window.start.wrapping_sub(window.offset).wrapping_add(0x10_1000), 0x2000);
    }
}
