//! A committed generation, for reading.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use node_agent_image::contents::Contents;
use node_agent_image::limits::{MANIFEST_BYTES_MAX, MODEL_BYTES_MAX};
use node_agent_image::manifest::{Cost, Manifest};
use node_agent_image::model::NodeModel;
use node_agent_image::{FormatError, checksum, names, node};

use super::error::ImageError;

/// A generation whose manifest and tables hold together. Whether its blocks do is seen when they are read.
#[derive(Debug)]
pub struct Generation {
    pub(super) path: PathBuf,
    pub(super) contents: Contents,
    manifest: Manifest,
    model: NodeModel,
}

impl Generation {
    /// Reads manifest and model file with all checks; of data files presence and length.
    ///
    /// # Errors
    /// Names the file that is missing, damaged, or of another version or architecture.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let manifest = read_manifest(path)?;
        let (model, contents) = read_model(path, Some(&manifest))?;
        check_data(path, &contents)?;
        Ok(Self { path: path.to_path_buf(), contents, manifest, model })
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn model(&self) -> &NodeModel {
        &self.model
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn into_model(self) -> NodeModel {
        self.model
    }

    /// What the checkpoint cost.
    #[must_use]
    pub fn cost(&self) -> &Cost {
        &self.manifest.cost
    }

    /// The number that it was committed with.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.manifest.generation
    }
}

pub fn read_manifest(folder: &Path) -> Result<Manifest, ImageError> {
    let path = folder.join(names::MANIFEST);
    let bytes = read_file(&path, "bytes of a manifest", MANIFEST_BYTES_MAX)?;
    Ok(Manifest::decode(&path.display().to_string(), &bytes)?)
}

/// The model file, compared with what the manifest says of it where that can be read.
pub fn read_model(folder: &Path, manifest: Option<&Manifest>) -> Result<(NodeModel, Contents), ImageError> {
    let path = folder.join(names::MODEL);
    let file = path.display().to_string();
    let bytes = read_file(&path, "bytes of a model file", MODEL_BYTES_MAX)?;
    let Some(manifest) = manifest else { return Ok(node::decode(&file, &bytes)?) };
    let (is, should) = (bytes.len() as u64, manifest.model.bytes);
    if is != should {
        return Err(FormatError::Length { file, is, should }.into());
    }
    let (is, should) = (checksum(&bytes), manifest.model_checksum(&file)?);
    if is != should {
        return Err(FormatError::Checksum { file, offset: 0, bytes: bytes.len() as u64, is, should }.into());
    }
    let (model, contents) = node::decode(&file, &bytes)?;
    let said: Vec<u64> = manifest.data.iter().map(|it| it.bytes).collect();
    if said != contents.files {
        let file = folder.join(names::MANIFEST).display().to_string();
        let reason = format!("lengths {said:?}, and the model file says {:?}", contents.files);
        return Err(FormatError::Field { file, offset: 0, field: "data".into(), reason }.into());
    }
    Ok((model, contents))
}

/// Presence and lengths of the data files.
fn check_data(folder: &Path, contents: &Contents) -> Result<(), ImageError> {
    (0..contents.files.len()).try_for_each(|number| check_data_file(folder, contents, number))
}

pub fn check_data_file(folder: &Path, contents: &Contents, number: usize) -> Result<(), ImageError> {
    let path = folder.join(names::data(number));
    let about = fs::metadata(&path).map_err(ImageError::file("find", &path))?;
    let (is, should) = (about.len(), contents.files[number]);
    if is != should {
        return Err(FormatError::Length { file: path.display().to_string(), is, should }.into());
    }
    Ok(())
}

/// A file for reading, if it is one: a FIFO in its place would be waited for, a folder be read with a riddle for an error.
pub fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

fn read_file(path: &Path, field: &'static str, limit: u64) -> Result<Vec<u8>, ImageError> {
    let file = open_file(path).map_err(ImageError::file("open", path))?;
    let length = file.metadata().map_err(ImageError::file("read", path))?.len();
    if length > limit {
        return Err(FormatError::Limit { file: path.display().to_string(), field, is: length, limit }.into());
    }
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(ImageError::file("read", path))?;
    Ok(bytes)
}
