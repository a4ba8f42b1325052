//! Replication streams between brokers: in order, until they break. A broken stream loses what was on it, and both
//! ends learn of it after a while.

use protocol::ids::{BrokerId, Millis, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};

use broker::replica::input::SubscriptionId;

/// One direction pair: a follower's stream to a leader.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) generation: u64,
    /// Something waits in it for a way that is closed.
    pub(super) clogged: bool,
    /// Sent on this generation by the follower.
    pub(super) subscriptions: BTreeSet<(TopicPartition, SubscriptionId)>,
    last_up: Millis,
    last_down: Millis,
}

#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<(BrokerId, BrokerId), Link>,
}

impl Links {
    pub(super) fn get(&mut self, follower: BrokerId, leader: BrokerId) -> &mut Link {
        self.links.entry((follower, leader)).or_default()
    }

    /// Pairs in which the broker is one end.
    pub(super) fn of(&self, broker: BrokerId) -> Vec<(BrokerId, BrokerId)> {
        self.links.keys().copied().filter(|(f, l)| *f == broker || *l == broker).collect()
    }
}

impl Link {
    /// When a message to the leader arrives: never before an earlier one.
    pub(super) fn arrives_up(&mut self, at: Millis) -> Millis {
        self.last_up = self.last_up.max(at);
        self.last_up
    }

    /// When a message to the follower arrives.
    pub(super) fn arrives_down(&mut self, at: Millis) -> Millis {
        self.last_down = self.last_down.max(at);
        self.last_down
    }

    /// Breaks it: a new generation begins; what was subscribed on the old one is lost.
    pub(super) fn breaks(&mut self) -> BTreeSet<(TopicPartition, SubscriptionId)> {
        self.generation += 1;
        self.clogged = false;
        std::mem::take(&mut self.subscriptions)
    }
}

/// Heartbeat streams keep their order: when the last message of each arrives.
#[derive(Debug, Default)]
pub(super) struct Beats(BTreeMap<(BrokerId, usize), Millis>);

impl Beats {
    pub(super) fn arrives(&mut self, stream: (BrokerId, usize), at: Millis) -> Millis {
        let last = self.0.entry(stream).or_default();
        *last = (*last).max(at);
        *last
    }
}
