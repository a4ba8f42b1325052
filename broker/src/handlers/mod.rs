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
use crate::replica::lease::{Guard, Lease, Now};
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

    /// Every partition that a request names, before the first of them is read: what one is answered must not grow old
    /// under its lease while another is waited for.
    async fn partitions<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a [u8], u32)>,
        patience: Patience,
    ) -> Vec<Result<TopicPartition, ApiError>> {
        let mut found = Vec::with_capacity(wanted.size_hint().0);
        for (topic, partition) in wanted {
            found.push(self.partition(topic, partition, patience).await.map(|(at, _)| at));
        }
        found
    }

    /// The moment at which answers leave that were made under a lease each: one that was revoked meanwhile permits nothing,
    /// and one renewed meanwhile vouches for an image in which the leader may be another, and so not for this answer.
    fn leaving(&self) -> impl Fn(Lease) -> Now {
        let now = self.lease.now();
        move |made_under| Now { at: now.at, lease: now.lease.and(&made_under) }
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

/// The lease of an answer is checked when it leaves: past the lease it is flagged, past the grace refused.
/// True: it was refused now, and nothing but the error may go out.
fn check_leaving(now: &Now, state: &mut Option<DataState>, error: &mut Option<common::Error>) -> bool {
    let Some(state) = state else { return false };
    if error.is_some() || now.lets_out(Guard::Lease) {
        return false;
    }
    state.unleased = true;
    if now.lets_out(Guard::Grace) {
        return false;
    }
    *error = Some(ApiError::new(ErrorCode::LeaseExpired, "this broker's lease has run out").into());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::metadata::reconcile::tests::{at, image};
    use crate::shard::message::Request;
    use crate::shard::{ShardQueues, ShardSender};
    use protocol::rpc::pb::data::v1::{
        FetchPartition, FetchRequest, FetchedPartition, ListOffsetsPartition, ListOffsetsRequest, ListedOffset,
    };

    /// Longer than any test.
    const LONG_MS: u64 = 3_600_000;

    fn context(shard: ShardSender) -> Context {
        Context {
            me: BrokerId(1),
            cluster_id: Uuid::nil(),
            images: Arc::default(),
            shards: Shards::new(vec![shard]),
            lease: LeaseCell::default(),
            produce_budget: Arc::new(Semaphore::new(1)),
        }
    }

    fn listed(topic: Uuid, partition: u32) -> ListOffsetsPartition {
        let topic_id = protocol::rpc::convert::uuid_bytes(topic);
        ListOffsetsPartition { topic_id, partition, timestamp_ms: -1, leader_epoch: -1 }
    }

    fn fetched(topic: Uuid, partition: u32) -> FetchPartition {
        let topic_id = protocol::rpc::convert::uuid_bytes(topic);
        FetchPartition { topic_id, partition, leader_epoch: -1, last_fetched_epoch: -1, ..Default::default() }
    }

    /// What a shard answers two questions under, and what the broker's lease is when the second is answered.
    #[derive(Clone, Copy)]
    struct Leases {
        made_under: [Lease; 2],
        at_last: Lease,
    }

    impl Leases {
        /// The first ended there and then, its grace `grace` later; the broker renewed it before the second answer.
        fn renewed(grace: u64) -> Self {
            let now = clock::now();
            let renewed = Lease { valid_until: now + LONG_MS, grace_until: now + LONG_MS };
            Self { made_under: [Lease { valid_until: now, grace_until: now + grace }, renewed], at_last: renewed }
        }

        /// Both hold for long, but the broker heard that it is fenced.
        fn revoked() -> Self {
            let until = clock::now() + LONG_MS;
            Self { made_under: [Lease { valid_until: until, grace_until: until }; 2], at_last: Lease::NONE }
        }
    }

    async fn answer_two(mut queues: ShardQueues, lease: LeaseCell, leases: Leases) {
        for made_under in leases.made_under {
            answer_one(queues.requests.recv().await.expect("two questions"), made_under);
        }
        lease.set(leases.at_last);
    }

    fn answer_one(question: Request, made_under: Lease) {
        let state = Some(DataState::default());
        match question {
            Request::Read(read) => {
                let batches = bytes::Bytes::from_static(b"records");
                let answer = FetchedPartition { state, batches, ..Default::default() };
                read.reply.send((answer, made_under)).expect("it is waited for");
            }
            Request::ListOffset(list) => {
                let answer = ListedOffset { state, offset: 7, ..Default::default() };
                list.reply.send((answer, made_under)).expect("it is waited for");
            }
            other => panic!("not asked: {other:?}"),
        }
    }

    type Left = (bool, Option<ErrorCode>);

    fn left(state: Option<&DataState>, error: Option<&common::Error>) -> Left {
        (state.is_some_and(|state| state.unleased), error.map(|e| ErrorCode::from_wire(e.code)))
    }

    const LEASED: Left = (false, None);
    const REFUSED: Left = (true, Some(ErrorCode::LeaseExpired));

    /// What two partitions of one request are answered.
    async fn two_answers<T>(leases: Leases, ask: impl AsyncFnOnce(Context) -> Result<T, ApiError>) -> T {
        let (sender, queues) = ShardSender::new();
        let context = context(sender);
        context.images.publish(Arc::new(image()));
        let shard = answer_two(queues, context.lease.clone(), leases);
        tokio::join!(ask(context), shard).0.expect("an answer")
    }

    /// What they say of the lease, and how many bytes they carry.
    async fn two_fetched(leases: Leases) -> Vec<(Left, usize)> {
        let partitions = [0, 1].map(|partition| fetched(at(10, 0).topic.0, partition)).to_vec();
        let request = FetchRequest { partitions, max_bytes: 100, ..Default::default() };
        let answer = two_answers(leases, async move |context| super::fetch::fetch(&context, request).await).await;
        let all = answer.partitions.iter();
        all.map(|p| (left(p.state.as_ref(), p.error.as_ref()), p.batches.len())).collect()
    }

    /// What they say of the lease, and the offset.
    async fn two_listed(leases: Leases) -> Vec<(Left, i64)> {
        let partitions = [0, 1].map(|partition| listed(at(10, 0).topic.0, partition)).to_vec();
        let request = ListOffsetsRequest { partitions };
        let answer = two_answers(leases, async move |context| offsets::list(&context, request).await).await;
        let all = answer.partitions.iter();
        all.map(|p| (left(p.state.as_ref(), p.error.as_ref()), p.offset)).collect()
    }

    #[tokio::test]
    async fn no_fetched_answer_leaves_under_a_lease_renewed_after_it_was_made() {
        assert_eq!(two_fetched(Leases::renewed(LONG_MS)).await, [((true, None), 7), (LEASED, 7)]);
        assert_eq!(two_fetched(Leases::renewed(0)).await, [(REFUSED, 0), (LEASED, 7)]);
    }

    #[tokio::test]
    async fn no_listed_offset_leaves_under_a_lease_renewed_after_it_was_made() {
        assert_eq!(two_listed(Leases::renewed(LONG_MS)).await, [((true, None), 7), (LEASED, 7)]);
        assert_eq!(two_listed(Leases::renewed(0)).await, [(REFUSED, -1), (LEASED, 7)]);
    }

    #[tokio::test]
    async fn no_answer_leaves_under_a_lease_revoked_after_it_was_made() {
        assert_eq!(two_fetched(Leases::revoked()).await, [(REFUSED, 0), (REFUSED, 0)]);
        assert_eq!(two_listed(Leases::revoked()).await, [(REFUSED, -1), (REFUSED, -1)]);
    }

    /// How long after the request the shard was asked for the partition that exists; the other one is of a topic that
    /// this broker has not heard of.
    async fn asked_after<T>(ask: impl AsyncFnOnce(Context, [Uuid; 2]) -> Result<T, ApiError>) -> Duration {
        let (sender, mut queues) = ShardSender::new();
        let context = context(sender);
        context.images.publish(Arc::new(image()));
        let begin = Instant::now();
        let shard = async {
            answer_one(queues.requests.recv().await.expect("a question"), Lease::NONE);
            begin.elapsed()
        };
        let (answer, asked) = tokio::join!(ask(context, [at(10, 0).topic.0, Uuid::from_u128(99)]), shard);
        answer.map(|_| asked).expect("an answer")
    }

    #[tokio::test(start_paused = true)]
    async fn no_partition_is_read_while_another_is_waited_for() {
        let patience = Duration::from_millis(limits::UNKNOWN_TOPIC_PATIENCE_MS);
        let fetch = asked_after(async |context, topics: [Uuid; 2]| {
            let partitions = topics.map(|topic| fetched(topic, 0)).to_vec();
            super::fetch::fetch(&context, FetchRequest { partitions, max_bytes: 100, ..Default::default() }).await
        });
        assert!(fetch.await >= patience);
        let list = asked_after(async |context, topics: [Uuid; 2]| {
            let partitions = topics.map(|topic| listed(topic, 0)).to_vec();
            offsets::list(&context, ListOffsetsRequest { partitions }).await
        });
        assert!(list.await >= patience);
    }

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
        let context = context(ShardSender::new().0);
        let topic = Uuid::from_u128(1);
        let partitions = (0..20).map(|partition| listed(topic, partition)).collect();
        let list = ListOffsetsRequest { partitions };
        let partitions = (0..20).map(|partition| fetched(topic, partition)).collect();
        let fetch = FetchRequest { partitions, max_bytes: 1, ..Default::default() };
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
