//! Explanations agree with what would happen.

use super::*;
use crate::decide::tests::world::{World, b};

fn verdict_of<'e>(explanation: &'e Explanation, what: &str) -> &'e LossVerdict {
    explanation.losses.iter().find(|l| l.what.starts_with(what)).expect("a verdict")
}

#[test]
fn a_healthy_partition_survives_any_one_loss() {
    let mut world = World::of(3);
    world.topic("t", 1, 3, &[("min.insync.replicas", "2")]);
    let explanation = explain_partition(&world.image, "t", 0).expect("explained");
    assert!(explanation.satisfies);
    assert_eq!(explanation.losses.len(), 6, "three brokers, three data centres");
    assert!(explanation.losses.iter().all(|l| l.writes_continue && l.acked_records_safe), "{explanation:?}");
}

#[test]
fn two_copies_in_one_data_centre_stop_writes_with_it() {
    let mut world = World::at(&["eu/a/1", "eu/a/2", "eu/b/1"]);
    world.topic("t", 1, 3, &[("min.insync.replicas", "2")]);
    let explanation = explain_partition(&world.image, "t", 0).expect("explained");
    let loss = verdict_of(&explanation, "data centre eu/a");
    assert!(!loss.writes_continue && loss.acked_records_safe, "{loss:?}");
    assert!(verdict_of(&explanation, "data centre eu/b").writes_continue);
}

#[test]
fn the_last_copy_is_named_as_such() {
    let mut world = World::of(3);
    let at = world.topic("t", 1, 3, &[("min.insync.replicas", "1")]);
    let leader = world.partition(at).leader.expect("led").0;
    world.set_isr(at, &[leader]);
    let explanation = explain_partition(&world.image, "t", 0).expect("explained");
    let loss = verdict_of(&explanation, &format!("broker {leader} "));
    assert!(!loss.writes_continue && !loss.acked_records_safe, "{loss:?}");
    let other = (1..=3).find(|id| *id != leader).expect("three");
    assert!(verdict_of(&explanation, &format!("broker {other} ")).writes_continue);
    assert!(explanation.findings.iter().any(|f| f.contains("has not caught up")), "{:?}", explanation.findings);
}

/// The verdict on each broker is what fencing it really does.
#[test]
fn verdicts_come_true() {
    for id in 1..=3 {
        let mut world = World::of(3);
        let at = world.topic("t", 1, 3, &[("min.insync.replicas", "2")]);
        let leader = world.partition(at).leader.expect("led").0;
        let follower = (1..=3).find(|id| *id != leader).expect("three");
        world.set_isr(at, &[leader, follower]);
        let explanation = explain_partition(&world.image, "t", 0).expect("explained");
        let loss = verdict_of(&explanation, &format!("broker {id} ")).clone();
        world.kill(&[id]);
        let after = explain_partition(&world.image, "t", 0).expect("explained");
        assert_eq!(loss.writes_continue, after.satisfies && after.state.leader.is_some(), "broker {id}: {loss:?}");
    }
}

#[test]
fn an_offline_partition_says_what_it_waits_for() {
    let mut world = World::of(1);
    let at = world.topic("t", 1, 1, &[]);
    world.kill(&[1]);
    let waiting = explain_partition(&world.image, "t", 0).expect("explained");
    assert!(waiting.findings[0].contains("broker 1 (fenced)"), "{:?}", waiting.findings);
    world.restart(1, 2);
    world.prove(1, &[]);
    let lost = explain_partition(&world.image, "t", 0).expect("explained");
    assert!(lost.findings[0].contains("--unclean"), "{:?}", lost.findings);
    assert_eq!(world.partition(at).leader, None::<BrokerId>);
    assert!(world.image.brokers.get(b(1)).is_some());
}

#[test]
fn unknown_names_are_named() {
    let mut world = World::of(1);
    world.topic("t", 1, 1, &[]);
    assert_eq!(explain_partition(&world.image, "u", 0).map_err(|e| e.code), Err(ErrorCode::UnknownTopic));
    assert_eq!(explain_partition(&world.image, "t", 1).map_err(|e| e.code), Err(ErrorCode::UnknownPartition));
}
