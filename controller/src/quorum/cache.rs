//! The newest entries of the Raft log, decoded, within a byte budget: replication and apply read what was just
//! appended. Contiguous up to the log's end; what was evicted is read from disk. Owns no truth.

use super::types::alias::Entry;
use openraft::entry::RaftEntry;
use std::collections::VecDeque;

pub(super) struct EntryCache {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    budget: usize,
}

impl EntryCache {
    pub(super) fn new(budget: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, budget }
    }

    fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.index())
    }

    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.back().map(|(entry, _)| entry)
    }

    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        if self.last().is_some_and(|last| last.index() + 1 != entry.index()) {
            self.entries.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        while self.bytes > self.budget && self.entries.len() > 1 {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |(_, bytes)| bytes);
    }

    /// Forgets entries from `to` on.
    pub(super) fn truncate(&mut self, to: u64) {
        while self.last().is_some_and(|last| last.index() >= to) {
            self.bytes -= self.entries.pop_back().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// Forgets entries below `first`.
    pub(super) fn purge(&mut self, first: u64) {
        while self.first().is_some_and(|index| index < first) {
            self.drop_front();
        }
    }

    /// Entries of `start..end` within `max_bytes`, at least one; None when `start` is not here.
    pub(super) fn range(&self, start: u64, end: u64, max_bytes: usize) -> Option<Vec<Entry>> {
        let skip = usize::try_from(start.checked_sub(self.first()?)?).ok()?;
        let mut room = max_bytes;
        let mut found = Vec::new();
        for (entry, bytes) in self.entries.iter().skip(skip).take_while(|(entry, _)| entry.index() < end) {
            if !found.is_empty() && *bytes > room {
                break;
            }
            room = room.saturating_sub(*bytes);
            found.push(entry.clone());
        }
        (!found.is_empty()).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::alias::{CommittedLeaderId, LogId};
    use super::*;

    fn blank(index: u64) -> Entry {
        Entry::new_blank(LogId::new(CommittedLeaderId::new(1), index))
    }

    fn indexes(entries: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        entries.map(|entries| entries.iter().map(Entry::index).collect())
    }

    #[test]
    fn keeps_the_newest_within_its_budget() {
        let mut cache = EntryCache::new(30);
        (0..10).for_each(|index| cache.push(blank(index), 10));
        assert_eq!(indexes(cache.range(7, 20, 100)), Some(vec![7, 8, 9]));
        assert_eq!(cache.range(6, 20, 100), None, "evicted");
        assert_eq!(indexes(cache.range(7, 20, 25)), Some(vec![7, 8]));
        assert_eq!(indexes(cache.range(8, 9, 0)), Some(vec![8]), "at least one");
    }

    #[test]
    fn forgets_what_was_truncated_or_purged() {
        let mut cache = EntryCache::new(1000);
        (0..10).for_each(|index| cache.push(blank(index), 10));
        cache.truncate(6);
        cache.purge(3);
        assert_eq!(indexes(cache.range(3, 10, 1000)), Some(vec![3, 4, 5]));
        assert_eq!(cache.range(2, 10, 1000), None);
        cache.push(blank(50), 10);
        assert_eq!(indexes(cache.range(50, 51, 1000)), Some(vec![50]), "a gap starts it anew");
        assert_eq!(cache.range(5, 10, 1000), None);
    }
}
