//! The real services on simulated machines, a few seeds of them; `seawall-sim ring2 --seed N` replays one aloud.
//! Built only with `RUSTFLAGS="--cfg tokio_unstable"`: without it the runtime's choices are not the seed's, and a red seed
//! could not be replayed.
#![cfg(tokio_unstable)]

use integration_tests::ring2::{Plan, run};

fn clean(seed: u64) {
    let report = run(Plan::of(seed), false);
    println!("seed {seed}: {report}");
    assert!(report.is_clean(), "seed {seed}: {report}");
}

#[test]
fn a_broker_does_not_wait_for_a_controller_outside_the_cluster() {
    // Two spare controllers are configured: half of the brokers begin with one of them.
    clean(1);
}

#[test]
fn the_real_services_keep_their_word_on_a_second_seed() {
    clean(2);
}
