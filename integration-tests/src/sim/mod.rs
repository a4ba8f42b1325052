//! The deciding cores in one seeded loop, without a runtime: `decide` over a model of the quorum, `lifecycle`,
//! `reconcile` and `replica` over the real storage engine on simulated disks. Same seed, same run.
//!
//! Owns: time, the event queue, faults (kills, power cuts, lost messages, cut links, controller failovers). Never:
//! judges the outcome; that is `laws`, which knows nothing of how the cores work.
//! The quorum is a model: one linear log, a random active controller, commits that are slow, lost, or heard by nobody.

mod buggify;
pub mod cli;
mod clients;
mod clock;
mod disks;
mod end;
mod faults;
mod follow;
mod laws;
mod measures;
mod network;
mod node;
mod operator;
mod outbox;
mod peers;
mod plan;
mod process;
mod quorum;
pub mod runner;
mod sometimes;
mod stories;
mod tally;
mod told;
mod trace;
mod traffic;
mod watch;
mod wire;
mod world;

pub use faults::Fault;
pub use laws::Law;
pub use plan::Plan;
pub use sometimes::Sometimes;
pub use tally::Tally;
pub use world::{run, run_aloud};
