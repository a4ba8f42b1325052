//! The outline of a segment: where its batches are, sparsely, and what they add up to.
//!
//! Owns: the offset and time index of one segment, its epoch starts, and the file beside the segment that saves a
//! walk at start.
//! Never: is the only copy of anything; whatever is missing, damaged or stale is rebuilt from the batches.
//! Invariant: an outline with end `e` and chain `c` describes exactly the bytes up to `e` that hash to `c`.

use serde::{Deserialize, Serialize};

use protocol::batch::Header;

use super::{Identity, Mark, chain_next};
use crate::limits::{FORMAT_VERSION, SEGMENT_HEADER_BYTES};

const MAGIC: [u8; 8] = *b"SEAWINDX";
const PREFIX_BYTES: usize = 8 + 4;

/// A batch whose place is known, with the running values before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) position: u64,
    pub(crate) chain: u64,
    /// Largest timestamp of the batches before, `i64::MIN` if none.
    pub(crate) max_timestamp: i64,
}

/// A place between two batches, with the chain hash that must stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) offset: u64,
    pub(crate) position: u64,
    pub(crate) chain: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outline {
    version: u32,
    pub(crate) life: u64,
    pub(crate) base: u64,
    base_chain: u64,
    base_epoch: Option<u32>,
    /// File position after the last batch.
    pub(crate) end: u64,
    /// Offset after the last batch.
    pub(crate) next: u64,
    pub(crate) chain: u64,
    pub(crate) max_timestamp: i64,
    /// Largest timestamp of the first batch, if there is one.
    pub(crate) first_timestamp: Option<i64>,
    pub(crate) entries: Vec<Entry>,
    /// Epochs that begin in this segment, with their first offsets.
    pub(crate) epochs: Vec<(u32, u64)>,
}

impl Outline {
    /// The outline of an empty segment.
    pub(crate) fn new(identity: &Identity) -> Outline {
        Outline {
            version: FORMAT_VERSION,
            life: identity.life,
            base: identity.base,
            base_chain: identity.chain,
            base_epoch: identity.epoch,
            end: SEGMENT_HEADER_BYTES,
            next: identity.base,
            chain: identity.chain,
            max_timestamp: i64::MIN,
            first_timestamp: None,
            entries: Vec::new(),
            epochs: Vec::new(),
        }
    }

    /// Leader epoch of the last batch, or of the one before the segment.
    pub(crate) fn epoch(&self) -> Option<u32> {
        self.epochs.last().map(|(epoch, _)| *epoch).or(self.base_epoch)
    }

    /// Adds the batch that follows; it was checked to continue.
    pub(crate) fn add(&mut self, header: &Header, interval: u64) {
        let due = self.entries.last().is_none_or(|last| self.end - last.position >= interval);
        if due {
            self.entries.push(Entry {
                offset: self.next,
                position: self.end,
                chain: self.chain,
                max_timestamp: self.max_timestamp,
            });
        }
        if let Some(epoch) = header.leader_epoch
            && self.epoch() != Some(epoch)
        {
            self.epochs.push((epoch, header.base_offset));
        }
        self.chain = chain_next(self.chain, header);
        self.end += header.total_len() as u64;
        self.next = header.next_offset();
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.first_timestamp.get_or_insert(header.max_timestamp);
    }

    /// The last entry at or before `offset`; `None` in an empty segment.
    pub(crate) fn floor(&self, offset: u64) -> Option<&Entry> {
        let at = self.entries.partition_point(|e| e.offset <= offset);
        at.checked_sub(1).map(|i| &self.entries[i])
    }

    /// The first place behind `offset` where the chain hash is known: an entry, or the end.
    pub(crate) fn known_after(&self, offset: u64) -> Known {
        let at = self.entries.partition_point(|e| e.offset <= offset);
        let entry = self.entries.get(at);
        entry.map_or(Known { offset: self.next, position: self.end, chain: self.chain }, |entry| Known {
            offset: entry.offset,
            position: entry.position,
            chain: entry.chain,
        })
    }

    /// The last entry before which every timestamp is below `timestamp`; `None` in an empty segment.
    pub(crate) fn floor_by_time(&self, timestamp: i64) -> Option<&Entry> {
        let at = self.entries.partition_point(|e| e.max_timestamp < timestamp);
        at.checked_sub(1).map(|i| &self.entries[i])
    }

    /// The outline as it was just before the last indexed batch at or before `offset`.
    pub(crate) fn rewound(&self, offset: u64) -> Outline {
        let identity = Identity { life: self.life, base: self.base, chain: self.base_chain, epoch: self.base_epoch };
        let mut out = Outline::new(&identity);
        let Some(at) = self.floor(offset).copied() else {
            return out;
        };
        out.entries = self.entries.iter().filter(|e| e.offset < at.offset).copied().collect();
        out.epochs = self.epochs.iter().filter(|(_, start)| *start < at.offset).copied().collect();
        out.first_timestamp = self.first_timestamp.filter(|_| at.offset > self.base);
        out.end = at.position;
        out.next = at.offset;
        out.chain = at.chain;
        out.max_timestamp = at.max_timestamp;
        out
    }

    /// The end mark that says all of it is durable.
    pub(crate) fn mark(&self, sealed: bool) -> Mark {
        Mark {
            end: self.end,
            next: self.next,
            chain: self.chain,
            epoch: self.epoch(),
            max_timestamp: self.max_timestamp,
            sealed,
            closed: false,
        }
    }

    /// True if the outline belongs to the segment and describes it exactly up to the mark.
    pub(crate) fn matches(&self, identity: &Identity, mark: &Mark) -> bool {
        self.belongs(identity)
            && (self.end, self.next, self.chain, self.epoch()) == (mark.end, mark.next, mark.chain, mark.epoch)
    }

    /// True if the outline belongs to the segment.
    pub(crate) fn belongs(&self, identity: &Identity) -> bool {
        let ours = (self.life, self.base, self.base_chain, self.base_epoch);
        ours == (identity.life, identity.base, identity.chain, identity.epoch)
    }

    /// Bytes of the index file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("plain numbers always serialise");
        let mut out = Vec::with_capacity(PREFIX_BYTES + body.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// The outline in an index file; `None` for anything not written whole by this format version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Outline> {
        let (prefix, body) = bytes.split_at_checked(PREFIX_BYTES)?;
        let crc = crc32c::crc32c(body).to_le_bytes();
        if prefix[..8] != MAGIC || prefix[8..] != crc {
            return None;
        }
        postcard::from_bytes(body)
            .ok()
            .filter(|outline: &Outline| outline.version == FORMAT_VERSION && outline.adds_up())
    }

    /// True if some segment may have this outline: places rise from its first batch to its end. Readers count on it.
    fn adds_up(&self) -> bool {
        let first = self.entries.first().map(|e| (e.offset, e.position));
        let last = self.entries.last().map(|e| (e.offset, e.position));
        let begins = first.is_none_or(|at| at == (self.base, SEGMENT_HEADER_BYTES));
        let ends = match last {
            Some((offset, position)) => offset < self.next && position < self.end,
            None => (self.next, self.end) == (self.base, SEGMENT_HEADER_BYTES),
        };
        let places = self.entries.is_sorted_by(|a, b| a.offset < b.offset && a.position < b.position);
        let epochs = self.epochs.is_sorted_by(|(_, a), (_, b)| a < b);
        let within = self.epochs.iter().all(|(_, start)| (self.base..self.next).contains(start));
        begins && ends && places && epochs && within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: u64, position: u64) -> Entry {
        Entry { offset, position, chain: 0, max_timestamp: 0 }
    }

    fn outline() -> Outline {
        let identity = Identity { life: 1, base: 5, chain: 9, epoch: None };
        let entries = vec![entry(5, SEGMENT_HEADER_BYTES), entry(8, 5_000)];
        Outline { entries, epochs: vec![(1, 5), (2, 8)], next: 9, end: 6_000, ..Outline::new(&identity) }
    }

    #[test]
    fn an_index_with_a_right_checksum_that_fits_no_segment_is_not_believed() {
        assert_eq!(Outline::decode(&outline().encode()), Some(outline()));
        let empty = Outline::new(&Identity { life: 1, base: 5, chain: 9, epoch: None });
        assert_eq!(Outline::decode(&empty.encode()), Some(empty));
        let wrong: [fn(&mut Outline); 8] = [
            |o| o.entries.clear(),
            |o| _ = o.entries.remove(0),
            |o| o.entries[0].position += 1,
            |o| o.entries[1].position = 7_000,
            |o| o.entries[1].offset = 9,
            |o| o.entries.push(entry(8, 5_001)),
            |o| o.epochs.swap(0, 1),
            |o| o.epochs[1].1 = 9,
        ];
        for (number, change) in wrong.into_iter().enumerate() {
            let mut outline = outline();
            change(&mut outline);
            assert_eq!(Outline::decode(&outline.encode()), None, "change {number}");
        }
    }
}
