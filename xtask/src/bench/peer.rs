//! The peer of a checkpoint's writing: the same memory, copied and written to the same file system by as many threads.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Instant;

use crate::ground::Outcome;

/// Bytes per copy and write.
const BLOCK: usize = 1 << 20;

/// Bytes per second of copying `mebibytes` of memory and writing them to files in `folder`, synced, with all cores.
pub fn copy_and_write(folder: &Path, mebibytes: usize) -> Outcome<f64> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let memory = pattern(mebibytes);
    let part = memory.len().div_ceil(threads).max(1);
    let begun = Instant::now();
    let written: std::io::Result<Vec<()>> = thread::scope(|scope| {
        let writers: Vec<_> = memory
            .chunks(part)
            .enumerate()
            .map(|(number, words)| scope.spawn(move || write(folder, number, words)))
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap_or_else(|_| Err(std::io::Error::other("a writer panicked"))))
            .collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    (0..threads).for_each(|number| drop(fs::remove_file(folder.join(format!("peer-{number}")))));
    written.map_err(|cause| format!("cannot write in {}: {cause}", folder.display()))?;
    Ok((memory.len() * size_of::<u64>()) as f64 / seconds)
}

fn write(folder: &Path, number: usize, words: &[u64]) -> std::io::Result<()> {
    let mut file = File::create(folder.join(format!("peer-{number}")))?;
    let mut buffer = Vec::with_capacity(BLOCK);
    for block in words.chunks(BLOCK / size_of::<u64>()) {
        buffer.clear();
        block.iter().for_each(|word| buffer.extend_from_slice(&word.to_ne_bytes()));
        file.write_all(&buffer)?;
    }
    file.sync_all()
}

/// What tests/programs/resident.c has in its memory: half noise, half a slope.
fn pattern(mebibytes: usize) -> Vec<u64> {
    let mut noise = 88_172_645_463_325_252_u64;
    let word = |at: usize| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if at & (1 << 15) != 0 { noise } else { at as u64 >> 6 }
    };
    (0..mebibytes << 17).map(word).collect()
}
