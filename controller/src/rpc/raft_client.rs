//! Raft between controllers, sending side: a `Transport` over gRPC with one connection per peer and lane, so that a
//! snapshot or a large append never holds up a heartbeat. Enforces the deadlines it is given.

use super::peers::Peers;
use super::raft::RAFT_FORMAT;
use crate::feed::Feed;
use crate::limits::SNAPSHOT_CHUNK;
use crate::quorum::VoterId;
use crate::quorum::transport::{Call, Lane, LinkError, Peer, Transport};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use parking_lot::Mutex;
use protocol::error::ErrorCode;
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::Channel;
use protocol::rpc::channel::{Dialer, Traffic, raft_client};
use protocol::rpc::convert;
use protocol::rpc::pb::raft::v1::raft_client::RaftClient;
use protocol::rpc::pb::raft::v1::{RaftMessage, SnapshotChunk};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

/// See the module's text.
pub(crate) struct GrpcTransport {
    cluster_id: Uuid,
    me: VoterId,
    dialer: Dialer,
    /// Tells the incarnation.
    feed: Arc<Feed>,
    channels: Mutex<BTreeMap<(String, u16, Lane), Channel>>,
    peers: Arc<Peers>,
}

impl GrpcTransport {
    pub(crate) fn new(cluster_id: Uuid, me: VoterId, dialer: Dialer, feed: Arc<Feed>) -> Self {
        Self { cluster_id, me, dialer, feed, channels: Mutex::new(BTreeMap::new()), peers: Arc::default() }
    }

    fn client(&self, to: &Peer) -> Result<RaftClient<Channel>, LinkError> {
        let key = (to.host.clone(), to.port, to.lane);
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(&key) {
            return Ok(raft_client(channel.clone()));
        }
        let address = Endpoint { host: to.host.clone(), port: to.port };
        let dialled = self.dialer.lazy(&address, Traffic::Control);
        let channel = dialled.map_err(|e| LinkError::Unreachable(e.to_string()))?;
        channels.insert(key, channel.clone());
        Ok(raft_client(channel))
    }

    fn message(&self, to: VoterId, payload: Bytes) -> RaftMessage {
        RaftMessage {
            cluster: Some(convert::cluster_ref(self.cluster_id, self.feed.image().cluster.incarnation)),
            from: self.me.id,
            from_directory: convert::uuid_bytes(self.me.directory),
            to: to.id,
            to_directory: convert::uuid_bytes(to.directory),
            format: RAFT_FORMAT,
            payload,
        }
    }
}

fn link_error(status: &Status, deadline: Duration) -> LinkError {
    let error = convert::from_status(status);
    match (error.code, status.code()) {
        (ErrorCode::NotReachable, _) | (ErrorCode::Timeout, Code::Unavailable) => LinkError::Unreachable(error.message),
        (ErrorCode::Timeout, _) => LinkError::Timeout(deadline),
        _ => LinkError::Refused(error.to_string()),
    }
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(link_error(&status, deadline)),
        Err(_) => Err(LinkError::Timeout(deadline)),
    }
}

impl Transport for GrpcTransport {
    fn call(
        &self,
        to: Peer,
        call: Call,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, LinkError>> {
        let client = self.client(&to);
        let (message, peers) = (self.message(to.voter, payload), Arc::clone(&self.peers));
        Box::pin(async move {
            let mut client = client?;
            let mut request = Request::new(message);
            request.set_timeout(deadline);
            let answer = match call {
                Call::Append => within(deadline, client.append_once(request)).await,
                Call::Vote => within(deadline, client.vote(request)).await,
                Call::PreVote => within(deadline, client.pre_vote(request)).await,
                Call::WouldLead => within(deadline, client.would_lead(request)).await,
                Call::TransferLeader => within(deadline, client.transfer_leader(request)).await,
            };
            peers.tried(to.voter, &answer);
            Ok(answer?.payload)
        })
    }

    fn appends(
        &self,
        to: Peer,
        requests: BoxStream<'static, Bytes>,
        setup: Duration,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, LinkError>>, LinkError>> {
        let client = self.client(&to);
        let head = self.message(to.voter, Bytes::new());
        Box::pin(async move {
            let messages = Messages { head, requests };
            let answers = within(setup, client?.append(messages)).await?;
            Ok(answers.map(move |a| a.map(|m| m.payload).map_err(|s| link_error(&s, setup))).boxed())
        })
    }

    fn snapshot(
        &self,
        to: Peer,
        head: Bytes,
        data: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, LinkError>> {
        let client = self.client(&to);
        let head = self.message(to.voter, head);
        Box::pin(async move {
            let chunks = tokio_stream::iter(chunks(head, data));
            let mut client = client?;
            let installed = async {
                let mut answers = client.install_snapshot(chunks).await?.into_inner();
                let answer = answers.message().await?;
                answer.map(Response::new).ok_or_else(|| Status::unavailable("the stream ended without an answer"))
            };
            Ok(within(deadline, installed).await?.payload)
        })
    }
}

/// Requests in their envelopes.
struct Messages {
    head: RaftMessage,
    requests: BoxStream<'static, Bytes>,
}

impl Stream for Messages {
    type Item = RaftMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Option<RaftMessage>> {
        let next = self.requests.poll_next_unpin(context);
        next.map(|payload| Some(RaftMessage { payload: payload?, ..self.head.clone() }))
    }
}

/// Head, data in chunks, and a last one with the checksum.
fn chunks(head: RaftMessage, data: Bytes) -> impl Iterator<Item = SnapshotChunk> + Send + 'static {
    let total_bytes = data.len() as u64;
    let crc32c = crc32c::crc32c(&data);
    let first = SnapshotChunk { head: Some(head), total_bytes, ..SnapshotChunk::default() };
    let last = SnapshotChunk { crc32c, last: true, ..SnapshotChunk::default() };
    let starts = (0..data.len()).step_by(SNAPSHOT_CHUNK);
    let middle = starts.map(move |at| SnapshotChunk {
        data: data.slice(at..data.len().min(at + SNAPSHOT_CHUNK)),
        ..SnapshotChunk::default()
    });
    std::iter::once(first).chain(middle).chain(std::iter::once(last))
}
