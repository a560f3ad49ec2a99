//! The image format: what a generation holds ([`model`], [`contents`]) and how it lies in files ([`manifest`], [`receipt`],
//! [`node`], [`block`]). Pure: bytes in, meaning out. docs/image-format.md says what every byte means.
#![forbid(unsafe_code)]

mod base64;
pub mod block;
pub mod contents;
mod error;
pub mod limits;
pub mod manifest;
pub mod model;
pub mod names;
pub mod node;
mod parse;
pub mod receipt;

pub use error::FormatError;

/// Version of the format that this Slackwater writes, and the newest that it reads.
pub const FORMAT: u32 = 2;
/// Architecture whose images this Slackwater writes and reads, as ELF numbers them (EM_X86_64).
pub const ARCHITECTURE: u32 = 62;

/// XXH3-128, the checksum of everything.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}

/// What people call an ELF machine number.
#[must_use]
pub fn architecture_name(number: u32) -> String {
    match number {
        62 => "x86_64".into(),
        183 => "aarch64".into(),
        243 => "riscv64".into(),
        21 => "ppc64".into(),
        22 => "s390x".into(),
        other => format!("architecture {other}"),
    }
}
