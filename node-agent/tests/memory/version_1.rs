//! A generation that format version 1 has written still comes back.

use std::fs;
use std::path::Path;

use node_agent::memory::{Generation, read_manifest};
use node_agent_image::checksum;

use crate::sample::{Pages, commit, model, own_targets};

/// Writes a one-node generation's manifest and model file as version 1 did.
fn age(folder: &Path) {
    let now = read_manifest(folder).unwrap();
    let path = folder.join("node-0.model");
    let bytes = without_node(&fs::read(&path).unwrap());
    let data: Vec<String> = now.nodes[0]
        .data
        .iter()
        .map(|it| format!("    {{\n      \"name\": {:?},\n      \"bytes\": {}\n    }}", it.name, it.bytes))
        .collect();
    let mut cost = now.cost.clone();
    cost.bytes_stored = bytes.len() as u64 + now.nodes[0].data.iter().map(|it| it.bytes).sum::<u64>();
    let text = format!(
        "slackwater-manifest 1 x86_64\n{{\n  \"generation\": {},\n  \"model\": {{\n    \"name\": \"node-0.model\",\n    \
         \"bytes\": {},\n    \"xxh3_128\": \"{:032x}\"\n  }},\n  \"data\": [\n{}\n  ],\n  \"cost\": {}\n}}\n",
        now.generation,
        bytes.len(),
        checksum(&bytes),
        data.join(",\n"),
        serde_json::to_string_pretty(&cost).unwrap(),
    );
    fs::write(path, bytes).unwrap();
    fs::write(folder.join("manifest"), format!("{text}xxh3-128 {:032x}\n", checksum(text.as_bytes()))).unwrap();
}

/// A model file of version 1: its JSON knows no nodes.
fn without_node(now: &[u8]) -> Vec<u8> {
    const JSON: usize = 56;
    let length = u64::from_le_bytes(now[16..24].try_into().unwrap()) as usize;
    let mut model: serde_json::Value = serde_json::from_slice(&now[JSON..JSON + length]).unwrap();
    model.as_object_mut().unwrap().remove("node").unwrap();
    let json = serde_json::to_vec(&model).unwrap();
    let mut old = now[..JSON].to_vec();
    old[8] = 1;
    old[16..24].copy_from_slice(&(json.len() as u64).to_le_bytes());
    old.extend_from_slice(&json);
    old.extend_from_slice(&now[JSON + length..now.len() - 16]);
    let sum = checksum(&old);
    old.extend_from_slice(&sum.to_le_bytes());
    old
}

#[test]
fn it_opens_verifies_and_fills() {
    let place = tempfile::tempdir().unwrap();
    let mut pages = Pages::mixed(900);
    let want = pages.as_ref().to_vec();
    let written = commit(place.path(), &[pages.source()], &model(&[pages.stretch()]));
    age(&written.path);
    assert!(fs::read(written.path.join("manifest")).unwrap().starts_with(b"slackwater-manifest 1 x86_64\n"));

    assert_eq!(Generation::damage(&written.path), Vec::<String>::new());
    let manifest = read_manifest(&written.path).unwrap();
    assert_eq!((manifest.nodes.len(), manifest.nodes[0].node, manifest.cost.stall_ms), (1, 0, 1.5));
    let generation = Generation::open(&written.path, 0).unwrap();
    assert_eq!(generation.model(), &model(&[pages.stretch()]));
    pages.as_mut().fill(0);
    generation.fill(&own_targets()).unwrap();
    assert!(pages.as_ref() == want);
    assert!(Generation::open(&written.path, 1).unwrap_err().to_string().contains("no node 1"));
    // The next generation goes on from there, in this version.
    assert_eq!(commit(place.path(), &[pages.source()], &model(&[pages.stretch()])).generation, 2);

    for name in ["manifest", "node-0.model", "node-0.data-0"] {
        let good = fs::read(written.path.join(name)).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 16;
        fs::write(written.path.join(name), bad).unwrap();
        let lines = Generation::damage(&written.path);
        assert!(lines.len() == 1 && lines[0].contains(name), "{lines:?}");
        fs::write(written.path.join(name), good).unwrap();
    }
}
