//! What a seed's run consists of: topology, topics, which faults at which rates, how the network is, what clients do.
//!
//! Everything is drawn from the seed alone (swarm: most runs lack most faults, so that the ones they have happen often).
//! Never: changes while a run goes on.

use super::faults::Fault;
use super::stories::Story;
use crate::chaos::random::Random;
use protocol::ids::Millis;

/// Fewest faulty milliseconds of a run.
const FAULTY_MS: u64 = 46_000;
/// Shortest run: what heals sooner goes on quietly until then.
const RUN_MS: u64 = 60_000;

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// Partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replicas: u32,
    /// Configs set at its creation.
    pub configs: Vec<(String, String)>,
    /// The most careful policy: nothing acknowledged under acks=all is ever lost.
    pub is_sync: bool,
    /// Members that the durability rule asks for.
    pub min_isr: u32,
}

/// How messages travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetPlan {
    /// One way within a data centre, at most, ms.
    pub near_ms: Millis,
    /// One way between data centres, added, ms.
    pub far_ms: Millis,
    /// Requests, answers and heartbeats that are lost, in a thousand.
    pub loss: u64,
    /// Requests that arrive twice, in a thousand.
    pub twice: u64,
    /// Messages that take much longer, in a thousand.
    pub late: u64,
}

/// What applications do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadPlan {
    /// Time between two writes of one producer, at most, ms.
    pub pause_ms: Millis,
    /// Producers.
    pub producers: u32,
    /// Consumers.
    pub consumers: u32,
    /// Writes in a hundred with acks 0 and with acks 1.
    pub acks_0_and_1: (u64, u64),
    /// Requests in a hundred that go to a broker which need not lead.
    pub stale: u64,
    /// Time between two commands of operators, at most, ms; None: there are none.
    pub admin_ms: Option<Millis>,
}

/// What a run consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Everything random comes from it.
    pub seed: u64,
    /// Declared round trip, ms: timers derive from it.
    pub rtt_ms: Millis,
    /// Data centre of each broker, from broker 1.
    pub brokers: Vec<u32>,
    /// Data centre of each controller.
    pub controllers: Vec<u32>,
    /// Topics.
    pub topics: Vec<TopicPlan>,
    /// Faults and their weights.
    pub faults: Vec<(Fault, u64)>,
    /// Time between two faults, ms.
    pub fault_pause_ms: (Millis, Millis),
    /// How messages travel.
    pub net: NetPlan,
    /// What applications do.
    pub load: LoadPlan,
    /// Clock rates in thousandths, of brokers, then of controllers.
    pub clocks: Vec<u64>,
    /// Numbers of the buggify points that are on.
    pub buggify: u64,
    /// Consumers delete what they have read, now and then.
    pub deletes: bool,
    /// Every copy may be damaged: then a typed error or a partition without a leader is right, and wrong data never.
    pub hopeless: bool,
    /// Milliseconds with faults.
    pub faulty_ms: Millis,
    /// Milliseconds in which everything must heal.
    pub heal_ms: Millis,
    /// The run goes on quietly until then.
    pub until_ms: Millis,
}

impl Plan {
    /// The run of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Random::new(seed ^ 0x5EED_0F1A_C0DE_D00D);
        let dcs = *rng.one_of(&[1, 3, 3, 3, 2]);
        let count = rng.between(3, 5).max(u64::from(dcs));
        let brokers: Vec<u32> = (0..count).map(|n| u32::try_from(n).unwrap_or(0) % dcs).collect();
        let controllers = (0..3).map(|n| n % dcs).collect();
        let topics = topics(&mut rng, &brokers, dcs);
        let faults = faults(&mut rng);
        let sites = brokers.len() + 3;
        let skewed = rng.chance(30);
        let clocks = (0..sites).map(|_| if skewed { rng.between(960, 1_040) } else { 1_000 }).collect();
        let (low, high) = *rng.one_of(&[(800, 5_000), (1_500, 8_000), (200, 2_500)]);
        let net = NetPlan {
            near_ms: rng.between(2, 6),
            far_ms: if dcs == 1 { 0 } else { rng.between(0, 8) },
            loss: *rng.one_of(&[0, 5, 10, 30]),
            twice: *rng.one_of(&[0, 0, 10, 100]),
            late: *rng.one_of(&[0, 0, 5, 20]),
        };
        let acks = *rng.one_of(&[(0, 0), (5, 10), (10, 20), (0, 30)]);
        let load = LoadPlan {
            pause_ms: *rng.one_of(&[60, 120, 200]),
            producers: u32::try_from(rng.between(2, 4)).unwrap_or(1),
            consumers: u32::try_from(rng.between(0, 2)).unwrap_or(1),
            acks_0_and_1: acks,
            stale: *rng.one_of(&[2, 10, 30]),
            admin_ms: rng.chance(60).then(|| *rng.one_of(&[2_000, 6_000])),
        };
        // Most points are off in most runs: a run with all of them on would look like every other.
        let buggify = rng.number() & rng.number() & !Story::POINTS;
        let mut plan = Self {
            seed,
            rtt_ms: 20,
            brokers,
            controllers,
            topics,
            faults,
            fault_pause_ms: (low, high),
            net,
            load,
            clocks,
            buggify,
            deletes: rng.chance(50),
            hopeless: false,
            faulty_ms: FAULTY_MS,
            heal_ms: 90_000,
            until_ms: RUN_MS,
        };
        if let Some(story) = Story::of(seed) {
            story.direct(&mut plan);
        }
        plan
    }

    /// The run of a seed in which nothing protects the last copy.
    #[must_use]
    pub fn hopeless(seed: u64) -> Self {
        let mut plan = Self::of(seed);
        plan.hopeless = true;
        plan.faults.extend([(Fault::Damage, 20), (Fault::DiskReplaced, 2), (Fault::OldDisk, 4), (Fault::PowerCut, 6)]);
        plan
    }

    /// How many data centres there are.
    #[must_use]
    pub fn dcs(&self) -> u32 {
        self.brokers.iter().max().map_or(1, |most| most + 1)
    }
}

fn topics(rng: &mut Random, brokers: &[u32], dcs: u32) -> Vec<TopicPlan> {
    let most = u32::try_from(brokers.len()).unwrap_or(3).min(3);
    let count = rng.between(1, 3);
    let mut topics: Vec<_> = (0..count).map(|n| topic(rng, n, most, dcs)).collect();
    // What the run is about: one topic with three careful replicas is always there.
    if !topics.iter().any(|t| t.is_sync && t.replicas == 3 && t.min_isr == 2) {
        let name = "main".into();
        let configs = configs(rng, "sync", 2, 1);
        let partitions = u32::try_from(rng.between(1, 3)).unwrap_or(1);
        topics.push(TopicPlan { name, partitions, replicas: 3, configs, is_sync: true, min_isr: 2 });
    }
    topics
}

fn topic(rng: &mut Random, number: u64, most: u32, dcs: u32) -> TopicPlan {
    let replicas = *rng.one_of(&[most, most, most, 2, 1]);
    let min_isr = u32::try_from(rng.between(1, u64::from(replicas))).unwrap_or(1);
    let min_dcs = if dcs > 1 && replicas > 1 && rng.chance(25) { 2 } else { 1 };
    let policy = *rng.one_of(&["sync", "sync", "sync", "interval", "os"]);
    TopicPlan {
        name: format!("t{number}"),
        partitions: u32::try_from(rng.between(1, 3)).unwrap_or(1),
        replicas,
        configs: configs(rng, policy, min_isr, min_dcs),
        is_sync: policy == "sync",
        min_isr,
    }
}

fn configs(rng: &mut Random, policy: &str, min_isr: u32, min_dcs: u32) -> Vec<(String, String)> {
    let mut configs = vec![
        ("min.insync.replicas".to_owned(), min_isr.to_string()),
        ("min.insync.dcs".to_owned(), min_dcs.to_string()),
        ("flush.policy".to_owned(), policy.to_owned()),
        ("segment.bytes".to_owned(), "16384".to_owned()),
    ];
    if policy == "interval" {
        configs.push(("flush.interval.ms".to_owned(), rng.between(10, 2_000).to_string()));
    }
    if rng.chance(20) {
        configs.push(("retention.bytes".to_owned(), rng.between(16_384, 65_536).to_string()));
    }
    configs
}

fn faults(rng: &mut Random) -> Vec<(Fault, u64)> {
    let mut chosen = Vec::new();
    for fault in Fault::ALL {
        if rng.chance(35) {
            chosen.push((fault, rng.between(1, 10)));
        }
    }
    // A run without any restart and any change of the active controller shows little.
    chosen.push((Fault::Kill, rng.between(1, 6)));
    chosen.push((Fault::Depose, rng.between(1, 4)));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_differ_by_their_seed_and_by_nothing_else() {
        let plans: Vec<_> = (1..200).map(Plan::of).collect();
        assert!(plans.iter().all(|plan| *plan == Plan::of(plan.seed)));
        for fault in Fault::ALL {
            let with = plans.iter().filter(|p| p.faults.iter().any(|(f, _)| *f == fault)).count();
            assert!(with > 20, "{fault:?} is in {with} of {} plans", plans.len());
        }
        assert!(plans.iter().any(|p| p.dcs() == 1) && plans.iter().any(|p| p.dcs() == 3));
    }
}
