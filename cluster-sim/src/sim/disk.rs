//! The file system that all nodes see. What is not synced is gone after a power cut.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_protocol::node::{NodeId, Round};

use super::job::Image;

/// A generation's folder, finished or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    pub(super) generation: u64,
    pub(super) parts: BTreeMap<NodeId, Part>,
    pub(super) manifest: Option<Manifest>,
    /// It has the generation's final name.
    pub(super) named: bool,
    /// That name would survive.
    pub(super) name_synced: bool,
}

/// What a node has written.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) image: Image,
    pub(super) synced: bool,
}

/// Which parts there must be.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) synced: bool,
}

/// See the module's head. Folders are found by their rounds: an unfinished one has the round in its name.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) folders: BTreeMap<Round, Folder>,
    pub(super) full: bool,
    pub(super) slow: bool,
    pub(super) sync_fails: bool,
}

impl Disk {
    /// A sync that fails does so once, and what it was to make durable is not.
    pub(super) fn sync(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.sync_fails) { Err("cannot sync: input/output error".into()) } else { Ok(()) }
    }

    pub(super) fn room(&self) -> Result<(), String> {
        if self.full { Err("cannot write: no space left on device".into()) } else { Ok(()) }
    }

    /// Generations under their final names, as one finds them.
    pub(super) fn named(&self) -> BTreeSet<u64> {
        self.folders.values().filter(|folder| folder.named).map(|folder| folder.generation).collect()
    }

    /// What is left after a power cut.
    pub(super) fn after_power_cut(&self) -> Self {
        let mut left = self.clone();
        for folder in left.folders.values_mut() {
            folder.named &= folder.name_synced;
            folder.parts.retain(|_, part| part.synced);
            folder.manifest = folder.manifest.take().filter(|manifest| manifest.synced);
        }
        left
    }
}
