//! /proc/PID/pagemap: which pages of a private mapping are the process's own.
#![allow(unsafe_code)] // one ioctl that nix has not

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use node_agent_image::model::Vma;

use super::Stretch;

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

/// /proc/PID/pagemap, and which of its two ways this kernel has.
pub struct Pagemap {
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
    pub fn open(pid: u32) -> io::Result<Self> {
        Self::with(pid, Way::ScanGuards)
    }

    fn with(pid: u32, way: Way) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/pagemap"))?;
        Ok(Self { file, way, regions: vec![Region::default(); REGIONS] })
    }

    /// Appends the pages of one mapping. `over_file`: a file or an object is behind it, whose own pages do not count.
    pub fn pages(&mut self, vma: &Vma, over_file: bool, stretches: &mut Vec<Stretch>) -> io::Result<()> {
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

fn push(stretches: &mut Vec<Stretch>, first: usize, next: Stretch) {
    match stretches[first..].last_mut() {
        Some(last) if last.end == next.start => last.end = next.end,
        _ => stretches.push(next),
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::HashSet;
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    use node_agent_image::model::Backing;

    use super::*;

    const MADV_GUARD_INSTALL: i32 = 102;

    pub fn map(pages: u64, protection: i32, flags: i32, file: Option<&File>) -> u64 {
        let descriptor = file.map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: a new mapping that replaces none.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), (pages * PAGE) as usize, protection, flags, descriptor, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        at as u64
    }

    pub fn touch(at: u64, page: u64, byte: u8) {
        // SAFETY: the callers pass pages of their own mappings, writable and known to nobody else.
        unsafe { ((at + page * PAGE) as *mut u8).write_volatile(byte) };
    }

    fn look(at: u64, page: u64) {
        // SAFETY: as above, and readable.
        unsafe { ((at + page * PAGE) as *const u8).read_volatile() };
    }

    fn advise(at: u64, page: u64, advice: i32) -> i32 {
        // SAFETY: a page of the caller's own mapping, which no Rust value lives in.
        unsafe { libc::madvise((at + page * PAGE) as *mut _, PAGE as usize, advice) }
    }

    pub fn vma(start: u64, pages: u64, backing: Backing) -> Vma {
        let protection = libc::PROT_READ as u32;
        Vma { start, end: start + pages * PAGE, protection, backing, ..Vma::default() }
    }

    /// Numbers of the pages that each way finds; the zero pages that reading the slow way finds too are left out.
    fn found(vma: &Vma, over_file: bool) -> [Vec<u64>; 3] {
        [Way::ScanGuards, Way::Scan, Way::Read].map(|way| {
            let mut stretches = Vec::new();
            let mut pagemap = Pagemap::with(std::process::id(), way).expect("our own pagemap");
            pagemap.pages(vma, over_file, &mut stretches).expect("it can be read");
            assert!(stretches.iter().all(|it| it.keep_zeros == over_file && it.start < it.end));
            let number = |address: u64| (address - vma.start) / PAGE;
            stretches.iter().flat_map(|it| number(it.start)..number(it.end)).collect()
        })
    }

    pub const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

    #[test]
    fn anonymous_pages_written_to_and_no_others() {
        let at = map(16, RW, PRIVATE, None);
        assert_eq!(advise(at, 0, libc::MADV_NOHUGEPAGE), 0);
        for page in [1, 2, 5, 15] {
            touch(at, page, 0);
        }
        look(at, 7);
        let vma = vma(at, 16, Backing::Anonymous);
        let [guards, scan, read] = found(&vma, false);
        assert_eq!((&guards, &scan), (&vec![1, 2, 5, 15], &vec![1, 2, 5, 15]));
        // That page 7 is the zero page is not to be seen there.
        assert_eq!(read, [1, 2, 5, 7, 15]);
        // Hidden, not gone.
        // SAFETY: our own mapping, which no Rust value lives in.
        assert_eq!(unsafe { libc::mprotect(at as *mut _, 16 * PAGE as usize, libc::PROT_NONE) }, 0);
        assert_eq!(found(&vma, false)[0], [1, 2, 5, 15]);
    }

    #[test]
    fn guard_regions_are_left_out() {
        let at = map(8, RW, PRIVATE, None);
        (0..8).for_each(|page| touch(at, page, 1));
        if advise(at, 3, MADV_GUARD_INSTALL) != 0 {
            return; // before Linux 6.13
        }
        let [guards, _, read] = found(&vma(at, 8, Backing::Anonymous), false);
        assert_eq!(guards, [0, 1, 2, 4, 5, 6, 7]);
        assert_eq!(read, guards);
    }

    #[test]
    fn pages_that_are_no_longer_the_files() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[7; 8 * PAGE as usize]).expect("it is written");
        let at = map(8, RW, libc::MAP_PRIVATE, Some(&file));
        (0..6).for_each(|page| look(at, page));
        touch(at, 2, 0);
        touch(at, 7, 1);
        let vma = vma(at, 8, Backing::File { file: Default::default(), offset: 0 });
        assert_eq!(found(&vma, true), [[2, 7], [2, 7], [2, 7]]);
    }

    #[test]
    fn more_regions_than_one_scan_tells() {
        let pages = 5 * REGIONS as u64;
        let at = map(pages, RW, PRIVATE, None);
        let written: Vec<u64> = (0..pages).filter(|it| it % 2 == 1 && it % 1001 != 0).collect();
        // SAFETY: our own mapping, which no Rust value lives in.
        unsafe { libc::madvise(at as *mut _, (pages * PAGE) as usize, libc::MADV_NOHUGEPAGE) };
        written.iter().for_each(|page| touch(at, *page, 1));
        assert_eq!(found(&vma(at, pages, Backing::Anonymous), false), [written.clone(), written.clone(), written]);
    }

    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// All of a living process, the quick way and the slow one: they differ in zero pages alone.
    #[test]
    fn both_ways_agree_on_a_process() {
        let mut cat = Command::new("cat");
        let mut cat = Ended(cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat runs"));
        let pid = cat.0.id();
        // It has started when it answers, and waits when it has answered.
        cat.0.stdin.as_mut().expect("a pipe").write_all(b"?").expect("it reads");
        cat.0.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it answers");
        let maps = std::fs::read(format!("/proc/{pid}/maps")).expect("its maps");
        let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory");
        let (mut all, mut zeros) = (0, 0);
        for area in node_agent_proc::maps::parse(&maps).expect("maps") {
            let backing = if area.inode == 0 { Backing::Anonymous } else { Backing::Device(String::new()) };
            let vma = vma(area.start, (area.end - area.start) / PAGE, backing);
            if area.path.starts_with(b"[v") {
                continue;
            }
            let over_file = area.inode != 0;
            let pages = |way| -> HashSet<u64> {
                let mut stretches = Vec::new();
                Pagemap::with(pid, way).and_then(|mut it| it.pages(&vma, over_file, &mut stretches)).expect("pages");
                stretches.iter().flat_map(|it| (it.start..it.end).step_by(PAGE as usize)).collect()
            };
            let (scan, read) = (pages(Way::ScanGuards), pages(Way::Read));
            assert!(scan.is_subset(&read), "{area:?}");
            for address in read.difference(&scan) {
                let mut page = [1; PAGE as usize];
                memory.read_exact_at(&mut page, *address).expect("it can be read");
                assert_eq!(page, [0; PAGE as usize], "{address:#x} of {area:?}");
                zeros += 1;
            }
            all += scan.len();
        }
        assert!(all > 20 && zeros < all, "{all} pages, {zeros} of zeros");
    }
}
