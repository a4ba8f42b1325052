//! Batches: order, bounds, and refusals that leave no trace.

use super::*;
use crate::decide::command::{AlterConfigs, ConfigTarget, CreateTopic, DeleteTopic};
use crate::decide::tests::world::{World, create};

#[test]
fn later_commands_see_earlier_ones_and_replies_keep_their_order() {
    let mut world = World::of(1);
    let delete = |name: &str| Command::DeleteTopic(DeleteTopic { name: name.to_owned(), at_ms: 1 });
    let commands = [delete("t"), Command::CreateTopic(create("t", 1, 1, &[])), delete("t"), Command::Tick, delete("t")];
    let plan = world.batch(&commands);
    let fine: Vec<_> = plan.replies.iter().map(Result::is_ok).collect();
    assert_eq!(fine, vec![false, true, true, true, false]);
    assert!(world.image.topics.by_name("t").is_none());
}

#[test]
fn a_refused_command_leaves_no_fact_behind() {
    let mut world = World::of(3);
    let half = create("t", 1, 3, &[("retention.ms", "5"), ("min.insync.dcs", "4")]);
    let plan = world.batch(&[Command::CreateTopic(half)]);
    assert!(plan.replies[0].is_err());
    assert_eq!(plan.facts, vec![], "the topic itself was legal until its rule was looked at");
}

/// Ten brokers whose ids take five bytes each: large facts out of few partitions.
fn wide() -> World {
    let mut world = World::empty();
    (0..10).for_each(|n| world.start(300_000_000 + n, &format!("eu/dc{}/r1", n % 3), 1));
    world
}

#[test]
fn what_does_not_fit_waits_in_its_order() {
    let mut world = wide();
    let big: Vec<_> = (0..3).map(|n| Command::CreateTopic(create(&format!("t{n}"), 5_000, 10, &[]))).collect();
    let plan = world.batch(&big);
    assert!(plan.more && plan.replies.len() == 1 && plan.replies[0].is_ok(), "{} of 3", plan.replies.len());
    assert_eq!(world.image.topics.iter().count(), 1);
    let rest = world.batch(&big[1..]);
    assert!(rest.replies.len() == 1 && rest.replies[0].is_ok(), "the second comes first in the next batch");
}

#[test]
fn a_command_that_fits_no_batch_is_refused_by_name() {
    let mut world = wide();
    let error = world.refused(Command::CreateTopic(create("t", 10_000, 10, &[])));
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::InvalidRequest, "request"));
    assert!(error.limit.contains(&BATCH_FACT_BYTES_MAX.to_string()));
}

#[test]
fn commands_of_one_batch_are_bounded_in_number() {
    let mut world = World::of(1);
    let plan = world.batch(&vec![Command::Tick; COMMANDS_MAX + 10]);
    assert_eq!((plan.replies.len(), plan.more), (COMMANDS_MAX, true));
}

#[test]
fn commands_that_look_far_and_write_nothing_are_bounded_in_number() {
    let mut world = World::of(3);
    let validate = Command::CreateTopic(CreateTopic { validate_only: true, ..create("t", 100, 3, &[]) });
    let refused = Command::CreateTopic(create("t", 100, 3, &[("min.insync.dcs", "4")]));
    let commands: Vec<_> = (0..20).flat_map(|_| [validate.clone(), Command::Tick, refused.clone()]).collect();
    let plan = world.batch(&commands);
    assert!(plan.more && plan.facts.is_empty());
    let looked = commands.iter().take(plan.replies.len()).filter(|c| c.looks_far()).count();
    assert_eq!(looked, UNWRITTEN_MAX);
    let written: Vec<_> = (0..20).map(|n| Command::CreateTopic(create(&format!("t{n}"), 1, 3, &[]))).collect();
    assert_eq!(world.batch(&written).replies.len(), 20, "what is written is bounded by its bytes");
}

#[test]
fn nothing_asked_and_nothing_to_do_is_nothing_written() {
    let mut world = World::of(2);
    let set = AlterConfigs { target: ConfigTarget::Cluster, set: vec![], unset: vec![], validate_only: false };
    let plan = world.batch(&[Command::AlterConfigs(set), Command::Register(world.registration(1, 1))]);
    assert!(plan.facts.is_empty() && plan.replies.iter().all(Result::is_ok));
}

#[test]
fn the_position_answered_is_the_batch_that_holds_the_decision() {
    let mut world = World::of(1);
    let base = world.image.batch_no;
    let plan = world.batch(&[Command::CreateTopic(create("t", 1, 1, &[]))]);
    assert!(matches!(&plan.replies[0], Ok(Reply::TopicCreated { batch_no, .. }) if *batch_no == base.next()));
    assert_eq!(world.image.batch_no, base.next());
}
