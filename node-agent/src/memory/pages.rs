//! Which pages of private memory have to be stored.
//!
//! | mapping | stored |
//! |---|---|
//! | anonymous, heap, stack | present or swapped out, but not the zero page |
//! | private, of a file or an object | those that are no longer the file's; zeros too, or the file would shine through |
//! | of our own library (flag [`WHOLE`]) | all: another installation has another file |
//! | shared, device, vDSO | none |
//!
//! Guard regions hold nothing and cannot be read: left out. PROT_NONE hides contents and does not take them away.
#![allow(unsafe_code)] // one ioctl that nix has not

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use node_agent_image::model::{Backing, Vma};

use super::Stretch;
use crate::snapshot::WHOLE;

const PAGE: u64 = 4096;
/// Regions that one PAGEMAP_SCAN tells.
const REGIONS: usize = 1024;
/// Pages that are looked up by one read of pagemap.
const ENTRIES: usize = 8192;
/// `_IOWR('f', 16, struct pm_scan_arg)`, 96 bytes.
const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const IS_ZERO_PAGE: u64 = 1 << 5;
/// Linux 6.15; a category that an older kernel refuses as invalid.
const IS_GUARD: u64 = 1 << 8;

/// Stretches of the private memory of process `pid`, as this process numbers it, that have to be stored. Usually a
/// frozen twin of the process that `vmas` describe, with the same layout. `vmas` in ascending order.
///
/// # Errors
/// When /proc/PID/pagemap cannot be read.
pub fn private(pid: u32, vmas: &[Vma]) -> io::Result<Vec<Stretch>> {
    let mut stretches = Vec::new();
    let mut pagemap = Pagemap::open(pid)?;
    for vma in vmas {
        let first = stretches.len();
        match class(vma) {
            Class::Nothing => {}
            Class::Whole => stretches.push(Stretch { start: vma.start, end: vma.end, keep_zeros: false }),
            Class::Pages { over_file } => pagemap.pages(vma, over_file, &mut stretches)?,
        }
        join(&mut stretches, first, vmas);
    }
    Ok(stretches)
}

/// True for memory that a fork leaves out, empties, or may not have pages for: it is read from the parked process itself.
#[must_use]
pub fn not_in_twin(vma: &Vma) -> bool {
    let has = |flag: &str| vma.flags.iter().any(|it| it == flag);
    has("dc") || has("wf") || (has("ht") && !vma.shared)
}

enum Class {
    Nothing,
    Whole,
    Pages { over_file: bool },
}

fn class(vma: &Vma) -> Class {
    if vma.shared {
        return Class::Nothing;
    }
    match vma.backing {
        Backing::Vdso(_) | Backing::Device(_) => Class::Nothing,
        _ if vma.flags.iter().any(|it| it == WHOLE) => Class::Whole,
        Backing::Anonymous | Backing::Heap | Backing::Stack => Class::Pages { over_file: false },
        Backing::File { .. } | Backing::Object { .. } => Class::Pages { over_file: true },
    }
}

/// Joins the stretch at `first` to the one before it, unless one of the two can be read and the other cannot: the quick
/// way of reading stops at memory without PROT_READ.
fn join(stretches: &mut Vec<Stretch>, first: usize, vmas: &[Vma]) {
    if first == 0 || first >= stretches.len() {
        return;
    }
    let (last, next) = (stretches[first - 1], stretches[first]);
    let readable = |address: u64| {
        let at = vmas.partition_point(|it| it.end <= address);
        vmas[at].protection & libc::PROT_READ as u32
    };
    let same_kind = last.keep_zeros == next.keep_zeros && last.end == next.start;
    if same_kind && readable(last.end - 1) == readable(next.start) {
        stretches[first - 1].end = next.end;
        stretches.remove(first);
    }
}

fn push(stretches: &mut Vec<Stretch>, first: usize, next: Stretch) {
    match stretches[first..].last_mut() {
        Some(last) if last.end == next.start => last.end = next.end,
        _ => stretches.push(next),
    }
}

/// /proc/PID/pagemap, and which of its two ways this kernel has.
struct Pagemap {
    file: File,
    way: Way,
    regions: Vec<Region>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// PAGEMAP_SCAN that knows guard regions.
    ScanGuards,
    /// PAGEMAP_SCAN of Linux 6.7.
    Scan,
    /// Eight bytes for each page.
    Read,
}

/// struct page_region.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// struct pm_scan_arg.
#[repr(C)]
#[derive(Debug, Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    pages_max: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    returned: u64,
}

impl Pagemap {
    fn open(pid: u32) -> io::Result<Self> {
        Self::with(pid, Way::ScanGuards)
    }

    fn with(pid: u32, way: Way) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/pagemap"))?;
        Ok(Self { file, way, regions: vec![Region::default(); REGIONS] })
    }

    /// Appends the pages of one mapping.
    fn pages(&mut self, vma: &Vma, over_file: bool, stretches: &mut Vec<Stretch>) -> io::Result<()> {
        let first = stretches.len();
        while self.way != Way::Read {
            match self.scan(vma, over_file, stretches, first) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => {
                    stretches.truncate(first);
                    self.way = if self.way == Way::ScanGuards { Way::Scan } else { Way::Read };
                }
                other => return other,
            }
        }
        self.read(vma, over_file, stretches, first)
    }

    fn scan(&mut self, vma: &Vma, over_file: bool, stretches: &mut Vec<Stretch>, first: usize) -> io::Result<()> {
        // Whether a page is a file's is only asked where there is one: it makes the scan four times as slow (16 against
        // 4 ms for 1 GiB in small pages), since each page's own record has to be fetched.
        let not_file = if over_file { IS_FILE } else { 0 };
        let not_guard = if self.way == Way::ScanGuards { IS_GUARD } else { 0 };
        let none_of = IS_ZERO_PAGE | not_file | not_guard;
        let mut start = vma.start;
        while start < vma.end {
            let mut arguments = ScanArguments {
                size: size_of::<ScanArguments>() as u64,
                start,
                end: vma.end,
                regions: self.regions.as_mut_ptr() as u64,
                regions_len: REGIONS as u64,
                inverted: none_of,
                all_of: none_of,
                any_of: IS_PRESENT | IS_SWAPPED,
                ..ScanArguments::default()
            };
            // SAFETY: arguments and regions outlive the call and are as long as they say; the kernel writes to both.
            let found = unsafe { libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) };
            if found < 0 {
                return Err(io::Error::last_os_error());
            }
            let regions = &self.regions[..found as usize];
            for region in regions {
                push(stretches, first, Stretch { start: region.start, end: region.end, keep_zeros: over_file });
            }
            // Full: it goes on behind the last one. The kernel's own `walk_end` may be that of an earlier pause.
            start = if regions.len() == REGIONS { regions[REGIONS - 1].end } else { vma.end };
        }
        Ok(())
    }

    /// Zero pages cannot be told from others here: they are seen when they are read.
    fn read(&self, vma: &Vma, over_file: bool, stretches: &mut Vec<Stretch>, first: usize) -> io::Result<()> {
        const PRESENT_OR_SWAPPED: u64 = 3 << 62;
        const FILE: u64 = 1 << 61;
        const GUARD: u64 = 1 << 58;
        let mut buffer = vec![0; ENTRIES * 8];
        let mut start = vma.start;
        while start < vma.end {
            let pages = ((vma.end - start) / PAGE).min(ENTRIES as u64);
            let buffer = &mut buffer[..pages as usize * 8];
            self.file.read_exact_at(buffer, start / PAGE * 8)?;
            for (page, entry) in (0..).zip(buffer.chunks_exact(8)) {
                let entry = entry.try_into().map(u64::from_ne_bytes).unwrap_or_default();
                if entry & PRESENT_OR_SWAPPED != 0 && entry & (FILE | GUARD) == 0 {
                    let at = start + page * PAGE;
                    push(stretches, first, Stretch { start: at, end: at + PAGE, keep_zeros: over_file });
                }
            }
            start += pages * PAGE;
        }
        Ok(())
    }
}
