//! What a replica wants done. Data only; the shell runs effects in the order given (see [`super::input`] for the
//! contract) and never decides whether.

use super::input::{FollowerAck, RequestId, Subscribe, SubscriptionId};
use super::lease::Guard;
use super::watermark::Checkpoint;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};
use protocol::metadata::configs::FlushPolicy;

/// Whose bytes an `Append` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendSource {
    /// The batch of this request; the shell stamps base offset and leader epoch before anything else sees it.
    Produce(RequestId),
    /// The batches of the push being stepped, byte for byte.
    Push,
}

/// Leader to follower, handshake only: pushes and advances are the pump's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToFollower {
    /// No divergence: batches follow from `from`.
    Started {
        /// The leader's epoch.
        leader_epoch: LeaderEpoch,
        /// First offset to come.
        from: u64,
        /// None = unknown in this epoch.
        high_watermark: Option<u64>,
        /// The leader's log start.
        log_start: u64,
    },
    /// Truncate to the common point and subscribe again.
    Diverged {
        /// The leader's epoch.
        leader_epoch: LeaderEpoch,
        /// Largest epoch here that is not above the follower's last.
        epoch: Option<LeaderEpoch>,
        /// Its end here.
        end: u64,
    },
    /// Begin anew at the leader's log start.
    BeginAt {
        /// The leader's epoch.
        leader_epoch: LeaderEpoch,
        /// Where.
        log_start: u64,
    },
    /// No.
    Refused(ErrorCode),
}

/// Follower to leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToLeader {
    /// Feed me. Kept by the shell until the stream is up; one `StreamLost` for each that was lost.
    Subscribe(Subscribe),
    /// Stop feeding me.
    Unsubscribe(SubscriptionId),
    /// What I hold; a later one of the same subscription may take its place before it is sent.
    Ack(FollowerAck),
}

/// Answer to a produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProduceOutcome {
    /// Written as asked, from this offset. If the guard no longer permits when the answer leaves, the answer is
    /// `LeaseExpiredAfterAppend` instead.
    Written {
        /// Offset of the batch's first record.
        base: u64,
        /// Under which it may leave.
        guard: Guard,
    },
    /// Not written, or not known to be: the code says which.
    Refused(ErrorCode),
}

/// What this replica has of a partition without a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEndReport {
    /// Leader epoch of the image in which nobody leads.
    pub leader_epoch: LeaderEpoch,
    /// Epoch of the last batch, None = empty log.
    pub last_epoch: Option<LeaderEpoch>,
    /// Offset after the last.
    pub log_end: u64,
    /// First offset.
    pub log_start: u64,
    /// Part of this log was lost to damage and set aside.
    pub damaged: bool,
}

/// Why a leadership is given up although the image still names us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abdication {
    /// A batch went to followers, then our own append failed: its offsets are taken, ours is not there.
    AppendFailedAfterForward,
}

/// Why the process must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FatalReason {
    /// A member of ISR or ELR would have to cut below its high watermark.
    #[error("asked to truncate to {to}, below the high watermark {high_watermark}, while in the ISR or ELR")]
    TruncateBelowHighWatermark {
        /// Where to.
        to: u64,
        /// Ours.
        high_watermark: u64,
    },
    /// Damage under the end mark of a log that may count as in sync: only a restart without proof takes its place away.
    #[error("the log is damaged at or below its end mark")]
    Damaged,
    /// Shell and replica disagree on what is outstanding.
    #[error("broken invariant: {0}")]
    Invariant(&'static str),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Offer the batch in hand (stamped) to this partition's pumps before it is appended here; a pump that is not
    /// at `base` or has no credit reads it from the log later.
    Forward {
        /// First offset.
        base: u64,
        /// Offset after the last.
        end: u64,
    },
    /// Append. Answer: `Appended` or `AppendFailed`.
    Append {
        /// Whose bytes.
        source: AppendSource,
        /// First offset; equals the log's end.
        base: u64,
        /// Offset after the last.
        end: u64,
        /// To stamp on a produced batch.
        leader_epoch: LeaderEpoch,
    },
    /// Make the log durable at least up to here; one sync may serve many requests. Answer: `Flushed`, also when nothing
    /// was left to sync.
    Flush {
        /// To give back.
        generation: u64,
        /// At least this far.
        upto: u64,
    },
    /// Note the policy durably. Answer: `PolicyNoted`.
    NotePolicy(FlushPolicy),
    /// Note durably that the log's directory exists; asked before it is made. Answer: `DirectoryNoted`.
    NoteDirectory,
    /// Cut the tail. Answer: `Cut`.
    Truncate {
        /// First offset to go.
        to: u64,
        /// Keep the cut bytes beside the log: they lay below a high watermark that an unclean election overruled.
        keep_aside: bool,
    },
    /// Throw everything away and begin at `start`. Answer: `Cut`.
    Reset {
        /// First offset of the new log.
        start: u64,
        /// As with `Truncate`.
        keep_aside: bool,
    },
    /// Drop the head. Answer: `StartAdvanced`.
    AdvanceStart {
        /// First offset to keep.
        to: u64,
    },

    /// Answer a follower's handshake.
    ToFollower {
        /// Whom.
        follower: BrokerId,
        /// For which subscription.
        subscription: SubscriptionId,
        /// What.
        message: ToFollower,
    },
    /// Begin to pump batches from here, as credit allows. Follows a `Started`.
    StartPump {
        /// Whom.
        follower: BrokerId,
        /// For which subscription.
        subscription: SubscriptionId,
        /// First offset.
        from: u64,
    },
    /// Stop the pump of this subscription and forget it.
    StopPump {
        /// Whom.
        follower: BrokerId,
        /// Which.
        subscription: SubscriptionId,
    },
    /// To the broker we follow.
    ToLeader {
        /// Whom.
        leader: BrokerId,
        /// What.
        message: ToLeader,
    },

    /// Answer a produce.
    Reply {
        /// Whom.
        id: RequestId,
        /// What.
        outcome: ProduceOutcome,
    },
    /// Answer a delete-records: where the log begins now on every member of the ISR, or why not.
    DeleteReply {
        /// Whom.
        id: RequestId,
        /// New log start.
        outcome: Result<u64, ErrorCode>,
    },
    /// High watermark or log start moved: wake fetches, let idle pumps tell their followers, note it for the checkpoint.
    Moved {
        /// Ours; on a leader not yet known in its epoch it is still a lower bound.
        high_watermark: u64,
        /// Ours.
        log_start: u64,
        /// To be remembered over a restart; None while no record below the high watermark is known.
        checkpoint: Option<Checkpoint>,
    },
    /// Ask the active controller to change the ISR. Answer: `IsrResult`, always.
    AlterPartition {
        /// To give back.
        attempt: u64,
        /// Compare.
        leader_epoch: LeaderEpoch,
        /// Compare.
        partition_epoch: PartitionEpoch,
        /// And set; each member under the registration meant (KIP-903).
        new_isr: Vec<(BrokerId, BrokerEpoch)>,
    },
    /// Nobody leads: tell the active controller what we have (again when it changes: [`super::Replica::log_end_report`]).
    ReportLogEnd(LogEndReport),
    /// We lead no more in this epoch although the image says so. A broker that has no gentler way stops.
    Abdicate {
        /// The epoch given up.
        leader_epoch: LeaderEpoch,
        /// Why.
        reason: Abdication,
    },
    /// Stop the process; run nothing after it.
    Fatal(FatalReason),
}
