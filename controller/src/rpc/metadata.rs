//! The metadata feed: snapshot when the follower is too far behind, then batches, and once a second where we are.
//! Every controller serves it. A follower whose history is another one is told so and must stop. One that does not
//! drain its stream is dropped; it comes back with its position.

use super::Context;
use crate::feed::FeedStep;
use crate::limits::{
    FEED_FOLLOWER_QUEUE, FEED_FOLLOWER_STALL, FEED_FOLLOWERS_MAX, FEED_POSITION_INTERVAL, FEED_STEP_BYTES,
};
use crate::tasks;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::BatchNo;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::snapshot;
use protocol::rpc::pb::metadata::v1::metadata_server::Metadata;
use protocol::rpc::pb::metadata::v1::{
    FeedBatch, FeedItem, FeedPosition, FeedSnapshot, FollowRequest, feed_item::Item,
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

pub(super) struct MetadataService(pub(super) Arc<Context>);

type Items = mpsc::Sender<Result<FeedItem, Status>>;

/// Where a follower is.
struct Follower {
    context: Arc<Context>,
    items: Items,
    node: u32,
    at: BatchNo,
    chain_hash: u64,
    supported: u32,
    _place: OwnedSemaphorePermit,
}

/// The follower is gone, or too slow.
struct Gone;

impl Follower {
    async fn run(mut self) {
        let gauge = metrics::gauge!(crate::metrics::FEED_FOLLOWERS);
        gauge.increment(1.0);
        let stopping = self.context.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            outcome = self.feed() => if let Err(error) = outcome {
                tracing::warn!(node = self.node, %error, "feed refused");
                let _follower_may_be_gone = self.items.try_send(Err(error.into()));
            },
        }
        gauge.decrement(1.0);
    }

    async fn feed(&mut self) -> Result<(), ApiError> {
        let mut position = self.context.feed.position();
        loop {
            position.borrow_and_update();
            let version = u32::from(self.context.feed.image().cluster.metadata_version);
            if version > self.supported {
                let limit = format!("{version} or more, the finalized metadata.version");
                return Err(ApiError::bad(ErrorCode::UnsupportedVersion, "supported_version", self.supported, limit));
            }
            let next = self.context.feed.next(self.at, self.chain_hash, FEED_STEP_BYTES);
            let sent = match next.map_err(|e| ApiError::new(ErrorCode::FeedDiverged, e.to_string()))? {
                FeedStep::Snapshot(image) => self.send_snapshot(&image).await,
                FeedStep::Batches(batches) => self.send_batches(batches).await,
                FeedStep::Idle => match tokio::time::timeout(FEED_POSITION_INTERVAL, position.changed()).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(Gone),
                    Err(_) => {
                        self.send(Item::Position(FeedPosition { batch_no: self.context.feed.image().batch_no.0 })).await
                    }
                },
            };
            if sent.is_err() {
                return Ok(());
            }
        }
    }

    async fn send(&self, item: Item) -> Result<(), Gone> {
        let item = Ok(FeedItem { item: Some(item) });
        match self.items.send_timeout(item, FEED_FOLLOWER_STALL).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                metrics::counter!(crate::metrics::FEED_FOLLOWERS_DROPPED).increment(1);
                tracing::warn!(node = self.node, "feed follower does not keep up and is dropped");
                Err(Gone)
            }
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Gone),
        }
    }

    async fn send_batches(&mut self, batches: Vec<crate::feed::AppliedBatch>) -> Result<(), Gone> {
        for batch in batches {
            let item = FeedBatch { batch_no: batch.batch_no.0, chain_hash: batch.chain_hash, data: batch.data };
            self.send(Item::Batch(item)).await?;
            (self.at, self.chain_hash) = (batch.batch_no, batch.chain_hash);
        }
        Ok(())
    }

    async fn send_snapshot(&mut self, image: &MetadataImage) -> Result<(), Gone> {
        let chunks = snapshot::encode(image);
        let crc = chunks.iter().fold(0, |crc, chunk| crc32c::crc32c_append(crc, chunk));
        let count = chunks.len();
        for (number, data) in chunks.into_iter().enumerate() {
            let last = number + 1 == count;
            let item = FeedSnapshot {
                batch_no: image.batch_no.0,
                chain_hash: image.chain_hash,
                data,
                last,
                crc32c: if last { crc } else { 0 },
            };
            self.send(Item::Snapshot(item)).await?;
        }
        (self.at, self.chain_hash) = (image.batch_no, image.chain_hash);
        Ok(())
    }
}

#[tonic::async_trait]
impl Metadata for MetadataService {
    type FollowStream = BoxStream<'static, Result<FeedItem, Status>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let request = request.into_inner();
        self.0.check(request.cluster.as_ref(), true)?;
        let place = Arc::clone(&self.0.feed_places).try_acquire_owned().map_err(|_| {
            ApiError::new(
                ErrorCode::Overloaded,
                format!("{FEED_FOLLOWERS_MAX} nodes follow the feed of this controller"),
            )
        })?;
        let (items, receiver) = mpsc::channel(FEED_FOLLOWER_QUEUE);
        let follower = Follower {
            context: Arc::clone(&self.0),
            items,
            node: request.node_id,
            at: BatchNo(request.batch_no),
            chain_hash: request.chain_hash,
            supported: request.supported_version,
            _place: place,
        };
        tasks::spawn("feed-follower", follower.run());
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }
}
