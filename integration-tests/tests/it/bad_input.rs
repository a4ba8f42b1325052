//! Bad input: each is refused with field, value and limit, changes nothing, and leaves a running process running; a
//! process that cannot start says why and exits non-zero.

use crate::{PROGRAM, runtime};
use bytes::Bytes;
use deploy::dev::cluster::NodeState;
use deploy::dev::layout::NodeName;
use integration_tests::cluster::{TestCluster, Wish};
use integration_tests::wait::eventually;
use integration_tests::wire;
use protocol::batch::{BatchBuilder, Compression};
use protocol::error::ErrorCode;
use protocol::rpc::pb::common::v1::Error;
use protocol::rpc::pb::data::v1::ProduceRequest;
use std::path::Path;
use std::process::{Command, Output};

fn small() -> Wish {
    Wish { controllers: 1, brokers: 1, dcs: 1, ..Wish::default() }
}

/// A cluster of one controller and one broker with the topic `events`.
fn cluster() -> TestCluster {
    let cluster = TestCluster::start(PROGRAM, &small());
    cluster.cli_ok(&["topic", "create", "events", "--partitions", "2", "--replicas", "1"]);
    cluster
}

/// Runs the command line, which must fail with this exit code and say all of this; then the cluster must be as before.
fn refused(cluster: &TestCluster, arguments: &[&str], exit: i32, says: &[&str]) {
    let before = cluster.cli_ok(&["topic", "list", "-o", "json"]);
    let output = cluster.cli(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "seawall {}: {said}", arguments.join(" "));
    for word in says {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert_eq!(cluster.cli_ok(&["topic", "list", "-o", "json"]), before, "something was half applied");
    for name in cluster.names() {
        assert_eq!(cluster.state_of(name), NodeState::Running, "{name}");
    }
}

#[test]
fn topics_that_do_not_exist_and_partitions_out_of_range() {
    let cluster = cluster();
    refused(&cluster, &["topic", "describe", "nowhere"], 4, &["nowhere"]);
    refused(&cluster, &["topic", "delete", "nowhere", "--yes"], 4, &["nowhere"]);
    refused(&cluster, &["consume", "nowhere", "--from", "earliest", "--until-end"], 4, &["nowhere"]);
    refused(&cluster, &["consume", "events", "--partition", "7", "--from", "earliest", "--until-end"], 4, &["7"]);
    refused(&cluster, &["partition", "describe", "events/7"], 4, &["7"]);
    let output = cluster.cli_with(&["produce", "nowhere"], b"line\n");
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn topics_that_cannot_be() {
    let cluster = cluster();
    refused(&cluster, &["topic", "create", "wide", "--partitions", "1", "--replicas", "3"], 2, &["3", "1"]);
    let strict =
        ["topic", "create", "strict", "--partitions", "1", "--replicas", "1", "--config", "min.insync.replicas=2"];
    refused(&cluster, &strict, 2, &["min.insync.replicas", "2", "1"]);
    let unknown = ["topic", "create", "odd", "--partitions", "1", "--replicas", "1", "--config", "retention.mss=1"];
    refused(&cluster, &unknown, 2, &["retention.mss", "retention.ms"]);
    let range = ["topic", "create", "odd", "--partitions", "1", "--replicas", "1", "--config", "segment.bytes=1"];
    refused(&cluster, &range, 2, &["segment.bytes", "1", "16384"]);
    refused(&cluster, &["topic", "create", "events", "--partitions", "1", "--replicas", "1"], 1, &["events"]);
    refused(&cluster, &["topic", "create", "none", "--partitions", "0", "--replicas", "1"], 2, &["partitions", "0"]);
}

#[test]
fn names_that_break_the_rule() {
    let cluster = cluster();
    let long = "n".repeat(250);
    for name in ["..", ".", "a/b", "a b", "ä", &long] {
        refused(&cluster, &["topic", "create", name, "--partitions", "1", "--replicas", "1"], 2, &["name", "allowed"]);
    }
}

/// Sends one batch to partition 0 of `events` and returns the refusal.
fn produce_raw(cluster: &TestCluster, partition: u32, cluster_id: Bytes, batch: Bytes) -> Error {
    let address = cluster.bootstrap();
    runtime().block_on(async {
        let routing = wire::routing(&address, "events").await.expect("the broker answers");
        let topic_id = routing.topics[0].topic_id.clone();
        let request = ProduceRequest {
            correlation: 1,
            cluster_id,
            topic_id,
            partition,
            leader_epoch: -1,
            acks: -1,
            timeout_ms: 5_000,
            batch,
        };
        let requests = futures_util::stream::iter([request]);
        let mut answers = wire::call(wire::data(&address).produce(requests)).await.expect("the stream opens");
        let answer = answers.message().await.expect("the stream lives").expect("an answer per request");
        answer.error.expect("the batch is refused")
    })
}

fn batch(value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1, None, Some(value), &[]).expect("a record of a test");
    builder.build().expect("a batch of a test")
}

fn expect(error: &Error, code: ErrorCode) {
    let named = !error.field.is_empty() && !error.value.is_empty() && !error.limit.is_empty();
    assert!(ErrorCode::from_wire(error.code) == code && named, "{error:?}");
}

#[test]
fn batches_that_cannot_be_taken() {
    let cluster = cluster();
    cluster.cli_ok(&["topic", "alter", "events", "--config", "max.message.bytes=2048"]);
    let unchecked = Bytes::new();
    eventually("the broker knows the new limit", || {
        let error = produce_raw(&cluster, 0, unchecked.clone(), batch(&[7; 4096]).into());
        if ErrorCode::from_wire(error.code) == ErrorCode::MessageTooLarge { Ok(()) } else { Err(format!("{error:?}")) }
    });
    expect(&produce_raw(&cluster, 0, unchecked.clone(), batch(&[7; 4096]).into()), ErrorCode::MessageTooLarge);

    let mut flipped = batch(b"value");
    let last = flipped.len() - 3;
    flipped[last] ^= 1;
    let error = produce_raw(&cluster, 0, unchecked.clone(), flipped.into());
    assert_eq!(ErrorCode::from_wire(error.code), ErrorCode::CorruptMessage, "{error:?}");
    let error = produce_raw(&cluster, 0, unchecked.clone(), Bytes::from_static(b"no batch at all"));
    assert_eq!(ErrorCode::from_wire(error.code), ErrorCode::CorruptMessage, "{error:?}");

    expect(&produce_raw(&cluster, 9, unchecked, batch(b"value").into()), ErrorCode::UnknownPartition);
    let other = Bytes::from(uuid::Uuid::new_v4().as_bytes().to_vec());
    expect(&produce_raw(&cluster, 0, other, batch(b"value").into()), ErrorCode::WrongCluster);

    let output = cluster.cli(&["consume", "events", "--from", "earliest", "--until-end"]);
    assert!(output.status.success() && output.stdout.is_empty(), "a refused batch left something behind");
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).env_remove("SEAWALL_BOOTSTRAP").output().expect("the program runs")
}

/// The process must end by itself, non-zero, and say all of this.
fn does_not_start(arguments: &[&str], says: &[&str]) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "{:?}: {said}", output.status);
    for word in says {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

fn config_of(cluster: &TestCluster, name: NodeName) -> String {
    cluster.node(name).config_file(cluster.cluster.root()).to_string_lossy().into_owned()
}

#[test]
fn configurations_that_cannot_start() {
    let cluster = TestCluster::laid_out(PROGRAM, &small());
    for (role, name) in [("controller", NodeName::controller(1)), ("broker", NodeName::broker(1))] {
        let config = config_of(&cluster, name);
        does_not_start(&[role, "--config", &config, "-X", "node.idd=1"], &["node.idd", "unknown", "-X"]);
        does_not_start(&[role, "--config", &config, "-X", "node.id=x"], &["node.id", "x", "allowed"]);
        does_not_start(&[role, "--config", &config, "-X", "log.level=loud"], &["log.level", "loud", "allowed"]);
        does_not_start(&[role, "--config", "nowhere.toml"], &["nowhere.toml"]);
        // Nothing was half made: the node starts afterwards.
    }
    cluster.start_nodes(&cluster.names());
}

#[test]
fn directories_that_cannot_be_used() {
    let cluster = TestCluster::laid_out(PROGRAM, &small());
    let empty = cluster.folder().join("empty");
    std::fs::create_dir(&empty).expect("the test's own folder");
    let data = format!("data.dir={}", empty.display());
    for (role, name) in [("controller", NodeName::controller(1)), ("broker", NodeName::broker(1))] {
        let config = config_of(&cluster, name);
        does_not_start(&[role, "--config", &config, "-X", &data], &["not formatted", "seawall format"]);
        does_not_start(&[role, "--config", &config, "-X", "node.id=7"], &["belongs to", "7"]);
    }
    assert!(is_empty(&empty), "a directory that was refused was written to");
    let id = uuid::Uuid::new_v4().to_string();
    let config = config_of(&cluster, NodeName::broker(1));
    does_not_start(&["format", "broker", "--cluster-id", &id, "--config", &config], &["formatted already"]);
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn a_taken_port_and_a_directory_in_use() {
    let cluster = TestCluster::start(PROGRAM, &small());
    let broker = NodeName::broker(1);
    let config = config_of(&cluster, broker);
    does_not_start(&["broker", "--config", &config], &["in use"]);
    let id = cluster.cluster.state().expect("readable").cluster_id.to_string();
    let other = cluster.folder().join("other");
    let data = format!("data.dir={}", other.display());
    let format = ["format", "broker", "--cluster-id", &id, "--config", &config, "-X", &data, "-X", "node.id=2"];
    assert!(run(&format).status.success());
    let address = cluster.node(broker).address();
    does_not_start(&["broker", "--config", &config, "-X", &data, "-X", "node.id=2"], &[&address, "client.listen"]);
    assert_eq!(cluster.state_of(broker), NodeState::Running);
}

/// Runs a broker of its own directory against the cluster until it gives up; returns what it said.
fn intruder(cluster: &TestCluster, cluster_id: &str, node_id: &str) -> String {
    let config = config_of(cluster, NodeName::broker(1));
    let dir = cluster.folder().join("intruder");
    let settings = [
        format!("data.dir={}", dir.display()),
        format!("node.id={node_id}"),
        "client.listen=127.0.0.1:0".to_owned(),
        "internal.listen=127.0.0.1:0".to_owned(),
        "metrics.listen=127.0.0.1:0".to_owned(),
        "client.advertise=127.0.0.1:9".to_owned(),
        "internal.advertise=127.0.0.1:9".to_owned(),
    ];
    let overrides: Vec<&str> = settings.iter().flat_map(|setting| ["-X", setting.as_str()]).collect();
    let format = [&["format", "broker", "--cluster-id", cluster_id, "--config", &config][..], &overrides].concat();
    assert!(run(&format).status.success());
    let output = run(&[&["broker", "--config", &config][..], &overrides].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "{:?}: {said}", output.status);
    said
}

#[test]
fn a_second_broker_with_the_same_id_gives_up() {
    let cluster = cluster();
    let id = cluster.cluster.state().expect("readable").cluster_id.to_string();
    let said = intruder(&cluster, &id, "1");
    assert!(said.contains("DuplicateBroker"), "{said}");
    refused(&cluster, &["topic", "describe", "nowhere"], 4, &["nowhere"]);
}

#[test]
fn a_broker_of_another_cluster_gives_up() {
    let cluster = cluster();
    let said = intruder(&cluster, &uuid::Uuid::new_v4().to_string(), "2");
    assert!(said.contains("WrongCluster") || said.contains("cluster"), "{said}");
    refused(&cluster, &["topic", "describe", "nowhere"], 4, &["nowhere"]);
}
