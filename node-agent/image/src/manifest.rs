//! The manifest: which files a generation has, how long they are, and what it cost. A head line, JSON, and a line with the
//! checksum of all before it.

use serde::{Deserialize, Serialize};

use crate::limits::{DATA_FILES_MAX, MANIFEST_BYTES_MAX};
use crate::{ARCHITECTURE, FORMAT, FormatError, architecture_name, checksum, names, parse};

const MARK: &str = "slackwater-manifest ";
const SUM: &str = "xxh3-128 ";
/// Mark, 32 hex digits, line feed.
const SUM_LINE_BYTES: usize = SUM.len() + 32 + 1;

/// What the manifest says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Number that it was committed with.
    pub generation: u64,
    /// The node's model file.
    pub model: ModelFile,
    /// `node-0.data-0` …, in this order. Checksums of their blocks are in the model file.
    pub data: Vec<DataFile>,
    #[allow(missing_docs)]
    pub cost: Cost,
}

/// `node-0.model`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    #[allow(missing_docs)]
    pub name: String,
    #[allow(missing_docs)]
    pub bytes: u64,
    /// XXH3-128 of all its bytes, 32 hex digits.
    pub xxh3_128: String,
}

/// `node-0.data-K`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    #[allow(missing_docs)]
    pub name: String,
    #[allow(missing_docs)]
    pub bytes: u64,
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
    /// Bytes of the model file and the data files.
    pub bytes_stored: u64,
    /// Open file descriptions.
    pub files: u64,
    #[allow(missing_docs)]
    pub processes: u64,
    #[allow(missing_docs)]
    pub threads: u64,
}

impl Manifest {
    /// As it lies in the file.
    ///
    /// # Errors
    /// [`FormatError::Limit`]; names `file`.
    pub fn encode(&self, file: &str) -> Result<Vec<u8>, FormatError> {
        let mut text = format!("{MARK}{FORMAT} {}\n", architecture_name(ARCHITECTURE)).into_bytes();
        // Numbers and strings: there is no value in it that JSON has not.
        serde_json::to_writer_pretty(&mut text, self)
            .map_err(|error| parse::field_error(file, 0, "manifest", error.to_string()))?;
        text.push(b'\n');
        let sum = sum_line(&text);
        text.extend_from_slice(sum.as_bytes());
        check_length(file, text.len() as u64)?;
        Ok(text)
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
        check_head(file, head)?;
        let manifest: Self = parse::json(file, head_bytes as u64, body)?;
        manifest.check(file, head_bytes as u64)?;
        Ok(manifest)
    }

    /// The model file's checksum as a number.
    ///
    /// # Errors
    /// When it is no number.
    pub fn model_checksum(&self, file: &str) -> Result<u128, FormatError> {
        let text = &self.model.xxh3_128;
        let value = u128::from_str_radix(text, 16).ok().filter(|value| format!("{value:032x}") == *text);
        value.ok_or_else(|| parse::field_error(file, 0, "model.xxh3_128", "not 32 hex digits"))
    }

    fn check(&self, file: &str, offset: u64) -> Result<(), FormatError> {
        let error = |field: String, reason: &str| Err(parse::field_error(file, offset, field, reason));
        parse::at_most(file, "data files", self.data.len() as u64, DATA_FILES_MAX)?;
        self.model_checksum(file)?;
        if self.model.name != names::MODEL {
            return error("model.name".into(), "not the name of a model file");
        }
        for (number, data) in self.data.iter().enumerate() {
            if data.name != names::data(number) {
                return error(format!("data[{number}].name"), "not the name of this data file");
            }
            if data.bytes == 0 {
                return error(format!("data[{number}].bytes"), "nothing");
            }
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

/// `slackwater-manifest VERSION ARCHITECTURE`.
fn check_head(file: &str, head: &[u8]) -> Result<(), FormatError> {
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
    Ok(())
}
