//! Whatever can be, reads back.

use node_agent_image::block::{PACK_BYTES, Packer, is_zero};
use node_agent_image::checksum;
use node_agent_image::contents::{Block, Compression, Contents, Owner, OwnerRuns, Run};
use node_agent_image::limits::BLOCK_BYTES;
use node_agent_image::model::{NodeModel, Object, Process, Vma};
use node_agent_image::node::{decode, encode};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample::PAGE;

/// Pages, pages of it stored (fewer: LZ4), checksum.
type BlockSeed = (u32, u32, u128);
/// Gap before it in pages, which block, where in it.
type RunSeed = (u64, u32, u32);

fn blocks(seeds: &[Vec<BlockSeed>]) -> (Vec<u64>, Vec<Block>) {
    let (mut files, mut blocks) = (Vec::new(), Vec::new());
    for (number, seeds) in seeds.iter().enumerate() {
        let mut offset = 0;
        for (pages, stored, checksum) in seeds {
            let raw = pages * PAGE as u32;
            let (compression, stored) =
                if *stored < raw { (Compression::Lz4, *stored) } else { (Compression::None, raw) };
            blocks.push(Block { file: number as u32, compression, stored, raw, offset, checksum: *checksum });
            offset += u64::from(stored);
        }
        files.push(offset);
    }
    (files, blocks)
}

fn runs(seeds: &[RunSeed], blocks: &[Block]) -> Vec<Run> {
    let mut start = 0;
    let run = |(gap, block, at): &RunSeed| {
        let block = block % blocks.len() as u32;
        let pages = blocks[block as usize].raw / PAGE as u32;
        let at = at % pages;
        start += gap * PAGE;
        let run = Run { start, bytes: (pages - at) * PAGE as u32, block, at: at * PAGE as u32 };
        start = run.end();
        run
    };
    seeds.iter().map(run).collect()
}

fn generation(
    files: Vec<Vec<BlockSeed>>,
    owned: Vec<Vec<RunSeed>>,
    objects: Vec<Vec<RunSeed>>,
) -> (NodeModel, Contents) {
    let (files, blocks) = blocks(&files);
    let mut model = NodeModel::default();
    let mut owners = Vec::new();
    for seeds in owned {
        let runs = runs(&seeds, &blocks);
        let mut process = Process::default();
        // One VMA for all runs that touch each other, so that some have neighbours.
        let vma = |run: &Run| Vma { start: run.start, end: run.end(), ..Vma::default() };
        process.memory.vmas = runs.iter().map(vma).collect();
        owners.push(OwnerRuns { owner: Owner::Process(model.processes.len()), runs });
        model.processes.push(process);
    }
    for seeds in objects {
        let runs = runs(&seeds, &blocks);
        let size = runs.last().map_or(0, |run| run.end() - 1);
        owners.push(OwnerRuns { owner: Owner::Object(model.objects.len()), runs });
        model.objects.push(Object { size, ..Object::default() });
    }
    (model, Contents { owners, files, blocks })
}

fn some_generation() -> impl Strategy<Value = (NodeModel, Contents)> {
    let block = (1..40_u32, 1..200_000_u32, any::<u128>());
    let run = (0..3_u64, any::<u32>(), any::<u32>());
    let owned = vec(vec(run, 0..8), 0..4);
    (vec(vec(block, 1..6), 1..4), owned.clone(), owned)
        .prop_map(|(files, processes, objects)| generation(files, processes, objects))
}

proptest! {
    #[test]
    fn what_is_written_is_read((model, contents) in some_generation()) {
        let bytes = encode("f", &model, &contents).unwrap();
        prop_assert_eq!(decode("f", &bytes).unwrap(), (model, contents));
    }

    #[test]
    fn nonsense_is_no_panic(
        (model, contents) in some_generation(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut bytes = encode("f", &model, &contents).unwrap();
        let body = bytes.len() - 16;
        for (at, byte) in changes {
            // Behind the magic number, so that more than the first check sees it.
            bytes[8..body][at.index(body - 8)] = byte;
        }
        let sum = checksum(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum.to_le_bytes());
        let _ = decode("f", &bytes);
    }

    #[test]
    fn blocks_come_back(seed in vec(any::<u8>(), 1..300), pages in 1..=BLOCK_BYTES / 4096) {
        let raw: Vec<u8> = seed.iter().cycle().copied().take(pages * 4096).collect();
        prop_assert_eq!(is_zero(&raw), raw.iter().all(|byte| *byte == 0));
        let mut packed = vec![0; PACK_BYTES];
        let (compression, stored) = match Packer::default().pack(&raw, &mut packed) {
            Some(length) => (Compression::Lz4, &packed[..length]),
            None => (Compression::None, &raw[..]),
        };
        let (length, checksum) = (stored.len() as u32, checksum(stored));
        let block = Block { compression, stored: length, raw: raw.len() as u32, checksum, ..Block::default() };
        let mut scratch = vec![0; raw.len()];
        prop_assert_eq!(block.unpack("f", stored, &mut scratch).unwrap(), &raw[..]);
    }
}
