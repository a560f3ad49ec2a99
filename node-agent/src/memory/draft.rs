//! A generation that is being written.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use node_agent_image::model::NodeModel;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::commit::{self, Written};
use super::error::WriteError;
use super::folder::{self, Folder};
use super::source::{Plan, Source};
use super::store::{Shared, Worker};
use super::threads::{self, Turns};
use crate::guardian::board::Progress;
use node_agent_image::manifest::Cost;

/// An unfinished generation: `.gen-N.part`. Unless it is committed, its folder goes away with it.
#[derive(Debug)]
pub struct Draft {
    pub(super) dir: PathBuf,
    pub(super) generation: u64,
    pub(super) folder: Folder,
    pub(super) workers: Vec<Mutex<Worker>>,
    /// Bytes of memory looked at.
    pub(super) bytes_read: u64,
    shared: Shared,
    pool: ThreadPool,
}

impl Draft {
    /// Clears away what was left unfinished in `dir`, makes `dir` where it is missing, and in it the folder of the next
    /// generation: the newest one's number and 1, or 1.
    ///
    /// # Errors
    /// When `dir` cannot be made or written to; names the folder.
    pub fn begin(dir: &Path) -> Result<Self, WriteError> {
        let dir = folder::prepare(dir)?;
        folder::clear_unfinished(&dir);
        let generation = folder::committed(&dir)?.last().map_or(1, |newest| newest + 1);
        let folder = Folder::create(&dir, generation)?;
        let threads = threads::available();
        let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|it| format!("write-{it}")).build();
        let pool = pool.map_err(|error| WriteError::Threads(error.to_string()))?;
        let workers = (0..threads).map(|it| Mutex::new(Worker::new(it))).collect();
        Ok(Self { dir, generation, folder, workers, bytes_read: 0, shared: Shared::default(), pool })
    }

    /// The number that it will have.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Stores contents; may be called again with others. Zero pages are left out, equal blocks stored once.
    /// `progress` is told of all bytes of this draft, those of earlier calls included.
    ///
    /// # Errors
    /// When something cannot be read or written; then this draft cannot be committed and is to be dropped.
    pub fn write(&mut self, sources: &[Source], progress: &Progress) -> Result<(), WriteError> {
        let plan = Plan::new(sources);
        self.bytes_read += plan.bytes;
        progress.expect(self.bytes_read);
        let turns = Turns::new(plan.batches.len());
        let (threads, this) = (threads::worth(plan.bytes), &*self);
        let work = |index: usize| -> Result<(), WriteError> {
            let mut worker = this.workers[index].lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(turn) = turns.take() {
                let batch = &plan.batches[turn];
                let pieces = &plan.pieces[batch.pieces.clone()];
                let source = &sources[batch.source];
                turns.stop_at(worker.store(&this.folder, &this.shared, source, batch, pieces))?;
                progress.add(batch.bytes as u64);
            }
            Ok(())
        };
        let results =
            self.pool.broadcast(|thread| if thread.index() < threads { work(thread.index()) } else { Ok(()) });
        results.into_iter().collect()
    }

    /// Gives it its final name, when all is on disk and reads back. Of `cost` the caller says `stall_ms`; the rest is
    /// filled in.
    ///
    /// # Errors
    /// When something cannot be written or does not read back; then there is no such generation.
    pub fn commit(self, model: &NodeModel, cost: Cost) -> Result<Written, WriteError> {
        commit::commit(self, model, cost)
    }
}
