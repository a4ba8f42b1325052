//! Looks at each committed batch for the rare things that must happen in some run.

use super::laws::Laws;
use super::sometimes::Sometimes;
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::brokers::BrokerState;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;

/// Counts what this batch shows.
pub(super) fn watch(before: &MetadataImage, after: &MetadataImage, batch: &MetadataBatch, laws: &mut Laws) {
    let tally = &mut laws.tally;
    for fact in &batch.facts {
        match fact {
            Fact::UncleanElection(_) => tally.sometimes(Sometimes::UncleanElection),
            Fact::TopicDeleted(_) => tally.sometimes(Sometimes::TopicDeleted),
            Fact::ConfigSet(_) => tally.sometimes(Sometimes::ConfigsAltered),
            _ => {}
        }
    }
    for broker in after.brokers.iter() {
        let was = before.brokers.get(broker.id).map(|b| b.state);
        if was == Some(BrokerState::Active) && broker.state == BrokerState::Fenced {
            tally.sometimes(Sometimes::BrokerFenced);
        }
    }
    for topic in after.topics.iter() {
        let Some(old) = before.topics.get(topic.id) else { continue };
        let config = after.topic_config(topic.id);
        if old.partitions.iter().count() < topic.partitions.iter().count() {
            tally.sometimes(Sometimes::PartitionsAdded);
        }
        for (was, is) in old.partitions.iter().zip(topic.partitions.iter()) {
            if was == is {
                continue;
            }
            let elected = is.leader.filter(|_| is.leader_epoch > was.leader_epoch);
            if elected.is_some_and(|leader| was.elr.contains(&leader)) {
                tally.sometimes(Sometimes::ElrMemberElected);
            }
            if is.leader.is_none() && was.leader.is_some() {
                tally.sometimes(Sometimes::Leaderless);
            }
            if is.isr.len() > was.isr.len() {
                tally.sometimes(Sometimes::IsrGrew);
            } else if is.isr.len() < was.isr.len() {
                tally.sometimes(Sometimes::IsrShrank);
            }
            let rule = (config.min_insync_replicas as usize).min(is.replicas.len());
            if is.isr.len() < rule && was.isr.len() >= rule {
                tally.sometimes(Sometimes::IsrBelowMinimum);
            }
        }
    }
}
