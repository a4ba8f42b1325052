//! What travels between the simulated processes, and what is due in one. Data only.

use broker::lifecycle::state::HeartbeatAnswer;
use broker::partition::note::Note;
use broker::partition::outside::Life;
use broker::replica::Input;
use broker::replica::input::{IsrOutcome, SubscriptionId};
use bytes::Bytes;
use controller::decide::command::{AlterPartitions, Command, Heartbeat, Registered};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, Millis, TopicPartition};
use std::collections::VecDeque;

/// One attempt to change one ISR, so that every attempt gets exactly one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) life: Life,
    pub(super) number: u64,
}

/// To one life of one broker.
#[derive(Debug)]
pub(super) enum ToBroker {
    Wake,
    Registered(Result<Registered, ErrorCode>),
    ProofTaken(Result<(), ErrorCode>),
    Answer(HeartbeatAnswer),
    /// Batches of the metadata log may have come.
    Feed,
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
    Noted(Life, Note),
    Produce {
        at: TopicPartition,
        values: Vec<u64>,
        deadline: Millis,
    },
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
    StreamReset { broker: BrokerId, stream: u64 },
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
    /// A client sends something.
    Client,
    /// A fault, if faults are on.
    Nemesis,
    /// A dead broker starts.
    Start(BrokerId),
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
}

/// What a process asks of the world after a turn.
#[derive(Debug)]
pub(super) enum Wish {
    Register,
    Prove,
    Heartbeat(broker::lifecycle::state::Heartbeat),
    Alter(AlterPartitions, Vec<Attempt>),
    Dead(String),
}
