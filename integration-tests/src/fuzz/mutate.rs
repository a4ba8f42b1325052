//! Makes hostile inputs out of legal ones: changes to what they say, to their bytes, or both; then most are made right again
//! around the change, so that it is seen by more than a checksum.
//!
//! Pure: the same generator gives the same inputs.

use super::Target;
use crate::chaos::random::Random;

/// Longest input.
pub(super) const INPUT_BYTES_MAX: usize = 16 * 1_024;
/// Changes made to one input at most.
const CHANGES_MAX: u64 = 6;

pub(super) const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

fn place(rng: &mut Random, len: usize) -> usize {
    usize::try_from(rng.below(len as u64 + 1)).unwrap_or(0).min(len)
}

/// Of a hundred inputs, so many are changed in what they say.
const TYPED_PERCENT: u64 = 60;
/// Of these, so many in their bytes too.
const BOTH_PERCENT: u64 = 10;
/// Of a hundred inputs, so many are made right again.
const SEALED_PERCENT: u64 = 70;

/// The next input: one of the corpus, changed a few times, now and then joined with another, rarely noise.
pub(super) fn next(rng: &mut Random, target: &Target, corpus: &[Vec<u8>]) -> Vec<u8> {
    if corpus.is_empty() || rng.chance(2) {
        return noise(rng, 300);
    }
    let mut input = rng.one_of(corpus).clone();
    let typed = rng.chance(TYPED_PERCENT);
    if typed {
        for _ in 0..rng.between(1, 2) {
            input = (target.vary)(rng, &input);
        }
    }
    if !typed || rng.chance(BOTH_PERCENT) {
        if rng.chance(10) {
            let other = rng.one_of(corpus);
            let (at, from) = (place(rng, input.len()), place(rng, other.len()));
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        for _ in 0..rng.between(0, CHANGES_MAX) {
            change(rng, &mut input);
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    if rng.chance(SEALED_PERCENT) {
        (target.seal)(rng, &mut input);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// One change of the bytes: for what has no fields.
pub(super) fn bytes(rng: &mut Random, input: &[u8]) -> Vec<u8> {
    let mut input = input.to_vec();
    change(rng, &mut input);
    input
}

fn noise(rng: &mut Random, most: u64) -> Vec<u8> {
    (0..rng.below(most)).map(|_| rng.number().to_le_bytes()[0]).collect()
}

pub(super) fn change(rng: &mut Random, input: &mut Vec<u8>) {
    let at = place(rng, input.len());
    match rng.below(7) {
        0 | 1 if at < input.len() => input[at] ^= 1 << rng.below(8),
        2 if at < input.len() => input[at] = rng.number().to_le_bytes()[0],
        3 => input.truncate(at),
        4 => {
            let bytes = noise(rng, 24);
            input.splice(at..at, bytes);
        }
        5 => edge(rng, input, at),
        6 => {
            let end = (at + place(rng, 40)).min(input.len());
            let piece = input[at..end].to_vec();
            if rng.chance(50) {
                input.splice(at..at, piece);
            } else {
                input.drain(at..end);
            }
        }
        _ => {}
    }
}

/// A number at the edge of its type, in either order of bytes or as a varint.
fn edge(rng: &mut Random, input: &mut Vec<u8>, at: usize) {
    let value = *rng.one_of(&EDGES);
    let width = *rng.one_of(&[1usize, 2, 4, 8]);
    let bytes = match rng.below(3) {
        0 => value.to_be_bytes()[8 - width..].to_vec(),
        1 => value.to_le_bytes()[..width].to_vec(),
        _ => varint(value),
    };
    let end = if rng.chance(70) { (at + bytes.len()).min(input.len()) } else { at };
    input.splice(at..end, bytes);
}

pub(super) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}
