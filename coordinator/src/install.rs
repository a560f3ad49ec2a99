//! Where an installation keeps what it loads: `lib/slackwater` beside `bin`, or, in a build folder, beside the binary.

use std::env;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// From the folder of the binary.
const PLACES: [&str; 2] = ["../lib/slackwater", "."];

/// A part of the installation is missing.
#[derive(Debug, Error)]
pub enum InstallError {
    /// /proc is not mounted, say.
    #[error("cannot find out where this program lies: {0}")]
    Myself(io::Error),
    /// Moved without its other half.
    #[error("{name} is neither in {}: install again with `cargo xtask install --prefix DIR`", .places.join(" nor in "))]
    Missing {
        #[allow(missing_docs)]
        name: String,
        #[allow(missing_docs)]
        places: Vec<String>,
    },
}

/// A file of the installation.
///
/// # Errors
/// When it is not where it belongs.
pub fn find(name: &str) -> Result<PathBuf, InstallError> {
    let myself = env::current_exe().map_err(InstallError::Myself)?;
    let bin = myself.parent().unwrap_or(&myself);
    let candidates = PLACES.map(|place| bin.join(place).join(name));
    let found = candidates.iter().find_map(|path| path.canonicalize().ok());
    found.ok_or_else(|| InstallError::Missing {
        name: name.to_owned(),
        places: PLACES.map(|place| bin.join(place).display().to_string()).into(),
    })
}
