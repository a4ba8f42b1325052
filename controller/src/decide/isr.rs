//! ISR changes proposed by leaders (KIP-497, KIP-903): each partition is compare-and-set on (leader epoch, partition
//! epoch) and checked in one fixed order, so that a late, repeated or reordered proposal can never bring an old
//! member back. Never chooses members itself; growth and shrink are the leader's judgement, eligibility ours.

use super::command::{AlterPartition, AlterPartitions, AlterResult, Reply};
use super::election::{Electorate, live};
use super::limits::ALTERATIONS_MAX;
use super::work::push_changes;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};
use protocol::metadata::draft::Draft;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::PartitionChange;
use protocol::metadata::topics::Partition;
use protocol::planted::{self, Bug};
use std::collections::BTreeSet;

/// Decides every proposal by itself; a refused one does not stop the others. A partition named twice is decided twice,
/// and the second loses by its partition epoch.
pub(super) fn alter(draft: &mut Draft<MetadataImage>, command: &AlterPartitions) -> Result<Reply, ApiError> {
    super::brokers::current(draft.state(), command.broker, command.epoch)?;
    if command.partitions.len() > ALTERATIONS_MAX {
        let count = command.partitions.len();
        return Err(ApiError::bad(
            ErrorCode::InvalidRequest,
            "partitions",
            count,
            format!("at most {ALTERATIONS_MAX}"),
        ));
    }
    let results = command.partitions.iter().map(|proposal| {
        let error = match propose(draft.state(), command.broker, proposal) {
            Ok(change) => {
                push_changes(draft, vec![(proposal.at, change)]);
                None
            }
            Err(code) => Some(code),
        };
        result(draft.state(), proposal, error)
    });
    let results = results.collect();
    Ok(Reply::Altered(results))
}

/// The checks, in the order of FEATURES.md section 1.2. The first that fails is the answer.
fn propose(image: &MetadataImage, asker: BrokerId, proposal: &AlterPartition) -> Result<PartitionChange, ErrorCode> {
    if image.topics.get(proposal.at.topic).is_none_or(|t| !t.is_live()) {
        return Err(ErrorCode::UnknownTopic);
    }
    let (topic, old) = live(image, proposal.at).ok_or(ErrorCode::UnknownPartition)?;
    if proposal.leader_epoch > old.leader_epoch || proposal.partition_epoch > old.partition_epoch {
        return Err(ErrorCode::NotController);
    }
    if proposal.leader_epoch < old.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if old.leader != Some(asker) {
        return Err(ErrorCode::InvalidRequest);
    }
    if proposal.partition_epoch < old.partition_epoch {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    if !well_formed(old, asker, &proposal.isr) {
        return Err(ErrorCode::InvalidRequest);
    }
    if !proposal.isr.iter().all(|(broker, epoch)| eligible(image, *broker, *epoch)) {
        return Err(ErrorCode::IneligibleReplica);
    }
    let isr = proposal.isr.iter().map(|(broker, _)| *broker).collect();
    Ok(Electorate::new(image, topic, &BTreeSet::new()).adopt(proposal.at.partition, old, isr))
}

/// Distinct replicas that are no observers, the leader among them.
fn well_formed(old: &Partition, leader: BrokerId, isr: &[(BrokerId, BrokerEpoch)]) -> bool {
    let members: BTreeSet<_> = isr.iter().map(|(broker, _)| *broker).collect();
    members.len() == isr.len()
        && members.contains(&leader)
        && members.iter().all(|b| old.replicas.contains(b) && !old.observers.contains(b))
}

/// Takes part, and is the very registration the leader followed.
fn eligible(image: &MetadataImage, broker: BrokerId, epoch: BrokerEpoch) -> bool {
    let any_life = planted::is(Bug::AlterWithoutBrokerEpoch);
    image.brokers.get(broker).is_some_and(|b| b.is_active() && (any_life || b.epoch == epoch))
}

fn result(image: &MetadataImage, proposal: &AlterPartition, error: Option<ErrorCode>) -> AlterResult {
    let state = live(image, proposal.at).map(|(_, partition)| partition);
    AlterResult {
        at: proposal.at,
        error,
        leader: state.and_then(|p| p.leader),
        leader_epoch: state.map_or(LeaderEpoch(0), |p| p.leader_epoch),
        partition_epoch: state.map_or(PartitionEpoch(0), |p| p.partition_epoch),
        isr: state.map_or_else(Vec::new, |p| p.isr.clone()),
    }
}

#[cfg(test)]
mod tests;
