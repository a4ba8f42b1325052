//! What users of controllers rely on, over the wire.

use crate::broker::{FakeBroker, names_the_leader, register, request};
use crate::cluster::{Cluster, eventually, free_port, voter};
use controller::node::StartError;
use futures_util::StreamExt;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::BatchNo;
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::snapshot;
use protocol::rpc::channel::{admin_client, metadata_client, raft_client};
use protocol::rpc::convert;
use protocol::rpc::pb::admin::v1 as admin;
use protocol::rpc::pb::lifecycle::v1::RegisterRequest;
use protocol::rpc::pb::metadata::v1::{FollowRequest, feed_item::Item};
use protocol::rpc::pb::raft::v1::{RaftMessage, SnapshotChunk};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

fn test<F: Future<Output = ()>>(story: F) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(story);
    runtime.shutdown_background();
}

async fn create(cluster: &Cluster, at: u32, name: &str) -> Result<admin::CreateTopicResponse, ApiError> {
    let request = admin::CreateTopicRequest {
        name: name.to_owned(),
        partitions: 3,
        replicas: 3,
        ..admin::CreateTopicRequest::default()
    };
    let answer = admin_client(cluster.channel(at)).create_topic(request).await;
    answer.map(tonic::Response::into_inner).map_err(|s| convert::from_status(&s))
}

/// Creates through whoever is active, until it is done or was done before.
async fn create_surely(cluster: &Cluster, name: &str) {
    eventually("topic", || async {
        match create(cluster, cluster.active(), name).await {
            Ok(_) => Some(()),
            Err(e) => (e.code == ErrorCode::TopicExists).then_some(()),
        }
    })
    .await;
}

fn follow_request(cluster: &Cluster, image: &MetadataImage) -> FollowRequest {
    FollowRequest {
        cluster: Some(convert::cluster_ref(cluster.cluster_id, image.cluster.incarnation)),
        batch_no: image.batch_no.0,
        chain_hash: image.chain_hash,
        node_id: 1,
        supported_version: 1,
    }
}

/// Follows a controller's feed until the image holds this topic.
async fn follow(cluster: &Cluster, at: u32, from: MetadataImage, topic: &str) -> MetadataImage {
    let mut image = from;
    let mut chunks = Vec::new();
    let opened = metadata_client(cluster.channel(at)).follow(follow_request(cluster, &image)).await;
    let mut items = opened.expect("the feed").into_inner();
    while image.topics.by_name(topic).is_none() {
        let next = tokio::time::timeout(crate::cluster::SOON, items.message()).await.expect("in time");
        match next.expect("an item").expect("the feed goes on").item.expect("a known item") {
            Item::Batch(batch) => {
                let decoded = MetadataBatch::decode(&batch.data).expect("a batch");
                (image, _) = image.apply(&decoded, &batch.data).expect("the next batch");
                assert_eq!((image.batch_no.0, image.chain_hash), (batch.batch_no, batch.chain_hash));
            }
            Item::Snapshot(chunk) => {
                chunks.push(chunk.data);
                if chunk.last {
                    image = snapshot::decode(&chunks).expect("a snapshot");
                    assert_eq!(image.batch_no, BatchNo(chunk.batch_no));
                }
            }
            Item::Position(_) => {}
        }
    }
    image
}

#[test]
fn brokers_join_topics_are_made_and_every_controller_feeds_the_same_image() {
    let cluster = Cluster::started(3);
    test(async {
        let mut brokers = Vec::new();
        for id in 1..=3 {
            brokers.push(FakeBroker::join(&cluster, id).await);
        }
        let active = cluster.active();
        let created = create(&cluster, active, "first").await.expect("created");
        assert_eq!(created.partitions.len(), 3);
        assert!(created.partitions.iter().all(|p| p.isr.len() == 3 && p.leader_id != 0 && p.satisfies));
        let again = create(&cluster, active, "first").await.expect_err("exists");
        assert_eq!(again.code, ErrorCode::TopicExists);
        let standby = (1..=3).find(|id| *id != active).expect("a standby");
        let refused = create(&cluster, standby, "second").await.expect_err("not active");
        assert!(names_the_leader(&refused, active), "{refused:?}");
        let image = follow(&cluster, 1, MetadataImage::default(), "first").await;
        for id in [2, 3] {
            assert_eq!(follow(&cluster, id, MetadataImage::default(), "first").await, image);
        }
    });
}

#[test]
fn the_next_controller_takes_over_and_brokers_stay_unfenced() {
    let mut cluster = Cluster::started(3);
    test(async {
        let mut brokers = Vec::new();
        for id in 1..=3 {
            brokers.push(FakeBroker::join(&cluster, id).await);
        }
        create_surely(&cluster, "before").await;
        let old = cluster.active();
        let killed = std::time::Instant::now();
        tokio::task::block_in_place(|| cluster.kill(old));
        create_surely(&cluster, "after").await;
        println!("topic created {:?} after the kill", killed.elapsed());
        let new = cluster.active();
        assert_ne!(new, old);
        eventually("lease answers of the new controller", || async {
            brokers.iter().all(|b| b.last().is_some_and(|(by, a)| by == new && !a.fenced)).then_some(())
        })
        .await;
        let image = follow(&cluster, new, MetadataImage::default(), "after").await;
        assert!(image.brokers.iter().all(|b| b.is_active()), "a takeover fences nobody who lives");
        // It comes back on its disk and catches up.
        tokio::task::block_in_place(|| cluster.start(old));
        assert!(follow(&cluster, old, MetadataImage::default(), "after").await.topics.by_name("before").is_some());
    });
}

#[test]
fn a_broker_that_dies_is_fenced_and_its_leaders_move() {
    let cluster = Cluster::started(1);
    test(async {
        let mut brokers = Vec::new();
        for id in 1..=3 {
            brokers.push(FakeBroker::join(&cluster, id).await);
        }
        let created = create(&cluster, 1, "moves").await.expect("created");
        let victim = created.partitions[0].leader_id;
        let place = brokers.iter().position(|b| b.id == victim).expect("a broker leads");
        brokers.remove(place).die();
        let describe = || async {
            let request = admin::DescribeTopicsRequest { with_partitions: true, ..Default::default() };
            admin_client(cluster.channel(1)).describe_topics(request).await.ok().map(tonic::Response::into_inner)
        };
        let moved = eventually("new leader", || async {
            let topic = describe().await?.topics.into_iter().next()?;
            let gone = topic.partitions.iter().all(|p| p.leader_id != victim && !p.isr.contains(&victim));
            gone.then_some(topic)
        })
        .await;
        let before = created.partitions.iter().find(|p| p.partition == 0).expect("partition 0").leader_epoch;
        let after = moved.partitions.iter().find(|p| p.partition == 0).expect("partition 0");
        assert_eq!(after.leader_epoch, before + 1);
        assert!(after.leader_id != 0);
        let cluster_now = admin_client(cluster.channel(1)).describe_cluster(admin::DescribeClusterRequest {}).await;
        let described = cluster_now.expect("described").into_inner();
        let broker = described.brokers.iter().find(|b| b.id == victim).expect("known");
        assert_eq!(broker.state, "fenced");
        assert!(!broker.why.is_empty());
        assert_eq!(described.under_replicated, 3);
    });
}

#[test]
fn everything_is_there_after_all_controllers_died_and_a_snapshot_was_taken() {
    let mut cluster = Cluster::formatted(3);
    cluster.extra = vec![("snapshot.every".to_owned(), "10".to_owned())];
    (1..=3).for_each(|id| cluster.start(id));
    test(async {
        let mut brokers = Vec::new();
        for id in 1..=3 {
            brokers.push(FakeBroker::join(&cluster, id).await);
        }
        for n in 0..30 {
            create_surely(&cluster, &format!("topic-{n}")).await;
        }
        let before = follow(&cluster, cluster.active(), MetadataImage::default(), "topic-29").await;
        tokio::task::block_in_place(|| {
            (1..=3).for_each(|id| cluster.kill(id));
            (1..=3).for_each(|id| cluster.start(id));
        });
        let active = tokio::task::block_in_place(|| cluster.active());
        assert!(cluster.running(active).quorum().status().snapshot.is_some_and(|s| s > 0));
        let after = follow(&cluster, active, before.clone(), "topic-29").await;
        assert_eq!(after.topics, before.topics);
    });
}

#[test]
fn a_follower_of_another_history_another_cluster_or_an_older_build_is_refused() {
    let cluster = Cluster::started(1);
    test(async {
        let _broker = FakeBroker::join(&cluster, 1).await;
        let refused = |request: FollowRequest| {
            let channel = cluster.channel(1);
            async move {
                let opened = metadata_client(channel).follow(request).await;
                let status = match opened {
                    Err(status) => status,
                    Ok(stream) => stream.into_inner().message().await.expect_err("refused"),
                };
                convert::from_status(&status)
            }
        };
        let here = follow_request(&cluster, &cluster.running(1).quorum().committed());
        let parted = FollowRequest { chain_hash: here.chain_hash ^ 1, ..here.clone() };
        assert_eq!(refused(parted).await.code, ErrorCode::FeedDiverged);
        let foreign = convert::cluster_ref(Uuid::new_v4(), 1);
        let error = refused(FollowRequest { cluster: Some(foreign), ..here.clone() }).await;
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::WrongCluster, "cluster_id"));
        let later = convert::cluster_ref(cluster.cluster_id, 2);
        let error = refused(FollowRequest { cluster: Some(later), ..here.clone() }).await;
        assert_eq!(error.code, ErrorCode::WrongIncarnation);
        let error = refused(FollowRequest { supported_version: 0, ..here }).await;
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::UnsupportedVersion, "supported_version"));
    });
}

#[test]
fn a_broker_of_another_cluster_or_a_second_one_with_the_same_id_is_refused() {
    let cluster = Cluster::started(1);
    test(async {
        let broker = FakeBroker::join(&cluster, 1).await;
        let mut foreign = request(&cluster, 2, Uuid::from_u128(2));
        foreign.cluster = Some(convert::cluster_ref(Uuid::new_v4(), 1));
        let error = register(cluster.channel(1), foreign).await.expect_err("another cluster");
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::WrongCluster, "cluster_id"));
        let error = register(cluster.channel(1), request(&cluster, 1, Uuid::from_u128(99))).await;
        assert_eq!(error.expect_err("another disk").code, ErrorCode::DuplicateBroker);
        let error =
            register(cluster.channel(1), request(&cluster, 1, Uuid::from_u128(1))).await.expect_err("a blind one");
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::StaleBrokerView, "seen"));
        let view = format!("registered {0}, last unfenced {0}", broker.epoch);
        assert!(error.value == "registered none, last unfenced none" && error.limit.starts_with(&view), "{error:?}");
        let answered = broker.answers.lock().len();
        eventually("the first one lives on", || async { (broker.answers.lock().len() > answered + 3).then_some(()) })
            .await;
        assert!(broker.last().is_some_and(|(_, a)| !a.fenced));
        let seen_broker_epoch = broker.epoch;
        let seen_last_unfenced_epoch = broker.epoch;
        let sighted = request(&cluster, 1, Uuid::from_u128(1));
        let sighted = RegisterRequest { seen_broker_epoch, seen_last_unfenced_epoch, ..sighted };
        let successor =
            register(cluster.channel(1), sighted).await.expect("the directory is the same: the first is dead");
        assert!(successor.broker_epoch > broker.epoch);
    });
}

#[test]
fn a_fourth_controller_replaces_one_by_request() {
    let mut cluster = Cluster::started(3);
    let fourth = voter(4, Uuid::new_v4());
    cluster.format(&fourth, &[]);
    cluster.voters.push(fourth.clone());
    cluster.start(4);
    test(async {
        let active = cluster.active();
        let leaving = cluster.voters.iter().find(|v| v.voter.id != active && v.voter.id != 4).expect("a standby");
        let wire = |spec: &controller::quorum::VoterSpec| admin::VoterSpec {
            id: spec.voter.id,
            directory: convert::uuid_bytes(spec.voter.directory),
            endpoint: Some(protocol::rpc::pb::common::v1::Endpoint {
                host: spec.node.host.clone(),
                port: u32::from(spec.node.port),
            }),
            locality: spec.node.locality.clone(),
        };
        let change = admin::ChangeVotersRequest {
            add: vec![wire(&fourth)],
            remove: vec![wire(leaving)],
            ..admin::ChangeVotersRequest::default()
        };
        let changed = admin_client(cluster.channel(active)).change_voters(change).await.expect("changed").into_inner();
        assert_eq!(changed.voters.len(), 3);
        assert!(changed.verdicts.iter().all(|v| v.continues && v.provably_lossless));
        let described = eventually("controller 4 knows that it votes", || async {
            let asked = admin_client(cluster.channel(4)).describe_quorum(admin::DescribeQuorumRequest {}).await;
            let described = asked.expect("any controller describes").into_inner();
            (described.voters.iter().any(|v| v.id == 4) && !described.joint).then_some(described)
        })
        .await;
        assert!(!described.answered_by_leader);
        assert!(described.voters.iter().all(|v| v.id != leaving.voter.id));
    });
}

#[test]
fn a_controller_that_cannot_start_says_why() {
    let cluster = Cluster::formatted(1);
    let unformatted = {
        let mut config = cluster.config(1);
        config.data_dir = cluster.dir.path().join("nothing");
        cluster.try_start(config)
    };
    assert!(matches!(unformatted.err(), Some(StartError::Directory(_))));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut config = cluster.config(1);
    config.listen = taken.local_addr().expect("bound").to_string();
    match cluster.try_start(config).err() {
        Some(StartError::Listen { key: "listen", .. }) => {}
        other => panic!("expected a taken port, got {other:?}"),
    }
    let mut config = cluster.config(1);
    config.node_id = protocol::ids::ControllerId(2);
    assert!(cluster.try_start(config).is_err(), "another node's directory");
    let first = cluster.try_start(cluster.config(1)).expect("starts");
    let mut second = cluster.config(1);
    second.listen = format!("127.0.0.1:{}", free_port());
    let locked = cluster.try_start(second).err().expect("in use").to_string();
    assert!(locked.contains("in use"), "{locked}");
    drop(first);
}

#[test]
fn a_snapshot_may_take_longer_than_a_listener_gives_a_call() {
    let cluster = Cluster::started(1);
    test(async {
        let (to, from) = (cluster.voters[0].voter, Uuid::new_v4());
        let head = RaftMessage {
            cluster: Some(convert::cluster_ref(cluster.cluster_id, 0)),
            from: 2,
            from_directory: convert::uuid_bytes(from),
            to: to.id,
            to_directory: convert::uuid_bytes(to.directory),
            format: 1,
            ..RaftMessage::default()
        };
        let first = SnapshotChunk { head: Some(head), total_bytes: 10, ..SnapshotChunk::default() };
        let begun = futures_util::stream::iter([first]).chain(futures_util::stream::pending());
        let mut client = raft_client(cluster.channel(1));
        // The listener's deadline ends at the head of the answer: that comes before the snapshot has.
        let answer = tokio::time::timeout(Duration::from_secs(5), client.install_snapshot(begun)).await;
        drop(answer.expect("at once").expect("a stream that will hold the answer"));
    });
}

#[test]
fn a_damaged_vote_stops_the_start_with_file_and_position() {
    let mut cluster = Cluster::started(1);
    cluster.active();
    cluster.stop(1);
    for name in ["vote", "bootstrap"] {
        let file = cluster.path(1).join("raft").join(name);
        let good = std::fs::read(&file).expect("there");
        let mut bad = good.clone();
        *bad.last_mut().expect("not empty") ^= 1;
        std::fs::write(&file, bad).expect("damaged");
        let error = cluster.try_start(cluster.config(1)).err().expect("damaged").to_string();
        assert!(error.contains(file.to_str().expect("utf-8")) && error.contains("at byte"), "{error}");
        std::fs::write(&file, good).expect("repaired");
    }
    cluster.start(1);
    cluster.active();
}

async fn page(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the HTTP listener");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

#[test]
fn probes_tell_alive_from_ready() {
    let cluster = Cluster::formatted(3);
    let mut cluster = cluster;
    cluster.start(1);
    test(async {
        let address = cluster.running(1).metrics_address();
        assert!(page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let alone = page(address, "/readyz").await;
        assert!(alone.starts_with("HTTP/1.1 503") && alone.contains("no quorum leader is known"), "{alone}");
        assert!(page(address, "/metrics").await.contains("seawall_up 1"));
        tokio::task::block_in_place(|| {
            cluster.start(2);
            cluster.start(3);
        });
        eventually("readiness", || async { page(address, "/readyz").await.starts_with("HTTP/1.1 200").then_some(()) })
            .await;
    });
}
