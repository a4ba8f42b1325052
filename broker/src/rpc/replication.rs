//! The replication service of the internal listener: checks a follower's hello, then lets `replication::leader` read.

use futures_util::{Stream, StreamExt};
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::BrokerId;
use protocol::rpc::convert::status;
use protocol::rpc::pb::replication::v1::replication_server::Replication;
use protocol::rpc::pb::replication::v1::{self as wire, follower_message, leader_message};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

use crate::limits;
use crate::metadata::follower::Images;
use crate::replication::leader::{FollowerReader, FollowerStream, check_hello};
use crate::shard::Shards;

/// The service. One per listener and shard, all with the same numbering of streams.
#[derive(Debug, Clone)]
pub struct ReplicationService {
    me: BrokerId,
    images: Arc<Images>,
    shards: Shards,
    numbers: Arc<AtomicU64>,
}

impl ReplicationService {
    /// Serves partitions of these shards.
    #[must_use]
    pub fn new(me: BrokerId, images: Arc<Images>, shards: Shards) -> Self {
        Self { me, images, shards, numbers: Arc::default() }
    }

    async fn hello(&self, incoming: &mut Streaming<wire::FollowerMessage>) -> Result<wire::Hello, ApiError> {
        let patience = Duration::from_millis(limits::REPLICATION_HELLO_MS);
        match tokio::time::timeout(patience, incoming.message()).await {
            Ok(Ok(Some(wire::FollowerMessage { message: Some(follower_message::Message::Hello(hello)) }))) => Ok(hello),
            _ => Err(ApiError::bad(ErrorCode::InvalidRequest, "hello", "missing", "the first message, in time")),
        }
    }
}

#[tonic::async_trait]
impl Replication for ReplicationService {
    type ReplicateStream = Pin<Box<dyn Stream<Item = Result<wire::LeaderMessage, Status>> + Send>>;

    async fn replicate(
        &self,
        request: Request<Streaming<wire::FollowerMessage>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let mut incoming = request.into_inner();
        let hello = self.hello(&mut incoming).await.map_err(status)?;
        let image = self.images.load();
        let (broker, epoch) = check_hello(&hello, self.me, &image).map_err(status)?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(FollowerStream::new(number, broker, epoch, hello.credit_bytes));
        let own_epoch = image.brokers.get(self.me).map_or(0, |b| b.epoch.0);
        let welcome = wire::Welcome { broker_id: self.me.0, broker_epoch: own_epoch };
        stream.send(leader_message::Message::Welcome(welcome));
        let messages = stream.outbox.clone().messages().map(Ok);
        tokio::spawn(FollowerReader::new(stream, self.shards.clone()).run(incoming));
        Ok(Response::new(Box::pin(messages)))
    }
}
