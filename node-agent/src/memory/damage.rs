//! Reading every byte of a generation back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use node_agent_image::contents::Contents;
use node_agent_image::manifest::Manifest;
use node_agent_image::names;

use super::chunks::{ChunkReader, DataFiles, chunks};
use super::error::ImageError;
use super::generation::{Generation, check_length, check_remotes, nodes_by_name, read_manifest, read_node};
use super::threads::{self, Turns, on_threads};
use super::unfinished::strangers;

/// First damage of a data file, and how many blocks have one.
type Found = BTreeMap<u32, (String, u64)>;

impl Generation {
    /// Reads every byte of all nodes back, with the checks of a restart. A line for each damaged or missing file and for
    /// each that does not belong there, which names it; none: it is good. When this returns, the caller has as many threads
    /// as before.
    #[must_use]
    pub fn damage(path: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        let manifest = note(&mut lines, read_manifest(path));
        let nodes = match &manifest {
            Some(manifest) => manifest.nodes.iter().map(|it| it.node).collect(),
            None => nodes_by_name(path),
        };
        lines.extend(damaged_nodes(path, manifest.as_ref(), &nodes));
        match manifest.as_ref().map(|it| strangers(path, it)) {
            Some(Ok(strangers)) => lines.extend(strangers.into_iter().map(|it| {
                format!("{}: not of this generation: the manifest does not name it; take it away", it.display())
            })),
            Some(Err(error)) => lines.push(ImageError::file("read the folder", path)(error).to_string()),
            None => {}
        }
        lines
    }
}

fn note<T>(lines: &mut Vec<String>, result: Result<T, ImageError>) -> Option<T> {
    result.map_err(|error| lines.push(error.to_string())).ok()
}

/// Many nodes: one for each thread. A few: one after the other, each with all threads.
fn damaged_nodes(path: &Path, manifest: Option<&Manifest>, nodes: &[u32]) -> Vec<String> {
    let all = threads::available();
    let (at_once, each) = if nodes.len() < all { (1, all) } else { (all, 1) };
    let turns = Turns::new(nodes.len());
    let found = Mutex::new(BTreeMap::new());
    let Ok(()) = on_threads(at_once, || -> Result<(), Infallible> {
        while let Some(turn) = turns.take() {
            let lines = damaged_node(path, manifest, nodes[turn], each);
            found.lock().unwrap_or_else(PoisonError::into_inner).insert(turn, lines);
        }
        Ok(())
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().flatten().collect()
}

fn damaged_node(path: &Path, manifest: Option<&Manifest>, node: u32, threads: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let said = manifest.and_then(|it| it.node(node));
    let read = note(&mut lines, read_node(path, node, said));
    if let (Some(manifest), Some((model, _))) = (manifest, &read) {
        note(&mut lines, check_remotes(path, manifest, model));
    }
    let lengths: Vec<u64> = match (said, &read) {
        (Some(said), _) => said.data.iter().map(|it| it.bytes).collect(),
        (None, Some((_, contents))) => contents.files.clone(),
        (None, None) => Vec::new(),
    };
    let before = lines.len();
    for (number, length) in lengths.into_iter().enumerate() {
        note(&mut lines, check_length(&path.join(names::data(node, number)), length));
    }
    if let (Some((_, contents)), true) = (&read, lines.len() == before) {
        match damaged_blocks(path, node, contents, threads) {
            Ok(found) => lines.extend(found.into_values().map(|(line, blocks)| match blocks {
                1 => line,
                more => format!("{line}, and {} blocks more of {}", more - 1, contents.blocks.len()),
            })),
            Err(error) => lines.push(error.to_string()),
        }
    }
    lines
}

fn damaged_blocks(path: &Path, node: u32, contents: &Contents, threads: usize) -> Result<Found, ImageError> {
    let files = DataFiles::open(path, node, contents)?;
    let chunks = chunks(&contents.blocks);
    let turns = Turns::new(chunks.len());
    let found = Mutex::new(Found::new());
    let note = |file: u32, line: String| {
        found.lock().unwrap_or_else(PoisonError::into_inner).entry(file).or_insert((line, 0)).1 += 1;
    };
    let bytes = contents.files.iter().sum();
    let Ok(()) = on_threads(threads::worth(bytes).min(threads), || -> Result<(), Infallible> {
        let mut reader = ChunkReader::default();
        while let Some(turn) = turns.take() {
            let blocks = &contents.blocks[chunks[turn].clone()];
            match reader.read(&files, blocks) {
                Ok(unpacked) => {
                    unpacked.into_iter().filter_map(Result::err).for_each(|it| note(blocks[0].file, it.to_string()));
                }
                Err(error) => note(blocks[0].file, error.to_string()),
            }
        }
        Ok(())
    });
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}
