//! Keeps the broker's image current: follows one controller's feed, changes to another when that one fails, falls
//! behind or breaks off, and hands every new image to the shards before anybody may route by it.
//!
//! Owns the published image ([`Images`]). Never: goes back, skips a fact, acts on an image itself.
//! Invariant: an image is published only after every shard has taken it; so whoever sees batch n, and a lease renewed
//! on batch n, meets shards that know batch n (DESIGN sections 2 and 4).

use arc_swap::ArcSwap;
use protocol::ids::{BatchNo, BrokerId};
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{Endpoint, METADATA_VERSION_MAX};
use protocol::rpc::channel::{Traffic, metadata_client};
use protocol::rpc::convert::{cluster_ref, from_status};
use protocol::rpc::pb::metadata::v1::{FeedItem, FollowRequest};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
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

    fn publish(&self, image: Arc<MetadataImage>) {
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
        let mut stream = match self.open(source).await {
            Ok(stream) => stream,
            Err(fault) => return fault,
        };
        let mut reader = FeedReader::default();
        loop {
            let item = tokio::select! {
                biased;
                item = stream.message() => item,
                () = self.change_source.notified() => {
                    return FeedFault::Switch("it stays behind the active controller".into());
                }
            };
            match item {
                Ok(Some(item)) => {
                    if let Err(fault) = self.take(&mut reader, item).await {
                        return fault;
                    }
                }
                Ok(None) => return FeedFault::Switch("it ended the stream".into()),
                Err(status) => return refusal(&status),
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
