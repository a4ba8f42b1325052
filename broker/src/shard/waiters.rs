//! Readers that wait for news of a partition.
//!
//! Invariant: a reader is here at most once per partition, however often it looks; whoever is woken is forgotten and comes
//! again if it still waits. A reader that has gone keeps its place until the next news, or until the places taken have
//! doubled since they were last looked through, so at most every second place is a dead one's.

use protocol::ids::TopicPartition;
use std::collections::BTreeMap;
use std::sync::Weak;
use tokio::sync::Notify;

use crate::limits::{WAITERS_LOOKED_THROUGH_MIN, WAITERS_PER_PARTITION, WAITERS_PER_SHARD};

/// See the module. A waiter's address is its name: it is not used again while a weak reference is kept.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    of: BTreeMap<TopicPartition, BTreeMap<usize, Weak<Notify>>>,
    /// Places taken in all.
    count: usize,
    /// Places that were taken by the living when all were looked through last.
    living: usize,
}

impl Waiters {
    /// Remembers a reader. Beyond the limit it is not woken, and looks again when its time is up.
    pub(super) fn add(&mut self, at: TopicPartition, waiter: &Weak<Notify>) {
        let here = self.of.get(&at);
        if here.is_some_and(|waiters| waiters.contains_key(&(waiter.as_ptr() as usize))) {
            return;
        }
        let full = here.is_some_and(|w| w.len() >= WAITERS_PER_PARTITION) || self.count >= WAITERS_PER_SHARD;
        if full || self.count >= WAITERS_LOOKED_THROUGH_MIN.max(2 * self.living) {
            self.forget_the_gone();
        }
        if self.count >= WAITERS_PER_SHARD || waiter.strong_count() == 0 {
            return;
        }
        let waiters = self.of.entry(at).or_default();
        if waiters.len() < WAITERS_PER_PARTITION {
            self.count += usize::from(waiters.insert(waiter.as_ptr() as usize, waiter.clone()).is_none());
        }
    }

    fn forget_the_gone(&mut self) {
        self.of.retain(|_, waiters| {
            waiters.retain(|_, w| w.strong_count() > 0);
            !waiters.is_empty()
        });
        self.count = self.of.values().map(BTreeMap::len).sum();
        self.living = self.count;
    }

    /// There is news of the partition.
    pub(super) fn wake(&mut self, at: TopicPartition) {
        let waiters = self.of.remove(&at).unwrap_or_default();
        self.count -= waiters.len();
        for waiter in waiters.into_values() {
            if let Some(waiter) = waiter.upgrade() {
                waiter.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use protocol::ids::TopicId;
    use std::sync::Arc;

    fn at(partition: u32) -> TopicPartition {
        TopicPartition { topic: TopicId::default(), partition }
    }

    #[test]
    fn a_reader_that_looks_again_takes_one_place() {
        let (mut waiters, reader) = (Waiters::default(), Arc::new(Notify::new()));
        for _ in 0..1_000 {
            waiters.add(at(0), &Arc::downgrade(&reader));
        }
        assert_eq!(waiters.of[&at(0)].len(), 1);
        waiters.add(at(1), &Arc::downgrade(&reader));
        waiters.wake(at(0));
        assert!(reader.notified().now_or_never().is_some());
        assert_eq!((waiters.of.len(), waiters.of[&at(1)].len()), (1, 1), "it still waits for the other partition");
    }

    #[test]
    fn idle_polls_of_quiet_partitions_leave_no_more_than_they_found() {
        let mut waiters = Waiters::default();
        for poll in 0..100_000 {
            let reader = Arc::new(Notify::new());
            waiters.add(at(poll % 50), &Arc::downgrade(&reader));
        }
        let held: usize = waiters.of.values().map(BTreeMap::len).sum();
        assert!(held <= WAITERS_LOOKED_THROUGH_MIN, "{held}");
        assert_eq!(held, waiters.count);
        (0..50).for_each(|partition| waiters.wake(at(partition)));
        assert_eq!((waiters.count, waiters.of.len()), (0, 0));
    }

    #[test]
    fn a_shard_holds_so_many_places_in_all() {
        let (mut waiters, reader) = (Waiters::default(), Arc::new(Notify::new()));
        for partition in 0..=u32::try_from(WAITERS_PER_SHARD).unwrap() {
            waiters.add(at(partition), &Arc::downgrade(&reader));
        }
        assert_eq!(waiters.count, WAITERS_PER_SHARD);
    }

    #[test]
    fn readers_that_have_gone_make_place_when_places_are_short() {
        let mut waiters = Waiters::default();
        let gone: Vec<_> = (0..WAITERS_PER_PARTITION).map(|_| Arc::new(Notify::new())).collect();
        gone.iter().for_each(|reader| waiters.add(at(0), &Arc::downgrade(reader)));
        let reader = Arc::new(Notify::new());
        waiters.add(at(0), &Arc::downgrade(&reader));
        waiters.wake(at(0));
        assert!(reader.notified().now_or_never().is_none(), "no place");
        gone.iter().for_each(|reader| waiters.add(at(0), &Arc::downgrade(reader)));
        drop(gone);
        waiters.add(at(0), &Arc::downgrade(&reader));
        waiters.wake(at(0));
        assert!(reader.notified().now_or_never().is_some());
    }
}
