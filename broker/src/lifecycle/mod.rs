//! The broker's life as the cluster sees it: registration, proof, heartbeats and lease, controlled shutdown.
//! `state` decides (pure), `task` carries out, `heartbeats` keeps a stream to every controller.

mod heartbeats;
pub mod limits;
mod renewals;
pub mod state;
pub mod task;
