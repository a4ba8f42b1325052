//! What is written down of a run: one append-only stream of events, of clients, nodes and faults alike.
//!
//! Owns the types. New kinds of operations (groups, transactions) are new variants at the end of [`Op`] and [`Answer`];
//! the numbers of the old ones stay. What changes an old one changes [`super::file::MAGIC`] too. Invariants: `seq` grows strictly and is the real-time
//! order, because one recorder gives it out; a value is written by one send only; a [`KeyId`] is one life of one
//! partition, so a topic made again under its old name gets new ones.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One life of one partition.
pub type KeyId = u32;

/// A value, unique within its key.
pub type Value = u64;

/// A client: its number, and which life of it.
pub type Process = (u32, u32);

/// The code of an operation that got no answer at all.
pub const NO_ANSWER: u16 = 0;

/// What is known before the first event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Which run.
    pub run: String,
    /// Its seed.
    pub seed: u64,
    /// What the run is judged by.
    pub rules: Rules,
}

/// What a run is judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Codes that say for certain that nothing happened. Any other failure is of unknown outcome.
    pub definite: BTreeSet<u16>,
    /// The code of "a topic of that name exists".
    pub exists: u16,
    /// The code of "no topic of that name".
    pub absent: u16,
    /// Whether a value at two offsets is an anomaly, or only counted.
    pub accuse_duplicates: bool,
    /// In healthy windows: how long after an acknowledgement a read may still miss it.
    pub recency_ns: Option<u64>,
    /// How soon after the heal each key must take a record again.
    pub liveness_ns: Option<u64>,
    /// Configurations that the search over administrative operations may visit per topic.
    pub search_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            definite: BTreeSet::new(),
            exists: u16::MAX,
            absent: u16::MAX,
            accuse_duplicates: false,
            recency_ns: None,
            liveness_ns: None,
            search_max: 1_000_000,
        }
    }
}

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Position in real time.
    pub seq: u64,
    /// Wall clock, ns since 1970.
    pub wall_ns: u64,
    /// Monotonic clock of the recorder, ns.
    pub mono_ns: u64,
    /// Which client, or 0 for the run itself.
    pub process: u32,
    /// Which life of it.
    pub incarnation: u32,
    /// What happened.
    pub body: Body,
}

impl Event {
    /// Client and life.
    pub fn process(&self) -> Process {
        (self.process, self.incarnation)
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// An operation is about to leave its client.
    Invoke(Op),
    /// It succeeded.
    Ok {
        /// `seq` of its invocation.
        of: u64,
        /// What was answered.
        answer: Answer,
    },
    /// It certainly did nothing.
    Fail {
        /// `seq` of its invocation.
        of: u64,
        /// Why; one of [`Rules::definite`].
        code: u16,
    },
    /// Whether it took effect is not known, now or later.
    Info {
        /// `seq` of its invocation.
        of: u64,
        /// Why; [`NO_ANSWER`] for silence.
        code: u16,
    },
    /// A fault, planned or under way.
    Fault(Fault),
    /// A process of the cluster.
    Node(Node),
    /// A part of the run begins.
    Phase(Phase),
    /// A key from here on.
    Key {
        /// Its number.
        key: KeyId,
        /// Topic.
        topic: String,
        /// Partition of the topic.
        partition: u32,
        /// Whether its head may be dropped without being asked for.
        retention: bool,
    },
    /// Records from this offset on may be gone since this leader epoch: an election that was allowed to lose them.
    Truncated {
        /// Where.
        key: KeyId,
        /// First offset that may be gone.
        from: u64,
        /// The leader epoch that began with it.
        epoch: u32,
    },
    /// A node was seen to lead.
    Led {
        /// Where.
        key: KeyId,
        /// In which leader epoch.
        epoch: u32,
        /// Who.
        node: u32,
    },
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// One batch of records.
    Send {
        /// Where.
        key: KeyId,
        /// What, in order.
        values: Vec<Value>,
        /// -1 for all, or 0, or 1.
        acks: i8,
    },
    /// Read on.
    Poll {
        /// Where.
        key: KeyId,
        /// From which offset; None where the client was.
        from: Option<u64>,
    },
    /// The first or the next offset.
    ListOffset {
        /// Where.
        key: KeyId,
        /// The next offset (the high watermark), not the first.
        latest: bool,
    },
    /// Remove a head.
    DeleteRecords {
        /// Where.
        key: KeyId,
        /// Everything below.
        before: u64,
    },
    /// Something about topics.
    Admin {
        /// The topic's name.
        topic: String,
        /// What.
        change: Change,
    },
    /// Give a register a value that nobody else gives it.
    Put {
        /// Its name.
        register: String,
        /// The value; not 0, which is what it holds at first.
        value: Value,
    },
    /// Ask what a register holds.
    Get {
        /// Its name.
        register: String,
    },
}

/// What is asked of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Make it.
    Create,
    /// Remove it.
    Delete,
    /// Say whether it exists.
    Describe,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To a send.
    Sent {
        /// Offset of the first value, if told.
        base: Option<u64>,
        /// By whom.
        source: Source,
    },
    /// To a poll.
    Polled {
        /// Offset and value.
        records: Vec<(u64, Value)>,
        /// High watermark, if known to the node.
        high_watermark: Option<u64>,
        /// Log start, if told.
        log_start: Option<u64>,
        /// By whom.
        source: Source,
    },
    /// To a list of offsets.
    Offset {
        /// The offset.
        offset: u64,
        /// By whom.
        source: Source,
    },
    /// To a removal: where the log begins now.
    Deleted {
        /// Log start.
        log_start: u64,
        /// By whom.
        source: Source,
    },
    /// To an administrative change.
    Done,
    /// To a question about a topic.
    Exists(bool),
    /// To a question about a register.
    Holds(Value),
}

/// Who answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Leader epoch in which it answered.
    pub epoch: Option<u32>,
    /// Which node.
    pub node: Option<u32>,
}

/// A fault's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which one.
    pub id: u32,
    /// Its class, `cut-one-way`.
    pub class: String,
    /// On what, and with which numbers.
    pub target: String,
    /// What of it.
    pub step: Step,
}

/// A step in a fault's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// It will be made. One that is never confirmed makes the run worthless.
    Planned,
    /// It begins.
    Begins,
    /// It was seen to have taken effect; how.
    Confirmed(String),
    /// It ends.
    Ends,
}

/// What happened to a process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `broker-1`.
    pub name: String,
    /// Which life of it.
    pub incarnation: u32,
    /// `started`, `ready`, `killed`, `stopped`.
    pub what: String,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// No fault is or was under way that could still be felt.
    HealthyBegins,
    /// A fault comes.
    HealthyEnds,
    /// Every fault has ended: from here on the cluster has to come back by itself.
    Healed,
    /// Nobody writes any more; what is read now is what there is.
    FinalReads,
}

/// Everything of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// What is known before.
    pub header: Header,
    /// Every event in order.
    pub events: Vec<Event>,
    /// The stream ended within a record: its writer died. Nothing can be called valid then.
    pub torn: bool,
}

impl History {
    /// The event with this number.
    pub fn event(&self, seq: u64) -> Option<&Event> {
        let at = self.events.binary_search_by_key(&seq, |event| event.seq).ok()?;
        self.events.get(at)
    }
}

impl Op {
    /// The key it concerns.
    pub fn key(&self) -> Option<KeyId> {
        match self {
            Op::Send { key, .. } | Op::Poll { key, .. } | Op::ListOffset { key, .. } => Some(*key),
            Op::DeleteRecords { key, .. } => Some(*key),
            Op::Admin { .. } | Op::Put { .. } | Op::Get { .. } => None,
        }
    }
}

impl Body {
    /// The invocation that it completes.
    pub fn completes(&self) -> Option<u64> {
        match self {
            Body::Ok { of, .. } | Body::Fail { of, .. } | Body::Info { of, .. } => Some(*of),
            _ => None,
        }
    }
}
