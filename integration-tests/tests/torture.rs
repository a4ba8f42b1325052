//! The torture of the storage in small; `seawall-torture` does all of it.

use integration_tests::torture::{
    Broker, Controller, Damages, crash_everywhere, damage_checkpoints, damage_everything, fail_everywhere,
    misdirect_everywhere,
};

const JOBS: usize = 2;

#[test]
fn a_broker_finds_what_was_promised_after_a_power_cut_anywhere() {
    let found = crash_everywhere::<Broker>(0, 5, 40, JOBS);
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
    assert!(found.states > 500 && found.within_recovery > 50, "{found:?}");
}

#[test]
fn a_controller_finds_what_was_promised_after_a_power_cut_anywhere() {
    let found = crash_everywhere::<Controller>(0, 3, 40, JOBS);
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
    assert!(found.states > 300 && found.within_recovery > 20, "{found:?}");
}

#[test]
fn whatever_call_fails_nothing_promised_is_lost() {
    for found in [fail_everywhere::<Broker>(0, 29, JOBS), fail_everywhere::<Controller>(0, 29, JOBS)] {
        assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
        assert_eq!(found.missed(), Vec::<String>::new(), "every kind of call to every kind of file failed once");
    }
}

#[test]
fn a_write_that_lands_elsewhere_is_detected_or_harmless_or_costs_the_last_flush_with_a_report() {
    for found in [misdirect_everywhere::<Broker>(0, 7, JOBS), misdirect_everywhere::<Controller>(0, 7, JOBS)] {
        assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
        assert!(found.detected > 10 && found.harmless > 10, "{found:?}");
    }
}

#[test]
fn damaged_checkpoints_tell_no_wrong_value() {
    let found = damage_checkpoints(0, 40, JOBS);
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
    assert!(found.forgotten > 0, "{found:?}");
}

#[test]
fn damage_is_detected_or_harmless_or_reported_above_the_mark() {
    // Primes, so that every bit of a byte has its turn.
    let mut found = damage_everything::<Broker>(0, 2003, JOBS);
    found.extend(damage_everything::<Controller>(0, 997, JOBS));
    for (kind, damages) in &found {
        assert!(damages.wrong.is_empty(), "{kind}: {:#?}", damages.wrong);
    }
    let sum = |of: fn(&Damages) -> u64| found.values().map(of).sum::<u64>();
    assert!(sum(|d| d.detected) > 500 && sum(|d| d.harmless) > 500 && sum(|d| d.cut) > 0, "{found:?}");
}
