//! Runs a target over many inputs and says which one broke it.

use super::mutate::next;
use super::{Target, mutate::INPUT_BYTES_MAX};
use crate::chaos::random::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Inputs given to the body.
    pub inputs: u64,
    /// The first input that it did not survive.
    pub broke: Option<Vec<u8>>,
}

/// Gives `inputs` inputs made from `seed` to the body: its corpus unchanged, then mutants of it. `watch` is asked after
/// each input, and a text of it ends the run too (memory, say).
pub fn drive(target: &Target, seed: u64, inputs: u64, mut watch: impl FnMut() -> Option<String>) -> Outcome {
    let corpus = (target.corpus)();
    assert!(
        corpus.iter().all(|input| input.len() <= INPUT_BYTES_MAX),
        "{}: an input of the corpus is cut",
        target.name
    );
    let mut rng = Random::new(seed);
    for number in 0..inputs {
        let given = usize::try_from(number).ok().and_then(|n| corpus.get(n).cloned());
        let input = given.unwrap_or_else(|| next(&mut rng, &corpus));
        let survived = catch_unwind(AssertUnwindSafe(|| (target.body)(&input))).is_ok();
        let complaint = watch();
        if let Some(complaint) = &complaint {
            eprintln!("{}: {complaint}", target.name);
        }
        if !survived || complaint.is_some() {
            return Outcome { inputs: number + 1, broke: Some(input) };
        }
    }
    Outcome { inputs, broke: None }
}
