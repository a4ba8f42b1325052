//! Raft between controllers, receiving side. Cluster, incarnation, and both voters' identities are checked
//! before a payload is looked at: a message for another disk of this address, or from a wiped one, is refused.

use super::Context;
use crate::limits::{SNAPSHOT_BYTES_MAX, SNAPSHOT_DEADLINE_BASE, deadline_for};
use crate::quorum::transport::Call;
use crate::quorum::{ServeError, VoterId};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream, StreamExt};
use protocol::error::{ApiError, ErrorCode};
use protocol::rpc::convert;
use protocol::rpc::pb::raft::v1::raft_server::Raft;
use protocol::rpc::pb::raft::v1::{RaftMessage, SnapshotChunk};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Version of the payload encoding: postcard of the consensus library's messages.
pub(super) const RAFT_FORMAT: u32 = 1;

pub(super) struct RaftService(pub(super) Arc<Context>);

impl Context {
    fn admit(&self, message: &RaftMessage) -> Result<(), ApiError> {
        self.check(message.cluster.as_ref(), true)?;
        let bad =
            |field: &str, value: String, limit: String| ApiError::bad(ErrorCode::InvalidRequest, field, value, limit);
        if message.format != RAFT_FORMAT {
            return Err(bad("format", message.format.to_string(), format!("{RAFT_FORMAT}")));
        }
        let to = VoterId { id: message.to, directory: convert::uuid("to_directory", &message.to_directory)? };
        let me = self.quorum.me();
        if to != me {
            return Err(bad("to", to.to_string(), format!("{me}, the voter at this address")));
        }
        let directory = convert::uuid("from_directory", &message.from_directory)?;
        self.quorum.check_sender(VoterId { id: message.from, directory }).map_err(refusal)
    }

    fn answer(&self, to: &RaftMessage, payload: Bytes) -> RaftMessage {
        RaftMessage {
            cluster: Some(convert::cluster_ref(self.cluster_id, self.feed.image().cluster.incarnation)),
            from: to.to,
            from_directory: to.to_directory.clone(),
            to: to.from,
            to_directory: to.from_directory.clone(),
            format: RAFT_FORMAT,
            payload,
        }
    }

    async fn install(self: Arc<Self>, chunks: Streaming<SnapshotChunk>) -> Result<RaftMessage, Status> {
        let admit = |head: &RaftMessage| self.admit(head).map(|()| self.reception.begin());
        let (head, data) = collect(chunks, admit, SNAPSHOT_DEADLINE_BASE, &self.stopping).await?;
        let payload = self.quorum.serve_snapshot(&head.payload, data).await.map_err(refusal)?;
        Ok(self.answer(&head, payload))
    }

    async fn unary(&self, call: Call, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        self.admit(&message)?;
        let payload = self.quorum.serve(call, message.payload.clone()).await.map_err(refusal)?;
        Ok(Response::new(self.answer(&message, payload)))
    }
}

/// The reception of a snapshot under way. The newest ends the one before: whoever sent that leads no more, or gave it up,
/// and two of the largest must not be held at once.
#[derive(Debug, Default)]
pub(crate) struct Reception(parking_lot::Mutex<CancellationToken>);

impl Reception {
    fn begin(&self) -> CancellationToken {
        let begun = CancellationToken::new();
        std::mem::replace(&mut *self.0.lock(), begun.clone()).cancel();
        begun
    }
}

fn refusal(error: ServeError) -> ApiError {
    let code = match error {
        ServeError::Malformed(_) | ServeError::Inadmissible(_) => ErrorCode::InvalidRequest,
        ServeError::JustStarted | ServeError::AnotherDirectory { .. } => ErrorCode::RefusedBySafetyRule,
        ServeError::DiskFull => ErrorCode::DiskFull,
        ServeError::Stopped(_) => ErrorCode::ShuttingDown,
    };
    ApiError::new(code, error.to_string())
}

fn missing(what: &str) -> ApiError {
    ApiError::bad(ErrorCode::InvalidRequest, "snapshot", what, "head, data, last chunk")
}

/// A received snapshot: head, and data of the announced length and checksum. It ends at the deadline for its announced
/// bytes, when the node stops, and when another one begins (the token that `admit` gives).
async fn collect(
    mut chunks: impl Stream<Item = Result<SnapshotChunk, Status>> + Unpin,
    admit: impl FnOnce(&RaftMessage) -> Result<CancellationToken, ApiError>,
    base: Duration,
    stopping: &CancellationToken,
) -> Result<(RaftMessage, Bytes), Status> {
    let begun = Instant::now();
    let first = chunk_by(&mut chunks, begun + base, stopping, &CancellationToken::new()).await?;
    let head = first.head.clone().ok_or_else(|| missing("without a head"))?;
    let replaced = admit(&head)?;
    let total = usize::try_from(first.total_bytes.min(SNAPSHOT_BYTES_MAX)).expect("the limit fits a usize");
    if first.total_bytes > SNAPSHOT_BYTES_MAX {
        let limit = format!("at most {SNAPSHOT_BYTES_MAX}");
        return Err(ApiError::bad(ErrorCode::InvalidRequest, "total_bytes", first.total_bytes, limit).into());
    }
    let deadline = begun + deadline_for(base, total);
    let mut data = BytesMut::new();
    loop {
        let chunk = chunk_by(&mut chunks, deadline, stopping, &replaced).await?;
        data.extend_from_slice(&chunk.data);
        if data.len() > total {
            return Err(missing("longer than announced").into());
        }
        if chunk.last {
            if data.len() != total || crc32c::crc32c(&data) != chunk.crc32c {
                return Err(missing("not what its length and checksum say").into());
            }
            return Ok((head, data.freeze()));
        }
    }
}

async fn chunk_by(
    chunks: &mut (impl Stream<Item = Result<SnapshotChunk, Status>> + Unpin),
    deadline: Instant,
    stopping: &CancellationToken,
    replaced: &CancellationToken,
) -> Result<SnapshotChunk, Status> {
    tokio::select! {
        () = replaced.cancelled() => {
            let text = "another snapshot began to arrive, this one is given up";
            Err(ApiError::new(ErrorCode::SubscriptionReplaced, text).into())
        }
        () = stopping.cancelled() => Err(ApiError::new(ErrorCode::ShuttingDown, "this controller is stopping").into()),
        chunk = tokio::time::timeout_at(deadline, chunks.next()) => match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => Err(missing("cut off").into()),
            Err(_) => Err(ApiError::new(ErrorCode::Timeout, "the snapshot did not arrive in time").into()),
        },
    }
}

/// Lets the appends of one stream in, after looking at each message's head.
struct Gate {
    context: Arc<Context>,
    messages: Streaming<RaftMessage>,
    /// Head of the last message let in: whom answers go to.
    heads: watch::Sender<RaftMessage>,
    refused: oneshot::Sender<ApiError>,
}

impl Gate {
    async fn next(gate: Option<Self>) -> Option<(Bytes, Option<Self>)> {
        let mut gate = gate?;
        let message = gate.messages.message().await.ok()??;
        if let Err(error) = gate.context.admit(&message) {
            let _stream_may_be_gone = gate.refused.send(error);
            return None;
        }
        let payload = message.payload.clone();
        gate.heads.send_replace(RaftMessage { payload: Bytes::new(), ..message });
        Some((payload, Some(gate)))
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    type AppendStream = BoxStream<'static, Result<RaftMessage, Status>>;
    type InstallSnapshotStream = BoxStream<'static, Result<RaftMessage, Status>>;

    async fn append(&self, request: Request<Streaming<RaftMessage>>) -> Result<Response<Self::AppendStream>, Status> {
        // Every message is checked; the first bad one ends the requests, and its refusal ends the answers.
        let (refused, refusals) = oneshot::channel();
        let (heads, mut answers_to) = watch::channel(RaftMessage::default());
        let gate = Gate { context: Arc::clone(&self.0), messages: request.into_inner(), heads, refused };
        let admitted = futures_util::stream::unfold(Some(gate), Gate::next).boxed();
        let context = Arc::clone(&self.0);
        let answers = self.0.quorum.serve_appends(admitted).map(move |answer| match answer {
            Ok(payload) => Ok(context.answer(&answers_to.borrow_and_update(), payload)),
            Err(error) => Err(refusal(error).into()),
        });
        let last = futures_util::stream::once(refusals);
        let last =
            last.filter_map(|refused: Result<ApiError, _>| std::future::ready(refused.ok().map(|e| Err(e.into()))));
        Ok(Response::new(answers.chain(last).take_until(self.0.stopping.clone().cancelled_owned()).boxed()))
    }

    async fn append_once(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.0.unary(Call::Append, request).await
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.0.unary(Call::Vote, request).await
    }

    async fn pre_vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.0.unary(Call::PreVote, request).await
    }

    async fn transfer_leader(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.0.unary(Call::TransferLeader, request).await
    }

    async fn would_lead(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.0.unary(Call::WouldLead, request).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        let installing = Arc::clone(&self.0).install(request.into_inner());
        Ok(Response::new(futures_util::stream::once(installing).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(total_bytes: u64) -> SnapshotChunk {
        SnapshotChunk { head: Some(RaftMessage::default()), total_bytes, ..SnapshotChunk::default() }
    }

    async fn refusal_of(chunks: Vec<SnapshotChunk>, base: Duration, stopping: &CancellationToken) -> ErrorCode {
        let chunks = futures_util::stream::iter(chunks.into_iter().map(Ok)).chain(futures_util::stream::pending());
        let refused = collect(chunks, |_| Ok(CancellationToken::new()), base, stopping)
            .await
            .expect_err("it never arrives whole");
        convert::from_status(&refused).code
    }

    #[tokio::test]
    async fn a_snapshot_that_stops_coming_ends_at_its_deadline_and_with_the_node() {
        let (soon, running) = (Duration::from_millis(5), CancellationToken::new());
        assert_eq!(refusal_of(vec![], soon, &running).await, ErrorCode::Timeout);
        assert_eq!(refusal_of(vec![first(10)], soon, &running).await, ErrorCode::Timeout);
        running.cancel();
        let long = Duration::from_secs(3600);
        assert_eq!(refusal_of(vec![first(10)], long, &running).await, ErrorCode::ShuttingDown);
    }

    #[tokio::test]
    async fn the_newest_snapshot_to_arrive_ends_the_one_before() {
        let (long, running) = (Duration::from_secs(3600), CancellationToken::new());
        let reception = Reception::default();
        let chunks = || futures_util::stream::iter([Ok(first(10))]).chain(futures_util::stream::pending());
        let mut older = Box::pin(collect(chunks(), |_| Ok(reception.begin()), long, &running));
        assert!(futures_util::poll!(&mut older).is_pending());
        let mut newer = Box::pin(collect(chunks(), |_| Ok(reception.begin()), long, &running));
        assert!(futures_util::poll!(&mut newer).is_pending());
        let ended = convert::from_status(&older.await.expect_err("ended by the newer one"));
        assert_eq!(ended.code, ErrorCode::SubscriptionReplaced, "{ended}");
        assert!(futures_util::poll!(&mut newer).is_pending());
    }

    #[tokio::test]
    async fn a_snapshot_of_more_bytes_than_allowed_or_announced_is_refused() {
        let (long, running) = (Duration::from_secs(3600), CancellationToken::new());
        assert_eq!(refusal_of(vec![first(SNAPSHOT_BYTES_MAX + 1)], long, &running).await, ErrorCode::InvalidRequest);
        let longer = SnapshotChunk { data: Bytes::from_static(b"eleven bytes"), ..SnapshotChunk::default() };
        assert_eq!(refusal_of(vec![first(10), longer], long, &running).await, ErrorCode::InvalidRequest);
    }
}
