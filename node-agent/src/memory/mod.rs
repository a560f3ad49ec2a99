//! Page contents: out of a job into a generation, and back.
//!
//! ```text
//! Source ── hold ──▶ Source        what changes once the job runs on is copied while it is parked      source, read, hold
//! pages                            which pages of a process have to be stored at all
//! Unfinished::begin                .gen-000007.part, made by the coordinator                                   unfinished
//!   Part::begin ─▶ write … ─▶ finish ─▶ Receipt      each node's files in it, on its own host    part, store, data_file
//! Unfinished::commit               all receipts and all files are there: manifest, gen-000007             unfinished, late
//! read_manifest                    which nodes a generation has                                                generation
//! Generation::damage               every byte of all nodes                                                         damage
//! Generation::open ─▶ fill         one node; every block is checked before its bytes go anywhere         generation, fill
//! ```
//!
//! What the bytes mean is the business of `node_agent_image`; docs/image-format.md has the commit step by step.

mod chunks;
mod damage;
mod data_file;
mod error;
mod fill;
mod folder;
mod generation;
mod hold;
mod known;
mod late;
mod pagemap;
pub mod pages;
mod part;
mod read;
mod source;
mod store;
mod sys;
mod threads;
mod unfinished;

pub use error::{ImageError, MemoryError, WriteError};
pub use folder::{clear_unfinished, retain};
pub use generation::{Generation, read_manifest};
pub use hold::hold;
pub use node_agent_image::contents::Owner;
pub use node_agent_image::manifest::{Cost, Manifest};
pub use node_agent_image::receipt::Receipt;
pub use part::Part;
pub use source::{Bytes, Held, Source, Stretch};
pub use unfinished::{Unfinished, Written};
