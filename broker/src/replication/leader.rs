//! A leader's end of a replication stream: who the follower is, how much it takes, and the way from its messages to the
//! shards that own the partitions.
//!
//! Never: decides whether a follower counts (that is `replica`). Invariant: nothing of a stream is read before its hello
//! matched this cluster, this broker, and a registration in the image.

use parking_lot::Mutex;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerEpoch, BrokerId, TopicPartition};
use protocol::metadata::image::MetadataImage;
use protocol::rpc::convert::{broker_id, check_cluster, topic_id};
use protocol::rpc::pb::replication::v1::{self as wire, follower_message::Message, leader_message};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tonic::Streaming;

use super::outbox::{MergedAdvances, Outbox};
use crate::limits;
use crate::replica::input::SubscriptionId;
use crate::shard::Shards;
use crate::shard::message::{FollowerEvent, Request};

/// One open stream of a follower.
#[derive(Debug)]
pub struct FollowerStream {
    /// Unique in this process.
    pub id: u64,
    /// Who follows.
    pub broker: BrokerId,
    /// Under which registration.
    pub broker_epoch: BrokerEpoch,
    /// What will be sent.
    pub outbox: Arc<Outbox<MergedAdvances>>,
    credit: AtomicI64,
    /// Subscriptions that shards have ended, for the reader to forget. Bounded by the open ones.
    ended: Mutex<Vec<SubscriptionId>>,
}

impl FollowerStream {
    /// A stream whose follower takes this many bytes to begin with.
    #[must_use]
    pub fn new(id: u64, broker: BrokerId, broker_epoch: BrokerEpoch, credit: u64) -> Self {
        let credit = i64::try_from(credit.min(limits::CREDIT_BYTES_MAX)).unwrap_or(0);
        Self {
            id,
            broker,
            broker_epoch,
            outbox: Arc::default(),
            credit: AtomicI64::new(credit),
            ended: Mutex::default(),
        }
    }

    /// A shard has ended this subscription.
    pub fn ended(&self, subscription: SubscriptionId) {
        self.ended.lock().push(subscription);
    }

    /// Subscriptions ended since the last call.
    pub fn take_ended(&self) -> Vec<SubscriptionId> {
        std::mem::take(&mut *self.ended.lock())
    }

    /// Whether another push may leave. The last one may overdraw.
    #[must_use]
    pub fn has_credit(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0
    }

    /// A push leaves.
    pub fn push(&self, push: wire::Push) {
        let bytes = i64::try_from(push.batches.len()).unwrap_or(i64::MAX);
        self.credit.fetch_sub(bytes, Ordering::Relaxed);
        self.send(leader_message::Message::Push(push));
    }

    /// Any other message.
    pub fn send(&self, message: leader_message::Message) {
        self.outbox.push(wire::LeaderMessage { message: Some(message) });
    }

    /// Credit comes back; true if there was none before, so that somebody may wait for it.
    fn give_back(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes.min(limits::CREDIT_BYTES_MAX)).unwrap_or(0);
        bytes > 0 && self.credit.fetch_add(bytes, Ordering::Relaxed) <= 0
    }
}

/// Checks a hello against what this broker knows.
///
/// # Errors
/// Wrong cluster or incarnation, another broker meant, or a registration the image does not show (yet).
pub fn check_hello(
    hello: &wire::Hello,
    me: BrokerId,
    image: &MetadataImage,
) -> Result<(BrokerId, BrokerEpoch), ApiError> {
    check_cluster(hello.cluster.as_ref(), image.cluster.cluster_id, image.cluster.incarnation)?;
    if hello.leader_id != me.0 {
        return Err(ApiError::bad(ErrorCode::InvalidRequest, "leader_id", hello.leader_id, me));
    }
    let (broker, epoch) = (broker_id("broker_id", hello.broker_id)?, BrokerEpoch(hello.broker_epoch));
    match image.brokers.get(broker) {
        Some(known) if known.epoch == epoch => Ok((broker, epoch)),
        Some(known) => Err(ApiError::bad(ErrorCode::UnknownFollower, "broker_epoch", epoch, known.epoch)),
        None => Err(ApiError::bad(ErrorCode::UnknownFollower, "broker_id", broker, "a registered broker")),
    }
}

/// Reads a follower's stream to its end and passes on what it says.
#[derive(Debug)]
pub struct FollowerReader {
    stream: Arc<FollowerStream>,
    shards: Shards,
    /// Shard of each open subscription.
    subscriptions: BTreeMap<u64, usize>,
    /// Shards that have heard of this stream.
    involved: BTreeSet<usize>,
}

impl FollowerReader {
    /// For a stream whose hello was checked.
    #[must_use]
    pub fn new(stream: Arc<FollowerStream>, shards: Shards) -> Self {
        Self { stream, shards, subscriptions: BTreeMap::new(), involved: BTreeSet::new() }
    }

    /// Until the follower goes, the network breaks or a message makes no sense.
    pub async fn run(mut self, mut incoming: Streaming<wire::FollowerMessage>) {
        while let Ok(Some(message)) = incoming.message().await {
            if let Err(error) = self.take(message).await {
                tracing::warn!(follower = %self.stream.broker, %error, "ending a replication stream");
                break;
            }
        }
        for shard in std::mem::take(&mut self.involved) {
            self.tell(shard, FollowerEvent::Closed).await;
        }
        self.stream.outbox.close();
    }

    async fn tell(&self, shard: usize, event: FollowerEvent) {
        self.shards.at(shard).request(Request::FromFollower { stream: self.stream.clone(), event }).await;
    }

    async fn take(&mut self, message: wire::FollowerMessage) -> Result<(), ApiError> {
        for subscription in self.stream.take_ended() {
            self.subscriptions.remove(&subscription.0);
        }
        match message.message {
            Some(Message::Subscribe(subscribe)) => self.subscribe(subscribe).await,
            Some(Message::Unsubscribe(gone)) => {
                if let Some(shard) = self.subscriptions.remove(&gone.subscription) {
                    self.tell(shard, FollowerEvent::Unsubscribe(gone.subscription)).await;
                }
                Ok(())
            }
            Some(Message::Acks(acks)) => {
                self.acks(acks).await;
                Ok(())
            }
            Some(Message::Hello(_)) => {
                Err(ApiError::bad(ErrorCode::InvalidRequest, "hello", "repeated", "one at the head of a stream"))
            }
            None => Err(ApiError::bad(ErrorCode::InvalidRequest, "message", "unknown", "one this build knows")),
        }
    }

    async fn subscribe(&mut self, message: wire::Subscribe) -> Result<(), ApiError> {
        if message.broker_epoch != self.stream.broker_epoch.0 {
            let (given, limit) = (message.broker_epoch, self.stream.broker_epoch);
            return Err(ApiError::bad(ErrorCode::StaleBrokerEpoch, "broker_epoch", given, limit));
        }
        let at = TopicPartition { topic: topic_id(&message.topic_id)?, partition: message.partition };
        if self.subscriptions.len() >= limits::SUBSCRIPTIONS_PER_STREAM {
            let limit = limits::SUBSCRIPTIONS_PER_STREAM;
            return Err(ApiError::bad(ErrorCode::Overloaded, "subscriptions", limit + 1, limit));
        }
        let shard = self.shards.index_of(at);
        self.subscriptions.insert(message.subscription, shard);
        self.involved.insert(shard);
        self.tell(shard, FollowerEvent::Subscribe { at, message }).await;
        Ok(())
    }

    async fn acks(&mut self, acks: wire::Acks) {
        let refilled = self.stream.give_back(acks.credit_bytes);
        let mut by_shard: BTreeMap<usize, Vec<wire::Ack>> = BTreeMap::new();
        for ack in acks.acks {
            if let Some(shard) = self.subscriptions.get(&ack.subscription) {
                by_shard.entry(*shard).or_default().push(ack);
            }
        }
        for (shard, acks) in by_shard {
            self.tell(shard, FollowerEvent::Acks(acks)).await;
        }
        for shard in self.involved.iter().copied().filter(|_| refilled).collect::<Vec<_>>() {
            self.tell(shard, FollowerEvent::Credit).await;
        }
    }
}
