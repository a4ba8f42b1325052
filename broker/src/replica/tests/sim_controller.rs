//! A model controller for one partition: facts become views at once, brokers apply them when they come to it.
//! ISR changes are checked in the order of FEATURES.md 1.2, with broker epochs; ELR by the rule of DESIGN.md section 5.

use super::super::view::{Member, PartitionView, ReplicaConfig};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, PartitionEpoch};
use protocol::metadata::configs::FlushPolicy;
use protocol::metadata::durability::DurabilityRule;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const LEASE_MS: Millis = 400;
pub(super) const BROKERS: [BrokerId; 3] = [BrokerId(1), BrokerId(2), BrokerId(3)];

#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub(super) epoch: BrokerEpoch,
    pub(super) fenced: bool,
    pub(super) last_contact: Millis,
    /// Version that must be applied before it is unfenced.
    must_apply: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Controller {
    pub(super) versions: Vec<PartitionView>,
    pub(super) brokers: BTreeMap<BrokerId, Registered>,
    current: PartitionView,
    last_broker_epoch: u64,
    /// When each leader epoch was superseded.
    pub(super) deposed_at: BTreeMap<LeaderEpoch, Millis>,
    pub(super) elr_elections: u64,
}

impl Controller {
    pub(super) fn new(dcs: [&str; 3], rule: DurabilityRule, policy: FlushPolicy) -> Self {
        let member = |n: usize| Member {
            broker_epoch: Some(BrokerEpoch(n as u64 + 1)),
            data_centre: Some(dcs[n].to_owned()),
            active: true,
            fenced: false,
            counts: true,
        };
        let config =
            ReplicaConfig { flush_policy: policy, flush_interval_ms: 50, max_batch_bytes: 1_000, lag_max_ms: 150 };
        let current = PartitionView {
            leader: Some(BROKERS[0]),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            isr: BROKERS.into_iter().collect(),
            elr: BTreeSet::new(),
            members: (0..3).map(|n| (BROKERS[n], member(n))).collect(),
            recovering: false,
            rule,
            config,
        };
        let registered =
            |n: usize| Registered { epoch: BrokerEpoch(n as u64 + 1), fenced: false, last_contact: 0, must_apply: 0 };
        Self {
            versions: vec![current.clone()],
            brokers: (0..3).map(|n| (BROKERS[n], registered(n))).collect(),
            current,
            last_broker_epoch: 3,
            deposed_at: BTreeMap::new(),
            elr_elections: 0,
        }
    }

    pub(super) fn current(&self) -> &PartitionView {
        &self.current
    }

    pub(super) fn latest(&self) -> usize {
        self.versions.len() - 1
    }

    fn publish(&mut self) {
        for (id, member) in &mut self.current.members {
            let broker = &self.brokers[id];
            member.broker_epoch = Some(broker.epoch);
            member.fenced = broker.fenced;
            member.active = !broker.fenced;
        }
        self.versions.push(self.current.clone());
    }

    fn set(&mut self, isr: BTreeSet<BrokerId>, drop_from_elr: Option<BrokerId>, leader: Option<BrokerId>, now: Millis) {
        let old = self.current.clone();
        let elr: BTreeSet<_> = old.elr.union(&old.isr).copied().filter(|b| !isr.contains(b)).collect();
        self.current.elr = if self.current.satisfies(&isr) { BTreeSet::new() } else { elr };
        if let Some(unproved) = drop_from_elr {
            self.current.elr.remove(&unproved);
        }
        self.current.isr = isr;
        if leader != old.leader {
            self.lead(leader, now);
        }
        self.current.partition_epoch = old.partition_epoch.next();
        self.publish();
    }

    fn lead(&mut self, leader: Option<BrokerId>, now: Millis) {
        self.deposed_at.insert(self.current.leader_epoch, now);
        self.current.leader = leader;
        self.current.leader_epoch = self.current.leader_epoch.next();
    }

    /// One AlterPartition: the new partition epoch, or the code.
    pub(super) fn alter(
        &mut self,
        asker: (BrokerId, BrokerEpoch),
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        new_isr: &[(BrokerId, BrokerEpoch)],
        now: Millis,
    ) -> Result<PartitionEpoch, ErrorCode> {
        let current = &self.current;
        if self.brokers[&asker.0].epoch != asker.1 {
            return Err(ErrorCode::StaleBrokerEpoch);
        }
        if leader_epoch > current.leader_epoch || partition_epoch > current.partition_epoch {
            return Err(ErrorCode::NotController);
        }
        if leader_epoch < current.leader_epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if current.leader != Some(asker.0) {
            return Err(ErrorCode::InvalidRequest);
        }
        if partition_epoch < current.partition_epoch {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        let fit = |(id, epoch): &(BrokerId, BrokerEpoch)| {
            let broker = &self.brokers[id];
            !broker.fenced && broker.epoch == *epoch
        };
        if !new_isr.iter().all(fit) {
            return Err(ErrorCode::IneligibleReplica);
        }
        let isr: BTreeSet<_> = new_isr.iter().map(|(id, _)| *id).collect();
        self.set(isr, None, self.current.leader, now);
        Ok(self.current.partition_epoch)
    }

    pub(super) fn fence(&mut self, id: BrokerId) {
        let version = self.versions.len();
        if let Some(broker) = self.brokers.get_mut(&id).filter(|b| !b.fenced) {
            broker.fenced = true;
            broker.must_apply = version;
            self.publish();
        }
    }

    /// A process registers. What it does not prove falls at once; the rest of its fencing is work.
    pub(super) fn register(&mut self, id: BrokerId, proved: bool, now: Millis) -> BrokerEpoch {
        self.last_broker_epoch += 1;
        let epoch = BrokerEpoch(self.last_broker_epoch);
        let must_apply = self.versions.len();
        self.brokers.insert(id, Registered { epoch, fenced: true, last_contact: now, must_apply });
        self.publish();
        if !proved && (self.current.isr.contains(&id) || self.current.elr.contains(&id)) {
            self.remove(id, Some(id), now);
        }
        epoch
    }

    fn remove(&mut self, id: BrokerId, unproved: Option<BrokerId>, now: Millis) {
        let isr: BTreeSet<_> = self.current.isr.iter().copied().filter(|b| *b != id).collect();
        let leader = match self.current.leader {
            Some(leader) if leader == id => BROKERS.into_iter().find(|b| isr.contains(b) && !self.brokers[b].fenced),
            leader => leader,
        };
        self.set(isr, unproved, leader, now);
    }

    /// One item of the work that fencing calls for; false if there is none.
    pub(super) fn work(&mut self, now: Millis) -> bool {
        let fenced = self.current.isr.iter().copied().find(|b| self.brokers[b].fenced);
        if let Some(id) = fenced {
            self.remove(id, None, now);
            return true;
        }
        if self.current.leader.is_some() {
            return false;
        }
        let fit = |set: &BTreeSet<BrokerId>| BROKERS.into_iter().find(|b| set.contains(b) && !self.brokers[b].fenced);
        if let Some(leader) = fit(&self.current.isr) {
            self.set(self.current.isr.clone(), None, Some(leader), now);
            return true;
        }
        if let Some(leader) = fit(&self.current.elr) {
            self.elr_elections += 1;
            self.set([leader].into(), None, Some(leader), now);
            return true;
        }
        false
    }

    /// Unfences if the broker has applied what it must and no work is left.
    pub(super) fn unfence(&mut self, id: BrokerId, applied: usize) {
        let leads = self.current.leader == Some(id);
        let broker = &self.brokers[&id];
        let bound = leads || self.current.isr.contains(&id);
        if broker.fenced && !bound && applied >= broker.must_apply {
            self.brokers.get_mut(&id).expect("every broker is registered").fenced = false;
            self.publish();
        }
    }

    /// A preferred election or a drain: leadership moves within the ISR.
    pub(super) fn move_leader(&mut self, to: BrokerId, now: Millis) {
        if self.current.leader.is_some() && self.current.isr.contains(&to) && !self.brokers[&to].fenced {
            self.lead(Some(to), now);
            self.current.partition_epoch = self.current.partition_epoch.next();
            self.publish();
        }
    }

    /// A config changes: same partition epoch, another view. A change of the rule clears the ELR of a led partition.
    pub(super) fn configure(&mut self, policy: FlushPolicy, rule: DurabilityRule) {
        self.current.config.flush_policy = policy;
        if rule != self.current.rule {
            self.current.rule = rule;
            if self.current.leader.is_some() && !self.current.elr.is_empty() {
                self.current.elr.clear();
                self.current.partition_epoch = self.current.partition_epoch.next();
            }
        }
        self.publish();
    }

    /// Nobody may lead any more without an operator.
    pub(super) fn is_lost(&self) -> bool {
        self.current.leader.is_none() && self.current.isr.is_empty() && self.current.elr.is_empty()
    }
}
