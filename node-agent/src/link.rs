//! How a node reaches the coordinator.
