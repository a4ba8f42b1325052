//! openraft's network over a [`Transport`]: encodes requests, keeps several appends on their way, gives every RPC a
//! deadline. A transport failure is never a granted vote. The input stream of appends is polled only from
//! the output stream, so that dropping one drops the other: openraft holds a lock while it waits for the next request.

use super::admission::{self, Asked, Inadmissible};
use super::transport::{Call, Lane, LinkError, Peer, Transport};
use super::types::alias::{RPCError, Snapshot, Vote};
use super::types::{TypeConfig, VoterId, VoterNode};
use crate::limits::{APPEND_DEADLINE_BASE, APPENDS_IN_FLIGHT, SNAPSHOT_DEADLINE_BASE, deadline_for};
use crate::quorum::snapshot::ImageBytes;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// Head of a snapshot on the wire.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct SnapshotHead {
    pub(super) vote: Vote,
    pub(super) meta: super::types::alias::SnapshotMeta,
}

pub(super) fn encode<T: Serialize>(message: &T) -> Bytes {
    Bytes::from(postcard::to_stdvec(message).expect("Raft messages hold only types that postcard can always write"))
}

/// Makes clients for peers.
#[derive(Clone)]
pub(super) struct Factory {
    pub(super) me: VoterId,
    pub(super) transport: Arc<dyn Transport>,
    /// As configured here; they go before the membership's.
    pub(super) addresses: BTreeMap<VoterId, VoterNode>,
}

impl Factory {
    fn client(&self, voter: VoterId, node: &VoterNode, lane: Lane) -> Client {
        let node = self.addresses.get(&voter).unwrap_or(node);
        let peer = Peer { voter, host: node.host.clone(), port: node.port, lane };
        Client { me: self.me, peer, transport: Arc::clone(&self.transport) }
    }
}

impl Factory {
    /// Whether a voter says that it would take leadership over.
    pub(super) fn would_lead(
        &self,
        voter: VoterId,
        node: &VoterNode,
        deadline: Duration,
    ) -> impl Future<Output = bool> + use<> {
        let client = self.client(voter, node, Lane::Control);
        let asked = client.transport.call(client.peer, Call::WouldLead, Bytes::new(), deadline);
        async move {
            let answer = asked.await;
            if let Err(error) = &answer {
                tracing::info!(%voter, %error, "a voter would not take leadership over");
            }
            answer.is_ok()
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Client;

    async fn new_client(&mut self, target: VoterId, node: &VoterNode) -> Client {
        self.client(target, node, Lane::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: VoterId, node: &VoterNode) -> Client {
        self.client(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: VoterId, node: &VoterNode) -> Client {
        self.client(target, node, Lane::Snapshots)
    }
}

/// One peer on one lane.
pub(super) struct Client {
    me: VoterId,
    peer: Peer,
    transport: Arc<dyn Transport>,
}

impl Client {
    fn rpc_error(&self, action: RPCTypes, error: LinkError) -> RPCError {
        rpc_error(self.me, self.peer.voter, action, error)
    }

    /// Votes and hand-over use the control lane whichever client openraft took.
    async fn control<Q: Serialize, A: DeserializeOwned>(
        &self,
        call: Call,
        action: RPCTypes,
        request: &Q,
        option: &RPCOption,
    ) -> Result<A, RPCError> {
        let peer = Peer { lane: Lane::Control, ..self.peer.clone() };
        let answer = self.transport.call(peer, call, encode(request), option.soft_ttl()).await;
        let bytes = answer.map_err(|e| self.rpc_error(action, e))?;
        decode(&bytes)
    }
}

fn rpc_error(me: VoterId, target: VoterId, action: RPCTypes, error: LinkError) -> RPCError {
    match error {
        LinkError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&error)),
        LinkError::Timeout(timeout) => RPCError::Timeout(Timeout { action, id: me, target, timeout }),
        LinkError::Refused(_) => RPCError::Network(NetworkError::new(&error)),
    }
}

fn decode<A: DeserializeOwned>(bytes: &[u8]) -> Result<A, RPCError> {
    postcard::from_bytes(bytes).map_err(|e| RPCError::Network(NetworkError::new(&e)))
}

/// An answer that no controller gives counts as none; nor does one to a question of a term that is over.
fn admitted<A>(answer: A, verdict: Result<(), Inadmissible>) -> Result<A, RPCError> {
    verdict.map(|()| answer).map_err(|refused| {
        tracing::warn!(%refused, "a peer's answer is not taken");
        RPCError::Network(NetworkError::new(&refused))
    })
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = ImageBytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError> {
        let answer = self.control(Call::Append, RPCTypes::AppendEntries, &request, &option).await?;
        let verdict = admission::appended(&answer, &Asked::of(self.me, &request));
        admitted(answer, verdict)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError>>, RPCError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.peer.lane == Lane::Control {
            return stream_append_sequential(self, input, option);
        }
        let (me, peer, transport) = (self.me, self.peer.clone(), Arc::clone(&self.transport));
        let setup = option.soft_ttl().max(APPEND_DEADLINE_BASE);
        let opening = open_pipeline(me, peer, transport, input, setup);
        Box::pin(async move { Ok(futures_util::stream::once(opening).flatten().boxed()) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError> {
        let answer = self.control(Call::Vote, RPCTypes::Vote, &request, &option).await?;
        let verdict = admission::voted(&answer, self.me, request.vote.leader_id.term);
        admitted(answer, verdict)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError> {
        let answer = self.control(Call::PreVote, RPCTypes::Vote, &request, &option).await?;
        let verdict = admission::voted(&answer, self.me, request.vote.leader_id.term);
        admitted(answer, verdict)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let data = snapshot.snapshot.0;
        let head = encode(&SnapshotHead { vote, meta: snapshot.meta });
        let term = vote.leader_id.term;
        let deadline = deadline_for(SNAPSHOT_DEADLINE_BASE.max(option.soft_ttl()), data.len());
        let sending = self.transport.snapshot(self.peer.clone(), head, data, deadline);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = sending => {
                let bytes = answer.map_err(|e| self.rpc_error(RPCTypes::InstallSnapshot, e))?;
                let answer: SnapshotResponse<TypeConfig> = decode(&bytes)?;
                let verdict = admission::another_vote("answer.vote", &answer.vote, self.me, term);
                Ok(admitted(answer, verdict)?)
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError> {
        self.control(Call::TransferLeader, RPCTypes::TransferLeader, &request, &option).await
    }
}

/// Several appends under way to one follower, answered in order.
struct Pipeline<S> {
    me: VoterId,
    target: VoterId,
    input: Option<S>,
    requests: mpsc::Sender<Bytes>,
    answers: BoxStream<'static, Result<Bytes, LinkError>>,
    /// When each unanswered request must be answered, the time it was given, and what it asked.
    deadlines: VecDeque<(Instant, Duration, Asked)>,
}

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError>;

/// Connects once there is something to send, and answers. Why not before: openraft's pause after a failure is in the wait
/// for the first request; who connects ahead of it dials a peer that is down without end.
async fn open_pipeline<'s, S>(
    me: VoterId,
    peer: Peer,
    transport: Arc<dyn Transport>,
    mut input: S,
    setup: Duration,
) -> BoxStream<'s, Answer>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 's,
{
    let Some(first) = input.next().await else { return futures_util::stream::empty().boxed() };
    let target = peer.voter;
    let (requests, receiver) = mpsc::channel(APPENDS_IN_FLIGHT);
    let answers = match transport.appends(peer, ReceiverStream::new(receiver).boxed(), setup).await {
        Ok(answers) => answers,
        Err(error) => {
            let error = rpc_error(me, target, RPCTypes::AppendEntries, error);
            return futures_util::stream::iter([Err(error)]).boxed();
        }
    };
    let mut pipeline = Pipeline { me, target, input: Some(input), requests, answers, deadlines: VecDeque::new() };
    pipeline.send(&first);
    futures_util::stream::unfold(Some(pipeline), Pipeline::next).boxed()
}

impl<S> Pipeline<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    async fn next(state: Option<Self>) -> Option<(Answer, Option<Self>)> {
        let mut this = state?;
        loop {
            if this.input.is_none() && this.deadlines.is_empty() {
                return None;
            }
            let may_send = this.input.is_some() && this.deadlines.len() < APPENDS_IN_FLIGHT;
            let oldest = this.deadlines.front().copied();
            tokio::select! {
                biased;
                answer = this.answers.next() => return this.answered(answer),
                request = next_request(&mut this.input), if may_send => match request {
                    Some(request) => this.send(&request),
                    None => this.input = None,
                },
                timeout = expiry(oldest), if oldest.is_some() => {
                    let error = rpc_error(this.me, this.target, RPCTypes::AppendEntries, LinkError::Timeout(timeout));
                    return Some((Err(error), None));
                }
            }
        }
    }

    fn send(&mut self, request: &AppendEntriesRequest<TypeConfig>) {
        let bytes = encode(request);
        let time = deadline_for(APPEND_DEADLINE_BASE, bytes.len());
        self.deadlines.push_back((Instant::now() + time, time, Asked::of(self.me, request)));
        // The channel has a place for every request under way. A closed one shows as the end of the answers.
        if self.requests.try_send(bytes).is_err() {
            tracing::debug!(target = %self.target, "append stream closed while sending");
        }
    }

    fn answered(mut self, answer: Option<Result<Bytes, LinkError>>) -> Option<(Answer, Option<Self>)> {
        let asked = self.deadlines.pop_front().map(|(_, _, asked)| asked);
        let result = match answer {
            Some(Ok(bytes)) => decode::<StreamAppendResult<TypeConfig>>(&bytes).and_then(|answer| {
                let verdict = admission::streamed(&answer, asked.as_ref());
                admitted(answer, verdict)
            }),
            Some(Err(error)) => Err(rpc_error(self.me, self.target, RPCTypes::AppendEntries, error)),
            None => {
                let error = LinkError::Unreachable("append stream ended".to_owned());
                Err(rpc_error(self.me, self.target, RPCTypes::AppendEntries, error))
            }
        };
        let goes_on = matches!(result, Ok(Ok(_)));
        Some((result, goes_on.then_some(self)))
    }
}

async fn next_request<S>(input: &mut Option<S>) -> Option<AppendEntriesRequest<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

async fn expiry(oldest: Option<(Instant, Duration, Asked)>) -> Duration {
    match oldest {
        Some((at, time, _)) => {
            tokio::time::sleep_until(at).await;
            time
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use parking_lot::Mutex;
    use std::time::Duration;

    /// Nobody is there; counts who tried.
    #[derive(Default)]
    struct Nobody(Mutex<u32>);

    impl Transport for Nobody {
        fn call(&self, _: Peer, _: Call, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, LinkError>> {
            Box::pin(async { Err(LinkError::Unreachable("nobody".into())) })
        }

        fn appends(
            &self,
            _: Peer,
            _: BoxStream<'static, Bytes>,
            _: Duration,
        ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, LinkError>>, LinkError>> {
            *self.0.lock() += 1;
            Box::pin(async { Err(LinkError::Unreachable("nobody".into())) })
        }

        fn snapshot(&self, _: Peer, _: Bytes, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, LinkError>> {
            Box::pin(async { Err(LinkError::Unreachable("nobody".into())) })
        }
    }

    #[tokio::test]
    async fn a_peer_is_dialled_only_once_openraft_has_ended_its_pause() {
        let nobody = Arc::new(Nobody::default());
        let voter = VoterId { id: 2, directory: uuid::Uuid::from_u128(2) };
        let peer = Peer { voter, host: "h".into(), port: 1, lane: Lane::Entries };
        let mut client = Client { me: voter, peer, transport: Arc::clone(&nobody) as Arc<dyn Transport> };
        let (request, requests) = mpsc::channel(1);
        let option = RPCOption::new(Duration::from_millis(100));
        let mut answers = client.stream_append(ReceiverStream::new(requests), option).await.expect("not opened yet");
        assert!(answers.next().now_or_never().is_none(), "it waits for the first request");
        assert_eq!(*nobody.0.lock(), 0, "nothing to send yet: nobody is dialled");
        let vote = Vote::new(1, voter);
        let heartbeat = AppendEntriesRequest { vote, prev_log_id: None, entries: vec![], leader_commit: None };
        request.send(heartbeat).await.expect("it listens");
        let answer = answers.next().await.expect("an answer");
        assert!(matches!(answer, Err(RPCError::Unreachable(_))), "{answer:?}");
        assert_eq!(*nobody.0.lock(), 1);
        assert!(answers.next().await.is_none());
    }
}
