//! Every fuzz body over inputs made from a seed: no panic, and what is accepted holds. `seawall-fuzz` gives them more, with
//! memory bounded.

use integration_tests::fuzz::{TARGETS, drive};

/// Inputs for each body here; unoptimised code is slow.
const INPUTS: u64 = 1_500;

#[test]
fn no_body_breaks() {
    let broken: Vec<_> = TARGETS
        .iter()
        .filter_map(|target| Some(format!("{}: {:?}", target.name, drive(target, 7, INPUTS, || None).broke?)))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn legal_inputs_of_each_corpus_are_there() {
    for target in &TARGETS {
        let corpus = (target.corpus)();
        assert!(corpus.len() >= 3, "{} begins with {} inputs", target.name, corpus.len());
    }
}
