//! `cargo xtask bench`: the figures of docs/performance.md.

use crate::ground::Outcome;

/// Measures the figures whose name contains `filter`; true when each is within its bound.
pub fn bench(_filter: Option<&str>) -> Outcome<bool> {
    Err("not yet".into())
}
