//! Replicas and what is promised of them, seen from outside of their cores: logs are read as anybody could read them.
//!
//! Owns: the history of each partition, how far each log was compared with it, what was acknowledged, and what a machine
//! that lost power owes. After an unclean election of a partition nothing is said of it any more.
//! Damage is planted only where other copies are: a tainted disk owes nothing until it has caught up, or until a proof
//! speaks for an empty one.

use super::commits::{Commits, satisfied};
use super::counted::{Counted, Wanted};
use super::history::History;
use super::law::{Law, holds};
use super::values::Values;
use crate::sim::node::Node;
use crate::sim::process::Process;
use crate::sim::told::Who;
use broker::partition::Partition;
use broker::replica::RoleName;
use protocol::ids::{BrokerId, TopicPartition};
use protocol::metadata::configs::FlushPolicy;
use protocol::metadata::image::MetadataImage;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// How a replica stood when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    life: u64,
    slot: u32,
    generation: u64,
    high_watermark: u64,
    start: u64,
    durable: u64,
    /// Its log was compared with history up to here.
    same: u64,
}

/// End of what was acknowledged under acks=all; and of what was while the topic said `sync`.
#[derive(Debug, Clone, Copy, Default)]
struct Acked {
    end: u64,
    synced: u64,
}

/// An acknowledgement that has just left.
#[derive(Debug, Clone)]
pub(super) struct Ack {
    pub(super) who: Who,
    pub(super) at: TopicPartition,
    pub(super) base: u64,
    pub(super) values: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Replicas {
    histories: BTreeMap<TopicPartition, History>,
    /// Largest high watermark that any replica has had, those with tainted disks included.
    committed: BTreeMap<TopicPartition, u64>,
    seen: BTreeMap<(BrokerId, TopicPartition), Seen>,
    acked: BTreeMap<TopicPartition, Acked>,
    owed: BTreeMap<BrokerId, Vec<(TopicPartition, u64)>>,
    homes: BTreeMap<BrokerId, Uuid>,
    /// What the last start of each broker found damaged or missing.
    wanting: BTreeMap<BrokerId, BTreeSet<TopicPartition>>,
    unclean: BTreeSet<TopicPartition>,
    /// What may be removed of each partition.
    allowed: BTreeMap<TopicPartition, Allowed>,
    pub(super) acks: Vec<Ack>,
    counted: Counted,
}

/// What may be removed from the head of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Allowed {
    /// Clients asked for everything below to be deleted.
    asked: u64,
    /// `retention.bytes` was set at some time.
    by_size: bool,
}

impl Replicas {
    /// Nothing more is said of a partition.
    pub(super) fn give_up(&mut self, at: TopicPartition) {
        self.unclean.insert(at);
    }

    /// Whether nothing is said of a partition any more.
    pub(super) fn is_given_up(&self, at: TopicPartition) -> bool {
        self.unclean.contains(&at)
    }

    /// A client asks for records to be deleted.
    pub(super) fn delete_asked(&mut self, at: TopicPartition, before: u64) {
        let allowed = self.allowed.entry(at).or_default();
        allowed.asked = allowed.asked.max(before);
    }

    /// Where the log of a partition may begin at most, if deletes alone say so.
    pub(super) fn allowed_start(&self, at: TopicPartition) -> Option<u64> {
        let allowed = self.allowed.get(&at).copied().unwrap_or_default();
        (!allowed.by_size && !self.is_given_up(at)).then_some(allowed.asked)
    }

    /// Everything that was ever below a high watermark, while somebody answers for it.
    pub(super) fn committed_values(&self, at: TopicPartition) -> impl Iterator<Item = (u64, u64)> + '_ {
        let history = self.histories.get(&at).filter(|_| !self.is_given_up(at));
        history.into_iter().flat_map(History::values)
    }

    /// A leader asks for an ISR.
    pub(super) fn wants(&mut self, wanted: Wanted) {
        if !self.unclean.contains(&wanted.at) {
            self.counted.wanted.push(wanted);
        }
    }

    /// Whom leaders have counted in the last turn holds what it was counted for.
    pub(super) fn judge_counts(&mut self, nodes: &BTreeMap<BrokerId, Node>) -> Result<(), String> {
        self.counted.judge_risen(nodes)?;
        self.counted.judge_wanted(nodes)
    }

    /// Settings changed: where the topic does not sync any more, a new member's copy need not be durable.
    pub(super) fn configured(&mut self, image: &MetadataImage) {
        for (at, acked) in &mut self.acked {
            if image.topic_config(at.topic).flush_policy != FlushPolicy::Sync {
                acked.synced = 0;
            }
        }
    }

    /// Which partitions have a limit of their size.
    pub(super) fn retained(&mut self, image: &MetadataImage) {
        for topic in image.topics.iter() {
            let retained = image.topic_config(topic.id).retention_bytes.is_some();
            for partition in 0..u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX) {
                let allowed = self.allowed.entry(TopicPartition { topic: topic.id, partition }).or_default();
                allowed.by_size |= retained;
            }
        }
    }

    /// What a machine owes that loses its power now.
    pub(super) fn power_fails(&mut self, id: BrokerId, commits: &Commits) {
        let Some(image) = commits.image() else { return };
        let member = |at: &TopicPartition| {
            image.topics.partition(*at).is_some_and(|p| p.isr.contains(&id) || p.elr.contains(&id))
        };
        let owes = |at: TopicPartition| Some((at, self.acked.get(&at)?.synced)).filter(|(_, synced)| *synced > 0);
        self.owed.insert(id, image.topics.places_of(id).filter(member).filter_map(owes).collect());
    }

    /// A process has recovered its disk: what it owed, and what its places call for, is there.
    pub(super) fn started(&mut self, id: BrokerId, node: &Node, commits: &Commits) -> Result<(), String> {
        let owed = self.owed.remove(&id).unwrap_or_default();
        let (Some(process), Some(image)) = (&node.process, commits.image()) else { return Ok(()) };
        let placed: BTreeSet<_> = image.topics.places_of(id).collect();
        let wanting: BTreeSet<_> = process.found_wanting().filter(|at| placed.contains(at)).collect();
        let known = self.wanting.insert(id, wanting.clone()).unwrap_or_default();
        if node.tainted {
            return Ok(());
        }
        // What was set aside stays wanting until it is begun anew. A directory that was announced and of which nothing
        // was durable yet may be gone.
        let had = |at: &&TopicPartition| self.seen.get(&(id, **at)).is_some_and(|seen| seen.durable > 0);
        let new = wanting.difference(&known).find(had);
        let what = || format!("broker {id} finds {new:?} damaged or missing on a disk that nobody hurt");
        holds(Law::SoundDisksStart, new.is_none(), what)?;
        for (at, synced) in owed {
            let lives = image.topics.get(at.topic).is_some_and(protocol::metadata::topics::Topic::is_live);
            if lives && process.is_whole(at) && !self.unclean.contains(&at) {
                self.has(at, id, process, synced, synced)?;
            }
        }
        let places: Vec<_> = image.topics.places_of(id).collect();
        places.into_iter().try_for_each(|at| self.member_holds(at, id, node, commits))
    }

    /// Looks at the partitions that a process has just touched. Returns those whose log was cut.
    pub(super) fn look(&mut self, node: &Node, values: &mut Values) -> Result<Vec<TopicPartition>, String> {
        let mut cut = Vec::new();
        let Some(process) = &node.process else { return Ok(cut) };
        if !node.tainted {
            self.homes.insert(node.id, process.directory());
        }
        for at in &process.touched {
            if let Some(partition) = process.partition(*at).filter(|_| !self.unclean.contains(at)) {
                let durable = self.seen.get(&(node.id, *at)).map_or(0, |s| s.durable);
                if self.look_at(process.who(), partition, node.tainted, values)? {
                    cut.push(*at);
                }
                survives(*at, node, process, durable)?;
            }
        }
        Ok(cut)
    }

    fn look_at(&mut self, who: Who, partition: &Partition, tainted: bool, values: &mut Values) -> Result<bool, String> {
        let (at, id, log) = (partition.at(), who.id, partition.log());
        let (high_watermark, start) = (partition.replica().high_watermark(), log.start_offset());
        let durable = log.durable_end();
        if let RoleName::Leader(epoch) = partition.replica().role() {
            self.counted.leads(at, epoch, log.end_offset());
        }
        let (slot, generation) = (partition.life().slot, log.generation());
        let before = self.seen.get(&(id, at)).copied().filter(|s| (s.life, s.slot) == (who.life, slot));
        let same = before.map_or(start, |s| s.same.min(log.end_offset()).max(start));
        let mut now = Seen { life: who.life, slot, generation, high_watermark, start, durable, same };
        if before.is_some_and(|before| before == now) {
            return Ok(false);
        }
        let history = self.histories.entry(at).or_default();
        if let Some(before) = before {
            let (from, to) = (before.high_watermark, high_watermark);
            let what = || format!("{at}: the high watermark of broker {id} went from {from} to {to}");
            // An empty log that begins anew may begin with the batch that covers where it was told to begin, when the
            // disk takes the new beginning and not the batch itself: nothing is lost that it ever had.
            let led = matches!(partition.replica().role(), RoleName::Leader(_));
            let empty = before.start == from && start == log.end_offset() && start == to;
            let anew = empty && !led && generation > before.generation && history.covers(to, from);
            holds(Law::HighWatermarkRises, to >= from || anew, what)?;
            if to > from && matches!(partition.replica().role(), RoleName::Leader(_)) {
                self.counted.risen.push((who, at));
            }
            let committed = self.committed.get(&at).copied().unwrap_or_default().max(from);
            let what = || format!("{at}: broker {id} dropped its head up to {start}, committed is {committed}");
            holds(Law::TrimsAreCommitted, start == before.start || start <= committed, what)?;
            // How large files are is for the disk to know: where retention goes by size, only what is committed is asked.
            let allowed = self.allowed.get(&at).copied().unwrap_or_default();
            if !allowed.by_size {
                let most = allowed.asked;
                let what = || format!("{at}: broker {id} dropped its head up to {start}, allowed is {most}");
                // Who begins anew begins where its leader does.
                holds(Law::TrimsAreCommitted, start <= before.start.max(most), what)?;
            }
        }
        let committed = self.committed.entry(at).or_default();
        *committed = high_watermark.max(*committed);
        if !tainted && high_watermark > same {
            let mut fresh = Vec::new();
            let compared = history.compare(log, same, high_watermark, true, &mut fresh);
            now.same = compared.map_err(|e| format!("{e}: {at} on broker {id}, below {high_watermark}"))?;
            values.committed(at, &fresh)?;
        }
        self.seen.insert((id, at), now);
        Ok(before.is_some_and(|before| before.generation != generation))
    }

    /// An acknowledgement under acks=all has left a leader.
    pub(super) fn acknowledged(
        &mut self,
        ack: &Ack,
        nodes: &BTreeMap<BrokerId, Node>,
        commits: &Commits,
        values: &mut Values,
    ) -> Result<(), String> {
        let Ack { who, at, base, .. } = *ack;
        let end = base + ack.values.len() as u64;
        let node = nodes.get(&who.id);
        let Some(process) = node.and_then(|n| n.process.as_ref()).filter(|p| p.who() == who) else { return Ok(()) };
        let Some(topic) = process.image.topics.get(at.topic).filter(|_| !self.unclean.contains(&at)) else {
            return Ok(());
        };
        let isr = topic.partition(at.partition).map_or(&[][..], |p| &p.isr);
        let what = || format!("{at}: broker {} acknowledged {base}..{end}, its image has ISR {isr:?}", who.id);
        holds(Law::AckNeedsTheRule, satisfied(&process.image, at, isr), what)?;
        if node.is_some_and(|n| !n.tainted)
            && let Some(log) = process.log_of(at)
        {
            let (mut fresh, history) = (Vec::new(), self.histories.entry(at).or_default());
            let from = self.seen.get(&(who.id, at)).map_or(log.start_offset(), |s| s.same.max(log.start_offset()));
            history.compare(log, from, end, true, &mut fresh)?;
            values.committed(at, &fresh)?;
            for (offset, value) in (base..).zip(&ack.values).filter(|(offset, _)| *offset >= log.start_offset()) {
                let found = history.value(offset);
                let what = || format!("{at}: offset {offset} was acknowledged as {value}, committed is {found:?}");
                holds(Law::OneValuePerOffset, found.is_none_or(|found| found == *value), what)?;
            }
        }
        let acked = self.acked.entry(at).or_default();
        acked.end = acked.end.max(end);
        let syncs = |image: &MetadataImage| image.topic_config(at.topic).flush_policy == FlushPolicy::Sync;
        if syncs(&process.image) && commits.image().is_some_and(syncs) {
            acked.synced = acked.synced.max(end);
        }
        let place = commits.image().and_then(|image| image.topics.partition(at));
        let members: Vec<_> = place.into_iter().flat_map(|p| p.isr.iter().chain(&p.elr).copied()).collect();
        members.into_iter().try_for_each(|m| match nodes.get(&m) {
            Some(node) => self.member_holds(at, m, node, commits),
            None => Ok(()),
        })
    }

    /// If it is a member of ISR or ELR, a broker that runs holds everything acknowledged.
    pub(super) fn member_holds(
        &mut self,
        at: TopicPartition,
        id: BrokerId,
        node: &Node,
        commits: &Commits,
    ) -> Result<(), String> {
        let (Some(image), Some(acked)) = (commits.image(), self.acked.get(&at).copied()) else { return Ok(()) };
        let member = image.topics.partition(at).is_some_and(|p| p.isr.contains(&id) || p.elr.contains(&id));
        let Some(process) = node.process.as_ref().filter(|_| member && !self.unclean.contains(&at)) else {
            return Ok(());
        };
        let registered = image.brokers.get(id).filter(|b| Some(b.epoch) == process.epoch());
        let proved = registered.is_some_and(|b| b.proved);
        let empty = self.homes.get(&id).is_some_and(|home| *home != process.directory());
        // A log that the start itself found wanting, and set aside, proves nothing.
        if (node.tainted && !(empty && proved)) || (!proved && !process.is_whole(at)) {
            return Ok(());
        }
        // What a policy left to the page cache may be gone until a proof says that it is not.
        let end = if proved { acked.end } else { acked.synced };
        self.has(at, id, process, end, acked.synced)
    }

    fn has(
        &mut self,
        at: TopicPartition,
        id: BrokerId,
        process: &Process,
        needed: u64,
        durably: u64,
    ) -> Result<(), String> {
        let log = process.log_of(at);
        let (end, durable) = log.map_or((0, 0), |log| (log.end_offset(), log.durable_end()));
        let what = || {
            format!("{at}: broker {id} counts and holds up to {end}, durably {durable}; needed: {needed}, {durably}")
        };
        holds(Law::MembersHoldTheAcked, end >= needed && durable >= durably, what)?;
        let Some(log) = log else { return Ok(()) };
        let known = self.seen.get_mut(&(id, at)).filter(|s| s.life == process.who().life);
        let from = known.as_ref().map_or(0, |s| s.same).max(log.start_offset());
        let Some(history) = self.histories.get_mut(&at).filter(|h| h.end() >= needed && from < needed) else {
            return Ok(());
        };
        let same = history.compare(log, from, needed, false, &mut Vec::new());
        let same = same.map_err(|e| format!("{e}: {at} on broker {id}, which counts"))?;
        if let Some(seen) = known {
            seen.same = seen.same.max(same);
        }
        Ok(())
    }

    /// Records left a broker.
    pub(super) fn read(&self, who: Who, at: TopicPartition, records: &[(u64, u64)]) -> Result<(), String> {
        let Some(history) = self.histories.get(&at).filter(|_| !self.unclean.contains(&at)) else { return Ok(()) };
        let end = self.committed.get(&at).copied().unwrap_or_default();
        for (offset, value) in records {
            let what = || format!("{at}: broker {} served offset {offset}, committed is {end}", who.id);
            holds(Law::ReadsAreCommitted, *offset < end, what)?;
            let found = history.value(*offset);
            let what = || format!("{at}: broker {} served {value} at {offset}, committed is {found:?}", who.id);
            holds(Law::OneValuePerOffset, found.is_none_or(|found| found == *value), what)?;
        }
        Ok(())
    }

    /// "Latest" left a broker.
    pub(super) fn latest(&self, who: Who, at: TopicPartition, offset: u64) -> Result<(), String> {
        let Some(end) = self.committed.get(&at).filter(|_| !self.unclean.contains(&at)) else { return Ok(()) };
        let what = || format!("{at}: broker {} calls {offset} the latest, committed is {end}", who.id);
        holds(Law::ReadsAreCommitted, offset <= *end, what)
    }
}

/// What a log that was cut in this life calls durable is there after a power cut that keeps nothing else. Of other logs
/// a sample is looked at.
fn survives(at: TopicPartition, node: &Node, process: &Process, before: u64) -> Result<(), String> {
    let Some(log) = process.log_of(at).filter(|_| !node.tainted) else { return Ok(()) };
    let (durable, cut) = (log.durable_end(), log.generation() > 0);
    if durable <= before || !(cut || durable % 64 == 0) {
        return Ok(());
    }
    let found = process.after_power_cut(at, &node.disk);
    let id = node.id;
    let what = || format!("{at}: broker {id} calls its log durable to {durable}; after a power cut: {found:?}");
    holds(Law::DurableSurvives, found.as_ref().is_ok_and(|end| *end >= durable), what)
}
