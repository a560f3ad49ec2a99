//! Scenarios: a story, commands, `----`, and the log that they must give.
//!
//! ```text
//! # What it is about: comments.
//! nodes 3
//! stream 0 1 100 50                from node 0 to node 1; bytes in the sender's kernel and in the receiver's, at most
//! indirect                         agents' words go by way of the coordinator
//! at 100ms checkpoint stop kill timeout 5s
//! at 2s kill-agent 1
//! when 1 captured cut 1 3s         when node 1 reaches that stage for the first time
//! when 1 captured again cut 1 3s   … for the second time
//! when commit 2 kill-coordinator 500ms     0 manifest, 1 sync, 2 rename, 3 sync of the name, 4 done
//! ```
//!
//! Faults: `kill-agent N`, `kill-coordinator TIME` (until the next), `cut N TIME`, `freeze N TIME`, `freeze-coordinator TIME`,
//! `power-off N`, `break-session N`, `disk-full TIME`, `disk-slow TIME`, `sync-fails`, `unparkable N`, `cancel`.

use std::str::SplitWhitespace;

use coordinator_protocol::Mode;
use coordinator_protocol::coordinator::Wish;
use coordinator_protocol::node::Stage;

use super::fault::{Fault, When};
use super::plan::Plan;
use super::{Outcome, run};

const STAGES: [(&str, Stage); 10] = [
    ("parking", Stage::Parking),
    ("flushing", Stage::Flushing),
    ("flushed", Stage::Flushed),
    ("capturing", Stage::Capturing),
    ("captured", Stage::Captured),
    ("resuming", Stage::Resuming),
    ("writing", Stage::Writing),
    ("written", Stage::Written),
    ("freeing", Stage::Freeing),
    ("done", Stage::Done),
];

/// Plays a scenario's commands. Its log ends with what became of it.
///
/// # Errors
/// A command that is not understood, with its line.
pub fn play(commands: &str) -> Result<Outcome, String> {
    let mut plan = Plan::calm(1);
    for (number, line) in commands.lines().enumerate() {
        let command = line.split('#').next().unwrap_or_default();
        let mut words = command.split_whitespace();
        let Some(verb) = words.next() else { continue };
        let wrong = |what: String| format!("line {}: {what}: {line}", number + 1);
        obey(&mut plan, verb, &mut words).map_err(wrong)?;
        if let Some(word) = words.next() {
            return Err(wrong(format!("what is {word:?} for")));
        }
    }
    let mut outcome = run(plan, true);
    let (committed, failed) = (outcome.committed, outcome.failed);
    let end = outcome.broken.clone().unwrap_or_else(|| "every property holds".into());
    outcome.log.push(format!("end: {committed} committed, {failed} failed; {end}"));
    Ok(outcome)
}

fn obey(plan: &mut Plan, verb: &str, words: &mut SplitWhitespace<'_>) -> Result<(), String> {
    match verb {
        "nodes" => plan.nodes = number(words)?,
        "indirect" => plan.direct = false,
        "stream" => {
            let (from, to) = (node(plan, words)?, node(plan, words)?);
            plan.streams.push((from, to, number(words)? as usize, number(words)? as usize));
        }
        "at" => {
            let at_us = time(words)?;
            match words.next() {
                Some("checkpoint") => plan.wishes.push((at_us, wish(words)?)),
                Some(name) => plan.faults.push((When::At(at_us), fault(plan, name, words)?)),
                None => return Err("what happens then".into()),
            }
        }
        "when" => {
            let (when, next) = moment(plan, words)?;
            let name = next.or_else(|| words.next()).ok_or("what happens then")?;
            plan.faults.push((when, fault(plan, name, words)?));
        }
        other => return Err(format!("no such command as {other:?}")),
    }
    Ok(())
}

/// A moment, and the word behind it if that was read already.
fn moment<'a>(plan: &Plan, words: &mut SplitWhitespace<'a>) -> Result<(When, Option<&'a str>), String> {
    let word = words.next().ok_or("when")?;
    if word == "commit" {
        return Ok((When::Commits(number(words)? as u8), None));
    }
    let which: u32 = word.parse().map_err(|_| format!("{word:?} is no node"))?;
    if which >= plan.nodes {
        return Err(format!("there is no node {which}"));
    }
    let name = words.next().ok_or("which stage")?;
    let stage = STAGES.iter().find(|(word, _)| *word == name).ok_or_else(|| format!("no such stage as {name:?}"))?.1;
    match words.next() {
        Some("again") => Ok((When::Reaches(which, stage, 1, 0), None)),
        next => Ok((When::Reaches(which, stage, 0, 0), next)),
    }
}

fn fault(plan: &Plan, name: &str, words: &mut SplitWhitespace<'_>) -> Result<Fault, String> {
    Ok(match name {
        "kill-agent" => Fault::KillAgent(node(plan, words)?),
        "kill-coordinator" => Fault::KillCoordinator(time(words)?),
        "cut" => Fault::Cut(node(plan, words)?, time(words)?),
        "freeze" => Fault::Freeze(node(plan, words)?, time(words)?),
        "freeze-coordinator" => Fault::FreezeCoordinator(time(words)?),
        "power-off" => Fault::PowerOff(node(plan, words)?),
        "break-session" => Fault::BreakSession(node(plan, words)?),
        "disk-full" => Fault::DiskFull(time(words)?),
        "disk-slow" => Fault::DiskSlow(time(words)?),
        "sync-fails" => Fault::SyncFails,
        "unparkable" => Fault::Unparkable(node(plan, words)?),
        "cancel" => Fault::Cancel,
        other => return Err(format!("no such fault as {other:?}")),
    })
}

fn wish(words: &mut SplitWhitespace<'_>) -> Result<Wish, String> {
    let mut wish = Wish::default();
    while let Some(word) = words.next() {
        match word {
            "stop" => wish.mode = Mode::Stop,
            "kill" => wish.kill = true,
            "timeout" => wish.timeout_s = Some(time(words)? / 1_000_000),
            other => return Err(format!("no such checkpoint as {other:?}")),
        }
    }
    Ok(wish)
}

fn number(words: &mut SplitWhitespace<'_>) -> Result<u32, String> {
    let word = words.next().ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

fn node(plan: &Plan, words: &mut SplitWhitespace<'_>) -> Result<u32, String> {
    let which = number(words)?;
    if which < plan.nodes { Ok(which) } else { Err(format!("there is no node {which}")) }
}

/// `250us`, `20ms`, `3s`, in µs.
fn time(words: &mut SplitWhitespace<'_>) -> Result<u64, String> {
    let word = words.next().ok_or("a time is missing")?;
    let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let count: u64 = digits.parse().map_err(|_| format!("{word:?} is no time"))?;
    match &word[digits.len()..] {
        "us" => Ok(count),
        "ms" => Ok(count * 1000),
        "s" => Ok(count * 1_000_000),
        _ => Err(format!("{word:?} is no time: us, ms or s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_commands_are_named() {
        let error = |commands: &str| play(commands).unwrap_err();
        assert_eq!(error("nodes 2\nat 3 cancel"), "line 2: \"3\" is no time: us, ms or s: at 3 cancel");
        assert_eq!(error("at 3s explode"), "line 1: no such fault as \"explode\": at 3s explode");
        assert_eq!(error("at 3s cut 1 1s"), "line 1: there is no node 1: at 3s cut 1 1s");
        assert_eq!(error("when 0 tired cancel"), "line 1: no such stage as \"tired\": when 0 tired cancel");
        assert_eq!(error("nodes 2 3"), "line 1: what is \"3\" for: nodes 2 3");
    }
}
