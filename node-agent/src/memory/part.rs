//! One virtual node's part of a generation: its files, in a folder that somebody else has made and will commit.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use node_agent_image::checksum;
use node_agent_image::contents::{Contents, OwnerRuns, Run};
use node_agent_image::model::NodeModel;
use node_agent_image::receipt::{DataFile as DataEntry, ModelFile, Receipt};
use node_agent_image::{names, node};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::data_file::{DataFile, lay_out};
use super::error::WriteError;
use super::folder::{self, OpenFolder};
use super::generation::{check_lengths, read_node};
use super::late;
use super::source::{Plan, Source};
use super::store::{Shared, StoredRun, Worker};
use super::threads::{self, Turns};
use crate::guardian::board::Progress;

/// A node's part that is being written. If it is dropped, its files stay: they go with the unfinished folder.
#[derive(Debug)]
pub struct Part {
    node: u32,
    folder: OpenFolder,
    workers: Vec<Mutex<Worker>>,
    /// Bytes of memory looked at.
    bytes_read: u64,
    shared: Shared,
    pool: ThreadPool,
}

impl Part {
    /// Begins the part of virtual node `node` in the unfinished generation `folder`, see [`super::Unfinished::path`]. On
    /// another host than the one that made it the folder may be seen late, so it is waited for: five seconds.
    ///
    /// # Errors
    /// When the folder is not there or no thread can be started; names the folder.
    pub fn begin(folder: &Path, node: u32) -> Result<Self, WriteError> {
        let folder = late::patiently(folder, late::deadline(), late::is_missing, || OpenFolder::open(folder))?;
        let threads = threads::available();
        let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|it| format!("write-{it}")).build();
        let pool = pool.map_err(|error| WriteError::Threads(error.to_string()))?;
        let workers = (0..threads).map(|it| Mutex::new(Worker::new(node, it))).collect();
        Ok(Self { node, folder, workers, bytes_read: 0, shared: Shared::default(), pool })
    }

    /// Stores contents; may be called again with others. Zero pages are left out, equal blocks stored once.
    /// `progress` is told of all bytes of this part, those of earlier calls included.
    ///
    /// # Errors
    /// When something cannot be read or written; then this part cannot be finished and is to be dropped.
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

    /// Writes the model file, makes all of this node's files durable and reads them back: the model file with every check,
    /// of data files presence and length. The receipt is for [`super::Unfinished::commit`].
    ///
    /// # Errors
    /// When something cannot be written or does not read back; then the generation must not be committed.
    pub fn finish(self, model: &NodeModel) -> Result<Receipt, WriteError> {
        let Self { node, folder, workers, bytes_read, .. } = self;
        let workers = workers.into_iter().map(|it| it.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        let (contents, data) = assemble(workers);
        let name = names::model(node);
        let bytes = node::encode(&folder.path.join(&name).display().to_string(), model, &contents)?;
        let mut files = vec![folder.write(&name, &bytes)?];
        files.extend(data.into_iter().map(|it| (it.path, it.file)));
        folder::sync(&folder, &files)?;
        drop(files);
        let receipt = receipt(node, model, &contents, &bytes, bytes_read);
        read_node(&folder.path, node, Some(&receipt)).map_err(WriteError::ReadBack)?;
        check_lengths(&folder.path, &receipt).map_err(WriteError::ReadBack)?;
        Ok(receipt)
    }
}

/// `bytes`: the model file's.
fn receipt(node: u32, model: &NodeModel, contents: &Contents, bytes: &[u8], bytes_read: u64) -> Receipt {
    let entry = |(number, bytes): (usize, &u64)| DataEntry { name: names::data(node, number), bytes: *bytes };
    Receipt {
        node,
        host: model.machine.host.clone(),
        model: ModelFile {
            name: names::model(node),
            bytes: bytes.len() as u64,
            xxh3_128: format!("{:032x}", checksum(bytes)),
        },
        data: contents.files.iter().enumerate().map(entry).collect(),
        bytes_read,
        bytes_stored: contents.files.iter().sum::<u64>() + bytes.len() as u64,
        files: model.files.len() as u64,
        processes: model.processes.len() as u64,
        threads: model.processes.iter().map(|it| it.threads.len() as u64).sum(),
    }
}

/// Blocks get their numbers, runs their order.
fn assemble(mut workers: Vec<Worker>) -> (Contents, Vec<DataFile>) {
    let mut order: Vec<usize> = (0..workers.len()).filter(|it| workers[*it].data.is_some()).collect();
    order.sort_by_key(|it| workers[*it].data.as_ref().map(|data| data.number));
    let mut contents = Contents::default();
    let mut first = vec![0; workers.len()];
    let mut data = Vec::new();
    for worker in order {
        first[worker] = contents.blocks.len() as u32;
        let file = contents.files.len() as u32;
        contents.blocks.extend(lay_out(file, &workers[worker].blocks));
        contents.files.extend(workers[worker].data.as_ref().map(|data| data.bytes));
        data.extend(workers[worker].data.take());
    }
    let mut runs: Vec<StoredRun> = workers.iter_mut().flat_map(|worker| std::mem::take(&mut worker.runs)).collect();
    runs.sort_unstable_by_key(|it| (it.owner, it.run.start));
    for StoredRun { owner, run, place } in runs {
        let run = Run { block: first[place.worker as usize] + place.number, ..run };
        match contents.owners.last_mut() {
            Some(last) if last.owner == owner => last.runs.push(run),
            _ => contents.owners.push(OwnerRuns { owner, runs: vec![run] }),
        }
    }
    (contents, data)
}
