//! What must hold whatever happens, seen from outside: acknowledgements, roles, and the logs at the end.
//!
//! A broken law is an `Err` with a text; the run stops there and names its seed.

use protocol::ids::{BrokerId, LeaderEpoch, TopicPartition};
use std::collections::BTreeMap;

/// How much happened: a run in which nothing happened proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Batches acknowledged under acks=all.
    pub acked: u64,
    /// Processes killed with the page cache kept.
    pub kills: u64,
    /// Machines that lost power.
    pub power_cuts: u64,
    /// All brokers lost power at once.
    pub blackouts: u64,
    /// Partition leadership began in a new epoch.
    pub leaderships: u64,
    /// Controller failovers.
    pub failovers: u64,
    /// Metadata batches dropped by compare-and-append.
    pub dropped_batches: u64,
    /// Restarts that proved something, and that were not admitted to.
    pub proofs: u64,
    /// Truncations of a diverged follower.
    pub truncations: u64,
    /// Disks wiped and formatted again.
    pub wiped: u64,
    /// Processes that stopped because a sync failed.
    pub failed_syncs: u64,
    /// Hash over everything that happened, in order.
    pub trace: u64,
}

impl Tally {
    /// Adds another run's counts; the trace hash is of no use then.
    pub fn add(&mut self, other: &Tally) {
        self.acked += other.acked;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.blackouts += other.blackouts;
        self.leaderships += other.leaderships;
        self.failovers += other.failovers;
        self.dropped_batches += other.dropped_batches;
        self.proofs += other.proofs;
        self.truncations += other.truncations;
        self.wiped += other.wiped;
        self.failed_syncs += other.failed_syncs;
    }
}

/// Values by offset, of one replica's log.
pub(super) type Contents = BTreeMap<u64, u64>;

#[derive(Debug, Default)]
pub(super) struct Laws {
    /// Acknowledged: offset -> value.
    acked: BTreeMap<TopicPartition, BTreeMap<u64, u64>>,
    leaders: BTreeMap<(TopicPartition, LeaderEpoch), (BrokerId, u64)>,
    pub(super) tally: Tally,
}

impl Laws {
    /// An acknowledgement left the leader. No offset is acknowledged with two values.
    pub(super) fn acknowledged(&mut self, at: TopicPartition, base: u64, values: &[u64]) -> Result<(), String> {
        self.tally.acked += 1;
        let known = self.acked.entry(at).or_default();
        for (offset, value) in (base..).zip(values) {
            if let Some(before) = known.insert(offset, *value)
                && before != *value
            {
                return Err(format!("{at} offset {offset} was acknowledged with {before} and with {value}"));
            }
        }
        Ok(())
    }

    /// A process leads in an epoch. No epoch has two leaders, nor two lives of one.
    pub(super) fn leads(&mut self, at: TopicPartition, epoch: LeaderEpoch, who: (BrokerId, u64)) -> Result<(), String> {
        match self.leaders.insert((at, epoch), who) {
            None => self.tally.leaderships += 1,
            Some(before) if before == who => {}
            Some(before) => return Err(format!("{at} epoch {epoch} is led by {before:?} and {who:?}")),
        }
        Ok(())
    }

    /// After healing: every acknowledged record is where it was put, on every replica, and replicas agree.
    pub(super) fn settled(&self, at: TopicPartition, replicas: &[(BrokerId, Contents)]) -> Result<(), String> {
        for (id, contents) in replicas {
            for (offset, value) in self.acked.get(&at).into_iter().flatten() {
                match contents.get(offset) {
                    Some(found) if found == value => {}
                    other => {
                        return Err(format!("{at} offset {offset}: acknowledged {value}, broker {id} has {other:?}"));
                    }
                }
            }
        }
        for pair in replicas.windows(2) {
            if pair[0].1 != pair[1].1 {
                return Err(format!("{at}: the logs of {} and {} differ", pair[0].0, pair[1].0));
            }
        }
        Ok(())
    }

    /// Folds something that happened into the trace hash.
    pub(super) fn trace(&mut self, text: &str) {
        let hash = protocol::metadata::batch::chain(self.tally.trace, text.as_bytes());
        self.tally.trace = hash;
    }
}
