//! How much happened in a run: a run in which nothing happened proves nothing.
//!
//! Never: judges. Invariant: counts only what took effect, not what was planned.

use super::sometimes::Sometimes;
use std::collections::BTreeMap;

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records acknowledged under acks=all.
    pub acked: u64,
    /// Processes killed with the page cache kept.
    pub kills: u64,
    /// Machines that lost power.
    pub power_cuts: u64,
    /// All brokers lost power at once.
    pub blackouts: u64,
    /// Leadership of a partition began in a new epoch that was not its first.
    pub leader_changes: u64,
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
    /// Faults that took effect, by class.
    pub faults: BTreeMap<&'static str, u64>,
    /// Rare things that were seen.
    pub seen: BTreeMap<Sometimes, u64>,
    /// Events handled.
    pub events: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Longest time in which a deposed leader acknowledged acks 0 or 1, or answered an unflagged read, after the batch
    /// that deposed it committed.
    pub stale_service_ms: u64,
    /// Longest times without an acknowledgement of acks=all on a partition that was written to, by the classes of
    /// faults that took effect then.
    pub unavailable_ms: BTreeMap<String, Vec<u64>>,
    /// Hash over everything that happened, in order.
    pub trace: u64,
}

impl Tally {
    /// A fault took effect.
    pub fn fault(&mut self, class: &'static str) {
        *self.faults.entry(class).or_default() += 1;
    }

    /// Something rare was seen.
    pub fn sometimes(&mut self, what: Sometimes) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// Faults that took effect, of all classes.
    #[must_use]
    pub fn faults_taken(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Adds another run's counts; the trace hash is of no use then.
    pub fn add(&mut self, other: &Tally) {
        self.acked += other.acked;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.blackouts += other.blackouts;
        self.leader_changes += other.leader_changes;
        self.failovers += other.failovers;
        self.dropped_batches += other.dropped_batches;
        self.proofs += other.proofs;
        self.truncations += other.truncations;
        self.wiped += other.wiped;
        self.failed_syncs += other.failed_syncs;
        self.events += other.events;
        self.simulated_ms += other.simulated_ms;
        self.stale_service_ms = self.stale_service_ms.max(other.stale_service_ms);
        for (class, count) in &other.faults {
            *self.faults.entry(class).or_default() += count;
        }
        for (what, count) in &other.seen {
            *self.seen.entry(*what).or_default() += count;
        }
        for (class, gaps) in &other.unavailable_ms {
            self.unavailable_ms.entry(class.clone()).or_default().extend(gaps);
        }
    }
}
