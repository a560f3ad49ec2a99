//! Page contents: out of a job into a generation, and back.
//!
//! ```text
//! Source ── hold ──▶ Source        what changes once the job runs on is copied while it is parked      source, read, hold
//! pages                            which pages of a process have to be stored at all
//! Draft::begin ─▶ write … ─▶ commit      .gen-000007.part becomes gen-000007               draft, store, data_file, commit
//! Generation::open ─▶ damage | fill      every block is checked before its bytes go anywhere   generation, damage, fill
//! ```
//!
//! What the bytes mean is the business of `node_agent_image`; docs/image-format.md has the commit step by step.

mod chunks;
mod commit;
mod damage;
mod data_file;
mod draft;
mod error;
mod fill;
mod folder;
mod generation;
mod hold;
mod known;
mod pagemap;
pub mod pages;
mod read;
mod source;
mod store;
mod sys;
mod threads;

pub use commit::Written;
pub use draft::Draft;
pub use error::{ImageError, MemoryError, WriteError};
pub use folder::{clear_unfinished, retain};
pub use generation::Generation;
pub use hold::hold;
pub use node_agent_image::contents::Owner;
pub use node_agent_image::manifest::Cost;
pub use source::{Bytes, Held, Source, Stretch};
