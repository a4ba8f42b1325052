//! The receiving side of Raft's messages: bytes in, bytes out. A voter that has just started neither grants
//! votes nor takes over: it may have forgotten a lease it gave before. One without room on its disk does not take over. Who
//! may ask was checked before; what may be said is checked by [`admission`].

use super::admission::{self, Inadmissible, Local};
use super::network::{SnapshotHead, encode};
use super::snapshot::ImageBytes;
use super::transport::Call;
use super::types::TypeConfig;
use super::types::alias::Snapshot;
use super::{Quorum, VoterId};
use crate::limits::DISK_FLOOR_BYTES;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use protocol::planted::Bug;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// It does not decode.
    #[error("raft message does not decode: {0}")]
    Malformed(String),
    /// No controller sends it; Raft does not see it.
    #[error("raft message: {0}")]
    Inadmissible(#[from] Inadmissible),
    /// Votes are withheld for one maximum election timeout after a start.
    #[error("this voter has just started and grants no votes yet")]
    JustStarted,
    /// It has no room to lead with.
    #[error("this controller's disk has less than {DISK_FLOOR_BYTES} bytes of room: it does not take over")]
    DiskFull,
    /// Raft does not run any more.
    #[error("raft has stopped: {0}")]
    Stopped(String),
    /// The sender's id belongs to another directory in the membership.
    #[error("controller {id} votes by directory {known}, not by {given}: a wiped disk is another voter")]
    AnotherDirectory {
        /// Controller id.
        id: u32,
        /// As in the membership.
        known: uuid::Uuid,
        /// As in the message.
        given: uuid::Uuid,
    },
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ServeError> {
    postcard::from_bytes(bytes).map_err(|e| ServeError::Malformed(e.to_string()))
}

fn stopped(error: impl std::fmt::Display) -> ServeError {
    ServeError::Stopped(error.to_string())
}

impl Quorum {
    /// Refuses a sender whose controller id votes by another directory.
    ///
    /// # Errors
    /// [`ServeError::AnotherDirectory`].
    pub fn check_sender(&self, from: VoterId) -> Result<(), ServeError> {
        let metrics = self.raft.metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        let mut same_id = membership.nodes().map(|(voter, _)| *voter).filter(|voter| voter.id == from.id).peekable();
        let Some(known) = same_id.peek().map(|voter| voter.directory) else { return Ok(()) };
        if same_id.any(|voter| voter == from) {
            return Ok(());
        }
        Err(ServeError::AnotherDirectory { id: from.id, known, given: from.directory })
    }

    /// What the gate holds a message against.
    fn local(&self) -> Local {
        // The metrics may lag behind the image for a moment: a snapshot from between the two is refused, and needed by nobody.
        let batch_no = self.feed.image().batch_no;
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        Local { me: self.me, term: seen.current_term, committed: seen.local_committed, batch_no }
    }

    /// Answers one unary message.
    ///
    /// # Errors
    /// [`ServeError`]: the sender counts it as no answer.
    pub async fn serve(&self, call: Call, payload: Bytes) -> Result<Bytes, ServeError> {
        let forgetful = self.just_started() && !protocol::planted::is(Bug::RestartedVoterVotes);
        if call != Call::Append && forgetful {
            return Err(ServeError::JustStarted);
        }
        if matches!(call, Call::WouldLead | Call::TransferLeader) && self.is_disk_full() {
            return Err(ServeError::DiskFull);
        }
        match call {
            Call::Append => {
                let request: AppendEntriesRequest<TypeConfig> = decode(&payload)?;
                admission::append(&request, &self.local())?;
                Ok(encode(&self.raft.append_entries(request).await.map_err(stopped)?))
            }
            Call::Vote => {
                let request: VoteRequest<TypeConfig> = decode(&payload)?;
                admission::vote(&request, &self.local())?;
                Ok(encode(&self.raft.vote(request).await.map_err(stopped)?))
            }
            Call::PreVote => {
                let request: VoteRequest<TypeConfig> = decode(&payload)?;
                admission::vote(&request, &self.local())?;
                Ok(encode(&self.raft.pre_vote(request).await.map_err(stopped)?))
            }
            Call::WouldLead => Ok(Bytes::new()),
            Call::TransferLeader => {
                let request: TransferLeaderRequest<TypeConfig> = decode(&payload)?;
                admission::transfer(&request, &self.local())?;
                Ok(encode(&self.raft.handle_transfer_leader(request).await.map_err(stopped)?))
            }
        }
    }

    /// Answers a stream of appends, in order. The stream ends at the first message that is refused, with the refusal as the
    /// last answer. After an answer with which Raft ends it (a conflict, a higher vote) it ends once the peer lets go of it.
    pub fn serve_appends(
        self: &Arc<Self>,
        requests: BoxStream<'static, Bytes>,
    ) -> BoxStream<'static, Result<Bytes, ServeError>> {
        let (refused, refusal) = oneshot::channel();
        let gate = (Arc::downgrade(self), requests, refused);
        let admitted = futures_util::stream::unfold(Some(gate), |gate| async {
            let (quorum, mut requests, refused) = gate?;
            let bytes = requests.next().await?;
            match quorum.upgrade()?.admitted(&bytes) {
                Ok(request) => Some((request, Some((quorum, requests, refused)))),
                Err(error) => {
                    tracing::error!(%error, "append stream ends");
                    let _nobody_may_listen = refused.send(error);
                    None
                }
            }
        });
        let answers = self.raft.stream_append(admitted.boxed());
        let answers = answers.map(|answer| answer.map(|a| encode(&a)).map_err(stopped));
        let last = futures_util::stream::once(refusal).filter_map(|refused| std::future::ready(refused.ok().map(Err)));
        answers.chain(last).boxed()
    }

    fn admitted(&self, bytes: &[u8]) -> Result<AppendEntriesRequest<TypeConfig>, ServeError> {
        let request = decode(bytes)?;
        admission::append(&request, &self.local())?;
        Ok(request)
    }

    /// Installs a received snapshot.
    ///
    /// # Errors
    /// [`ServeError`]: the sender tries again.
    pub async fn serve_snapshot(&self, head: &[u8], data: Bytes) -> Result<Bytes, ServeError> {
        let head: SnapshotHead = decode(head)?;
        let data = ImageBytes(data);
        let checked = data.clone();
        // Up to a GiB: not on a thread that answers heartbeats.
        let decoded =
            protocol::machine::blocking(move || checked.decode().map(|image| image.batch_no)).await.map_err(stopped)?;
        let batch_no = decoded.map_err(|e| ServeError::Malformed(e.to_string()))?;
        admission::snapshot(&head, batch_no, &self.local())?;
        let SnapshotHead { vote, meta } = head;
        let snapshot = Snapshot { meta, snapshot: data };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        metrics::counter!(crate::metrics::SNAPSHOTS_INSTALLED).increment(1);
        Ok(encode(&answer))
    }
}
