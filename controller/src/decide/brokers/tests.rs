//! Stories of brokers' lives.

use super::*;
use crate::decide::batch::run_batch;
use crate::decide::command::Command;
use crate::decide::sessions::HeartbeatDecision;
use crate::decide::tests::world::{World, assert_names, b, register, timers};
use protocol::ids::TopicPartition;
use uuid::Uuid;

fn may_stop(decision: &HeartbeatDecision) -> bool {
    matches!(decision, HeartbeatDecision::Answer { answer, .. } if answer.may_stop)
}

fn assert_stale(error: &ApiError) {
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::StaleBrokerView, "seen"), "{error}");
    assert!(!error.value.is_empty() && !error.limit.is_empty(), "{error}");
}

fn wants_to_stop(world: &World, id: u32) -> Heartbeat {
    Heartbeat { wants_shutdown: true, ..world.heartbeat(id) }
}

/// A topic of which the broker is the only ISR member and leads.
fn alone(world: &mut World, id: u32) -> TopicPartition {
    for _ in 0..50 {
        let name = format!("alone{}", world.image.topics.partition_count());
        let at = world.topic(&name, 1, 3, &[("min.insync.replicas", "1")]);
        if world.partition(at).leader == Some(b(id)) {
            world.set_isr(at, &[id]);
            return at;
        }
    }
    panic!("no topic is led by broker {id}");
}

#[test]
fn a_registration_begins_fenced_and_unproved() {
    let mut world = World::empty();
    let reply = world.run(Command::Register(register(1, 1)));
    let batch_no = world.image.batch_no;
    assert_eq!(reply, Ok(Reply::Registered(Registered { epoch: BrokerEpoch(1), batch_no, proof_admissible: false })));
    assert!(world.broker(1).is_fenced() && !world.broker(1).proved);
}

#[test]
fn the_same_process_asking_again_gets_the_same_epoch() {
    let mut world = World::of(1);
    let first = world.registration(1, 2);
    world.run(Command::Register(first.clone())).expect("registered");
    let before = world.image.clone();
    let again = world.registration(1, 2);
    for command in [first.clone(), again] {
        let reply = world.run(Command::Register(command));
        assert!(matches!(reply, Ok(Reply::Registered(r)) if r.epoch == before.brokers.get(b(1)).expect("known").epoch));
        assert_eq!(world.image, before, "the answer was lost, not the registration");
    }
    world.prove(1, &[]);
    world.unfence(1);
    assert_stale(&world.refused(Command::Register(first)));
    assert!(world.broker(1).is_active(), "a late copy of the request must not fence a live broker");
}

#[test]
fn a_new_process_over_the_same_directory_fences_and_replaces_the_old_in_one_batch() {
    let mut world = World::of(2);
    let old = world.epoch(1);
    let registered = world.restart(1, 2);
    assert!(matches!(world.last_facts.as_slice(), [Fact::BrokerFenced(f), Fact::BrokerRegistered(r), ..]
        if f.epoch == old && r.epoch == registered.epoch));
    assert!(registered.epoch > old && world.broker(1).is_fenced());
}

#[test]
fn another_directory_is_refused_while_the_session_lives_and_taken_afterwards() {
    let mut world = World::of(2);
    let mut other = world.registration(1, 2);
    other.directories = vec![Uuid::from_u128(99)];
    let error = world.refused(Command::Register(other.clone()));
    assert_names(&error, ErrorCode::DuplicateBroker, "broker_id", "1");
    world.kill(&[1]);
    let reply = world.run(Command::Register(other));
    assert!(matches!(reply, Ok(Reply::Registered(r)) if !r.proof_admissible), "{reply:?}");
}

/// RF 1, everything proved, and the request of the next process is decided in the batch that lets its predecessor in.
#[test]
fn a_registration_that_comes_with_the_unfencing_of_its_predecessor_looks_again_and_loses_nothing() {
    let mut world = World::of(1);
    let at = world.topic("one", 1, 1, &[]);
    let unfenced = world.epoch(1);
    world.restart(1, 2);
    world.prove(1, &[at]);
    // The third process starts on the disk of the second, and claims by the image that it sees.
    let early = Register { previous_epoch: Some(unfenced), ..world.registration(1, 3) };
    let wish = Heartbeat { wants_unfence: true, ..world.heartbeat(1) };
    world.sessions.note_heartbeat(&world.image, &wish, world.mono);
    let plan = world.batch(&[Command::Heartbeat(wish), Command::Register(early)]);
    assert_stale(plan.replies[1].as_ref().expect_err("the epoch it claims is the last unfenced one no more"));
    assert!(world.broker(1).is_active(), "the second process was let in, dead or not");
    let registered = world.restart(1, 3);
    assert!(registered.proof_admissible);
    world.prove(1, &[at]);
    world.unfence(1);
    world.pass(200, &[1]);
    assert_eq!(world.places(at), (Some(1), vec![1], vec![]));
}

#[test]
fn a_late_registration_of_a_dead_process_neither_replaces_nor_devalues_its_successor() {
    for let_in in [false, true] {
        let mut world = World::of(1);
        let at = world.topic("one", 1, 1, &[]);
        let late = Register { previous_epoch: Some(world.epoch(1)), ..world.registration(1, 2) };
        let successor = world.restart(1, 3);
        world.prove(1, &[at]);
        if let_in {
            world.unfence(1);
            world.pass(200, &[1]);
            assert_eq!(world.places(at), (Some(1), vec![1], vec![]));
        }
        assert_stale(&world.refused(Command::Register(late)));
        assert_eq!(world.epoch(1), successor.epoch);
        assert_eq!(world.broker(1).is_active(), let_in);
        world.unfence(1);
        world.pass(200, &[1]);
        assert!(world.restart(1, 4).proof_admissible);
        world.prove(1, &[at]);
        assert_eq!(world.places(at), (None, vec![], vec![1]));
    }
}

/// Its request came first, so it was registered; the one that lives sees that, and claims by what was last unfenced.
#[test]
fn a_dead_process_that_was_registered_before_its_successor_costs_a_second_look_and_no_proof() {
    let mut world = World::of(1);
    let at = world.topic("one", 1, 1, &[]);
    let unfenced = world.epoch(1);
    let dead = Register { previous_epoch: Some(unfenced), ..world.registration(1, 2) };
    let living = Register { previous_epoch: Some(unfenced), ..world.registration(1, 3) };
    let plan = world.batch(&[Command::Register(dead), Command::Register(living.clone())]);
    assert!(plan.replies[0].is_ok());
    assert_stale(plan.replies[1].as_ref().expect_err("somebody was registered meanwhile"));
    let fresh = Register { seen: world.image.brokers.view(b(1)), ..living };
    let reply = world.run(Command::Register(fresh));
    assert!(matches!(reply, Ok(Reply::Registered(r)) if r.proof_admissible), "{reply:?}");
    world.prove(1, &[at]);
    assert_eq!(world.places(at), (None, vec![], vec![1]));
}

#[test]
fn an_empty_disk_and_an_old_copy_are_unproved_and_not_stale_for_ever() {
    let directories = [None, Some(vec![Uuid::from_u128(0xe0)])];
    for (directory, claim) in directories.into_iter().zip([Some(BrokerEpoch(1)), None]) {
        let mut world = World::of(1);
        world.restart(1, 2);
        world.prove(1, &[]);
        world.unfence(1);
        world.kill(&[1]);
        let blind = Register { previous_epoch: claim, ..register(1, 3) };
        let blind = Register { directories: directory.unwrap_or(blind.directories.clone()), ..blind };
        let error = world.refused(Command::Register(blind.clone()));
        assert_stale(&error);
        assert!(
            error.limit.contains("registered 2, last unfenced 2"),
            "the refusal names what it should have seen: {error}"
        );
        let reply = world.run(Command::Register(Register { seen: world.image.brokers.view(b(1)), ..blind }));
        assert!(matches!(reply, Ok(Reply::Registered(r)) if !r.proof_admissible), "{reply:?}");
    }
}

#[test]
fn two_processes_of_one_id_do_not_keep_each_other_out() {
    let mut world = World::of(1);
    let (one, two) = (world.registration(1, 2), world.registration(1, 3));
    let plan = world.batch(&[Command::Register(one), Command::Register(two.clone())]);
    assert!(plan.replies[0].is_ok() && plan.replies[1].is_err());
    let again = Register { seen: world.image.brokers.view(b(1)), ..two };
    world.run(Command::Register(again)).expect("the second look is newer than the first process");
    let stranger = Register { directories: vec![Uuid::from_u128(99)], ..world.registration(1, 4) };
    assert_names(&world.refused(Command::Register(stranger)), ErrorCode::DuplicateBroker, "broker_id", "1");
}

#[test]
fn a_lost_registration_is_made_again_on_another_controller() {
    let mut world = World::of(2);
    let unfenced = world.epoch(1);
    let command = Register { previous_epoch: Some(unfenced), ..world.registration(1, 2) };
    // Decided, but the entry never came to be.
    let now = world.now();
    run_batch(&world.image, &mut world.sessions, now, &[Command::Register(command.clone())]);
    world.sessions.settled(false);
    world.sessions.step_down();
    world.sessions.takeover(world.image.batch_no, world.mono);
    let reply = world.run(Command::Register(command));
    assert!(matches!(reply, Ok(Reply::Registered(r)) if r.proof_admissible), "{reply:?}");
}

#[test]
fn bad_registrations_name_field_value_and_limit() {
    let mut world = World::of(1);
    let long = format!("{}:1000", "x".repeat(256));
    let mut bad = |change: fn(&mut Register), code, field, value| {
        let mut command = register(2, 1);
        change(&mut command);
        assert_names(&world.refused(Command::Register(command)), code, field, value);
    };
    bad(|c| c.broker = b(0), ErrorCode::InvalidRequest, "broker_id", "0");
    bad(|c| c.directories.clear(), ErrorCode::InvalidRequest, "directories", "0");
    bad(|c| c.internal.host.clear(), ErrorCode::InvalidRequest, "internal", ":1001");
    bad(|c| c.client.port = 0, ErrorCode::InvalidRequest, "client", "b2:0");
    bad(|c| c.client.host = "x".repeat(256), ErrorCode::InvalidRequest, "client", &long);
    bad(
        |c| (c.min_metadata_version, c.max_metadata_version) = (2, 3),
        ErrorCode::UnsupportedVersion,
        "metadata.version",
        "2 to 3",
    );
}

#[test]
fn proof_is_admitted_only_with_the_same_directory_and_the_last_unfenced_epoch() {
    type Change = fn(&mut Register, BrokerEpoch);
    let cases: [(&str, Change, bool); 4] = [
        ("knows it", |c, e| c.previous_epoch = Some(e), true),
        ("knows none", |c, _| c.previous_epoch = None, false),
        ("knows an older one", |c, e| c.previous_epoch = Some(BrokerEpoch(e.0 - 1)), false),
        ("another disk", |c, e| (c.previous_epoch, c.directories) = (Some(e), vec![Uuid::from_u128(9)]), false),
    ];
    for (name, change, admitted) in cases {
        let mut world = World::of(3);
        let unfenced = world.broker(2).last_unfenced_epoch.expect("it took part");
        world.kill(&[2]);
        let mut command = world.registration(2, 2);
        change(&mut command, unfenced);
        let reply = world.run(Command::Register(command));
        assert!(matches!(reply, Ok(Reply::Registered(r)) if r.proof_admissible == admitted), "{name}: {reply:?}");
    }
}

#[test]
fn a_second_crash_before_unfencing_admits_no_proof() {
    let mut world = World::of(2);
    assert!(world.restart(1, 2).proof_admissible);
    assert!(!world.restart(1, 3).proof_admissible, "the first start may have repaired what a proof must tell");
}

#[test]
fn unproved_places_fall_and_proved_ones_stay() {
    let mut world = World::of(3);
    let (kept, lost) = (alone(&mut world, 1), alone(&mut world, 1));
    let shared = world.topic("shared", 1, 3, &[("min.insync.replicas", "3")]);
    world.restart(1, 2);
    assert_eq!(world.places(kept), (None, vec![], vec![1]));
    assert_eq!((world.places(shared).1, world.places(shared).2), (vec![2, 3], vec![1]));
    world.prove(1, &[kept]);
    assert!(world.broker(1).proved);
    assert_eq!(world.places(kept).2, vec![1]);
    assert_eq!(world.places(lost), (None, vec![], vec![]));
    assert_eq!(world.places(shared).2, vec![], "an ELR place beside a live ISR falls too");
}

/// With many partitions the ISR removals that a fencing calls for may come after the proof: what is not proved must not
/// slip from the ISR into the ELR.
#[test]
fn an_unproved_isr_place_that_is_still_there_falls_too() {
    let mut world = World::of(3);
    let (kept, lost) = (alone(&mut world, 1), alone(&mut world, 1));
    let old = BrokerRef { broker: b(1), epoch: world.epoch(1) };
    let again = BrokerRegistered {
        broker: b(1),
        epoch: BrokerEpoch(world.image.cluster.last_broker_epoch.0 + 1),
        incarnation: Uuid::from_u128(77),
        internal: world.broker(1).internal.clone(),
        client: world.broker(1).client.clone(),
        locality: world.broker(1).locality.clone(),
        directories: world.broker(1).directories.clone(),
        min_metadata_version: 1,
        max_metadata_version: 1,
        seen: world.image.brokers.view(b(1)),
        proof_admissible: true,
    };
    world.apply(vec![Fact::BrokerFenced(old), Fact::BrokerRegistered(again)]);
    assert_eq!((world.places(kept).1, world.places(lost).1), (vec![1], vec![1]));
    world.prove(1, &[kept]);
    assert_eq!(world.places(kept), (None, vec![], vec![1]));
    assert_eq!(world.places(lost), (None, vec![], vec![]));
}

#[test]
fn an_inadmissible_proof_keeps_nothing_whatever_it_names() {
    let mut world = World::of(3);
    let at = alone(&mut world, 1);
    world.kill(&[1]);
    let mut command = world.registration(1, 2);
    command.previous_epoch = Some(BrokerEpoch(0));
    world.run(Command::Register(command)).expect("registered");
    world.prove(1, &[at]);
    assert!(world.broker(1).proved);
    assert_eq!(world.places(at), (None, vec![], vec![]), "offline, for an operator to decide");
    world.unfence(1);
    assert!(world.broker(1).is_active());
    assert_eq!(world.partition(at).leader, None, "coming back is not enough to lead");
}

#[test]
fn a_proof_in_chunks_counts_when_it_is_closed() {
    let mut world = World::of(3);
    let (first, second) = (alone(&mut world, 1), alone(&mut world, 1));
    world.restart(1, 2);
    let mut chunk = |at: TopicPartition, last: bool| {
        let command = ProveRestart { broker: b(1), epoch: world.epoch(1), proved: vec![at], last };
        world.run(Command::ProveRestart(command)).expect("taken");
        world.broker(1).proved
    };
    assert!(!chunk(first, false));
    assert!(chunk(second, true));
    assert_eq!((world.places(first).2, world.places(second).2), (vec![1], vec![1]));
}

#[test]
fn a_new_controller_needs_the_proof_again() {
    let mut world = World::of(3);
    let at = alone(&mut world, 1);
    world.restart(1, 2);
    let half = ProveRestart { broker: b(1), epoch: world.epoch(1), proved: vec![at], last: false };
    world.run(Command::ProveRestart(half)).expect("taken");
    world.sessions.step_down();
    world.sessions.takeover(world.image.batch_no, world.mono);
    world.prove(1, &[]);
    assert_eq!(world.places(at).2, vec![], "the half that the old controller heard is gone: say all of it again");
}

#[test]
fn nobody_is_unfenced_before_its_proof() {
    let mut world = World::of(2);
    world.restart(2, 2);
    world.unfence(2);
    assert!(world.broker(2).is_fenced());
    assert!(world.why(2)[0].contains("not proved"), "{:?}", world.why(2));
    world.prove(2, &[]);
    world.unfence(2);
    assert!(world.broker(2).is_active());
}

#[test]
fn nobody_is_unfenced_before_its_image_holds_its_registration() {
    let mut world = World::of(2);
    let before = world.image.batch_no;
    world.restart(2, 2);
    world.prove(2, &[]);
    let early = Heartbeat { wants_unfence: true, applied: before, ..world.heartbeat(2) };
    world.beat(early);
    assert!(world.broker(2).is_fenced());
    world.sessions.step_down();
    world.sessions.takeover(world.image.batch_no, world.mono);
    world.run(Command::Heartbeat(early)).expect("decided");
    assert!(world.broker(2).is_fenced(), "a new controller must not know less");
}

#[test]
fn nobody_is_unfenced_while_a_place_from_before_its_fencing_is_left() {
    let mut world = World::of(2);
    let at = world.topic("t", 1, 2, &[]);
    let id = world.partition(at).leader.expect("led").0;
    let reference = BrokerRef { broker: b(id), epoch: world.epoch(id) };
    world.apply(vec![Fact::BrokerFenced(reference)]);
    let wish = Heartbeat { wants_unfence: true, ..world.heartbeat(id) };
    world.sessions.note_heartbeat(&world.image, &wish, world.mono);
    world.batch(&[Command::Heartbeat(wish)]);
    assert!(world.broker(id).is_fenced(), "the leadership it had was still in the image");
    assert_ne!(world.partition(at).leader, Some(b(id)), "work of the same batch moved it");
    world.batch(&[Command::Heartbeat(Heartbeat { applied: world.image.batch_no, ..wish })]);
    let fresh = Heartbeat { applied: world.image.batch_no, ..wish };
    world.beat(fresh);
    assert!(world.broker(id).is_active());
}

#[test]
fn a_restarted_leader_with_everything_proved_leads_in_a_new_epoch() {
    let mut world = World::of(1);
    let at = world.topic("one", 1, 1, &[]);
    assert_eq!(world.partition(at).leader_epoch.0, 0);
    world.restart(1, 2);
    assert_eq!(world.places(at), (None, vec![], vec![1]));
    world.prove(1, &[at]);
    world.unfence(1);
    world.pass(200, &[1]);
    assert_eq!(world.places(at), (Some(1), vec![1], vec![]));
    assert_eq!(world.partition(at).leader_epoch.0, 2, "lost, then won");
}

#[test]
fn a_fenced_process_that_lives_on_comes_back_under_its_registration() {
    let mut world = World::of(3);
    let epoch = world.epoch(3);
    world.kill(&[3]);
    world.unfence(3);
    assert!(world.broker(3).is_active() && world.epoch(3) == epoch);
}

#[test]
fn controlled_shutdown_moves_leaders_then_waits_for_every_active_image() {
    let mut world = World::of(3);
    let at = world.topic("t", 6, 3, &[]);
    world.pass(100, &[1, 2, 3]);
    let lagging = world.image.batch_no;
    let wish = wants_to_stop(&world, 1);
    assert!(!may_stop(&world.beat(wish)));
    assert_eq!(world.broker(1).state, BrokerState::ShuttingDown);
    let bound = |p: &protocol::metadata::topics::Partition| p.leader == Some(b(1)) || p.isr.contains(&b(1));
    let topic = world.image.topics.get(at.topic).expect("live");
    assert!(topic.partitions.iter().all(|p| !bound(p) && p.leader.is_some()));
    let slow = Heartbeat { applied: lagging, ..world.heartbeat(3) };
    world.beat(world.heartbeat(2));
    world.beat(slow);
    assert!(!may_stop(&world.beat(wants_to_stop(&world, 1))), "broker 3 still sends clients to it");
    world.beat(world.heartbeat(3));
    assert!(may_stop(&world.beat(wants_to_stop(&world, 1))));
}

#[test]
fn the_only_replica_may_stop_and_stays_eligible() {
    let mut world = World::of(1);
    let at = world.topic("one", 1, 1, &[]);
    world.beat(wants_to_stop(&world, 1));
    assert_eq!(world.places(at), (None, vec![], vec![1]));
    assert!(may_stop(&world.beat(wants_to_stop(&world, 1))));
}

#[test]
fn a_fenced_broker_may_stop_at_once() {
    let mut world = World::of(2);
    world.kill(&[2]);
    assert!(may_stop(&world.beat(wants_to_stop(&world, 2))));
    assert!(world.broker(2).is_fenced());
}

#[test]
fn an_operator_drains_an_active_broker_and_no_other() {
    let mut world = World::of(2);
    world.run(Command::ShutdownBroker { broker: b(1) }).expect("begun");
    assert_eq!(world.broker(1).state, BrokerState::ShuttingDown);
    world.run(Command::ShutdownBroker { broker: b(1) }).expect("said twice is said once");
    assert_names(&world.refused(Command::ShutdownBroker { broker: b(9) }), ErrorCode::UnknownBroker, "broker_id", "9");
    world.kill(&[2]);
    assert_names(&world.refused(Command::ShutdownBroker { broker: b(2) }), ErrorCode::InvalidRequest, "broker_id", "2");
}

#[test]
fn words_say_why_a_broker_is_still_fenced() {
    let mut world = World::of(2);
    world.kill(&[2]);
    world.mono += timers().session_timeout_ms;
    let why = world.why(2);
    assert!(why.iter().any(|w| w.contains("heartbeats have stopped")), "{why:?}");
}
