//! The first things anybody does: start, write, read, kill something, read again, stop, start again.

use crate::PROGRAM;
use deploy::dev::cluster::NodeState;
use deploy::dev::layout::NodeName;
use integration_tests::cluster::{TestCluster, Wish};
use integration_tests::wait::eventually;
use std::collections::BTreeSet;

fn lines(range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(|number| format!("{number}\n")).collect::<String>().into_bytes()
}

fn produce(cluster: &TestCluster, range: std::ops::Range<u64>) {
    let output = cluster.cli_with(&["produce", "events"], &lines(range));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn everything(cluster: &TestCluster) -> BTreeSet<u64> {
    let text = cluster.cli_ok(&["consume", "events", "--from", "earliest", "--until-end"]);
    text.lines().map(|line| line.parse().expect("only numbers were written")).collect()
}

fn active_controller(cluster: &TestCluster) -> NodeName {
    let text = cluster.cli_ok(&["cluster", "status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&text).expect("-o json prints JSON");
    let id = eventually("the active controller is named", || {
        let found = status["active_controller"].as_u64().or_else(|| status["controller"].as_u64());
        found.filter(|id| *id > 0).ok_or_else(|| status.to_string())
    });
    NodeName::controller(u32::try_from(id).expect("a small number"))
}

#[test]
fn a_cluster_gives_every_acknowledged_record_back_whatever_dies() {
    let cluster = TestCluster::start(PROGRAM, &Wish::default());
    cluster.cli_ok(&["topic", "create", "events", "--partitions", "6", "--replicas", "3"]);
    produce(&cluster, 0..2_000);
    assert_eq!(everything(&cluster), (0..2_000).collect());

    let broker = NodeName::broker(1);
    cluster.kill(broker);
    produce(&cluster, 2_000..4_000);
    cluster.start_nodes(&[broker]);

    let controller = active_controller(&cluster);
    cluster.kill(controller);
    produce(&cluster, 4_000..6_000);
    cluster.cli_ok(&["topic", "create", "more", "--partitions", "1", "--replicas", "3"]);
    cluster.start_nodes(&[controller]);
    assert_eq!(everything(&cluster), (0..6_000).collect());

    let killed = cluster.cluster.stop().expect("our own processes");
    assert_eq!(killed, vec![], "a node did not stop by itself");
    assert_eq!(cluster.state_of(broker), NodeState::Stopped);
    cluster.start_nodes(&cluster.names());
    assert_eq!(everything(&cluster), (0..6_000).collect());

    cluster.kill_all();
    cluster.start_nodes(&cluster.names());
    assert_eq!(everything(&cluster), (0..6_000).collect());
}

#[test]
fn records_that_were_trimmed_stay_gone_whoever_leads_next() {
    let cluster = TestCluster::start(PROGRAM, &Wish::default());
    cluster.cli_ok(&["topic", "create", "events", "--partitions", "1", "--replicas", "3"]);
    produce(&cluster, 0..1_000);
    cluster.cli_ok(&["topic", "trim", "events", "--partition", "0", "--before", "400", "--yes"]);
    for broker in (1..=3).map(NodeName::broker) {
        cluster.kill(broker);
        assert_eq!(everything(&cluster), (400..1_000).collect());
        cluster.start_nodes(&[broker]);
    }
}

#[test]
fn a_paused_leader_is_replaced_and_comes_back_as_a_follower() {
    let cluster = TestCluster::start(PROGRAM, &Wish::default());
    cluster.cli_ok(&["topic", "create", "events", "--partitions", "3", "--replicas", "3"]);
    produce(&cluster, 0..1_000);
    let paused = NodeName::broker(2);
    cluster.cluster.signal(paused, deploy::dev::process::Signal::STOP).expect("our own process");
    produce(&cluster, 1_000..2_000);
    assert_eq!(cluster.state_of(paused), NodeState::Paused);
    cluster.cluster.signal(paused, deploy::dev::process::Signal::CONT).expect("our own process");
    eventually("every replica is in the ISR again", || {
        let text = cluster.cli_ok(&["cluster", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if status["under_replicated"] == 0 { Ok(()) } else { Err(text) }
    });
    assert_eq!(everything(&cluster), (0..2_000).collect());
}

#[test]
fn every_node_of_a_quiet_cluster_has_the_same_metadata() {
    let cluster = TestCluster::start(PROGRAM, &Wish::default());
    cluster.cli_ok(&["topic", "create", "events", "--partitions", "4", "--replicas", "3"]);
    eventually("the hashes of all six nodes agree", || {
        let output = cluster.cli(&["metadata", "hash", "-o", "json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let hashes: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let nodes = hashes["nodes"].as_array().or_else(|| hashes.as_array()).cloned().unwrap_or_default();
        let distinct: BTreeSet<String> = nodes
            .iter()
            .map(|node| format!("{} {} {}", node["batch_no"], node["chain_hash"], node["image_hash"]))
            .collect();
        if nodes.len() == 6 && distinct.len() == 1 && output.status.success() { Ok(()) } else { Err(text) }
    });
}
