//! The kinds of damage that a file at rest may suffer.
//!
//! Owns: which there are of a file, and what each leaves of its bytes. Pure. Never: knows a format.
//! Of a write that landed elsewhere this is the half that it hit. The place that it missed keeps what it had, and what that
//! was depends on the order of the writes: [`super::misdirect`] does both in a life.

use std::path::PathBuf;

use log::storage::memory::{LARGE_SECTOR_BYTES, SECTOR_BYTES};

const SECTOR: usize = SECTOR_BYTES as usize;
const PAGE: usize = LARGE_SECTOR_BYTES as usize;

/// Another file of the node: where, and its bytes.
pub(super) type Other = (PathBuf, Vec<u8>);

/// One damage. Sectors count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    /// One bit is another.
    Flip(u32, u8),
    /// The file ends here.
    Length(u32),
    /// A sector reads as zeros.
    Zeroed(u32),
    /// A page of eight sectors reads as zeros.
    ZeroedPage(u32),
    /// The first sector was written to the second, too.
    Copied(u32, u32),
    /// The sector of the same place of the other file of this number landed here.
    Foreign(u32, u32),
}

impl Harm {
    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Harm::Flip(..) => "flips",
            Harm::Length(_) => "lengths",
            Harm::Zeroed(_) | Harm::ZeroedPage(_) => "zeroed",
            Harm::Copied(..) | Harm::Foreign(..) => "misdirected",
        }
    }

    /// What it leaves of a file.
    pub(super) fn apply(self, good: &[u8], others: &[Other]) -> Vec<u8> {
        let mut bad = good.to_vec();
        let range = |n: u32, len: usize| n as usize * len..((n as usize + 1) * len).min(good.len());
        let sector = |n: u32| range(n, SECTOR);
        match self {
            Harm::Flip(at, bit) => bad[at as usize] ^= 1 << bit,
            Harm::Length(len) => bad.truncate(len as usize),
            Harm::Zeroed(n) => bad[sector(n)].fill(0),
            Harm::ZeroedPage(n) => bad[range(n, PAGE)].fill(0),
            Harm::Copied(from, to) => bad[sector(to)].copy_from_slice(&good[sector(from)]),
            Harm::Foreign(n, other) => {
                let from = others[other as usize].1.get(sector(n).start..).unwrap_or_default();
                let len = from.len().min(sector(n).len());
                bad[sector(n)][..len].copy_from_slice(&from[..len]);
            }
        }
        bad
    }

    /// Every damage of a file of `len` bytes beside `others` other ones; of flips every `step`-th bit, of lengths and
    /// misdirected sectors every `step / 8`-th.
    pub(super) fn all(len: usize, others: usize, step: usize) -> Vec<Harm> {
        let number = |n: usize| u32::try_from(n).expect("files of the torture are small");
        let (len, others, coarse) = (number(len), number(others), (step / 8).max(1));
        let flips = (0..len).flat_map(|at| (0..8).map(move |bit| Harm::Flip(at, bit))).step_by(step.max(1));
        let lengths = (0..len).map(Harm::Length).step_by(coarse);
        let (sectors, whole) = (len.div_ceil(number(SECTOR)), len / number(SECTOR));
        let zeroed = (0..sectors).map(Harm::Zeroed);
        let pages = (0..len.div_ceil(number(PAGE))).map(Harm::ZeroedPage);
        let pairs = (0..whole).flat_map(|a| (0..whole).filter(move |b| a != *b).map(move |b| (a, b)));
        let copied = pairs.map(|(a, b)| Harm::Copied(a, b));
        let foreign = (0..others).flat_map(|other| (0..sectors).map(move |n| Harm::Foreign(n, other)));
        let misdirected = copied.chain(foreign).step_by(coarse);
        flips.chain(lengths).chain(zeroed).chain(pages).chain(misdirected).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_every_length_and_every_sector_is_harmed() {
        let good: Vec<u8> = (0..1300).map(|n| (n / 7) as u8 | 1).collect();
        let others = [("/other".into(), vec![9; 600])];
        let all = Harm::all(good.len(), others.len(), 1);
        let of = |name: &str| all.iter().filter(|harm| harm.name() == name).count();
        // Three sectors, the last one not whole; pairs of the two whole ones; and three of the other file.
        assert_eq!((of("flips"), of("lengths"), of("zeroed"), of("misdirected")), (1300 * 8, 1300, 3 + 1, 2 + 3));
        let mut seen: Vec<Vec<u8>> = all.iter().map(|harm| harm.apply(&good, &others)).collect();
        let beyond = |harm: &&Harm| matches!(harm, Harm::Foreign(2, 0));
        assert_eq!(seen.iter().filter(|bad| **bad == good).count(), all.iter().filter(beyond).count());
        seen.sort();
        seen.dedup();
        // A cut at 0 is unlike the others, and so is every one of them.
        assert_eq!(seen.len(), all.len());
    }

    #[test]
    fn a_step_takes_some_of_each() {
        let all = Harm::all(2000, 1, 80);
        let of = |name: &str| all.iter().filter(|harm| harm.name() == name).count();
        assert_eq!((of("flips"), of("lengths"), of("zeroed")), (200, 200, 5));
        assert!(of("misdirected") > 0);
    }
}
