//! Texts of /proc and messages of sock_diag ⇄ types: pure, every byte foreign.
#![forbid(unsafe_code)]

pub mod fdinfo;
pub mod limits;
pub mod maps;
pub mod net_tcp;
pub mod net_unix;
pub mod timers;
