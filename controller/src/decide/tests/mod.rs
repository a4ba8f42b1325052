//! Tests of the decider as a whole: laws over random histories, and the cluster in memory that all its tests use.

mod laws;
pub(super) mod world;
