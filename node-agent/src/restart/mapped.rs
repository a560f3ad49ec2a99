//! Programs, libraries and data files that processes have mapped: verified and opened once.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::fd::RawFd;

use node_agent_image::model::{Backing, FileIdentity, NodeModel};

use super::check;
use super::error::RestartError;
use super::objects::keep;

/// Descriptors by path; inherited by all.
#[derive(Debug, Default)]
pub struct Mapped(HashMap<String, RawFd>);

impl Mapped {
    /// The descriptor of a file that `open` has opened.
    ///
    /// # Errors
    /// When the model names a file that it did not name before.
    pub fn get(&self, path: &str) -> Result<RawFd, RestartError> {
        self.0.get(path).copied().ok_or_else(|| RestartError::Model(format!("{path} is not open")))
    }
}

/// Opens every executable and mapped file for reading.
///
/// # Errors
/// Names the file that is missing or not what it was.
pub fn open(model: &NodeModel, base: RawFd) -> Result<Mapped, RestartError> {
    let mut mapped = Mapped::default();
    for process in model.processes.iter().filter(|it| it.zombie.is_none()) {
        open_one(&mut mapped, &process.exe, base)?;
        for vma in &process.memory.vmas {
            match &vma.backing {
                Backing::File { file, .. } => open_one(&mut mapped, file, base)?,
                Backing::Device(path) => open_path(&mut mapped, path, base)?,
                _ => {}
            }
        }
    }
    Ok(mapped)
}

fn open_one(mapped: &mut Mapped, file: &FileIdentity, base: RawFd) -> Result<(), RestartError> {
    if mapped.0.contains_key(&file.path) {
        return Ok(());
    }
    check::unchanged(file)?;
    open_path(mapped, &file.path, base)
}

fn open_path(mapped: &mut Mapped, path: &str, base: RawFd) -> Result<(), RestartError> {
    if !mapped.0.contains_key(path) {
        let file = OpenOptions::new().read(true).open(path);
        let number = file.and_then(|file| keep(file.into(), base));
        mapped.0.insert(path.into(), number.map_err(RestartError::system("open", path))?);
    }
    Ok(())
}
