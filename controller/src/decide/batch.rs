//! One batch: commands decided in order on a draft, then a bounded part of the level-triggered work.
//!
//! Invariants: a refused command leaves no trace in the facts; encoded facts never exceed the entry limit, what does
//! not fit waits for the next batch in its order; commands come before expiry, so that a stalled quorum does not fence
//! brokers whose wishes were queued all along. The caller writes the facts as ONE entry on `committed.batch_no`,
//! answers from the verdict of its application, and then calls [`Sessions::settled`].

use super::command::{Command, Now, Reply};
use super::decide;
use super::limits::{BATCH_FACT_BYTES_MAX, COMMANDS_MAX, UNWRITTEN_MAX};
use super::sessions::Sessions;
use super::work::find_work;
use protocol::error::{ApiError, ErrorCode};
use protocol::metadata::brokers::Broker;
use protocol::metadata::draft::Draft;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{BrokerRef, Fact, LeaderChange, PartitionsChanged};

/// What a batch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Facts to write as one entry; empty: nothing to write, answer at once.
    pub facts: Vec<Fact>,
    /// Answers to the first commands, in order. Commands beyond them go first into the next batch.
    pub replies: Vec<Result<Reply, ApiError>>,
    /// Work is left: run another batch as soon as this one is settled.
    pub more: bool,
}

enum Verdict {
    Refused(ApiError),
    Full(usize),
}

/// Decides as many commands as fit, then looks for work.
pub fn run_batch(committed: &MetadataImage, sessions: &mut Sessions, now: Now, commands: &[Command]) -> Plan {
    let mut draft = Draft::new(committed.clone());
    let mut replies = Vec::new();
    let (mut used, mut unwritten) = (0, 0);
    for command in commands.iter().take(COMMANDS_MAX) {
        let before = draft.facts().len();
        let outcome = draft.attempt(|draft| {
            let reply = decide(draft, sessions, now, command).map_err(Verdict::Refused)?;
            let bytes = encoded_len(&draft.facts()[before..]);
            if used + bytes > BATCH_FACT_BYTES_MAX { Err(Verdict::Full(bytes)) } else { Ok((reply, bytes)) }
        });
        match outcome {
            Ok((reply, bytes)) => {
                used += bytes;
                replies.push(Ok(reply));
            }
            Err(Verdict::Refused(error)) => replies.push(Err(error)),
            Err(Verdict::Full(_)) if used > 0 => break,
            Err(Verdict::Full(bytes)) => replies.push(Err(too_large(bytes))),
        }
        note(committed, &draft, sessions, before, now);
        unwritten += usize::from(command.looks_far() && draft.facts().len() == before);
        if unwritten == UNWRITTEN_MAX {
            break;
        }
    }
    let before = draft.facts().len();
    let more = find_work(&mut draft, sessions, now, BATCH_FACT_BYTES_MAX - used);
    note(committed, &draft, sessions, before, now);
    let waiting = replies.len() < commands.len();
    correct(draft.state(), &mut replies);
    Plan { facts: draft.into_facts(), replies, more: more || waiting }
}

/// Bytes the facts take in the entry.
fn encoded_len(facts: &[Fact]) -> usize {
    facts.iter().map(Fact::encoded_len).sum()
}

fn too_large(bytes: usize) -> ApiError {
    let limit = format!("at most {BATCH_FACT_BYTES_MAX} bytes of facts; ask for less at a time");
    ApiError::bad(ErrorCode::InvalidRequest, "request", format!("{bytes} bytes of facts"), limit)
}

/// Notes of what the batch holds, of its facts only: from here on the heartbeats of brokers that it fences go unanswered
/// until its fate is known, the lease of leaders that it deposes waits for it, and what it registers counts as heard of.
fn note(committed: &MetadataImage, draft: &Draft<MetadataImage>, sessions: &mut Sessions, from: usize, now: Now) {
    let batch = draft.state().batch_no.next();
    for fact in &draft.facts()[from..] {
        match fact {
            Fact::BrokerFenced(at) => sessions.fence_in_flight(*at, batch),
            Fact::BrokerRegistered(new) => sessions.registered(new.broker, new.epoch, batch, now.mono),
            Fact::PartitionsChanged(PartitionsChanged { topic, changes }) => {
                let moved = changes.iter().filter(|change| change.leader != LeaderChange::Unchanged);
                let known = committed.topics.get(*topic);
                let before = moved.filter_map(|change| known.and_then(|topic| topic.partition(change.partition)));
                before.filter_map(|partition| partition.leader).for_each(|broker| sessions.deposes(broker, batch));
            }
            Fact::TopicDeleted(deleted) => {
                let partitions =
                    committed.topics.get(deleted.topic).into_iter().flat_map(|topic| topic.partitions.iter());
                partitions.filter_map(|partition| partition.leader).for_each(|broker| sessions.deposes(broker, batch));
            }
            _ => {}
        }
    }
}

/// A heartbeat decided early in the batch must not tell a broker that it takes part when a later fact fenced it.
fn correct(image: &MetadataImage, replies: &mut [Result<Reply, ApiError>]) {
    for reply in replies.iter_mut() {
        if let Ok(Reply::Heartbeat { at, answer }) = reply {
            let BrokerRef { broker, epoch } = *at;
            answer.fenced = image.brokers.get(broker).is_none_or(|b: &Broker| b.epoch != epoch || b.is_fenced());
        }
    }
}

#[cfg(test)]
mod tests;
