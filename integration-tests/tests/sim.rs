//! The deciding cores in one seeded loop: no acknowledged record lost, no epoch with two leaders, replicas equal after
//! healing, and everything heals. A failure names its seed; `SEAWALL_SEED=n cargo nextest run the_seed_asked_for`
//! runs that one alone.

use integration_tests::sim::{Plan, Tally, run};
use protocol::planted::{Bug, planted};

const SEEDS_A_TEST: u64 = 60;

fn seeds(first: u64) -> Tally {
    let mut sum = Tally::default();
    let mut broken = Vec::new();
    for seed in first..first + SEEDS_A_TEST {
        match run(Plan::of(seed)) {
            Ok(tally) => sum.add(&tally),
            Err(error) => broken.push(error),
        }
    }
    assert!(broken.is_empty(), "{} of {SEEDS_A_TEST} seeds:\n{}", broken.len(), broken.join("\n"));
    // A run in which the faults did not happen proves nothing.
    assert!(sum.acked > 40 * SEEDS_A_TEST, "{sum:?}");
    assert!(sum.kills > 0 && sum.power_cuts > 0 && sum.blackouts > 0 && sum.failovers > SEEDS_A_TEST, "{sum:?}");
    assert!(sum.leaderships > 3 * SEEDS_A_TEST && sum.proofs > 0 && sum.dropped_batches > 0, "{sum:?}");
    assert!(sum.truncations > 0 && sum.wiped > 0 && sum.failed_syncs > 0, "{sum:?}");
    println!("{sum:?}");
    sum
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

/// A bug in the ground rules must not survive this many seeds.
const SEEDS_TO_SEE: u64 = 20;

#[test]
fn a_missing_partition_sync_is_seen_by_the_cores() {
    let seen = planted(Bug::PartitionSync, || (1..=SEEDS_TO_SEE).find_map(|seed| run(Plan::of(seed)).err()));
    println!("{}", seen.expect("some seed sees it"));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 5_000..5_006 {
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
