//! Generations to write and read.

use node_agent_image::contents::{Block, Compression, Contents, Owner, OwnerRuns, Run};
use node_agent_image::manifest::{Cost, Manifest};
use node_agent_image::model::{Backing, FileKind, NodeModel, Object, OpenFile, Process, Vma};
use node_agent_image::receipt::{DataFile, ModelFile, Receipt};
use node_agent_image::{checksum, names};

pub const PAGE: u64 = 4096;

fn vma(start: u64, end: u64) -> Vma {
    Vma { start: start * PAGE, end: end * PAGE, protection: 3, backing: Backing::Heap, ..Vma::default() }
}

fn run(start: u64, pages: u32, block: u32, at: u32) -> Run {
    Run { start: start * PAGE, bytes: pages * PAGE as u32, block, at: at * PAGE as u32 }
}

/// Two processes, an object, three blocks in two files; one run goes over from one VMA into the next.
pub fn sample() -> (NodeModel, Contents) {
    let mut model = NodeModel { processes: vec![Process::default(); 3], ..NodeModel::default() };
    model.job.command = vec!["./solver".into(), "\u{2028}\"\\\u{0}".into()];
    model.processes[0].memory.vmas = vec![vma(16, 20), vma(20, 24), vma(30, 40)];
    model.processes[2].memory.vmas = vec![vma(7, 8)];
    model.objects = vec![Object { size: 2 * PAGE - 7, ..Object::default() }];
    let kind = FileKind::Pipe { pipe: 0, path: None, capacity: 4096, contents: vec![0, 1, 255], packets: vec![] };
    model.files = vec![OpenFile { kind, ..OpenFile::default() }];
    let block = |file, compression, stored, pages, offset| Block {
        file,
        compression,
        stored,
        raw: pages * PAGE as u32,
        offset,
        checksum: u128::from(offset) << 64 | 7,
    };
    let contents = Contents {
        owners: vec![
            OwnerRuns { owner: Owner::Process(0), runs: vec![run(16, 1, 0, 0), run(18, 3, 0, 1), run(39, 1, 2, 0)] },
            OwnerRuns { owner: Owner::Process(2), runs: vec![run(7, 1, 1, 0)] },
            OwnerRuns { owner: Owner::Object(0), runs: vec![run(0, 2, 0, 2)] },
        ],
        files: vec![700 + PAGE, 12],
        blocks: vec![
            block(0, Compression::Lz4, 700, 4, 0),
            block(0, Compression::None, PAGE as u32, 1, 700),
            block(1, Compression::Lz4, 12, 1, 0),
        ],
    };
    (model, contents)
}

/// What a node says of itself.
pub fn sample_receipt(node: u32, data: usize) -> Receipt {
    let data: Vec<_> = (0..data).map(|it| DataFile { name: names::data(node, it), bytes: 12 + it as u64 }).collect();
    Receipt {
        node,
        host: format!("n{node}"),
        model: ModelFile { name: names::model(node), bytes: 4711, xxh3_128: format!("{:032x}", checksum(b"x")) },
        bytes_read: 1 << 20,
        bytes_stored: 4711 + data.iter().map(|it| it.bytes).sum::<u64>(),
        data,
        processes: 2,
        ..Receipt::default()
    }
}

/// Three nodes of four: one had left the job.
pub fn sample_manifest() -> Manifest {
    Manifest {
        generation: 7,
        cost: Cost { job: "4f3a".into(), stall_ms: 0.25, bytes_read: 1 << 30, ..Cost::default() },
        nodes: vec![sample_receipt(0, 2), sample_receipt(1, 0), sample_receipt(3, 1)],
    }
}
