//! Netlink sockets: an address and a protocol; what waits in them is asked for again by whoever reads it.

use std::os::fd::{AsRawFd, OwnedFd};

use node_agent_image::model::OpenFile;

use super::{FilesError, socket, sys_socket as raw};

/// Opens all netlink sockets of the model.
pub fn open_all(files: &[OpenFile], opened: &mut [Option<OwnedFd>]) -> Result<(), FilesError> {
    for (file, place) in files.iter().zip(opened) {
        let Some(socket) = socket::of(file).filter(|it| it.family == libc::AF_NETLINK) else { continue };
        let made = socket::fresh(socket).map_err(FilesError::restore("make", "a netlink socket"))?;
        let mut address = socket.local.clone();
        // nl_pid is the pid of the program or a number that the kernel chose: another will do where it is taken.
        if raw::bind(made.as_raw_fd(), &address).is_err() && address.len() >= 8 {
            address[4..8].fill(0);
            raw::bind(made.as_raw_fd(), &address).map_err(FilesError::restore("bind", "a netlink socket"))?;
        }
        *place = Some(made);
    }
    Ok(())
}
