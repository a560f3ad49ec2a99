//! Generations: the folder of a round, and its commit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use coordinator_protocol::node::{NodeId, Receipt, Round};
use coordinator_protocol::round::Commit;
use node_agent::job::JobRecord;
use node_agent::memory::{self, Unfinished};
use node_agent_image::names;
use node_agent_image::receipt::{DataFile, ModelFile, Receipt as Written};

/// Where generations go, and the one that is being made.
pub struct Commits {
    dir: PathBuf,
    keep: u32,
    job: String,
    draft: Option<(Round, Unfinished)>,
    /// Path and bytes of the newest.
    newest: (String, u64),
}

impl Commits {
    #[allow(missing_docs)]
    pub fn new(record: &JobRecord) -> Self {
        let (dir, job) = (record.dir.clone(), record.job.clone());
        Self { dir, keep: record.keep, job, draft: None, newest: (String::new(), 0) }
    }

    /// Numbers of the generations that have their final names.
    pub fn committed(&self) -> BTreeSet<u64> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|it| names::generation_of(it.file_name().to_str()?)).collect()
    }

    /// Path and bytes of the generation that was committed last.
    pub fn newest(&self) -> (String, u64) {
        self.newest.clone()
    }

    /// Makes the folder for a round; its path.
    ///
    /// # Errors
    /// Why not.
    pub fn draft(&mut self, round: Round, generation: u64) -> Result<String, String> {
        self.draft = None;
        let unfinished = Unfinished::begin(&self.dir).map_err(|error| error.to_string())?;
        if unfinished.generation() != generation {
            let (dir, is) = (self.dir.display(), unfinished.generation());
            return Err(format!(
                "generations in {dir} have come or gone: {is} would be next, {generation} was expected"
            ));
        }
        let path = unfinished.path().display().to_string();
        self.draft = Some((round, unfinished));
        Ok(path)
    }

    /// A round came to nothing.
    pub fn discard(&mut self, round: Round) {
        if self.draft.as_ref().is_some_and(|it| it.0 == round) {
            self.draft = None;
        }
    }

    /// Gives a generation its final name.
    ///
    /// # Errors
    /// Why there is none.
    pub fn commit(&mut self, commit: &Commit, host: impl Fn(NodeId) -> String) -> Result<(), String> {
        let draft = self.draft.take().filter(|it| it.0 == commit.round());
        let (_, unfinished) = draft.ok_or("its folder is gone")?;
        let receipts = commit.receipts().iter().map(|(node, it)| written(*node, host(*node), it)).collect();
        let stall_ms = commit.cost().stall_us as f64 / 1e3;
        let cost = memory::Cost { job: self.job.clone(), stall_ms, ..memory::Cost::default() };
        let written = unfinished.commit(receipts, cost).map_err(|error| error.to_string())?;
        self.newest = (path(&written.path), written.bytes_stored);
        memory::retain(&self.dir, self.keep);
        Ok(())
    }
}

fn path(it: &Path) -> String {
    it.display().to_string()
}

/// As the manifest has it.
fn written(node: NodeId, host: String, it: &Receipt) -> Written {
    let data: Vec<DataFile> = it.data.iter().map(|it| DataFile { name: it.name.clone(), bytes: it.bytes }).collect();
    Written {
        node: node.0,
        host,
        bytes_stored: data.iter().fold(it.model.bytes, |sum, it| sum.saturating_add(it.bytes)),
        model: ModelFile { name: it.model.name.clone(), bytes: it.model.bytes, xxh3_128: it.model.xxh3_128.clone() },
        data,
        bytes_read: it.bytes_read,
        files: it.files,
        processes: it.processes,
        threads: it.threads,
    }
}
