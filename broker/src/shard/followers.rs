//! Who follows the partitions of this shard: each subscription and the stream it lives on.
//!
//! Invariant: a subscription is here from its handshake until it is over: unsubscribed, its stream gone, or ended by the
//! answer to its handshake (refused, diverged, begin anew), after which the follower asks under a new number. Whoever ends
//! it tells the stream, so that nothing is kept of a handshake that came to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::partition::outside::Subscription;
use crate::replica::effect::ToFollower;
use crate::replica::input::SubscriptionId;
use crate::replication::leader::FollowerStream;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Followers {
    streams: BTreeMap<Subscription, Arc<FollowerStream>>,
    on_stream: BTreeMap<(u64, SubscriptionId), Subscription>,
}

impl Followers {
    /// A subscription lives on this stream.
    pub(super) fn follow(&mut self, to: Subscription, stream: Arc<FollowerStream>) {
        let id = stream.id;
        self.on_stream.insert((id, to.number), to);
        if let Some(former) = self.streams.insert(to, stream)
            && former.id != id
        {
            self.on_stream.remove(&(former.id, to.number));
        }
    }

    /// It is over.
    pub(super) fn unfollow(&mut self, to: Subscription) {
        if let Some(stream) = self.streams.remove(&to) {
            self.on_stream.remove(&(stream.id, to.number));
            stream.ended(to.number);
        }
    }

    /// Sends an answer to a handshake; one that ends the subscription is the last that is known of it.
    pub(super) fn answer(&mut self, to: Subscription, message: ToFollower) {
        if let Some(stream) = self.streams.get(&to) {
            stream.send(super::world::wire_handshake(to.number.0, message));
        }
        if !matches!(message, ToFollower::Started { .. }) {
            self.unfollow(to);
        }
    }

    pub(super) fn stream(&self, to: &Subscription) -> Option<&Arc<FollowerStream>> {
        self.streams.get(to)
    }

    pub(super) fn subscription(&self, stream: u64, number: SubscriptionId) -> Option<Subscription> {
        self.on_stream.get(&(stream, number)).copied()
    }

    pub(super) fn subscriptions_on(&self, stream: u64) -> impl Iterator<Item = Subscription> + '_ {
        let all = (stream, SubscriptionId(0))..=(stream, SubscriptionId(u64::MAX));
        self.on_stream.range(all).map(|(_, to)| *to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::error::ErrorCode;
    use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, TopicId, TopicPartition};

    fn to(number: u64) -> Subscription {
        let at = TopicPartition { topic: TopicId::default(), partition: 0 };
        Subscription { at, follower: BrokerId(2), number: SubscriptionId(number) }
    }

    #[test]
    fn a_handshake_that_ends_a_subscription_leaves_nothing_behind() {
        let stream = Arc::new(FollowerStream::new(7, BrokerId(2), BrokerEpoch(1), 0));
        let mut followers = Followers::default();
        let leader_epoch = LeaderEpoch(1);
        let ends = [
            ToFollower::Refused(ErrorCode::NotLeader),
            ToFollower::Diverged { leader_epoch, epoch: None, end: 0 },
            ToFollower::BeginAt { leader_epoch, log_start: 4 },
        ];
        for number in 0..1_000 {
            followers.follow(to(number), stream.clone());
            followers.answer(to(number), ends[number as usize % ends.len()]);
        }
        assert_eq!((followers.streams.len(), followers.on_stream.len()), (0, 0));
        assert_eq!(stream.take_ended().len(), 1_000, "the stream's reader forgets them too");
        followers.follow(to(1_000), stream.clone());
        followers.answer(to(1_000), ToFollower::Started { leader_epoch, from: 0, high_watermark: None, log_start: 0 });
        assert_eq!(followers.subscriptions_on(7).collect::<Vec<_>>(), [to(1_000)]);
        assert_eq!(stream.take_ended(), []);
    }

    #[test]
    fn a_subscription_that_moves_to_another_stream_is_on_that_one_only() {
        let stream = |id| Arc::new(FollowerStream::new(id, BrokerId(2), BrokerEpoch(1), 0));
        let mut followers = Followers::default();
        followers.follow(to(1), stream(7));
        followers.follow(to(1), stream(8));
        assert_eq!(followers.subscription(7, SubscriptionId(1)), None);
        assert_eq!(followers.subscription(8, SubscriptionId(1)), Some(to(1)));
    }
}
