//! The rules for leader, ISR and ELR, one by one.

use super::*;
use crate::decide::tests::world::{World, b, bs};
use protocol::metadata::record::{BrokerRef, Fact};

fn fence(world: &mut World, id: u32) {
    let at = BrokerRef { broker: b(id), epoch: world.epoch(id) };
    world.apply(vec![Fact::BrokerFenced(at)]);
}

fn settled(world: &World, at: TopicPartition, unproved: Option<BrokerId>) -> Option<Partition> {
    let (topic, old) = live(&world.image, at).expect("live");
    let nobody = BTreeSet::new();
    let change = Electorate::new(&world.image, topic, &nobody).settle(at.partition, old, unproved)?;
    Some(protocol::metadata::topics::changed(old, &change))
}

/// RF 3 over three data centres, leader 1 by preference, two members needed.
fn world() -> (World, TopicPartition) {
    world_needing("2")
}

fn world_needing(min: &str) -> (World, TopicPartition) {
    let mut world = World::of(3);
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let at = world.topic(name, 1, 3, &[("min.insync.replicas", min)]);
        if world.partition(at).replicas[0] == b(1) {
            return (world, at);
        }
    }
    panic!("no seed prefers broker 1");
}

#[test]
fn what_is_in_order_is_left_alone() {
    let (world, at) = world();
    assert_eq!(settled(&world, at, None), None);
}

#[test]
fn a_fenced_leader_gives_way_to_the_next_in_preference_order() {
    let (mut world, at) = world();
    let next = world.partition(at).replicas[1];
    fence(&mut world, 1);
    let new = settled(&world, at, None).expect("a change");
    assert_eq!((new.leader, new.leader_epoch.0), (Some(next), 1));
    assert!(new.isr == bs(&[2, 3]) || new.isr == bs(&[3, 2]));
    assert!(new.elr.is_empty(), "two of two are enough: {:?}", new.elr);
}

#[test]
fn a_valid_leader_stays_although_it_is_not_preferred() {
    let (mut world, at) = world();
    world.set_isr(at, &[1, 2, 3]);
    fence(&mut world, 3);
    let new = settled(&world, at, None).expect("a change");
    assert_eq!((new.leader, new.leader_epoch.0), (Some(b(1)), 0));
}

#[test]
fn who_leaves_an_isr_that_no_longer_satisfies_stays_eligible() {
    let (mut world, at) = world();
    world.set_isr(at, &[1, 2]);
    fence(&mut world, 2);
    let new = settled(&world, at, None).expect("a change");
    assert_eq!((new.leader, new.isr, new.elr), (Some(b(1)), bs(&[1]), bs(&[2])));
}

#[test]
fn the_last_member_leaves_an_empty_isr_and_itself_in_the_elr() {
    let (mut world, at) = world_needing("1");
    world.set_isr(at, &[1]);
    fence(&mut world, 1);
    let new = settled(&world, at, None).expect("a change");
    assert_eq!((new.leader, new.isr.clone(), new.elr.clone()), (None, vec![], bs(&[1])), "{new:?}");
    assert_eq!(new.leader_epoch.0, 1, "losing a leader moves the epoch too");
}

#[test]
fn an_active_elr_member_leads_alone_once_the_isr_is_empty() {
    let (mut world, at) = world();
    world.set_isr(at, &[1, 2]);
    world.set_isr(at, &[1]);
    assert_eq!(world.places(at), (Some(1), vec![1], vec![2]));
    fence(&mut world, 1);
    let new = settled(&world, at, None).expect("a change");
    assert_eq!((new.leader, new.isr, new.elr), (Some(b(2)), bs(&[2]), bs(&[1])));
}

#[test]
fn nobody_outside_isr_and_elr_is_elected() {
    let (mut world, at) = world();
    world.set_isr(at, &[1, 2]);
    fence(&mut world, 1);
    fence(&mut world, 2);
    let new = settled(&world, at, None).expect("a change");
    assert_eq!((new.leader, new.isr), (None, vec![]));
    assert!(new.elr == bs(&[1, 2]) || new.elr == bs(&[2, 1]), "{:?}", new.elr);
}

#[test]
fn an_unproved_place_falls_from_isr_and_elr() {
    let (mut world, at) = world_needing("1");
    world.set_isr(at, &[1]);
    let new = settled(&world, at, Some(b(1))).expect("a change");
    assert_eq!((new.leader, new.isr, new.elr), (None, vec![], vec![]));
}

#[test]
fn a_registration_that_can_prove_nothing_is_never_eligible() {
    let (mut world, at) = world_needing("1");
    world.set_isr(at, &[1]);
    world.kill(&[1]);
    assert_eq!(world.places(at), (None, vec![], vec![1]));
    let mut command = world.registration(1, 2);
    command.previous_epoch = None;
    world.run(crate::decide::command::Command::Register(command)).expect("registered");
    let new = settled(&world, at, None).expect("a change");
    assert_eq!(new.elr, vec![]);
}

#[test]
fn leadership_goes_only_to_active_isr_members_on_request() {
    let (mut world, at) = world();
    world.set_isr(at, &[1, 2]);
    fence(&mut world, 2);
    let (topic, old) = live(&world.image, at).expect("live");
    let nobody = BTreeSet::new();
    let electorate = Electorate::new(&world.image, topic, &nobody);
    for id in [1, 2, 3] {
        assert_eq!(electorate.prefer(0, old, b(id)), None, "broker {id}");
    }
}

#[test]
fn brokers_to_avoid_lead_only_when_nobody_else_can() {
    let (mut world, at) = world();
    let avoid = BTreeSet::from([b(1)]);
    let (topic, old) = live(&world.image, at).expect("live");
    let change = Electorate::new(&world.image, topic, &avoid).settle(0, old, None).expect("moved");
    assert!(matches!(change.leader, LeaderChange::Broker(l) if l != b(1)) && change.isr.is_none());
    world.set_isr(at, &[1]);
    let (topic, old) = live(&world.image, at).expect("live");
    assert_eq!(Electorate::new(&world.image, topic, &avoid).settle(0, old, None), None);
}

#[test]
fn data_centres_count_for_the_elr_as_members_do() {
    let mut world = World::at(&["eu/a/1", "eu/a/2", "eu/b/1"]);
    let at = world.topic("dcs", 1, 3, &[("min.insync.replicas", "2"), ("min.insync.dcs", "2")]);
    fence(&mut world, 3);
    let new = settled(&world, at, None).expect("a change");
    assert_eq!(new.isr.len(), 2, "two members, one data centre");
    assert_eq!(new.elr, bs(&[3]));
}

#[test]
fn an_unclean_election_leaves_nobody_else_a_place() {
    let change = Electorate::unclean(0, b(3));
    assert_eq!((change.isr, change.elr), (Some(bs(&[3])), Some(vec![])));
    assert_eq!(change.recovery, Some(RecoveryState::Recovering));
}
