//! Ring 2: the real services (controllers with the real openraft, brokers, clients; tonic and HTTP/2 between them) on a
//! simulated network, clock and disk, under faults drawn from a seed.
//!
//! Owns: the [`Plan`] of a seed and the run of it. Never: shares anything between two runs.
//! Invariant: everything in a run lives on one thread and takes time, randomness and network from `machine`, so that a
//! seed is one run. Crossing a shell is what this ring can see and ring 1 cannot: encodings, streams, deadlines, queues,
//! Raft itself and its disk.

mod cli;
pub mod clients;
pub mod laws;
pub mod links;
pub mod machine;
pub mod nemesis;
pub mod nodes;
mod panics;
mod process;
pub mod record;
mod report;

pub use cli::main;
pub use process::run_apart;
pub use record::{Broken, Law};
pub use report::Report;

use crate::chaos::random::Random;
use crate::checker::event::Phase;
use clients::{Client, Stage, TOPIC};
use laws::Watch;
use links::Links;
use machine::{EPOCH, Simulated};
use nemesis::Nemesis;
use nodes::{Cluster, Size};
use record::{Record, Shared};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use turmoil::{Builder, Sim};

/// Longest time from the end of the faults until everything was read back.
const MENDED_WITHIN: Duration = Duration::from_secs(90);
/// Longest time for the last faults to be felt.
const FELT_WITHIN: Duration = Duration::from_secs(15);
/// Simulated time between two looks at the laws, ms.
const LOOK_EVERY: u32 = 20;
/// Clients that ask for metadata.
const ASKERS: u32 = 2;

/// What a seed means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    size: Size,
    partitions: u32,
    replicas: u32,
    writers: u32,
    latency: Duration,
    disk: Duration,
    power: bool,
    faults_for: Duration,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let brokers = u32::try_from(random.between(3, 4)).unwrap_or(3);
        let size = Size {
            voters: 3,
            spares: u32::try_from(random.between(1, 2)).unwrap_or(1),
            brokers,
            shards: usize::try_from(random.between(1, 2)).unwrap_or(1),
            rtt_ms: 20,
        };
        Self {
            seed,
            size,
            partitions: u32::try_from(random.between(1, 4)).unwrap_or(1),
            replicas: 3,
            writers: 2,
            latency: Duration::from_millis(random.between(2, 10)),
            disk: Duration::from_millis(random.between(0, 8)),
            power: random.chance(60),
            faults_for: Duration::from_secs(random.between(12, 25)),
        }
    }
}

/// Runs a plan; `aloud` prints what happens. A panic ends the run as a broken law.
#[must_use]
pub fn run(plan: Plan, aloud: bool) -> Report {
    let (record, links) = (Record::new(aloud, MENDED_WITHIN), Arc::<Links>::default());
    let machine = Arc::new(Simulated::new(plan.seed ^ 0x00AC_1111, plan.disk, Arc::clone(&links)));
    protocol::machine::simulate(machine, || Run::new(plan, record, links).go())
}

struct Run {
    plan: Plan,
    record: Shared,
    links: Arc<Links>,
    cluster: Rc<Cluster>,
    stage: Rc<Stage>,
    names: Vec<String>,
}

impl Run {
    fn new(plan: Plan, record: Shared, links: Arc<Links>) -> Self {
        let cluster = Cluster::format(plan.size, record.clone(), Arc::clone(&links));
        record.borrow_mut().watch(TOPIC, plan.partitions);
        Self { plan, record, links, cluster, stage: Rc::default(), names: Vec::new() }
    }

    fn client(&self, host: &str, number: u32) -> Client {
        Client {
            cluster: self.cluster.clone(),
            record: self.record.clone(),
            links: Arc::clone(&self.links),
            host: host.to_owned(),
            number,
            stage: self.stage.clone(),
            partitions: self.plan.partitions,
            seed: self.plan.seed.wrapping_mul(31).wrapping_add(u64::from(number)),
        }
    }

    fn simulation(&self) -> Sim<'static> {
        Builder::new()
            .rng_seed(self.plan.seed)
            .epoch(SystemTime::UNIX_EPOCH + EPOCH)
            .simulation_duration(Duration::from_secs(3_600))
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_micros(200))
            .max_message_latency(self.plan.latency)
            // Ports of dials that did not come about are never freed.
            .ephemeral_ports(10_000..=65_000)
            .tcp_capacity(4_096)
            .build()
    }

    /// Adds a client on a host of its own; its number in the history is its place.
    fn add_client<F: Future<Output = ()> + 'static>(
        &mut self,
        sim: &mut Sim<'_>,
        name: &str,
        work: impl FnOnce(Client) -> F,
    ) {
        self.names.push(name.to_owned());
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let work = work(self.client(name, number));
        sim.client(name, async move {
            work.await;
            Ok(())
        });
    }

    /// Hosts of all nodes and of the clients that meet the faults. The number of clients.
    fn populate(&mut self, sim: &mut Sim<'_>) -> usize {
        for node in self.cluster.nodes.clone() {
            let (cluster, name) = (self.cluster.clone(), node.name.clone());
            sim.host(name.as_str(), move || cluster.clone().run(node.clone()));
        }
        let policy = if self.plan.power { "sync" } else { "interval" };
        let replicas = self.plan.replicas;
        self.add_client(sim, "admin", |client| client.administer(replicas, policy));
        for asker in 1..=ASKERS {
            self.add_client(sim, &format!("asker{asker}"), Client::ask);
        }
        for writer in 1..=self.plan.writers {
            self.add_client(sim, &format!("writer{writer}"), |client| client.write(writer));
        }
        self.add_client(sim, "reader", Client::read_along);
        self.add_client(sim, "voters", Client::change_voters);
        self.names.len()
    }

    fn go(mut self) -> Report {
        let mut sim = self.simulation();
        let clients = self.populate(&mut sim);
        let mut nemesis = Nemesis::new(
            self.plan.seed,
            self.plan.power,
            self.plan.latency,
            (self.cluster.clone(), self.stage.clone(), self.record.clone(), Arc::clone(&self.links)),
            &self.names,
        );
        let mut watch = Watch::default();
        while sim.elapsed() < self.plan.faults_for && self.step(&mut sim, &mut watch) {
            if self.stage.ready.get() {
                let at = sim.elapsed();
                nemesis.act(at, &mut sim);
            }
        }
        // Nothing new goes wrong, but what was planned must be felt.
        let limit = self.plan.faults_for + FELT_WITHIN;
        while sim.elapsed() < limit && self.goes_on() && nemesis.goes_on(sim.elapsed(), &mut sim) {
            self.step(&mut sim, &mut watch);
        }
        if self.goes_on() {
            let at = sim.elapsed();
            nemesis.mend(at, &mut sim);
            self.record.borrow_mut().phase(Phase::Healed);
            self.settle(&mut sim, &mut watch, clients);
        }
        let at = sim.elapsed();
        let panicked = self.record.borrow().broken.iter().any(|broken| broken.law == Law::NobodyPanics);
        if panicked {
            // What a panic left behind is not touched again: to drop it might panic once more.
            std::mem::forget(sim);
        }
        self.judge(at)
    }

    fn goes_on(&self) -> bool {
        self.record.borrow().broken.is_empty()
    }

    /// A tick, and now and then a look. False: the run is over.
    fn step(&self, sim: &mut Sim<'_>, watch: &mut Watch) -> bool {
        let stepped = panics::caught(|| sim.step().map_err(|error| error.to_string()));
        let at = sim.elapsed();
        let broken = match stepped {
            Ok(Ok(_)) => None,
            Ok(Err(why)) => Some((Law::EveryoneStarts, why)),
            Err(panic) => Some((Law::NobodyPanics, panic)),
        };
        let mut record = self.record.borrow_mut();
        if let Some((law, why)) = broken {
            record.broke(law, at, why);
            return false;
        }
        record.ticked(at);
        watch.look_at_leases(at, &self.cluster, &mut record);
        if at.as_millis().is_multiple_of(u128::from(LOOK_EVERY)) {
            watch.look(at, &self.cluster, &self.links, &mut record);
        }
        record.broken.is_empty()
    }

    /// After the faults: every partition takes a record, clients end, the topic becomes whole, everything is read back.
    fn settle(&self, sim: &mut Sim<'_>, watch: &mut Watch, clients: usize) {
        let mended = sim.elapsed();
        let late = |sim: &Sim<'_>| sim.elapsed() > mended + MENDED_WITHIN;
        let calm = mended + Duration::from_secs(3);
        let busy = |sim: &Sim<'_>| sim.elapsed() < calm || !self.record.borrow().all_took();
        while busy(sim) && !late(sim) {
            if !self.step(sim, watch) {
                return;
            }
        }
        self.stage.stop.set(true);
        let last = self.client("last", 1_000);
        sim.client("last", async move {
            last.begins();
            last.wait_until_whole().await;
            last.wait_for_the_others(clients).await;
            last.read_back().await;
            Ok(())
        });
        let done = || self.stage.stopped.get() == clients && self.stage.read.get();
        while !done() && !late(sim) {
            if !self.step(sim, watch) {
                return;
            }
        }
        if !done() {
            let what = format!(
                "{MENDED_WITHIN:?} after every fault was mended {} of {clients} clients have ended, every partition took a \
                 record: {}, read back: {}",
                self.stage.stopped.get(),
                self.record.borrow().all_took(),
                self.stage.read.get()
            );
            self.record.borrow_mut().broke(Law::WorksAgain, sim.elapsed(), what);
        }
    }

    /// A run that a law ended before was not read back: there is nothing to compare.
    fn judge(&self, at: Duration) -> Report {
        let mut record = self.record.borrow_mut();
        let worthless = if record.broken.is_empty() { record.judge(self.plan.seed, at) } else { Vec::new() };
        let mut report = Report {
            hash: record.hash(),
            broken: record.broken.clone(),
            worthless,
            counts: record.counts.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect(),
            faults: record.faults(),
            most_dials: self.links.most_dials().0,
            simulated: at,
        };
        report.insist_on_events();
        report
    }
}
