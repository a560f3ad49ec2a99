//! What is written is read; what is not as it was written is an error that names file and field, never a panic.

mod manifest;
mod node;
mod remotes;
mod round_trip;
mod sample;
mod version_1;
