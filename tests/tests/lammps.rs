//! A real application: LAMMPS from Debian, four ranks.

use std::collections::BTreeMap;
use std::fs;

use tests::{Job, Program, native_text, scratch};

/// A melting Lennard-Jones crystal with a line of thermodynamics every 20 steps.
const MELT: &str = "\
units lj
atom_style atomic
lattice fcc 0.8442
region box block 0 16 0 16 0 16
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 3.0 87287 loop geom
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
neighbor 0.3 bin
neigh_modify every 20 delay 0 check no
fix 1 all nve
thermo 20
thermo_modify flush yes
run 1000
";
/// Its last step.
const LAST: u64 = 1000;

/// Lines of the thermo table by step.
fn table(text: &str) -> BTreeMap<u64, String> {
    let row = |line: &str| {
        let (step, values) = line.strip_prefix(' ')?.trim_start().split_once(' ')?;
        Some((step.parse().ok()?, values.trim().to_owned()))
    };
    text.lines()
        .filter_map(row)
        .filter(|(_, values): &(u64, String)| values.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
        .collect()
}

#[test]
fn thermo_table() {
    let deck = scratch().join("in.melt");
    fs::write(&deck, MELT).expect("the scratch folder can be written");
    let deck = deck.display().to_string();
    let program = Program::new("lammps", ["mpirun.openmpi", "-n", "4", "lmp", "-in", &deck, "-log", "none"]);
    let want = table(&native_text(&program));
    assert!(want.contains_key(&LAST) && want.len() > 40, "LAMMPS does not run even by itself");
    for rows in [5, 20, 35] {
        let mut job = Job::start(&program);
        job.wait_for(&format!("{rows} rows"), |text| table(text).len() >= rows);
        println!("{}", job.checkpoint().0);
        job.kill_all();
        job.restart();
        let status = job.wait();
        assert!(status.success(), "{status}: {}", tests::tail(&job.text()));
        // The first line may be the rest of one.
        let text = job.text();
        let got = table(text.split_once('\n').map_or("", |(_, rest)| rest));
        assert!(got.contains_key(&LAST), "it did not come to its end: {}", tests::tail(&text));
        for (step, values) in got {
            assert_eq!(want.get(&step), Some(&values), "step {step} of the thermo table");
        }
        job.assert_clean();
    }
}
