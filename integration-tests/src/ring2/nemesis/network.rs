//! Faults of links: where they lie, and how the simulated network is told.
//!
//! Invariant: the network is always told what [`Links`](crate::ring2::links::Links) says of a link, so that faults may lie
//! over each other and end in any order.

use super::{Nemesis, Undo};
use crate::ring2::links::{Spoilt, Way};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use turmoil::Sim;

impl Nemesis {
    fn address(&mut self, host: &str, sim: &Sim<'_>) -> IpAddr {
        *self.addresses.entry(host.to_owned()).or_insert_with(|| sim.lookup(host))
    }

    /// Two hosts of which the first sends the second something all the time.
    fn pair(&mut self, at: Duration, sim: &Sim<'_>) -> Option<(String, String)> {
        let names = |(a, b): Way| Some((sim.reverse_lookup(a)?, sim.reverse_lookup(b)?));
        let mut steady: Vec<_> = self.links.used_steadily(at).into_iter().filter_map(names).collect();
        // One that is about to stop will soon have nothing to say.
        steady.retain(|(a, b)| !self.down.contains(a) && !self.down.contains(b));
        if steady.is_empty() {
            return None;
        }
        Some(self.random.one_of(&steady).clone())
    }

    /// A fault lies on these ways from now on, and ends after a while.
    fn lay(
        &mut self,
        (class, target): (&'static str, &str),
        (ways, how): (&[Way], Spoilt),
        lasts: (u64, u64),
        at: Duration,
        sim: &Sim<'_>,
    ) {
        let fault = self.planned(at, class, target);
        self.links.spoil(ways, fault, how);
        ways.iter().for_each(|way| self.tell(*way, sim));
        self.later(at, lasts, Undo::Join(fault));
    }

    /// A fault of links ends.
    pub(super) fn join(&self, fault: u32, sim: &Sim<'_>) {
        self.links.mend(fault).into_iter().for_each(|way| self.tell(way, sim));
    }

    /// Tells the network what lies on a link now.
    fn tell(&self, (a, b): Way, sim: &Sim<'_>) {
        let (there, back) = (self.links.on((a, b)), self.links.on((b, a)));
        let slowest = there.iter().chain(&back).filter_map(|spoilt| match spoilt {
            Spoilt::Slow(time) => Some(*time),
            _ => None,
        });
        sim.set_link_max_message_latency(a, b, slowest.max().unwrap_or(self.latency));
        match (there.contains(&Spoilt::Cut), back.contains(&Spoilt::Cut)) {
            (true, true) => sim.partition(a, b),
            (true, false) => {
                sim.release(a, b);
                sim.partition_oneway(a, b);
            }
            (false, true) => {
                sim.release(a, b);
                sim.partition_oneway(b, a);
            }
            (false, false) if there.contains(&Spoilt::Held) || back.contains(&Spoilt::Held) => sim.hold(a, b),
            (false, false) => sim.release(a, b),
        }
    }

    pub(super) fn one_way(&mut self, at: Duration, sim: &Sim<'_>) {
        let Some((from, to)) = self.pair(at, sim) else { return };
        let way = (self.address(&from, sim), self.address(&to, sim));
        self.lay(("one-way cut", &format!("from {from} to {to}")), (&[way], Spoilt::Cut), (300, 4_000), at, sim);
    }

    pub(super) fn hold(&mut self, at: Duration, sim: &Sim<'_>) {
        let Some((a, b)) = self.pair(at, sim) else { return };
        let ways = self.both_ways(&a, &b, sim);
        self.lay(("held link", &format!("between {a} and {b}")), (&ways, Spoilt::Held), (100, 2_500), at, sim);
    }

    pub(super) fn slow(&mut self, at: Duration, sim: &Sim<'_>) {
        let Some((a, b)) = self.pair(at, sim) else { return };
        let slow = Duration::from_millis(self.random.between(20, 400));
        let ways = self.both_ways(&a, &b, sim);
        let target = format!("{a} and {b} are up to {slow:?} apart");
        self.lay(("slow link", &target), (&ways, Spoilt::Slow(slow)), (500, 6_000), at, sim);
    }

    fn both_ways(&mut self, a: &str, b: &str, sim: &Sim<'_>) -> [Way; 2] {
        let (a, b) = (self.address(a, sim), self.address(b, sim));
        [(a, b), (b, a)]
    }

    pub(super) fn cut(&mut self, at: Duration, sim: &Sim<'_>) {
        let mut side: Vec<String> = self.hosts.clone();
        let chance = self.random.between(10, 50);
        let random = &mut self.random;
        side.retain(|_| random.chance(chance));
        self.part(&side, (300, 6_000), at, sim);
    }

    /// The active controller, with some hosts on its side, which it must not answer.
    pub(super) fn cut_active(&mut self, at: Duration, sim: &Sim<'_>) {
        let Some(node) = self.cluster.active() else { return };
        if self.story.is_some() {
            let mut side = vec![node.name.clone(), "asker1".to_owned()];
            side.extend(self.random.chance(50).then(|| "admin".to_owned()));
            self.part(&side, (1_500, 2_500), at, sim);
            return;
        }
        let chance = self.random.between(20, 60);
        let mut side = vec![node.name.clone()];
        let random = &mut self.random;
        side.extend(self.hosts.iter().filter(|host| !host.starts_with('c') && random.chance(chance)).cloned());
        self.part(&side, (300, 6_000), at, sim);
    }

    fn part(&mut self, side: &[String], lasts: (u64, u64), at: Duration, sim: &Sim<'_>) {
        let other: Vec<String> = self.hosts.iter().filter(|host| !side.contains(host)).cloned().collect();
        self.apart(side, &other, lasts, at, sim);
    }

    /// Cuts two sides off from each other. False: nothing went between them lately, and nothing is cut.
    pub(super) fn apart(
        &mut self,
        side: &[String],
        other: &[String],
        lasts: (u64, u64),
        at: Duration,
        sim: &Sim<'_>,
    ) -> bool {
        let lately = self.links.used_lately(at);
        let mut ways = BTreeSet::new();
        for (a, b) in side.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            ways.extend(self.both_ways(a, b, sim));
        }
        if ways.is_disjoint(&lately) {
            return false;
        }
        let ways: Vec<Way> = ways.into_iter().collect();
        let target = format!("{side:?} off from {other:?}");
        self.lay(("cut", &target), (&ways, Spoilt::Cut), lasts, at, sim);
        true
    }
}
