//! Operators: topics made, grown, deleted and made again, configs changed, leaders moved back, and what has no safe leader
//! elected after all, where the rules allow loss.

use super::buggify::Point;
use super::faults::Fault;
use super::laws::{Law, holds};
use super::sometimes::Sometimes;
use super::told::Told;
use super::wire::{Event, Origin, ToController};
use super::world::{World, uuid};
use crate::sim::plan::TopicPlan;
use controller::decide::command::{
    AlterConfigs, Command, ConfigTarget, CreatePartitions, CreateTopic, DeleteTopic, ElectLeaders, ElectionKind,
    ElectionScope,
};
use protocol::ids::{BrokerId, Millis, TopicId};

/// How long after the faults nobody asks for an unclean election, ms.
const UNCLEAN_AFTER_MS: Millis = 30_000;

/// How long a deleted topic can be restored in the simulation, ms.
const DELETE_GRACE_MS: Millis = 3_000;

impl World {
    fn operate(&mut self, command: Command) {
        let delay = self.rng.between(1, 10);
        self.after(delay, Event::Controller(ToController::Command(Box::new(command), Origin::Nobody)));
    }

    fn at_ms(&self) -> Millis {
        u64::try_from(super::clock::wall(self.now)).unwrap_or(0)
    }

    fn create(&mut self, topic: &TopicPlan) {
        let command = CreateTopic {
            topic: TopicId(uuid(&mut self.rng)),
            seed: self.rng.number(),
            at_ms: self.at_ms(),
            name: topic.name.clone(),
            partitions: topic.partitions,
            replicas: Some(topic.replicas),
            configs: topic.configs.clone(),
            validate_only: false,
        };
        self.operate(Command::CreateTopic(command));
    }

    fn set(&mut self, target: ConfigTarget, key: &str, value: String) {
        let set = vec![(key.to_owned(), value)];
        self.operate(Command::AlterConfigs(AlterConfigs { target, set, unset: Vec::new(), validate_only: false }));
    }

    /// Makes the planned topics as soon as enough brokers are active, and asks again until they are there.
    pub(super) fn want_topics(&mut self) {
        let active = self.quorum.image.brokers.iter().filter(|b| b.is_active()).count();
        if active < self.plan.brokers.len().min(3) {
            return;
        }
        if !std::mem::replace(&mut self.configured, true) {
            self.set(ConfigTarget::Cluster, "delete.grace.ms", DELETE_GRACE_MS.to_string());
        }
        let missing = |t: &&TopicPlan| self.quorum.image.topics.by_name(&t.name).is_none();
        let missing: Vec<_> = self.plan.topics.iter().filter(missing).cloned().collect();
        for topic in missing {
            if self.deleted.remove(&topic.name) {
                self.laws.tally.sometimes(Sometimes::TopicRecreated);
            }
            self.create(&topic);
        }
    }

    /// The operator's next deed.
    pub(super) fn operator(&mut self) -> Result<(), String> {
        self.after(1_000, Event::Operator);
        self.want_topics();
        self.untaint();
        if !self.faults {
            return self.recover_unclean();
        }
        self.loosen_in_the_dark();
        let Some(pause) = self.plan.load.admin_ms else { return Ok(()) };
        if !self.rng.chance(100_000 / pause.max(1_000)) {
            return Ok(());
        }
        let plans = self.plan.topics.clone();
        let topic = self.rng.one_of(&plans).clone();
        let target = ConfigTarget::Topic(topic.name.clone());
        match self.rng.below(7) {
            // Fewer copies are asked for only while no disk is known to be bad.
            0 if self.nodes.values().all(|n| !n.tainted) => {
                let value = self.rng.between(1, u64::from(topic.replicas));
                self.fewer_asked_at = Some(self.now);
                self.set(target, "min.insync.replicas", value.to_string());
            }
            1 if !topic.is_sync => {
                let value = *self.rng.one_of(&["sync", "os", "interval"]);
                self.set(target, "flush.policy", value.to_owned());
            }
            2 => {
                let (total, seed) = (topic.partitions + 1, self.rng.number());
                let command = CreatePartitions { name: topic.name, total, seed, validate_only: false };
                self.operate(Command::CreatePartitions(command));
            }
            3 if topic.name != "main" && self.rng.chance(40) => {
                let at_ms = self.at_ms();
                self.deleted.insert(topic.name.clone());
                self.operate(Command::DeleteTopic(DeleteTopic { name: topic.name, at_ms }));
            }
            4 | 5 => {
                self.laws.tally.sometimes(Sometimes::PreferredElection);
                self.elect(ElectionScope::All, ElectionKind::Preferred);
            }
            _ => {
                let ids: Vec<_> = self.nodes.keys().copied().collect();
                let id = *self.rng.one_of(&ids);
                if self.stop(id) {
                    self.struck(Fault::Stop);
                }
            }
        }
        Ok(())
    }

    /// Policies are tightened, and loosened some seconds later: what that left to the page cache is lost everywhere.
    fn loosen_in_the_dark(&mut self) {
        if !Point::LoosenedInTheDark.is_on(self.plan.buggify) {
            return;
        }
        let value = match self.now / 1_000 % 8 {
            4 => "sync",
            7 => "os",
            _ => return,
        };
        let loose: Vec<_> = self.plan.topics.iter().filter(|t| !t.is_sync).map(|t| t.name.clone()).collect();
        for name in loose {
            self.set(ConfigTarget::Topic(name), "flush.policy", value.to_owned());
        }
        if value == "sync" {
            return;
        }
        let delay = self.rng.between(20, 400);
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.after(delay, Event::Strike { id, power: true });
        }
    }

    fn elect(&mut self, scope: ElectionScope, kind: ElectionKind) {
        let at_ms = self.at_ms();
        self.operate(Command::ElectLeaders(ElectLeaders { scope, kind, dry_run: false, at_ms }));
    }

    /// Some time after the faults: partitions of topics that do not sync may have nobody left who is known to hold
    /// everything. Where somebody is, the controllers should have let him lead by then.
    fn recover_unclean(&mut self) -> Result<(), String> {
        if self.now < self.plan.faulty_ms + UNCLEAN_AFTER_MS {
            return Ok(());
        }
        let image = &self.quorum.image;
        let mut scopes = Vec::new();
        for topic in image.topics.iter().filter(|t| t.is_live()) {
            let strict = self.plan.topics.iter().any(|p| p.name == topic.name && p.is_sync);
            for (number, p) in (0u32..).zip(topic.partitions.iter()) {
                // A partition whose first records were on their way when all its replicas lost power has nobody who can
                // prove anything, and nothing that could be lost.
                let at = protocol::ids::TopicPartition { topic: topic.id, partition: number };
                if p.leader.is_none() && (!strict || !self.laws.has_acked(at)) {
                    let able = |b: &&BrokerId| image.brokers.get(**b).is_some_and(|b| b.is_active() && b.proved);
                    let able = p.isr.iter().chain(&p.elr).find(able);
                    let what = || format!("{at}: nobody leads, though broker {able:?} may and could");
                    holds(Law::EverythingHeals, able.is_none(), what)?;
                    let scope = ElectionScope::Partition(topic.name.clone(), number);
                    // First the longest log, of those that are whole; then whoever there is.
                    let chosen = (self.now / 1_000 % 2 == 1).then(|| p.replicas.first().copied()).flatten();
                    scopes.push((at, scope, chosen));
                }
            }
        }
        for (at, scope, chosen) in scopes {
            self.laws.observe(self.now, &Told::UncleanAsked { at })?;
            self.elect(scope, ElectionKind::Unclean { now: false, chosen });
        }
        Ok(())
    }
}
