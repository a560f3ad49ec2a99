//! Manifests of format version 1: one node, whose files and whose cost are the whole generation's.

use serde::Deserialize;

use super::{Cost, Manifest};
use crate::receipt::{DataFile, ModelFile, Receipt};
use crate::{FormatError, parse};

#[derive(Deserialize)]
struct Old {
    generation: u64,
    model: ModelFile,
    data: Vec<DataFile>,
    cost: Cost,
}

/// `body`: the JSON, which begins at `offset` of the file.
pub fn read(file: &str, offset: u64, body: &[u8]) -> Result<Manifest, FormatError> {
    let Old { generation, model, data, cost } = parse::json(file, offset, body)?;
    let Cost { bytes_read, bytes_stored, files, processes, threads, .. } = cost;
    let host = String::new();
    let node = Receipt { node: 0, host, model, data, bytes_read, bytes_stored, files, processes, threads };
    node.check(file, offset, "")?;
    Ok(Manifest { generation, cost, nodes: vec![node] })
}
