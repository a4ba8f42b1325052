//! Limits and timers of the broker's life, each with its reason. Repeated in `docs/limits.md`.

use protocol::ids::Millis;

/// Pause before a registration is tried again, ms: a controller failover takes a few of these.
pub const REGISTER_RETRY_MS: Millis = 200;

/// Pause before a restart proof that failed is sent again, ms: until it is taken the broker serves nothing.
pub const PROOF_RETRY_MS: Millis = 200;

/// Longest a controlled shutdown waits for its release, ms. Then the broker stops all the same: its session ends and
/// its leaderships move as after a crash, though nothing is lost.
pub const STOP_PATIENCE_MS: Millis = 30_000;

/// Most heartbeats remembered by their send time: a lease is 4 of them, and an older answer is worth nothing.
pub const HEARTBEATS_REMEMBERED_MAX: usize = 64;
