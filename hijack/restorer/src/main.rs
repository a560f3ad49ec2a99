//! The restorer.
fn main() {}
