//! What is committed in one partition, as the first log to be known for it showed it: batch by batch, byte by byte. Every
//! other log, acknowledgement and read is compared with it.
//!
//! Never: forgets, nor believes a log that cannot be read; damage is somebody else's matter.

use super::law::{Law, holds};
use bytes::Bytes;
use log::Log;
use protocol::batch::{Header, Limits, batches, records};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct History {
    batches: BTreeMap<u64, Bytes>,
    values: BTreeMap<u64, u64>,
    end: u64,
}

impl History {
    /// Offset after the last committed record.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The committed value at an offset.
    pub(super) fn value(&self, offset: u64) -> Option<u64> {
        self.values.get(&offset).copied()
    }

    /// Every committed value, by offset.
    pub(super) fn values(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.values.iter().map(|(offset, value)| (*offset, *value))
    }

    /// Whether one committed batch begins at `base` and goes on past `offset`, which is not before it.
    pub(super) fn covers(&self, base: u64, offset: u64) -> bool {
        let next = self.batches.get(&base).and_then(|batch| Header::parse(batch).ok()).map(|h| h.next_offset());
        next.is_some_and(|next| base <= offset && offset < next)
    }

    /// Compares the batches of a log in `from..upto`. `committed`: that much is known to be committed, so what history
    /// lacks is taken in, and told to `fresh`. Returns the first offset that was not compared.
    pub(super) fn compare(
        &mut self,
        log: &Log,
        from: u64,
        upto: u64,
        committed: bool,
        fresh: &mut Vec<u64>,
    ) -> Result<u64, String> {
        let mut next = from;
        while next < upto {
            let Ok(bytes) = log.read(next, 1 << 20, upto, true) else { return Ok(next) };
            let before = next;
            for batch in batches(&bytes) {
                let Some((batch, header)) = batch.ok().and_then(|b| Header::parse(&b).ok().map(|h| (b, h))) else {
                    return Ok(next);
                };
                let base = header.base_offset;
                let what = || format!("its log goes from {next} to {base}: a hole");
                holds(Law::ReplicasAgree, base <= next, what)?;
                match self.batches.get(&base) {
                    Some(known) if *known == batch => {}
                    None if committed && base >= self.end => self.take(&header, &batch, fresh),
                    known => {
                        let here = (base, header.next_offset(), header.leader_epoch, header.crc);
                        let there = known.and_then(|b| Header::parse(b).ok());
                        let there = there.map(|h| (h.base_offset, h.next_offset(), h.leader_epoch, h.crc));
                        let what = format!("its log has (base, end, epoch, crc) {here:?}, committed is {there:?}");
                        return Err(Law::ReplicasAgree.broken(what));
                    }
                }
                next = header.next_offset();
            }
            if next == before {
                break;
            }
        }
        Ok(next)
    }

    fn take(&mut self, header: &Header, batch: &Bytes, fresh: &mut Vec<u64>) {
        self.batches.insert(header.base_offset, Bytes::copy_from_slice(batch));
        self.end = header.next_offset();
        for stored in records(batch, &Limits::default()).into_iter().flatten().filter_map(Result::ok) {
            let value = stored.record.value.as_deref().and_then(|v| v.first_chunk::<8>());
            let value = value.map_or(u64::MAX, |v| u64::from_be_bytes(*v));
            self.values.insert(stored.offset, value);
            fresh.push(value);
        }
    }
}
