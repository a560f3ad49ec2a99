//! Why bytes are not a generation.

use thiserror::Error;

/// Why bytes are not a generation. Each names the file as the caller did.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// More of something than any sane generation has.
    #[error("{file}: {field}: {is}, and there can be at most {limit}")]
    Limit {
        #[allow(missing_docs)]
        file: String,
        #[allow(missing_docs)]
        field: &'static str,
        #[allow(missing_docs)]
        is: u64,
        #[allow(missing_docs)]
        limit: u64,
    },
    /// Something else lies in this file's place.
    #[error("{file}: not a {what} of Slackwater: it does not begin with its mark")]
    Mark {
        #[allow(missing_docs)]
        file: String,
        #[allow(missing_docs)]
        what: &'static str,
    },
    /// Cut, or with something behind its end.
    #[error("{file}: damaged: it is {is} bytes long and should be {should}")]
    Length {
        #[allow(missing_docs)]
        file: String,
        #[allow(missing_docs)]
        is: u64,
        #[allow(missing_docs)]
        should: u64,
    },
    /// Other bytes than were written.
    #[error("{file}: damaged: bytes {offset} to {} have the checksum {is:032x} and should have {should:032x}", .offset + .bytes)]
    Checksum {
        #[allow(missing_docs)]
        file: String,
        /// Where the bytes under the checksum begin.
        offset: u64,
        #[allow(missing_docs)]
        bytes: u64,
        #[allow(missing_docs)]
        is: u128,
        #[allow(missing_docs)]
        should: u128,
    },
    /// Good, and not for us.
    #[error(
        "{file} was written by a newer Slackwater: its format is {theirs} and this one reads up to {}: use that one",
        crate::FORMAT
    )]
    Newer {
        #[allow(missing_docs)]
        file: String,
        #[allow(missing_docs)]
        theirs: u32,
    },
    /// Good, and of another kind of machine.
    #[error(
        "{file} was written on {theirs} and this Slackwater is for {}: restart it on a node of its own architecture",
        crate::architecture_name(crate::ARCHITECTURE)
    )]
    Architecture {
        #[allow(missing_docs)]
        file: String,
        #[allow(missing_docs)]
        theirs: String,
    },
    /// Something that cannot be.
    #[error("{file}: at byte {offset}: {field}: {reason}")]
    Field {
        #[allow(missing_docs)]
        file: String,
        /// Where in the file the field, or the table that it is in, begins.
        offset: u64,
        /// Path of the field, as in `runs[3].block`.
        field: String,
        #[allow(missing_docs)]
        reason: String,
    },
}
