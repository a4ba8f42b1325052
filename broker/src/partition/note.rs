//! Durable notes about one partition in the data directory's registry.

use protocol::metadata::configs::FlushPolicy;

/// What is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Its directory is being made: from now on a missing one is a loss, not an empty log.
    Directory,
    /// The flush policy in force.
    Policy(FlushPolicy),
}
