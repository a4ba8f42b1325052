//! From shards to the active controller: ISR changes and the log ends of leaderless partitions, collected into few requests.
//!
//! Owns: the two queues and the tasks that empty them. Never: judges a proposal.
//! Invariant: every ISR change gets exactly one result, "unknown" included, so that no replica waits for ever; at most one
//! change per partition is under way because a replica has one at a time.

use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, PartitionEpoch, TopicPartition};
use protocol::rpc::channel::lifecycle_client;
use protocol::rpc::convert::{cluster_ref, topic_id, topic_id_bytes};
use protocol::rpc::pb::lifecycle::v1 as wire;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

use crate::limits;
use crate::link::{CallOptions, Controllers, Repeat};
use crate::metadata::follower::Images;
use crate::partition::outside::IsrProposal;
use crate::replica::effect::LogEndReport;
use crate::replica::input::IsrOutcome;
use crate::shard::ShardSender;
use crate::shard::message::Control;

type Proposal = (IsrProposal, ShardSender);
type Report = (TopicPartition, LogEndReport);

/// The shards' end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControllerQueue {
    proposals: mpsc::UnboundedSender<Proposal>,
    reports: mpsc::UnboundedSender<Report>,
}

impl ControllerQueue {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Self, ControllerQueueEnd) {
        let (proposals, proposals_end) = mpsc::unbounded_channel();
        let (reports, reports_end) = mpsc::unbounded_channel();
        (Self { proposals, reports }, ControllerQueueEnd { proposals: proposals_end, reports: reports_end })
    }

    /// Asks for a change; the result comes to the shard. Bounded by the number of partitions.
    pub fn alter(&self, proposal: IsrProposal, shard: &ShardSender) {
        if let Err(mpsc::error::SendError((proposal, shard))) = self.proposals.send((proposal, shard.clone())) {
            let (life, attempt) = (proposal.life, proposal.attempt);
            shard.control(Control::Isr { life, attempt, outcome: IsrOutcome::Unknown });
        }
    }

    /// Tells what a replica of a leaderless partition has; not answered, told again when the controller changes.
    pub fn report(&self, at: TopicPartition, report: LogEndReport) {
        self.reports.send((at, report)).ok();
    }
}

/// The sending tasks' end.
#[derive(Debug)]
pub struct ControllerQueueEnd {
    proposals: mpsc::UnboundedReceiver<Proposal>,
    reports: mpsc::UnboundedReceiver<Report>,
}

/// Empties the queues.
#[derive(Debug, Clone)]
pub struct ControllerSender {
    /// This broker.
    pub me: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Where the cluster's identity is read.
    pub images: Arc<Images>,
    /// Whom to ask.
    pub controllers: Controllers,
}

impl ControllerSender {
    /// Runs both senders until every shard has gone.
    pub async fn run(self, end: ControllerQueueEnd) {
        tokio::join!(self.run_proposals(end.proposals), self.run_reports(end.reports));
    }

    async fn run_proposals(&self, mut queue: mpsc::UnboundedReceiver<Proposal>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, limits::ISR_CHANGES_PER_REQUEST).await > 0 {
            let request = self.alter_request(&batch);
            let deadline = Duration::from_millis(limits::ISR_DEADLINE_MS);
            // Never repeated behind the replica's back: after an attempt without an answer, the refusal of a second one is
            // not definite for the first, and a replica that took its proposal back would count too few members.
            let options = CallOptions::command(Repeat::OnlyIfRefused, deadline);
            let answer = self
                .controllers
                .call(options, |channel| {
                    let (mut client, request) = (lifecycle_client(channel), request.clone());
                    async move { client.alter_partitions(request).await }
                })
                .await;
            let outcomes = match answer {
                Ok(response) => outcomes(&response),
                Err(error) => {
                    tracing::info!(%error, changes = batch.len(), "ISR changes got no answer");
                    BTreeMap::new()
                }
            };
            for (proposal, shard) in batch.drain(..) {
                let outcome = outcomes.get(&proposal.life.at).copied().unwrap_or(IsrOutcome::Unknown);
                shard.control(Control::Isr { life: proposal.life, attempt: proposal.attempt, outcome });
            }
        }
    }

    fn cluster(&self) -> protocol::rpc::pb::common::v1::ClusterRef {
        let image = self.images.load();
        cluster_ref(image.cluster.cluster_id, image.cluster.incarnation)
    }

    fn alter_request(&self, batch: &[Proposal]) -> wire::AlterPartitionsRequest {
        let partitions = batch.iter().map(|(proposal, _)| wire::AlterPartition {
            topic_id: topic_id_bytes(proposal.life.at.topic),
            partition: proposal.life.at.partition,
            leader_epoch: proposal.leader_epoch.0,
            partition_epoch: proposal.partition_epoch.0,
            new_isr: proposal
                .new_isr
                .iter()
                .map(|(broker, epoch)| wire::IsrMember { broker_id: broker.0, broker_epoch: epoch.0 })
                .collect(),
        });
        wire::AlterPartitionsRequest {
            cluster: Some(self.cluster()),
            broker_id: self.me.0,
            broker_epoch: self.epoch.0,
            partitions: partitions.collect(),
        }
    }

    async fn run_reports(&self, mut queue: mpsc::UnboundedReceiver<Report>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, limits::REPORTS_PER_REQUEST).await > 0 {
            // The newest report of a partition stands for the earlier ones.
            let newest: BTreeMap<TopicPartition, LogEndReport> = batch.drain(..).collect();
            let request = wire::ReportLogEndsRequest {
                cluster: Some(self.cluster()),
                broker_id: self.me.0,
                broker_epoch: self.epoch.0,
                ends: newest.iter().map(|(at, report)| wire_report(*at, report)).collect(),
            };
            let options = CallOptions::command(Repeat::Harmless, Duration::from_millis(limits::REPORT_DEADLINE_MS));
            let answer = self
                .controllers
                .call(options, |channel| {
                    let (mut client, request) = (lifecycle_client(channel), request.clone());
                    async move { client.report_log_ends(request).await }
                })
                .await;
            if let Err(error) = answer {
                tracing::info!(%error, partitions = newest.len(), "log ends of leaderless partitions were not taken");
            }
        }
    }
}

fn wire_report(at: TopicPartition, report: &LogEndReport) -> wire::LogEnd {
    wire::LogEnd {
        topic_id: topic_id_bytes(at.topic),
        partition: at.partition,
        leader_epoch: report.leader_epoch.0,
        last_epoch: report.last_epoch.map_or(0, |e| e.0),
        log_end: report.log_end,
        log_start: report.log_start,
        damaged: report.damaged,
    }
}

fn outcomes(response: &wire::AlterPartitionsResponse) -> BTreeMap<TopicPartition, IsrOutcome> {
    let outcome = |result: &wire::AlterPartitionResult| match result.error_code {
        0 => IsrOutcome::Committed(PartitionEpoch(result.partition_epoch)),
        code => IsrOutcome::Refused(ErrorCode::from_wire(code)),
    };
    let results = response.results.iter();
    results
        .filter_map(|result| {
            let at = TopicPartition { topic: topic_id(&result.topic_id).ok()?, partition: result.partition };
            Some((at, outcome(result)))
        })
        .collect()
}
