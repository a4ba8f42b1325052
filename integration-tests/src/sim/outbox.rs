//! What partitions want done around them, noted in order; the process carries it out after the turn.

use broker::fatal::Fatal;
use broker::partition::note::Note;
use broker::partition::outside::{IsrProposal, Life, Outside, PushOut, Subscription};
use broker::replica::Checkpoint;
use broker::replica::effect::{LogEndReport, ProduceOutcome, ToFollower, ToLeader};
use broker::replica::input::RequestId;
use broker::replica::read::WireState;
use log::FlushJob;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, TopicPartition};

#[derive(Debug)]
pub(super) enum Out {
    Reply(TopicPartition, RequestId, ProduceOutcome),
    DeleteReply(TopicPartition, RequestId, Result<u64, ErrorCode>),
    ToFollower(Subscription, ToFollower),
    Push(Subscription, PushOut),
    ToLeader(TopicPartition, BrokerId, ToLeader),
    Flush(Life, Box<FlushJob>),
    Note(Life, Note),
    Alter(IsrProposal),
    Report(TopicPartition, LogEndReport),
    Moved(TopicPartition, Checkpoint),
    Fatal(String),
}

#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) out: Vec<Out>,
    /// The disk has no room for pushed records.
    pub(super) full: bool,
    /// Streams take what they are given; else one push a turn.
    pub(super) credits: bool,
}

impl Outside for Outbox {
    fn reply(&mut self, at: TopicPartition, id: RequestId, outcome: ProduceOutcome, _: WireState) {
        self.out.push(Out::Reply(at, id, outcome));
    }

    fn delete_reply(&mut self, at: TopicPartition, id: RequestId, outcome: Result<u64, ErrorCode>, _: WireState) {
        self.out.push(Out::DeleteReply(at, id, outcome));
    }

    fn to_follower(&mut self, to: Subscription, message: ToFollower) {
        self.out.push(Out::ToFollower(to, message));
    }

    fn may_push(&self, to: Subscription) -> bool {
        self.credits || !self.out.iter().any(|out| matches!(out, Out::Push(other, _) if *other == to))
    }

    fn has_room(&self) -> bool {
        !self.full
    }

    fn push(&mut self, to: Subscription, push: PushOut) {
        self.out.push(Out::Push(to, push));
    }

    fn to_leader(&mut self, at: TopicPartition, leader: BrokerId, message: ToLeader) {
        self.out.push(Out::ToLeader(at, leader, message));
    }

    fn flush(&mut self, life: Life, job: FlushJob) {
        self.out.push(Out::Flush(life, Box::new(job)));
    }

    fn note(&mut self, life: Life, note: Note) {
        self.out.push(Out::Note(life, note));
    }

    fn alter(&mut self, proposal: IsrProposal) {
        self.out.push(Out::Alter(proposal));
    }

    fn report_log_end(&mut self, at: TopicPartition, report: LogEndReport) {
        self.out.push(Out::Report(at, report));
    }

    fn moved(&mut self, at: TopicPartition, checkpoint: Option<Checkpoint>) {
        self.out.extend(checkpoint.map(|checkpoint| Out::Moved(at, checkpoint)));
    }

    fn fatal(&mut self, fatal: Fatal) {
        self.out.push(Out::Fatal(fatal.to_string()));
    }
}
