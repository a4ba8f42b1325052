//! A traced run from its beginning to the proof: a cluster under `strace`, records and metadata written to it, and what its
//! nodes said judged by what the kernel saw.
//!
//! Owns: the run, and the run as a ground for planted bugs. Never: calls it a success where nothing can be traced.

use super::probe::{self, Seen};
use super::proof::{Claim, Proof};
use crate::cluster::{TestCluster, Wish};
use crate::mutants::{self, Ground};
use crate::wait::{eventually, hold_fault};
use bytes::Bytes;
use deploy::dev::layout::{Node, NodeName, Role};
use protocol::planted::Bug;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use uuid::Uuid;

/// The tracer: one run for a bug, which takes real processes and several seconds.
pub(crate) const GROUND: Ground = Ground { ring: "system calls", bugs: BUGS, look, parallel: false, runs_max: 1 };

const BUGS: &[Bug] = &[Bug::PartitionSync, Bug::RaftAppendSync, Bug::MissingDirectoryFsync, Bug::AnswerBeforeSync];

/// Acknowledgements and topics of a run on the ground.
const HUNT: (u64, u64) = (300, 5);

/// Partitions of the topic that is written to.
pub const PARTITIONS: u32 = 3;

/// Long enough for an end mark of its own, which is one more write among those that are judged.
const IDLE: Duration = Duration::from_millis(1_500);

/// What a traced run gave.
#[derive(Debug)]
pub struct Run {
    /// About acknowledgements of records.
    pub records: Proof,
    /// About what was said of topics.
    pub metadata: Proof,
    /// Files of records, on all brokers.
    pub segments: usize,
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn partitions(cluster: &TestCluster) -> Vec<Value> {
    let told = json(&cluster.cli_ok(&["topic", "describe", "proven", "-o", "json"]));
    told["topics"][0]["partitions"].as_array().cloned().unwrap_or_default()
}

/// The partitions once all have all replicas in their ISR.
fn settled(cluster: &TestCluster) -> Vec<Value> {
    eventually("every replica is in the ISR", || {
        let now = partitions(cluster);
        let full = |p: &Value| p["isr"].as_array().is_some_and(|isr| isr.len() == 3) && p["leader"].is_u64();
        if now.len() == PARTITIONS as usize && now.iter().all(full) { Ok(now) } else { Err(format!("{now:?}")) }
    })
}

/// Creates a topic and returns its id.
fn create(cluster: &TestCluster, name: &str, more: &[&str]) -> Uuid {
    let arguments = ["topic", "create", name, "--replicas", "3", "-o", "json"];
    let told = json(&cluster.cli_ok(&[&arguments[..], more].concat()));
    let id = told["topic_id"].as_str().and_then(|text| Uuid::parse_str(text).ok());
    id.unwrap_or_else(|| panic!("no id in {told}"))
}

/// What each leader's client was told: base offsets by correlation, by partition.
type Told = Vec<(NodeName, BTreeMap<u64, u64>)>;

fn write(cluster: &TestCluster, topic: Uuid, acks: u64) -> Told {
    let each = acks.div_ceil(PARTITIONS.into());
    let leaders: Vec<NodeName> = settled(cluster).iter().map(leader).collect();
    let addresses: Vec<String> = leaders.iter().map(|name| cluster.node(*name).address()).collect();
    let topic = Bytes::copy_from_slice(topic.as_bytes());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    // Two rounds with a rest between, so that logs go idle and begin again.
    let round = |round: u64| {
        let count = if round == 0 { each / 2 } else { each - each / 2 };
        let streams = addresses.iter().enumerate().map(|(p, address)| {
            let p = u32::try_from(p).expect("few partitions");
            probe::produce(address, topic.clone(), p, u64::from(p) * each + round * (each / 2), count)
        });
        runtime.block_on(futures_util::future::try_join_all(streams)).unwrap_or_else(|error| panic!("{error}"))
    };
    let mut told = round(0);
    hold_fault(IDLE);
    for (told, more) in told.iter_mut().zip(round(1)) {
        told.extend(more);
    }
    leaders.into_iter().zip(told).collect()
}

fn leader(partition: &Value) -> NodeName {
    NodeName::broker(partition["leader"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("it is led"))
}

/// An acknowledgement of acks=all rests on every member of the ISR, here on all three.
fn record_claims(cluster: &TestCluster, topic: Uuid, told: &Told, seen: &Seen) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (partition, (leader, told)) in told.iter().enumerate() {
        let partition = u32::try_from(partition).expect("few partitions");
        let sent = seen.acknowledged(cluster.node(*leader));
        let brokers = cluster.of_role(Role::Broker);
        let held: Vec<_> = brokers.iter().map(|b| probe::batches(&cluster.data_dir(*b), topic, partition)).collect();
        for (correlation, offset) in told {
            let (said, sent) = sent.get(correlation).copied().expect("the trace holds what the client was told");
            assert_eq!(said, *offset, "another offset was sent than the client was told");
            let places = held.iter().filter_map(|places| places.get(offset)).cloned().collect();
            claims.push(Claim { what: format!("{partition}@{offset}"), sent, places, needed: 3 });
        }
    }
    claims
}

/// Whatever a controller says of a topic to anybody but its voters rests on a majority of them.
fn metadata_claims(cluster: &TestCluster, topics: &[Uuid], seen: &Seen) -> Vec<Claim> {
    let names = cluster.of_role(Role::Controller);
    let nodes: Vec<&Node> = names.iter().map(|name| cluster.node(*name)).collect();
    let claim = |topic: &Uuid| {
        let sent = seen.first_said(&nodes, topic.as_bytes()).expect("the creation of a topic was answered");
        let places = names.iter().filter_map(|name| probe::entry(&cluster.data_dir(*name), topic.as_bytes())).collect();
        Claim { what: format!("topic {topic}"), sent, places, needed: 2 }
    };
    topics.iter().map(claim).collect()
}

/// Runs a cluster of `program` under the tracer, with bugs planted in its nodes.
///
/// # Errors
/// Why nothing can be traced here.
///
/// # Panics
/// When the cluster does not do what it must for anything to be shown.
pub fn traced(program: &str, bugs: &[Bug], acks: u64, topics: u64) -> Result<Run, String> {
    if let Some(why) = probe::refused() {
        return Err(why);
    }
    let folder = tempfile::Builder::new().prefix("seawall-traces-").tempdir().expect("a temporary folder");
    let program = probe::traced(program, folder.path(), bugs);
    let cluster = TestCluster::start(&program.to_string_lossy(), &Wish::default());
    let config = ["--partitions", "3", "--config", "segment.bytes=65536", "--config", "flush.policy=sync"];
    let proven = create(&cluster, "proven", &config);
    let before = settled(&cluster);
    let told = write(&cluster, proven, acks);
    let topics: Vec<Uuid> =
        (0..topics).map(|n| create(&cluster, &format!("topic-{n}"), &["--partitions", "1"])).collect();
    assert_eq!(
        partitions(&cluster),
        before,
        "the run is invalid: the ISR changed, so who an answer rests on is not known"
    );

    cluster.kill_all();
    let traces = eventually("the traces are complete", || probe::complete(folder.path()));
    assert_eq!(traces.len(), cluster.names().len(), "a trace of each node");
    let ports: Vec<u16> = cluster.nodes().iter().map(|node| node.port).collect();
    let seen = probe::read(&traces, &ports).unwrap_or_else(|error| panic!("{error}"));
    let claims = record_claims(&cluster, proven, &told, &seen);
    let files: BTreeSet<&PathBuf> = claims.iter().flat_map(|claim| &claim.places).map(|place| &place.path).collect();
    let records = seen.disks.prove(&claims);
    let metadata = seen.disks.prove(&metadata_claims(&cluster, &[&[proven], &topics[..]].concat(), &seen));
    let syncs = seen.disks.syncs();
    for (what, proof) in [("acknowledgements", &records), ("metadata writes", &metadata)] {
        let (claims, places, mismatches) = (proof.claims, proof.places, proof.mismatches.len());
        eprintln!("{claims} {what}, {places} places covered by {syncs} syncs, {mismatches} mismatches");
        proof.mismatches.iter().take(3).for_each(|mismatch| eprintln!("  {mismatch}"));
    }
    Ok(Run { records, metadata, segments: files.len() })
}

/// The program whose nodes can be told which bugs to have: beside this one.
fn program() -> Result<String, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.with_file_name("seawall-power-loss");
    if path.is_file() { Ok(path.to_string_lossy().into_owned()) } else { Err(format!("{} is missing", path.display())) }
}

fn look(bug: Bug, _run: u64) -> mutants::Seen {
    // What is seen without a bug is no sight of the bug.
    static HEALTHY: OnceLock<Result<Option<String>, String>> = OnceLock::new();
    let run = |bugs: &[Bug]| program().and_then(|program| traced(&program, bugs, HUNT.0, HUNT.1));
    match run(&[bug]).map(|run| verdict(&run)) {
        Err(why) => mutants::Seen::NotPermitted(why),
        Ok(None) => mutants::Seen::Nothing,
        Ok(Some(by)) => match HEALTHY.get_or_init(|| run(&[]).map(|run| verdict(&run))) {
            Ok(None) => mutants::Seen::By(by),
            Ok(Some(_)) => mutants::Seen::Nothing,
            Err(why) => mutants::Seen::NotPermitted(why.clone()),
        },
    }
}

/// The name of what the trace shows to be wrong.
fn verdict(run: &Run) -> Option<String> {
    let of = |proof: &Proof, name: &str| (!proof.mismatches.is_empty()).then(|| name.to_owned());
    of(&run.records, "ack-follows-its-syncs").or_else(|| of(&run.metadata, "metadata-follows-its-syncs"))
}
