//! Topics: what is refused and how, what a creation leaves behind.

use super::*;
use crate::decide::command::Command;
use crate::decide::tests::world::{World, assert_names, b, create, topic_id};

fn refused(world: &mut World, command: CreateTopic, code: ErrorCode, field: &str, value: &str) {
    assert_names(&world.refused(Command::CreateTopic(command)), code, field, value);
}

#[test]
fn names_follow_the_rule() {
    let mut world = World::of(1);
    let long = "x".repeat(250);
    for bad in ["", ".", "..", "a/b", "a b", "ä", "__consumer_offsets", long.as_str()] {
        let command = CreateTopic { name: bad.to_owned(), ..create("ok", 1, 1, &[]) };
        let error = world.refused(Command::CreateTopic(command));
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::InvalidName, "name"), "{bad:?}");
        assert!(error.value.len() <= TOPIC_NAME_MAX);
    }
    for good in ["a", "A.b_c-9", "_x", "...", &"x".repeat(249)] {
        world.run(Command::CreateTopic(create(good, 1, 1, &[]))).expect(good);
    }
}

#[test]
fn a_topic_stands_with_its_configs_and_led_partitions() {
    let mut world = World::of(3);
    let at = world.topic("t", 6, 3, &[("min.insync.replicas", "2"), ("retention.ms", "-1")]);
    let topic = world.image.topics.get(at.topic).expect("live");
    assert_eq!((topic.partitions.len(), topic.replication_factor), (6, 3));
    for partition in topic.partitions.iter() {
        assert_eq!(partition.isr, partition.replicas);
        assert_eq!(partition.leader, partition.replicas.first().copied());
    }
    let config = world.image.topic_config(at.topic);
    assert_eq!((config.min_insync_replicas, config.retention_ms), (2, None));
}

#[test]
fn the_reply_names_topic_batch_and_partitions() {
    let mut world = World::of(3);
    let command = create("t", 2, 3, &[]);
    let reply = world.run(Command::CreateTopic(command.clone()));
    let Ok(Reply::TopicCreated { topic, batch_no, partitions }) = reply else { panic!("{reply:?}") };
    assert_eq!((topic, batch_no, partitions.len()), (command.topic, world.image.batch_no, 2));
}

#[test]
fn an_unset_replication_factor_is_the_clusters() {
    let mut world = World::of(4);
    let command = CreateTopic { replicas: None, ..create("t", 1, 1, &[]) };
    world.run(Command::CreateTopic(command.clone())).expect("created");
    assert_eq!(world.image.topics.get(command.topic).expect("live").replication_factor, 3);
}

#[test]
fn bad_counts_name_field_value_and_limit() {
    let mut world = World::of(2);
    refused(&mut world, create("t", 0, 1, &[]), ErrorCode::InvalidPartitions, "partitions", "0");
    refused(&mut world, create("t", 10_001, 1, &[]), ErrorCode::InvalidPartitions, "partitions", "10001");
    refused(&mut world, create("t", 1, 0, &[]), ErrorCode::InvalidReplication, "replicas", "0");
    refused(&mut world, create("t", 1, 3, &[]), ErrorCode::InvalidReplication, "replicas", "3");
    refused(&mut world, create("t", 1, 33, &[]), ErrorCode::InvalidReplication, "replicas", "33");
}

#[test]
fn fenced_brokers_take_no_new_replicas() {
    let mut world = World::of(3);
    world.kill(&[3]);
    refused(&mut world, create("t", 1, 3, &[]), ErrorCode::InvalidReplication, "replicas", "3");
    let at = world.topic("t", 8, 2, &[]);
    let topic = world.image.topics.get(at.topic).expect("live");
    assert!(topic.partitions.iter().all(|p| !p.replicas.contains(&b(3))));
}

#[test]
fn bad_configs_are_refused_whole() {
    let mut world = World::of(3);
    let bad = [
        (&[("no.such", "1")][..], "config key", "no.such"),
        (&[("flush.policy", "maybe")], "flush.policy", "maybe"),
        (&[("retention.check.interval.ms", "1000")], "config key", "retention.check.interval.ms"),
        (&[("min.insync.replicas", "4")], "min.insync.replicas", "4"),
        (&[("min.insync.dcs", "4")], "min.insync.dcs", "4"),
        (&[("segment.ms", "5000"), ("segment.ms", "6000")], "config key", "segment.ms"),
    ];
    for (configs, field, value) in bad {
        refused(&mut world, create("t", 1, 3, configs), ErrorCode::InvalidConfig, field, value);
    }
}

#[test]
fn the_default_min_isr_above_the_replicas_counts_as_all_of_them() {
    let mut world = World::of(1);
    let at = world.topic("t", 1, 1, &[]);
    assert_eq!(world.image.durability_rule(at.topic).map(|r| r.min_replicas), Some(1));
}

#[test]
fn of_two_creations_in_one_batch_the_second_loses() {
    let mut world = World::of(1);
    let first = create("t", 1, 1, &[]);
    let second = CreateTopic { topic: topic_id(5), ..first.clone() };
    let plan = world.batch(&[Command::CreateTopic(first.clone()), Command::CreateTopic(second)]);
    assert!(plan.replies[0].is_ok());
    let error = plan.replies[1].clone().expect_err("the name is taken in the draft already");
    assert_names(&error, ErrorCode::TopicExists, "name", "t");
    assert_eq!(world.image.topics.iter().count(), 1);
}

#[test]
fn an_id_used_before_is_refused() {
    let mut world = World::of(1);
    let first = create("t", 1, 1, &[]);
    world.run(Command::CreateTopic(first.clone())).expect("created");
    world.run(Command::DeleteTopic(DeleteTopic { name: "t".to_owned(), at_ms: 1 })).expect("deleted");
    let error = world.refused(Command::CreateTopic(first.clone()));
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::InvalidRequest, "topic_id"));
    let again = CreateTopic { topic: topic_id(6), ..first };
    world.run(Command::CreateTopic(again)).expect("the name is free again");
}

#[test]
fn validation_alone_changes_nothing_and_answers_the_same() {
    let mut world = World::of(3);
    let before = world.image.clone();
    let only = CreateTopic { validate_only: true, ..create("t", 3, 3, &[]) };
    let reply = world.run(Command::CreateTopic(only));
    assert!(matches!(reply, Ok(Reply::TopicCreated { partitions, batch_no, .. })
        if partitions.len() == 3 && batch_no == before.batch_no));
    assert_eq!(world.image, before);
    let bad = CreateTopic { validate_only: true, ..create("t", 3, 4, &[]) };
    refused(&mut world, bad, ErrorCode::InvalidReplication, "replicas", "4");
}

#[test]
fn topics_grow_and_never_shrink() {
    let mut world = World::of(3);
    let at = world.topic("t", 2, 3, &[]);
    let grow = |total| {
        Command::CreatePartitions(CreatePartitions { name: "t".to_owned(), total, seed: 3, validate_only: false })
    };
    let old: Vec<_> = partitions(&world.image, at.topic);
    world.run(grow(5)).expect("grown");
    assert_eq!(partitions(&world.image, at.topic)[..2], old[..]);
    assert_eq!(partitions(&world.image, at.topic).len(), 5);
    for total in [5, 4, 0] {
        let error = world.refused(grow(total));
        assert_names(&error, ErrorCode::InvalidPartitions, "partitions", &total.to_string());
    }
    assert_names(&world.refused(grow(10_001)), ErrorCode::InvalidPartitions, "partitions", "10001");
}

#[test]
fn deleting_frees_the_name_and_keeps_the_data_for_its_grace() {
    let mut world = World::of(1);
    let at = world.topic("t", 1, 1, &[]);
    let delete = Command::DeleteTopic(DeleteTopic { name: "t".to_owned(), at_ms: crate::decide::tests::world::WALL_0 });
    assert!(matches!(world.run(delete.clone()), Ok(Reply::TopicDeleted { topic, .. }) if topic == at.topic));
    assert!(world.image.topics.by_name("t").is_none());
    assert!(world.image.topics.get(at.topic).is_some_and(|t| !t.is_live()));
    assert_names(&world.refused(delete), ErrorCode::UnknownTopic, "topic", "t");
}

#[test]
fn single_partition_topics_lead_evenly_on_all_brokers() {
    let mut world = World::of(3);
    let topics: Vec<_> = (0..60).map(|n| world.topic(&format!("single{n}"), 1, 3, &[])).collect();
    for broker in 1..=3 {
        let led = topics.iter().filter(|at| world.partition(**at).leader == Some(b(broker))).count();
        assert!((19..=21).contains(&led), "broker {broker} leads {led} of 60");
    }
    // A broker that leads nothing now, having been away, gets its own back and no more of the next ones than others.
    world.kill(&[2]);
    world.unfence(2);
    topics.iter().for_each(|at| world.set_isr(*at, &[1, 2, 3]));
    assert_eq!(world.image.topics.led_count(b(2)), 0);
    let all: Vec<_> = (60..90).map(|n| world.topic(&format!("single{n}"), 1, 3, &[])).chain(topics).collect();
    for broker in 1..=3 {
        let preferred = all.iter().filter(|at| world.partition(**at).replicas[0] == b(broker)).count();
        assert!((29..=31).contains(&preferred), "broker {broker} is preferred by {preferred} of 90");
    }
}
