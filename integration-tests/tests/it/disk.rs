//! What happens to disks: the rebuildable cache lost or damaged, the Raft state damaged, a replica wiped, a partition
//! removed, an old copy put back, power lost under records that nobody synced.

use crate::PROGRAM;
use deploy::dev::cluster::NodeState;
use deploy::dev::layout::{NodeName, Role};
use deploy::dev::process::Signal;
use integration_tests::cluster::{TestCluster, Wish};
use integration_tests::damage;
use integration_tests::wait::eventually;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

fn produce(cluster: &TestCluster, topic: &str, range: std::ops::Range<u64>) {
    let input: String = range.map(|number| format!("{number}\n")).collect();
    let output = cluster.cli_with(&["produce", topic], input.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn everything(cluster: &TestCluster, topic: &str) -> BTreeSet<u64> {
    let text = cluster.cli_ok(&["consume", topic, "--from", "earliest", "--until-end"]);
    text.lines().map(|line| line.parse().expect("only numbers were written")).collect()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The first partition of a topic as the metadata has it.
fn partition(cluster: &TestCluster, topic: &str) -> serde_json::Value {
    json(&cluster.cli_ok(&["topic", "describe", topic, "-o", "json"]))["topics"][0]["partitions"][0].clone()
}

fn ids(value: &serde_json::Value) -> BTreeSet<u64> {
    value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).collect()
}

/// Stops a node politely and waits until it is gone.
fn stop(cluster: &TestCluster, name: NodeName) {
    cluster.cluster.signal(name, Signal::TERM).expect("our own process");
    eventually(&format!("{name} has stopped"), || match cluster.state_of(name) {
        NodeState::Stopped => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn the_cache_may_be_lost_or_damaged() {
    let cluster = TestCluster::start(PROGRAM, &Wish::default());
    cluster.cli_ok(&["topic", "create", "events", "--partitions", "3", "--replicas", "3"]);
    produce(&cluster, "events", 0..3_000);
    let broker = NodeName::broker(1);
    let cache = cluster.data_dir(broker).join("cache");

    stop(&cluster, broker);
    std::fs::remove_dir_all(&cache).expect("the cache is there");
    std::fs::create_dir(&cache).expect("the test's own folder");
    cluster.start_nodes(&[broker]);
    assert_eq!(everything(&cluster, "events"), (0..3_000).collect());

    for every in [1, 37, 400] {
        stop(&cluster, broker);
        damage::flip_everywhere(&cache, every);
        cluster.start_nodes(&[broker]);
        produce(&cluster, "events", 3_000..3_100);
        assert_eq!(everything(&cluster, "events"), (0..3_100).collect());
    }
}

/// A controller whose file was damaged while it was away: it must stop with file and position, the others go on, and a
/// fresh one takes its place.
fn damaged_controller(settings: &[&str], damage_it: impl Fn(&TestCluster, NodeName) -> PathBuf) {
    // Damage that a start does not meet is met by the next reading, which is soon here.
    let wish = Wish::default().with(settings).with(&["controller:scrub.interval.ms=500"]);
    let cluster = TestCluster::start(PROGRAM, &wish);
    cluster.cli_ok(&["topic", "create", "needle-in-the-log", "--partitions", "1", "--replicas", "3"]);
    for number in 0..40 {
        let config = format!("retention.ms={}", 700_000_000 + number);
        cluster.cli_ok(&["topic", "alter", "needle-in-the-log", "--config", &config]);
    }
    let victim = NodeName::controller(2);
    cluster.kill(victim);
    let file = damage_it(&cluster, victim);
    let name = file.file_name().expect("a file").to_string_lossy().into_owned();

    cluster.cluster.start(&[victim]).expect("the process starts");
    eventually("the damaged controller has stopped", || match cluster.state_of(victim) {
        NodeState::Stopped => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let said = cluster.log_text(victim);
    let last = said.lines().rev().take(30).collect::<Vec<_>>().join("\n");
    assert!(last.contains(&name) && last.contains("byte"), "neither file nor position is named:\n{last}");
    cluster.cli_ok(&["topic", "create", "others-go-on", "--partitions", "1", "--replicas", "3"]);

    replace(&cluster, victim);
    cluster.cli_ok(&["topic", "create", "whole-again", "--partitions", "1", "--replicas", "3"]);
}

/// Formats the controller's disk anew and puts it in the place of the voter it was.
fn replace(cluster: &TestCluster, name: NodeName) {
    let data = cluster.data_dir(name);
    std::fs::remove_dir_all(&data).expect("the test's own folder");
    let node = cluster.node(name);
    let config = node.config_file(cluster.cluster.root());
    let id = cluster.cluster.state().expect("readable").cluster_id.to_string();
    let directory = uuid::Uuid::new_v4().to_string();
    let config = config.to_string_lossy();
    let arguments =
        ["format", "controller", "--join", "--cluster-id", &id, "--directory-id", &directory, "--config", &config];
    let formatted = Command::new(PROGRAM).args(arguments).output().expect("the program runs");
    assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
    cluster.cluster.start(&[name]).expect("the process starts");
    let voter = format!("{}@{}@{}#{directory}", name.id, node.address(), node.locality());
    let old = format!("{}#{}", name.id, node.directory);
    eventually("the voter is replaced", || {
        let output = cluster.cli(&["quorum", "replace", &old, &voter, "--yes"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    });
    let status = json(&cluster.cli_ok(&["quorum", "status", "-o", "json"]));
    let voters = status["voters"].as_array().cloned().unwrap_or_default();
    assert!(voters.len() == 3 && voters.iter().any(|voter| voter["directory"] == directory), "{status}");
    cluster.cluster.wait_ready(&[name], integration_tests::wait::PATIENCE, |_| ()).expect("the new voter is ready");
}

fn segment_with(cluster: &TestCluster, name: NodeName, needle: &[u8]) -> PathBuf {
    let raft = cluster.data_dir(name).join("raft").join("log");
    let holds = |file: &PathBuf| {
        std::fs::read(file).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    };
    let found =
        damage::files(&raft).into_iter().find(|file| file.extension().is_some_and(|e| e == "log") && holds(file));
    found.expect("a segment of the Raft log holds the topic's name")
}

#[test]
fn a_damaged_raft_log_stops_its_controller_only() {
    damaged_controller(&[], |cluster, victim| {
        let needle = b"needle-in-the-log";
        let file = segment_with(cluster, victim, needle);
        damage::flip_at(&file, needle);
        file
    });
}

#[test]
fn a_damaged_vote_stops_its_controller_only() {
    damaged_controller(&[], |cluster, victim| {
        let file = cluster.data_dir(victim).join("raft").join("vote");
        damage::flip_middle(&file);
        file
    });
}

#[test]
fn a_damaged_snapshot_stops_its_controller_only() {
    damaged_controller(&["controller:snapshot.every=10"], |cluster, victim| {
        let snapshots = cluster.data_dir(victim).join("raft").join("snapshots");
        let file = damage::files(&snapshots).pop().expect("forty changes made a snapshot");
        damage::flip_middle(&file);
        file
    });
}

/// The last member of ISR and ELR comes back with a worse disk than it had: it is never elected, nothing that was
/// acknowledged is lost, and no survivor cuts anything for its sake.
fn last_member_returns_worse(spoil: impl Fn(&TestCluster, NodeName)) {
    let cluster = TestCluster::start(PROGRAM, &Wish::default().with(&["storage=power-loss"]));
    cluster.cli_ok(&["topic", "create", "events", "--partitions", "1", "--replicas", "3"]);
    produce(&cluster, "events", 0..2_000);
    let leader = partition(&cluster, "events")["leader"].as_u64().expect("the partition is led");
    let last = NodeName::broker(u32::try_from(leader).expect("small"));
    let others: Vec<NodeName> = cluster.of_role(Role::Broker).into_iter().filter(|name| *name != last).collect();
    // A copy for the test that puts an old disk back: older than the registration that follows.
    damage::copy(&cluster.data_dir(last), &cluster.folder().join("old-copy"));
    cluster.kill(last);
    cluster.start_nodes(&[last]);
    eventually("everyone is in the ISR", || {
        let now = partition(&cluster, "events");
        if ids(&now["isr"]).len() == 3 { Ok(()) } else { Err(now.to_string()) }
    });
    cluster.cli_ok(&["partition", "elect", "events/0"]);
    produce(&cluster, "events", 2_000..3_000);

    for other in &others {
        cluster.kill(*other);
        eventually("the ISR has shrunk", || {
            let now = partition(&cluster, "events");
            if ids(&now["isr"]).contains(&u64::from(other.id)) { Err(now.to_string()) } else { Ok(()) }
        });
    }
    let before = partition(&cluster, "events");
    assert_eq!(ids(&before["isr"]), BTreeSet::from([leader]), "{before}");
    assert_eq!(ids(&before["elr"]).len(), 1, "{before}");
    cluster.kill(last);
    spoil(&cluster, last);

    cluster.cluster.start(&[last]).expect("the process starts");
    eventually("the spoiled broker has registered and lost its places", || {
        let now = partition(&cluster, "events");
        // Until its death is noticed the old leadership stands; what must not come is a new one.
        assert!(now["leader"] != leader || now["leader_epoch"] == before["leader_epoch"], "{now}");
        let places: BTreeSet<u64> = ids(&now["isr"]).union(&ids(&now["elr"])).copied().collect();
        if places.contains(&leader) { Err(now.to_string()) } else { Ok(()) }
    });
    assert!(partition(&cluster, "events")["leader"].is_null(), "a broker with a worse disk was elected");

    cluster.start_nodes(&others);
    eventually("the partition is led again", || {
        let now = partition(&cluster, "events");
        if now["leader"].is_null() || ids(&now["isr"]).len() < 3 { Err(now.to_string()) } else { Ok(()) }
    });
    assert_eq!(everything(&cluster, "events"), (0..3_000).collect());
}

#[test]
fn an_empty_disk_is_never_elected() {
    last_member_returns_worse(|cluster, name| {
        let data = cluster.data_dir(name);
        std::fs::remove_dir_all(&data).expect("the test's own folder");
        let config = cluster.node(name).config_file(cluster.cluster.root());
        let id = cluster.cluster.state().expect("readable").cluster_id.to_string();
        let arguments = ["format", "broker", "--cluster-id", &id, "--config", &config.to_string_lossy()];
        let formatted = Command::new(PROGRAM).args(arguments).output().expect("the program runs");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
    });
}

#[test]
fn a_deleted_partition_directory_is_never_elected() {
    last_member_returns_worse(|cluster, name| {
        let partitions = cluster.data_dir(name).join("partitions");
        let mut removed = 0;
        for entry in std::fs::read_dir(&partitions).expect("it is there") {
            std::fs::remove_dir_all(entry.expect("readable").path()).expect("the test's own folder");
            removed += 1;
        }
        assert!(removed > 0, "nothing was removed");
    });
}

#[test]
fn a_copy_older_than_the_last_registration_is_never_elected() {
    last_member_returns_worse(|cluster, name| {
        let data = cluster.data_dir(name);
        std::fs::remove_dir_all(&data).expect("the test's own folder");
        damage::copy(&cluster.folder().join("old-copy"), &data);
    });
}

#[test]
fn unsynced_topics_stay_offline_after_a_power_loss_until_an_operator_chooses() {
    let cluster = TestCluster::start(PROGRAM, &Wish::default().with(&["storage=power-loss"]));
    let config = ["--config", "flush.policy=os"];
    cluster.cli_ok(&[&["topic", "create", "fast", "--partitions", "1", "--replicas", "3"][..], &config].concat());
    produce(&cluster, "fast", 0..500);
    cluster.kill_all();
    cluster.start_nodes(&cluster.names());
    eventually("every place has fallen", || {
        let now = partition(&cluster, "fast");
        let places = ids(&now["isr"]).len() + ids(&now["elr"]).len();
        if now["leader"].is_null() && places == 0 { Ok(()) } else { Err(now.to_string()) }
    });
    let status = json(&cluster.cli_or(&["cluster", "status", "-o", "json"], &[0, 3]));
    assert_eq!(status["offline_partitions"], 1, "{status}");

    eventually("an election would know every survivor's end", || {
        let arguments = ["partition", "elect", "fast/0", "--unclean", "--dry-run", "-o", "json"];
        let output = cluster.cli(&arguments);
        let answer = json(&String::from_utf8_lossy(&output.stdout));
        let survivors = answer["results"][0]["survivors"].as_array().cloned().unwrap_or_default();
        let told = survivors.iter().filter(|s| s["answered"] == true && s["log_end"].is_u64()).count();
        if told == 3 { Ok(()) } else { Err(answer.to_string()) }
    });
    cluster.cli_ok(&["partition", "elect", "fast/0", "--unclean", "--now", "--yes"]);
    eventually("the partition takes writes again", || {
        let now = partition(&cluster, "fast");
        if now["leader"].is_null() || ids(&now["isr"]).len() < 2 { Err(now.to_string()) } else { Ok(()) }
    });
    produce(&cluster, "fast", 500..600);
}
