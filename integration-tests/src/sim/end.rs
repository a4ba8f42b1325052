//! How a run ends: faults stop, everything heals, and the logs of all replicas are compared.

use super::laws::{Law, holds};
use super::process::Process;
use super::tally::Tally;
use super::wire::Event;
use super::world::World;
use protocol::ids::{BrokerId, Millis, TopicPartition};
use protocol::metadata::topics::Partition;

/// How long clients go on writing after the faults: what is acknowledged while everything heals counts as well.
const WRITES_AFTER_MS: Millis = 3_000;
/// How soon everything that has healed takes a write, and every replica has it.
const WRITABLE_IN_MS: Millis = 30_000;

impl World {
    /// The whole run.
    pub(super) fn run(mut self) -> Result<Tally, String> {
        let (seed, plan) = (self.plan.seed, self.plan.clone());
        let at = |world: &World, e: String| format!("seed {seed} at {} ms: {e}", world.now);
        self.begin();
        self.go(plan.faulty_ms).map_err(|e| at(&self, e))?;
        self.faults = false;
        self.settling_writes = true;
        self.trace.note(self.now, None, format_args!("faults end, everything heals"));
        self.heal().map_err(|e| at(&self, e))?;
        self.go(self.now + WRITES_AFTER_MS).map_err(|e| at(&self, e))?;
        self.settling_writes = false;
        let end = plan.faulty_ms + plan.heal_ms;
        while self.now < plan.until_ms || (!plan.hopeless && self.now < end && !self.is_settled()) {
            self.go(self.now + 200).map_err(|e| at(&self, e))?;
        }
        if !plan.hopeless && self.is_settled() {
            self.write_everywhere().map_err(|e| at(&self, e))?;
        }
        self.measures.end(self.now, &mut self.laws.tally);
        let judged = if plan.hopeless { self.judge_hopeless() } else { self.judge() };
        judged.map_err(|e| format!("seed {seed} at the end: {e}"))?;
        if self.trace.is_read() {
            println!("events by kind: {:?}", self.trace.counted());
        }
        let mut tally = self.laws.tally;
        tally.trace = self.trace.hash();
        tally.simulated_ms = self.now;
        Ok(tally)
    }

    /// What has healed takes writes: one to every partition, and all replicas have it soon after.
    fn write_everywhere(&mut self) -> Result<(), String> {
        self.due = self.partitions().into_iter().map(|(at, _)| at).collect();
        let until = self.now + WRITABLE_IN_MS;
        while self.now < until && !self.due.is_empty() {
            self.go(self.now + 100)?;
        }
        let left = std::mem::take(&mut self.due);
        let what = || format!("{left:?} took no write in {WRITABLE_IN_MS} ms; {}", self.unsettled());
        holds(Law::EverythingHeals, left.is_empty(), what)?;
        let until = self.now + WRITABLE_IN_MS;
        while self.now < until && !self.is_settled() {
            self.go(self.now + 100)?;
        }
        Ok(())
    }

    /// A process has ended cleanly, as it was asked to.
    pub(super) fn stopped(&mut self, id: BrokerId, released: bool) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(process) = node.process.take() else { return Ok(()) };
        let who = process.who();
        self.laws.tally.truncations += process.truncations();
        let clean = process.close();
        node.disk.kill_process();
        (node.frozen_until, node.wakes_at) = (0, Millis::MAX);
        self.trace.note(self.now, Some(id), format_args!("has stopped, released: {released}, cleanly: {clean}"));
        if released {
            self.laws.tally.sometimes(super::sometimes::Sometimes::ControlledShutdown);
        }
        self.laws.observe(self.now, &super::told::Told::Ended { who, power: false })?;
        self.gone(id, who.life, true);
        let delay = self.restart_delay();
        self.after(delay, Event::Start(id));
        Ok(())
    }

    pub(super) fn partitions(&self) -> Vec<(TopicPartition, Partition)> {
        let live = self.quorum.image.topics.iter().filter(|t| t.is_live());
        let numbered = live.flat_map(|t| {
            let at = move |partition| TopicPartition { topic: t.id, partition };
            (0u32..).zip(t.partitions.iter()).map(move |(n, p)| (at(n), p.clone()))
        });
        numbered.filter(|(at, p)| !self.is_for_operators(*at, p)).collect()
    }

    /// Damage struck the only copy of a topic that does not sync, whose disks nobody spares: its leader serves what can be
    /// read, its followers cannot pass that place, and an operator must say what is to be lost.
    fn is_for_operators(&self, at: TopicPartition, p: &Partition) -> bool {
        let topic = self.quorum.image.topics.get(at.topic);
        let spared = topic.is_some_and(|t| self.plan.topics.iter().any(|plan| plan.name == t.name && plan.is_sync));
        let alone = p.leader.filter(|leader| p.isr == [*leader]);
        let process = alone.and_then(|leader| self.nodes.get(&leader)).and_then(|n| n.process.as_ref());
        !spared && process.is_some_and(|process| process.is_damaged(at))
    }

    /// Everybody is back, every partition is led and fully in sync, and nothing is on its way.
    pub(super) fn is_settled(&self) -> bool {
        let image = &self.quorum.image;
        let active = image.brokers.iter().filter(|b| b.is_active()).count();
        let level = |(at, p): &(TopicPartition, Partition)| {
            let process = |b: &BrokerId| self.nodes.get(b).and_then(|n| n.process.as_ref());
            let mut ends = p.replicas.iter().map(|b| process(b).and_then(|p| p.ends(*at)));
            let Some(Some(first)) = ends.next() else { return false };
            first.0 == first.1 && ends.all(|e| e == Some(first))
        };
        let there = self.plan.topics.iter().all(|t| image.topics.by_name(&t.name).is_some());
        if active != self.nodes.len() || !there {
            return false;
        }
        let partitions = self.partitions();
        partitions.iter().all(|(_, p)| p.leader.is_some() && p.isr.len() == p.replicas.len())
            && partitions.iter().all(level)
    }

    fn unsettled(&self) -> String {
        let partitions = self.partitions();
        let states: Vec<_> = partitions
            .iter()
            .map(|(at, p)| format!("{at}: leader {:?} isr {:?} elr {:?} of {:?}", p.leader, p.isr, p.elr, p.replicas))
            .collect();
        let brokers = self.quorum.image.brokers.iter();
        let brokers: Vec<_> = brokers
            .map(|b| {
                let stands = self.nodes.get(&b.id).and_then(|n| n.process.as_ref()).map(Process::stands);
                let why = if b.is_fenced() { self.quorum.why_fenced(b, self.now) } else { String::new() };
                format!("{} {:?} proved {}, its process {stands:?} {why}", b.id, b.state, b.proved)
            })
            .collect();
        let processes = self.nodes.values().filter_map(|n| n.process.as_ref());
        let replicas: Vec<_> = processes.flat_map(|p| p.describe(self.now)).collect();
        let (states, replicas) = (states.join("\n  "), replicas.join("\n  "));
        format!("not healed after {} ms: {brokers:?}\n  {states}\n  {replicas}", self.plan.heal_ms)
    }

    /// Nothing protected the last copy: a partition that is led has everything that was acknowledged, one that is not
    /// is known to be lost, and what cannot be read says so.
    fn judge_hopeless(&mut self) -> Result<(), String> {
        for (at, partition) in &self.partitions() {
            let Some(leader) = partition.leader else {
                self.laws.tally.sometimes(super::sometimes::Sometimes::LostAndKnown);
                continue;
            };
            let Some(process) = self.nodes.get(&leader).and_then(|n| n.process.as_ref()) else { continue };
            let Some(found) = process.partition(*at) else { continue };
            let start = found.log().start_offset();
            match process.contents(*at) {
                Err(text) if text.contains("damage") => {
                    self.laws.tally.sometimes(super::sometimes::Sometimes::LostAndKnown);
                }
                contents => self.laws.settled(*at, start, &[(leader, contents?)])?,
            }
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), String> {
        if !self.is_settled() {
            return Err(Law::EverythingHeals.broken(self.unsettled()));
        }
        for (at, partition) in &self.partitions() {
            let (mut replicas, mut start) = (Vec::new(), 0);
            for id in &partition.replicas {
                let node = self.nodes.get(id);
                let process = node.and_then(|n| n.process.as_ref());
                let process = process.ok_or_else(|| format!("broker {id} does not run"))?;
                start = start.max(process.partition(*at).map_or(0, |p| p.log().start_offset()));
                match process.contents(*at) {
                    // Damage that was planted here and that nobody has read yet: seen, and never served.
                    Err(text) if node.is_some_and(|n| n.tainted) && text.contains("damage") => {}
                    contents => replicas.push((*id, contents?)),
                }
            }
            for (_, contents) in &mut replicas {
                *contents = contents.split_off(&start);
            }
            self.laws.settled(*at, start, &replicas)?;
        }
        for node in self.nodes.values() {
            self.laws.tally.truncations += node.process.as_ref().map_or(0, Process::truncations);
            let Some(image) = node.process.as_ref().map(|p| &p.image) else { continue };
            self.laws.meets_the_unknown(node.id, image)?;
            let level = image.batch_no == self.quorum.image.batch_no;
            if level && *image != self.quorum.image {
                let what = format!("broker {} has another image than the controllers", node.id);
                return Err(Law::ImageIsTheFold.broken(what));
            }
        }
        Ok(())
    }
}
