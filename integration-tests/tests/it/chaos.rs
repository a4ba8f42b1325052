//! No acknowledged record is lost, no offset has two values, no epoch two leaders, ISR members are equal batch by batch
//! below the high watermark: through kills, freezes, restarts and the loss of power everywhere at once.
//!
//! Every process keeps its unsynced bytes in memory, so a kill is a power loss. Small segments, two shards a broker, a
//! snapshot every 200 entries. The seed is printed; `SEAWALL_TEST_SEED` repeats a plan, `SEAWALL_TEST_CHAOS=full` makes
//! the run large.

use crate::{PROGRAM, runtime, size};
use deploy::dev::http;
use deploy::dev::layout::{NodeName, Role};
use integration_tests::chaos::metadata::{self, Story, Watch};
use integration_tests::chaos::nemesis::{self, Done};
use integration_tests::chaos::observe::Counters;
use integration_tests::chaos::plan::{Size, plan};
use integration_tests::chaos::random::Random;
use integration_tests::chaos::read_back::ReadBack;
use integration_tests::chaos::replicas::Heads;
use integration_tests::chaos::tape::{self, Tape, Watched};
use integration_tests::chaos::workload::{self, Shared, Target};
use integration_tests::chaos::{read_back, replicas};
use integration_tests::checker::Findings;
use integration_tests::checker::event::{Phase, Step};
use integration_tests::cluster::{TestCluster, Wish};
use integration_tests::wait::{eventually, hold_fault};
use protocol::planted::Bug;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Partitions of the topic whose every acknowledgement is checked.
const PARTITIONS: u32 = 6;

/// How often counters are read: a life shorter than this is seen by what it logged, not by what it counted.
const SCRAPE: Duration = Duration::from_millis(150);

/// What is judged. The head of the second is dropped all the time; what is left must be right.
const CHECKED: [Watched; 2] = [
    Watched { topic: "checked", partitions: PARTITIONS, retention: false },
    Watched { topic: "trimmed", partitions: 2, retention: true },
];

/// Nothing is promised for this one through a power loss; what its writer was told is kept, and not judged.
const UNCHECKED: [Watched; 1] = [Watched { topic: "unsynced", partitions: 2, retention: false }];

struct Run {
    seed: u64,
    size: Size,
    acks: u64,
    full: bool,
}

fn wanted() -> Run {
    let full = std::env::var("SEAWALL_TEST_CHAOS").is_ok_and(|mode| mode == "full");
    let seed = size("SEAWALL_TEST_SEED", u64::from(std::process::id()));
    if full {
        let size = Size { kills: 30, kills_of_role: 5, power_losses: 2, directed: 2, pauses: 5 };
        return Run { seed, size, acks: 100_000, full };
    }
    let size = Size { kills: 8, kills_of_role: 2, power_losses: 1, directed: 0, pauses: 1 };
    Run { seed, size, acks: 10_000, full }
}

#[test]
fn acknowledged_records_survive_power_loss_anywhere() {
    let run = wanted();
    go(&run, &start(&run, None));
}

/// How many runs may stay green with a rule switched off.
const RUNS_TO_SEE: u64 = 5;

/// How the panic of a run begins whose replicas do not hold the same.
const DIFFER: &str = "replicas differ:";

/// How the panic of a run begins whose committed facts contradict one another.
const LAW_BROKEN: &str = "the committed metadata broke a law";

/// By what the loss of records is known: what the clients were told against what is there, or one disk against another.
const RECORDS_LOST: [&str; 7] = [
    "anomaly lost-write:",
    "anomaly unseen:",
    "anomaly lost-read:",
    "anomaly inconsistent-offsets:",
    "anomaly gap:",
    "anomaly high-watermark-fell:",
    DIFFER,
];

/// By what the loss of committed metadata is known: epochs that fall or are led twice, or a node that refuses to go on with
/// a history that is not its own. Records may be lost by it too.
const METADATA_LOST: [&str; 4] =
    [LAW_BROKEN, "anomaly two-leaders:", "stopping at once: metadata:", "seawall controller halts:"];

#[test]
fn a_missing_partition_sync_is_seen() {
    is_seen(Bug::PartitionSync, &RECORDS_LOST);
}

#[test]
fn a_missing_raft_append_sync_is_seen() {
    is_seen(Bug::RaftAppendSync, &[&RECORDS_LOST[..], &METADATA_LOST].concat());
}

/// What of these signs a failed run shows: in its own words, or in those of a node that stopped itself.
fn signs<'a>(text: &str, cluster: &TestCluster, signs: &[&'a str]) -> Vec<&'a str> {
    let logs: Vec<String> = cluster.names().into_iter().map(|node| cluster.log_text(node)).collect();
    let shown = |sign: &&&str| text.contains(**sign) || logs.iter().any(|log| log.contains(**sign));
    signs.iter().filter(shown).copied().collect()
}

/// Runs with `bug` planted until one fails: a check that stays green without the rule proves nothing about it. By which sign
/// is told; a run that fails without one is taken too.
fn is_seen(bug: Bug, by: &[&str]) {
    let mut run = wanted();
    for _ in 0..RUNS_TO_SEE {
        // That the cluster starts is none of what the bug may break.
        let cluster = start(&run, Some(bug));
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| go(&run, &cluster)));
        if let Err(panic) = outcome {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
            let seen = signs(text, &cluster, by);
            // A cluster that does not come back shows none of the signs: its disks lack what its members must have.
            if !seen.is_empty() || !text.starts_with(INVALID) {
                eprintln!("seen with seed {} by {seen:?}: {text}", run.seed);
                return;
            }
            eprintln!("seed {} proves nothing: {text}", run.seed);
        }
        run.seed += 1;
    }
    panic!("{RUNS_TO_SEE} runs did not see {}", bug.name());
}

fn start(run: &Run, planted: Option<Bug>) -> TestCluster {
    eprintln!("seed {} (SEAWALL_TEST_SEED repeats the plan)", run.seed);
    let settings = [
        "storage=power-loss",
        "broker:shards=2",
        "controller:snapshot.every=200",
        "controller:raft.segment.bytes=65536",
    ];
    let wish = Wish { planted, ..Wish::default() }.with(&settings);
    let cluster = TestCluster::start(PROGRAM, &wish);
    create_topics(&cluster);
    // Heads are dropped in every lull, not once a minute.
    let often = [("retention.check.interval.ms", "300")];
    runtime().block_on(workload::set_for_cluster(&cluster.bootstrap(), &often));
    cluster
}

fn go(run: &Run, cluster: &TestCluster) {
    let runtime = runtime();
    let scene = Scene::open(cluster, &runtime, run.seed);
    let done = scene.run(cluster, &runtime, run);
    let evidence = scene.close(cluster, &runtime);
    judge(run, &done, &evidence);
}

fn create_topics(cluster: &TestCluster) {
    let small = ["--config", "segment.bytes=16384"];
    let partitions = PARTITIONS.to_string();
    let checked = ["topic", "create", "checked", "--partitions", &partitions, "--replicas", "3"];
    cluster.cli_ok(&[&checked[..], &small].concat());
    // The head of this one is dropped all the time; what is left must be right.
    let trimmed =
        ["topic", "create", "trimmed", "--partitions", "2", "--replicas", "3", "--config", "retention.bytes=65536"];
    cluster.cli_ok(&[&trimmed[..], &small].concat());
    // Nothing is promised for this one through a power loss: its places fall unproved.
    let unsynced =
        ["topic", "create", "unsynced", "--partitions", "2", "--replicas", "3", "--config", "flush.policy=os"];
    cluster.cli_ok(&[&unsynced[..], &small].concat());
}

/// Everything that goes on beside the faults.
struct Scene {
    shared: Arc<Shared>,
    unchecked: Arc<Shared>,
    watch: Arc<Mutex<Watch>>,
    counters: Arc<Mutex<Counters>>,
    scraping: Arc<AtomicBool>,
    scraper: std::thread::JoinHandle<()>,
    writers: Vec<tokio::task::JoinHandle<()>>,
    others: Vec<tokio::task::JoinHandle<()>>,
}

/// What is known at the end.
struct Evidence {
    findings: Findings,
    story: Story,
    counters: Counters,
    acks: u64,
    segments: usize,
    head_dropped: bool,
    unknown: u64,
    changes: u64,
}

impl Scene {
    fn open(cluster: &TestCluster, runtime: &tokio::runtime::Runtime, seed: u64) -> Self {
        let _inside = runtime.enter();
        let begin = |run: &str, watched: &[Watched]| {
            let path = cluster.folder().join(format!("{run}.history"));
            Arc::new(Shared::new(Tape::begin(&path, run, seed, tape::rules(), watched)))
        };
        let (shared, unchecked) = (begin("chaos", &CHECKED), begin("unsynced", &UNCHECKED));
        let bootstrap = cluster.bootstrap();
        let mut writers = Vec::new();
        let mut write = |shared: &Arc<Shared>, topic: &str, partitions: u32, writer: u32| {
            let target = Target::new(topic, partitions, 64);
            let producer = target.producer(&bootstrap);
            writers.push(runtime.spawn(workload::write(shared.clone(), producer, target, writer)));
        };
        for writer in 0..3 {
            write(&shared, "checked", PARTITIONS, writer);
        }
        write(&shared, "trimmed", 2, 3);
        // Partitions of this one go offline for good: its writer is cut off at the end.
        let target = Target::new("unsynced", 2, 16);
        let producer = target.producer(&bootstrap);
        let unsynced = runtime.spawn(workload::write(unchecked.clone(), producer, target, 4));

        let watch = Arc::new(Mutex::new(Watch::default()));
        let controllers: Vec<String> =
            cluster.nodes().iter().filter(|n| n.name.role == Role::Controller).map(|n| n.address()).collect();
        let cluster_id = cluster.cluster.state().expect("the cluster is laid out").cluster_id;
        let follower = runtime.spawn(metadata::follow(watch.clone(), controllers, cluster_id));
        let administrator = runtime.spawn(workload::administer(shared.clone(), bootstrap.clone()));

        let counters = Arc::new(Mutex::new(Counters::default()));
        let scraping = Arc::new(AtomicBool::new(true));
        let scraper = scraper(cluster, counters.clone(), scraping.clone());
        let others = vec![unsynced, follower, administrator];
        Self { shared, unchecked, watch, counters, scraping, scraper, writers, others }
    }

    fn run(&self, cluster: &TestCluster, runtime: &tokio::runtime::Runtime, run: &Run) -> Done {
        let mut done = Done::default();
        let behind = || self.shared.changes.load(Ordering::Relaxed);
        for round in plan(&mut Random::new(run.seed), &cluster.names(), run.size) {
            // Some writes between two faults, so that each one finds work under way.
            let begin = self.shared.acks();
            eventually("writes go on between two faults", || {
                let acks = self.shared.acks() - begin;
                if acks >= 200 { Ok(()) } else { Err(format!("{acks} acknowledgements")) }
            });
            let changes = behind();
            let (class, target) = (round.class(), format!("{round:?}"));
            let tape = &self.shared.tape;
            let fault = tape.planned(class, &target);
            tape.fault(fault, class, &target, Step::Begins);
            let before = done.clone();
            nemesis::run(cluster, &round, &mut done, &|| behind() > changes + 2_500);
            if done != before {
                tape.fault(fault, class, &target, Step::Confirmed(format!("{done:?}")));
            }
            tape.fault(fault, class, &target, Step::Ends);
            runtime.block_on(read_back::whole_topic(&cluster.bootstrap(), "checked"));
        }
        eventually("enough was acknowledged", || {
            let acks = self.shared.acks();
            if acks >= run.acks { Ok(()) } else { Err(format!("{acks} of {}", run.acks)) }
        });
        done
    }

    fn close(self, cluster: &TestCluster, runtime: &tokio::runtime::Runtime) -> Evidence {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.unchecked.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for writer in self.writers {
                writer.await.expect("no writer panics");
            }
        });
        let bootstrap = cluster.bootstrap();
        self.shared.tape.phase(Phase::FinalReads);
        let mut read: BTreeMap<_, ReadBack> = BTreeMap::new();
        for topic in ["checked", "trimmed"] {
            read.extend(runtime.block_on(read_back::read_topic(&self.shared.tape, &bootstrap, topic)));
        }
        let ids: Vec<(String, u32, uuid::Uuid)> = ["checked", "trimmed"]
            .into_iter()
            .flat_map(|topic| {
                let (id, led) = runtime.block_on(read_back::whole_topic(&bootstrap, topic));
                let id = uuid::Uuid::from_slice(&id).expect("a topic id is a uuid");
                led.into_iter().map(move |led| (topic.to_owned(), led.partition, id))
            })
            .collect();
        self.scraping.store(false, Ordering::Relaxed);
        self.scraper.join().expect("the scraper only reads");
        self.others.iter().for_each(tokio::task::JoinHandle::abort);
        cluster.kill_all();

        let watch = self.watch.lock().expect("the watch is not poisoned");
        for (partition, epoch, leader) in watch.leaders() {
            self.shared.tape.led(&partition, epoch, leader);
        }
        let segments = compare_replicas(cluster, &ids, &read);
        Evidence {
            acks: self.shared.acks(),
            findings: self.shared.tape.insist(),
            story: watch.story().clone(),
            counters: self.counters.lock().expect("the scraper did not panic").clone(),
            segments,
            head_dropped: read.values().any(|back| back.log_start > 0),
            unknown: self.shared.unknown.load(Ordering::Relaxed),
            changes: self.shared.changes.load(Ordering::Relaxed),
        }
    }
}

/// Reads every process's counters until told to stop.
fn scraper(
    cluster: &TestCluster,
    counters: Arc<Mutex<Counters>>,
    go_on: Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let cluster = cluster.cluster.clone();
    std::thread::spawn(move || {
        while go_on.load(Ordering::Relaxed) {
            let Ok(state) = cluster.state() else { continue };
            for node in &state.nodes {
                let Some(process) = state.process(node.name) else { continue };
                if let Ok(answer) = http::get(&node.metrics(), "/metrics") {
                    counters.lock().expect("nothing panics here").page(node.name, process.pid, &answer.body);
                }
            }
            hold_fault(SCRAPE);
        }
    })
}

/// Compares the logs of every pair of replicas below the offset up to which they were read; returns how many segments
/// there were.
fn compare_replicas(
    cluster: &TestCluster,
    ids: &[(String, u32, uuid::Uuid)],
    read: &BTreeMap<(String, u32), ReadBack>,
) -> usize {
    let brokers: Vec<NodeName> = cluster.of_role(Role::Broker);
    let mut segments = 0;
    for (topic, partition, id) in ids {
        let back = &read[&(topic.clone(), *partition)];
        let upto = back.upto;
        let logs: Vec<_> = brokers
            .iter()
            .map(|broker| {
                let log = replicas::read(&cluster.data_dir(*broker), *id, *partition);
                log.unwrap_or_else(|| panic!("{broker} has no log of {topic}/{partition}"))
            })
            .collect();
        for (broker, log) in brokers.iter().zip(&logs) {
            segments += log.segments;
            // Everyone was in the ISR when the partition was read: everyone holds all of it, durably.
            let end = log.end;
            assert!(end >= upto, "{DIFFER} {topic}/{partition}: {broker} has it up to {end}, it was read up to {upto}");
            let heads = if topic == "trimmed" { Heads::Removed } else { Heads::Kept };
            if let Some(why) = replicas::difference(&logs[0], log, upto, heads) {
                panic!("{DIFFER} {topic}/{partition}: {} and {broker}: {why}", brokers[0]);
            }
        }
    }
    segments
}

fn judge(run: &Run, done: &Done, evidence: &Evidence) {
    let Evidence { findings, story, counters, .. } = evidence;
    let sum = |name: &str| counters.sum(name);
    eprintln!(
        "{} acknowledged, {} read and checked, {} removed by retention, {} duplicates, {} of unknown fate; {done:?}",
        evidence.acks, findings.counts.checked, findings.counts.removed, findings.counts.duplicates, evidence.unknown
    );
    eprintln!(
        "{} metadata changes; facts: {} batches, {} snapshots, {} ELR elections, {} unproved and {} proved restarts, {} unclean",
        evidence.changes,
        story.batches,
        story.snapshots,
        story.elr_elections,
        story.unproved_restarts,
        story.proved_restarts,
        story.unclean_elections
    );
    eprintln!(
        "{} segments, head dropped {}, truncations {}, raft snapshots installed {}, {} lives seen",
        evidence.segments,
        evidence.head_dropped,
        sum("seawall_broker_log_truncations_total"),
        sum("seawall_controller_raft_snapshots_installed_total"),
        counters.lives()
    );
    assert_eq!(story.broken, Vec::<String>::new(), "{LAW_BROKEN}");
    valid(run, done, evidence);
}

/// How the panic of a run begins that broke no promise and yet proves nothing.
const INVALID: &str = "invalid run:";

fn valid(run: &Run, done: &Done, evidence: &Evidence) {
    let Evidence { findings, story, counters, .. } = evidence;
    let must = |holds: bool, what: &str| assert!(holds, "{INVALID} {what}");
    must(evidence.acks >= run.acks, "too few acknowledgements");
    must(findings.counts.checked + findings.counts.removed == evidence.acks, "some acknowledgements were not checked");
    must(done.kills >= run.size.kills && done.power_losses >= run.size.power_losses, "too few kills");
    let of_role = done.controllers.min(done.brokers);
    must(of_role >= run.size.kills_of_role, "too few kills of a role");
    must(evidence.segments > 3 * 8, "no segment was ever rolled");
    must(evidence.head_dropped, "no head was ever dropped");
    must(story.unproved_restarts > 0, "no restart was ever unproved");
    if run.full {
        must(story.elr_elections > 0, "no leader was ever elected from an ELR");
        must(counters.sum("seawall_broker_log_truncations_total") > 0.0, "no log was ever truncated");
        let installed = counters.sum("seawall_controller_raft_snapshots_installed_total");
        must(installed > 0.0, "no snapshot was ever installed");
    }
}
