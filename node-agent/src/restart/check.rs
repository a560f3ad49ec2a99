//! May this image run here? Asked before anything starts.

use std::fs;

use nix::sys::utsname::uname;
use node_agent_image::model::{Backing, FileIdentity, NodeModel};

use super::error::RestartError;

/// Refuses by name what cannot run on this node.
///
/// # Errors
/// Architecture, protocol version, CPU features, vDSO.
pub fn check(model: &NodeModel) -> Result<(), RestartError> {
    let name = uname().map_err(|error| RestartError::system("ask", "for the kernel's name")(error.into()))?;
    let machine = &model.machine;
    let is = name.machine().to_string_lossy().into_owned();
    if machine.architecture != is {
        return Err(RestartError::Architecture { was: machine.architecture.clone(), is });
    }
    if model.abi_version != hijack_abi::VERSION {
        return Err(RestartError::Abi { was: model.abi_version, is: hijack_abi::VERSION });
    }
    let here = crate::snapshot::cpu_flags();
    let missing: Vec<String> = machine.cpu_flags.iter().filter(|flag| !here.contains(flag)).cloned().collect();
    if !missing.is_empty() && !here.is_empty() {
        return Err(RestartError::CpuFeatures(missing));
    }
    let is = name.release().to_string_lossy().into_owned();
    let shape = own_vdso_bytes();
    let fits = model.processes.iter().all(|it| [0, shape].contains(&vdso_bytes(&it.memory.vmas)));
    if machine.kernel != is || !fits {
        return Err(RestartError::Kernel { was: machine.kernel.clone(), is });
    }
    Ok(())
}

fn vdso_bytes(vmas: &[node_agent_image::model::Vma]) -> u64 {
    vmas.iter().filter(|it| matches!(it.backing, Backing::Vdso(_))).map(|it| it.end - it.start).sum()
}

fn own_vdso_bytes() -> u64 {
    let text = fs::read("/proc/self/maps").unwrap_or_default();
    let areas = node_agent_proc::maps::parse(&text).unwrap_or_default();
    let ours = areas.iter().filter(|it| it.path.starts_with(b"[vvar") || it.path == b"[vdso]");
    ours.map(|it| it.end - it.start).sum()
}

/// Is the file at `identity.path` still what the job had mapped? Size and time tell for the same inode, the bytes
/// otherwise.
///
/// # Errors
/// Names the file and what is different.
pub fn unchanged(identity: &FileIdentity) -> Result<(), RestartError> {
    let refuse = |reason: &str| RestartError::Changed { path: identity.path.clone(), reason: reason.into() };
    let now =
        crate::snapshot::identify(&identity.path).map_err(|error| refuse(&format!("cannot be read ({error})")))?;
    if (now.size, now.modified_ns) == (identity.size, identity.modified_ns)
        && (identity.hash.is_empty() || (now.device, now.inode) == (identity.device, identity.inode))
    {
        return Ok(());
    }
    if identity.hash.is_empty() || now.size != identity.size {
        return Err(refuse("has another size or time of change than at the checkpoint"));
    }
    let hash =
        crate::snapshot::hash_file(&identity.path).map_err(|error| refuse(&format!("cannot be read ({error})")))?;
    if hash == identity.hash { Ok(()) } else { Err(refuse("has other contents than at the checkpoint")) }
}
