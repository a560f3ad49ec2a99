//! A committed generation, for reading: the manifest, and one node of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use node_agent_image::contents::Contents;
use node_agent_image::limits::{MANIFEST_BYTES_MAX, MODEL_BYTES_MAX};
use node_agent_image::manifest::{Cost, Manifest};
use node_agent_image::model::{FileKind, NodeModel};
use node_agent_image::receipt::Receipt;
use node_agent_image::{FormatError, checksum, names, node};

use super::error::ImageError;

/// One virtual node of a generation whose manifest and tables hold together. Whether its blocks do is seen when they are
/// read.
#[derive(Debug)]
pub struct Generation {
    pub(super) path: PathBuf,
    pub(super) contents: Contents,
    manifest: Manifest,
    model: NodeModel,
}

impl Generation {
    /// Reads the manifest and the model file of virtual node `node` with all checks; of its data files presence and length.
    ///
    /// # Errors
    /// Names the file that is missing, damaged, or of another version or architecture; or the nodes that there are.
    pub fn open(path: &Path, node: u32) -> Result<Self, ImageError> {
        let manifest = read_manifest(path)?;
        let Some(receipt) = manifest.node(node) else {
            let there = manifest.nodes.iter().map(|it| it.node).collect();
            return Err(ImageError::NoNode { path: path.to_path_buf(), node, there });
        };
        let (model, contents) = read_node(path, node, Some(receipt))?;
        check_remotes(path, &manifest, &model)?;
        check_lengths(path, receipt)?;
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

    /// Number of this virtual node.
    #[must_use]
    pub fn node(&self) -> u32 {
        self.model.node
    }

    /// All nodes of the generation, and what they have.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
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

/// The manifest of the generation in `folder`: all its nodes, their hosts and files, and what it cost.
///
/// # Errors
/// When it is missing, damaged, or of another version or architecture; names it.
pub fn read_manifest(folder: &Path) -> Result<Manifest, ImageError> {
    Ok(Manifest::decode(&folder.join(names::MANIFEST).display().to_string(), &read_manifest_file(folder)?)?)
}

/// The manifest's bytes.
pub fn read_manifest_file(folder: &Path) -> Result<Vec<u8>, ImageError> {
    read_file(&folder.join(names::MANIFEST), "bytes of a manifest", MANIFEST_BYTES_MAX)
}

/// A node's model file, compared with what the manifest says of it where that can be read.
pub fn read_node(folder: &Path, node: u32, said: Option<&Receipt>) -> Result<(NodeModel, Contents), ImageError> {
    let path = folder.join(names::model(node));
    let file = path.display().to_string();
    let bytes = read_file(&path, "bytes of a model file", MODEL_BYTES_MAX)?;
    if let Some(said) = said {
        let (is, should) = (bytes.len() as u64, said.model.bytes);
        if is != should {
            return Err(FormatError::Length { file, is, should }.into());
        }
        let (is, should) = (checksum(&bytes), said.model_checksum(&file)?);
        if is != should {
            return Err(FormatError::Checksum { file, offset: 0, bytes: bytes.len() as u64, is, should }.into());
        }
    }
    let (model, contents) = node::decode(&file, &bytes)?;
    let field = |field: &str, reason: String| {
        ImageError::Format(FormatError::Field { file: file.clone(), offset: 0, field: field.into(), reason })
    };
    if model.node != node {
        return Err(field("node", format!("{}, and the file's name says {node}", model.node)));
    }
    if let Some(said) = said {
        let lengths: Vec<u64> = said.data.iter().map(|it| it.bytes).collect();
        if lengths != contents.files {
            return Err(field("files", format!("{:?}, and the manifest says {lengths:?}", contents.files)));
        }
    }
    Ok((model, contents))
}

/// The other ends of a node's connections have to be in the generation, too.
pub fn check_remotes(folder: &Path, manifest: &Manifest, model: &NodeModel) -> Result<(), ImageError> {
    for (index, open) in model.files.iter().enumerate() {
        let FileKind::Socket(socket) = &open.kind else { continue };
        if let Some(remote) = socket.peer_node.filter(|it| manifest.node(it.node).is_none()) {
            return Err(ImageError::Format(FormatError::Field {
                file: folder.join(names::model(model.node)).display().to_string(),
                offset: 0,
                field: format!("files[{index}].kind.socket.peer_node"),
                reason: format!("node {}, which is not in the manifest", remote.node),
            }));
        }
    }
    Ok(())
}

/// Presence and lengths of a node's data files.
pub fn check_lengths(folder: &Path, said: &Receipt) -> Result<(), ImageError> {
    said.data.iter().try_for_each(|it| check_length(&folder.join(&it.name), it.bytes))
}

/// Presence and length of a file, opened anew: so a network file system has to ask for them.
pub fn check_length(path: &Path, should: u64) -> Result<(), ImageError> {
    let file = open_file(path).map_err(ImageError::file("open", path))?;
    let is = file.metadata().map_err(ImageError::file("read", path))?.len();
    if is != should {
        return Err(FormatError::Length { file: path.display().to_string(), is, should }.into());
    }
    Ok(())
}

/// Virtual nodes whose model files are in a folder, ascending; for a generation whose manifest cannot be read.
pub fn nodes_by_name(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut nodes: Vec<u32> = entries.filter_map(|it| names::node_of_model(it.file_name().to_str()?)).collect();
    nodes.sort_unstable();
    nodes
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
