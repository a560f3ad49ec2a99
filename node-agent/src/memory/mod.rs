//! .

mod pagemap;
pub mod pages;
mod source;

pub use source::{Bytes, Owner, Source, Stretch};
