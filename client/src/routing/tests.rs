use super::*;
use proptest::prelude::*;
use protocol::rpc::pb::common::v1::{Endpoint as WireEndpoint, Error};

const CLUSTER: Uuid = Uuid::from_u128(1);

fn answer(batch_no: u64, leaders: &[(u32, u32)]) -> pb::RoutingResponse {
    let partitions = leaders
        .iter()
        .enumerate()
        .map(|(n, (leader, epoch))| pb::RoutingPartition {
            partition: n as u32,
            leader_id: *leader,
            leader_epoch: *epoch,
            replicas: vec![1, 2, 3],
            isr: vec![1, 2, 3],
        })
        .collect();
    let brokers = (1..=3)
        .map(|id| pb::RoutingBroker {
            id,
            client: Some(WireEndpoint { host: "h".into(), port: 9000 + id }),
            ..Default::default()
        })
        .collect();
    pb::RoutingResponse {
        cluster_id: CLUSTER.as_bytes().to_vec().into(),
        incarnation: 1,
        batch_no,
        brokers,
        topics: vec![pb::RoutingTopic {
            name: "t".into(),
            topic_id: Uuid::from_u128(7).as_bytes().to_vec().into(),
            partitions,
            max_message_bytes: 1_000,
            error: None,
        }],
    }
}

#[test]
fn finds_leader_address_and_epoch() {
    let mut routing = Routing::default();
    routing.apply(answer(5, &[(2, 4), (0, 3)])).unwrap();
    let leader = routing.leader("t", 0).unwrap();
    assert_eq!((leader.broker, leader.address.port, leader.epoch), (2, 9002, 4));
    assert_eq!(routing.leader("t", 1), None, "no leader");
    assert_eq!(routing.leader("t", 2), None, "no such partition");
    assert_eq!(routing.leader("u", 0), None, "no such topic");
}

#[test]
fn another_cluster_is_refused_and_an_older_life_ignored() {
    let mut routing = Routing::default();
    routing.apply(answer(5, &[(2, 4)])).unwrap();
    let mut other = answer(9, &[(1, 9)]);
    other.cluster_id = Uuid::from_u128(2).as_bytes().to_vec().into();
    assert!(matches!(routing.apply(other), Err(RoutingError::OtherCluster { .. })));
    let mut older = answer(9, &[(1, 9)]);
    older.incarnation = 0;
    routing.apply(older).unwrap();
    assert_eq!(routing.leader("t", 0).unwrap().epoch, 4);
}

#[test]
fn a_topic_made_again_replaces_the_old_one_only_in_a_newer_answer() {
    let mut routing = Routing::default();
    routing.apply(answer(5, &[(2, 4)])).unwrap();
    let again = |batch_no| {
        let mut again = answer(batch_no, &[(1, 0)]);
        again.topics[0].topic_id = Uuid::from_u128(8).as_bytes().to_vec().into();
        again
    };
    routing.apply(again(4)).unwrap();
    assert_eq!(routing.topic("t").unwrap().id, Uuid::from_u128(7));
    routing.apply(again(6)).unwrap();
    assert_eq!(routing.topic("t").unwrap().id, Uuid::from_u128(8));
    assert!(routing.moved_on("t", Uuid::from_u128(7), 0, 4));
}

#[test]
fn a_deleted_topic_is_forgotten_only_by_a_newer_answer() {
    let mut routing = Routing::default();
    routing.apply(answer(5, &[(2, 4)])).unwrap();
    let gone = |batch_no| {
        let mut gone = answer(batch_no, &[]);
        gone.topics[0].error = Some(Error::default());
        gone
    };
    routing.apply(gone(4)).unwrap();
    assert!(routing.topic("t").is_some());
    routing.apply(gone(6)).unwrap();
    assert!(routing.topic("t").is_none());
}

#[test]
fn hints_move_forward_only() {
    let mut routing = Routing::default();
    routing.apply(answer(5, &[(2, 4)])).unwrap();
    assert!(!routing.follow("t", 0, 3, None, 4), "same epoch, has a leader");
    assert!(!routing.follow("t", 0, 9, None, 5), "no address");
    assert!(routing.follow("t", 0, 9, Some(Endpoint { host: "x".into(), port: 1 }), 5));
    assert_eq!(routing.leader("t", 0).unwrap().address.host, "x");
    routing.apply(answer(6, &[(2, 4)])).unwrap();
    assert_eq!(routing.leader("t", 0).unwrap().broker, 9, "an answer from before the hint changes nothing");
}

#[test]
fn malformed_answers_are_refused() {
    let mut bad = answer(5, &[(1, 1), (1, 1)]);
    bad.topics[0].partitions[1].partition = 7;
    assert!(Routing::default().apply(bad).is_err());
    let mut bad = answer(5, &[(1, 1), (1, 1)]);
    bad.topics[0].partitions[1].partition = 0;
    assert!(Routing::default().apply(bad).is_err());
    let mut bad = answer(5, &[]);
    bad.cluster_id = vec![1].into();
    assert!(Routing::default().apply(bad).is_err());
}

proptest! {
    /// Whatever order answers of lagging brokers arrive in: the epoch never falls and ends at the highest seen.
    #[test]
    fn epochs_never_fall(answers in prop::collection::vec((0_u64..20, 0_u32..4), 1..30)) {
        let mut routing = Routing::default();
        let mut highest = 0;
        for (batch_no, leader) in answers {
            // A history: epoch and batch number grow together.
            let epoch = (batch_no / 2) as u32;
            routing.apply(answer(batch_no, &[(leader, epoch)])).unwrap();
            highest = highest.max(epoch);
            prop_assert_eq!(routing.topic("t").unwrap().partitions[0].epoch, highest);
        }
    }
}
