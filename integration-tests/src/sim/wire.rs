//! What travels between the simulated processes, and what is due in one. Data only.

use broker::lifecycle::state::HeartbeatAnswer;
use broker::partition::note::Note;
use broker::partition::outside::Life;
use broker::replica::Input;
use broker::replica::effect::LogEndReport;
use broker::replica::input::{Acks, IsrOutcome, SubscriptionId};
use broker::replica::read::FetchQuery;
use bytes::Bytes;
use controller::decide::command::{AlterPartitions, Command, Heartbeat, Registered};
use protocol::error::ErrorCode;
use protocol::ids::{BatchNo, BrokerEpoch, BrokerId, LeaderEpoch, Millis, TopicPartition};
use protocol::rpc::pb::metadata::v1::FeedItem;
use std::collections::VecDeque;

/// One attempt to change one ISR, so that every attempt gets exactly one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) life: Life,
    pub(super) number: u64,
}

/// What an application asks of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Produce { acks: Acks, epoch: Option<LeaderEpoch>, values: Vec<u64>, patience: Millis },
    Read { query: FetchQuery, max_bytes: usize },
    Offset { latest: bool, epoch: Option<LeaderEpoch> },
    Delete { before: Option<u64>, patience: Millis },
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Written {
        base: u64,
    },
    /// (offset, value), and the epoch of the last batch.
    Records(Vec<(u64, u64)>, Option<LeaderEpoch>),
    Diverged(u64),
    Offset(u64),
    Refused(ErrorCode),
}

/// To one life of one broker.
#[derive(Debug)]
pub(super) enum ToBroker {
    Wake,
    Registered(Result<Registered, ErrorCode>),
    /// Where the active controller stands, asked before a registration.
    ActiveStands(BatchNo),
    ProofTaken(Result<(), ErrorCode>),
    Answer(HeartbeatAnswer),
    /// An item of the metadata feed.
    Feed {
        stream: u64,
        item: FeedItem,
    },
    /// The feed's stream is gone, for this reason.
    FeedBroke(u64, #[expect(dead_code, reason = "read in the trace")] &'static str),
    /// An input for a partition, with the bytes it brings. `link` is the generation of the stream it came on.
    Partition {
        at: TopicPartition,
        input: Box<Input>,
        hand: VecDeque<Bytes>,
        link: Option<(BrokerId, BrokerId, u64)>,
    },
    IsrResult {
        attempt: Attempt,
        outcome: IsrOutcome,
    },
    RunFlush(u64),
    /// A flush that is done is heard of.
    HearFlush(u64),
    Noted(Life, Note),
    Ask {
        op: u64,
        at: TopicPartition,
        ask: Ask,
    },
    /// An answer that was made leaves.
    Leave(u64),
    /// A signal: stop cleanly.
    Stop,
}

/// Who waits for a command's answer.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    Nobody,
    Register(BrokerId, u64),
    Proof(BrokerId, u64),
    Alter(BrokerId, u64, Vec<Attempt>),
}

/// To the controllers.
#[derive(Debug)]
pub(super) enum ToController {
    Command(Box<Command>, Origin),
    Heartbeat { to: usize, life: u64, seq: u64, heartbeat: Heartbeat },
    StreamReset { to: usize, broker: BrokerId, stream: u64 },
}

/// What is due at a moment.
#[derive(Debug)]
pub(super) enum Event {
    Broker {
        id: BrokerId,
        life: u64,
        message: ToBroker,
    },
    Controller(ToController),
    /// The active controller's turn, the model's commits and failovers.
    Quorum,
    /// A producer, consumer or operator does the next thing.
    Client(usize),
    /// A client hears the answer to an operation, or that none came.
    Heard {
        client: usize,
        op: u64,
        answer: Option<Answer>,
    },
    Operator,
    /// A fault, if faults are on.
    Nemesis,
    /// A dead broker starts.
    Start(BrokerId),
    /// A fault that was aimed strikes now: a broker dies, or its machine loses power.
    Strike {
        id: BrokerId,
        power: bool,
    },
    /// A broker asks a controller for its feed.
    FeedOpen {
        id: BrokerId,
        life: u64,
        stream: u64,
    },
    /// A controller looks whether a follower of its feed lacks something.
    FeedServe {
        id: BrokerId,
        life: u64,
        stream: u64,
    },
    /// A broker that wants to register looks whether its image is as new as the controllers' was.
    CatchUp {
        id: BrokerId,
        life: u64,
        goal: BatchNo,
        until: Millis,
    },
    /// A stream broke: both ends learn of it.
    LinkBroke {
        follower: BrokerId,
        leader: BrokerId,
        generation: u64,
    },
    /// The subscription that a follower sent into a broken stream is lost.
    Lost {
        id: BrokerId,
        life: u64,
        at: TopicPartition,
        subscription: SubscriptionId,
    },
    /// The leader of a stream that broke notices it.
    Noticed {
        follower: BrokerId,
        leader: BrokerId,
        life: u64,
        at: TopicPartition,
        subscription: SubscriptionId,
    },
    /// A disk has room again, or is fast again.
    DiskWell(BrokerId),
}

/// What a process asks of the world after a turn.
#[derive(Debug)]
pub(super) enum Wish {
    Register,
    Prove,
    Heartbeat(broker::lifecycle::state::Heartbeat),
    Alter(AlterPartitions, Vec<Attempt>),
    Report(BrokerEpoch, Vec<(TopicPartition, LogEndReport)>),
    Follow,
    FollowLater,
    Stopped { released: bool },
    Dead(String),
}

impl ToBroker {
    fn kind(&self) -> u64 {
        match self {
            Self::Wake => 1,
            Self::Registered(_) | Self::ActiveStands(_) => 2,
            Self::ProofTaken(_) => 3,
            Self::Answer(_) => 4,
            Self::Feed { .. } => 5,
            Self::Partition { .. } => 6,
            Self::IsrResult { .. } => 7,
            Self::RunFlush(_) => 8,
            Self::Noted(..) => 9,
            Self::Ask { .. } => 10,
            Self::FeedBroke(..) => 11,
            Self::Leave(_) => 12,
            Self::Stop => 13,
            Self::HearFlush(_) => 14,
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Wake | Self::Answer(_) => None,
            Self::Partition { at, input, hand, link } => {
                let from = link.map_or_else(String::new, |(f, l, g)| format!(" on stream {g} of b{f} to b{l}"));
                Some(format!("{}/{}: {input:?}, {} batches{from}", short(at), at.partition, hand.len()))
            }
            Self::Feed { stream, item } => {
                use protocol::rpc::pb::metadata::v1::feed_item::Item;
                let what = match &item.item {
                    Some(Item::Batch(batch)) => format!("batch {}", batch.batch_no),
                    Some(Item::Snapshot(chunk)) => format!("part of a snapshot of batch {}", chunk.batch_no),
                    Some(Item::Position(at)) => format!("position {}", at.batch_no),
                    None => "nothing".into(),
                };
                Some(format!("feed {stream}: {what}"))
            }
            other => Some(format!("{other:?}")),
        }
    }
}

/// Enough of a topic's id to tell it from the others of a run.
fn short(at: &TopicPartition) -> String {
    at.topic.0.to_string().chars().take(8).collect()
}

impl Event {
    /// A number for what it is, and whom it concerns.
    pub(super) fn kind(&self) -> (u64, Option<BrokerId>) {
        match self {
            Self::Broker { id, message, .. } => (message.kind(), Some(*id)),
            Self::Controller(ToController::Command(..)) => (20, None),
            Self::Controller(ToController::Heartbeat { heartbeat, .. }) => (21, Some(heartbeat.broker)),
            Self::Controller(ToController::StreamReset { broker, .. }) => (22, Some(*broker)),
            Self::Quorum => (23, None),
            Self::Client(_) => (24, None),
            Self::Nemesis => (25, None),
            Self::Start(id) => (26, Some(*id)),
            Self::LinkBroke { follower, .. } => (27, Some(*follower)),
            Self::Lost { id, .. } => (28, Some(*id)),
            Self::Heard { .. } => (29, None),
            Self::Operator => (30, None),
            Self::FeedOpen { id, .. } => (31, Some(*id)),
            Self::FeedServe { id, .. } => (32, Some(*id)),
            Self::CatchUp { id, .. } => (33, Some(*id)),
            Self::DiskWell(id) => (34, Some(*id)),
            Self::Strike { id, .. } => (35, Some(*id)),
            Self::Noticed { leader, .. } => (36, Some(*leader)),
        }
    }

    /// In words, unless it is of the kind that happens all the time.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Broker { message, .. } => message.text(),
            Self::Controller(ToController::Command(command, origin)) => {
                Some(format!("asked by {origin:?}: {command:?}"))
            }
            Self::Controller(ToController::Heartbeat { .. })
            | Self::Quorum
            | Self::Client(_)
            | Self::Operator
            | Self::FeedServe { .. }
            | Self::CatchUp { .. }
            | Self::Nemesis => None,
            other => Some(format!("{other:?}")),
        }
    }
}
