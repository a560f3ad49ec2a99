//! The built binary under its three names.

mod guardian;
mod place;
mod usage;
