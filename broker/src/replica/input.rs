//! What can happen to a replica. Data only; every number was measured or received by the shell.
//!
//! Contract with the shell (`partition.rs` and the simulator): effects are run in the order given. The four that
//! touch the log (`Append`, `Truncate`, `Reset`, `AdvanceStart`) are run inline, and their result is stepped before
//! any other input, so at most one is outstanding. `Flush`, the notes and `AlterPartition` are answered whenever they
//! are done, other inputs in between.

use super::view::PartitionView;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, PartitionEpoch};
use protocol::metadata::configs::FlushPolicy;
use std::fmt;

/// Names a request of this process; chosen by the shell, unique while it is unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one attempt of one follower to copy one partition; unique in the follower's process and growing for
/// each partition. A position belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a producer wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// 0: once the leader has appended.
    None,
    /// 1: once the leader holds it under its flush policy.
    Leader,
    /// -1: once every member of the maximal ISR holds it and the committed ISR satisfies the durability rule.
    All,
}

/// One batch to append; checked (crc, counts, times) and its bytes held by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produce {
    /// Whom to answer.
    pub id: RequestId,
    /// When to answer.
    pub acks: Acks,
    /// At this time the answer is that it is unknown.
    pub deadline: Millis,
    /// The client's belief, None = any.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Offsets the batch takes: last offset delta + 1.
    pub offsets: u32,
    /// Size of the batch.
    pub bytes: u32,
}

/// A follower asks to be fed: its half of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe {
    /// Which broker, as its stream's hello said.
    pub follower: BrokerId,
    /// Under which registration.
    pub broker_epoch: BrokerEpoch,
    /// Its number.
    pub subscription: SubscriptionId,
    /// The leader epoch in which it believes it follows.
    pub leader_epoch: LeaderEpoch,
    /// First offset it has.
    pub log_start: u64,
    /// Offset after its last.
    pub log_end: u64,
    /// End of what it has on disk.
    pub durable_end: u64,
    /// Epoch of its last batch, None = empty log.
    pub last_epoch: Option<LeaderEpoch>,
    /// The policy it has durably noted.
    pub noted_policy: FlushPolicy,
}

/// A follower says what it holds by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerAck {
    /// Which broker.
    pub follower: BrokerId,
    /// Under which registration its stream was opened.
    pub broker_epoch: BrokerEpoch,
    /// For which subscription.
    pub subscription: SubscriptionId,
    /// In which leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// First offset it has.
    pub log_start: u64,
    /// Offset after its last.
    pub log_end: u64,
    /// End of what it has on disk.
    pub durable_end: u64,
    /// The policy it counts by.
    pub noted_policy: FlushPolicy,
}

/// One batch within a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSpan {
    /// First offset.
    pub base: u64,
    /// Offset after its last.
    pub end: u64,
    /// Leader epoch stamped on it.
    pub epoch: LeaderEpoch,
}

/// Batches from the leader, checked (crc) and held by the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// For which subscription.
    pub subscription: SubscriptionId,
    /// In which leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Whole batches, in order and without a gap; never empty.
    pub batches: Vec<BatchSpan>,
    /// The leader's, None = not known in its epoch yet.
    pub high_watermark: Option<u64>,
    /// The leader's.
    pub log_start: u64,
}

/// Fate of one attempt to change the ISR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsrOutcome {
    /// It committed and made this partition epoch.
    Committed(PartitionEpoch),
    /// Refused. The code says whether it may have taken effect all the same.
    Refused(ErrorCode),
    /// No answer.
    Unknown,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The image (or a part of it that concerns this partition) as applied. Level-triggered: also when only configs
    /// or brokers changed. The replica works out whether it leads, follows or waits.
    Assign(Box<PartitionView>),
    /// The image gives this broker no place in the partition any more (deleted, moved, unknown).
    Withdraw,
    /// Time passed; wanted at [`super::Replica::next_deadline`] or later.
    Tick,

    /// An application wants a batch appended. The shell has made sure of room on disk beforehand.
    Produce(Produce),
    /// An application wants everything below an offset gone, None = the high watermark.
    DeleteRecords {
        /// Whom to answer.
        id: RequestId,
        /// First offset to keep.
        before: Option<u64>,
        /// At this time the answer is "unknown".
        deadline: Millis,
    },
    /// Retention would drop the head up to here. Clamped; ignored where this replica does not lead.
    Retain {
        /// First offset to keep.
        upto: u64,
    },

    /// `Append` succeeded.
    Appended,
    /// `Append` failed without stopping the process (no room): the log ends here now.
    AppendFailed {
        /// End of the log.
        end: u64,
    },
    /// `Truncate` or `Reset` is done and durable.
    Cut {
        /// First offset of the log.
        start: u64,
        /// Effective end: batches that straddle the cut went whole.
        end: u64,
    },
    /// There was no room for `Truncate` or `Reset`, and the log is as it was.
    CutFailed,
    /// `AdvanceStart` is durable; or there was no room to note it, and the start is what it was.
    StartAdvanced {
        /// First offset now.
        start: u64,
    },
    /// Bytes below `upto` are on disk. Of another generation: dropped.
    Flushed {
        /// [`super::Replica::generation`] when the flush began.
        generation: u64,
        /// End of what is durable.
        upto: u64,
    },
    /// `NotePolicy` is durable.
    PolicyNoted(FlushPolicy),
    /// `NoteDirectory` is durable: from now on a missing directory is seen as a loss.
    DirectoryNoted,
    /// A read found damage at or below the end mark.
    DamageFound,

    /// Leader side: handshake.
    Subscribe(Subscribe),
    /// Leader side: the follower gave up, or its stream is gone.
    Unsubscribed {
        /// Which broker.
        follower: BrokerId,
        /// Which subscription.
        subscription: SubscriptionId,
    },
    /// Leader side: acknowledgement. Its credit goes back whatever becomes of it.
    Ack(FollowerAck),
    /// Leader side: the pump wants an offset that retention has dropped.
    PumpBelowStart {
        /// Which broker.
        follower: BrokerId,
        /// Which subscription.
        subscription: SubscriptionId,
    },
    /// Leader side: the pump wants an offset whose bytes are damaged. The subscription ends, and the follower asks again
    /// after a pause: what it needs may be readable by then, or led by somebody else.
    PumpUnreadable {
        /// Which broker.
        follower: BrokerId,
        /// Which subscription.
        subscription: SubscriptionId,
    },
    /// Leader side: what became of an `AlterPartition`. Every attempt gets exactly one.
    IsrResult {
        /// Which.
        attempt: u64,
        /// Its fate.
        outcome: IsrOutcome,
    },

    /// Follower side: no divergence, batches follow from here.
    Started {
        /// Which subscription.
        subscription: SubscriptionId,
        /// In which epoch.
        leader_epoch: LeaderEpoch,
        /// First offset that will be pushed.
        from: u64,
        /// The leader's, None = unknown.
        high_watermark: Option<u64>,
        /// The leader's.
        log_start: u64,
    },
    /// Follower side: the leader's history of `epoch` (the largest it has that is not larger than ours) ends here.
    Diverged {
        /// Which subscription.
        subscription: SubscriptionId,
        /// In which epoch.
        leader_epoch: LeaderEpoch,
        /// The leader's largest epoch not above our last; None = it shares no epoch with us.
        epoch: Option<LeaderEpoch>,
        /// Its end in the leader's log.
        end: u64,
    },
    /// Follower side: nothing we have joins the leader's log; begin at its start.
    BeginAt {
        /// Which subscription.
        subscription: SubscriptionId,
        /// In which epoch.
        leader_epoch: LeaderEpoch,
        /// The leader's log start.
        log_start: u64,
    },
    /// Follower side: the leader will not feed this subscription.
    Refused {
        /// Which.
        subscription: SubscriptionId,
        /// Why.
        code: ErrorCode,
    },
    /// Follower side: batches.
    Pushed(Pushed),
    /// Follower side: high watermark and log start without batches.
    Advance {
        /// Which subscription.
        subscription: SubscriptionId,
        /// In which epoch.
        leader_epoch: LeaderEpoch,
        /// The leader's, None = unknown.
        high_watermark: Option<u64>,
        /// The leader's.
        log_start: u64,
    },
    /// Follower side: the stream that carried this subscription is gone.
    StreamLost {
        /// Which.
        subscription: SubscriptionId,
    },
}
