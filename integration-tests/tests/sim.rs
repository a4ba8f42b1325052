//! The deciding cores in one seeded loop: no acknowledged record lost, no epoch with two leaders, replicas equal after
//! healing, and everything heals. A failure names its seed; `seawall-sim --seed N` shows that one with all that happens,
//! and `seawall-sim run --seeds A..B` runs many.

use integration_tests::mutants::{Found, GROUNDS, hunt};
use integration_tests::sim::runner::Job;
use integration_tests::sim::{Plan, run};
use protocol::planted::{Bug, planted};

const SEEDS_A_TEST: u64 = 8;

fn seeds(first: u64) {
    let job = Job {
        seeds: first..first + SEEDS_A_TEST,
        threads: 1,
        limit: None,
        first_only: false,
        bug: None,
        hopeless: false,
    };
    let report = job.run();
    let broken: Vec<_> = report.broken.values().cloned().collect();
    assert!(broken.is_empty(), "{} of {SEEDS_A_TEST} seeds:\n{}", broken.len(), broken.join("\n"));
    println!("{}", report.text());
    // A run in which the faults did not happen proves nothing.
    let sum = report.sum();
    assert!(sum.acked > 200 * SEEDS_A_TEST, "{sum:?}");
    assert!(sum.leader_changes > 2 * SEEDS_A_TEST && sum.failovers > SEEDS_A_TEST, "{sum:?}");
    assert!(sum.faults_taken() > 5 * SEEDS_A_TEST && sum.kills > 0, "{sum:?}");
}

#[test]
fn cores_keep_every_acknowledged_record_first_seeds() {
    seeds(1);
}

#[test]
fn cores_keep_every_acknowledged_record_second_seeds() {
    seeds(1_001);
}

#[test]
fn cores_keep_every_acknowledged_record_third_seeds() {
    seeds(2_001);
}

#[test]
fn cores_keep_every_acknowledged_record_fourth_seeds() {
    seeds(3_001);
}

/// Seeds that were red once, on the code of their time: a bug of the product each, but for 3207 and 8957 (the simulator's).
/// The mended code has tests of its own (docs/testing.md, "Bugs found").
#[test]
fn seeds_that_were_red_once_stay_clean() {
    for seed in [2_708, 3_207, 3_836, 7_853, 8_957, 14_572, 34_577, 60_414] {
        if let Err(why) = run(Plan::of(seed)) {
            panic!("{why}");
        }
    }
}

/// A bug in the ground rules must not survive this many seeds.
const SEEDS_TO_SEE: u64 = 20;

#[test]
fn a_missing_partition_sync_is_seen_by_the_cores() {
    let seen = planted(Bug::PartitionSync, || (1..=SEEDS_TO_SEE).find_map(|seed| run(Plan::of(seed)).err()));
    println!("{}", seen.expect("some seed sees it"));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 5_000..5_003 {
        assert_eq!(run(Plan::of(seed)), run(Plan::of(seed)), "seed {seed}");
    }
}

#[test]
fn the_seed_asked_for() {
    let asked = std::env::var("SEAWALL_SEED").ok().and_then(|s| s.parse().ok());
    let seed = asked.unwrap_or(42);
    let outcome = run(Plan::of(seed));
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[test]
fn planted_bugs_of_the_cores_are_seen_by_a_law_with_a_name() {
    let ground = GROUNDS.iter().find(|ground| ground.ring == "ring 1").expect("the simulation is a hunting ground");
    for bug in [Bug::TruncateToHighWatermark, Bug::AnswerBeforeCommit, Bug::UnfenceBeforeElections] {
        let found = hunt(ground, bug, 10, 2);
        assert!(matches!(found, Found::Caught { .. }), "{bug:?}: {found:?}");
    }
}
