//! Every fuzz body over inputs made from a seed: no panic, no input that takes for ever, what is accepted holds, and enough
//! of them get deep. `seawall-fuzz` gives them more, with memory bounded.

use integration_tests::fuzz::{Bounds, DEV_SLOWNESS, INPUT_CPU_MAX, TARGETS, drive, told};
use integration_tests::tidy;
use std::collections::BTreeSet;

/// Inputs for each body here; unoptimised code is slow.
const INPUTS: u64 = 1_500;

fn names() -> BTreeSet<String> {
    TARGETS.iter().map(|target| target.name.to_owned()).collect()
}

#[test]
fn no_body_breaks_and_every_body_is_got_into() {
    let bounds = Bounds { cpu: INPUT_CPU_MAX * DEV_SLOWNESS };
    let mut broken = Vec::new();
    for target in &TARGETS {
        let outcome = drive(target, 7, 0..INPUTS, bounds, |_, _| None);
        broken.extend(outcome.broke.map(|failure| told(target, 7, &failure)));
        broken.extend(outcome.tally.below(target.floors).map(|text| format!("{}: {text}", target.name)));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Files named `TARGET.what-it-is.bin`.
#[test]
fn inputs_that_broke_a_body_once_do_not_any_more() {
    let folder = tidy::root().join("integration-tests/tests/fuzz_inputs");
    let files = std::fs::read_dir(folder).expect("the inputs").map(|file| file.expect("an input").path());
    let mut run = 0;
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
        integration_tests::fuzz::run(name.expect("a target's name"), &std::fs::read(&file).expect("an input"));
        run += 1;
    }
    assert!(run >= 2, "{run} inputs");
}

#[test]
fn legal_inputs_of_each_corpus_are_there() {
    for target in &TARGETS {
        let corpus = (target.corpus)();
        assert!(corpus.len() >= 3, "{} begins with {} inputs", target.name, corpus.len());
    }
}

#[test]
fn libfuzzer_has_the_same_targets() {
    let root = tidy::root().join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("the manifest of the targets");
    let manifest: toml::Value = toml::from_str(&manifest).expect("a manifest is toml");
    let bins = manifest["bin"].as_array().expect("its targets");
    let mut listed = BTreeSet::new();
    for bin in bins {
        let (name, path) = (bin["name"].as_str().expect("a name"), bin["path"].as_str().expect("a path"));
        let source = std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(source.contains(&format!("fuzz::run(\"{name}\", bytes)")), "{path} runs another body than {name}");
        listed.insert(name.to_owned());
    }
    assert_eq!(listed, names(), "fuzz/Cargo.toml and TARGETS");
    let files = std::fs::read_dir(root.join("fuzz_targets")).expect("the targets").count();
    assert_eq!(files, TARGETS.len(), "files that no target names");
}
