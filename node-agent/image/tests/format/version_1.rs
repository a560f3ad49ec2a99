//! What format version 1 wrote is still read: one node, no numbers of nodes anywhere.

use node_agent_image::manifest::Manifest;
use node_agent_image::node::{TRAILER_BYTES, decode, encode};
use node_agent_image::{FormatError, checksum};

use crate::manifest::sealed;
use crate::sample::sample;

const MANIFEST: &str = r#"slackwater-manifest 1 x86_64
{
  "generation": 7,
  "model": {
    "name": "node-0.model",
    "bytes": 4711,
    "xxh3_128": "0123456789abcdef0123456789abcdef"
  },
  "data": [
    {
      "name": "node-0.data-0",
      "bytes": 12
    }
  ],
  "cost": {
    "job": "4f3a",
    "committed_at_ns": 5,
    "stall_ms": 0.25,
    "bytes_read": 4096,
    "bytes_stored": 4723,
    "files": 3,
    "processes": 2,
    "threads": 4
  }
}
"#;

#[test]
fn its_manifest_is_one_nodes() {
    let manifest = Manifest::decode("f", &sealed(MANIFEST)).unwrap();
    assert_eq!((manifest.generation, manifest.nodes.len(), manifest.cost.job.as_str()), (7, 1, "4f3a"));
    let node = &manifest.nodes[0];
    assert_eq!((node.node, node.host.as_str(), node.bytes_read, node.bytes_stored), (0, "", 4096, 4723));
    assert_eq!((node.files, node.processes, node.threads), (3, 2, 4));
    let lengths: Vec<_> = node.lengths().collect();
    assert_eq!(lengths, [("node-0.model", 4711), ("node-0.data-0", 12)]);
    // Written anew it is of this version, and says the same.
    assert_eq!(Manifest::decode("f", &manifest.encode("f").unwrap()).unwrap(), manifest);
}

#[test]
fn its_manifest_is_checked_as_ever() {
    let good = sealed(MANIFEST);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::decode("f", &bad).is_err(), "bit {bit} is not under the checksum");
    }
    let cases = [
        ("\"bytes\": 4711", "\"bytes\": -1", "model.bytes"),
        ("\"bytes\": 12", "\"bytes\": 0", "data[0].bytes"),
        ("node-0.data-0", "../../etc/passwd", "data[0].name"),
        ("node-0.model", "node-1.model", "model.name"),
        ("cdef\"", "cdeg\"", "model.xxh3_128"),
    ];
    for (from, to, field) in cases {
        assert!(MANIFEST.contains(from));
        let error = Manifest::decode("f", &sealed(&MANIFEST.replacen(from, to, 1))).unwrap_err();
        assert!(matches!(&error, FormatError::Field { field: is, .. } if is == field), "{field}: {error}");
    }
}

/// The tables are the same; the JSON has no `node` and no `peer_node`.
#[test]
fn its_model_file_is_node_0s() {
    let (model, contents) = sample();
    let mut bytes = encode("f", &model, &contents).unwrap();
    bytes.truncate(bytes.len() - TRAILER_BYTES);
    bytes[8] = 1;
    let field = b"\"node\":0,";
    let at = bytes.windows(field.len()).position(|it| it == field).unwrap();
    bytes.drain(at..at + field.len());
    let json = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) - field.len() as u64;
    bytes[16..24].copy_from_slice(&json.to_le_bytes());
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    assert_eq!(decode("f", &bytes).unwrap(), (model, contents));
}
