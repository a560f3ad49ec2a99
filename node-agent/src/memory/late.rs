//! A network file system shows late what another host has written: its client remembers for a while what it has asked. It
//! asks anew when a folder or a file is opened, so everything is looked for by opening, and more than once.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use node_agent_image::FormatError;
use node_agent_image::receipt::Receipt;

use super::error::{ImageError, WriteError};
use super::generation::check_length;
use super::threads::{Turns, on_threads};

/// How long a file that another host has written may take to be seen, all of them together.
const LATE: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A file server answers many at once, whatever the number of cores here.
const LOOKERS_MAX: usize = 16;
/// Nodes for one more looker: a local file system answers at once.
const NODES_PER_LOOKER: usize = 16;

/// Until when something that begins now may be late.
pub fn deadline() -> Instant {
    Instant::now() + LATE
}

/// Attempts something in `folder` until it succeeds, fails in another way than by being late, or it is `until`.
pub fn patiently<T, E>(
    folder: &Path,
    until: Instant,
    is_late: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        match attempt() {
            Err(error) if is_late(&error) && Instant::now() < until => {
                thread::sleep(LOOK_AGAIN);
                // What the client remembers not to be there is asked for anew after this.
                let _ = folder.parent().map(fs::read_dir);
                let _ = fs::read_dir(folder);
            }
            other => return other,
        }
    }
}

/// Whether something is not there.
pub fn is_missing(error: &WriteError) -> bool {
    matches!(error, WriteError::File { source, .. } if is_missing_kind(source.kind()))
}

/// Waits until every file of these nodes is in `folder` with its length.
///
/// # Errors
/// [`WriteError::Missing`], when one is not.
pub fn wait_for_files(folder: &Path, nodes: &[Receipt]) -> Result<(), WriteError> {
    let (until, turns) = (deadline(), Turns::new(nodes.len()));
    on_threads(nodes.len().div_ceil(NODES_PER_LOOKER).min(LOOKERS_MAX), || {
        while let Some(turn) = turns.take() {
            let node = &nodes[turn];
            let there = node.lengths().try_for_each(|(name, bytes)| {
                patiently(folder, until, is_late, || check_length(&folder.join(name), bytes))
            });
            let missing = |source| {
                let source = Box::new(source);
                WriteError::Missing { node: node.node, host: node.host.clone(), source }
            };
            turns.stop_at(there.map_err(missing))?;
        }
        Ok(())
    })
}

/// Not there, or not with its length.
fn is_late(error: &ImageError) -> bool {
    match error {
        ImageError::File { source, .. } => is_missing_kind(source.kind()),
        ImageError::Format(FormatError::Length { is, should, .. }) => is < should,
        _ => false,
    }
}

fn is_missing_kind(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle)
}
