//! The Rust MPI programs of tests/rsmpi, built once for each MPI, since the MPIs' ABIs differ.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ground::{self, Outcome};

/// Builds them for Debian's Open MPI and for MPICH; the folder that has `openmpi/` and `mpich/` with the programs.
pub fn build(public: &Path, mpich: &Path) -> Outcome<PathBuf> {
    let programs = public.join("rsmpi");
    let wrapper = |bin: &Path, name: &str| bin.join(name);
    build_for(&wrapper(Path::new("/usr/bin"), "mpicc.openmpi"), &programs.join("openmpi"), None)?;
    let libraries = mpich.parent().map(|venv| venv.join("lib"));
    build_for(&wrapper(mpich, "mpicc"), &programs.join("mpich"), libraries.as_deref())?;
    Ok(programs)
}

fn build_for(mpicc: &Path, to: &Path, libraries: Option<&Path>) -> Outcome<()> {
    let folder = ground::target().join(format!("rsmpi-{}", to.file_name().unwrap_or_default().to_string_lossy()));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(ground::root().join("tests/rsmpi")).args(["build", "--release", "--locked"]);
    cargo.env("MPICC", mpicc).env("CARGO_TARGET_DIR", &folder);
    if let Some(libraries) = libraries {
        // The wheel's libraries are on nobody's search path.
        cargo.env("RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{}", libraries.display()));
    }
    ground::run(&mut cargo)?;
    ground::make_folder(to)?;
    for entry in std::fs::read_dir(ground::root().join("tests/rsmpi/src/bin"))? {
        let source = entry?.path();
        let Some(name) = source.file_stem() else { continue };
        let built = folder.join("release").join(name);
        let copy = to.join(name);
        let _ = std::fs::remove_file(&copy);
        std::fs::copy(&built, &copy)
            .map_err(|cause| format!("cannot copy {} to {}: {cause}", built.display(), copy.display()))?;
    }
    Ok(())
}
