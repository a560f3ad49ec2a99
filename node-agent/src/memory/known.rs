//! Which blocks are stored already: equal ones are stored once per node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

/// Locks, so that threads do not wait for each other.
const SHARDS: usize = 64;

/// Where a block is, while it is being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Who writes it.
    pub worker: u32,
    /// Its number among the worker's blocks.
    pub number: u32,
}

/// XXH3-128 of the raw bytes and their length → where they are.
#[derive(Debug)]
pub struct Known {
    shards: Vec<Mutex<HashMap<(u128, u32), Place>>>,
}

impl Default for Known {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Known {
    /// Where such a block is; None: nowhere, and from now on at `here`, where the caller puts it.
    pub fn find_or_add(&self, checksum: u128, bytes: usize, here: Place) -> Option<Place> {
        let shard = &self.shards[checksum as usize % SHARDS];
        match shard.lock().unwrap_or_else(PoisonError::into_inner).entry((checksum, bytes as u32)) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(free) => {
                free.insert(here);
                None
            }
        }
    }
}
