//! What requests mean: check, find the shard, wait, shape the answer. No state of their own; the gRPC services and,
//! later, the Kafka listener stand on the same handlers.

pub mod fetch;
pub mod offsets;
pub mod produce;
pub mod routing;

use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerId, TopicPartition};
use protocol::metadata::image::MetadataImage;
use protocol::rpc::convert::{topic_id, uuid};
use protocol::rpc::pb::common::v1 as common;
use protocol::rpc::pb::data::v1::DataState;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use crate::lease_cell::LeaseCell;
use crate::limits;
use crate::metadata::follower::Images;
use crate::replica::lease::{Guard, Now};
use crate::shard::Shards;

/// Until when a request waits for topics that this broker has not heard of: one moment for all that it names, however
/// many are unknown.
#[derive(Debug, Clone, Copy)]
struct Patience(Instant);

impl Patience {
    fn of_a_request() -> Self {
        Self(Instant::now() + Duration::from_millis(limits::UNKNOWN_TOPIC_PATIENCE_MS))
    }
}

/// What handlers need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// This broker.
    pub me: BrokerId,
    /// The cluster of its data directory, known before any image is.
    pub cluster_id: Uuid,
    /// Images that every shard has taken.
    pub images: Arc<Images>,
    /// Shards.
    pub shards: Shards,
    /// The lease, for answers that were put together over several turns.
    pub lease: LeaseCell,
    /// Budget for batches being written, in units of [`limits::BUDGET_UNIT_BYTES`].
    pub produce_budget: Arc<Semaphore>,
}

impl Context {
    /// The partition that a request names, in an image that knows it. A topic that this broker has not heard of yet may
    /// be news that is on its way: it is waited for a little, as long as the request's patience lasts.
    async fn partition(
        &self,
        topic: &[u8],
        partition: u32,
        patience: Patience,
    ) -> Result<(TopicPartition, Arc<MetadataImage>), ApiError> {
        let at = TopicPartition { topic: topic_id(topic)?, partition };
        let image = self.images.load();
        if let Ok(()) = exists(&image, at) {
            return Ok((at, image));
        }
        let mut applied = self.images.subscribe();
        loop {
            let image = self.images.load();
            match exists(&image, at) {
                Ok(()) => return Ok((at, image)),
                Err(error) => {
                    let waited = tokio::time::timeout_at(patience.0, applied.changed()).await;
                    if !matches!(waited, Ok(Ok(()))) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Refuses messages of another cluster. Empty = unchecked.
    fn check_cluster(&self, cluster_id: &[u8]) -> Result<(), ApiError> {
        if cluster_id.is_empty() {
            return Ok(());
        }
        let (given, ours) = (uuid("cluster_id", cluster_id)?, self.cluster_id);
        if given == ours {
            return Ok(());
        }
        Err(ApiError::bad(ErrorCode::WrongCluster, "cluster_id", given, ours))
    }
}

/// A broker that has just started knows nothing: that is no answer about a topic.
fn informed(image: &MetadataImage) -> Result<(), ApiError> {
    if image.cluster.is_formed() {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::LeaderNotAvailable, "this broker has no metadata yet: ask again or ask another"))
}

fn exists(image: &MetadataImage, at: TopicPartition) -> Result<(), ApiError> {
    informed(image)?;
    let Some(topic) = image.topics.get(at.topic).filter(|t| t.is_live()) else {
        return Err(ApiError::bad(ErrorCode::UnknownTopic, "topic_id", at.topic, "a topic that exists"));
    };
    let count = topic.partitions.len();
    if topic.partition(at.partition).is_none() {
        let limit = format!("0 to {}", count.saturating_sub(1));
        return Err(ApiError::bad(ErrorCode::UnknownPartition, "partition", at.partition, limit));
    }
    Ok(())
}

/// A shard that ended before it answered.
fn gone() -> ApiError {
    ApiError::new(ErrorCode::ShuttingDown, "this broker is stopping")
}

/// The lease is checked when an answer leaves, not when it was read: past the lease it is flagged, past the grace refused.
/// True: it was refused now, and nothing but the error may go out.
fn check_leaving(now: &Now, state: &mut Option<DataState>, error: &mut Option<common::Error>) -> bool {
    let Some(state) = state else { return false };
    if error.is_some() || now.permits(Guard::Lease) {
        return false;
    }
    state.unleased = true;
    if now.permits(Guard::Grace) {
        return false;
    }
    *error = Some(ApiError::new(ErrorCode::LeaseExpired, "this broker's lease has run out").into());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::lease::Lease;
    use crate::shard::ShardSender;
    use protocol::rpc::pb::data::v1::{FetchPartition, FetchRequest, ListOffsetsPartition, ListOffsetsRequest};

    #[test]
    fn an_answer_that_was_read_under_the_lease_is_judged_again_when_it_leaves() {
        let lease = Lease { valid_until: 400, grace_until: 1_000 };
        for (at, unleased, refused) in
            [(399, false, false), (400, true, false), (999, true, false), (1_000, true, true)]
        {
            let (mut state, mut error) = (Some(DataState::default()), None);
            assert_eq!(check_leaving(&Now { at, lease }, &mut state, &mut error), refused, "at {at}");
            assert_eq!(state.map(|s| s.unleased), Some(unleased), "at {at}");
            assert_eq!(
                error.map(|e| ErrorCode::from_wire(e.code)),
                refused.then_some(ErrorCode::LeaseExpired),
                "at {at}"
            );
        }
    }

    /// Two patiences pass before the twenty of one request would have.
    #[tokio::test]
    async fn many_unknown_partitions_of_a_request_are_waited_for_once() {
        let context = Context {
            me: BrokerId(1),
            cluster_id: Uuid::nil(),
            images: Arc::default(),
            shards: Shards::new(vec![ShardSender::new().0]),
            lease: LeaseCell::default(),
            produce_budget: Arc::new(Semaphore::new(1)),
        };
        let topic_id = protocol::rpc::convert::uuid_bytes(Uuid::from_u128(1));
        let listed = |partition| ListOffsetsPartition {
            topic_id: topic_id.clone(),
            partition,
            timestamp_ms: -1,
            leader_epoch: -1,
        };
        let fetched = |partition| FetchPartition {
            topic_id: topic_id.clone(),
            partition,
            leader_epoch: -1,
            last_fetched_epoch: -1,
            ..Default::default()
        };
        let list = ListOffsetsRequest { partitions: (0..20).map(listed).collect() };
        let fetch = FetchRequest { partitions: (0..20).map(fetched).collect(), max_bytes: 1, ..Default::default() };
        let both = async { tokio::join!(offsets::list(&context, list), super::fetch::fetch(&context, fetch)) };
        let all = Duration::from_millis(20 * limits::UNKNOWN_TOPIC_PATIENCE_MS);
        let (listed, fetched) = tokio::time::timeout(all / 2, both).await.expect("one patience for all");
        assert!(listed.expect("an answer").partitions.iter().all(|p| p.error.is_some()));
        assert!(fetched.expect("an answer").partitions.iter().all(|p| p.error.is_some()));
    }

    #[test]
    fn a_refusal_leaves_as_it_is() {
        let refusal = ApiError::new(ErrorCode::NotLeader, "elsewhere").into();
        let (mut state, mut error) = (Some(DataState::default()), Some(refusal));
        assert!(!check_leaving(&Now { at: 9, lease: Lease::NONE }, &mut state, &mut error));
        assert_eq!(error.map(|e| ErrorCode::from_wire(e.code)), Some(ErrorCode::NotLeader));
    }
}
