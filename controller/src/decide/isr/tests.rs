//! ISR proposals: the order of checks, eligibility by registration, and what becomes of the ELR.

use super::*;
use crate::decide::command::Command;
use crate::decide::tests::world::{World, b, bs, topic_id};
use protocol::ids::TopicPartition;
use protocol::metadata::record::{BrokerRef, Fact, PartitionsChanged, RecoveryState};

fn world() -> (World, TopicPartition, u32) {
    let mut world = World::of(4);
    let at = world.topic("t", 1, 3, &[("min.insync.replicas", "2")]);
    let leader = world.partition(at).leader.expect("led").0;
    (world, at, leader)
}

fn members(world: &World, at: TopicPartition) -> Vec<u32> {
    world.partition(at).replicas.iter().map(|b| b.0).collect()
}

/// Each defect alone, and every pair of defects: the earlier one of the list is the answer.
#[test]
fn checks_run_in_their_fixed_order() {
    let (mut world, at, leader) = world();
    world.set_isr(at, &[leader]);
    let all = members(&world, at);
    let follower = *all.iter().find(|id| **id != leader).expect("three replicas");
    world.set_isr(at, &all);
    world.set_isr(at, &[leader, follower]);
    // Raise the leader epoch above 0, so that an older one exists.
    let (leader, follower) = (follower, leader);
    let moved =
        PartitionChange { leader: protocol::metadata::record::LeaderChange::Broker(b(leader)), ..Default::default() };
    world.apply(vec![Fact::PartitionsChanged(PartitionsChanged { topic: at.topic, changes: vec![moved] })]);

    type Defect = (ErrorCode, fn(&mut AlterPartition, &mut u32, u32));
    let defects: [Defect; 7] = [
        (ErrorCode::NotController, |p, _, _| p.leader_epoch.0 += 1),
        (ErrorCode::NotController, |p, _, _| p.partition_epoch.0 += 1),
        (ErrorCode::FencedLeaderEpoch, |p, _, _| p.leader_epoch.0 -= 1),
        (ErrorCode::InvalidRequest, |_, asker, follower| *asker = follower),
        (ErrorCode::InvalidUpdateVersion, |p, _, _| p.partition_epoch.0 -= 1),
        (ErrorCode::InvalidRequest, |p, _, _| p.isr.push(p.isr[0])),
        (ErrorCode::IneligibleReplica, |p, _, _| p.isr[0].1.0 += 7),
    ];
    for (first, (code, damage)) in defects.iter().enumerate() {
        for (second, (_, more)) in defects.iter().enumerate().skip(first) {
            if matches!((first, second), (0, 2) | (1, 4)) {
                continue; // one undoes the other
            }
            let (mut proposal, mut asker) = (world.proposal(at, &[leader, follower]), leader);
            damage(&mut proposal, &mut asker, follower);
            if second != first {
                more(&mut proposal, &mut asker, follower);
            }
            let before = world.image.clone();
            let result = world.alter(asker, proposal);
            assert_eq!(result.error, Some(*code), "defects {first} and {second}");
            assert_eq!(world.image, before);
            let state = world.partition(at);
            assert_eq!(
                (result.leader, result.leader_epoch),
                (state.leader, state.leader_epoch),
                "current state rides along"
            );
            assert_eq!((result.partition_epoch, &result.isr), (state.partition_epoch, &state.isr));
        }
    }
    let sound = world.proposal(at, &all);
    assert_eq!(world.alter(leader, sound).error, None, "without a defect it commits");
}

#[test]
fn malformed_isrs_are_refused() {
    let (mut world, at, leader) = world();
    let outsider = (1..=4).find(|id| !members(&world, at).contains(id)).expect("four brokers");
    let follower = members(&world, at).into_iter().find(|id| *id != leader).expect("three");
    for isr in [vec![], vec![follower], vec![leader, outsider], vec![leader, leader]] {
        let proposal = world.proposal(at, &isr);
        assert_eq!(world.alter(leader, proposal).error, Some(ErrorCode::InvalidRequest), "{isr:?}");
    }
}

#[test]
fn a_member_of_an_earlier_registration_cannot_join() {
    let (mut world, at, leader) = world();
    let joins = members(&world, at).into_iter().find(|id| *id != leader).expect("three");
    let rest: Vec<_> = members(&world, at).into_iter().filter(|id| *id != joins).collect();
    world.set_isr(at, &rest);
    let proposal = world.proposal(at, &members(&world, at));
    world.restart(joins, 2);
    world.prove(joins, &[]);
    world.unfence(joins);
    assert!(world.broker(joins).is_active());
    assert_eq!(world.partition(at).partition_epoch, proposal.partition_epoch, "only the registration differs");
    assert_eq!(world.alter(leader, proposal).error, Some(ErrorCode::IneligibleReplica));
    let fresh = world.proposal(at, &members(&world, at));
    assert_eq!(world.alter(leader, fresh).error, None);
}

#[test]
fn fenced_and_stopping_members_cannot_join() {
    let (mut world, at, leader) = world();
    let joins = members(&world, at).into_iter().find(|id| *id != leader).expect("three");
    let rest: Vec<_> = members(&world, at).into_iter().filter(|id| *id != joins).collect();
    world.set_isr(at, &rest);
    let broker = BrokerRef { broker: b(joins), epoch: world.epoch(joins) };
    let whole = members(&world, at);
    for fact in [Fact::BrokerShutdownBegan(broker), Fact::BrokerFenced(broker)] {
        world.apply(vec![fact]);
        let proposal = world.proposal(at, &whole);
        assert_eq!(world.alter(leader, proposal).error, Some(ErrorCode::IneligibleReplica));
    }
}

#[test]
fn a_shrink_below_the_rule_fills_the_elr_and_growth_empties_it() {
    let (mut world, at, leader) = world();
    let all = members(&world, at);
    let follower = all.iter().copied().find(|id| *id != leader).expect("three");
    world.set_isr(at, &[leader, follower]);
    assert_eq!(world.places(at).2, vec![], "two of two satisfy");
    world.set_isr(at, &[leader]);
    assert_eq!(world.places(at).2, vec![follower]);
    world.set_isr(at, &all);
    assert_eq!(world.places(at).2, vec![]);
}

#[test]
fn the_current_isr_proposed_again_moves_the_partition_epoch_past_every_earlier_proposal() {
    let (mut world, at, leader) = world();
    let same = world.proposal(at, &world.places(at).1);
    let exact =
        AlterPartition { isr: world.partition(at).isr.iter().map(|m| (*m, world.epoch(m.0))).collect(), ..same };
    let before = world.partition(at).clone();
    let late = world.proposal(at, &[leader]);
    assert_eq!(world.alter(leader, exact).error, None);
    let after = world.partition(at);
    assert_eq!((&after.isr, after.leader_epoch), (&before.isr, before.leader_epoch));
    assert_eq!(after.partition_epoch, before.partition_epoch.next());
    assert_eq!(world.alter(leader, late).error, Some(ErrorCode::InvalidUpdateVersion));
}

#[test]
fn of_two_proposals_in_one_request_the_second_loses() {
    let (mut world, at, leader) = world();
    let follower = members(&world, at).into_iter().find(|id| *id != leader).expect("three");
    let partitions = vec![world.proposal(at, &[leader]), world.proposal(at, &[leader, follower])];
    let command = AlterPartitions { broker: b(leader), epoch: world.epoch(leader), partitions };
    let Ok(Reply::Altered(results)) = world.run(Command::AlterPartitions(command)) else { panic!("decided") };
    let errors: Vec<_> = results.iter().map(|r| r.error).collect();
    assert_eq!(errors, vec![None, Some(ErrorCode::InvalidUpdateVersion)]);
    assert_eq!(world.partition(at).isr, bs(&[leader]));
}

#[test]
fn unknown_places_and_registrations_are_named() {
    let (mut world, at, leader) = world();
    let mut proposal = world.proposal(at, &[leader]);
    proposal.at.partition = 9;
    assert_eq!(world.alter(leader, proposal.clone()).error, Some(ErrorCode::UnknownPartition));
    proposal.at.topic = topic_id(99);
    assert_eq!(world.alter(leader, proposal.clone()).error, Some(ErrorCode::UnknownTopic));
    let old = AlterPartitions { broker: b(leader), epoch: BrokerEpoch(0), partitions: vec![proposal] };
    assert_eq!(world.refused(Command::AlterPartitions(old)).code, ErrorCode::StaleBrokerEpoch);
}

#[test]
fn proposals_for_a_deleted_topic_find_nothing() {
    let (mut world, at, leader) = world();
    let proposal = world.proposal(at, &[leader]);
    let delete = crate::decide::command::DeleteTopic { name: "t".to_owned(), at_ms: 1 };
    world.run(Command::DeleteTopic(delete)).expect("deleted");
    assert_eq!(world.alter(leader, proposal).error, Some(ErrorCode::UnknownTopic));
}

#[test]
fn an_isr_that_satisfies_ends_the_recovery_after_an_unclean_election() {
    let (mut world, at, leader) = world();
    let all = members(&world, at);
    let change = PartitionChange {
        leader: protocol::metadata::record::LeaderChange::Broker(b(leader)),
        isr: Some(bs(&[leader])),
        recovery: Some(RecoveryState::Recovering),
        ..PartitionChange::default()
    };
    world.apply(vec![Fact::PartitionsChanged(PartitionsChanged { topic: at.topic, changes: vec![change] })]);
    world.set_isr(at, &all);
    assert_eq!(world.partition(at).recovery, RecoveryState::Recovered);
}

#[test]
fn a_request_of_too_many_proposals_is_refused_whole() {
    let (mut world, at, leader) = world();
    let one = world.proposal(at, &[leader]);
    let partitions = vec![one; ALTERATIONS_MAX + 1];
    let command = AlterPartitions { broker: b(leader), epoch: world.epoch(leader), partitions };
    let error = world.refused(Command::AlterPartitions(command));
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::InvalidRequest, "partitions"));
}
