//! Which partition a record goes to.
//!
//! Owns: Kafka's murmur2 placement of keys, and the sticky choice for records without one.
//! Never: reads routing or a clock; who may be chosen and how loaded they are come as arguments.
//! Invariant: a key's partition depends on the key and the partition count only, and equals what Kafka's own
//! clients compute, so that producers of both kinds may share a topic.
//! Why sticky: records without a key fill one batch after the other instead of one record in each (KIP-480, KIP-794).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::retry::Dice;

/// Kafka's 32-bit murmur2 (seed 0x9747b28c), as its Java client computes it.
#[must_use]
pub fn murmur2(key: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash: u32 = 0x9747_b28c ^ (key.len() as u32);
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = chunks.remainder();
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash as i32
}

/// The partition of a key among `partitions` (at least 1).
#[must_use]
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) as u32 & 0x7fff_ffff) % partitions.max(1)
}

/// The sticky choice of one topic: stays with a partition for `batch_bytes`, then moves on.
#[derive(Debug, Clone)]
pub struct Sticky {
    dice: Dice,
    current: Option<u32>,
    bytes: usize,
}

impl Sticky {
    /// A choice that has not been made; `seed` decides the sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), current: None, bytes: 0 }
    }

    /// The partition for a record of `bytes`. `available` says whether a partition may be chosen (it has a leader),
    /// `queued` how many bytes wait for it. Of two candidates drawn at random the less loaded one is taken. If none is
    /// available, all are.
    pub fn choose(
        &mut self,
        partitions: u32,
        bytes: usize,
        batch_bytes: usize,
        available: impl Fn(u32) -> bool,
        queued: impl Fn(u32) -> usize,
    ) -> u32 {
        if let Some(current) = self.current
            && current < partitions
            && self.bytes < batch_bytes
            && available(current)
        {
            self.bytes += bytes;
            return current;
        }
        let open: Vec<u32> = (0..partitions).filter(|p| available(*p)).collect();
        let open = if open.is_empty() { (0..partitions.max(1)).collect() } else { open };
        let first = open[self.dice.below(open.len() as u64) as usize];
        let second = open[self.dice.below(open.len() as u64) as usize];
        let chosen = if queued(second) < queued(first) { second } else { first };
        self.current = Some(chosen);
        self.bytes = bytes;
        chosen
    }

    /// The batch of the current partition was closed before it was full: the next record may go elsewhere.
    pub fn batch_closed(&mut self, partition: u32) {
        if self.current == Some(partition) {
            self.current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_equals_kafkas_published_vectors() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_key_keeps_its_partition_and_stays_in_range() {
        for partitions in 1..50 {
            let p = partition_of_key(b"user-17", partitions);
            assert!(p < partitions);
            assert_eq!(p, partition_of_key(b"user-17", partitions));
        }
    }

    #[test]
    fn sticks_for_a_batch_then_moves_and_shuns_partitions_without_a_leader() {
        let mut sticky = Sticky::new(7);
        let mut seen = vec![0_usize; 6];
        let mut runs = 0;
        let mut last = None;
        for _ in 0..6_000 {
            let p = sticky.choose(6, 10, 1_000, |p| p != 2, |_| 0);
            if last != Some(p) {
                runs += 1;
            }
            last = Some(p);
            seen[p as usize] += 1;
        }
        assert_eq!(seen[2], 0, "partition 2 has no leader");
        assert!(seen.iter().enumerate().all(|(p, n)| p == 2 || *n >= 200), "{seen:?}");
        assert!(runs <= 60, "60,000 bytes in batches of 1,000 make at most 60 runs, got {runs}");
    }

    #[test]
    fn prefers_the_less_loaded() {
        let mut sticky = Sticky::new(1);
        let mut heavy = 0;
        for _ in 0..400 {
            heavy += usize::from(sticky.choose(2, 10, 1, |_| true, |p| if p == 0 { 1_000 } else { 0 }) == 0);
        }
        assert!(heavy < 150, "a loaded partition is drawn only when drawn twice: {heavy} of 400");
    }

    #[test]
    fn with_no_leader_anywhere_a_partition_is_chosen_all_the_same() {
        assert!(Sticky::new(3).choose(4, 1, 100, |_| false, |_| 0) < 4);
    }
}
