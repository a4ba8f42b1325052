//! What happened in a run, in order: folded into one hash, and printed line by line when a person asks for it.
//!
//! Never: influences the run. Invariant: the hash is the same with and without printing.

use protocol::ids::{BrokerId, Millis};
use std::collections::BTreeMap;
use std::fmt::Arguments;

/// The course of one run.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    echo: bool,
    /// How often each kind of event happened.
    kinds: BTreeMap<u64, u64>,
}

impl Trace {
    /// One that also prints, if `echo`.
    pub(super) fn new(echo: bool) -> Self {
        Self { hash: 0, echo, kinds: BTreeMap::new() }
    }

    /// Hash over everything so far.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// True if somebody reads along.
    pub(super) fn is_read(&self) -> bool {
        self.echo
    }

    /// Folds numbers in, without a line. SplitMix64's finisher: cheap, and every bit counts.
    pub(super) fn fold(&mut self, numbers: [u64; 3]) {
        for number in numbers {
            let mut z = (self.hash ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            self.hash = z ^ (z >> 31);
        }
    }

    /// Counts an event, for somebody who reads along.
    pub(super) fn count(&mut self, kind: u64) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    /// What was counted.
    pub(super) fn counted(&self) -> &BTreeMap<u64, u64> {
        &self.kinds
    }

    /// Something rare, with its text folded in.
    pub(super) fn note(&mut self, now: Millis, who: Option<BrokerId>, what: Arguments<'_>) {
        let text = what.to_string();
        let sum = text
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
        self.fold([now, who.map_or(0, |id| u64::from(id.0)), sum]);
        self.line(now, who, &text);
    }

    /// Something frequent: printed only.
    pub(super) fn line(&self, now: Millis, who: Option<BrokerId>, what: &str) {
        if self.echo {
            let who = who.map_or_else(|| "-".to_owned(), |id| format!("b{id}"));
            println!("{:>6}.{:03} {who:<4} {what}", now / 1_000, now % 1_000);
        }
    }
}
