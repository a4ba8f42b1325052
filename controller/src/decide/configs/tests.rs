//! Config changes: all or nothing, and no rule that could never hold.

use super::*;
use crate::decide::command::Command;
use crate::decide::tests::world::{World, assert_names, b};

fn change(target: ConfigTarget, set: &[(&str, &str)], unset: &[&str]) -> Command {
    Command::AlterConfigs(AlterConfigs {
        target,
        set: set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        unset: unset.iter().map(|k| (*k).to_owned()).collect(),
        validate_only: false,
    })
}

fn topic(name: &str) -> ConfigTarget {
    ConfigTarget::Topic(name.to_owned())
}

#[test]
fn values_are_set_and_unset_on_topic_broker_and_cluster() {
    let mut world = World::of(3);
    let at = world.topic("t", 1, 3, &[]);
    let id = ConfigResource::Topic(at.topic);
    world.run(change(topic("t"), &[("retention.ms", "5000")], &[])).expect("set");
    world.run(change(ConfigTarget::Cluster, &[("retention.ms", "9000")], &[])).expect("set");
    world.run(change(ConfigTarget::Broker(b(1)), &[("replica.lag.max.ms", "700")], &[])).expect("set");
    assert_eq!(world.image.config_value(id, "retention.ms"), Some("5000"));
    world.run(change(topic("t"), &[], &["retention.ms"])).expect("unset");
    assert_eq!(world.image.config_value(id, "retention.ms"), Some("9000"));
    assert_eq!(world.image.config_value(ConfigResource::Broker(b(1)), "replica.lag.max.ms"), Some("700"));
}

#[test]
fn what_is_so_already_makes_no_fact() {
    let mut world = World::of(1);
    world.topic("t", 1, 1, &[("retention.ms", "5000")]);
    let before = world.image.clone();
    let reply = world.run(change(topic("t"), &[("retention.ms", "5000")], &["segment.ms"]));
    assert_eq!(reply, Ok(Reply::Committed { batch_no: before.batch_no }));
    assert_eq!(world.image, before);
}

#[test]
fn bad_keys_values_and_targets_are_named_and_leave_nothing_behind() {
    let mut world = World::of(3);
    world.topic("t", 1, 3, &[]);
    let good = ("retention.ms", "5000");
    let cases: [(Command, ErrorCode, &str, &str); 8] = [
        (change(topic("t"), &[good, ("nope", "1")], &[]), ErrorCode::InvalidConfig, "config key", "nope"),
        (change(topic("t"), &[good, ("segment.bytes", "1")], &[]), ErrorCode::InvalidConfig, "segment.bytes", "1"),
        (change(topic("t"), &[good], &["nope"]), ErrorCode::InvalidConfig, "config key", "nope"),
        (change(topic("t"), &[good], &["retention.ms"]), ErrorCode::InvalidConfig, "config key", "retention.ms"),
        (change(topic("t"), &[("lease.grace.ms", "0")], &[]), ErrorCode::InvalidConfig, "config key", "lease.grace.ms"),
        (change(ConfigTarget::Broker(b(1)), &[good], &[]), ErrorCode::InvalidConfig, "config key", "retention.ms"),
        (change(ConfigTarget::Broker(b(9)), &[], &[]), ErrorCode::UnknownBroker, "broker_id", "9"),
        (change(topic("u"), &[good], &[]), ErrorCode::UnknownTopic, "topic", "u"),
    ];
    for (command, code, field, value) in cases {
        assert_names(&world.refused(command), code, field, value);
    }
}

#[test]
fn a_rule_that_could_never_hold_is_refused() {
    let mut world = World::at(&["eu/a/1", "eu/a/2", "eu/b/1"]);
    world.topic("two", 1, 2, &[]);
    world.topic("all", 1, 3, &[]);
    let refuse = |world: &mut World, command, field, value| {
        assert_names(&world.refused(command), ErrorCode::InvalidConfig, field, value);
    };
    refuse(&mut world, change(topic("two"), &[("min.insync.replicas", "3")], &[]), "min.insync.replicas", "3");
    refuse(&mut world, change(topic("all"), &[("min.insync.dcs", "3")], &[]), "min.insync.dcs", "3");
    refuse(&mut world, change(ConfigTarget::Cluster, &[("min.insync.dcs", "3")], &[]), "min.insync.dcs", "3");
    world.run(change(topic("all"), &[("min.insync.dcs", "2")], &[])).expect("it covers two");
    world.run(change(ConfigTarget::Cluster, &[("min.insync.replicas", "3")], &[])).expect("at most RF counts");
}

#[test]
fn unsetting_must_not_fall_back_to_a_rule_that_could_never_hold() {
    let mut world = World::at(&["eu/a/1", "eu/b/1", "eu/b/2"]);
    world.run(change(ConfigTarget::Cluster, &[("min.insync.dcs", "2")], &[])).expect("nothing breaks it");
    let command = crate::decide::tests::world::create("one", 1, 1, &[("min.insync.dcs", "1")]);
    world.run(Command::CreateTopic(command)).expect("its own rule holds");
    let error = world.refused(change(topic("one"), &[], &["min.insync.dcs"]));
    assert_names(&error, ErrorCode::InvalidConfig, "min.insync.dcs", "2");
}

#[test]
fn a_changed_rule_clears_the_elr_of_led_partitions() {
    let mut world = World::of(3);
    let at = world.topic("t", 1, 3, &[("min.insync.replicas", "2")]);
    let leader = world.partition(at).leader.expect("led").0;
    world.set_isr(at, &[leader]);
    assert_eq!(world.places(at).2.len(), 2);
    world.run(change(topic("t"), &[("min.insync.replicas", "3")], &[])).expect("set");
    assert_eq!(world.places(at).2, vec![], "it was formed under another rule");
}

#[test]
fn validation_alone_changes_nothing() {
    let mut world = World::of(1);
    let before = world.image.clone();
    let Command::AlterConfigs(command) = change(ConfigTarget::Cluster, &[("delete.grace.ms", "0")], &[]) else {
        panic!("as built")
    };
    world.run(Command::AlterConfigs(AlterConfigs { validate_only: true, ..command })).expect("fine");
    assert_eq!(world.image, before);
}
