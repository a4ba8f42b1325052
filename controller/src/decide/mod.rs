//! The deciding half of the controller: pure functions of (image, soft state, time, command).
//!
//! No clock, randomness, I/O or async: ids, seeds and times ride in [`command::Command`] and [`command::Now`]. The
//! shell (`decider.rs`) drains its queue into [`batch::run_batch`], writes the facts as one Raft entry and answers
//! once the entry was applied. Heartbeats go to [`sessions::Sessions`] directly. This file is the switch, nothing
//! else: which module decides which command.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod batch;
pub mod brokers;
pub mod command;
mod configs;
mod election;
mod elections;
mod evidence;
pub mod explain;
mod grace;
mod isr;
pub mod limits;
mod placement;
pub mod sessions;
mod topics;
mod work;

use command::{Command, Now, Reply};
use protocol::error::ApiError;
use protocol::ids::BatchNo;
use protocol::metadata::configs::LEASE_GRACE;
use protocol::metadata::draft::Draft;
use protocol::metadata::image::MetadataImage;
use sessions::Sessions;

/// Decides one command on the draft. On `Err` the caller drops what was pushed ([`Draft::attempt`]).
///
/// # Errors
/// A typed refusal that goes back to whoever asked.
pub fn decide(
    draft: &mut Draft<MetadataImage>,
    sessions: &mut Sessions,
    now: Now,
    command: &Command,
) -> Result<Reply, ApiError> {
    match command {
        Command::Tick => Ok(Reply::Done),
        Command::Register(c) => brokers::register(draft, sessions, now.mono, c),
        Command::ProveRestart(c) => brokers::prove(draft, sessions, c),
        Command::Heartbeat(c) => brokers::heartbeat(draft, sessions, now.mono, c),
        Command::AlterPartitions(c) => isr::alter(draft, c),
        Command::ReportLogEnds(c) => elections::report(draft.state(), sessions, c),
        Command::CreateTopic(c) => trial(draft, c.validate_only, |d| topics::create(d, c)),
        Command::DeleteTopic(c) => topics::delete(draft, c),
        Command::CreatePartitions(c) => trial(draft, c.validate_only, |d| topics::grow(d, c)),
        Command::AlterConfigs(c) => {
            let altered = trial(draft, c.validate_only, |d| configs::alter(d, c))?;
            if !c.validate_only && c.set.iter().map(|(key, _)| key).chain(&c.unset).any(|key| key == LEASE_GRACE) {
                grace::begin_again(sessions, draft.state().batch_no);
            }
            Ok(altered)
        }
        Command::ElectLeaders(c) => elections::elect(draft, sessions, now, c),
        Command::ShutdownBroker { broker } => brokers::shut_down(draft, *broker),
    }
}

/// Decides on the draft, or on a copy of it that is thrown away; then the answer names a batch that will exist.
fn trial(
    draft: &mut Draft<MetadataImage>,
    only: bool,
    decision: impl FnOnce(&mut Draft<MetadataImage>) -> Result<Reply, ApiError>,
) -> Result<Reply, ApiError> {
    if !only {
        return decision(draft);
    }
    let mut reply = decision(&mut draft.clone())?;
    if let Reply::TopicCreated { batch_no, .. } | Reply::Committed { batch_no } = &mut reply {
        *batch_no = position(draft);
    }
    Ok(reply)
}

/// Number of the image that will hold everything decided so far.
fn position(draft: &Draft<MetadataImage>) -> BatchNo {
    let base = draft.state().batch_no;
    if draft.facts().is_empty() { base } else { base.next() }
}

#[cfg(test)]
mod tests;
