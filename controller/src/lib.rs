//! The controller: decides, and owns the metadata log. It talks to nobody first; brokers come to it.
//!
//! * [`decide`] (pure): what a command or a tick changes.
//! * [`quorum`]: the Raft log behind a handle; the only place that names openraft.
//! * [`feed`]: committed image and applied batches, for readers on this node and followers of the feed.

//! * [`decider`]: the loop between the two. [`config`], [`mod@format`], [`node`]: how a process becomes one.
//! * `rpc`: services (and the client side of Raft): the only place that knows gRPC.
//!
//! Absences: nothing here dials a broker; nothing but `quorum` touches the Raft disk; nothing but the decider writes.

mod clock;
pub mod config;
pub mod decide;
pub mod decider;
pub mod feed;
pub mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod quorum;
mod rpc;
mod tasks;
