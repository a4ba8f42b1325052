//! One file of the simulated disk: what the process sees, and what a crash would leave.
//!
//! Owns: the bytes, the changes that no sync covers, and what those changes hide of the durable bytes.
//! Never: does accounting or asks a hook.
//! Invariant: the durable bytes are `seen` with `hidden` put back and cut to `durable_len`. So a sync without an
//! earlier failure copies nothing, and a copy of the disk shares every byte until somebody writes.
//!
//! **The model of a crash.** The unit that a disk writes whole is a sector ([`SECTOR_BYTES`], or a larger one of the
//! disk's choice): no state exists in which half a sector of one write is there. Of what no sync covers, any subset
//! of sectors of any write may be there, whatever the order they were written in; so a write is torn at any of its
//! sectors, in the middle too. A write that extends the file may leave its new length without its bytes: zeros.
//! A change of length is kept or lost whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SECTOR_BYTES;

/// A change that no sync covers yet.
#[derive(Debug, Clone)]
pub(super) enum FileOp {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Extend(u64),
}

#[derive(Debug, Clone)]
pub(super) struct Inode {
    seen: Arc<Vec<u8>>,
    /// Durable contents of the sectors that differ, or may differ, from `seen`.
    hidden: BTreeMap<u64, Vec<u8>>,
    durable_len: u64,
    pending: Vec<FileOp>,
    /// A sync failed: `hidden` speaks of changes that are not pending any more.
    forgot: bool,
    /// It has a name, so its room is accounted for.
    pub(super) named: bool,
}

impl Default for Inode {
    fn default() -> Self {
        Inode::of(Vec::new())
    }
}

fn apply(data: &mut Vec<u8>, op: &FileOp) {
    match op {
        FileOp::Write(position, bytes) => write(data, *position, bytes),
        FileOp::SetLen(len) => data.resize(*len as usize, 0),
        FileOp::Extend(len) => data.resize((*len as usize).max(data.len()), 0),
    }
}

fn write(data: &mut Vec<u8>, position: u64, bytes: &[u8]) {
    let (start, end) = (position as usize, position as usize + bytes.len());
    if data.len() < end {
        data.resize(end, 0);
    }
    data[start..end].copy_from_slice(bytes);
}

impl Inode {
    /// A durable file of these bytes.
    pub(super) fn of(bytes: Vec<u8>) -> Inode {
        let durable_len = bytes.len() as u64;
        let hidden = BTreeMap::new();
        Inode { seen: Arc::new(bytes), hidden, durable_len, pending: Vec::new(), forgot: false, named: true }
    }

    /// The bytes as the process sees them.
    pub(super) fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Its length as the process sees it.
    pub(super) fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Keeps what is durable of the sectors from `from` up to `to` (bytes), as far as nothing is kept of them yet.
    fn hide(&mut self, from: u64, to: u64) {
        let to = to.min(self.durable_len);
        if from >= to {
            return;
        }
        for sector in from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) {
            let seen = &self.seen;
            self.hidden.entry(sector).or_insert_with(|| {
                let start = (sector * SECTOR_BYTES) as usize;
                let end = (start + SECTOR_BYTES as usize).min(seen.len());
                seen.get(start..end).unwrap_or_default().to_vec()
            });
        }
    }

    pub(super) fn change(&mut self, op: FileOp) {
        match &op {
            FileOp::Write(position, bytes) => self.hide(*position, position + bytes.len() as u64),
            // What lies behind the cut, and what the file may grow over again.
            FileOp::SetLen(len) => self.hide((*len).min(self.len()), self.durable_len),
            FileOp::Extend(_) => {}
        }
        apply(Arc::make_mut(&mut self.seen), &op);
        self.pending.push(op);
    }

    /// The bytes that a crash which keeps nothing would leave.
    pub(super) fn durable(&self) -> Vec<u8> {
        let mut bytes = (*self.seen).clone();
        self.put_back(&mut bytes);
        bytes
    }

    fn put_back(&self, bytes: &mut Vec<u8>) {
        bytes.resize(self.durable_len as usize, 0);
        for (sector, saved) in &self.hidden {
            let start = (sector * SECTOR_BYTES) as usize;
            let end = bytes.len().min(start + SECTOR_BYTES as usize);
            let kept = saved.len().min(end - start);
            bytes[start..start + kept].copy_from_slice(&saved[..kept]);
            bytes[start + kept..end].fill(0);
        }
    }

    /// True if a sync would have something to do.
    pub(super) fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn sync(&mut self) {
        if self.forgot {
            let mut durable = self.durable();
            self.pending.iter().for_each(|op| apply(&mut durable, op));
            self.keep_apart(durable);
        } else {
            self.hidden.clear();
            self.durable_len = self.len();
        }
        self.pending.clear();
    }

    /// Sets the durable bytes beside those that are seen.
    fn keep_apart(&mut self, durable: Vec<u8>) {
        self.hidden.clear();
        self.durable_len = durable.len() as u64;
        for (sector, bytes) in (0u64..).zip(durable.chunks(SECTOR_BYTES as usize)) {
            let start = (sector * SECTOR_BYTES) as usize;
            if self.seen.get(start..start + bytes.len()) != Some(bytes) {
                self.hidden.insert(sector, bytes.to_vec());
            }
        }
    }

    /// A sync that failed: what was pending is shown for as long as the machine runs, and never written.
    pub(super) fn forget_pending(&mut self) {
        self.forgot |= self.is_dirty();
        self.pending.clear();
    }

    /// A power cut; `keep` is asked per change as the module says, `unit` is the size of a sector.
    pub(super) fn crash(&mut self, unit: u64, keep: &mut dyn FnMut() -> bool) {
        if self.pending.is_empty() && self.hidden.is_empty() && self.durable_len == self.len() {
            self.forgot = false;
            return;
        }
        let mut bytes = std::mem::take(&mut self.seen);
        {
            let bytes = Arc::make_mut(&mut bytes);
            self.put_back(bytes);
            for op in std::mem::take(&mut self.pending) {
                crash_op(bytes, &op, unit, keep);
            }
        }
        self.durable_len = bytes.len() as u64;
        self.seen = bytes;
        self.hidden.clear();
        self.forgot = false;
    }

    /// Flips a bit at rest: in what is seen and in what is durable. False: there is no such byte.
    pub(super) fn flip(&mut self, position: u64, bit: u32) -> bool {
        let mask = 1 << (bit % 8);
        let bytes = Arc::make_mut(&mut self.seen);
        let seen = usize::try_from(position).ok().and_then(|at| bytes.get_mut(at));
        let found = seen.is_some();
        if let Some(byte) = seen {
            *byte ^= mask;
        }
        let saved = self.hidden.get_mut(&(position / SECTOR_BYTES));
        if let Some(byte) = saved.and_then(|s| s.get_mut((position % SECTOR_BYTES) as usize)) {
            *byte ^= mask;
        }
        found
    }
}

fn crash_op(bytes: &mut Vec<u8>, op: &FileOp, unit: u64, keep: &mut dyn FnMut() -> bool) {
    let FileOp::Write(position, written) = op else {
        if keep() {
            apply(bytes, op);
        }
        return;
    };
    let end = position + written.len() as u64;
    if end > bytes.len() as u64 && keep() {
        bytes.resize(end as usize, 0);
    }
    let (mut at, mut rest) = (*position, written.as_slice());
    while !rest.is_empty() {
        let len = (unit - at % unit).min(rest.len() as u64) as usize;
        if keep() {
            write(bytes, at, &rest[..len]);
        }
        at += len as u64;
        rest = &rest[len..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same file kept plainly: two whole copies.
    #[derive(Debug, Clone, Default)]
    struct Plain {
        seen: Vec<u8>,
        durable: Vec<u8>,
        pending: Vec<FileOp>,
    }

    #[derive(Debug, Clone)]
    enum Do {
        Change(FileOp),
        Sync,
        FailedSync,
        Crash { unit: u64, seed: u64 },
    }

    fn arb_do() -> impl Strategy<Value = Do> {
        let len = 0u64..5000;
        let write = (len.clone(), proptest::collection::vec(1u8.., 0..1500)).prop_map(|(at, b)| FileOp::Write(at, b));
        let unit = prop_oneof![Just(512), Just(4096)];
        prop_oneof![
            6 => write.prop_map(Do::Change),
            2 => len.clone().prop_map(|len| Do::Change(FileOp::SetLen(len))),
            1 => len.prop_map(|len| Do::Change(FileOp::Extend(len))),
            2 => Just(Do::Sync),
            1 => Just(Do::FailedSync),
            1 => (unit, any::<u64>()).prop_map(|(unit, seed)| Do::Crash { unit, seed }),
        ]
    }

    fn dice(mut seed: u64) -> impl FnMut() -> bool {
        move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 63 == 1
        }
    }

    proptest! {
        #[test]
        fn a_file_is_what_two_whole_copies_of_it_are(steps in proptest::collection::vec(arb_do(), 1..30)) {
            let (mut file, mut plain) = (Inode::default(), Plain::default());
            for step in steps {
                match step {
                    Do::Change(op) => {
                        apply(&mut plain.seen, &op);
                        plain.pending.push(op.clone());
                        file.change(op);
                    }
                    Do::Sync => {
                        plain.pending.drain(..).for_each(|op| apply(&mut plain.durable, &op));
                        file.sync();
                    }
                    Do::FailedSync => {
                        plain.pending.clear();
                        file.forget_pending();
                    }
                    Do::Crash { unit, seed } => {
                        let mut keep = dice(seed);
                        for op in plain.pending.drain(..) {
                            crash_op(&mut plain.durable, &op, unit, &mut keep);
                        }
                        plain.seen = plain.durable.clone();
                        file.crash(unit, &mut dice(seed));
                    }
                }
                prop_assert_eq!(file.seen(), &plain.seen[..]);
                prop_assert_eq!(file.durable(), plain.durable.clone());
            }
        }
    }

    #[test]
    fn a_sector_is_never_torn_and_a_length_may_come_without_its_bytes() {
        let write = FileOp::Write(100, vec![7; 9000]);
        for unit in [512, 4096] {
            for seed in 0..200 {
                let mut file = Inode::of(vec![1; 3000]);
                file.change(write.clone());
                file.crash(unit, &mut dice(seed));
                for (number, sector) in (0u64..).zip(file.seen().chunks(unit as usize)) {
                    let from = 100u64.saturating_sub(number * unit) as usize;
                    let written = &sector[from.min(sector.len())..];
                    prop_sector(written);
                }
            }
        }
        let mut file = Inode::of(Vec::new());
        file.change(write);
        let mut asked = 0;
        file.crash(512, &mut || {
            asked += 1;
            asked == 1
        });
        assert_eq!(file.seen(), &[0; 9100][..]);
    }

    /// Old bytes (ones, or nothing, or zeros behind the old end) or new ones, never both.
    fn prop_sector(sector: &[u8]) {
        let new = sector.iter().filter(|b| **b == 7).count();
        assert!(new == 0 || new == sector.len(), "{new} of {}", sector.len());
    }
}
