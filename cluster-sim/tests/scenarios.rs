//! Every scenario gives its log. `SIM_REWRITE=1 cargo test -p cluster-sim` writes the logs anew: commit only a difference
//! that you understand.

use std::path::{Path, PathBuf};
use std::{env, fs};

use cluster_sim::sim::play;

const RULE: &str = "----\n";

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = fs::read_dir(&folder).unwrap_or_else(|cause| panic!("cannot read {}: {cause}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "txt"));
    files.sort();
    files
}

/// The first line that differs, with its neighbours.
fn difference(want: &str, have: &str) -> Option<String> {
    let (want, have): (Vec<&str>, Vec<&str>) = (want.lines().collect(), have.lines().collect());
    let at = (0..want.len().max(have.len())).find(|at| want.get(*at) != have.get(*at))?;
    let show = |lines: &[&str]| lines[at.saturating_sub(3).min(lines.len())..lines.len().min(at + 3)].join("\n  ");
    Some(format!("line {} of the log:\n wanted\n  {}\n have\n  {}", at + 1, show(&want), show(&have)))
}

#[test]
fn every_scenario_gives_its_log() {
    let files = files();
    assert!(files.len() >= 10, "there are only {} scenarios", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|cause| panic!("cannot read {}: {cause}", file.display()));
        let (commands, want) = text.split_once(RULE).unwrap_or((&text, ""));
        let outcome = play(commands).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(outcome.broken, None, "{}", file.display());
        let have = outcome.log.join("\n") + "\n";
        if env::var_os("SIM_REWRITE").is_some() {
            fs::write(&file, format!("{commands}{RULE}{have}")).expect("the scenario can be written");
        } else if let Some(difference) = difference(want, &have) {
            wrong.push(format!("{}: {difference}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
