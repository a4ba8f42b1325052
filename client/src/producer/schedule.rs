//! When each partition of an accumulator wants to be looked at, ordered by time, so that a wake-up costs what it finds and not
//! what there is.
//!
//! Owns: the three orders. Never: decides what a time means; the accumulator computes a partition's times and says them.
//! Invariant: a partition stands in an order exactly where it was last put, once.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::accumulator::Key;
use protocol::ids::Millis;
use std::collections::BTreeSet;

/// A partition's times; None: it does not wait for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// A batch may leave.
    pub leave: Option<Millis>,
    /// An open batch that still lingers could leave if nothing lingered.
    pub hurried: Option<Millis>,
    /// The first waiting batch runs out of time.
    pub expire: Option<Millis>,
}

#[derive(Debug, Default)]
struct Order(BTreeSet<(Millis, Key)>);

impl Order {
    fn replace(&mut self, key: Key, from: Option<Millis>, to: Option<Millis>) {
        if from == to {
            return;
        }
        if let Some(at) = from {
            self.0.remove(&(at, key));
        }
        if let Some(at) = to {
            self.0.insert((at, key));
        }
    }

    fn due(&self, now: Millis) -> impl Iterator<Item = Key> + '_ {
        self.0.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| *key)
    }

    fn first(&self) -> Option<Millis> {
        self.0.first().map(|(at, _)| *at)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Schedule {
    leave: Order,
    hurried: Order,
    expire: Order,
}

impl Schedule {
    /// A partition's times were `from` and are `to`.
    pub fn replace(&mut self, key: Key, from: Times, to: Times) {
        self.leave.replace(key, from.leave, to.leave);
        self.hurried.replace(key, from.hurried, to.hurried);
        self.expire.replace(key, from.expire, to.expire);
    }

    /// Partitions from which a batch may leave at `now`; with `hurry` none lingers.
    #[must_use]
    pub fn ready(&self, now: Millis, hurry: bool) -> Vec<Key> {
        let hurried = hurry.then(|| self.hurried.due(now));
        let keys: BTreeSet<Key> = self.leave.due(now).chain(hurried.into_iter().flatten()).collect();
        keys.into_iter().collect()
    }

    /// Partitions in which a waiting batch has run out of time.
    #[must_use]
    pub fn expired(&self, now: Millis) -> Vec<Key> {
        self.expire.due(now).collect()
    }

    /// The first of all times.
    #[must_use]
    pub fn next(&self, hurry: bool) -> Option<Millis> {
        let hurried = if hurry { self.hurried.first() } else { None };
        [self.leave.first(), hurried, self.expire.first()].into_iter().flatten().min()
    }
}
