//! What must hold in every run, whatever happens, kept apart from the code it judges.

use super::super::input::Acks;
use super::super::lease::{Guard, Now};
use super::super::read::{FetchQuery, ReadRefusal};
use super::super::{Replica, RoleName};
use super::sim::{Broker, Sim, Tally};
use super::sim_controller::{Controller, LEASE_MS};
use super::sim_disk::{Batch, Disk};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, LeaderEpoch, Millis};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Laws {
    /// Batches that some replica's high watermark has passed, by base. One value per offset, for ever.
    committed: BTreeMap<u64, Batch>,
    /// Offset after the last of them.
    end: u64,
    /// acks=all: base -> value.
    acked: BTreeMap<u64, u64>,
    /// Of them, not compared with what is committed yet.
    unchecked: Vec<(u64, u64)>,
    refused: BTreeSet<u64>,
    /// Heads were dropped up to here.
    pub(super) deleted: u64,
    /// Deletes were answered up to here.
    gone: u64,
    /// Last high watermark of each running process.
    watermarks: BTreeMap<BrokerId, u64>,
    /// Who led in an epoch, and in which life.
    leaders: BTreeMap<LeaderEpoch, (BrokerId, protocol::ids::BrokerEpoch)>,
    /// Died; not registered since. Wiped or torn disks are excused until the registration takes their places.
    faulty: BTreeMap<BrokerId, bool>,
    /// Disks that were emptied, by what they once held.
    emptied: BTreeSet<BrokerId>,
    /// Highest "latest" that a current leader has answered.
    latest: u64,
}

impl Laws {
    pub(super) fn highest(&self) -> u64 {
        self.end
    }

    pub(super) fn died(&mut self, id: BrokerId, lost: bool) {
        self.watermarks.remove(&id);
        self.faulty.insert(id, lost);
    }

    pub(super) fn at_fault(&self, id: BrokerId) -> bool {
        self.faulty.get(&id).copied().unwrap_or(false)
    }

    /// A wiped disk: its directory uuid is another one.
    pub(super) fn wiped(&mut self, id: BrokerId, disk: &Disk) -> bool {
        let wiped = disk.lost_unsynced && disk.noted.is_none();
        if wiped {
            self.emptied.insert(id);
        }
        wiped
    }

    pub(super) fn registered(&mut self, id: BrokerId) {
        self.faulty.remove(&id);
    }

    pub(super) fn refused(&mut self, value: u64) {
        self.refused.insert(value);
    }

    /// After a replica's step: its high watermark only rises, stays within its log, and commits one value per offset.
    pub(super) fn after_step(&mut self, broker: &Broker) -> Result<(), String> {
        let Some(replica) = broker.replica.as_ref() else { return Ok(()) };
        let (id, hw) = (broker.id, replica.high_watermark());
        let before = self.watermarks.insert(id, hw).unwrap_or(0);
        if hw < before {
            return Err(format!("{id}: the high watermark fell from {before} to {hw}"));
        }
        if hw > broker.disk.end()
            || broker.disk.end() != replica.log_end()
            || broker.disk.durable < replica.durable_end()
        {
            return Err(format!(
                "{id}: ends {} {} durable {} {} hw {hw}",
                broker.disk.end(),
                replica.log_end(),
                broker.disk.durable,
                replica.durable_end()
            ));
        }
        let known_to = before.min(self.end);
        for batch in broker.disk.batches.iter().filter(|b| b.end <= hw && b.end > known_to) {
            if let Some(known) = self.committed.insert(batch.base, *batch)
                && known != *batch
            {
                return Err(format!("{id}: offset {} had {known:?}, now {batch:?}", batch.base));
            }
            self.end = self.end.max(batch.end);
        }
        for (base, value) in self.unchecked.drain(..) {
            match self.committed.get(&base) {
                Some(batch) if batch.value == value => {}
                other => return Err(format!("{id}: acknowledged {value} at {base}, committed is {other:?}")),
            }
        }
        if let RoleName::Leader(epoch) = replica.role() {
            let me = (id, broker.epoch);
            let first = *self.leaders.entry(epoch).or_insert(me);
            if first != me {
                return Err(format!("epoch {epoch} led by {first:?} and {me:?}"));
            }
        }
        Ok(())
    }

    /// No head is dropped past what is committed.
    pub(super) fn head_dropped(&mut self, id: BrokerId, to: u64) -> Result<(), String> {
        self.deleted = self.deleted.max(to);
        if to > self.end {
            return Err(format!("{id} drops its head up to {to}, committed is {}", self.end));
        }
        Ok(())
    }

    /// A delete was answered: no clean election brings back what is below.
    pub(super) fn delete_answered(&mut self, start: u64) {
        self.gone = self.gone.max(start);
    }

    pub(super) fn acked(
        &mut self,
        base: u64,
        value: u64,
        acks: Acks,
        guard: Guard,
        deposed: Option<Millis>,
        now: Millis,
    ) -> Result<(), String> {
        if guard == Guard::Lease && deposed.is_some_and(|at| now > at + LEASE_MS) {
            return Err(format!("acks {acks:?} answered {} ms after the deposition", now - deposed.unwrap_or(0)));
        }
        if acks == Acks::All {
            self.acked.insert(base, value);
            self.unchecked.push((base, value));
        }
        Ok(())
    }

    /// Every member of ISR and ELR holds everything committed, on what survives a crash under its policy.
    pub(super) fn replicas_agree(
        &self,
        brokers: &BTreeMap<BrokerId, Broker>,
        controller: &Controller,
    ) -> Result<(), String> {
        let view = controller.current();
        for id in view.isr.union(&view.elr) {
            if self.at_fault(*id) {
                continue;
            }
            let disk = &brokers[id].disk;
            let missing = self.committed.range(disk.start..).map(|(_, b)| b).find(|b| disk.at(b.base) != Some(**b));
            if let Some(batch) = missing {
                return Err(format!("{id} is in ISR {:?} or ELR {:?} without committed {batch:?}", view.isr, view.elr));
            }
            if disk.start < self.gone {
                return Err(format!("{id} begins at {}, records below {} were deleted", disk.start, self.gone));
            }
            if disk.start > self.deleted {
                return Err(format!("{id} begins at {}, past {}", disk.start, self.deleted));
            }
        }
        Ok(())
    }

    /// A read returns only committed records, and "latest" from current leaders never falls.
    pub(super) fn read(
        &mut self,
        broker: &Broker,
        offset: u64,
        current: bool,
        deposed: Option<Millis>,
        now: Now,
    ) -> Result<(), String> {
        let Some(replica) = broker.replica.as_ref() else { return Ok(()) };
        let query = FetchQuery { offset, leader_epoch: None, last_fetched_epoch: None };
        match replica.fetch(&query, now) {
            Ok(permit) => {
                if permit.guard == Guard::Lease && deposed.is_some_and(|at| now.at > at + LEASE_MS) {
                    return Err("an unflagged read long after the deposition".into());
                }
                let readable = broker.disk.batches.iter().filter(|b| b.base >= offset && b.end <= permit.upto);
                for batch in readable {
                    if self.committed.get(&batch.base) != Some(batch) {
                        return Err(format!("{}: read {batch:?}, which is not committed", broker.id));
                    }
                }
            }
            Err(ReadRefusal::Code(ErrorCode::OffsetOutOfRange))
                if current && offset < self.end && offset >= self.deleted =>
            {
                return Err(format!("{}: committed offset {offset} is out of range", broker.id));
            }
            Err(_) => {}
        }
        self.latest(replica, current, now)
    }

    fn latest(&mut self, replica: &Replica, current: bool, now: Now) -> Result<(), String> {
        let Ok(permit) = replica.latest(None, now) else { return Ok(()) };
        if current && permit.upto < self.latest {
            return Err(format!("latest fell from {} to {}", self.latest, permit.upto));
        }
        self.latest = self.latest.max(permit.upto);
        Ok(())
    }

    /// After healing.
    pub(super) fn healed(&self, brokers: &BTreeMap<BrokerId, Broker>, controller: &Controller) -> Result<(), String> {
        let view = controller.current();
        let leader = view.leader.ok_or("no leader after healing")?;
        if view.isr.len() != brokers.len() {
            return Err(format!("ISR {:?} after healing", view.isr));
        }
        let reference = &brokers[&leader];
        let end = reference.disk.end();
        for broker in brokers.values() {
            let replica = broker.replica.as_ref().ok_or("a broker does not run")?;
            if broker.disk.end() != end || replica.high_watermark() != end {
                return Err(format!(
                    "{}: end {} hw {} of {end}",
                    broker.id,
                    broker.disk.end(),
                    replica.high_watermark()
                ));
            }
            let from = broker.disk.start.max(reference.disk.start);
            let tail = |d: &Disk| d.batches.iter().filter(|b| b.base >= from).copied().collect::<Vec<_>>();
            if tail(&broker.disk) != tail(&reference.disk) {
                return Err(format!("{} and {leader} differ", broker.id));
            }
        }
        let values: BTreeSet<u64> = reference.disk.batches.iter().map(|b| b.value).collect();
        if let Some(value) = self.refused.iter().find(|v| values.contains(v)) {
            return Err(format!("{value} was definitely refused, and is in the log"));
        }
        for (base, value) in self.acked.range(reference.disk.start..) {
            if reference.disk.at(*base).is_none_or(|b| b.value != *value) {
                return Err(format!("acknowledged {value} at {base} is lost"));
            }
        }
        Ok(())
    }
}

fn run(seed: u64, tracing: bool) -> Tally {
    let mut sim = Sim::new(seed, tracing);
    for _ in 0..1_500 {
        sim.event();
    }
    sim.heal();
    sim.conclude()
}

fn sum(tallies: impl Iterator<Item = Tally>) -> Tally {
    tallies.fold(Tally::default(), |a, b| Tally {
        acked: a.acked + b.acked,
        unknown: a.unknown + b.unknown,
        leader_changes: a.leader_changes + b.leader_changes,
        truncations: a.truncations + b.truncations,
        deletes: a.deletes + b.deletes,
        resets: a.resets + b.resets,
        elr_elections: a.elr_elections + b.elr_elections,
        unproved: a.unproved + b.unproved,
        late_alterations: a.late_alterations + b.late_alterations,
        abdications: a.abdications + b.abdications,
        power_losses: a.power_losses + b.power_losses,
        stale_deliveries: a.stale_deliveries + b.stale_deliveries,
        lost: a.lost + b.lost,
        reads: a.reads + b.reads,
    })
}

/// Seeds `from..from + n` (SEAWALL_REPLICA_SEEDS for more, SEAWALL_REPLICA_SEED for one with its trace); every kind of event must have happened in them.
fn seeds(from: u64, n: u64) {
    let only = std::env::var("SEAWALL_REPLICA_SEED").ok().and_then(|s| s.parse().ok());
    if let Some(seed) = only {
        println!("{:?}", run(seed, true));
        return;
    }
    let n = std::env::var("SEAWALL_REPLICA_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(n);
    let total = sum((from..from + n).map(|seed| {
        let outcome = std::panic::catch_unwind(|| run(seed, false));
        outcome.unwrap_or_else(|cause| {
            eprintln!("for the trace: SEAWALL_REPLICA_SEED={seed}");
            std::panic::resume_unwind(cause)
        })
    }));
    println!("{n} seeds: {total:?}");
    let happened = [
        total.acked,
        total.unknown,
        total.leader_changes,
        total.truncations,
        total.deletes,
        total.resets,
        total.elr_elections,
        total.unproved,
        total.late_alterations,
        total.abdications,
        total.power_losses,
        total.stale_deliveries,
        total.reads,
    ];
    assert!(happened.iter().all(|n| *n > 0), "a planned fault did not happen: {total:?}");
    assert!(total.lost * 10 < n, "too many runs end without anybody who may lead: {total:?}");
}

#[test]
fn nothing_acknowledged_is_lost_first_seeds() {
    seeds(0, 500);
}

#[test]
fn nothing_acknowledged_is_lost_more_seeds() {
    seeds(100_000, 500);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..10 {
        let trace = |seed| {
            let mut sim = Sim::new(seed, true);
            (0..500).for_each(|_| sim.event());
            sim.trace
        };
        assert_eq!(trace(seed), trace(seed));
    }
}
