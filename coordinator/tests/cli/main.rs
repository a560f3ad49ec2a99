//! The built binary under its three names.

mod guardian;
mod nodes;
mod place;
mod usage;
