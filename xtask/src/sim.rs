//! `cargo xtask sim`: the deterministic simulation, built for speed.

use std::process::Command;

use crate::ground::{self, Outcome};

/// Runs it with these options; true when every property held.
pub fn sim(options: &[String]) -> Outcome<bool> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(ground::root()).args(["run", "--quiet", "--release", "--package", "cluster-sim", "--bin", "sim"]);
    let status = cargo.arg("--").args(options).status().map_err(|cause| format!("cannot start cargo: {cause}"))?;
    Ok(status.success())
}
