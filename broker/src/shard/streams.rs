//! Replication messages of a shard: from followers' streams to the leading replicas, from leaders' streams to the
//! following ones.
//!
//! Invariant: a pushed batch is checked (crc, counts) before a replica hears of it, and its credit goes back whatever
//! becomes of it.

use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, TopicPartition};
use protocol::rpc::pb::replication::v1::{self as wire, leader_message::Message};
use std::sync::Arc;

use super::message::{FollowerEvent, LeaderEvent};
use super::run::Shard;
use crate::partition::outside::{Outside, Subscription};
use crate::replica::effect::ToFollower;
use crate::replica::input::{Input, SubscriptionId};
use crate::replication::follower::LeaderDialer;
use crate::replication::leader::FollowerStream;
use crate::replication::wire as wire_input;

impl Shard {
    pub(super) fn from_follower(&mut self, stream: &Arc<FollowerStream>, event: FollowerEvent) {
        match event {
            FollowerEvent::Subscribe { at, message } => self.subscribe(stream, at, &message),
            FollowerEvent::Unsubscribe(number) => {
                if let Some(to) = self.world.followers.subscription(stream.id, SubscriptionId(number)) {
                    self.unsubscribed(to);
                }
            }
            FollowerEvent::Acks(acks) => {
                for ack in acks {
                    self.acknowledged(stream, &ack);
                }
            }
            FollowerEvent::Credit => self.world.touch_followed_on(stream.id),
            FollowerEvent::Closed => {
                for to in self.world.followers.subscriptions_on(stream.id).collect::<Vec<_>>() {
                    self.unsubscribed(to);
                }
            }
        }
    }

    fn subscribe(&mut self, stream: &Arc<FollowerStream>, at: TopicPartition, message: &wire::Subscribe) {
        let number = SubscriptionId(message.subscription);
        let to = Subscription { at, follower: stream.broker, number };
        self.world.followers.follow(to, stream.clone());
        let subscribe = wire_input::subscribe(message, stream.broker, stream.broker_epoch);
        if !self.step(at, Input::Subscribe(subscribe)) {
            let code = self.absent(at).code;
            // A follower may know a newer image than this broker: it asks again.
            let code = if code == ErrorCode::UnknownTopic { ErrorCode::UnknownLeaderEpoch } else { code };
            self.world.to_follower(to, ToFollower::Refused(code));
        }
    }

    fn unsubscribed(&mut self, to: Subscription) {
        self.step(to.at, Input::Unsubscribed { follower: to.follower, subscription: to.number });
        self.world.followers.unfollow(to);
    }

    fn acknowledged(&mut self, stream: &FollowerStream, ack: &wire::Ack) {
        let Some(to) = self.world.followers.subscription(stream.id, SubscriptionId(ack.subscription)) else { return };
        let ack = wire_input::ack(ack, stream.broker, stream.broker_epoch);
        self.step(to.at, Input::Ack(ack));
    }

    pub(super) fn from_leader(&mut self, leader: BrokerId, event: LeaderEvent) {
        match event {
            LeaderEvent::Up(stream) => self.world.leaders.up(leader, stream),
            LeaderEvent::Message(message) => self.leader_says(leader, *message),
            LeaderEvent::Down(stream) => {
                for (at, subscription) in self.world.leaders.down(leader, &stream) {
                    self.step(at, Input::StreamLost { subscription });
                }
            }
        }
    }

    fn leader_says(&mut self, leader: BrokerId, message: Message) {
        if let Message::Push(push) = message {
            return self.pushed(leader, push);
        }
        let Some((number, input)) = wire_input::from_leader(&message) else { return };
        let Some(at) = self.world.leaders.subscriber(leader, number) else { return };
        if matches!(input, Input::Refused { .. } | Input::Diverged { .. } | Input::BeginAt { .. }) {
            self.world.leaders.ended(leader, number);
        }
        self.step(at, input);
    }

    fn pushed(&mut self, leader: BrokerId, push: wire::Push) {
        self.world.leaders.credit(leader, push.batches.len());
        let subscription = SubscriptionId(push.subscription);
        let Some(at) = self.world.leaders.subscriber(leader, subscription) else { return };
        self.world.metrics.replicated(push.batches.len());
        let Some((spans, hand)) = wire_input::checked(&push.batches) else {
            tracing::error!(partition = %at, %leader, base = push.base_offset, "a pushed batch is corrupt: subscribing anew");
            self.world.leaders.drop_subscription(leader, subscription);
            self.step(at, Input::Refused { subscription, code: ErrorCode::CorruptMessage });
            return;
        };
        if spans.is_empty() {
            return;
        }
        let taken = self.world.disk.take(push.batches.len());
        if !taken {
            tracing::debug!(partition = %at, %leader, "no room for a pushed batch");
        }
        let end = |shard: &Self| shard.partitions.get(&at).map(|p| p.log().end_offset());
        let before = end(self);
        let input = wire_input::pushed(&push, spans);
        self.step_with(at, input, hand);
        if taken && end(self) == before {
            self.world.disk.give_back(push.batches.len());
        }
    }

    /// Starts a dialling task for each leader that has none.
    pub(super) fn dial_leaders(&mut self) {
        let Some(my_epoch) = self.epoch else { return };
        for (leader, stop) in self.world.leaders.to_dial() {
            let dialer = LeaderDialer {
                leader,
                me: self.me,
                my_epoch,
                images: self.images.clone(),
                dialer: self.dialer.clone(),
                shard: self.world.shard.clone(),
            };
            tokio::spawn(dialer.run(stop));
        }
    }
}
