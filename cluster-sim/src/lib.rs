//! Many nodes on one machine.
//!
//! [`sim`] runs the protocol's machines under one virtual clock, with faults and seeds; [`virtual_cluster`] makes nodes out of
//! namespaces, on which the real programs run as on machines of their own, and which can be killed, powered off, cut from
//! the network and frozen.

pub mod sim;
pub mod virtual_cluster;
