//! One segment file: identity, end mark slots, batches.
//!
//! Owns: the layout of a segment file, its [`Mark`] slots, the chain hash, walking over its batches, its index.
//! Never: decides which bytes of a log count (`engine`, `recovery` do).
//! Invariant: identity is written once; a slot describes only bytes that a completed sync covers; slots carry a
//! growing sequence number and alternate, so that the one being rewritten is never the only good one.
//!
//! ```text
//!    0 identity: magic, version, life, base offset, chain and epoch before the base, crc
//! 1024 slot with odd sequence numbers     2048 slot with even ones
//! 4096 batches, back to back
//! ```

mod file;
pub(crate) mod outline;
pub(crate) mod walk;

pub(crate) use file::{Identity, Mark, SegmentFile, identity_of, index_path, marks_of, segment_base, segment_path};
pub(crate) use outline::Outline;

use protocol::batch::Header;

/// Chain hash before the first batch of a life that begins at `start`.
pub(crate) fn chain_seed(start: u64) -> u64 {
    mix(0x5ea3_a11c_4a1b_0001, start)
}

/// Chain hash after a batch: covers what the batch's own checksum does not (offset, length, epoch) and the checksum
/// itself, so that a batch out of place, or from another life of the file, breaks the chain.
pub(crate) fn chain_next(chain: u64, header: &Header) -> u64 {
    let epoch = header.leader_epoch.map_or(u64::MAX, u64::from);
    let words = [header.base_offset, (u64::from(header.batch_length) << 32) | u64::from(header.crc), epoch];
    words.into_iter().fold(chain, mix)
}

/// One step of the chain. For a fixed word it is a bijection of the state and for a fixed state one of the word, so
/// a single changed word always changes the result. Guards against faults, not against forgers.
fn mix(state: u64, word: u64) -> u64 {
    let mut x = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 29)
}
