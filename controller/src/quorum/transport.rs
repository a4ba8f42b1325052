//! What the quorum asks of a network: bytes there, bytes back, each with a deadline. It knows neither gRPC nor
//! sockets, so that the same Raft runs over `rpc::raft_client`, in tests over memory with links that can be cut, and
//! later under a simulated network.

use super::types::VoterId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::time::Duration;

/// Which of a peer's connections to use: heartbeats and votes must not queue behind entries or snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Log entries.
    Entries,
    /// Heartbeats, votes, hand-over.
    Control,
    /// Snapshots.
    Snapshots,
}

/// One peer on one lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Whom the message is for; another voter at that address refuses it.
    pub voter: VoterId,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Connection.
    pub lane: Lane,
}

/// The unary calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// One append (heartbeats).
    Append,
    /// A vote request.
    Vote,
    /// Whether a vote would be granted.
    PreVote,
    /// Take over leadership.
    TransferLeader,
    /// Whether it would take leadership over: an empty question and an empty answer, or a refusal.
    WouldLead,
}

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No connection: back off before the next try.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time; it may have been received.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The peer refused to look at it (wrong cluster, wrong voter, just restarted, stopping).
    #[error("refused: {0}")]
    Refused(String),
}

/// Moves bytes to peers. Implementations enforce the deadlines.
pub trait Transport: Send + Sync + 'static {
    /// One request, one answer.
    fn call(
        &self,
        to: Peer,
        call: Call,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, LinkError>>;

    /// A stream of appends; answers come in the order of requests. `setup` bounds the opening only.
    fn appends(
        &self,
        to: Peer,
        requests: BoxStream<'static, Bytes>,
        setup: Duration,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, LinkError>>, LinkError>>;

    /// A snapshot: head (vote and meta) and data.
    fn snapshot(
        &self,
        to: Peer,
        head: Bytes,
        data: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, LinkError>>;
}
