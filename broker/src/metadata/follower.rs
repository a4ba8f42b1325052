//! Keeps the broker's image current: follows one controller's feed, changes to another when that one fails, falls
//! behind or breaks off, and hands every new image to the shards before anybody may route by it.
//!
//! Owns the published image ([`Images`]). Never: goes back, skips a fact, acts on an image itself.
//! Invariant: an image is published only after every shard has taken it; so whoever sees batch n, and a lease renewed
//! on batch n, meets shards that know batch n (DESIGN sections 2 and 4).

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use protocol::ids::{BatchNo, BrokerId};
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{Endpoint, METADATA_VERSION_MAX};
use protocol::rpc::channel::{Traffic, metadata_client};
use protocol::rpc::convert::{cluster_ref, from_status};
use protocol::rpc::pb::metadata::v1::{FeedItem, FollowRequest, feed_item::Item};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::feed::{Change, Fed, FeedFault, FeedReader};
use crate::fatal::{Fatal, Halt};
use crate::limits;
use crate::link::{Controllers, jittered};

/// The image as the broker's parts see it.
#[derive(Debug)]
pub struct Images {
    current: ArcSwap<MetadataImage>,
    applied: watch::Sender<BatchNo>,
}

impl Default for Images {
    fn default() -> Self {
        Self { current: ArcSwap::default(), applied: watch::Sender::new(BatchNo(0)) }
    }
}

impl Images {
    /// The newest image that every shard has taken.
    #[must_use]
    pub fn load(&self) -> Arc<MetadataImage> {
        self.current.load_full()
    }

    /// Its batch number, and a wake-up at each change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<BatchNo> {
        self.applied.subscribe()
    }

    pub(crate) fn publish(&self, image: Arc<MetadataImage>) {
        let batch_no = image.batch_no;
        self.current.store(image);
        self.applied.send_replace(batch_no);
    }
}

/// Who must have taken an image before it is published: the shards.
pub trait ImageSink: Send + Sync + 'static {
    /// Hands over an image and what it changed; resolves once it is taken.
    fn take(&self, image: Arc<MetadataImage>, change: Arc<Change>) -> impl Future<Output = ()> + Send;
}

/// The follower and what it needs.
#[derive(Debug)]
pub struct Follower<S> {
    /// The cluster this directory was formatted for.
    pub cluster_id: Uuid,
    /// This broker.
    pub node: BrokerId,
    /// Where to follow.
    pub controllers: Controllers,
    /// Where images are published.
    pub images: Arc<Images>,
    /// Rung when this source stays behind what is committed.
    pub change_source: Arc<Notify>,
    /// How long a source may take to answer: one session timeout.
    pub patience: Duration,
    /// Takes images first.
    pub sink: S,
    /// Where the end of the road is reported.
    pub halt: Halt,
}

impl<S: ImageSink> Follower<S> {
    /// Follows until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut turn = usize::try_from(self.node.0).unwrap_or(0);
        let mut pause = Duration::from_millis(limits::RETRY_PAUSE_MS_MIN);
        while !stop.is_cancelled() {
            let sources = self.controllers.all();
            let Some(source) = sources.get(turn % sources.len().max(1)).cloned() else { return };
            turn = turn.wrapping_add(1);
            let before = self.images.load().batch_no;
            let fault = tokio::select! {
                () = stop.cancelled() => return,
                fault = self.follow(&source) => fault,
            };
            match fault {
                FeedFault::Halt(reason) => {
                    let text = format!("feed of {}:{}: {reason}", source.host, source.port);
                    return self.halt.halt(&Fatal::Metadata(text));
                }
                FeedFault::Switch(reason) => {
                    tracing::info!(controller = %format!("{}:{}", source.host, source.port), %reason, "changing the feed's source");
                }
            }
            if self.images.load().batch_no > before {
                pause = Duration::from_millis(limits::RETRY_PAUSE_MS_MIN);
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(Duration::from_millis(limits::RETRY_PAUSE_MS_MAX));
        }
    }

    async fn open(&self, source: &Endpoint) -> Result<Streaming<FeedItem>, FeedFault> {
        let switch = |text: String| FeedFault::Switch(text);
        let channel =
            self.controllers.dialer().connect(source, Traffic::Control).await.map_err(|e| switch(e.to_string()))?;
        let image = self.images.load();
        let request = FollowRequest {
            cluster: Some(cluster_ref(self.cluster_id, image.cluster.incarnation)),
            batch_no: image.batch_no.0,
            chain_hash: image.chain_hash,
            node_id: self.node.0,
            supported_version: u32::from(METADATA_VERSION_MAX),
        };
        let mut client = metadata_client(channel);
        let answer = tokio::time::timeout(self.patience, client.follow(request));
        match answer.await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(refusal(&status)),
            Err(_) => Err(switch("it did not answer".into())),
        }
    }

    async fn follow(&self, source: &Endpoint) -> FeedFault {
        match self.open(source).await {
            Ok(stream) => self.take_all(stream).await,
            Err(fault) => fault,
        }
    }

    /// Takes what a source sends until one of both can go on no longer.
    async fn take_all(&self, mut stream: impl Stream<Item = Result<FeedItem, Status>> + Unpin) -> FeedFault {
        let mut reader = FeedReader::default();
        // Nobody can say yet that a source stays behind: who asks the active controller needs an image first. A controller
        // that is no member has none, ever: all it says is where it stands. One that sends facts is waited for, however
        // long a first snapshot takes.
        let mut empty_handed = pin!(tokio::time::sleep(self.patience));
        loop {
            let item = tokio::select! {
                biased;
                item = stream.next() => item,
                () = &mut empty_handed, if !self.images.load().cluster.is_formed() => {
                    return FeedFault::Switch("it knows of no cluster".into());
                }
                () = self.change_source.notified() => {
                    return FeedFault::Switch("it stays behind the active controller".into());
                }
            };
            match item {
                Some(Ok(item)) => {
                    let facts = matches!(item.item, Some(Item::Snapshot(_) | Item::Batch(_)));
                    if let Err(fault) = self.take(&mut reader, item).await {
                        return fault;
                    }
                    if facts {
                        empty_handed.as_mut().reset(Instant::now() + self.patience);
                    }
                }
                Some(Err(status)) => return refusal(&status),
                None => return FeedFault::Switch("it ended the stream".into()),
            }
        }
    }

    async fn take(&self, reader: &mut FeedReader, item: FeedItem) -> Result<(), FeedFault> {
        let image = self.images.load();
        let Fed::Image(new, change) = reader.take(&image, item)? else { return Ok(()) };
        if new.cluster.is_formed() && new.cluster.cluster_id != self.cluster_id {
            return Err(FeedFault::Halt(format!(
                "this directory belongs to cluster {}, the feed to cluster {}",
                self.cluster_id, new.cluster.cluster_id
            )));
        }
        let new: Arc<MetadataImage> = Arc::from(new);
        self.sink.take(new.clone(), Arc::new(change)).await;
        self.images.publish(new);
        Ok(())
    }
}

/// A refusal that says this node's history or version is wrong halts it; any other asks for another source.
fn refusal(status: &Status) -> FeedFault {
    use protocol::error::ErrorCode as E;
    let error = from_status(status);
    match error.code {
        E::FeedDiverged | E::WrongCluster | E::WrongIncarnation | E::UnsupportedVersion => {
            FeedFault::Halt(error.to_string())
        }
        _ => FeedFault::Switch(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::metadata::batch::MetadataBatch;
    use protocol::metadata::record::{ClusterFormed, Fact};
    use protocol::metadata::snapshot;
    use protocol::rpc::channel::Dialer;
    use protocol::rpc::pb::metadata::v1::{FeedPosition, FeedSnapshot};

    const PATIENCE: Duration = Duration::from_secs(2);

    #[derive(Debug)]
    struct Nowhere;

    impl ImageSink for Nowhere {
        async fn take(&self, _: Arc<MetadataImage>, _: Arc<Change>) {}
    }

    fn follower() -> Follower<Nowhere> {
        Follower {
            cluster_id: Uuid::from_u128(7),
            node: BrokerId(1),
            controllers: Controllers::new(Vec::new(), Dialer::plain()),
            images: Arc::default(),
            change_source: Arc::default(),
            patience: PATIENCE,
            sink: Nowhere,
            halt: Halt::with(|fatal| panic!("{fatal}")),
        }
    }

    /// The snapshot of a cluster, a byte in each item.
    fn chunks() -> Vec<FeedItem> {
        let formed = ClusterFormed { cluster_id: Uuid::from_u128(7), incarnation: 1, metadata_version: 1 };
        let batch = MetadataBatch { base: BatchNo(0), facts: vec![Fact::ClusterFormed(formed)] };
        let (image, _) = MetadataImage::default().apply(&batch, &batch.encode()).expect("the first fact");
        let data: Vec<u8> = snapshot::encode(&image).concat();
        let (last, crc32c) = (data.len() - 1, crc32c::crc32c(&data));
        let chunk = |(index, byte)| {
            let (batch_no, chain_hash, last) = (image.batch_no.0, image.chain_hash, index == last);
            let chunk = FeedSnapshot { batch_no, chain_hash, data: vec![byte].into(), last, crc32c };
            FeedItem { item: Some(Item::Snapshot(chunk)) }
        };
        data.into_iter().enumerate().map(chunk).collect()
    }

    /// A source that sends an item at a time, and then ends.
    fn slow(items: Vec<FeedItem>, every: Duration) -> impl Stream<Item = Result<FeedItem, Status>> + Unpin {
        let ticks = tokio::time::interval_at(Instant::now() + every, every);
        Box::pin(futures_util::stream::unfold((ticks, items.into_iter()), |(mut ticks, mut items)| async move {
            ticks.tick().await;
            Some((Ok(items.next()?), (ticks, items)))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_snapshot_may_take_many_patiences_as_long_as_it_comes() {
        let (follower, chunks) = (follower(), chunks());
        assert!(chunks.len() > 6, "three patiences");
        let fault = follower.take_all(slow(chunks, PATIENCE / 2)).await;
        assert_eq!(fault, FeedFault::Switch("it ended the stream".into()));
        assert!(follower.images.load().cluster.is_formed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_only_says_where_it_stands_is_left_after_one_patience() {
        let (follower, begin) = (follower(), Instant::now());
        let position = FeedItem { item: Some(Item::Position(FeedPosition { batch_no: 0 })) };
        let fault = follower.take_all(slow(vec![position; 10], PATIENCE / 4)).await;
        assert_eq!(fault, FeedFault::Switch("it knows of no cluster".into()));
        assert_eq!(begin.elapsed(), PATIENCE);
    }
}
