//! The manifest.

use node_agent_image::limits::{DATA_FILES_IN_ALL_MAX, DATA_FILES_MAX, HOST_BYTES_MAX, MANIFEST_BYTES_MAX, NODES_MAX};
use node_agent_image::manifest::Manifest;
use node_agent_image::receipt::{DataFile, Receipt};
use node_agent_image::{FormatError, checksum, names};

use crate::sample::{sample_manifest, sample_receipt};

fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
    Manifest::decode("there/manifest", bytes)
}

/// Text with a checksum line that fits it.
pub fn sealed(text: &str) -> Vec<u8> {
    format!("{text}xxh3-128 {:032x}\n", checksum(text.as_bytes())).into_bytes()
}

fn body(manifest: &Manifest) -> String {
    let text = String::from_utf8(manifest.encode("f").unwrap()).unwrap();
    text[..text.rfind("xxh3-128 ").unwrap()].to_owned()
}

/// Both ways: it is not written, and where it was written nevertheless it is not read.
fn refused(manifest: &Manifest) -> FormatError {
    let text = format!("slackwater-manifest 2 x86_64\n{}", serde_json::to_string(manifest).unwrap());
    let read = Manifest::decode("f", &sealed(&text)).unwrap_err();
    assert_eq!(manifest.encode("f").unwrap_err(), read);
    read
}

#[test]
fn it_reads_back() {
    let manifest = sample_manifest();
    assert_eq!(decode(&manifest.encode("f").unwrap()).unwrap(), manifest);
    assert_eq!(manifest.node(3), Some(&manifest.nodes[2]));
    assert_eq!(manifest.node(2), None);
    let lengths: Vec<_> = manifest.nodes[2].lengths().collect();
    assert_eq!(lengths, [("node-3.model", 4711), ("node-3.data-0", 12)]);
}

#[test]
fn a_line_for_each_node() {
    let text = body(&sample_manifest());
    for node in [0, 1, 3] {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(&format!("node-{node}."))).collect();
        assert!(lines.len() == 1 && lines[0].contains(&format!("\"host\":\"n{node}\"")), "{text}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_an_error() {
    let good = sample_manifest().encode("f").unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = decode(&bad).expect_err(&format!("bit {bit} is not under the checksum"));
        assert!(error.to_string().starts_with("there/manifest"), "{error}");
    }
    for length in 0..good.len() {
        assert!(decode(&good[..length]).is_err(), "cut at {length}");
    }
    for more in [&b"\n"[..], b" ", b"xxh3-128 ", &[0; 42]] {
        assert!(decode(&[&good, more].concat()).is_err(), "{more:?} behind its end");
    }
}

#[test]
fn another_version_or_architecture_is_named() {
    let good = body(&sample_manifest());
    let error = decode(&sealed(&good.replacen(" 2 ", " 3 ", 1))).unwrap_err();
    assert_eq!(error, FormatError::Newer { file: "there/manifest".into(), theirs: 3 });
    assert!(error.to_string().contains("was written by a newer Slackwater"), "{error}");
    // A newer format may have anything behind the first line.
    let newer = sealed("slackwater-manifest 9 riscv64\nwhatever\u{7}\n");
    assert!(matches!(decode(&newer), Err(FormatError::Newer { theirs: 9, .. })));
    let error = decode(&sealed(&good.replacen("x86_64", "aarch64", 1))).unwrap_err().to_string();
    assert!(error.contains("written on aarch64"), "{error}");
    for head in ["0 x86_64", "-1 x86_64", "2", "x86_64 2", "2 x86_64 more", "99999999999 x86_64"] {
        assert!(decode(&sealed(&good.replacen("2 x86_64", head, 1))).is_err(), "{head}");
    }
}

#[test]
fn other_things_are_not_a_manifest() {
    for bytes in [&b""[..], b"{}\n", &[0xff; 70_000], &b"slkwater".repeat(512)] {
        assert!(matches!(decode(bytes), Err(FormatError::Mark { .. })));
    }
}

#[test]
fn a_bad_field_is_named() {
    let good = body(&sample_manifest());
    let cases = [
        ("\"bytes\":4711", "\"bytes\":-1", "nodes[0].model.bytes"),
        ("\"bytes\":4711", "\"bytes\":4712", "nodes[0].bytes_stored"),
        ("\"bytes\":13", "\"bytes\":\"13\"", "nodes[0].data[1].bytes"),
        ("\"bytes\":13", "\"bytes\":0", "nodes[0].data[1].bytes"),
        ("node-0.data-1", "../../etc/passwd", "nodes[0].data[1].name"),
        ("node-0.data-1", "node-0.data-0", "nodes[0].data[1].name"),
        ("node-3.data-0", "node-0.data-0", "nodes[2].data[0].name"),
        ("node-1.model", "node-0.model", "nodes[1].model.name"),
        ("\"node\":1", "\"node\":0", "nodes[1].node"),
        ("\"node\":1", "\"node\":3", "nodes[1].model.name"),
        ("\"stall_ms\":0.25,", "", "cost"),
        ("\"host\":\"n1\",", "", "nodes[1]"),
    ];
    for (from, to, field) in cases {
        assert!(good.contains(from), "{good}");
        let error = decode(&sealed(&good.replacen(from, to, 1))).unwrap_err();
        assert!(matches!(&error, FormatError::Field { field: is, .. } if is == field), "{field}: {error}");
    }
    let mut manifest = sample_manifest();
    for text in ["", "0", &"G".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
        manifest.nodes[1].model.xxh3_128 = text.to_owned();
        assert!(refused(&manifest).to_string().contains("nodes[1].model.xxh3_128"));
    }
}

#[test]
fn nodes_that_cannot_be() {
    let with = |nodes: Vec<Receipt>| refused(&Manifest { nodes, ..sample_manifest() }).to_string();
    assert!(with(vec![]).contains("nodes: none"));
    let twice = with(vec![sample_receipt(0, 1), sample_receipt(2, 1), sample_receipt(2, 1)]);
    assert!(twice.contains("nodes[2].node: 2, not behind the one before"), "{twice}");
    let backwards = with(vec![sample_receipt(2, 1), sample_receipt(0, 1)]);
    assert!(backwards.contains("nodes[1].node: 0, not behind the one before"), "{backwards}");
    let overflow =
        Receipt { data: vec![DataFile { name: names::data(0, 0), bytes: u64::MAX }], ..sample_receipt(0, 1) };
    assert!(with(vec![overflow]).contains("nodes[0].bytes_stored"));
}

#[test]
fn a_field_more_is_no_error() {
    let with_more = body(&sample_manifest()).replacen("\"nodes\":", "\"hosts\":[1],\n\"nodes\":", 1);
    assert_eq!(decode(&sealed(&with_more)).unwrap(), sample_manifest());
}

#[test]
fn limits_at_their_edges() {
    let with = |nodes: Vec<Receipt>| Manifest { nodes, ..sample_manifest() };
    let last = NODES_MAX as u32 - 1;
    let long = |more: usize| {
        let data = (0..DATA_FILES_MAX + more).map(|it| DataFile { name: names::data(last, it), bytes: 1 });
        let data: Vec<_> = data.collect();
        let bytes_stored = 4711 + data.len() as u64;
        Receipt { data, bytes_stored, ..sample_receipt(last, 0) }
    };
    let named = |bytes: usize| Receipt { host: "h".repeat(bytes), ..sample_receipt(0, 0) };
    for good in [long(0), named(HOST_BYTES_MAX)] {
        let good = with(vec![good]);
        assert_eq!(decode(&good.encode("f").unwrap()).unwrap(), good);
    }
    let many = with((0..=last).map(|node| sample_receipt(node, 0)).collect());
    assert_eq!(decode(&many.encode("f").unwrap()).unwrap(), many);
    let expected = [
        (refused(&with(vec![long(1)])), "data files"),
        (refused(&with(vec![named(HOST_BYTES_MAX + 1)])), "bytes of a host's name"),
        (refused(&with(vec![sample_receipt(last + 1, 0)])), "number of a node"),
        (refused(&with((0..=last + 1).map(|node| sample_receipt(node, 0)).collect())), "nodes"),
    ];
    for (error, field) in expected {
        assert!(matches!(error, FormatError::Limit { field: is, .. } if is == field), "{field}: {error}");
    }
    // All data files: said of the first node, so that nothing has to be as long as that.
    let each = DATA_FILES_IN_ALL_MAX / NODES_MAX;
    let one = |node| Receipt { data: vec![DataFile::default(); each], ..sample_receipt(node, 0) };
    let mut nodes: Vec<Receipt> = (0..=last).map(one).collect();
    assert!(matches!(with(nodes.clone()).encode("f"), Err(FormatError::Field { .. })));
    nodes[0].data.push(DataFile::default());
    let error = with(nodes).encode("f").unwrap_err();
    assert!(matches!(error, FormatError::Limit { field: "data files of all nodes", .. }), "{error}");

    assert!(matches!(decode(&vec![b's'; MANIFEST_BYTES_MAX as usize]), Err(FormatError::Mark { .. })));
    assert!(matches!(decode(&vec![b's'; MANIFEST_BYTES_MAX as usize + 1]), Err(FormatError::Limit { .. })));
    let mut manifest = sample_manifest();
    manifest.cost.job = "x".repeat(MANIFEST_BYTES_MAX as usize);
    assert!(matches!(manifest.encode("f"), Err(FormatError::Limit { field: "bytes of a manifest", .. })));
}

/// A generation with as much of everything as there may be has a manifest that may be.
#[test]
fn the_longest_manifest_fits() {
    let line = |data: Vec<DataFile>| {
        let longest = Receipt {
            node: NODES_MAX as u32 - 1,
            // Written as six characters each.
            host: "\u{1}".repeat(HOST_BYTES_MAX),
            bytes_read: u64::MAX,
            bytes_stored: u64::MAX,
            files: u64::MAX,
            processes: u64::MAX,
            threads: u64::MAX,
            data,
            ..sample_receipt(NODES_MAX as u32 - 1, 0)
        };
        serde_json::to_string(&longest).unwrap().len() as u64 + 2
    };
    let file = DataFile { name: names::data(NODES_MAX as u32 - 1, DATA_FILES_MAX - 1), bytes: u64::MAX };
    let node = line(vec![]) + 20;
    let each = line(vec![file.clone(), file.clone()]) - line(vec![file]);
    let all = NODES_MAX as u64 * node + DATA_FILES_IN_ALL_MAX as u64 * each + 4096;
    assert!(all <= MANIFEST_BYTES_MAX, "{all}");
}
