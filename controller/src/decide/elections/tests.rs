//! Elections by request and by policy: nothing is lost without a word, and never silently.

use super::*;
use crate::decide::command::{AlterConfigs, Command, ConfigTarget};
use crate::decide::tests::world::{World, assert_names, b, timers};
use protocol::ids::BrokerEpoch;
use protocol::metadata::record::{ConfigResource, RecoveryState};

fn ask(kind: ElectionKind, name: &str) -> ElectLeaders {
    ElectLeaders { scope: ElectionScope::Partition(name.to_owned(), 0), kind, dry_run: false, at_ms: 77 }
}

fn elect_one(world: &mut World, command: ElectLeaders) -> ElectionResult {
    match world.run(Command::ElectLeaders(command)) {
        Ok(Reply::Elected(mut results)) => results.remove(0),
        other => panic!("{other:?}"),
    }
}

const UNCLEAN: ElectionKind = ElectionKind::Unclean { now: false, chosen: None };

fn code(result: &ElectionResult) -> Option<ErrorCode> {
    result.error.as_ref().map(|e| e.code)
}

/// Three brokers; the partition was led by 1 alone (one member needed), and 1 has come back without a proof: nobody is
/// known to hold every committed record.
fn offline(policy: &str) -> (World, TopicPartition) {
    let mut world = World::of(3);
    let configs = [("min.insync.replicas", "1"), ("unclean.recovery.policy", policy)];
    let topics: Vec<_> = (0..20).map(|n| world.topic(&format!("t{n}"), 1, 3, &configs)).collect();
    let led = |at: &&TopicPartition| world.partition(**at).leader == Some(b(1));
    let at = *topics.iter().find(led).expect("one of them is led by broker 1");
    world.set_isr(at, &[1]);
    world.restart(1, 2);
    world.prove(1, &[]);
    assert_eq!(world.places(at), (None, vec![], vec![]));
    (world, at)
}

fn name(world: &World, at: TopicPartition) -> String {
    world.image.topics.get(at.topic).expect("live").name.clone()
}

fn tell(world: &mut World, id: u32, at: TopicPartition, last_epoch: Option<u32>, log_end: u64, damaged: bool) {
    let leader_epoch = world.partition(at).leader_epoch;
    let end = ReportedEnd { at, leader_epoch, last_epoch, log_end, log_start: 0, damaged };
    let command = ReportLogEnds { broker: b(id), epoch: world.epoch(id), ends: vec![end] };
    world.run(Command::ReportLogEnds(command)).expect("noted");
}

#[test]
fn leadership_returns_to_the_preferred_replica_on_request() {
    let mut world = World::of(3);
    let at = world.topic("t", 1, 3, &[]);
    let first = world.partition(at).replicas[0].0;
    let second = world.partition(at).replicas[1].0;
    let result = elect_one(&mut world, ask(ElectionKind::Preferred, "t"));
    assert_eq!(code(&result), Some(ErrorCode::ElectionNotNeeded));
    world.kill(&[first]);
    world.unfence(first);
    assert_eq!(world.partition(at).leader, Some(b(second)));
    let result = elect_one(&mut world, ask(ElectionKind::Preferred, "t"));
    assert_eq!(code(&result), Some(ErrorCode::EligibleLeadersNotAvailable), "it is not in the ISR yet");
    world.set_isr(at, &[1, 2, 3]);
    let dry = ElectLeaders { dry_run: true, ..ask(ElectionKind::Preferred, "t") };
    let before = world.image.clone();
    assert_eq!(code(&elect_one(&mut world, dry)), None);
    assert_eq!(world.image, before);
    let epoch = world.partition(at).leader_epoch;
    let result = elect_one(&mut world, ask(ElectionKind::Preferred, "t"));
    assert_eq!((result.leader, result.leader_epoch.0), (Some(b(first)), epoch.0 + 1));
}

#[test]
fn a_whole_topic_or_cluster_is_elected_where_it_needs_to_be() {
    let mut world = World::of(3);
    let at = world.topic("t", 6, 3, &[]);
    world.kill(&[2]);
    world.unfence(2);
    let moved = (0..6).map(|partition| TopicPartition { partition, ..at }).collect::<Vec<_>>();
    moved.iter().for_each(|at| world.set_isr(*at, &[1, 2, 3]));
    let wanted = moved.iter().filter(|at| world.partition(**at).replicas[0] == b(2)).count();
    assert!(wanted > 0);
    let all = ElectLeaders { scope: ElectionScope::All, kind: ElectionKind::Preferred, dry_run: false, at_ms: 0 };
    let Ok(Reply::Elected(results)) = world.run(Command::ElectLeaders(all)) else { panic!("decided") };
    assert_eq!(results.len(), wanted);
    assert!(results.iter().all(|r| r.error.is_none() && r.leader == Some(b(2))));
}

#[test]
fn unknown_topics_and_partitions_are_named() {
    let mut world = World::of(1);
    world.topic("t", 1, 1, &[]);
    let mut command = ask(UNCLEAN, "nope");
    assert_names(&world.refused(Command::ElectLeaders(command.clone())), ErrorCode::UnknownTopic, "topic", "nope");
    command.scope = ElectionScope::Partition("t".to_owned(), 3);
    assert_names(&world.refused(Command::ElectLeaders(command)), ErrorCode::UnknownPartition, "partition", "3");
}

#[test]
fn an_unclean_election_needs_reports_and_takes_the_longest_log() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    let result = elect_one(&mut world, ask(UNCLEAN, &name));
    assert_eq!(code(&result), Some(ErrorCode::EligibleLeadersNotAvailable));
    assert_eq!(result.survivors.len(), 3);
    assert!(result.survivors.iter().all(|s| s.end.is_none()));
    tell(&mut world, 1, at, Some(1), 900, true);
    tell(&mut world, 2, at, Some(0), 500, false);
    tell(&mut world, 3, at, Some(1), 40, false);
    let epoch = world.partition(at).leader_epoch;
    let dry = ElectLeaders { dry_run: true, ..ask(UNCLEAN, &name) };
    assert_eq!(code(&elect_one(&mut world, dry)), None);
    assert_eq!(world.partition(at).leader, None);
    let result = elect_one(&mut world, ask(UNCLEAN, &name));
    assert_eq!((result.error, result.leader, result.leader_epoch.0), (None, Some(b(3)), epoch.0 + 1));
    assert!(result.text.contains("log end 40"), "{}", result.text);
    let kept = world.image.topics.last_unclean(at).expect("recorded").clone();
    assert_eq!((kept.leader, kept.last_epoch, kept.log_end), (b(3), Some(1), 40));
    assert_eq!((kept.forced_now, kept.at_ms), (false, 77));
    assert_eq!(world.places(at), (Some(3), vec![3], vec![]));
    assert_eq!(world.partition(at).unclean_epoch, Some(world.partition(at).leader_epoch));
}

#[test]
fn a_log_of_a_later_epoch_beats_a_longer_one_and_an_empty_one_loses() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    tell(&mut world, 1, at, None, 0, false);
    tell(&mut world, 2, at, Some(3), 10, false);
    tell(&mut world, 3, at, Some(2), 10_000, false);
    assert_eq!(elect_one(&mut world, ask(UNCLEAN, &name)).leader, Some(b(2)));
}

#[test]
fn among_equal_logs_the_active_one_earlier_in_preference_order_is_taken() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    let order: Vec<_> = world.partition(at).replicas.iter().map(|b| b.0).filter(|id| *id != 1).collect();
    (1..=3).for_each(|id| tell(&mut world, id, at, Some(0), 5, false));
    assert!(world.broker(1).is_fenced());
    assert_eq!(elect_one(&mut world, ask(UNCLEAN, &name)).leader, Some(b(order[0])));
}

#[test]
fn recovery_ends_at_once_where_one_member_satisfies_and_with_the_isr_elsewhere() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    (1..=3).for_each(|id| tell(&mut world, id, at, Some(0), u64::from(id), false));
    elect_one(&mut world, ask(UNCLEAN, &name));
    assert_eq!(world.partition(at).recovery, RecoveryState::Recovered);
}

#[test]
fn replicas_that_did_not_report_are_waited_for() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    tell(&mut world, 2, at, Some(0), 5, false);
    tell(&mut world, 3, at, Some(0), 4, false);
    let result = elect_one(&mut world, ask(UNCLEAN, &name));
    assert_eq!(code(&result), Some(ErrorCode::RefusedBySafetyRule));
    assert!(result.text.contains("broker 1"), "{}", result.text);
    let wait = slow(600_000);
    world.mono += wait - 1;
    assert_eq!(code(&elect_one(&mut world, ask(UNCLEAN, &name))), Some(ErrorCode::RefusedBySafetyRule));
    world.mono += 1;
    assert_eq!(elect_one(&mut world, ask(UNCLEAN, &name)).leader, Some(b(2)));
    assert!(!world.image.topics.last_unclean(at).expect("recorded").forced_now);
}

/// How long a lease and this grace last on a clock that runs slower by a tenth.
fn slow(grace: u64) -> u64 {
    let own = timers().lease_ms + grace;
    own + own.div_ceil(10)
}

fn set_grace(world: &mut World, ms: Option<u64>, validate_only: bool) {
    let key = "lease.grace.ms".to_owned();
    let (set, unset) = match ms {
        Some(ms) => (vec![(key, ms.to_string())], vec![]),
        None => (vec![], vec![key]),
    };
    let command = AlterConfigs { target: ConfigTarget::Cluster, set, unset, validate_only };
    world.run(Command::AlterConfigs(command)).expect("set");
}

/// The ms for which broker 1 is still waited for.
fn left(world: &World, at: TopicPartition) -> u64 {
    let waiting = waits(&world.image, &world.sessions, world.now(), world.partition(at), at);
    waiting.iter().find(|(broker, _)| *broker == b(1)).map_or(0, |(_, ms)| *ms)
}

#[test]
fn a_lowered_grace_shortens_no_wait_before_nobody_acts_on_the_old_one() {
    let (mut world, at) = offline("manual");
    set_grace(&mut world, Some(1_000), false);
    assert_eq!(left(&world, at), slow(600_000), "broker 1 may have renewed on the old value");
    // Lowered again, half-way: what the second value allowed is within the first one's wait, which begins anew.
    world.mono += 300_000;
    set_grace(&mut world, Some(0), false);
    set_grace(&mut world, Some(5), true);
    world.work();
    let key = (ConfigResource::Cluster, "lease.grace.lowered.from.ms");
    world.mono += slow(600_000) - 1;
    world.work();
    assert_eq!(world.image.configs.get(key.0, key.1), Some("600000"));
    world.mono += 1;
    world.work();
    assert_eq!(world.image.configs.get(key.0, key.1), None, "nobody acts on it any more");
    // Raising shortens nothing, unsetting may lower.
    set_grace(&mut world, Some(700_000), false);
    assert_eq!(world.image.configs.get(key.0, key.1), None);
    set_grace(&mut world, None, false);
    assert_eq!(world.image.configs.get(key.0, key.1), Some("700000"));
    // Another controller knows of it, and counts from its first look.
    world.sessions.step_down();
    world.sessions.takeover(world.image.batch_no, world.mono);
    world.work();
    assert_eq!(left(&world, at), slow(700_000));
    world.mono += slow(700_000) - 1;
    world.work();
    assert!(world.image.configs.get(key.0, key.1).is_some());
    world.mono += 1;
    world.work();
    assert!(world.image.configs.get(key.0, key.1).is_none());
    let set = vec![(key.1.to_owned(), "1".to_owned())];
    let command = AlterConfigs { target: ConfigTarget::Cluster, set, unset: vec![], validate_only: false };
    assert_names(&world.refused(Command::AlterConfigs(command)), ErrorCode::InvalidConfig, "config key", key.1);
}

#[test]
fn now_skips_the_wait_and_is_recorded() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    tell(&mut world, 2, at, Some(0), 5, false);
    let now = ElectionKind::Unclean { now: true, chosen: None };
    assert_eq!(elect_one(&mut world, ask(now, &name)).leader, Some(b(2)));
    assert!(world.image.topics.last_unclean(at).expect("recorded").forced_now);
}

#[test]
fn a_new_controller_counts_the_wait_from_its_takeover() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    world.mono += 3_600_000;
    world.sessions.step_down();
    world.sessions.takeover(world.image.batch_no, world.mono);
    tell(&mut world, 2, at, Some(0), 5, false);
    let result = elect_one(&mut world, ask(UNCLEAN, &name));
    assert_eq!(code(&result), Some(ErrorCode::RefusedBySafetyRule), "its predecessor may have answered until then");
}

#[test]
fn reports_of_another_epoch_registration_or_place_count_for_nothing() {
    let (mut world, at) = offline("manual");
    let leader_epoch = world.partition(at).leader_epoch;
    let end = ReportedEnd { at, leader_epoch, last_epoch: Some(0), log_end: 9, log_start: 0, damaged: false };
    let old = ReportedEnd { leader_epoch: LeaderEpoch(leader_epoch.0 - 1), ..end };
    let command = ReportLogEnds { broker: b(2), epoch: world.epoch(2), ends: vec![old] };
    world.run(Command::ReportLogEnds(command)).expect("ignored");
    let stale = ReportLogEnds { broker: b(2), epoch: BrokerEpoch(0), ends: vec![end] };
    assert_eq!(world.refused(Command::ReportLogEnds(stale)).code, ErrorCode::StaleBrokerEpoch);
    tell(&mut world, 3, at, Some(0), 9, false);
    world.restart(3, 2);
    let survivors = survivors(&world.image, &world.sessions, at);
    assert!(survivors.iter().all(|s| s.end.is_none()), "an earlier process's word is void: {survivors:?}");
}

#[test]
fn an_operator_may_choose_a_replica_that_reported_and_is_active() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    let choose = |id: u32| ElectionKind::Unclean { now: false, chosen: Some(b(id)) };
    (1..=3).for_each(|id| tell(&mut world, id, at, Some(0), 100 - u64::from(id), false));
    assert_eq!(code(&elect_one(&mut world, ask(choose(1), &name))), Some(ErrorCode::RefusedBySafetyRule), "fenced");
    assert_eq!(code(&elect_one(&mut world, ask(choose(9), &name))), Some(ErrorCode::InvalidRequest));
    assert_eq!(elect_one(&mut world, ask(choose(3), &name)).leader, Some(b(3)));
}

#[test]
fn an_election_that_took_place_lists_what_every_survivor_had() {
    for dry_run in [true, false] {
        let (mut world, at) = offline("manual");
        let name = name(&world, at);
        tell(&mut world, 2, at, Some(0), 97, false);
        tell(&mut world, 3, at, Some(1), 98, false);
        let now = ElectionKind::Unclean { now: true, chosen: None };
        let result = elect_one(&mut world, ElectLeaders { dry_run, ..ask(now, &name) });
        assert_eq!(result.error, None);
        let told = |s: &Survivor| (s.broker.0, s.end.map(|e| (e.last_epoch, e.log_end)));
        let told: BTreeSet<_> = result.survivors.iter().map(told).collect();
        let all = [(1, None), (2, Some((Some(0), 97))), (3, Some((Some(1), 98)))];
        assert_eq!(told, all.into(), "dry run: {dry_run}");
    }
}

#[test]
fn a_damaged_log_is_elected_only_by_name() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    (1..=3).for_each(|id| tell(&mut world, id, at, Some(0), u64::from(id), true));
    assert_eq!(code(&elect_one(&mut world, ask(UNCLEAN, &name))), Some(ErrorCode::EligibleLeadersNotAvailable));
    let named = ElectionKind::Unclean { now: false, chosen: Some(b(2)) };
    assert_eq!(elect_one(&mut world, ask(named, &name)).leader, Some(b(2)));
}

#[test]
fn the_longest_log_on_a_fenced_broker_is_waited_for_rather_than_lost() {
    let (mut world, at) = offline("manual");
    let name = name(&world, at);
    (1..=3).for_each(|id| tell(&mut world, id, at, Some(0), 100 - u64::from(id), false));
    assert_eq!(code(&elect_one(&mut world, ask(UNCLEAN, &name))), Some(ErrorCode::RefusedBySafetyRule));
    world.unfence(1);
    assert_eq!(elect_one(&mut world, ask(UNCLEAN, &name)).leader, Some(b(1)));
}

#[test]
fn a_led_partition_is_left_alone() {
    let mut world = World::of(2);
    let at = world.topic("t", 1, 2, &[]);
    let before = world.partition(at).clone();
    assert_eq!(code(&elect_one(&mut world, ask(UNCLEAN, "t"))), Some(ErrorCode::ElectionNotNeeded));
    assert_eq!(world.partition(at), &before);
}

#[test]
fn policy_longest_elects_by_itself_once_all_have_reported() {
    let (mut world, at) = offline("longest");
    tell(&mut world, 2, at, Some(0), 5, false);
    tell(&mut world, 3, at, Some(0), 9, false);
    world.pass(2_000, &[1, 2, 3]);
    assert_eq!(world.partition(at).leader, None, "broker 1 may hold more");
    tell(&mut world, 1, at, Some(0), 2, false);
    world.pass(1_000, &[1, 2, 3]);
    assert_eq!(world.places(at), (Some(3), vec![3], vec![]));
    assert_eq!(world.image.topics.last_unclean(at).expect("recorded").log_end, 9);
}

#[test]
fn policy_longest_waits_grace_for_the_silent_and_manual_for_ever() {
    for (policy, elected) in [("longest", true), ("manual", false)] {
        let (mut world, at) = offline(policy);
        tell(&mut world, 2, at, Some(0), 5, false);
        tell(&mut world, 3, at, Some(0), 9, false);
        world.mono += slow(600_000);
        world.pass(1_000, &[2, 3]);
        assert_eq!(world.partition(at).leader.is_some(), elected, "{policy}");
    }
}

#[test]
fn a_safe_candidate_is_taken_instead_of_losing_anything() {
    let mut world = World::of(2);
    let at = world.topic("t", 1, 2, &[("min.insync.replicas", "1")]);
    let leader = world.partition(at).leader.expect("led").0;
    world.set_isr(at, &[leader]);
    world.kill(&[leader]);
    assert_eq!(world.places(at), (None, vec![], vec![leader]));
    let other = 3 - leader;
    tell(&mut world, other, at, Some(9), 9_999, false);
    let back = crate::decide::command::Heartbeat { wants_unfence: true, ..world.heartbeat(leader) };
    world.sessions.note_heartbeat(&world.image, &back, world.mono);
    let now = ElectionKind::Unclean { now: true, chosen: None };
    // One batch: it comes back, and before any work is looked for an operator gives it up.
    world.batch(&[Command::Heartbeat(back), Command::ElectLeaders(ask(now, "t"))]);
    assert_eq!(world.partition(at).leader, Some(b(leader)));
    assert!(world.image.topics.last_unclean(at).is_none());
}
