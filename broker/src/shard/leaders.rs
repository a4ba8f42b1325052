//! The leaders this shard follows: one stream each, the numbers that subscriptions have on the wire, and what waits for a
//! stream to come up.
//!
//! A replica numbers its subscriptions for itself; on the wire a number is unique in the process and grows, so that a
//! leader can tell a later subscription from an earlier one whoever made it.

use protocol::ids::{BrokerId, TopicPartition};
use protocol::rpc::convert::topic_id_bytes;
use protocol::rpc::pb::replication::v1::{self as wire, follower_message::Message};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

use crate::replica::effect::ToLeader;
use crate::replica::input::{FollowerAck, Subscribe, SubscriptionId};
use crate::replication::follower::LeaderStream;

/// One followed broker.
#[derive(Debug, Default)]
struct Leader {
    stop: CancellationToken,
    stream: Option<Arc<LeaderStream>>,
    /// On the wire -> here. Sent or waiting.
    open: BTreeMap<u64, (TopicPartition, SubscriptionId)>,
    waiting: BTreeMap<u64, Subscribe>,
}

/// All followed brokers of one shard.
#[derive(Debug)]
pub(super) struct Leaders {
    /// Shared by all shards.
    numbers: Arc<AtomicU64>,
    leaders: BTreeMap<BrokerId, Leader>,
    wire: BTreeMap<(TopicPartition, SubscriptionId), u64>,
    /// Brokers for which a dialling task is to be started.
    wanted: BTreeSet<BrokerId>,
}

impl Leaders {
    pub(super) fn new(numbers: Arc<AtomicU64>) -> Self {
        Self { numbers, leaders: BTreeMap::new(), wire: BTreeMap::new(), wanted: BTreeSet::new() }
    }

    /// Leaders that need a dialling task, with the token that stops it.
    pub(super) fn to_dial(&mut self) -> Vec<(BrokerId, CancellationToken)> {
        let wanted = std::mem::take(&mut self.wanted);
        wanted.into_iter().filter_map(|id| Some((id, self.leaders.get(&id)?.stop.clone()))).collect()
    }

    /// Ends the streams that carry nothing any more.
    pub(super) fn drop_idle(&mut self) {
        self.leaders.retain(|_, leader| {
            let idle = leader.open.is_empty();
            if idle {
                leader.stop.cancel();
            }
            !idle
        });
    }

    pub(super) fn send(&mut self, at: TopicPartition, leader: BrokerId, message: ToLeader) {
        match message {
            ToLeader::Subscribe(subscribe) => self.subscribe(at, leader, subscribe),
            ToLeader::Unsubscribe(subscription) => self.unsubscribe(at, leader, subscription),
            ToLeader::Ack(ack) => self.ack(at, leader, &ack),
        }
    }

    fn subscribe(&mut self, at: TopicPartition, leader: BrokerId, subscribe: Subscribe) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.wire.insert((at, subscribe.subscription), number);
        let wanted = &mut self.wanted;
        let entry = self.leaders.entry(leader).or_insert_with(|| {
            wanted.insert(leader);
            Leader::default()
        });
        entry.open.insert(number, (at, subscribe.subscription));
        match &entry.stream {
            Some(stream) => stream.send(wire_subscribe(at, number, &subscribe)),
            None => {
                entry.waiting.insert(number, subscribe);
            }
        }
    }

    fn unsubscribe(&mut self, at: TopicPartition, leader: BrokerId, subscription: SubscriptionId) {
        let Some(number) = self.wire.remove(&(at, subscription)) else { return };
        let Some(entry) = self.leaders.get_mut(&leader) else { return };
        entry.open.remove(&number);
        if entry.waiting.remove(&number).is_some() {
            return;
        }
        if let Some(stream) = &entry.stream {
            stream.send(Message::Unsubscribe(wire::Unsubscribe { subscription: number }));
        }
    }

    fn ack(&mut self, at: TopicPartition, leader: BrokerId, ack: &FollowerAck) {
        let Some(number) = self.wire.get(&(at, ack.subscription)).copied() else { return };
        let Some(stream) = self.leaders.get(&leader).and_then(|l| l.stream.as_ref()) else { return };
        let ack = wire::Ack {
            subscription: number,
            leader_epoch: ack.leader_epoch.0,
            log_end: ack.log_end,
            durable_end: ack.durable_end,
            noted_policy: ack.noted_policy.to_wire(),
            log_start: ack.log_start,
        };
        stream.outbox.merge(|m| m.ack(ack));
    }

    /// A stream stands: what waited is sent.
    pub(super) fn up(&mut self, leader: BrokerId, stream: Arc<LeaderStream>) {
        let Some(entry) = self.leaders.get_mut(&leader) else { return stream.outbox.close() };
        for (number, subscribe) in std::mem::take(&mut entry.waiting) {
            if let Some((at, _)) = entry.open.get(&number) {
                stream.send(wire_subscribe(*at, number, &subscribe));
            }
        }
        entry.stream = Some(stream);
    }

    /// No stream: returns the subscriptions that were lost with it. Those that still wait go on waiting.
    pub(super) fn down(&mut self, leader: BrokerId) -> Vec<(TopicPartition, SubscriptionId)> {
        let Some(entry) = self.leaders.get_mut(&leader) else { return Vec::new() };
        if entry.stream.take().is_none() {
            return Vec::new();
        }
        let lost: Vec<_> = entry.open.iter().filter(|(n, _)| !entry.waiting.contains_key(n)).map(|(n, s)| (*n, *s)).collect();
        for (number, key) in &lost {
            entry.open.remove(number);
            self.wire.remove(key);
        }
        lost.into_iter().map(|(_, key)| key).collect()
    }

    /// Whose subscription a number on the wire is.
    pub(super) fn subscription(&self, leader: BrokerId, number: u64) -> Option<(TopicPartition, SubscriptionId)> {
        self.leaders.get(&leader)?.open.get(&number).copied()
    }

    /// Pushed bytes have been taken in (or dropped): the leader may send as many more.
    pub(super) fn credit(&self, leader: BrokerId, bytes: usize) {
        if let Some(stream) = self.leaders.get(&leader).and_then(|l| l.stream.as_ref()) {
            stream.outbox.merge(|m| m.credit(bytes as u64));
        }
    }
}

fn wire_subscribe(at: TopicPartition, number: u64, subscribe: &Subscribe) -> Message {
    Message::Subscribe(wire::Subscribe {
        subscription: number,
        topic_id: topic_id_bytes(at.topic),
        partition: at.partition,
        leader_epoch: subscribe.leader_epoch.0,
        log_end: subscribe.log_end,
        durable_end: subscribe.durable_end,
        log_start: subscribe.log_start,
        last_epoch: subscribe.last_epoch.map_or(-1, |e| i64::from(e.0)),
        noted_policy: subscribe.noted_policy.to_wire(),
        broker_epoch: subscribe.broker_epoch.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::{BrokerEpoch, LeaderEpoch, TopicId};
    use protocol::metadata::configs::FlushPolicy;

    fn subscribe(number: u64) -> Subscribe {
        Subscribe {
            follower: BrokerId(1),
            broker_epoch: BrokerEpoch(1),
            subscription: SubscriptionId(number),
            leader_epoch: LeaderEpoch(1),
            log_start: 0,
            log_end: 0,
            durable_end: 0,
            last_epoch: None,
            noted_policy: FlushPolicy::Sync,
        }
    }

    #[test]
    fn equal_numbers_of_two_partitions_differ_on_the_wire_and_only_sent_ones_are_lost() {
        let mut leaders = Leaders::new(Arc::default());
        let at = |partition| TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), partition };
        let leader = BrokerId(2);
        leaders.send(at(0), leader, ToLeader::Subscribe(subscribe(1)));
        leaders.send(at(1), leader, ToLeader::Subscribe(subscribe(1)));
        assert_eq!(leaders.to_dial().len(), 1, "one stream for both");
        assert!(leaders.down(leader).is_empty(), "nothing was sent on a stream that never stood");
        leaders.up(leader, Arc::default());
        leaders.send(at(2), leader, ToLeader::Subscribe(subscribe(1)));
        let lost = leaders.down(leader);
        assert_eq!(lost.len(), 3);
        leaders.drop_idle();
        assert_eq!(leaders.subscription(leader, 0), None);
    }
}
