//! What goes wrong, and the end of it: kills, power cuts, disks whose sync fails, wiped disks, cut streams, deposed
//! controllers.

use super::wire::{Event, ToController};
use super::world::{World, uuid};
use log::storage::memory::{Call, Fault, Op};
use protocol::ids::BrokerId;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a disk says whose sync fails.
pub(super) const SICK: &str = "a sync of this disk fails once";

impl World {
    pub(super) fn nemesis(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let next = self.rng.between(150, 2_500);
        self.after(next, Event::Nemesis);
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        let id = *self.rng.one_of(&ids);
        self.laws.trace(&format!("{} nemesis near {id}", self.now));
        match self.rng.below(115) {
            0..30 => self.strike(id, false),
            30..55 => self.strike(id, true),
            55..62 => {
                self.laws.tally.blackouts += 1;
                ids.iter().for_each(|id| self.strike(*id, true));
            }
            62..70 => {
                let answers = self.quorum.depose(self.now, &mut self.rng);
                self.send(answers);
            }
            70..78 => self.quorum.depose_in_flight = true,
            78..90 => {
                let other = *self.rng.one_of(&ids);
                let until = self.now + self.rng.between(50, 7_000);
                for (follower, leader) in [(id, other), (other, id)] {
                    self.links.get(follower, leader).cut_until = until;
                    self.break_link(follower, leader);
                }
            }
            90..97 => drop(self.cut_off.insert(id, self.now + self.rng.below(4_000) + 1)),
            97..100 => self.wipe(id),
            100..108 => self.sicken(id),
            _ => ids.iter().for_each(|id| self.sicken(*id)),
        }
        Ok(())
    }

    /// The next sync on the disk of a broker that runs fails, and what it should have written is only in the page cache
    /// from then on. The process stops, and starts again on the same boot.
    fn sicken(&mut self, id: BrokerId) {
        let Some(node) = self.nodes.get(&id).filter(|n| n.process.is_some()) else { return };
        let done = AtomicBool::new(false);
        node.disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
            let fails = call.op == Op::Sync && !done.swap(true, Ordering::Relaxed);
            fails.then(|| Fault::Fail(io::Error::other(SICK)))
        })));
    }

    /// Kills a broker (or cuts its power) and starts it again later.
    pub(super) fn strike(&mut self, id: BrokerId, power: bool) {
        if self.nodes.get(&id).is_some_and(|n| n.process.is_some()) {
            self.kill(id, power);
        }
    }

    pub(super) fn kill(&mut self, id: BrokerId, power: bool) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = node.process.take() else { return };
        self.laws.tally.truncations += process.truncations();
        drop(process);
        let stream = node.life;
        if power {
            self.laws.tally.power_cuts += 1;
            let rng = &mut self.rng;
            node.disk.crash(&mut || rng.chance(50));
        } else {
            self.laws.tally.kills += 1;
            node.disk.kill_process();
        }
        for (follower, leader) in self.links.of(id) {
            self.break_link(follower, leader);
        }
        if !power || self.rng.chance(50) {
            let delay = self.rng.between(1, 60);
            self.after(delay, Event::Controller(ToController::StreamReset { broker: id, stream }));
        }
        let delay = self.rng.between(20, 3_500);
        self.after(delay, Event::Start(id));
    }

    /// An operator replaces a dead broker's disk by an empty one. Only while every partition keeps two ISR members
    /// elsewhere: losing more disks than the rule allows is no fault of the protocol.
    pub(super) fn wipe(&mut self, id: BrokerId) {
        let spared = |p: &protocol::metadata::topics::Partition| {
            let others = p.isr.iter().filter(|b| **b != id);
            others.filter(|b| self.nodes.get(b).is_some_and(|n| n.process.is_some())).count() >= 2
        };
        let safe = self.quorum.image.topics.iter().all(|t| t.partitions.iter().all(spared));
        if !safe {
            return;
        }
        self.strike(id, true);
        let directory = uuid(&mut self.rng);
        let cluster = self.cluster;
        if let Some(node) = self.nodes.get_mut(&id).filter(|n| n.process.is_none()) {
            node.format(cluster, directory);
            self.laws.tally.wiped += 1;
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut_off.clear();
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for follower in &ids {
            for leader in &ids {
                self.links.get(*follower, *leader).cut_until = 0;
            }
            if let Some(node) = self.nodes.get(follower) {
                node.disk.set_hook(None);
            }
            self.after(1, Event::Start(*follower));
        }
    }
}
