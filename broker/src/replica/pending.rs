//! Produces that wait for their answer, in order of offset. Bounded; each has a deadline.

use super::input::RequestId;
use protocol::ids::Millis;
use std::collections::{BTreeSet, VecDeque};

/// One produce that was appended and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) id: RequestId,
    pub(super) base: u64,
    pub(super) end: u64,
    pub(super) deadline: Millis,
}

/// Waiting produces by the offset that releases them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    queue: VecDeque<Waiting>,
    deadlines: BTreeSet<(Millis, u64)>,
}

impl Pending {
    /// Appends come in order of offset, so the queue stays sorted.
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.deadlines.insert((waiting.deadline, waiting.end));
        self.queue.push_back(waiting);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes out the first one if it is wholly below `position`.
    pub(super) fn release(&mut self, position: u64) -> Option<Waiting> {
        let first = self.queue.pop_front_if(|w| w.end <= position)?;
        self.deadlines.remove(&(first.deadline, first.end));
        Some(first)
    }

    /// Takes out one whose deadline has come.
    pub(super) fn expire(&mut self, now: Millis) -> Option<Waiting> {
        let (deadline, end) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)?;
        self.deadlines.remove(&(deadline, end));
        let at = self.queue.partition_point(|w| w.end < end);
        self.queue.remove(at)
    }

    /// Takes out all.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiting> {
        self.deadlines.clear();
        self.queue.drain(..)
    }

    /// The nearest deadline.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(n: u64, deadline: Millis) -> Waiting {
        Waiting { id: RequestId(n), base: n * 10, end: n * 10 + 10, deadline }
    }

    #[test]
    fn released_by_position_and_expired_by_deadline_each_once() {
        let mut pending = Pending::default();
        for (n, deadline) in [(0, 500), (1, 100), (2, 100), (3, 900)] {
            pending.push(waiting(n, deadline));
        }
        assert_eq!(pending.release(9), None, "not wholly below");
        assert_eq!(pending.release(10).map(|w| w.id.0), Some(0));
        assert_eq!(pending.next_deadline(), Some(100));
        assert_eq!(pending.expire(99), None);
        assert_eq!(pending.expire(100).map(|w| w.id.0), Some(1));
        assert_eq!(pending.expire(100).map(|w| w.id.0), Some(2));
        assert_eq!(pending.release(100).map(|w| w.id.0), Some(3));
        assert_eq!((pending.len(), pending.next_deadline()), (0, None));
    }
}
