//! Pages of this process, and what is done with them.

use std::fs;
use std::path::{Path, PathBuf};

use node_agent::guardian::board::Progress;
use node_agent::memory::{Bytes, Cost, Owner, Part, Source, Stretch, Unfinished, WriteError, Written};
use node_agent::restart::Targets;
use node_agent_image::model::{NodeModel, Process, Vma};

pub const PAGE: usize = 4096;

/// Pages of this process.
pub struct Pages {
    bytes: Vec<u8>,
    skip: usize,
}

impl Pages {
    pub fn new(pages: usize) -> Self {
        let bytes = vec![0; (pages + 1) * PAGE];
        let skip = bytes.as_ptr().align_offset(PAGE);
        Self { bytes, skip }
    }

    /// Half noise, half slope, some pages zero: all that writing treats in its own way.
    pub fn mixed(pages: usize) -> Self {
        let mut it = Self::new(pages);
        let mut noise = 88_172_645_463_325_252_u64;
        for (number, word) in it.as_mut().chunks_exact_mut(8).enumerate() {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let page = number * 8 / PAGE;
            let value = match page % 7 {
                0 | 5 => 0,
                _ if page & 32 == 0 => noise,
                _ => number as u64 >> 6,
            };
            word.copy_from_slice(&value.to_ne_bytes());
        }
        it
    }

    pub fn as_ref(&self) -> &[u8] {
        &self.bytes[self.skip..][..self.bytes.len() - PAGE]
    }

    pub fn as_mut(&mut self) -> &mut [u8] {
        let length = self.bytes.len() - PAGE;
        &mut self.bytes[self.skip..][..length]
    }

    pub fn start(&self) -> u64 {
        self.as_ref().as_ptr() as u64
    }

    pub fn stretch(&self) -> Stretch {
        Stretch { start: self.start(), end: self.start() + self.as_ref().len() as u64, keep_zeros: false }
    }

    pub fn source(&self) -> Source {
        memory(std::process::id(), vec![self.stretch()])
    }
}

pub fn memory(pid: u32, stretches: Vec<Stretch>) -> Source {
    Source { owner: Owner::Process(0), bytes: Bytes::Memory { pid, base: 0 }, stretches }
}

/// A model of one process with such VMAs, all writable.
pub fn model(stretches: &[Stretch]) -> NodeModel {
    let vma = |it: &Stretch| Vma { start: it.start, end: it.end, protection: 3, ..Vma::default() };
    let mut process = Process::default();
    process.memory.vmas = stretches.iter().map(vma).collect();
    NodeModel { processes: vec![process], ..NodeModel::default() }
}

/// A generation of one node, numbered 0.
pub fn commit(dir: &Path, sources: &[Source], model: &NodeModel) -> Written {
    let (unfinished, mut part) = begin(dir);
    part.write(sources, &Progress::default()).unwrap();
    finish(unfinished, part, model).unwrap()
}

pub fn begin(dir: &Path) -> (Unfinished, Part) {
    let unfinished = Unfinished::begin(dir).unwrap();
    let part = Part::begin(unfinished.path(), 0).unwrap();
    (unfinished, part)
}

pub fn finish(unfinished: Unfinished, part: Part, model: &NodeModel) -> Result<Written, WriteError> {
    let receipt = part.finish(model)?;
    unfinished.commit(vec![receipt], cost())
}

pub fn cost() -> Cost {
    Cost { job: "4f3a".into(), stall_ms: 1.5, ..Cost::default() }
}

pub fn own_targets() -> Targets {
    Targets { processes: vec![Some(std::process::id())], ..Targets::default() }
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    names(folder).iter().map(|name| folder.join(name)).collect()
}
