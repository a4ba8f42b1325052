//! From shards to the active controller: ISR changes and the log ends of leaderless partitions, collected into few requests.
//!
//! Owns: the two queues and the tasks that empty them. Never: judges a proposal, or keeps more than one report per partition.
//! Invariant: every ISR change gets exactly one result, "unknown" included, so that no replica waits for ever; at most one
//! change per partition is under way because a replica has one at a time.

use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, PartitionEpoch, TopicPartition};
use protocol::rpc::channel::lifecycle_client;
use protocol::rpc::convert::{cluster_ref, topic_id, topic_id_bytes};
use protocol::rpc::pb::lifecycle::v1 as wire;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::pin::pin;
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

    /// Tells what a replica of a leaderless partition has; not answered, told again every so often and when the controller
    /// changes. Taken from the queue at once, whether a controller answers or not.
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

#[cfg(test)]
impl ControllerQueueEnd {
    /// The reports that wait to be sent.
    pub(crate) fn reported(&mut self) -> Vec<Report> {
        std::iter::from_fn(|| self.reports.try_recv().ok()).collect()
    }
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
        send_reports(&mut queue, |reports| self.report(reports)).await;
    }

    async fn report(&self, reports: Vec<Report>) {
        let request = wire::ReportLogEndsRequest {
            cluster: Some(self.cluster()),
            broker_id: self.me.0,
            broker_epoch: self.epoch.0,
            ends: reports.iter().map(|(at, report)| wire_report(*at, report)).collect(),
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
            tracing::info!(%error, partitions = reports.len(), "log ends of leaderless partitions were not taken");
        }
    }
}

/// Sends reports until the queue has ended and is empty. Meanwhile the queue is emptied too, so that a controller that
/// does not answer makes nothing pile up: what waits is at most one report of each partition.
async fn send_reports<F>(queue: &mut mpsc::UnboundedReceiver<Report>, send: impl Fn(Vec<Report>) -> F)
where
    F: Future<Output = ()>,
{
    let (mut waiting, mut come) = (Waiting::default(), Vec::new());
    loop {
        let reports = waiting.piece(limits::REPORTS_PER_REQUEST);
        if reports.is_empty() {
            if queue.recv_many(&mut come, limits::REPORTS_PER_REQUEST).await == 0 {
                return;
            }
            waiting.fold(&mut come);
            continue;
        }
        let mut sending = pin!(send(reports));
        let mut open = true;
        loop {
            tokio::select! {
                () = &mut sending => break,
                count = queue.recv_many(&mut come, limits::REPORTS_PER_REQUEST), if open => open = count > 0,
            }
            waiting.fold(&mut come);
        }
    }
}

/// Reports that were not sent yet, the newest of each partition.
#[derive(Debug, Default)]
struct Waiting {
    newest: BTreeMap<TopicPartition, LogEndReport>,
    /// The last one sent: the next piece begins after it, so that every partition has its turn however often others report.
    sent: Option<TopicPartition>,
}

impl Waiting {
    fn fold(&mut self, come: &mut Vec<Report>) {
        self.newest.extend(come.drain(..));
    }

    /// Takes at most `count` of them.
    fn piece(&mut self, count: usize) -> Vec<Report> {
        let after = self.sent.map_or(Unbounded, Excluded);
        let mut piece: Vec<_> = self.newest.range((after, Unbounded)).take(count).map(|(at, _)| *at).collect();
        if piece.is_empty() {
            piece = self.newest.keys().take(count).copied().collect();
        }
        self.sent = piece.last().copied();
        piece.into_iter().filter_map(|at| self.newest.remove_entry(&at)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::{LeaderEpoch, TopicId};
    use std::cell::RefCell;
    use uuid::Uuid;

    fn at(partition: u32) -> TopicPartition {
        TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition }
    }

    fn report(log_end: u64) -> LogEndReport {
        LogEndReport { leader_epoch: LeaderEpoch(1), last_epoch: None, log_end, log_start: 0, damaged: false }
    }

    /// Partitions of the pieces that were sent, and the log ends in them.
    type Pieces = RefCell<Vec<Vec<(u32, u64)>>>;

    fn noted(reports: &[Report]) -> Vec<(u32, u64)> {
        reports.iter().map(|(at, report)| (at.partition, report.log_end)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn reports_do_not_pile_up_while_a_controller_does_not_answer() {
        let (shards, mut end) = ControllerQueue::new();
        let pieces = Pieces::default();
        let controller = |reports: Vec<Report>| {
            pieces.borrow_mut().push(noted(&reports));
            std::future::pending()
        };
        shards.report(at(0), report(0));
        {
            let mut sending = pin!(send_reports(&mut end.reports, controller));
            // Time goes on only when there is nothing left to do.
            let idle = Duration::from_secs(3_600);
            assert!(tokio::time::timeout(idle, &mut sending).await.is_err());
            assert_eq!(*pieces.borrow(), [[(0, 0)]]);
            for round in 1..=3 * limits::REPORTS_PER_REQUEST as u64 {
                shards.report(at(1), report(round));
                shards.report(at(0), report(round));
            }
            assert!(tokio::time::timeout(idle, &mut sending).await.is_err());
        }
        assert!(end.reports.is_empty(), "all was taken from the queue");
        assert_eq!(pieces.borrow().len(), 1, "the first is not answered yet");
    }

    #[tokio::test(start_paused = true)]
    async fn once_it_answers_it_hears_the_newest_of_each_partition_once() {
        let (shards, mut end) = ControllerQueue::new();
        let pieces = Pieces::default();
        let controller = |reports: Vec<Report>| {
            pieces.borrow_mut().push(noted(&reports));
            // No answer: the call ends with its deadline.
            let deadline = Duration::from_millis(limits::REPORT_DEADLINE_MS);
            async move { drop(tokio::time::timeout(deadline, std::future::pending::<()>()).await) }
        };
        shards.report(at(7), report(0));
        let reporting = async {
            tokio::task::yield_now().await;
            for round in 1..=3 * limits::REPORTS_PER_REQUEST as u64 {
                shards.report(at(1), report(round));
                shards.report(at(0), report(round));
            }
            drop(shards);
        };
        tokio::join!(send_reports(&mut end.reports, controller), reporting);
        let last = 3 * limits::REPORTS_PER_REQUEST as u64;
        assert_eq!(*pieces.borrow(), [vec![(7, 0)], vec![(0, last), (1, last)]]);
    }

    #[test]
    fn every_partition_has_its_turn_however_often_others_report() {
        let mut waiting = Waiting::default();
        let mut turns = Vec::new();
        for round in 0..4 {
            waiting.fold(&mut (0..5).map(|partition| (at(partition), report(round))).collect());
            turns.push(noted(&waiting.piece(2)));
        }
        let expected =
            [[(0, 0), (1, 0)].to_vec(), [(2, 1), (3, 1)].to_vec(), [(4, 2)].to_vec(), [(0, 3), (1, 3)].to_vec()];
        assert_eq!(turns, expected);
    }
}
