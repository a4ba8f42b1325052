//! Carries out failover scenarios on a dev cluster: breaks a node, measures with [`Probe`], repairs, waits until the
//! cluster is whole, and goes on.
//!
//! Invariant: a fault is made only on a whole cluster (every node ready, every ISR full), so that each sample measures
//! one fault and not the leftovers of the one before. A figure that never comes in is a failure, not a missing sample.

use super::probe::Probe;
use super::report::Report;
use super::scenario::{Figure, Scenario};
use crate::dev::cluster::{Cluster, DevError};
use crate::dev::layout::{NodeName, Role, bootstrap};
use crate::dev::process::Signal;
use crate::limits;
use client::admin::{Admin, NewTopic, wire};
use client::{ClientConfig, Producer, ProducerConfig};
use protocol::timers::Timers;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why the bench stopped.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The dev cluster.
    #[error(transparent)]
    Dev(#[from] DevError),
    /// A request to the cluster.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Something did not come about in time.
    #[error("{what} within {} s", limits::BENCH_PATIENCE.as_secs())]
    Never {
        /// What was waited for.
        what: String,
    },
    /// The cluster cannot show this scenario.
    #[error("scenario {scenario}: {why}")]
    Impossible {
        /// Which.
        scenario: &'static str,
        /// What is missing.
        why: String,
    },
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which faults.
    pub scenarios: Vec<Scenario>,
    /// How often each.
    pub times: u32,
    /// Partitions of the bench's topic.
    pub partitions: u32,
}

/// A bench under way.
struct Bench<'a> {
    cluster: &'a Cluster,
    admin: Admin,
    probe: Probe,
    topic: String,
    partitions: u32,
    session_timeout_ms: u32,
}

/// Runs the plan on a running cluster; `progress` hears a line per fault.
///
/// # Errors
/// [`BenchError`].
pub async fn run(cluster: &Cluster, plan: &Plan, progress: &dyn Fn(&str)) -> Result<Report, BenchError> {
    let bench = Bench::start(cluster, plan).await?;
    let mut report = Report::default();
    for scenario in &plan.scenarios {
        let figures = scenario.figures(bench.session_timeout_ms);
        let mut samples: Vec<Vec<Duration>> = vec![Vec::new(); figures.len()];
        for round in 0..plan.times {
            bench.wait_whole().await?;
            let measured = bench.break_once(*scenario, round).await?;
            let shown: Vec<String> = measured.iter().map(|time| format!("{} ms", time.as_millis())).collect();
            progress(&format!("{} {}/{}: {}", scenario.name(), round + 1, plan.times, shown.join(", ")));
            samples.iter_mut().zip(measured).for_each(|(all, one)| all.push(one));
        }
        for ((figure, target), times) in figures.into_iter().zip(&samples) {
            report.add(*scenario, figure, target, times);
        }
    }
    bench.wait_whole().await?;
    (report.acknowledged, report.failed) = bench.probe.counts();
    bench.admin.delete_topic(&bench.topic).await?;
    Ok(report)
}

impl<'a> Bench<'a> {
    async fn start(cluster: &'a Cluster, plan: &Plan) -> Result<Self, BenchError> {
        let state = cluster.state()?;
        let servers = bootstrap(&state.nodes).join(",");
        let config = ClientConfig::new(&servers).map_err(client::Error::from)?;
        let admin = Admin::new(config.clone()).with_timeout(limits::BENCH_PATIENCE);
        let topic = format!("bench-failover-{}", std::process::id());
        let replicas = state.spec.brokers.min(3);
        let wanted = NewTopic { name: topic.clone(), partitions: plan.partitions, replicas, ..NewTopic::default() };
        admin.create_topic(&wanted, false).await?;
        admin.await_leaders(&topic, limits::BENCH_PATIENCE).await?;
        let config = ProducerConfig::with_client(config).set("linger.ms", "0").map_err(client::Error::from)?;
        let producer = Arc::new(Producer::new(config));
        let probe = Probe::start(&producer, &topic, plan.partitions);
        let rtt = state.spec.settings.iter().rev().find(|setting| setting.key == "max.inter.dc.rtt.ms");
        let timers = rtt.and_then(|rtt| rtt.value.parse().ok()).map_or_else(Timers::default, Timers::from_rtt);
        let session_timeout_ms = u32::try_from(timers.session_timeout_ms).unwrap_or(u32::MAX);
        Ok(Self { cluster, admin, probe, topic, partitions: plan.partitions, session_timeout_ms })
    }

    /// Makes one fault, measures, and repairs it. One time per figure of the scenario.
    async fn break_once(&self, scenario: Scenario, round: u32) -> Result<Vec<Duration>, BenchError> {
        let partition = round % self.partitions;
        let described = self.partition(partition).await?;
        let leader = NodeName::broker(described.leader_id);
        match scenario {
            Scenario::LeaderKill => self.kill_and_measure(&[leader], Figure::NextWrite, partition).await,
            Scenario::LeaderPause => self.pause_and_measure(leader, partition).await,
            Scenario::FollowerKill => {
                let follower = described.isr.iter().find(|broker| **broker != described.leader_id);
                let follower = follower.ok_or_else(|| impossible(scenario, "the ISR has no follower"))?;
                self.kill_and_measure(&[NodeName::broker(*follower)], Figure::AckGap, partition).await
            }
            Scenario::ControllerKill => self.kill_controller().await,
            Scenario::DcKill => {
                let controller = self.active_controller().await?;
                let (broker, partition) = self.leader_beside(controller).await?;
                self.kill_and_measure(&[controller, broker], Figure::NextWrite, partition).await
            }
        }
    }

    async fn kill_and_measure(
        &self,
        victims: &[NodeName],
        figure: Figure,
        partition: u32,
    ) -> Result<Vec<Duration>, BenchError> {
        self.probe.fault();
        for victim in victims {
            self.cluster.signal(*victim, Signal::KILL)?;
        }
        let recovered = self.recovered(partition).await?;
        self.restart(victims)?;
        self.wait_whole().await?;
        Ok(vec![match figure {
            Figure::NextWrite | Figure::NextTopicCreate => recovered,
            // The whole cycle counts, the victim's return included: nothing that happens on the way may be hidden.
            Figure::AckGap | Figure::WorstAckGap => self.gap(partition),
        }])
    }

    async fn pause_and_measure(&self, leader: NodeName, partition: u32) -> Result<Vec<Duration>, BenchError> {
        self.probe.fault();
        self.cluster.signal(leader, Signal::STOP)?;
        let recovered = self.recovered(partition).await;
        self.cluster.signal(leader, Signal::CONT)?;
        Ok(vec![recovered?])
    }

    async fn kill_controller(&self) -> Result<Vec<Duration>, BenchError> {
        let active = self.active_controller().await?;
        let begin = self.probe.fault();
        self.cluster.signal(active, Signal::KILL)?;
        let name = format!("{}-{}", self.topic, begin.elapsed().as_nanos());
        let wanted = NewTopic { name: name.clone(), partitions: 1, replicas: 1, ..NewTopic::default() };
        self.admin.create_topic(&wanted, false).await?;
        let created = begin.elapsed();
        self.restart(&[active])?;
        self.wait_whole().await?;
        let worst = (0..self.partitions).map(|partition| self.gap(partition)).max().unwrap_or_default();
        self.admin.delete_topic(&name).await?;
        Ok(vec![created, worst])
    }

    fn gap(&self, partition: u32) -> Duration {
        self.probe.windows()[partition as usize].longest_gap(Instant::now())
    }

    fn restart(&self, victims: &[NodeName]) -> Result<(), BenchError> {
        for victim in victims {
            // Signalled already; this waits until the process is gone, so that its ports are free.
            match self.cluster.kill(*victim) {
                Ok(()) | Err(DevError::NotRunning(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.cluster.start(victims)?)
    }

    /// The time from the fault to the partition's first write handed over after it.
    async fn recovered(&self, partition: u32) -> Result<Duration, BenchError> {
        let what = format!("no write to partition {partition} was acknowledged");
        within_patience(what, || self.probe.windows()[partition as usize].recovered()).await
    }

    async fn partition(&self, partition: u32) -> Result<wire::PartitionState, BenchError> {
        let partitions = self.describe().await?;
        let found = partitions.into_iter().find(|state| state.partition == partition);
        found.ok_or_else(|| BenchError::Never { what: format!("partition {partition} was not described") })
    }

    async fn describe(&self) -> Result<Vec<wire::PartitionState>, BenchError> {
        let answer = self.admin.describe_topics(std::slice::from_ref(&self.topic), true).await?;
        Ok(answer.topics.into_iter().flat_map(|topic| topic.partitions).collect())
    }

    async fn active_controller(&self) -> Result<NodeName, BenchError> {
        let cluster = self.admin.describe_cluster().await?;
        Ok(NodeName::controller(cluster.active_controller))
    }

    /// A broker in the controller's data centre, and a partition that it leads.
    async fn leader_beside(&self, controller: NodeName) -> Result<(NodeName, u32), BenchError> {
        let state = self.cluster.state()?;
        let dc = state.node(controller).map(|node| node.dc.clone()).unwrap_or_default();
        let beside = |id: u32| state.node(NodeName::broker(id)).is_some_and(|node| node.dc == dc);
        let partitions = self.describe().await?;
        let led = partitions.iter().find(|partition| beside(partition.leader_id));
        let led = led.ok_or_else(|| impossible(Scenario::DcKill, &format!("no broker of {dc} leads a partition")))?;
        Ok((NodeName::broker(led.leader_id), led.partition))
    }

    /// Waits until every node is ready, every ISR is full and every partition is led by its first replica again.
    async fn wait_whole(&self) -> Result<(), BenchError> {
        let names: Vec<NodeName> = self.cluster.names()?;
        self.cluster.wait_ready(&names, limits::BENCH_PATIENCE, |_| ())?;
        let begin = Instant::now();
        loop {
            let partitions = self.describe().await?;
            let whole =
                |p: &wire::PartitionState| p.isr.len() == p.replicas.len() && p.replicas.first() == Some(&p.leader_id);
            if partitions.len() == self.partitions as usize && partitions.iter().all(whole) {
                return Ok(());
            }
            if partitions.iter().all(|p| p.isr.len() == p.replicas.len()) {
                // Leaders go home by themselves in their own time; asking keeps the bench short.
                let request = wire::ElectLeadersRequest {
                    topic: self.topic.clone(),
                    partition: -1,
                    ..wire::ElectLeadersRequest::default()
                };
                self.admin.elect_leaders(request).await?;
            }
            if begin.elapsed() > limits::BENCH_PATIENCE {
                return Err(BenchError::Never { what: "the cluster did not become whole again".to_owned() });
            }
            tokio::time::sleep(limits::POLL_INTERVAL).await;
        }
    }
}

fn impossible(scenario: Scenario, why: &str) -> BenchError {
    BenchError::Impossible { scenario: scenario.name(), why: why.to_owned() }
}

async fn within_patience<T>(what: String, mut look: impl FnMut() -> Option<T>) -> Result<T, BenchError> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if begin.elapsed() > limits::BENCH_PATIENCE {
            return Err(BenchError::Never { what });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whether the cluster has what every scenario needs.
///
/// # Errors
/// [`BenchError::Impossible`] naming what is missing.
pub fn check(cluster: &Cluster, plan: &Plan) -> Result<(), BenchError> {
    let names = cluster.names()?;
    let count = |role: Role| names.iter().filter(|name| name.role == role).count();
    for scenario in &plan.scenarios {
        let controllers = matches!(scenario, Scenario::ControllerKill | Scenario::DcKill);
        if controllers && count(Role::Controller) < 3 {
            return Err(impossible(*scenario, "needs at least 3 controllers"));
        }
        if count(Role::Broker) < 3 {
            return Err(impossible(*scenario, "needs at least 3 brokers"));
        }
    }
    Ok(())
}
