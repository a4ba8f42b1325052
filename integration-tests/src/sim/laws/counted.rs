//! Whom a leader counts, against what they really hold: as its high watermark rises, and as it asks for the ISR to grow.
//!
//! Owns: where each leader epoch began. Never: knows what positions a leader has noted; it opens the members' logs.
//! Of a member that lives under another registration than the one counted nothing is said.

use super::law::{Law, holds};
use crate::sim::node::Node;
use crate::sim::process::Process;
use crate::sim::told::Who;
use broker::replica::RoleName;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, TopicPartition};
use protocol::metadata::configs::FlushPolicy;
use std::collections::BTreeMap;

type Nodes = BTreeMap<BrokerId, Node>;

/// An ISR that a leader has just asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) who: Who,
    pub(super) at: TopicPartition,
    pub(super) isr: Vec<(BrokerId, BrokerEpoch)>,
}

#[derive(Debug, Default)]
pub(super) struct Counted {
    /// End of the leader's log when it began to lead in the epoch.
    begun: BTreeMap<(TopicPartition, LeaderEpoch), u64>,
    /// Leaders whose high watermark has just risen.
    pub(super) risen: Vec<(Who, TopicPartition)>,
    pub(super) wanted: Vec<Wanted>,
}

/// What a member has: log end and durable end. None: nothing can be said of it.
fn ends(nodes: &Nodes, id: BrokerId, epoch: BrokerEpoch, at: TopicPartition) -> Option<(u64, u64, &Process)> {
    let process = nodes.get(&id)?.process.as_ref().filter(|p| p.epoch() == Some(epoch))?;
    let log = process.log_of(at)?;
    Some((log.end_offset(), log.durable_end(), process))
}

fn leader(nodes: &Nodes, who: Who) -> Option<&Process> {
    nodes.get(&who.id)?.process.as_ref().filter(|p| p.who() == who)
}

impl Counted {
    /// A replica leads, and its log ends there.
    pub(super) fn leads(&mut self, at: TopicPartition, epoch: LeaderEpoch, end: u64) {
        self.begun.entry((at, epoch)).or_insert(end);
    }

    /// High watermarks that rose in the last turn.
    pub(super) fn judge_risen(&mut self, nodes: &Nodes) -> Result<(), String> {
        for (who, at) in std::mem::take(&mut self.risen) {
            let Some(process) = leader(nodes, who) else { continue };
            let Some((partition, place)) = process.partition(at).zip(process.image.topics.partition(at)) else {
                continue;
            };
            let needed = partition.replica().high_watermark();
            let strict = process.image.topic_config(at.topic).flush_policy == FlushPolicy::Sync;
            for id in &place.isr {
                let Some(epoch) = process.image.brokers.get(*id).map(|b| b.epoch) else { continue };
                let Some((end, durable, _)) = ends(nodes, *id, epoch, at) else { continue };
                let what = || {
                    let leader = who.id;
                    format!("{at}: broker {leader} commits {needed}, member {id} has {end}, durably {durable}")
                };
                holds(Law::WatermarkIsHeld, end >= needed && (!strict || durable >= needed), what)?;
            }
        }
        Ok(())
    }

    /// ISRs that were asked for in the last turn.
    pub(super) fn judge_wanted(&mut self, nodes: &Nodes) -> Result<(), String> {
        for Wanted { who, at, isr } in std::mem::take(&mut self.wanted) {
            let Some(process) = leader(nodes, who) else { continue };
            let Some((partition, place)) = process.partition(at).zip(process.image.topics.partition(at)) else {
                continue;
            };
            let RoleName::Leader(leads) = partition.replica().role() else { continue };
            let begun = self.begun.get(&(at, leads)).copied().unwrap_or_default();
            let needed = partition.replica().high_watermark().max(begun);
            let strict = process.image.topic_config(at.topic).flush_policy == FlushPolicy::Sync;
            for (id, epoch) in isr.iter().filter(|(id, _)| !place.isr.contains(id)) {
                let Some((end, durable, member)) = ends(nodes, *id, *epoch, at) else { continue };
                // Who follows another leader by now may have cut what was never committed.
                if member.image.topics.partition(at).is_none_or(|p| p.leader_epoch != leads) {
                    continue;
                }
                let what = || {
                    let leader = who.id;
                    format!("{at}: broker {leader} asks for {id} at {needed}, who has {end}, durably {durable}")
                };
                holds(Law::GrowthIsEarned, end >= needed && (!strict || durable >= needed), what)?;
            }
        }
        Ok(())
    }
}
