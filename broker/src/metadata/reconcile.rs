//! What the applied image asks of this broker's partitions: `plan(local, image, me, ...) -> ops`.
//!
//! Level-triggered: a delta only says where to look, and a plan repeated does no harm. Data is removed only by a
//! committed, explicit `TopicPurged` of the same topic id; a partition that the image does not know, or does not place
//! here, is a stray and set aside whole (FEATURES.md, pitfalls 17 and 21). Nothing is planned before the image holds
//! this process's own registration: an older image knows less than the directories do.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::replica::view::PartitionView;
use protocol::ids::{BrokerEpoch, BrokerId, TopicId, TopicPartition};
use protocol::metadata::delta::Delta;
use protocol::metadata::image::MetadataImage;
use std::collections::{BTreeMap, BTreeSet};

/// How a partition stands on this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// A directory (or an empty place) without a running replica.
    Closed,
    /// A running replica.
    Open,
    /// Data of a deleted topic, kept until it is purged.
    Parked,
}

/// What to do with one partition, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Its topic was purged by a committed fact: remove the data.
    Purge(TopicPartition),
    /// The image places nothing here: withdraw the replica, set the data aside whole.
    SetAside(TopicPartition),
    /// Its topic is deleted but restorable: withdraw the replica, keep the data where it is.
    Park(TopicPartition),
    /// Run a replica. Its directory is made at the first append.
    Open(TopicPartition),
    /// Hand the replica its part of the image.
    Assign(TopicPartition, Box<PartitionView>),
}

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Everywhere: the first plan, and after a snapshot if no delta was made.
    Everything,
    /// Where the delta says.
    Touched(&'a Delta),
}

/// Who plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Me {
    /// This broker.
    pub id: BrokerId,
    /// This process's registration.
    pub epoch: BrokerEpoch,
}

/// Ops that bring this broker to what the image asks. `purged`: topics named by `TopicPurged` facts in the batches
/// just applied (never derived from the difference of images). None: the image does not hold our registration yet;
/// plan `Everything` once it does.
#[must_use]
pub fn plan(
    local: &BTreeMap<TopicPartition, Local>,
    image: &MetadataImage,
    me: Me,
    scope: Scope<'_>,
    purged: &BTreeSet<TopicId>,
) -> Option<Vec<Op>> {
    plan_where(local, image, me, scope, purged, |_| true)
}

/// The same for some of the partitions only: a shard plans for its own.
#[must_use]
pub fn plan_where(
    local: &BTreeMap<TopicPartition, Local>,
    image: &MetadataImage,
    me: Me,
    scope: Scope<'_>,
    purged: &BTreeSet<TopicId>,
    mine: impl Fn(TopicPartition) -> bool,
) -> Option<Vec<Op>> {
    let registered = image.brokers.get(me.id).is_some_and(|b| b.epoch == me.epoch);
    if !registered {
        return None;
    }
    let mut ops: Vec<Op> = candidates(local, image, me, scope)
        .into_iter()
        .filter(|at| mine(*at))
        .flat_map(|at| plan_one(at, local.get(&at).copied(), image, me, purged))
        .collect();
    ops.sort_by_key(order);
    Some(ops)
}

/// Room is made before it is taken.
fn order(op: &Op) -> u8 {
    match op {
        Op::Purge(_) => 0,
        Op::SetAside(_) => 1,
        Op::Park(_) => 2,
        Op::Open(_) | Op::Assign(..) => 3,
    }
}

fn candidates(
    local: &BTreeMap<TopicPartition, Local>,
    image: &MetadataImage,
    me: Me,
    scope: Scope<'_>,
) -> BTreeSet<TopicPartition> {
    let everywhere = || image.topics.places_of(me.id).chain(local.keys().copied());
    let delta = match scope {
        Scope::Everything => return everywhere().collect(),
        Scope::Touched(delta) => delta,
    };
    if delta.configs || delta.brokers.contains(&me.id) {
        return everywhere().collect();
    }
    let mut at: BTreeSet<_> = delta.partitions.clone();
    if !delta.brokers.is_empty() {
        let shares = |at: &TopicPartition| {
            let partition = image.topics.partition(*at);
            partition.is_some_and(|p| p.replicas.iter().chain(&p.observers).any(|b| delta.brokers.contains(b)))
        };
        at.extend(image.topics.places_of(me.id).filter(shares));
    }
    at.extend(local.keys().copied().filter(|at| delta.topics.contains(&at.topic)));
    at
}

fn plan_one(
    at: TopicPartition,
    local: Option<Local>,
    image: &MetadataImage,
    me: Me,
    purged: &BTreeSet<TopicId>,
) -> Vec<Op> {
    let topic = image.topics.get(at.topic);
    let placed = topic
        .and_then(|t| t.partition(at.partition))
        .is_some_and(|p| p.replicas.contains(&me.id) || p.observers.contains(&me.id));
    match (topic, local) {
        (None, Some(_)) if purged.contains(&at.topic) => vec![Op::Purge(at)],
        (_, Some(_)) if !placed => vec![Op::SetAside(at)],
        (Some(topic), Some(Local::Closed | Local::Open)) if !topic.is_live() => vec![Op::Park(at)],
        (Some(topic), _) if placed && topic.is_live() => {
            let view = PartitionView::of(image, at, me.id).map(|view| Op::Assign(at, Box::new(view)));
            let open = (local != Some(Local::Open)).then_some(Op::Open(at));
            open.into_iter().chain(view).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "reconcile/tests.rs"]
pub(crate) mod tests;
