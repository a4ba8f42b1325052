//! Work found in the image: bounded, resumable by another controller, quiet when there is none.

use super::*;
use crate::decide::command::{AlterConfigs, Command, ConfigTarget, DeleteTopic};
use crate::decide::limits::PREFERRED_HOLD_MS;
use crate::decide::sessions::Sessions;
use crate::decide::tests::world::{WALL_0, World, b, timers};

fn changes(facts: &[Fact]) -> usize {
    let count = |f: &Fact| match f {
        Fact::PartitionsChanged(f) => f.changes.len(),
        _ => 0,
    };
    facts.iter().map(count).sum()
}

#[test]
fn fencing_is_one_fact_and_its_elections_come_in_bounded_batches_that_any_controller_continues() {
    let mut world = World::of(3);
    let first = world.topic("big0", 4_000, 3, &[]);
    world.topic("big1", 4_000, 3, &[]);
    world.listen(timers().session_timeout_ms + 100, &[1, 2]);
    let plan = world.batch(&[Command::Tick]);
    assert!(matches!(plan.facts[0], Fact::BrokerFenced(at) if at.broker == b(3)));
    assert!(plan.more && changes(&plan.facts) <= WORK_PARTITIONS_MAX, "{}", changes(&plan.facts));
    let left = world.image.topics.in_sync_places_of(b(3)).count();
    assert_eq!(left + changes(&plan.facts), 8_000);
    // That controller dies; the next one knows nothing but the image.
    world.sessions = Sessions::new(timers());
    world.sessions.takeover(world.image.batch_no, world.mono);
    world.work();
    assert_eq!(world.image.topics.in_sync_places_of(b(3)).count(), 0);
    assert_eq!(world.image.topics.leaderless().count(), 0);
    let partition = world.partition(TopicPartition { partition: 3_999, ..first });
    assert!(partition.leader.is_some() && partition.isr.len() == 2);
}

#[test]
fn an_idle_cluster_has_no_work() {
    let mut world = World::of(3);
    world.topic("t", 20, 3, &[]);
    world.kill(&[2]);
    world.work();
    for _ in 0..5 {
        world.listen(100, &[1, 3]);
        let plan = world.batch(&[Command::Tick]);
        assert_eq!((plan.facts, plan.more), (vec![], false));
    }
}

#[test]
fn leadership_returns_by_itself_after_the_hold_and_not_before() {
    let mut world = World::of(3);
    let at = world.topic("t", 1, 3, &[]);
    let first = world.partition(at).replicas[0].0;
    world.kill(&[first]);
    world.unfence(first);
    let back = world.mono;
    world.set_isr(at, &[1, 2, 3]);
    while world.mono + 100 < back + PREFERRED_HOLD_MS {
        world.pass(100, &[1, 2, 3]);
        assert_ne!(world.partition(at).leader, Some(b(first)), "{} ms after it came back", world.mono - back);
    }
    world.pass(PREFERRED_CHECK_MS + 200, &[1, 2, 3]);
    assert_eq!(world.partition(at).leader, Some(b(first)));
}

#[test]
fn leadership_does_not_return_to_a_replica_out_of_the_isr() {
    let mut world = World::of(3);
    let at = world.topic("t", 1, 3, &[]);
    let first = world.partition(at).replicas[0].0;
    world.kill(&[first]);
    world.unfence(first);
    world.pass(PREFERRED_HOLD_MS + 2 * PREFERRED_CHECK_MS, &[1, 2, 3]);
    assert_ne!(world.partition(at).leader, Some(b(first)));
}

#[test]
fn leaderships_return_some_at_a_time() {
    let mut world = World::of(2);
    let at = world.topic("t", 1_000, 2, &[]);
    world.kill(&[1]);
    world.unfence(1);
    for partition in 0..1_000 {
        world.set_isr(TopicPartition { partition, ..at }, &[1, 2]);
    }
    let mut most = 0;
    for _ in 0..600 {
        world.listen(100, &[1, 2]);
        most = most.max(changes(&world.batch(&[Command::Tick]).facts));
    }
    assert_eq!(most, PREFERRED_MOVES_MAX);
    let topic = world.image.topics.get(at.topic).expect("live");
    assert!(topic.partitions.iter().all(|p| p.leader == p.replicas.first().copied()), "and all of them in the end");
}

#[test]
fn an_elr_member_that_comes_back_is_elected() {
    let mut world = World::of(3);
    let at = world.topic("t", 1, 3, &[("min.insync.replicas", "2")]);
    let all: Vec<u32> = world.partition(at).replicas.iter().map(|b| b.0).collect();
    world.kill(&all);
    let elr = world.places(at).2;
    assert_eq!(world.places(at), (None, vec![], elr.clone()));
    world.restart(elr[0], 2);
    world.prove(elr[0], &[at]);
    world.unfence(elr[0]);
    world.pass(100, &[elr[0]]);
    assert_eq!((world.places(at).0, world.places(at).1), (Some(elr[0]), vec![elr[0]]));
}

#[test]
fn deleted_topics_are_purged_after_their_grace() {
    let mut world = World::of(1);
    let at = world.topic("t", 1, 1, &[]);
    let delete = DeleteTopic { name: "t".to_owned(), at_ms: WALL_0 + world.mono };
    world.run(Command::DeleteTopic(delete)).expect("deleted");
    world.mono += 86_400_000 - 1;
    world.work();
    assert!(world.image.topics.get(at.topic).is_some(), "restorable to the last");
    world.pass(PURGE_CHECK_MS, &[1]);
    assert!(world.image.topics.get(at.topic).is_none());
}

#[test]
fn a_lost_batch_is_found_again() {
    let mut world = World::of(2);
    world.topic("t", 10, 2, &[]);
    world.listen(timers().session_timeout_ms + 100, &[1]);
    let now = world.now();
    let lost = crate::decide::batch::run_batch(&world.image, &mut world.sessions, now, &[]);
    assert!(!lost.facts.is_empty());
    world.sessions.settled(false);
    let again = world.batch(&[Command::Tick]);
    assert_eq!(lost.facts, again.facts);
}

#[test]
fn an_election_in_a_lost_batch_is_found_again() {
    let mut world = World::of(2);
    let at = world.topic("t", 1, 1, &[]);
    let id = world.partition(at).leader.expect("led").0;
    world.kill(&[id]);
    let wish = crate::decide::command::Heartbeat { wants_unfence: true, ..world.heartbeat(id) };
    world.sessions.note_heartbeat(&world.image, &wish, world.mono);
    let now = world.now();
    let lost = crate::decide::batch::run_batch(&world.image, &mut world.sessions, now, &[Command::Heartbeat(wish)]);
    assert_eq!(changes(&lost.facts), 1, "unfenced and elected in one batch");
    world.sessions.settled(false);
    world.batch(&[Command::Heartbeat(wish)]);
    assert_eq!(world.partition(at).leader, Some(b(id)));
}

#[test]
fn a_rule_that_is_lowered_does_not_disturb_leaderless_partitions() {
    let mut world = World::of(2);
    let at = world.topic("t", 1, 2, &[("min.insync.replicas", "2")]);
    world.kill(&[1, 2]);
    let elr = world.places(at).2;
    let lower = AlterConfigs {
        target: ConfigTarget::Topic("t".to_owned()),
        set: vec![("min.insync.replicas".to_owned(), "1".to_owned())],
        unset: vec![],
        validate_only: false,
    };
    world.run(Command::AlterConfigs(lower)).expect("set");
    assert_eq!(world.places(at), (None, vec![], elr), "nothing was committed meanwhile");
}
