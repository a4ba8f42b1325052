//! What can go wrong for an application, in few kinds; each says whether anything may have been written and what
//! to do next.
//!
//! Owns: [`Error`], [`Effect`]. The wire's error codes are `protocol::error`.
//! Never: claims "not written" for a request whose answer was lost.
//! Invariant: every [`Error::Refused`] keeps the server's own code, field, value and limit.

use crate::config::ConfigError;
use protocol::batch::BatchError;
use protocol::error::{ApiError, Effect as WireEffect, ErrorCode, Next};
use uuid::Uuid;

/// Whether a failed request may have had an effect all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Certainly nothing was written or changed.
    NotWritten,
    /// It may have taken effect; only reading back can tell.
    Unknown,
}

impl Effect {
    /// The effect of a wire code.
    #[must_use]
    pub fn of(code: ErrorCode) -> Self {
        match code.effect() {
            WireEffect::None => Effect::NotWritten,
            WireEffect::Unknown => Effect::Unknown,
        }
    }
}

/// Any failure of the client library.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is unknown or out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No node of the cluster answered. Nothing was sent.
    #[error(
        "nobody answers at {asked} (tried for {waited_ms} ms): {cause}; check that the cluster runs and that the address is right"
    )]
    Unreachable {
        /// Addresses asked, comma separated.
        asked: String,
        /// Time spent, ms.
        waited_ms: u64,
        /// The last failure.
        cause: String,
    },
    /// A node answered with a refusal.
    #[error("{request}: {node}: {error}")]
    Refused {
        /// What was asked, such as `create topic`.
        request: &'static str,
        /// Who refused, an address or `broker 3`.
        node: String,
        /// Its words, code included.
        error: Box<ApiError>,
    },
    /// Time is up.
    #[error("{request}: no success within {waited_ms} ms; last failure: {last}")]
    Timeout {
        /// What was asked.
        request: &'static str,
        /// Time spent, ms.
        waited_ms: u64,
        /// Whether an attempt may have taken effect.
        effect: Effect,
        /// The last failure.
        last: String,
    },
    /// The producer's buffer has no room.
    #[error("the buffer of {limit} bytes is full; wait for deliveries, or raise buffer.memory")]
    BufferFull {
        /// `buffer.memory`, bytes.
        limit: usize,
    },
    /// A record cannot become part of a batch, or a fetched batch cannot be read.
    #[error("{context}: {error}")]
    Batch {
        /// Which record or batch.
        context: String,
        /// Why.
        error: BatchError,
    },
    /// The position lies outside the log and `auto.offset.reset` is `none`. Seek to go on.
    #[error(
        "{topic}/{partition}: offset {offset} is outside the log, which begins at {log_start}{}; seek, or set auto.offset.reset",
        high_watermark.map_or(String::new(), |end| format!(" and can be read below {end}"))
    )]
    OffsetOutOfRange {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// The position.
        offset: u64,
        /// Where the log begins.
        log_start: u64,
        /// First offset that cannot be read, if known.
        high_watermark: Option<u64>,
    },
    /// Records that this consumer has read are no longer in the log (an unclean election, KIP-320). Seek to go on.
    #[error(
        "{topic}/{partition}: the log parts from what was read before offset {offset}{}; those records may be gone; seek to go on",
        diverged_at.map_or(String::new(), |at| format!(" at offset {at}"))
    )]
    LogTruncated {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// The position.
        offset: u64,
        /// First offset that is not what it was, if the leader told.
        diverged_at: Option<u64>,
    },
    /// The topic that was read is gone, and another one has its name: no offset of the one says anything in the other.
    /// Seek to go on with the new one.
    #[error(
        "{topic}/{partition}: the topic was deleted and made again (read so far: {was} up to offset {offset}, now: {is}); seek to read the new one"
    )]
    TopicReplaced {
        /// Topic name.
        topic: String,
        /// Partition.
        partition: u32,
        /// The position in the topic that is gone.
        offset: u64,
        /// Id of the topic read so far.
        was: Uuid,
        /// Id of the topic that has the name now.
        is: Uuid,
    },
    /// The addresses lead to another cluster than before.
    #[error("{node} belongs to cluster {found}, expected {expected}; check the bootstrap addresses")]
    OtherCluster {
        /// Who answered.
        node: String,
        /// Cluster id so far.
        expected: String,
        /// Cluster id in the answer.
        found: String,
    },
    /// A node's answer does not follow the protocol.
    #[error("{node} answered {request} with nonsense: {what}")]
    Malformed {
        /// What was asked.
        request: &'static str,
        /// Who answered.
        node: String,
        /// What is wrong with it.
        what: String,
    },
    /// The handle was closed.
    #[error("the handle is closed")]
    Closed,
}

impl Error {
    /// Whether the failed request may have had an effect.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Error::Refused { error, .. } => Effect::of(error.code),
            Error::Timeout { effect, .. } => *effect,
            Error::Malformed { .. } => Effect::Unknown,
            _ => Effect::NotWritten,
        }
    }

    /// Whether doing the same again may succeed without anybody changing anything.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::Refused { error, .. } => error.code.next() != Next::GiveUp,
            Error::Unreachable { .. } | Error::Timeout { .. } | Error::BufferFull { .. } => true,
            _ => false,
        }
    }

    /// The server's code, where a server spoke.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Refused { error, .. } => Some(error.code),
            _ => None,
        }
    }

    /// The node that refused or misbehaved, where there is one.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Error::Refused { node, .. } | Error::OtherCluster { node, .. } | Error::Malformed { node, .. } => {
                Some(node)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> Error {
        Error::Refused { request: "produce", node: "broker 1".into(), error: Box::new(ApiError::new(code, "no")) }
    }

    #[test]
    fn a_refusal_says_what_the_wire_code_says() {
        assert_eq!(refused(ErrorCode::NotLeader).effect(), Effect::NotWritten);
        assert!(refused(ErrorCode::NotLeader).is_retriable());
        assert_eq!(refused(ErrorCode::NotEnoughReplicasAfterAppend).effect(), Effect::Unknown);
        assert!(!refused(ErrorCode::MessageTooLarge).is_retriable());
        assert_eq!(refused(ErrorCode::UnknownTopic).code(), Some(ErrorCode::UnknownTopic));
    }

    #[test]
    fn an_unreadable_answer_is_never_a_definite_failure() {
        let error = Error::Malformed { request: "produce", node: "b".into(), what: "x".into() };
        assert_eq!(error.effect(), Effect::Unknown);
    }
}
