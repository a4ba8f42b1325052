//! Which faults happen, in which order, for how long: from the seed alone.
//!
//! Pure. Each round holds one fault and, more often than not, a second that overlaps it. Every class comes up before any
//! comes up again, so a run of enough rounds has them all.

use super::net::DCS;
use crate::chaos::random::Random;
use deploy::dev::layout::NodeName;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// These processes die; every unsynced byte of theirs with them.
    Kill(&'static str, Vec<NodeName>),
    /// A process is frozen.
    Pause(&'static str, NodeName),
    /// A data centre is cut off from the others.
    CutDc(u32),
    /// What a data centre sends to the others is lost; it still hears them.
    CutDcOneWay(u32),
    /// Two nodes cannot reach one another; both reach everyone else.
    CutPair(&'static str, NodeName, NodeName),
    /// Every line between data centres is slow, ms each way.
    Delay(u64),
    /// Every line between data centres loses packets, of a thousand.
    Loss(u64),
    /// A data centre is cut off and joined again, over and over.
    Flap(u32),
}

/// A fault, and perhaps another that begins while it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// In order of beginning; they end in the same order. A cut pair is the first.
    pub faults: Vec<Fault>,
    /// How long each lasts by itself, ms.
    pub hold_ms: u64,
    /// Quiet after it, ms.
    pub quiet_ms: u64,
}

/// Classes of faults.
pub const CLASSES: [&str; 12] = [
    "kill-broker",
    "kill-controller",
    "pause-broker",
    "pause-controller",
    "cut-dc",
    "cut-dc-one-way",
    "cut-broker-pair",
    "cut-controller-pair",
    "wan-delay",
    "wan-loss",
    "power-loss-dc",
    "flapping-dc",
];

/// The class of all processes dying at once; once a run.
pub const EVERYTHING: &str = "power-loss-everywhere";

impl Fault {
    /// Its class.
    pub fn class(&self) -> &'static str {
        match self {
            Fault::Kill(class, _) | Fault::Pause(class, _) | Fault::CutPair(class, ..) => class,
            Fault::CutDc(_) => "cut-dc",
            Fault::CutDcOneWay(_) => "cut-dc-one-way",
            Fault::Delay(_) => "wan-delay",
            Fault::Loss(_) => "wan-loss",
            Fault::Flap(_) => "flapping-dc",
        }
    }

    /// Whether it acts on the lines between data centres: two of these would undo one another.
    pub fn on_lines(&self) -> bool {
        matches!(self, Fault::CutDc(_) | Fault::CutDcOneWay(_) | Fault::Delay(_) | Fault::Loss(_) | Fault::Flap(_))
    }

    /// The processes that it kills or freezes.
    pub fn processes(&self) -> Vec<NodeName> {
        match self {
            Fault::Kill(_, nodes) => nodes.clone(),
            Fault::Pause(_, node) => vec![*node],
            _ => vec![],
        }
    }

    /// Whether the two can overlap.
    fn goes_with(&self, other: &Fault) -> bool {
        let shared = self.processes().iter().any(|node| other.processes().contains(node));
        let pairs = matches!((self, other), (Fault::CutPair(..), Fault::CutPair(..)));
        let lines = self.on_lines() && other.on_lines();
        !(shared || pairs || lines)
    }
}

fn fault(class: &str, random: &mut Random) -> Fault {
    let dc = u32::try_from(random.between(1, u64::from(DCS))).unwrap_or(1);
    let next = dc % DCS + 1;
    match class {
        "kill-broker" => Fault::Kill("kill-broker", vec![NodeName::broker(dc)]),
        "kill-controller" => Fault::Kill("kill-controller", vec![NodeName::controller(dc)]),
        "power-loss-dc" => Fault::Kill("power-loss-dc", vec![NodeName::controller(dc), NodeName::broker(dc)]),
        "pause-broker" => Fault::Pause("pause-broker", NodeName::broker(dc)),
        "pause-controller" => Fault::Pause("pause-controller", NodeName::controller(dc)),
        "cut-broker-pair" => Fault::CutPair("cut-broker-pair", NodeName::broker(dc), NodeName::broker(next)),
        "cut-controller-pair" => {
            Fault::CutPair("cut-controller-pair", NodeName::controller(dc), NodeName::controller(next))
        }
        "cut-dc" => Fault::CutDc(dc),
        "cut-dc-one-way" => Fault::CutDcOneWay(dc),
        "wan-delay" => Fault::Delay(random.between(25, 100)),
        "wan-loss" => Fault::Loss(random.between(10, 200)),
        _ => Fault::Flap(dc),
    }
}

/// An endless order of rounds.
#[derive(Debug)]
pub struct Plan {
    random: Random,
    ahead: Vec<&'static str>,
}

impl Plan {
    /// The order of a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), ahead: vec![] }
    }

    fn class(&mut self) -> &'static str {
        if self.ahead.is_empty() {
            self.ahead = self.random.shuffled(&CLASSES);
        }
        self.ahead.pop().unwrap_or(CLASSES[0])
    }

    /// The next round.
    pub fn round(&mut self) -> Round {
        let class = self.class();
        let first = fault(class, &mut self.random);
        let mut faults = vec![first];
        if self.random.chance(60) {
            let class = *self.random.one_of(&CLASSES);
            let second = fault(class, &mut self.random);
            if faults[0].goes_with(&second) {
                faults.push(second);
            }
        }
        // A pair is cut first: whom it must hold for something to flow in it is known only before the other fault, and a
        // line that is cut or a process that is dead would keep every packet from it.
        faults.sort_by_key(|fault| !matches!(fault, Fault::CutPair(..)));
        Round { faults, hold_ms: self.random.between(2_000, 6_000), quiet_ms: self.random.between(1_000, 5_000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_class_comes_up_before_any_comes_again_and_the_seed_says_all() {
        for seed in 0..100 {
            let mut plan = Plan::new(seed);
            for _ in 0..3 {
                let classes: BTreeSet<_> = CLASSES.iter().map(|_| plan.class()).collect();
                assert_eq!(classes, CLASSES.into_iter().collect());
            }
            let rounds = |seed| {
                let mut plan = Plan::new(seed);
                (0..CLASSES.len()).map(|_| plan.round()).collect::<Vec<_>>()
            };
            let all: BTreeSet<_> = rounds(seed).iter().flat_map(|round| &round.faults).map(Fault::class).collect();
            assert_eq!(all, CLASSES.into_iter().collect());
            assert_eq!(rounds(seed), rounds(seed));
            assert!(rounds(seed).iter().any(|round| round.faults.len() == 2));
        }
    }

    #[test]
    fn a_pair_is_cut_before_anything_else_happens_in_its_round() {
        let mut plan = Plan::new(1);
        let pair = |fault: &Fault| matches!(fault, Fault::CutPair(..));
        let rounds: Vec<_> = (0..1_000).map(|_| plan.round()).collect();
        assert!(rounds.iter().any(|round| round.faults.len() == 2 && pair(&round.faults[0])));
        assert!(!rounds.iter().any(|round| round.faults.iter().skip(1).any(pair)));
    }
}
