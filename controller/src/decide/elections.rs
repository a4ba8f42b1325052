//! Elections somebody asked for, and unclean ones under `unclean.recovery.policy=longest`.
//!
//! An unclean election may lose records, so it is never a side effect: it needs an operator or the topic's policy,
//! takes the longest undamaged log by (last epoch, log end) of the survivors that reported at this leader epoch (or
//! the broker the operator names), waits one lease plus `lease.grace.ms`, and a tenth more for slower clocks, since the
//! last contact with every replica that did not report (any of them may be a former leader that still answers acks=all),
//! and is recorded as a fact with what it kept. A report at the current leader epoch proves that its process knows the
//! leadership ended, and that earlier processes of that broker are dead.

use super::command::{ElectLeaders, ElectionKind, ElectionResult, ElectionScope, Now, ReportLogEnds, ReportedEnd};
use super::command::{Reply, Survivor};
use super::election::{Electorate, live};
use super::grace;
use super::limits::ELECTIONS_MAX;
use super::sessions::Sessions;
use super::topics;
use super::work::push_changes;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerId, LeaderEpoch, Millis, TopicPartition};
use protocol::metadata::draft::Draft;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{Fact, UncleanElection};
use protocol::metadata::topics::{Partition, Topic};
use std::collections::BTreeSet;

/// Notes what replicas of leaderless partitions hold. Anything out of date is ignored: the broker reports again.
pub(super) fn report(
    image: &MetadataImage,
    sessions: &mut Sessions,
    command: &ReportLogEnds,
) -> Result<Reply, ApiError> {
    super::brokers::current(image, command.broker, command.epoch)?;
    for end in &command.ends {
        let wanted = live(image, end.at).is_some_and(|(_, p)| {
            p.leader.is_none() && p.leader_epoch == end.leader_epoch && p.replicas.contains(&command.broker)
        });
        if wanted {
            sessions.ends.note(command.broker, *end);
        }
    }
    Ok(Reply::Done)
}

/// Decides each partition of the scope by itself.
pub(super) fn elect(
    draft: &mut Draft<MetadataImage>,
    sessions: &Sessions,
    now: Now,
    command: &ElectLeaders,
) -> Result<Reply, ApiError> {
    let mut scope = in_scope(draft.state(), command)?.into_iter();
    let mut results = Vec::new();
    for at in scope.by_ref().take(ELECTIONS_MAX) {
        // As they stand before: what they reported is void at the epoch that an election begins.
        let survivors = match command.kind {
            ElectionKind::Preferred => Vec::new(),
            ElectionKind::Unclean { .. } => survivors(draft.state(), sessions, at),
        };
        let outcome = match command.kind {
            ElectionKind::Preferred => preferred(draft, at, command.dry_run),
            ElectionKind::Unclean { now: forced, chosen } => {
                let wish = Wish { forced, chosen, dry_run: command.dry_run, at_ms: command.at_ms };
                unclean(draft, sessions, now, at, wish)
            }
        };
        results.push(result(draft.state(), at, survivors, outcome));
    }
    if let Some(at) = scope.next() {
        let text = format!("only {ELECTIONS_MAX} partitions are decided at a time; ask again for the rest");
        let rest = ApiError::new(ErrorCode::OperationNotAttempted, text);
        results.push(result(draft.state(), at, Vec::new(), Err(rest)));
    }
    Ok(Reply::Elected(results))
}

fn in_scope(image: &MetadataImage, command: &ElectLeaders) -> Result<Vec<TopicPartition>, ApiError> {
    let needed = |p: &Partition| match command.kind {
        ElectionKind::Preferred => p.leader.is_some() && p.leader != p.replicas.first().copied(),
        ElectionKind::Unclean { .. } => p.leader.is_none(),
    };
    let of = |topic: &Topic| -> Vec<TopicPartition> {
        let numbered = (0_u32..).zip(topic.partitions.iter());
        numbered
            .filter(|(_, p)| needed(p))
            .map(|(partition, _)| TopicPartition { topic: topic.id, partition })
            .collect()
    };
    match &command.scope {
        ElectionScope::All => {
            Ok(image.topics.iter().filter(|t| t.is_live()).flat_map(of).take(ELECTIONS_MAX + 1).collect())
        }
        ElectionScope::Topic(name) => topics::by_name(image, name).map(of),
        ElectionScope::Partition(name, partition) => {
            let topic = topics::by_name(image, name)?;
            if topic.partition(*partition).is_none() {
                let limit = format!("0 to {}", topic.partitions.len().saturating_sub(1));
                return Err(ApiError::bad(ErrorCode::UnknownPartition, "partition", partition, limit));
            }
            Ok(vec![TopicPartition { topic: topic.id, partition: *partition }])
        }
    }
}

fn preferred(draft: &mut Draft<MetadataImage>, at: TopicPartition, dry_run: bool) -> Result<String, ApiError> {
    let (topic, old) = live(draft.state(), at).ok_or_else(|| gone(at))?;
    let first = old.replicas.first().copied().unwrap_or_default();
    if old.leader == Some(first) {
        return Err(ApiError::new(ErrorCode::ElectionNotNeeded, format!("broker {first} leads already")));
    }
    let avoid = BTreeSet::new();
    let change = Electorate::new(draft.state(), topic, &avoid).prefer(at.partition, old, first).ok_or_else(|| {
        let why = if draft.state().brokers.is_active(first) { "is not in the ISR yet" } else { "is not active" };
        ApiError::new(ErrorCode::EligibleLeadersNotAvailable, format!("the preferred leader, broker {first}, {why}"))
    })?;
    if !dry_run {
        push_changes(draft, vec![(at, change)]);
    }
    Ok(format!("leadership {} to broker {first}", if dry_run { "would move" } else { "moved" }))
}

/// What an unclean election was asked to do.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    /// Skip the wait for replicas that did not report.
    pub forced: bool,
    /// This broker rather than the longest log.
    pub chosen: Option<BrokerId>,
    /// Change nothing.
    pub dry_run: bool,
    /// Wall clock, ms since 1970.
    pub at_ms: Millis,
}

/// Elects whom [`choose`] allows and records what was kept. A safe candidate, if there is one, is taken instead.
pub(super) fn unclean(
    draft: &mut Draft<MetadataImage>,
    sessions: &Sessions,
    now: Now,
    at: TopicPartition,
    wish: Wish,
) -> Result<String, ApiError> {
    let (topic, old) = live(draft.state(), at).ok_or_else(|| gone(at))?;
    if let Some(leader) = old.leader {
        return Err(ApiError::new(ErrorCode::ElectionNotNeeded, format!("broker {leader} leads")));
    }
    let avoid = BTreeSet::new();
    let electorate = Electorate::new(draft.state(), topic, &avoid);
    let would = if wish.dry_run { "would be" } else { "was" };
    if electorate.has_candidate(old) {
        let change = electorate.settle(at.partition, old, None);
        let changes = change.map(|c| (at, c)).into_iter().filter(|_| !wish.dry_run).collect();
        push_changes(draft, changes);
        return Ok(format!("a leader that holds every committed record {would} elected; nothing is lost"));
    }
    let (leader, end, forced_now) = choose(draft.state(), sessions, now, old, at, wish)?;
    let change = Electorate::unclean(at.partition, leader);
    if !wish.dry_run {
        push_changes(draft, vec![(at, change)]);
        draft.push(Fact::UncleanElection(UncleanElection {
            topic: at.topic,
            partition: at.partition,
            leader,
            last_epoch: end.last_epoch,
            log_end: end.log_end,
            forced_now,
            at_ms: wish.at_ms,
        }));
        end_recovery(draft, at);
    }
    let end = end.log_end;
    Ok(format!("broker {leader} {would} elected with log end {end}; records at and above {end} may be lost"))
}

/// Where the new leader alone satisfies the rule, no later ISR change would end the recovery.
fn end_recovery(draft: &mut Draft<MetadataImage>, at: TopicPartition) {
    let avoid = BTreeSet::new();
    let formed = live(draft.state(), at)
        .and_then(|(topic, new)| Electorate::new(draft.state(), topic, &avoid).settle(at.partition, new, None));
    push_changes(draft, formed.map(|change| (at, change)).into_iter().collect());
}

/// Whom to elect, what it holds, and whether a wait was skipped.
fn choose(
    image: &MetadataImage,
    sessions: &Sessions,
    now: Now,
    old: &Partition,
    at: TopicPartition,
    wish: Wish,
) -> Result<(BrokerId, ReportedEnd, bool), ApiError> {
    let refused = |text: String| ApiError::new(ErrorCode::RefusedBySafetyRule, text);
    let reported = |b: BrokerId| sessions.ends.of(at, b, old.leader_epoch);
    let sound = |b: BrokerId| reported(b).filter(|e| !e.damaged).map(|e| (b, e));
    let found = match wish.chosen {
        Some(chosen) if !old.replicas.contains(&chosen) => {
            let limit = format!("one of the replicas {:?}", ids(&old.replicas));
            return Err(ApiError::bad(ErrorCode::InvalidRequest, "chosen", chosen, limit));
        }
        Some(chosen) => reported(chosen).map(|end| (chosen, end)),
        None => {
            let rank = |(b, end): &(BrokerId, ReportedEnd)| (end.last_epoch, end.log_end, image.brokers.is_active(*b));
            old.replicas.iter().rev().filter_map(|b| sound(*b)).max_by_key(rank)
        }
    };
    let (leader, end) = found.ok_or_else(|| {
        let text = "no replica has reported an undamaged log at this leader epoch; one with a damaged log, or what is left \
                    of it, is elected only if it is named";
        ApiError::new(ErrorCode::EligibleLeadersNotAvailable, text)
    })?;
    if !image.brokers.is_active(leader) {
        let text =
            format!("broker {leader} holds the log to elect but is not active; wait until it is, or choose another");
        return Err(refused(text));
    }
    let waiting = waits(image, sessions, now, old, at);
    if !waiting.is_empty() && !wish.forced {
        let list: Vec<_> = waiting.iter().map(|(b, ms)| format!("broker {b}: {ms} ms")).collect();
        let text = format!(
            "replicas that have not reported may still act on a lease or its grace: {}; wait, bring them back, or say now",
            list.join(", ")
        );
        return Err(refused(text));
    }
    Ok((leader, end, !waiting.is_empty()))
}

/// Replicas that did not report and may still act as leader, with the ms left.
fn waits(
    image: &MetadataImage,
    sessions: &Sessions,
    now: Now,
    old: &Partition,
    at: TopicPartition,
) -> Vec<(BrokerId, Millis)> {
    let wait = grace::lasts(sessions.timers().lease_ms, grace::longest(image));
    let left = |b: &BrokerId| {
        let until = sessions.last_heard(*b).unwrap_or(now.mono).saturating_add(wait);
        let silent = sessions.ends.of(at, *b, old.leader_epoch).is_none();
        (silent && now.mono < until).then(|| (*b, until - now.mono))
    };
    old.replicas.iter().filter_map(left).collect()
}

/// Every replica with what it reported.
pub(super) fn survivors(image: &MetadataImage, sessions: &Sessions, at: TopicPartition) -> Vec<Survivor> {
    let Some((_, partition)) = live(image, at) else { return Vec::new() };
    let survivor = |b: &BrokerId| Survivor { broker: *b, end: sessions.ends.of(at, *b, partition.leader_epoch) };
    partition.replicas.iter().map(survivor).collect()
}

fn result(
    image: &MetadataImage,
    at: TopicPartition,
    survivors: Vec<Survivor>,
    outcome: Result<String, ApiError>,
) -> ElectionResult {
    let found = live(image, at);
    let (error, text) = match outcome {
        Ok(text) => (None, text),
        Err(error) => (Some(error.clone()), error.message),
    };
    ElectionResult {
        topic: found.map_or_else(String::new, |(topic, _)| topic.name.clone()),
        partition: at.partition,
        error,
        leader: found.and_then(|(_, p)| p.leader),
        leader_epoch: found.map_or(LeaderEpoch(0), |(_, p)| p.leader_epoch),
        survivors,
        text,
    }
}

fn gone(at: TopicPartition) -> ApiError {
    ApiError::bad(ErrorCode::UnknownPartition, "partition", at, "a partition of a live topic")
}

fn ids(brokers: &[BrokerId]) -> Vec<u32> {
    brokers.iter().map(|b| b.0).collect()
}

#[cfg(test)]
mod tests;
