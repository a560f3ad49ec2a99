//! The node agent as a library: everything that is done on one node.
//!
//! The modules are named after the phases of docs/ARCHITECTURE.md; saving and restoring are neighbours.

pub mod addresses;
pub mod agent;
pub mod checkpoint;
pub mod doctor;
pub mod files;
pub mod guardian;
pub mod ipc;
pub mod job;
pub mod link;
pub mod memory;
pub mod objects;
pub mod preflight;
pub mod quiesce;
pub mod restart;
pub mod segment;
pub mod snapshot;
pub mod tasks;
