//! The deciding half of the controller: pure functions of (image, soft state, time, command).
//!
//! No clock, randomness, I/O or async: ids, seeds and times ride in [`command::Command`] and [`command::Now`]. The
//! shell (`decider.rs`) drains its queue into [`batch::run_batch`], writes the facts as one Raft entry and answers
//! once the entry was applied. Signature: `run_batch(committed: &MetadataImage, sessions: &mut Sessions, now: Now,
//! commands: &[Command]) -> Plan { facts, replies, more }`; `replies[i]: Result<Reply, ApiError>` answers
//! `commands[i]`, commands beyond `replies.len()` go into the next batch, `more` asks for one at once. Heartbeats go to [`sessions::Sessions`] directly.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod command;
mod evidence;
pub mod limits;
pub mod sessions;
mod work;
