//! Reading every byte of a generation back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use node_agent_image::contents::Contents;

use super::chunks::{ChunkReader, DataFiles, chunks};
use super::error::ImageError;
use super::generation::{Generation, check_data_file, read_manifest, read_model};
use super::threads::{self, Turns, on_threads};

/// First damage of a data file, and how many blocks have one.
type Found = BTreeMap<u32, (String, u64)>;

impl Generation {
    /// Reads every byte back, with the checks of a restart. A line for each damaged file, which names it; none: it is
    /// good. When this returns, the caller has as many threads as before.
    #[must_use]
    pub fn damage(path: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        let manifest = note(&mut lines, read_manifest(path));
        let read = note(&mut lines, read_model(path, manifest.as_ref()));
        let Some((_, contents)) = read else { return lines };
        let count = lines.len();
        for number in 0..contents.files.len() {
            note(&mut lines, check_data_file(path, &contents, number));
        }
        if lines.len() == count {
            match damaged_blocks(path, &contents) {
                Ok(found) => lines.extend(found.into_values().map(|(line, blocks)| match blocks {
                    1 => line,
                    more => format!("{line}, and {} blocks more of {}", more - 1, contents.blocks.len()),
                })),
                Err(error) => lines.push(error.to_string()),
            }
        }
        lines
    }
}

fn note<T>(lines: &mut Vec<String>, result: Result<T, ImageError>) -> Option<T> {
    result.map_err(|error| lines.push(error.to_string())).ok()
}

fn damaged_blocks(path: &Path, contents: &Contents) -> Result<Found, ImageError> {
    let files = DataFiles::open(path, contents)?;
    let chunks = chunks(&contents.blocks);
    let turns = Turns::new(chunks.len());
    let found = Mutex::new(Found::new());
    let note = |file: u32, line: String| {
        found.lock().unwrap_or_else(PoisonError::into_inner).entry(file).or_insert((line, 0)).1 += 1;
    };
    let bytes = contents.files.iter().sum();
    let Ok(()) = on_threads(threads::worth(bytes), || -> Result<(), Infallible> {
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
