//! The broker's life as the cluster sees it: registration, proof, heartbeats and lease, controlled shutdown.
//! `state` decides (pure), `task` talks.

pub mod renewals;
pub mod state;
