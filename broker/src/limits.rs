//! Every limit and timer of the broker's shells, with its reason. The table in `docs/limits.md` repeats them and a
//! test compares the two. Limits of the pure cores stand beside them, those of the wire in `protocol`.

/// Most shards by default: beyond four, connections rather than partitions want the cores.
pub const SHARDS_DEFAULT_MAX: u64 = 4;
/// Most shards at all: a thread, a listener and a flush queue each.
pub const SHARDS_MAX: u64 = 64;
/// Controllers remembered at most, configured and learned: a quorum has five or seven; hints must not fill memory.
pub const CONTROLLERS_MAX: usize = 32;
/// First pause before a command is tried again, ms: an election takes longer, a hand-over does not.
pub const RETRY_PAUSE_MS_MIN: u64 = 20;
/// Longest such pause, ms: a new active controller is found within half a second of its election.
pub const RETRY_PAUSE_MS_MAX: u64 = 500;
/// Largest metadata snapshot taken from a feed, bytes: a million partitions stay far below; a lying source must not fill memory.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;
/// Time an administrative command forwarded for an application may take, ms: voter changes wait for a learner.
pub const ADMIN_DEADLINE_MS: u64 = 115_000;
/// ISR changes waiting for the controller at most: one per partition that this broker leads, with room.
pub const ISR_QUEUE: usize = 8_192;
/// ISR changes in one request: 100 bytes each, so a request stays far below the message limit.
pub const ISR_CHANGES_PER_REQUEST: usize = 2_000;
/// Time for one request of ISR changes, all attempts, ms: then its outcome counts as unknown and the replica asks anew.
pub const ISR_DEADLINE_MS: u64 = 2_000;
