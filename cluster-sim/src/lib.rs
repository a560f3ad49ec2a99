//! Many nodes on one machine.
//!
//! [`virtual_cluster`] makes nodes out of namespaces; the real programs run on them as on machines of their own, and the
//! nodes can be killed, powered off, cut from the network and frozen.

pub mod virtual_cluster;
