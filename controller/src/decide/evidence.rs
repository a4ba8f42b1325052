//! What brokers have testified since this controller became active: proofs of restarts in the making, and log ends of
//! leaderless partitions. Soft state: a broker repeats its testimony when another controller asks (its image shows
//! `proved == false`, or a leaderless partition). Bounded by the image: only places the broker holds are kept.

use super::command::ReportedEnd;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};

/// One restart's proof, chunk by chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Proof {
    epoch: BrokerEpoch,
    proved: BTreeSet<TopicPartition>,
    closed: bool,
}

/// Proofs by broker.
#[derive(Debug, Clone, Default)]
pub(super) struct Proofs {
    by_broker: BTreeMap<BrokerId, Proof>,
}

impl Proofs {
    /// Adds a chunk. A chunk after the closing one starts over: the broker sends its proof again.
    pub(super) fn add(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        proved: impl Iterator<Item = TopicPartition>,
        last: bool,
    ) {
        let proof = self.by_broker.entry(broker).or_default();
        if proof.epoch != epoch || proof.closed {
            *proof = Proof { epoch, ..Proof::default() };
        }
        proof.proved.extend(proved);
        proof.closed = last;
    }

    /// The partitions proved, once the proof of this registration is closed.
    pub(super) fn closed(&self, broker: BrokerId, epoch: BrokerEpoch) -> Option<&BTreeSet<TopicPartition>> {
        self.by_broker.get(&broker).filter(|p| p.closed && p.epoch == epoch).map(|p| &p.proved)
    }

    /// Forgets a broker: it is proved, or registered anew.
    pub(super) fn forget(&mut self, broker: BrokerId) {
        self.by_broker.remove(&broker);
    }
}

/// Log ends by partition and replica.
#[derive(Debug, Clone, Default)]
pub(super) struct LogEnds {
    by_partition: BTreeMap<TopicPartition, BTreeMap<BrokerId, ReportedEnd>>,
}

impl LogEnds {
    /// Notes what a replica holds; a report for another leader epoch of the same partition is out of date.
    pub(super) fn note(&mut self, broker: BrokerId, end: ReportedEnd) {
        self.by_partition.entry(end.at).or_default().insert(broker, end);
    }

    /// What a replica reported at this leader epoch.
    pub(super) fn of(&self, at: TopicPartition, broker: BrokerId, epoch: LeaderEpoch) -> Option<ReportedEnd> {
        let end = self.by_partition.get(&at)?.get(&broker)?;
        (end.leader_epoch == epoch).then_some(*end)
    }

    /// Partitions somebody reported on.
    pub(super) fn partitions(&self) -> impl Iterator<Item = TopicPartition> {
        self.by_partition.keys().copied()
    }

    /// Drops partitions that no longer need reports.
    pub(super) fn retain(&mut self, keep: impl Fn(TopicPartition) -> bool) {
        self.by_partition.retain(|at, _| keep(*at));
    }

    /// Forgets what a broker said under an earlier registration.
    pub(super) fn forget(&mut self, broker: BrokerId) {
        for ends in self.by_partition.values_mut() {
            ends.remove(&broker);
        }
        self.by_partition.retain(|_, ends| !ends.is_empty());
    }
}
