//! A whole run: a cluster over three data centres, clients of every sort, faults for some minutes, heal, a healthy window,
//! everything read again, every replica's and every controller's log compared, and the checker's verdict.
//!
//! Owns the order of these. The clients are in [`super::scene`], the end is in [`super::end`]. All of this is the inner half,
//! a client in the network that [`super::outer`] made.

use super::Failure;
use super::end;
use super::nemesis::Nemesis;
use super::net::{Net, sh};
use super::nodes::{Nodes, all, bootstrap};
use super::plan::Plan;
use super::scene::{CHECKED, CUT, Scene, TOPICS};
use super::wan::WanHandle;
use crate::chaos::read_back;
use crate::chaos::tape::{self, Tape};
use crate::chaos::workload::Shared;
use crate::checker::Rules;
use crate::checker::event::Phase;
use crate::cluster::with_planted;
use crate::wait::hold_fault;
use protocol::planted::Bug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How soon after the heal every partition takes a record: from FAULTS, I23.
const LIVENESS: Duration = Duration::from_secs(30);

/// How long nothing goes wrong at the end, while clients go on.
const HEALTHY: Duration = Duration::from_secs(20);

/// How soon an acknowledged record is seen by every read of the healthy window: the longest time for which a leader that
/// was deposed answers (L at [`RTT_MS`] is 4 s), and a second. Reads are judged once the window has lasted so long.
const RECENCY: Duration = Duration::from_secs(5);

/// The round trip between data centres that the cluster is told to expect: the longest delay that is planned, both ways.
const RTT_MS: u32 = 200;

/// What a run is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The plan's seed.
    pub seed: u64,
    /// How long faults go on.
    pub minutes: f64,
    /// The node program, with the storage that loses power.
    pub program: PathBuf,
    /// A deliberate mistake in every node: the run must not be green then.
    pub planted: Option<Bug>,
}

/// Whether this machine lets us make namespaces; why not.
///
/// # Errors
/// The refusal.
pub fn permitted() -> Result<(), Failure> {
    let name = format!("r3-{}-try", std::process::id());
    sh("ip", &["netns", "add", &name])?;
    sh("ip", &["netns", "delete", &name])?;
    for tool in ["nft", "iptables-legacy"] {
        sh(tool, &["--version"])?;
    }
    Ok(())
}

/// The cluster, laid out, started and ready.
///
/// # Errors
/// When the harness fails, or a node does not become ready.
pub fn cluster(net: u32, program: &Path, folder: &Path, settings: &[&str]) -> Result<Nodes, Failure> {
    let mut nodes = Nodes::lay_out(Net::of(net), program, folder, settings)?;
    nodes.start(&all())?;
    nodes.wait_ready()?;
    Ok(nodes)
}

/// A runtime for the clients.
///
/// # Errors
/// When threads cannot be had.
pub fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

/// The inner half of `run`.
///
/// # Errors
/// When the harness fails, or a law was broken: a node that died by itself breaks one too.
///
/// # Panics
/// When a client does, or what is on disk cannot be read.
pub fn inner(net: u32, folder: &Path, wish: &Wish) -> Result<(), Failure> {
    // The router decides about every packet between data centres: its program comes first.
    let mut router = WanHandle::start(&Net::of(net), &current()?, wish.seed)?;
    let rtt = format!("\"max.inter.dc.rtt.ms\" = {RTT_MS}");
    let settings = ["\"storage\" = \"power-loss\"", rtt.as_str()];
    let program = wish.planted.map(|bug| with_planted(bug, &wish.program.to_string_lossy(), folder));
    let program = program.unwrap_or_else(|| wish.program.clone());
    let mut nodes = cluster(net, &program, folder, &settings)?;
    for topic in [CHECKED, CUT] {
        nodes.cli(&[
            "topic",
            "create",
            topic.topic,
            "--partitions",
            &topic.partitions.to_string(),
            "--replicas",
            "3",
        ])?;
    }
    let ns = |time: Duration| u64::try_from(time.as_nanos()).ok();
    let rules = Rules { liveness_ns: ns(LIVENESS), recency_ns: ns(RECENCY), ..tape::rules() };
    let tape = Tape::begin(&folder.join("run.history"), "ring3", wish.seed, rules, &TOPICS);
    let shared = Arc::new(Shared::new(tape));
    let runtime = runtime()?;
    let scene = Scene::open(&runtime, &shared, nodes.cluster_id(), wish.seed);
    let lasted = faults(wish, &mut nodes, &mut router, &shared);
    let healed = Nemesis { nodes: &mut nodes, wan: &mut router, tape: &shared.tape }.heal();
    // Whatever went wrong while faults lasted: what the clients were told until then is judged all the same. Nobody waits
    // for such a cluster to come back, so nothing is said of a heal from which it would have to.
    let lasted = lasted.map_err(|why| format!("while faults lasted: {why}"));
    let back = match (lasted, healed) {
        (Ok(()), Ok(())) => {
            shared.tape.phase(Phase::Healed);
            comes_back(&nodes, &runtime)
        }
        (lasted, healed) => {
            let whys: Vec<_> = [lasted.err(), healed.err()].into_iter().flatten().collect();
            Err(whys.join("; "))
        }
    };
    if back.is_ok() {
        shared.tape.phase(Phase::HealthyBegins);
        hold_fault(HEALTHY);
        shared.tape.phase(Phase::HealthyEnds);
    }
    let told = scene.close(&runtime);
    end::judge(&nodes, &runtime, &shared, &told, back)
}

/// After the heal every node is ready and every partition whole.
fn comes_back(nodes: &Nodes, runtime: &Runtime) -> Result<(), Failure> {
    nodes.wait_ready()?;
    for topic in TOPICS {
        runtime.block_on(read_back::becomes_whole(&bootstrap(), topic.topic))?;
    }
    Ok(())
}

fn current() -> Result<String, Failure> {
    Ok(std::env::current_exe().map_err(|error| error.to_string())?.to_string_lossy().into_owned())
}

fn faults(wish: &Wish, nodes: &mut Nodes, wan: &mut WanHandle, shared: &Shared) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs_f64(wish.minutes * 60.0);
    let mut plan = Plan::new(wish.seed);
    let mut nemesis = Nemesis { nodes, wan, tape: &shared.tape };
    let mut rounds: usize = 0;
    while Instant::now() < until {
        nemesis.round(&plan.round())?;
        rounds += 1;
        if rounds.is_multiple_of(super::plan::CLASSES.len()) {
            nemesis.everything()?;
            nemesis.nodes.wait_ready()?;
        }
    }
    eprintln!("{rounds} rounds, {} acknowledged", shared.acks());
    Ok(())
}
