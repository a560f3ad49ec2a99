//! Many nodes on one machine.

pub mod sim;
