//! The manifest.

use node_agent_image::limits::{DATA_FILES_MAX, MANIFEST_BYTES_MAX};
use node_agent_image::manifest::{DataFile, Manifest};
use node_agent_image::{FormatError, checksum, names};

use crate::sample::sample_manifest;

fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
    Manifest::decode("there/manifest", bytes)
}

/// Text with a checksum line that fits it.
fn sealed(text: &str) -> Vec<u8> {
    format!("{text}xxh3-128 {:032x}\n", checksum(text.as_bytes())).into_bytes()
}

fn body(manifest: &Manifest) -> String {
    let text = String::from_utf8(manifest.encode("f").unwrap()).unwrap();
    text[..text.rfind("xxh3-128 ").unwrap()].to_owned()
}

#[test]
fn it_reads_back() {
    let manifest = sample_manifest();
    assert_eq!(decode(&manifest.encode("f").unwrap()).unwrap(), manifest);
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
    let error = decode(&sealed(&good.replacen(" 1 ", " 2 ", 1))).unwrap_err();
    assert_eq!(error, FormatError::Newer { file: "there/manifest".into(), theirs: 2 });
    assert!(error.to_string().contains("was written by a newer Slackwater"), "{error}");
    // A newer format may have anything behind the first line.
    let newer = sealed("slackwater-manifest 9 riscv64\nwhatever\u{7}\n");
    assert!(matches!(decode(&newer), Err(FormatError::Newer { theirs: 9, .. })));
    let error = decode(&sealed(&good.replacen("x86_64", "aarch64", 1))).unwrap_err().to_string();
    assert!(error.contains("written on aarch64"), "{error}");
    for head in ["0 x86_64", "-1 x86_64", "1", "x86_64 1", "1 x86_64 more", "99999999999 x86_64"] {
        assert!(decode(&sealed(&good.replacen("1 x86_64", head, 1))).is_err(), "{head}");
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
        ("\"bytes\": 4711", "\"bytes\": -1", "model.bytes"),
        ("\"bytes\": 13", "\"bytes\": \"13\"", "data[1].bytes"),
        ("\"bytes\": 13", "\"bytes\": 0", "data[1].bytes"),
        ("node-0.data-1", "../../etc/passwd", "data[1].name"),
        ("node-0.data-1", "node-0.data-0", "data[1].name"),
        ("node-0.model", "node-1.model", "model.name"),
        ("\"stall_ms\": 0.25,", "", "cost"),
    ];
    for (from, to, field) in cases {
        assert!(good.contains(from), "{good}");
        let error = decode(&sealed(&good.replacen(from, to, 1))).unwrap_err();
        assert!(matches!(&error, FormatError::Field { field: is, .. } if is == field), "{field}: {error}");
    }
    let mut manifest = sample_manifest();
    for text in ["", "0", &"G".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
        manifest.model.xxh3_128 = text.to_owned();
        let error = decode(&manifest.encode("f").unwrap()).unwrap_err();
        assert!(error.to_string().contains("model.xxh3_128"), "{error}");
    }
}

#[test]
fn a_field_more_is_no_error() {
    let with_more = body(&sample_manifest()).replacen("{\n", "{\n\"hosts\": [1],\n", 1);
    assert_eq!(decode(&sealed(&with_more)).unwrap(), sample_manifest());
}

#[test]
fn limits_at_their_edges() {
    let mut manifest = sample_manifest();
    let data = |count: usize| (0..count).map(|it| DataFile { name: names::data(it), bytes: 1 }).collect();
    manifest.data = data(DATA_FILES_MAX);
    assert_eq!(decode(&manifest.encode("f").unwrap()).unwrap(), manifest);
    manifest.data = data(DATA_FILES_MAX + 1);
    let error = decode(&manifest.encode("f").unwrap()).unwrap_err();
    assert!(matches!(error, FormatError::Limit { field: "data files", .. }), "{error}");

    let mut manifest = sample_manifest();
    let room = MANIFEST_BYTES_MAX as usize - manifest.encode("f").unwrap().len();
    manifest.cost.job.push_str(&"x".repeat(room));
    assert_eq!(decode(&manifest.encode("f").unwrap()).unwrap(), manifest);
    manifest.cost.job.push('x');
    assert!(matches!(manifest.encode("f"), Err(FormatError::Limit { .. })));
    assert!(matches!(decode(&vec![b's'; MANIFEST_BYTES_MAX as usize + 1]), Err(FormatError::Limit { .. })));
}
