//! Limits and timers of the replica, each with its reason. Repeated in `docs/limits.md`.

use protocol::ids::Millis;

/// First pause before a follower asks again after a refusal or a protocol violation, ms: long enough for the other side's
/// image to catch up, short against `replica.lag.max`. It doubles with each that follows.
pub const RESUBSCRIBE_PAUSE_MS: Millis = 50;

/// Longest such pause, ms: a thousand refused partitions cost their leader a thousand messages a second, and one that is
/// taken again is back well within `replica.lag.max`.
pub const RESUBSCRIBE_PAUSE_MS_MAX: Millis = 1_000;

/// Pause before a follower without room on disk asks again, ms: every attempt has the leader send what cannot be kept.
pub const NO_ROOM_PAUSE_MS: Millis = 1_000;

/// Pause before another attempt to change the ISR after one was refused or lost, ms: keeps a controller that is
/// failing over from being flooded, and is short against `replica.lag.max`.
pub const ISR_RETRY_PAUSE_MS: Millis = 100;

/// Most produces of one partition that wait for their answer. With the smallest batches this is what a partition can
/// take in a few seconds; beyond it the producer is told to pause.
pub const PENDING_ANSWERS_MAX: usize = 65_536;

/// Most delete-records of one partition that wait for the ISR. They are operators' commands, far apart; each step of the
/// partition looks at all of them.
pub const DELETES_WAITING_MAX: usize = 256;
