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
    ToFollower(Subscription, ToFollower),
    Push(Subscription, PushOut),
    ToLeader(TopicPartition, BrokerId, ToLeader),
    Flush(Life, Box<FlushJob>),
    Note(Life, Note),
    Alter(IsrProposal),
    Report(TopicPartition, LogEndReport),
    Fatal(String),
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) out: Vec<Out>,
}

impl Outside for Outbox {
    fn reply(&mut self, at: TopicPartition, id: RequestId, outcome: ProduceOutcome, _: WireState) {
        self.out.push(Out::Reply(at, id, outcome));
    }

    fn delete_reply(&mut self, _: TopicPartition, _: RequestId, _: Result<u64, ErrorCode>, _: WireState) {}

    fn to_follower(&mut self, to: Subscription, message: ToFollower) {
        self.out.push(Out::ToFollower(to, message));
    }

    fn may_push(&self, _: Subscription) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        true
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

    fn moved(&mut self, _: TopicPartition, _: Option<Checkpoint>) {}

    fn fatal(&mut self, fatal: Fatal) {
        self.out.push(Out::Fatal(fatal.to_string()));
    }
}
