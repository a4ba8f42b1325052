//! The one table of error codes on the wire. A code says two things: whether the request may have
//! taken effect (definite or unknown), and what the peer should do next. Texts are for people;
//! programs read the code, `field`, `value` and `limit`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether a refused request may have had an effect all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Certainly nothing was written or changed.
    None,
    /// It may have taken effect; only reading back can tell.
    Unknown,
}

/// What the peer should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask the same node again after a pause.
    Retry,
    /// Fetch routing metadata (or follow the hint), then ask the partition's leader.
    RefreshMetadata,
    /// Find the active controller (or follow the hint).
    FindController,
    /// Asking again will not help: a person or the program must change something.
    GiveUp,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $effect:ident, $next:ident;)*) => {
        /// Wire error codes. Numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// Every code, in order of number.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code with this number. Unknown numbers read as [`ErrorCode::Internal`]: outcome unknown.
            #[must_use]
            pub fn from_wire(number: u32) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::Internal,
                }
            }

            /// Whether the refused request may have taken effect.
            #[must_use]
            pub fn effect(self) -> Effect {
                match self { $(Self::$name => Effect::$effect,)* }
            }

            /// What the peer should do.
            #[must_use]
            pub fn next(self) -> Next {
                match self { $(Self::$name => Next::$next,)* }
            }

            /// The code's name as printed.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

codes! {
    /// Unexpected failure inside the node.
    Internal = 1, Unknown, Retry;
    /// A field is not acceptable; `field`, `value`, `limit` say which and why.
    InvalidRequest = 2, None, GiveUp;
    /// Message of another cluster.
    WrongCluster = 3, None, GiveUp;
    /// Message of an older or newer life of this cluster.
    WrongIncarnation = 4, None, GiveUp;
    /// Not the active controller; the hint names it when known.
    NotController = 5, None, FindController;
    /// The command was written but its batch was dropped, or we stopped waiting: it may have committed.
    OutcomeUnknown = 6, Unknown, FindController;
    /// No answer in time; the request may have taken effect.
    Timeout = 7, Unknown, Retry;
    /// A queue or budget is full; nothing was done.
    Overloaded = 8, None, Retry;
    /// No connection to the node came about: nothing was sent. Another node may answer.
    NotReachable = 9, None, Retry;
    /// The topic does not exist.
    UnknownTopic = 10, None, GiveUp;
    /// The topic exists, the partition number does not.
    UnknownPartition = 11, None, GiveUp;
    /// A topic of that name exists.
    TopicExists = 12, None, GiveUp;
    /// A name breaks the naming rule.
    InvalidName = 13, None, GiveUp;
    /// More replicas asked for than brokers (or data centres) can hold.
    InvalidReplication = 14, None, GiveUp;
    /// A config key is unknown, or its value out of range.
    InvalidConfig = 15, None, GiveUp;
    /// Partition count out of range, or not growing.
    InvalidPartitions = 16, None, GiveUp;
    /// This node does not lead the partition; the hint names the leader when known.
    NotLeader = 20, None, RefreshMetadata;
    /// The request's leader epoch is older than the node's.
    FencedLeaderEpoch = 21, None, RefreshMetadata;
    /// The request's leader epoch is newer than the node's: the node lags behind.
    UnknownLeaderEpoch = 22, None, Retry;
    /// The partition has no leader now.
    LeaderNotAvailable = 23, None, RefreshMetadata;
    /// The ISR does not satisfy the durability rule; nothing was written.
    NotEnoughReplicas = 24, None, Retry;
    /// Written to the leader, but not known to be kept by the ISR when leadership or the wait ended.
    NotEnoughReplicasAfterAppend = 25, Unknown, RefreshMetadata;
    /// The leader's lease has run out and the request needs one.
    LeaseExpired = 26, None, RefreshMetadata;
    /// The same as `LeaseExpired`, noticed after the append.
    LeaseExpiredAfterAppend = 27, Unknown, RefreshMetadata;
    /// The offset lies outside the log.
    OffsetOutOfRange = 30, None, GiveUp;
    /// The offset exists or may exist, but cannot be served yet (before the epoch's high watermark is known).
    OffsetNotAvailable = 31, None, Retry;
    /// A record batch is larger than the topic's limit.
    MessageTooLarge = 32, None, GiveUp;
    /// A record batch failed its checks (crc, counts, lengths).
    CorruptMessage = 33, None, GiveUp;
    /// Compression or attributes this server does not take.
    UnsupportedBatch = 34, None, GiveUp;
    /// The broker's disk has no room; deletes, retention and reads go on.
    DiskFull = 35, None, Retry;
    /// The log (or the asked range of it) is damaged on this replica.
    LogDamaged = 36, None, RefreshMetadata;
    /// The broker epoch is not the registered one: the process has been replaced or fenced.
    StaleBrokerEpoch = 40, None, GiveUp;
    /// A broker of that id lives with another data directory.
    DuplicateBroker = 41, None, GiveUp;
    /// The broker id is not registered.
    UnknownBroker = 42, None, GiveUp;
    /// The node does not support the finalized metadata.version.
    UnsupportedVersion = 43, None, GiveUp;
    /// The partition epoch given is not the current one.
    InvalidUpdateVersion = 44, None, RefreshMetadata;
    /// A proposed ISR member is fenced, shutting down, or of another broker epoch.
    IneligibleReplica = 45, None, Retry;
    /// The change committed and moved leadership away from the asker.
    NewLeaderElected = 46, None, RefreshMetadata;
    /// Not tried, because an earlier part of the request failed.
    OperationNotAttempted = 47, None, Retry;
    /// No candidate may lead: electing one could lose records.
    EligibleLeadersNotAvailable = 48, None, GiveUp;
    /// The election has nothing to do.
    ElectionNotNeeded = 49, None, GiveUp;
    /// The voter change breaks the layout guard; `--force` overrides.
    VoterLayoutRefused = 50, None, GiveUp;
    /// Another membership change is under way.
    MembershipInProgress = 51, None, Retry;
    /// A safety rule refuses; the text says what would have to hold.
    RefusedBySafetyRule = 52, None, GiveUp;
    /// Another subscription or stream took this one's place.
    SubscriptionReplaced = 53, None, Retry;
    /// The process is stopping.
    ShuttingDown = 54, None, RefreshMetadata;
    /// The follower is not registered, or with another epoch, in the leader's image.
    UnknownFollower = 55, None, Retry;
    /// The feed position does not match this controller's history.
    FeedDiverged = 56, None, GiveUp;
    /// A voter to be added did not catch up with the log in time: the voters stay as they are.
    VoterNotCaughtUp = 57, None, GiveUp;
    /// The registration was made on a view of the broker that is not the image's: look at a newer image, then register
    /// again. A process that has been replaced meanwhile finds its successor there.
    StaleBrokerView = 58, None, Retry;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal as a value: what goes into `seawall.common.v1.Error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// What kind, and what to do.
    pub code: ErrorCode,
    /// For people: what failed and what to try.
    pub message: String,
    /// The offending field, empty when none.
    pub field: String,
    /// The value as given.
    pub value: String,
    /// The limit or rule it broke.
    pub limit: String,
    /// Where to go instead.
    pub hint: Option<Box<Hint>>,
}

/// Where the right node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hint {
    /// Broker or controller id, 0 = unknown.
    pub node_id: u32,
    /// Host, empty = unknown.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Partition leader epoch, if it is about a partition.
    pub leader_epoch: Option<u32>,
}

impl ApiError {
    /// A refusal with a text.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: String::new(),
            value: String::new(),
            limit: String::new(),
            hint: None,
        }
    }

    /// Bad input: names field, value and limit.
    #[must_use]
    pub fn bad(code: ErrorCode, field: &str, value: impl fmt::Display, limit: impl fmt::Display) -> Self {
        Self {
            code,
            message: format!("{field} is {value}, allowed: {limit}"),
            field: field.to_owned(),
            value: value.to_string(),
            limit: limit.to_string(),
            hint: None,
        }
    }

    /// The same refusal with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: Hint) -> Self {
        self.hint = Some(Box::new(hint));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_read_back() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_wire(*code as u32), *code);
        }
        assert_eq!(ErrorCode::from_wire(60_000), ErrorCode::Internal);
    }

    #[test]
    fn an_unknown_code_never_reads_as_a_definite_failure() {
        assert_eq!(ErrorCode::from_wire(9_999).effect(), Effect::Unknown);
    }
}
