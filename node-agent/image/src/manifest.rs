//! The manifest: which nodes a generation has, which files, how long they are, and what it cost. A head line, JSON, and a
//! line with the checksum of all before it.

use serde::{Deserialize, Serialize};

use crate::limits::{DATA_FILES_IN_ALL_MAX, MANIFEST_BYTES_MAX, NODES_MAX};
use crate::receipt::Receipt;
use crate::{ARCHITECTURE, FORMAT, FormatError, architecture_name, checksum, parse};

mod version_1;

const MARK: &str = "slackwater-manifest ";
const SUM: &str = "xxh3-128 ";
/// Mark, 32 hex digits, line feed.
const SUM_LINE_BYTES: usize = SUM.len() + 32 + 1;

/// What the manifest says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Number that it was committed with.
    pub generation: u64,
    /// Of all nodes together.
    pub cost: Cost,
    /// The virtual nodes, ascending by number; a number may be missing where a node had left the job.
    pub nodes: Vec<Receipt>,
}

/// What a checkpoint cost, and of whom it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Job id.
    pub job: String,
    /// When it was committed, ns since 1970.
    pub committed_at_ns: u64,
    /// How long the job stood still, ms.
    pub stall_ms: f64,
    /// Bytes of memory that were looked at.
    pub bytes_read: u64,
    /// Bytes of all model files and data files.
    pub bytes_stored: u64,
    /// Open file descriptions.
    pub files: u64,
    #[allow(missing_docs)]
    pub processes: u64,
    #[allow(missing_docs)]
    pub threads: u64,
}

impl Manifest {
    /// What it says of a node.
    #[must_use]
    pub fn node(&self, number: u32) -> Option<&Receipt> {
        self.nodes.binary_search_by_key(&number, |it| it.node).ok().map(|at| &self.nodes[at])
    }

    /// As it lies in the file.
    ///
    /// # Errors
    /// When it could not be read back: a node twice, another file's name, too much of something; names `file`.
    pub fn encode(&self, file: &str) -> Result<Vec<u8>, FormatError> {
        let head = format!("{MARK}{FORMAT} {}\n", architecture_name(ARCHITECTURE));
        self.check(file, head.len() as u64)?;
        let mut text =
            head + &self.json().map_err(|error| parse::field_error(file, 0, "manifest", error.to_string()))?;
        check_length(file, (text.len() + SUM_LINE_BYTES) as u64)?;
        text.push_str(&sum_line(text.as_bytes()));
        Ok(text.into_bytes())
    }

    /// What it says, with every check that needs no other file.
    ///
    /// # Errors
    /// Bytes that were not written by [`Manifest::encode`], or by that of another version or architecture.
    pub fn decode(file: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        check_length(file, bytes.len() as u64)?;
        if !bytes.starts_with(MARK.as_bytes()) {
            return Err(FormatError::Mark { file: file.into(), what: "manifest" });
        }
        let text = checked(file, bytes)?;
        let head_bytes = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1);
        let (head, body) = text.split_at(head_bytes);
        let version = check_head(file, head)?;
        if version == 1 {
            return version_1::read(file, head_bytes as u64, body);
        }
        let manifest: Self = parse::json(file, head_bytes as u64, body)?;
        manifest.check(file, head_bytes as u64)?;
        Ok(manifest)
    }

    /// A line for each node: a person looks for one, and of ten thousand each has a hundred files.
    fn json(&self) -> Result<String, serde_json::Error> {
        let cost = serde_json::to_string(&self.cost)?;
        let nodes: Vec<String> = self.nodes.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let (generation, nodes) = (self.generation, nodes.join(",\n"));
        Ok(format!("{{\"generation\":{generation},\n\"cost\":{cost},\n\"nodes\":[\n{nodes}\n]}}\n"))
    }

    fn check(&self, file: &str, offset: u64) -> Result<(), FormatError> {
        if self.nodes.is_empty() {
            return Err(parse::field_error(file, offset, "nodes", "none"));
        }
        parse::at_most(file, "nodes", self.nodes.len() as u64, NODES_MAX)?;
        let files: usize = self.nodes.iter().map(|it| it.data.len()).sum();
        parse::at_most(file, "data files of all nodes", files as u64, DATA_FILES_IN_ALL_MAX)?;
        for (index, node) in self.nodes.iter().enumerate() {
            if index > 0 && self.nodes[index - 1].node >= node.node {
                let reason = format!("{}, not behind the one before", node.node);
                return Err(parse::field_error(file, offset, format!("nodes[{index}].node"), reason));
            }
            node.check(file, offset, &format!("nodes[{index}]."))?;
        }
        Ok(())
    }
}

fn check_length(file: &str, bytes: u64) -> Result<(), FormatError> {
    parse::at_most(file, "bytes of a manifest", bytes, MANIFEST_BYTES_MAX as usize).map(drop)
}

fn sum_line(text: &[u8]) -> String {
    format!("{SUM}{:032x}\n", checksum(text))
}

/// The bytes that the last line vouches for.
fn checked<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a [u8], FormatError> {
    let Some(end) = bytes.len().checked_sub(SUM_LINE_BYTES) else {
        return Err(parse::field_error(file, 0, "checksum line", "damaged: the file ends before it"));
    };
    let (text, line) = bytes.split_at(end);
    // Compared as text: no byte of the line itself can be another one, upper case included.
    if line != sum_line(text).as_bytes() {
        let said = String::from_utf8_lossy(line).trim_end().to_owned();
        let reason = format!("damaged: it is {said:?} and should be {:?}", sum_line(text).trim_end());
        return Err(parse::field_error(file, end as u64, "checksum line", reason));
    }
    Ok(text)
}

/// `slackwater-manifest VERSION ARCHITECTURE`; the version.
fn check_head(file: &str, head: &[u8]) -> Result<u32, FormatError> {
    let error = |field: &str, reason: &str| parse::field_error(file, 0, field, reason);
    let text = std::str::from_utf8(head).map_err(|_| error("first line", "not UTF-8"))?;
    let words: Vec<&str> = text.trim_end_matches('\n').split(' ').collect();
    let [_, version, architecture] = words[..] else {
        return Err(error("first line", "not a mark, a version and an architecture"));
    };
    let version: u32 = version.parse().map_err(|_| error("format version", "not a number"))?;
    if version > FORMAT {
        return Err(FormatError::Newer { file: file.into(), theirs: version });
    }
    if version == 0 {
        return Err(error("format version", "0"));
    }
    if architecture != architecture_name(ARCHITECTURE) {
        return Err(FormatError::Architecture { file: file.into(), theirs: architecture.into() });
    }
    Ok(version)
}
