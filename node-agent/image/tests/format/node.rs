//! The model file.

use node_agent_image::contents::{Compression, Contents, Owner, OwnerRuns};
use node_agent_image::limits::{
    BLOCK_BYTES_MAX, BLOCKS_MAX, DATA_FILES_MAX, MODEL_JSON_BYTES_MAX, OWNERS_MAX, RUNS_MAX,
};
use node_agent_image::model::NodeModel;
use node_agent_image::node::{HEADER_BYTES, TRAILER_BYTES, decode, encode};
use node_agent_image::{FormatError, checksum};

use crate::sample::{PAGE, sample};

const FILE: &str = "there/node-0.model";

fn encoded() -> Vec<u8> {
    let (model, contents) = sample();
    encode(FILE, &model, &contents).unwrap()
}

/// Changes bytes and makes the checksum fit.
fn resealed(mut bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    bytes.truncate(bytes.len() - TRAILER_BYTES);
    change(&mut bytes);
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn it_reads_back() {
    let (model, contents) = sample();
    assert_eq!(decode(FILE, &encoded()).unwrap(), (model, contents));
    let nothing = (NodeModel::default(), Contents::default());
    assert_eq!(decode(FILE, &encode(FILE, &nothing.0, &nothing.1).unwrap()).unwrap(), nothing);
}

#[test]
fn every_flipped_bit_and_every_cut_is_an_error() {
    let good = encoded();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = decode(FILE, &bad).expect_err(&format!("bit {bit} is not under the checksum"));
        assert!(error.to_string().starts_with(FILE), "{error}");
    }
    for length in 0..good.len() {
        assert!(decode(FILE, &good[..length]).is_err(), "cut at {length}");
    }
    assert!(decode(FILE, &[&good[..], &[0]].concat()).is_err());
}

/// With a checksum that fits nothing is an excuse for a panic.
#[test]
fn every_flipped_bit_under_a_forged_checksum() {
    let good = encoded();
    for bit in 0..(good.len() - TRAILER_BYTES) * 8 {
        let bad = resealed(good.clone(), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        if let Err(error) = decode(FILE, &bad) {
            assert!(error.to_string().starts_with(FILE), "{error}");
        }
    }
    for length in 0..good.len() - TRAILER_BYTES {
        assert!(decode(FILE, &resealed(good.clone(), |bytes| bytes.truncate(length))).is_err(), "cut at {length}");
    }
    let more = resealed(good, |bytes| bytes.push(0));
    assert!(matches!(decode(FILE, &more), Err(FormatError::Length { .. })));
}

#[test]
fn another_version_or_architecture_is_named() {
    let with = |at: usize, number: u32| {
        let bad = resealed(encoded(), |bytes| bytes[at..at + 4].copy_from_slice(&number.to_le_bytes()));
        decode(FILE, &bad).unwrap_err()
    };
    assert_eq!(with(8, 3), FormatError::Newer { file: FILE.into(), theirs: 3 });
    assert!(matches!(with(8, 0), FormatError::Field { .. }));
    assert_eq!(with(12, 183), FormatError::Architecture { file: FILE.into(), theirs: "aarch64".into() });
    assert!(with(12, 4711).to_string().contains("architecture 4711"));
    for bytes in [&b""[..], b"{}\n", &[0xff; 70_000], &b"slkwater".repeat(512)] {
        assert!(matches!(decode(FILE, bytes), Err(FormatError::Mark { .. })));
    }
}

#[test]
fn limits_at_their_edges() {
    let limits = [MODEL_JSON_BYTES_MAX, OWNERS_MAX, DATA_FILES_MAX, RUNS_MAX, BLOCKS_MAX];
    for (number, limit) in limits.into_iter().enumerate() {
        let with = |count: u64| {
            let at = 16 + 8 * number;
            let bad = resealed(encoded(), |bytes| bytes[at..at + 8].copy_from_slice(&count.to_le_bytes()));
            decode(FILE, &bad).unwrap_err()
        };
        // As many as there may be, and the file is too short for them: nothing is allocated.
        assert!(matches!(with(limit as u64), FormatError::Length { .. }), "number {number}");
        for count in [limit as u64 + 1, u64::MAX] {
            assert!(matches!(with(count), FormatError::Limit { .. }), "number {number}");
        }
    }
    assert_eq!(HEADER_BYTES, 16 + 8 * limits.len());
}

#[test]
fn bad_json_is_named_with_its_place() {
    let good = encoded();
    let text = String::from_utf8_lossy(&good).into_owned();
    let at = text.find("\"capacity\":4096").unwrap() + "\"capacity\":".len();
    let bad = resealed(good, |bytes| bytes[at] = b'x');
    let FormatError::Field { offset, field, .. } = decode(FILE, &bad).unwrap_err() else { panic!("another error") };
    assert!(field.starts_with("files[0].kind"), "{field}");
    assert!((at as u64 - 16..at as u64 + 16).contains(&offset), "{offset} for {at}");
}

/// Changes the sample; the error of reading it back.
fn refused(change: impl FnOnce(&mut NodeModel, &mut Contents)) -> String {
    let (mut model, mut contents) = sample();
    change(&mut model, &mut contents);
    let error = decode(FILE, &encode(FILE, &model, &contents).unwrap()).expect_err("what cannot be");
    assert!(matches!(error, FormatError::Field { .. }), "{error}");
    error.to_string()
}

#[test]
fn runs_that_cannot_be() {
    let runs = |number: usize, change: fn(&mut node_agent_image::contents::Run)| {
        refused(|_, contents| change(&mut contents.owners[0].runs[number]))
    };
    let expected = [
        (runs(0, |run| run.block = 3), "runs[0].block"),
        (runs(0, |run| run.bytes = 0), "runs[0].bytes"),
        (runs(0, |run| run.bytes = 4095), "runs[0].bytes"),
        (runs(0, |run| run.start += 1), "runs[0].start"),
        (runs(2, |run| run.start = u64::MAX - 4095), "runs[2].start"),
        (runs(1, |run| run.at = 1), "runs[1].at"),
        (runs(1, |run| run.at += 4096), "runs[1].at"),
        (runs(1, |run| run.at = u32::MAX - 4095), "runs[1].at"),
        (runs(1, |run| run.start = 16 * PAGE), "runs[1].start"),
        (runs(0, |run| run.start = 15 * PAGE), "runs[0].start: 0xf000 is not in the memory of process 0"),
        (runs(1, |run| run.start = 22 * PAGE), "runs[1].start: 0x16000 is not in the memory of process 0"),
        (runs(2, |run| run.start = 40 * PAGE), "runs[2].start"),
        (refused(|model, _| model.processes[2].memory.vmas.clear()), "runs[3].start"),
        (refused(|model, _| model.objects[0].size = PAGE), "runs[4].start"),
    ];
    for (error, field) in expected {
        assert!(error.contains(&format!(": {field}")), "{field}: {error}");
    }
}

#[test]
fn owners_that_cannot_be() {
    let owner = |number: usize, owner: Owner| refused(|_, contents| contents.owners[number].owner = owner);
    let expected = [
        (owner(1, Owner::Process(3)), "owners[1]: a process that is not in the model"),
        (owner(2, Owner::Object(1)), "owners[2]: an object that is not in the model"),
        (owner(1, Owner::Process(0)), "owners[1]: not behind the one before"),
        (refused(|_, contents| contents.owners.swap(1, 2)), "owners[2]: not behind the one before"),
        (refused(|model, _| model.processes[0].memory.vmas.swap(0, 1)), "memory.vmas[1]"),
        (refused(|model, _| model.processes[0].memory.vmas[0].end = 21 * PAGE), "memory.vmas[1]"),
        (refused(|model, _| model.processes[2].memory.vmas[0].end = 0), "memory.vmas[0]"),
    ];
    for (error, field) in expected {
        assert!(error.contains(field), "{field}: {error}");
    }
}

#[test]
fn blocks_that_cannot_be() {
    let block = |number: usize, change: fn(&mut node_agent_image::contents::Block)| {
        refused(|_, contents| {
            let before = contents.blocks[number].stored;
            change(&mut contents.blocks[number]);
            let file = contents.blocks[number].file as usize;
            contents.files[file] = contents.files[file] + u64::from(contents.blocks[number].stored) - u64::from(before);
        })
    };
    let expected = [
        (block(0, |it| it.raw = 0), "blocks[0].raw"),
        (block(0, |it| it.raw = 4097), "blocks[0].raw"),
        (block(0, |it| it.raw = BLOCK_BYTES_MAX as u32 + 4096), "blocks[0].raw"),
        (block(2, |it| it.stored = 0), "blocks[2].stored"),
        (block(0, |it| it.stored = it.raw), "blocks[0].stored"),
        (block(1, |it| it.stored -= 1), "blocks[1].stored"),
        (block(1, |it| it.compression = Compression::Lz4), "blocks[1].stored"),
        (refused(|_, contents| contents.files[0] += 1), "files[0].bytes"),
        (refused(|_, contents| contents.files.push(0)), "files[2].blocks"),
    ];
    for (error, field) in expected {
        assert!(error.contains(&format!(": {field}")), "{field}: {error}");
    }
    let (mut model, mut contents) = sample();
    contents.blocks[0].raw = BLOCK_BYTES_MAX as u32;
    model.objects[0].size = 4 * PAGE;
    contents.owners.push(OwnerRuns { owner: Owner::Object(1), runs: vec![] });
    model.objects.push(model.objects[0].clone());
    assert_eq!(decode(FILE, &encode(FILE, &model, &contents).unwrap()).unwrap(), (model, contents));
}
