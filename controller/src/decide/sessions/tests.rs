//! Stories about contacts, leases and fencing.

use super::*;
use crate::decide::batch::run_batch;
use crate::decide::command::{Command, Heartbeat, Register, Reply};
use crate::decide::tests::world::{World, b, timers};
use protocol::metadata::record::Fact;

fn answered(decision: &HeartbeatDecision) -> bool {
    matches!(decision, HeartbeatDecision::Answer { answer, .. } if answer.error.is_none())
}

fn code(decision: &HeartbeatDecision) -> Option<ErrorCode> {
    match decision {
        HeartbeatDecision::Answer { answer, .. } => answer.error.as_ref().map(|e| e.code),
        HeartbeatDecision::Silent => None,
    }
}

#[test]
fn silence_fences_at_the_session_timeout_and_not_before() {
    let mut world = World::of(3);
    world.pass(1_000, &[1, 2, 3]);
    let last = world.mono;
    while world.mono + 100 < last + timers().session_timeout_ms {
        world.pass(100, &[1, 2]);
    }
    assert!(world.broker(3).is_active());
    world.pass(100, &[1, 2]);
    assert!(world.broker(3).is_fenced());
    assert!(world.broker(1).is_active() && world.broker(2).is_active());
}

#[test]
fn a_reset_stream_fences_after_one_and_a_tenth_leases_since_the_last_receipt() {
    let mut world = World::of(3);
    world.pass(1_000, &[1, 2, 3]);
    let last = world.mono;
    world.sessions.note_reset(b(3), 1);
    world.pass(400, &[1, 2]);
    assert!(world.broker(3).is_active(), "fenced {} ms after the last receipt", world.mono - last);
    world.pass(100, &[1, 2]);
    assert!(world.mono >= last + timers().fence_after_reset_ms && world.broker(3).is_fenced());
}

#[test]
fn a_reset_of_a_replaced_stream_says_nothing() {
    let mut world = World::of(1);
    world.streams.insert(1, 7);
    world.pass(500, &[1]);
    world.sessions.note_reset(b(1), 6);
    world.pass(600, &[]);
    assert!(world.broker(1).is_active());
    let mut late = world.heartbeat(1);
    late.stream = 6;
    assert!(
        !world.sessions.note_heartbeat(&world.image, &late, world.mono),
        "an old stream's heartbeat counts for nothing"
    );
}

#[test]
fn a_heartbeat_after_a_reset_saves_the_session() {
    let mut world = World::of(1);
    world.pass(500, &[1]);
    world.sessions.note_reset(b(1), 1);
    world.pass(1_000, &[1]);
    assert!(world.broker(1).is_active());
}

#[test]
fn a_new_active_controller_fences_nobody_for_one_lease_and_takes_the_unheard_for_just_heard() {
    let mut world = World::of(2);
    world.pass(1_000, &[1, 2]);
    world.sessions = Sessions::new(timers());
    world.mono += 60_000;
    world.sessions.takeover(world.image.batch_no, world.mono);
    let begun = world.mono;
    while world.mono + 100 < begun + timers().session_timeout_ms {
        world.pass(100, &[1]);
        assert!(world.broker(2).is_active());
    }
    world.pass(100, &[1]);
    assert!(world.broker(2).is_fenced() && world.broker(1).is_active());
}

#[test]
fn a_standby_that_heard_nothing_for_a_session_still_waits_one_lease_after_its_takeover() {
    let mut world = World::of(2);
    world.pass(1_000, &[1, 2]);
    world.sessions.step_down();
    world.listen(5_000, &[1]);
    world.sessions.takeover(world.image.batch_no, world.mono);
    let begun = world.mono;
    while world.mono + 100 < begun + timers().lease_ms {
        world.pass(100, &[1]);
        assert!(world.broker(2).is_active(), "fenced {} ms after the takeover", world.mono - begun);
    }
    world.pass(100, &[1]);
    assert!(world.broker(2).is_fenced());
}

#[test]
fn a_controller_that_was_asleep_listens_before_it_fences() {
    let mut world = World::of(2);
    world.pass(1_000, &[1, 2]);
    world.mono += 30_000;
    world.work();
    assert!(world.broker(1).is_active() && world.broker(2).is_active(), "the silence was the controller's own");
    world.pass(1_000, &[1]);
    assert!(world.broker(1).is_active() && world.broker(2).is_fenced());
}

#[test]
fn only_a_fresh_active_controller_answers() {
    let mut world = World::of(1);
    let beat = world.heartbeat(1);
    assert!(answered(&world.sessions.answer_heartbeat(&world.image, &beat, world.mono, true)));
    let stale = world.sessions.answer_heartbeat(&world.image, &beat, world.mono, false);
    assert_eq!(stale, HeartbeatDecision::Silent, "a lead it cannot vouch for");
    world.sessions.step_down();
    let standby = world.sessions.answer_heartbeat(&world.image, &beat, world.mono, true);
    assert_eq!(standby, HeartbeatDecision::Silent);
}

#[test]
fn a_heartbeat_received_while_stale_is_noted_all_the_same() {
    let mut world = World::of(1);
    world.mono += 1_500;
    let beat = world.heartbeat(1);
    world.sessions.answer_heartbeat(&world.image, &beat, world.mono, false);
    world.pass(1_000, &[]);
    assert!(world.broker(1).is_active());
}

#[test]
fn unknown_brokers_and_old_registrations_are_told_so_and_newer_ones_are_not() {
    let mut world = World::of(1);
    let mut beat = world.heartbeat(1);
    beat.broker = b(9);
    assert_eq!(code(&world.beat(beat)), Some(ErrorCode::UnknownBroker));
    let mut old = world.heartbeat(1);
    old.epoch.0 -= 1;
    assert_eq!(code(&world.beat(old)), Some(ErrorCode::StaleBrokerEpoch));
    let mut newer = world.heartbeat(1);
    newer.epoch.0 += 1;
    assert_eq!(world.beat(newer), HeartbeatDecision::Silent, "an image that lags refuses nobody");
}

#[test]
fn a_broker_that_a_batch_fences_is_not_answered_until_its_fate_is_known() {
    let mut world = World::of(2);
    world.pass(1_000, &[1, 2]);
    let late = world.heartbeat(2);
    world.listen(2_200, &[1]);
    let now = world.now();
    let plan = crate::decide::batch::run_batch(&world.image, &mut world.sessions, now, &[]);
    assert!(matches!(plan.facts.first(), Some(Fact::BrokerFenced(at)) if at.broker == b(2)), "{:?}", plan.facts);
    let silent = world.sessions.answer_heartbeat(&world.image, &late, world.mono, true);
    assert_eq!(silent, HeartbeatDecision::Silent, "an answer now would renew a lease past the batch");
    world.sessions.settled(false);
    assert!(answered(&world.sessions.answer_heartbeat(&world.image, &late, world.mono, true)));
}

/// Ring 1, seed 8: the controllers' leader may apply a batch later than it told the others that it is committed.
#[test]
fn the_lease_of_a_deposed_leader_waits_for_the_batch_that_deposes_it() {
    let mut world = World::of(3);
    let at = world.topic("t1", 1, 3, &[]);
    let (leader, base) = (world.partition(at).leader.expect("led"), world.image.batch_no);
    let commands = [Command::DeleteTopic(crate::decide::command::DeleteTopic { name: "t1".into(), at_ms: 0 })];
    let now = world.now();
    let plan = crate::decide::batch::run_batch(&world.image, &mut world.sessions, now, &commands);
    assert!(plan.facts.iter().any(|fact| matches!(fact, Fact::TopicDeleted(_))), "{:?}", plan.facts);
    let renews_at = |world: &mut World, id: u32| {
        let beat = world.heartbeat(id);
        match world.sessions.answer_heartbeat(&world.image, &beat, world.mono, true) {
            HeartbeatDecision::Answer { answer, .. } => {
                assert_eq!(answer.committed, base, "what this controller has applied");
                answer.renews_at
            }
            HeartbeatDecision::Silent => panic!("silence would starve its lease"),
        }
    };
    for id in 1..=3 {
        let expected = if leader == b(id) { base.next() } else { base };
        assert_eq!(renews_at(&mut world, id), expected, "broker {id}");
    }
    world.sessions.settled(false);
    assert_eq!(renews_at(&mut world, leader.0), base, "nothing takes anything from it any more");
}

#[test]
fn the_lease_waits_for_a_batch_that_moves_a_leadership_too() {
    let mut world = World::of(3);
    let at = world.topic("t1", 1, 3, &[]);
    let (leader, base) = (world.partition(at).leader.expect("led"), world.image.batch_no);
    let wish = Heartbeat { wants_shutdown: true, ..world.heartbeat(leader.0) };
    let now = world.now();
    let plan = crate::decide::batch::run_batch(&world.image, &mut world.sessions, now, &[Command::Heartbeat(wish)]);
    assert!(plan.facts.iter().any(|fact| matches!(fact, Fact::PartitionsChanged(_))), "{:?}", plan.facts);
    for id in 1..=3 {
        let expected = if leader == b(id) { base.next() } else { base };
        match world.sessions.answer_heartbeat(&world.image, &world.heartbeat(id), world.mono, true) {
            HeartbeatDecision::Answer { answer, .. } => assert_eq!(answer.renews_at, expected, "broker {id}"),
            HeartbeatDecision::Silent => panic!("broker {id} is answered"),
        }
    }
}

#[test]
fn an_applied_number_that_falls_within_one_registration_fences_the_broker_for_good() {
    let mut world = World::of(2);
    world.pass(1_000, &[1, 2]);
    let mut copy = world.heartbeat(2);
    copy.applied.0 -= 1;
    assert_eq!(world.beat(copy), HeartbeatDecision::Silent);
    world.pass(200, &[1, 2]);
    assert!(world.broker(2).is_fenced());
    let mut back = world.heartbeat(2);
    back.wants_unfence = true;
    assert_eq!(code(&world.beat(back)), Some(ErrorCode::StaleBrokerEpoch), "it must register again");
    world.run(Command::Heartbeat(back)).expect("decided");
    assert!(world.broker(2).is_fenced());
    world.restart(2, 2);
    world.prove(2, &[]);
    world.unfence(2);
    assert!(world.broker(2).is_active());
}

#[test]
fn a_wish_is_queued_once_per_lease() {
    let mut world = World::of(1);
    world.kill(&[1]);
    let mut beat = world.heartbeat(1);
    beat.wants_unfence = true;
    let submits = |world: &mut World| {
        matches!(
            world.sessions.answer_heartbeat(&world.image, &beat, world.mono, true),
            HeartbeatDecision::Answer { submit: true, .. }
        )
    };
    assert!(submits(&mut world));
    world.mono += 100;
    assert!(!submits(&mut world));
    world.mono += timers().lease_ms;
    assert!(submits(&mut world), "the first one came to nothing");
}

#[test]
fn a_heartbeat_decided_before_its_fencing_does_not_claim_to_take_part() {
    let mut world = World::of(2);
    world.pass(1_000, &[1, 2]);
    let mut wish = world.heartbeat(2);
    wish.wants_shutdown = true;
    world.listen(2_200, &[1]);
    let plan = world.batch(&[Command::Heartbeat(wish)]);
    match &plan.replies[0] {
        Ok(Reply::Heartbeat { answer, .. }) => assert!(answer.fenced),
        other => panic!("{other:?}"),
    }
    assert!(world.broker(2).is_fenced());
}

#[test]
fn a_broker_that_stays_behind_for_a_session_loses_its_leaderships_but_not_its_place() {
    let mut world = World::of(3);
    let at = world.topic("lag", 1, 3, &[]);
    let leader = world.partition(at).leader.expect("led").0;
    let stuck = world.image.batch_no;
    let others: Vec<u32> = (1..=3).filter(|id| *id != leader).collect();
    world.topic("more", 1, 3, &[]);
    for _ in 0..25 {
        let mut slow = world.heartbeat(leader);
        slow.applied = stuck;
        world.beat(slow);
        world.pass(100, &others);
    }
    let (now, isr, _) = world.places(at);
    assert_ne!(now, Some(leader));
    assert_eq!(isr, vec![1, 2, 3]);
    assert!(world.broker(leader).is_active());
}

#[test]
fn notes_of_strangers_are_bounded() {
    let mut world = World::of(1);
    for id in 2..=(u32::try_from(BROKERS_MAX).expect("small") + 50) {
        let stranger = Heartbeat { broker: b(id), ..world.heartbeat(1) };
        world.sessions.note_heartbeat(&world.image, &stranger, world.mono);
    }
    assert!(world.sessions.contacts.len() <= BROKERS_MAX);
}

/// Decides a registration of a second process of broker 2 and leaves the batch's fate open.
fn register_unheard(world: &mut World) -> BrokerEpoch {
    let command = Register { previous_epoch: Some(world.epoch(2)), ..world.registration(2, 2) };
    let now = world.now();
    let plan = run_batch(&world.image, &mut world.sessions, now, &[Command::Register(command)]);
    match &plan.replies[0] {
        Ok(Reply::Registered(registered)) => registered.epoch,
        other => panic!("not registered: {other:?}"),
    }
}

#[test]
fn a_registration_that_never_committed_does_not_outlive_its_batch() {
    type End = fn(&mut World);
    let ends: [(&str, End); 3] = [
        ("dropped", |world| world.sessions.settled(false)),
        ("deposed", |world| world.sessions.step_down()),
        ("active again", |world| world.sessions.takeover(world.image.batch_no, world.mono)),
    ];
    for (how, end) in ends {
        let mut world = World::of(2);
        world.kill(&[2]);
        let lost = register_unheard(&mut world);
        assert!(lost > world.epoch(2));
        end(&mut world);
        world.sessions.takeover(world.image.batch_no, world.mono);
        world.pass(500, &[1, 2]);
        assert!(world.sessions.contact(b(2), world.epoch(2)).is_some(), "{how}: its heartbeats count");
        world.unfence(2);
        assert!(world.broker(2).is_active(), "{how}: {:?}", world.why(2));
    }
}

#[test]
fn a_registration_that_committed_unheard_is_found_by_its_first_heartbeat() {
    let mut world = World::of(2);
    world.kill(&[2]);
    let epoch = register_unheard(&mut world);
    world.sessions.step_down();
    let mut beat = Heartbeat { epoch, ..world.heartbeat(2) };
    beat.applied = world.image.batch_no;
    assert!(world.sessions.note_heartbeat(&world.image, &beat, world.mono));
    assert!(world.sessions.contact(b(2), epoch).is_some());
}
