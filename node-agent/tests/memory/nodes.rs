//! A generation of many nodes: each writes its part into one folder, and only all of them are a generation.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use node_agent::guardian::board::Progress;
use node_agent::memory::{
    Cost, Generation, Part, Receipt, Unfinished, WriteError, Written, clear_unfinished, read_manifest, retain,
};
use node_agent_image::model::{FileKind, NodeModel, OpenFile, Remote, Socket};

use crate::sample::{Pages, cost, files, model, names, own_targets};

/// One process's memory, as virtual node `node` remembers it.
fn node_model(node: u32, pages: &Pages) -> NodeModel {
    let mut model = NodeModel { node, ..model(&[pages.stretch()]) };
    model.machine.host = format!("n{node}");
    model
}

fn write_part(folder: &Path, node: u32, pages: &Pages) -> Receipt {
    let mut part = Part::begin(folder, node).unwrap();
    part.write(&[pages.source()], &Progress::default()).unwrap();
    part.finish(&node_model(node, pages)).unwrap()
}

/// Three nodes' memory, each another.
fn three_memories() -> [Pages; 3] {
    let mut all = [0, 1, 2].map(|node| Pages::mixed(900 + 100 * node));
    for (node, pages) in all.iter_mut().enumerate() {
        pages.as_mut().chunks_exact_mut(4096).for_each(|page| page[7] ^= node as u8);
    }
    all
}

/// Each of three nodes at the same time, as on three hosts.
fn write_three(folder: &Path, all: &[Pages; 3]) -> Vec<Receipt> {
    let together = Barrier::new(3);
    thread::scope(|scope| {
        let part = |node: usize| {
            together.wait();
            write_part(folder, node as u32, &all[node])
        };
        let threads = [2, 0, 1].map(|node| scope.spawn(move || part(node)));
        threads.map(|it| it.join().unwrap()).into()
    })
}

fn commit_three(dir: &Path, all: &[Pages; 3]) -> Written {
    let unfinished = Unfinished::begin(dir).unwrap();
    let receipts = write_three(unfinished.path(), all);
    unfinished.commit(receipts, cost()).unwrap()
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(name);
    assert!(file.exists(), "{}", file.display());
    file
}

#[test]
fn three_parts_are_one_generation() {
    let place = tempfile::tempdir().unwrap();
    let mut all = three_memories();
    let want: Vec<Vec<u8>> = all.iter().map(|it| it.as_ref().to_vec()).collect();
    let written = commit_three(place.path(), &all);
    assert_eq!(names(place.path()), ["gen-000001"]);
    let lengths: u64 = files(&written.path).iter().map(|it| fs::metadata(it).unwrap().len()).sum();
    assert_eq!((written.generation, written.bytes_stored), (1, lengths));

    let manifest = read_manifest(&written.path).unwrap();
    let nodes: Vec<_> = manifest.nodes.iter().map(|it| (it.node, it.host.as_str(), it.processes)).collect();
    assert_eq!(nodes, [(0, "n0", 1), (1, "n1", 1), (2, "n2", 1)]);
    let all_read: u64 = want.iter().map(|it| it.len() as u64).sum();
    assert_eq!((manifest.cost.bytes_read, manifest.cost.processes, written.bytes_read), (all_read, 3, all_read));
    assert_eq!((manifest.cost.job.as_str(), manifest.cost.stall_ms), ("4f3a", 1.5));
    assert_eq!(Generation::damage(&written.path), Vec::<String>::new());
    for (node, want) in want.iter().enumerate() {
        let generation = Generation::open(&written.path, node as u32).unwrap();
        assert_eq!((generation.node(), generation.model().machine.host.clone()), (node as u32, format!("n{node}")));
        all[node].as_mut().fill(0);
        generation.fill(&own_targets()).unwrap();
        assert!(all[node].as_ref() == want, "node {node}");
    }
    let error = Generation::open(&written.path, 3).unwrap_err().to_string();
    assert!(error.contains("no node 3 in it, only 0, 1, 2"), "{error}");
}

/// The text of a number with a fraction does not always give the same number again.
#[test]
fn any_stall_can_be_committed() {
    let place = tempfile::tempdir().unwrap();
    let mut said = 0;
    for step in 1..40 {
        let stall_ms = f64::from(step) * 1.000_123_456_789 / 7.0;
        let unfinished = Unfinished::begin(place.path()).unwrap();
        let receipt = Part::begin(unfinished.path(), 0).unwrap().finish(&NodeModel::default()).unwrap();
        let written = unfinished.commit(vec![receipt], Cost { stall_ms, ..cost() }).unwrap();
        let again = read_manifest(&written.path).unwrap().cost.stall_ms;
        assert!((again - stall_ms).abs() < 1e-9);
        said += usize::from(again != stall_ms);
        retain(place.path(), 1);
    }
    assert!(said > 0, "all of them came back to the last bit: this proves nothing");
}

/// Any file of any node, flipped or cut: it is named; others are still read.
#[test]
fn damage_of_any_node_is_named() {
    let place = tempfile::tempdir().unwrap();
    let written = commit_three(place.path(), &three_memories());
    for file in files(&written.path) {
        let good = fs::read(&file).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 4;
        for bad in [&flipped[..], &good[..good.len() - 1], &[]] {
            fs::write(&file, bad).unwrap();
            let lines = Generation::damage(&written.path);
            assert!(lines.len() == 1 && lines[0].contains(&*file.to_string_lossy()), "{}: {lines:?}", file.display());
        }
        fs::write(&file, &good).unwrap();
    }
    let (first, last) = (file_of(&written.path, "node-0.data-0"), file_of(&written.path, "node-2.model"));
    fs::remove_file(&first).unwrap();
    fs::remove_file(&last).unwrap();
    let lines = Generation::damage(&written.path);
    assert!(lines.len() == 2 && lines[0].contains("node-0.data-0") && lines[1].contains("node-2.model"), "{lines:?}");
    assert!(Generation::open(&written.path, 1).is_ok());
}

#[test]
fn a_file_of_another_node_or_of_nobody() {
    let place = tempfile::tempdir().unwrap();
    let all = three_memories();
    let written = commit_three(place.path(), &all);
    for name in ["node-3.model", "node-0.data-99", "notes"] {
        let file = written.path.join(name);
        fs::write(&file, "mine").unwrap();
        let lines = Generation::damage(&written.path);
        assert!(lines.len() == 1 && lines[0].contains(name) && lines[0].contains("does not name it"), "{lines:?}");
        fs::remove_file(&file).unwrap();
    }
    // One node's model under another's name: its bytes are good, and not what the manifest says.
    let model = file_of(&written.path, "node-1.model");
    fs::copy(file_of(&written.path, "node-0.model"), &model).unwrap();
    let lines = Generation::damage(&written.path);
    assert!(lines.iter().any(|it| it.contains("node-1.model")), "{lines:?}");

    let unfinished = Unfinished::begin(place.path()).unwrap();
    let receipts = write_three(unfinished.path(), &all);
    fs::write(unfinished.path().join("node-3.model"), "late").unwrap();
    let error = unfinished.commit(receipts, cost()).unwrap_err();
    assert!(matches!(&error, WriteError::Stranger { path } if path.ends_with("node-3.model")), "{error}");
    assert_eq!(names(place.path()), ["gen-000001"], "what is not committed goes away");
}

/// A model says which node it is of; a receipt may not be taken for another's, nor twice.
#[test]
fn parts_of_other_nodes_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let all = three_memories();
    let unfinished = Unfinished::begin(place.path()).unwrap();
    let part = Part::begin(unfinished.path(), 5).unwrap();
    let error = part.finish(&node_model(4, &all[0])).unwrap_err().to_string();
    assert!(error.contains("node-5.model") && error.contains("node: 4"), "{error}");
    // The same node once more: its files are there.
    let mut part = Part::begin(unfinished.path(), 5).unwrap();
    part.write(&[all[0].source()], &Progress::default()).unwrap();
    let error = part.finish(&node_model(5, &all[0])).unwrap_err().to_string();
    assert!(error.contains("cannot make") && error.contains("node-5.model"), "{error}");
    drop(unfinished);

    let unfinished = || Unfinished::begin(place.path()).unwrap();
    let refused = |unfinished: Unfinished, receipts: Vec<Receipt>| {
        let error = unfinished.commit(receipts, cost()).unwrap_err();
        assert!(matches!(error, WriteError::Format(_)), "{error}");
        error.to_string()
    };
    let this = unfinished();
    let receipt = write_part(this.path(), 1, &all[1]);
    let error = refused(this, vec![receipt.clone(), receipt.clone()]);
    assert!(error.contains("nodes[1].node: 1, not behind the one before"), "{error}");
    let mut elsewhere = receipt;
    elsewhere.model.name = "../gen-000001/node-1.model".into();
    assert!(refused(unfinished(), vec![elsewhere]).contains("nodes[0].model.name"));
    assert!(refused(unfinished(), vec![]).contains("nodes: none"));
    assert_eq!(names(place.path()), Vec::<String>::new());
}

/// What happens to a file.
type Way = fn(&Path);

#[test]
fn a_missing_or_short_file_is_not_committed() {
    let place = tempfile::tempdir().unwrap();
    let all = three_memories();
    let ways: [(&str, Way); 3] = [
        ("node-1.model", |it| fs::remove_file(it).unwrap()),
        ("node-2.data-0", |it| fs::write(it, "short").unwrap()),
        ("node-0.data-0", |it| fs::write(it, vec![0; 8 << 20]).unwrap()),
    ];
    thread::scope(|scope| {
        for (name, way) in ways {
            let (dir, all) = (place.path().join(name), &all);
            scope.spawn(move || {
                let unfinished = Unfinished::begin(&dir).unwrap();
                let receipts = write_three(unfinished.path(), all);
                way(&file_of(unfinished.path(), name));
                let error = unfinished.commit(receipts, cost()).unwrap_err();
                let node: u32 = name[5..6].parse().unwrap();
                assert!(matches!(&error, WriteError::Missing { node: is, .. } if *is == node), "{error}");
                let said = error.to_string();
                assert!(said.contains(name) && said.contains(&format!("(n{node})")), "{said}");
                assert_eq!(names(&dir), Vec::<String>::new());
            });
        }
    });
}

/// On a network file system another host's file may be seen late, or first without its end.
#[test]
fn a_late_file_is_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let all = three_memories();
    let unfinished = Unfinished::begin(place.path()).unwrap();
    let receipts = write_three(unfinished.path(), &all);
    let (late, short) = (file_of(unfinished.path(), "node-2.model"), file_of(unfinished.path(), "node-1.data-0"));
    let (hidden, whole) = (place.path().join("hidden"), fs::read(&short).unwrap());
    fs::rename(&late, &hidden).unwrap();
    fs::write(&short, &whole[..100]).unwrap();
    let written = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            fs::rename(&hidden, &late).unwrap();
            fs::write(&short, &whole).unwrap();
        });
        unfinished.commit(receipts, cost()).unwrap()
    });
    assert_eq!(Generation::damage(&written.path), Vec::<String>::new());
}

/// The folder itself may be seen late by a node, and one that is not there is no riddle.
#[test]
fn a_late_folder_is_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join(".gen-000001.part");
    let unfinished = thread::scope(|scope| {
        let made = scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            Unfinished::begin(place.path()).unwrap()
        });
        Part::begin(&folder, 1).unwrap();
        made.join().unwrap()
    });
    drop(unfinished);
    let begun = Instant::now();
    let error = Part::begin(&folder, 1).unwrap_err().to_string();
    assert!(error.contains("cannot open the folder") && error.contains(".gen-000001.part"), "{error}");
    assert!(begun.elapsed() > Duration::from_secs(2), "it was not waited for");
    fs::write(&folder, "").unwrap();
    let begun = Instant::now();
    assert!(Part::begin(&folder, 1).is_err());
    assert!(begun.elapsed() < Duration::from_secs(2), "what is no folder will not become one");
}

/// A node that is cut off and goes on must not write into the next generation's folder, which may have the same name.
#[test]
fn a_part_of_an_abandoned_folder_goes_nowhere() {
    let place = tempfile::tempdir().unwrap();
    let all = three_memories();
    let first = Unfinished::begin(place.path()).unwrap();
    let mut part = Part::begin(first.path(), 0).unwrap();
    let path = first.path().to_path_buf();
    drop(first);
    let second = Unfinished::begin(place.path()).unwrap();
    assert_eq!(second.path(), path);
    let error = part.write(&[all[0].source()], &Progress::default()).unwrap_err().to_string();
    assert!(error.contains("node-0.data-"), "{error}");
    assert_eq!(names(&path), Vec::<String>::new());
}

#[test]
fn old_ones_and_leftovers_go_whole() {
    let place = tempfile::tempdir().unwrap();
    let all = three_memories();
    for number in 1..=3 {
        assert_eq!(commit_three(place.path(), &all).generation, number);
    }
    retain(place.path(), 1);
    assert_eq!(names(place.path()), ["gen-000003"]);
    let unfinished = Unfinished::begin(place.path()).unwrap();
    let receipts = write_three(unfinished.path(), &all);
    assert_eq!(receipts.len(), 3);
    // Its coordinator was killed.
    std::mem::forget(unfinished);
    assert_eq!(names(place.path()), [".gen-000004.part", "gen-000003"]);
    clear_unfinished(place.path());
    assert_eq!(names(place.path()), ["gen-000003"]);
    assert_eq!(commit_three(place.path(), &all).generation, 4);
}

/// A connection to a node that the generation does not have could never be made again.
#[test]
fn connections_lead_to_nodes_that_are_there() {
    let place = tempfile::tempdir().unwrap();
    let addresses = [([10, 0, 0, 1], 4000).into(), ([10, 0, 0, 2], 80).into()];
    let taken = |other: u32| {
        let [local, remote] = addresses;
        let peer_node = Some(Remote::new(other, local, remote));
        let socket =
            Socket { family: 2, kind: 1, local: vec![2; 16], remote: vec![2; 16], peer_node, ..Socket::default() };
        let files = vec![OpenFile { kind: FileKind::Socket(Box::new(socket)), ..OpenFile::default() }];
        let unfinished = Unfinished::begin(place.path()).unwrap();
        let finish = |model: NodeModel| Part::begin(unfinished.path(), model.node).unwrap().finish(&model).unwrap();
        let receipts = vec![
            finish(NodeModel { node: 0, files, ..NodeModel::default() }),
            finish(NodeModel { node: 1, ..NodeModel::default() }),
        ];
        unfinished.commit(receipts, cost()).unwrap().path
    };
    let good = taken(1);
    assert_eq!(Generation::damage(&good), Vec::<String>::new());
    let bad = taken(2);
    let lines = Generation::damage(&bad);
    assert!(lines.len() == 1 && lines[0].contains("node 2, which is not in the manifest"), "{lines:?}");
    let error = Generation::open(&bad, 0).unwrap_err().to_string();
    assert!(error.contains("node-0.model") && error.contains("node 2"), "{error}");
}
