//! Which faults a run makes, in which order. Pure: from a seed and sizes to a list.
//!
//! Invariants of a plan: every role dies at least as often as asked; everything dies at once at least once; after each
//! round every node is started again, so that the run can always end with a whole cluster; the directed rounds
//! ([`Round::OneByOne`], [`Round::LongControllerOutage`]) bring about what chance would rarely bring: an election from
//! the ELR, and a snapshot sent to a controller that fell behind.

use super::random::Random;
use deploy::dev::layout::{NodeName, Role};

/// What happens between two times of quiet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Round {
    /// These die at once and come back after the pause, in this order.
    Kill {
        /// Who.
        nodes: Vec<NodeName>,
        /// How long they stay away, ms.
        down_ms: u64,
    },
    /// This one freezes and goes on.
    Pause {
        /// Who.
        node: NodeName,
        /// For how long, ms.
        for_ms: u64,
    },
    /// Every process dies at the same moment: power is lost everywhere. All come back.
    KillAll {
        /// The order in which they are started.
        order: Vec<NodeName>,
    },
    /// The brokers die one after another, so that ISRs shrink below the rule and the ELR fills; the last to die comes
    /// back last.
    OneByOne {
        /// In the order of dying.
        brokers: Vec<NodeName>,
        /// Between two deaths, ms.
        gap_ms: u64,
    },
    /// A controller stays away until the others have compacted what it misses.
    LongControllerOutage {
        /// Who.
        node: NodeName,
    },
}

impl Round {
    /// Its class as the history names it.
    pub fn class(&self) -> &'static str {
        match self {
            Round::Kill { .. } => "kill",
            Round::Pause { .. } => "pause",
            Round::KillAll { .. } => "power-loss-everywhere",
            Round::OneByOne { .. } => "brokers-one-by-one",
            Round::LongControllerOutage { .. } => "long-controller-outage",
        }
    }

    /// Who dies in it.
    pub fn deaths(&self, everyone: &[NodeName]) -> Vec<NodeName> {
        match self {
            Round::Kill { nodes, .. } => nodes.clone(),
            Round::Pause { .. } => vec![],
            Round::KillAll { .. } => everyone.to_vec(),
            Round::OneByOne { brokers, .. } => brokers.clone(),
            Round::LongControllerOutage { node } => vec![*node],
        }
    }
}

/// How large a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Least kills in all.
    pub kills: usize,
    /// Least kills of each role.
    pub kills_of_role: usize,
    /// Rounds in which everything dies at once.
    pub power_losses: usize,
    /// Directed rounds of each kind.
    pub directed: usize,
    /// Freezes.
    pub pauses: usize,
}

/// A plan for these nodes.
pub fn plan(random: &mut Random, nodes: &[NodeName], size: Size) -> Vec<Round> {
    let of = |role: Role| nodes.iter().copied().filter(|node| node.role == role).collect::<Vec<_>>();
    let (controllers, brokers) = (of(Role::Controller), of(Role::Broker));
    let mut rounds = Vec::new();
    for _ in 0..size.power_losses {
        rounds.push(Round::KillAll { order: random.shuffled(nodes) });
    }
    for _ in 0..size.directed {
        rounds.push(Round::OneByOne { brokers: random.shuffled(&brokers), gap_ms: random.between(800, 3500) });
        rounds.push(Round::LongControllerOutage { node: *random.one_of(&controllers) });
    }
    for _ in 0..size.pauses {
        rounds.push(Round::Pause { node: *random.one_of(nodes), for_ms: random.between(200, 5000) });
    }
    let short = |rounds: &[Round], role: Role| {
        let deaths = rounds.iter().flat_map(|round| round.deaths(nodes)).filter(|node| node.role == role).count();
        size.kills_of_role.saturating_sub(deaths)
    };
    for (role, members) in [(Role::Controller, &controllers), (Role::Broker, &brokers)] {
        for _ in 0..short(&rounds, role) {
            rounds.push(Round::Kill { nodes: vec![*random.one_of(members)], down_ms: random.between(0, 4000) });
        }
    }
    while rounds.iter().map(|round| round.deaths(nodes).len()).sum::<usize>() < size.kills {
        let mut victims = vec![*random.one_of(&brokers)];
        if random.chance(40) {
            victims.push(*random.one_of(&controllers));
        }
        if random.chance(20) {
            victims.push(*random.one_of(&brokers));
        }
        victims.sort();
        victims.dedup();
        rounds.push(Round::Kill { nodes: random.shuffled(&victims), down_ms: random.between(0, 4000) });
    }
    random.shuffled(&rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_holds_what_was_asked_whatever_the_seed() {
        let nodes: Vec<NodeName> = (1..=3).flat_map(|id| [NodeName::controller(id), NodeName::broker(id)]).collect();
        let size = Size { kills: 30, kills_of_role: 5, power_losses: 2, directed: 1, pauses: 3 };
        for seed in 0..200 {
            let rounds = plan(&mut Random::new(seed), &nodes, size);
            let deaths: Vec<NodeName> = rounds.iter().flat_map(|round| round.deaths(&nodes)).collect();
            assert!(deaths.len() >= 30);
            for role in [Role::Controller, Role::Broker] {
                assert!(deaths.iter().filter(|node| node.role == role).count() >= 5, "seed {seed}: {role}");
            }
            assert_eq!(rounds.iter().filter(|round| matches!(round, Round::KillAll { .. })).count(), 2);
            assert_eq!(rounds.iter().filter(|round| matches!(round, Round::Pause { .. })).count(), 3);
            assert_eq!(rounds, plan(&mut Random::new(seed), &nodes, size));
        }
    }
}
