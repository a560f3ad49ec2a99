//! How a draft becomes a generation: see the table in docs/image-format.md.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use node_agent_image::contents::{Contents, OwnerRuns, Run};
use node_agent_image::manifest::{Cost, DataFile as DataEntry, Manifest, ModelFile};
use node_agent_image::model::NodeModel;
use node_agent_image::{checksum, names, node};

use super::data_file::{DataFile, lay_out};
use super::draft::Draft;
use super::error::WriteError;
use super::folder;
use super::generation::Generation;
use super::store::{StoredRun, Worker};

/// A committed generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    #[allow(missing_docs)]
    pub generation: u64,
    /// Its folder, absolute.
    pub path: PathBuf,
    /// Bytes of memory that were looked at.
    pub bytes_read: u64,
    /// Bytes of all its files.
    pub bytes_stored: u64,
}

pub fn commit(draft: Draft, model: &NodeModel, cost: Cost) -> Result<Written, WriteError> {
    let Draft { dir, generation, folder, workers, bytes_read, .. } = draft;
    let workers = workers.into_iter().map(|it| it.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
    let (contents, data) = assemble(workers);

    let path = folder.path.join(names::MODEL);
    let bytes = node::encode(&path.display().to_string(), model, &contents)?;
    let model_file = write_file(&path, &bytes)?;
    let model_entry = ModelFile {
        name: names::MODEL.into(),
        bytes: bytes.len() as u64,
        xxh3_128: format!("{:032x}", checksum(&bytes)),
    };
    let bytes_stored = contents.files.iter().sum::<u64>() + model_entry.bytes;
    let entry = |(number, bytes): (usize, &u64)| DataEntry { name: names::data(number), bytes: *bytes };
    let manifest = Manifest {
        generation,
        model: model_entry,
        data: contents.files.iter().enumerate().map(entry).collect(),
        cost: full_cost(cost, model, bytes_read, bytes_stored),
    };
    let manifest_path = folder.path.join(names::MANIFEST);
    let manifest = manifest.encode(&manifest_path.display().to_string())?;
    let manifest_file = write_file(&manifest_path, &manifest)?;

    let mut files = vec![(path, model_file), (manifest_path, manifest_file)];
    files.extend(data.into_iter().map(|it| (it.path, it.file)));
    sync(&folder.path, &files)?;
    Generation::open(&folder.path).map_err(WriteError::ReadBack)?;
    let path = dir.join(names::committed(generation));
    give_name(&dir, &folder.path, &path)?;
    folder.keep();
    Ok(Written { generation, path, bytes_read, bytes_stored: bytes_stored + manifest.len() as u64 })
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

fn full_cost(cost: Cost, model: &NodeModel, bytes_read: u64, bytes_stored: u64) -> Cost {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Cost {
        job: model.job.id.clone(),
        committed_at_ns: now.as_nanos() as u64,
        // JSON has no other numbers.
        stall_ms: if cost.stall_ms.is_finite() { cost.stall_ms } else { 0.0 },
        bytes_read,
        bytes_stored,
        files: model.files.len() as u64,
        processes: model.processes.len() as u64,
        threads: model.processes.iter().map(|it| it.threads.len() as u64).sum(),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<File, WriteError> {
    let mut file = folder::create(path)?;
    file.write_all(bytes).map_err(WriteError::file("write", path))?;
    Ok(file)
}

/// All at once: a file system that has to flush its journal for each does so once for all.
fn sync(folder: &Path, files: &[(PathBuf, File)]) -> Result<(), WriteError> {
    thread::scope(|scope| {
        let sync = |(path, file): &(PathBuf, File)| file.sync_all().map_err(WriteError::file("sync", path));
        let threads: Vec<_> = files.iter().map(|it| scope.spawn(move || sync(it))).collect();
        let mut results = vec![folder::sync(folder)];
        results
            .extend(threads.into_iter().map(|it| it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        results.into_iter().collect()
    })
}

/// The commit.
fn give_name(dir: &Path, unfinished: &Path, committed: &Path) -> Result<(), WriteError> {
    fs::rename(unfinished, committed).map_err(WriteError::file("give its final name to", unfinished))?;
    folder::sync(dir).inspect_err(|_| {
        // A name that may or may not survive a crash is none: the caller is told that there is no such generation.
        let _ = fs::rename(committed, unfinished);
    })
}
