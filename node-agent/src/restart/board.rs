//! Memory that the guardian makes before it forks: how guardian, agent, pid 1, builder and all new processes tell each other.
#![allow(unsafe_code)] // shared memory that processes write at once; only atomics are read from it

use std::io;
use std::mem::size_of;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use hijack_abi::orders::Orders;

use super::sys;

/// Bytes of the text of a failure; longer ones are cut.
const TEXT_BYTES: usize = 4000;
/// The page that orders are aligned to.
pub const PAGE: u64 = 4096;

/// What all see.
#[repr(C, align(4096))]
pub struct Head {
    /// 1 when the namespaces stand.
    pub ready: AtomicU32,
    /// Pid 1 as its creator saw it.
    pub init: AtomicU32,
    /// 1 when `text` says why nothing will come of it.
    failed: AtomicU32,
    text_len: AtomicU32,
    text: [AtomicU8; TEXT_BYTES],
    /// 1: no /proc of the job's own could be mounted.
    pub degraded: AtomicU32,
    /// Processes that have come to each of the two meetings.
    pub meetings: [AtomicU32; 2],
    /// 1 when all are back in their handlers: the builder does what comes last.
    pub settled: AtomicU32,
    /// 1 when it has done it.
    pub finished: AtomicU32,
    /// 1 when the root's status is there.
    pub root_ended: AtomicU32,
    /// Wait status of the root.
    pub root_status: AtomicI32,
}

/// See the head of this file. Copies name the same memory.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    base: u64,
    objects: usize,
    /// Bytes of each process's orders, in pages, one after the other behind the objects.
    orders_at: &'static [u64],
}

impl Board {
    /// Makes one for `objects` objects and orders of these sizes (bytes). It is never given back: a restart is done once.
    pub fn new(objects: usize, orders: &[u64]) -> io::Result<Self> {
        let mut at = size_of::<Head>() as u64 + (objects as u64 * 8).next_multiple_of(PAGE);
        let mut orders_at = Vec::with_capacity(orders.len());
        for bytes in orders {
            orders_at.push(at);
            at += bytes.next_multiple_of(PAGE);
        }
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let base = sys::map(at as usize, libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
        Ok(Self { base, objects, orders_at: orders_at.leak() })
    }

    /// The common part.
    pub fn head(&self) -> &'static Head {
        // SAFETY: mapped for good, zero-filled, page-aligned, and all its fields are atomics.
        unsafe { &*(self.base as *const Head) }
    }

    /// Where an object is mapped in the builder; 0 = nowhere yet.
    pub fn object(&self, index: usize) -> &'static AtomicU64 {
        assert!(index < self.objects);
        // SAFETY: inside the mapping as made in `new`, 8-aligned, only ever used as an atomic.
        unsafe { &*((self.base + size_of::<Head>() as u64) as *const AtomicU64).add(index) }
    }

    /// Where process `index` finds memory for its orders.
    pub fn orders_address(&self, index: usize) -> u64 {
        self.base + self.orders_at[index]
    }

    /// The agent's view of process `index`'s orders; only its atomics may be looked at.
    pub fn orders(&self, index: usize) -> &'static Orders {
        // SAFETY: in the mapping, page-aligned, at least one `Orders` long; plain fields are written by the process
        // before its first stage is published and are not read here.
        unsafe { &*(self.orders_address(index) as *const Orders) }
    }

    /// The restorer's region in process `index`, which has published a stage.
    pub fn region(&self, index: usize) -> [u64; 2] {
        // SAFETY: in the mapping; written before the first stage and never again.
        unsafe { (&raw const (*(self.orders_address(index) as *const Orders)).region).read_volatile() }
    }

    /// Says why it cannot go on; the first word stands.
    pub fn fail(&self, text: &str) {
        let head = self.head();
        let bytes = &text.as_bytes()[..text.len().min(TEXT_BYTES)];
        if head.text_len.compare_exchange(0, bytes.len() as u32, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            for (place, byte) in head.text.iter().zip(bytes) {
                place.store(*byte, Ordering::Relaxed);
            }
            head.failed.store(1, Ordering::Release);
        }
        for word in [&head.ready, &head.meetings[0], &head.meetings[1], &head.settled] {
            sys::futex_wake(word);
        }
    }

    /// What was said, if anything.
    pub fn failure(&self) -> Option<String> {
        let head = self.head();
        if head.failed.load(Ordering::Acquire) == 0 {
            return None;
        }
        let length = head.text_len.load(Ordering::Relaxed) as usize;
        let bytes: Vec<u8> = head.text[..length.min(TEXT_BYTES)].iter().map(|it| it.load(Ordering::Relaxed)).collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Comes to meeting `which` and waits until all `participants` have; false when the restart has failed.
    pub fn meet(&self, which: usize, participants: u32) -> bool {
        let word = &self.head().meetings[which];
        word.fetch_add(1, Ordering::AcqRel);
        sys::futex_wake(word);
        self.wait_for(word, |count| count >= participants)
    }

    /// Waits for a word; false when the restart has failed. Nobody waits for ever: when pid 1 is killed, all end.
    pub fn wait_for(&self, word: &AtomicU32, done: impl Fn(u32) -> bool) -> bool {
        const LOOK_AGAIN: Duration = Duration::from_millis(50);
        loop {
            let value = word.load(Ordering::Acquire);
            if done(value) {
                return true;
            }
            if self.failure().is_some() {
                return false;
            }
            sys::futex_wait(word, value, LOOK_AGAIN);
        }
    }
}
