//! The control segment as the guardian holds it: a memfd that the job's processes map, and its own mapping.
//!
//! # Safety
//! Unsafe because memory shared with other processes is mapped and read. Only atomic fields are ever referred to.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hijack_abi::{MAGIC, RANKS, Segment, captured, command};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// The control segment of one life.
pub struct Control {
    memfd: OwnedFd,
    segment: &'static Segment,
}

impl Control {
    /// A new one.
    ///
    /// # Errors
    /// No memory or no descriptor left.
    pub fn create() -> io::Result<Self> {
        Self::carrying(0)
    }

    /// A new one for threads that were parked in `epoch`, of an earlier life: they wait until the gate is opened.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn carrying(epoch: u32) -> io::Result<Self> {
        let memfd = memfd_create("slackwater-segment", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&memfd, size_of::<Segment>() as i64)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping of a file that is as long, at a place of the kernel's choice.
        let memory =
            unsafe { libc::mmap(ptr::null_mut(), size_of::<Segment>(), protection, flags, memfd.as_raw_fd(), 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let segment = memory.cast::<Segment>();
        // SAFETY: nobody else has the memfd yet; the fields lie in the mapping.
        unsafe {
            (&raw mut (*segment).magic).write(MAGIC);
            (&raw mut (*segment).version).write(hijack_abi::VERSION);
            (&raw mut (*segment).size_kib).write((size_of::<Segment>() >> 10) as u32);
        }
        // SAFETY: never unmapped; zero is a value of all fields; what others change is atomic.
        let segment = unsafe { &*segment };
        segment.epoch.store(epoch, Ordering::Release);
        segment.gate.store(epoch.saturating_sub(1), Ordering::Release);
        Ok(Self { memfd, segment })
    }

    /// Number of the memfd, for `/proc/PID/fd/N`.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.memfd.as_raw_fd()
    }

    /// The segment.
    #[must_use]
    pub fn segment(&self) -> &'static Segment {
        self.segment
    }

    /// Ranks announced after the first `known`, as they see their pids.
    #[must_use]
    pub fn ranks_after(&self, known: usize) -> Vec<u32> {
        let len = (self.segment.ranks_len.load(Ordering::Acquire) as usize).min(RANKS);
        let ranks = self.segment.ranks[known.min(len)..len].iter().map(|rank| rank.load(Ordering::Acquire));
        // One that has taken its place and not filled it yet is seen next time.
        ranks.take_while(|pid| *pid != 0).collect()
    }

    /// Announces ranks of an earlier life, whose library will not do it again.
    pub fn announce(&self, ranks: &[u32]) {
        for pid in ranks {
            let at = self.segment.ranks_len.fetch_add(1, Ordering::AcqRel) as usize;
            if let Some(place) = self.segment.ranks.get(at) {
                place.store(*pid, Ordering::Release);
            }
        }
        wake(&self.segment.ranks_len);
    }

    /// Sleeps until more than `known` ranks have been announced; how many.
    #[must_use]
    pub fn wait_for_ranks(&self, known: u32) -> u32 {
        let word = &self.segment.ranks_len;
        loop {
            let now = word.load(Ordering::Acquire);
            if now != known {
                self.wait_until_filled(now);
                return now;
            }
            let (wait, forever) = (libc::FUTEX_WAIT, ptr::null::<libc::timespec>());
            // SAFETY: a live, aligned word of shared memory; no time-out.
            unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), wait, known, forever) };
        }
    }

    /// A rank takes its place before it fills it; a rank that dies in between is not waited for.
    fn wait_until_filled(&self, len: u32) {
        const LOOKS: usize = 100;
        const LOOK_AGAIN: Duration = Duration::from_millis(1);
        let taken = &self.segment.ranks[..(len as usize).min(RANKS)];
        for _ in 0..LOOKS {
            if taken.iter().all(|rank| rank.load(Ordering::Acquire) != 0) {
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Twins need not live any longer.
    pub fn end_twins(&self) {
        self.segment.twins_gone.store(self.segment.epoch.load(Ordering::Acquire), Ordering::Release);
        wake(&self.segment.twins_gone);
    }

    /// Lets every parked thread go, whatever an agent that is gone had in mind with it.
    pub fn free_everybody(&self) {
        let segment = self.segment;
        let (open, void) = (captured::OPEN, captured::VOID);
        let _ = segment.capture.compare_exchange(open, void, Ordering::AcqRel, Ordering::Acquire);
        let epoch = segment.epoch.load(Ordering::Acquire);
        segment.gate.store(epoch, Ordering::Release);
        self.end_twins();
        if epoch == 0 {
            return; // nobody was ever parked, and looking at all slots would fill them with memory
        }
        for slot in segment.slots.iter().filter(|slot| slot.tid.load(Ordering::Acquire) != 0) {
            slot.command.store(command::RESUME, Ordering::Release);
            wake(&slot.command);
        }
    }
}

/// Wakes everybody who waits on a word of the segment.
fn wake(word: &AtomicU32) {
    // SAFETY: a live, aligned word; FUTEX_WAKE only uses its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
