//! The deciding cores in one seeded loop, without a runtime: `decide` over a model of the quorum, `lifecycle`,
//! `reconcile` and `replica` over the real storage engine on simulated disks. Same seed, same run.
//!
//! Owns: time, the event queue, faults (kills, power cuts, lost messages, cut links, controller failovers). Never:
//! judges the outcome; that is `laws`, which knows nothing of how the cores work.
//! The quorum is a model: one linear log, a random active controller, commits that are slow, lost, or heard by nobody.

mod faults;
mod laws;
mod node;
mod outbox;
mod peers;
mod process;
mod quorum;
mod traffic;
mod wire;
mod world;

pub use laws::Tally;
pub use world::{Plan, run};
