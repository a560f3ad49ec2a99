//! What is said of one virtual node's files: by the node to whoever commits, and by the manifest to whoever reads.

use serde::{Deserialize, Serialize};

use crate::limits::{DATA_FILES_MAX, HOST_BYTES_MAX, NODES_MAX};
use crate::{FormatError, names, parse};

/// One node's part of a generation: its files, complete and on disk, and what they cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Virtual node number.
    pub node: u32,
    /// Where it was taken (uname.nodename); empty in generations of format version 1, whose model file has it.
    pub host: String,
    #[allow(missing_docs)]
    pub model: ModelFile,
    /// `node-K.data-0` …, in this order. Checksums of their blocks are in the model file.
    pub data: Vec<DataFile>,
    /// Bytes of memory that were looked at.
    pub bytes_read: u64,
    /// Bytes of model file and data files.
    pub bytes_stored: u64,
    /// Open file descriptions.
    pub files: u64,
    #[allow(missing_docs)]
    pub processes: u64,
    #[allow(missing_docs)]
    pub threads: u64,
}

/// `node-K.model`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    #[allow(missing_docs)]
    pub name: String,
    #[allow(missing_docs)]
    pub bytes: u64,
    /// XXH3-128 of all its bytes, 32 hex digits.
    pub xxh3_128: String,
}

/// `node-K.data-J`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    #[allow(missing_docs)]
    pub name: String,
    #[allow(missing_docs)]
    pub bytes: u64,
}

impl Receipt {
    /// The model file's checksum as a number.
    ///
    /// # Errors
    /// When it is no number; names `file`.
    pub fn model_checksum(&self, file: &str) -> Result<u128, FormatError> {
        let text = &self.model.xxh3_128;
        let value = u128::from_str_radix(text, 16).ok().filter(|value| format!("{value:032x}") == *text);
        value.ok_or_else(|| parse::field_error(file, 0, "model.xxh3_128", "not 32 hex digits"))
    }

    /// Names and lengths of all its files, the model file first.
    pub fn lengths(&self) -> impl Iterator<Item = (&str, u64)> {
        let data = self.data.iter().map(|it| (it.name.as_str(), it.bytes));
        std::iter::once((self.model.name.as_str(), self.model.bytes)).chain(data)
    }

    /// What has to hold of it alone. `path`: where it is in `file`, `nodes[3].` or nothing; `offset`: where the JSON begins.
    pub(crate) fn check(&self, file: &str, offset: u64, path: &str) -> Result<(), FormatError> {
        let error =
            |field: String, reason: &str| Err(parse::field_error(file, offset, format!("{path}{field}"), reason));
        parse::at_most(file, "number of a node", self.node.into(), NODES_MAX - 1)?;
        parse::at_most(file, "bytes of a host's name", self.host.len() as u64, HOST_BYTES_MAX)?;
        parse::at_most(file, "data files", self.data.len() as u64, DATA_FILES_MAX)?;
        if self.model_checksum(file).is_err() {
            return error("model.xxh3_128".into(), "not 32 hex digits");
        }
        if self.model.name != names::model(self.node) {
            return error("model.name".into(), "not the name of this node's model file");
        }
        for (number, data) in self.data.iter().enumerate() {
            if data.name != names::data(self.node, number) {
                return error(format!("data[{number}].name"), "not the name of this data file");
            }
            if data.bytes == 0 {
                return error(format!("data[{number}].bytes"), "nothing");
            }
        }
        let sum = self.lengths().try_fold(0_u64, |sum, (_, bytes)| sum.checked_add(bytes));
        if sum != Some(self.bytes_stored) {
            return error("bytes_stored".into(), "not the length of its files");
        }
        Ok(())
    }
}
