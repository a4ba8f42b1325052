//! Stories of administration.

use crate::fake::{Fake, Fault};
use client::{Admin, ClientConfig, Effect, Error, NewTopic};
use protocol::error::ErrorCode;
use std::time::{Duration, Instant};

fn admin(fake: &Fake) -> Admin {
    Admin::new(ClientConfig::new(&fake.bootstrap()).unwrap().set("request.timeout.ms", "3000").unwrap())
}

fn topic(partitions: u32) -> NewTopic {
    NewTopic { name: "t".into(), partitions, replicas: 3, configs: vec![] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_again_after_a_lost_answer_is_no_failure() {
    let fake = Fake::start(2).await;
    fake.world.lock().admin_faults.push_back(Fault::RefuseAfterAppend(ErrorCode::OutcomeUnknown));
    let created = admin(&fake).create_topic(&topic(4), false).await.unwrap();
    assert_eq!(created.topic_id, fake.world.lock().topics["t"].id.as_bytes().to_vec());
    let error = admin(&fake).create_topic(&topic(4), false).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicExists), "this call made nothing");
    assert_eq!(error.effect(), Effect::NotWritten);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_somebody_else_made_otherwise_is_a_failure_even_then() {
    let fake = Fake::start(1).await;
    fake.topic("t", 2);
    fake.world.lock().admin_faults.push_back(Fault::Refuse(ErrorCode::Timeout));
    let error = admin(&fake).create_topic(&topic(4), false).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicExists));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_after_a_lost_answer_is_no_failure() {
    let fake = Fake::start(1).await;
    fake.topic("t", 1);
    fake.world.lock().admin_faults.push_back(Fault::RefuseAfterAppend(ErrorCode::OutcomeUnknown));
    admin(&fake).delete_topic("t").await.unwrap();
    let error = admin(&fake).delete_topic("t").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusal_of_a_repeat_is_not_the_outcome_of_the_call() {
    let fake = Fake::start(2).await;
    fake.topic("t", 4);
    let lost = Fault::RefuseAfterAppend(ErrorCode::OutcomeUnknown);
    fake.world.lock().admin_faults.push_back(lost);
    let error = admin(&fake).create_partitions("t", 12, false).await.unwrap_err();
    assert_eq!(fake.world.lock().topics["t"].partitions.len(), 12, "it was done");
    assert_eq!((error.effect(), error.code()), (Effect::Unknown, Some(ErrorCode::OutcomeUnknown)), "{error}");
    assert!(error.to_string().contains("InvalidPartitions"), "{error}");
    let error = admin(&fake).create_partitions("t", 12, false).await.unwrap_err();
    assert_eq!((error.effect(), error.code()), (Effect::NotWritten, Some(ErrorCode::InvalidPartitions)));
    fake.world.lock().admin_faults.extend([lost, Fault::Refuse(ErrorCode::VoterLayoutRefused)]);
    let error = admin(&fake).change_voters(Default::default()).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
}

/// The answer is lost, somebody makes the name again at once: that one is not what was to be deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_may_be_done_is_not_repeated_on_another_topic_of_that_name() {
    let fake = Fake::start(2).await;
    fake.topic("t", 1);
    fake.world.lock().admin_faults.push_back(Fault::MadeAgain);
    let error = admin(&fake).delete_topic("t").await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
    assert_eq!(fake.world.lock().topics["t"].partitions.len(), 3, "the new one is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_broker_is_passed_over() {
    let fake = Fake::start(3).await;
    fake.kill(1).await;
    fake.kill(3).await;
    let begun = Instant::now();
    admin(&fake).create_topic(&topic(1), false).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_whether_anything_may_have_happened_when_time_is_up() {
    let fake = Fake::start(1).await;
    let short = Admin::new(ClientConfig::new(&fake.bootstrap()).unwrap().set("request.timeout.ms", "1500").unwrap());
    fake.world.lock().admin_faults.extend(std::iter::repeat_n(Fault::Refuse(ErrorCode::NotController), 100));
    let error = short.create_topic(&topic(1), false).await.unwrap_err();
    assert!(
        matches!(&error, Error::Timeout { effect: Effect::NotWritten, last, .. } if last.contains("NotController"))
    );
    fake.world.lock().admin_faults.push_front(Fault::Refuse(ErrorCode::OutcomeUnknown));
    let error = short.create_topic(&topic(1), false).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    fake.kill(1).await;
    let error = short.create_topic(&topic(1), false).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_for_leaders_and_names_who_lacks_one() {
    let fake = Fake::start(1).await;
    fake.topic("t", 3);
    let admin = admin(&fake);
    admin.await_leaders("t", Duration::from_secs(2)).await.unwrap();
    fake.lead("t", 1, 0);
    let error = admin.await_leaders("t", Duration::from_millis(200)).await.unwrap_err();
    assert!(error.to_string().contains("partitions 1 of t have no leader"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trims_at_the_leader() {
    let fake = Fake::start(3).await;
    fake.topic("t", 2);
    assert_eq!(admin(&fake).delete_records("t", 1, Some(5)).await.unwrap(), 5);
    assert_eq!(fake.with("t", 1, |p| p.log_start), 5);
    let error = admin(&fake).delete_records("t", 2, None).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownPartition));
}
