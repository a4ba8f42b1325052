//! Readers that wait for news of a partition.
//!
//! Invariant: a reader is here at most once per partition, however often it looks; whoever is woken is forgotten and comes
//! again if it still waits. A reader that has gone keeps its place until the next news or until the places are short.

use protocol::ids::TopicPartition;
use std::collections::BTreeMap;
use std::sync::Weak;
use tokio::sync::Notify;

use crate::limits::WAITERS_PER_PARTITION;

/// See the module. A waiter's address is its name: it is not used again while a weak reference is kept.
#[derive(Debug, Default)]
pub(super) struct Waiters(BTreeMap<TopicPartition, BTreeMap<usize, Weak<Notify>>>);

impl Waiters {
    /// Remembers a reader. Beyond the limit it is not woken, and looks again when its time is up.
    pub(super) fn add(&mut self, at: TopicPartition, waiter: &Weak<Notify>) {
        let waiters = self.0.entry(at).or_default();
        if waiters.len() >= WAITERS_PER_PARTITION {
            waiters.retain(|_, w| w.strong_count() > 0);
        }
        if waiters.len() < WAITERS_PER_PARTITION && waiter.strong_count() > 0 {
            waiters.insert(waiter.as_ptr() as usize, waiter.clone());
        }
    }

    /// There is news of the partition.
    pub(super) fn wake(&mut self, at: TopicPartition) {
        for waiter in self.0.remove(&at).into_iter().flat_map(BTreeMap::into_values) {
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
        assert_eq!(waiters.0[&at(0)].len(), 1);
        waiters.add(at(1), &Arc::downgrade(&reader));
        waiters.wake(at(0));
        assert!(reader.notified().now_or_never().is_some());
        assert_eq!((waiters.0.len(), waiters.0[&at(1)].len()), (1, 1), "it still waits for the other partition");
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
