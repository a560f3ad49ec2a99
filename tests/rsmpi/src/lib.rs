//! What the programs share: they judge themselves.
//!
//! `step K HASH` lines as rank 0 goes, `RESULT HASH` at the end, `WRONG …` and an abort when anything is not as it must be.

#![forbid(unsafe_code)]

use std::io::Write;
use std::time::Duration;

use mpi::traits::*;

/// How long a step rests, so that checkpoints meet waiting ranks too.
const REST: Duration = Duration::from_millis(8);

/// A hash of one word; as in tests/programs/judge.h.
pub fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 29;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 32)
}

/// The number of steps, the first argument.
pub fn steps() -> u64 {
    std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(150)
}

/// Ends a step: rests a little, and rank 0 says it.
pub fn step(world: &impl Communicator, number: u64, hash: u64) {
    std::thread::sleep(REST);
    if world.rank() == 0 {
        say(&format!("step {number} {hash:016x}"));
        // As in tests/programs/judge.h: a test that is slow has its checkpoints all the same.
        let held = std::env::var("SLACKWATER_HOLD").is_ok_and(|hold| hold.parse() == Ok(number));
        while held && !std::path::Path::new("go-on").exists() {
            std::thread::sleep(REST);
        }
    }
}

/// Rank 0 says the result.
pub fn result(world: &impl Communicator, hash: u64) {
    if world.rank() == 0 {
        say(&format!("RESULT {hash:016x}"));
    }
}

/// Says what is wrong and ends the job, unless `right`.
pub fn must(world: &impl Communicator, right: bool, what: &str) {
    if !right {
        say(&format!("WRONG rank {}: {what}", world.rank()));
        world.abort(1);
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{line}").and_then(|()| out.flush());
    if said.is_err() {
        std::process::exit(1);
    }
}
