//! Which way is open, and how long a message takes: sites, cuts in one or both directions, links that flap.
//!
//! Never: carries anything. Invariant: a cut ends by itself; nobody needs to remember to heal it. A cut that held up
//! nothing is not reported as felt.

use super::plan::NetPlan;
use crate::chaos::random::Random;
use protocol::ids::{BrokerId, Millis};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Period of a flapping link: open for one half, closed for the other.
pub(super) const FLAP_MS: Millis = 100;

/// Somebody who sends: brokers first, then controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Site(pub(super) usize);

#[derive(Debug, Clone, Copy, Default)]
struct Way {
    cut_until: Millis,
    flaps_until: Millis,
    /// Which fault did it last.
    cause: u64,
}

#[derive(Debug)]
pub(super) struct Network {
    plan: NetPlan,
    brokers: usize,
    /// Data centre of each site.
    dcs: Vec<u32>,
    /// From each site to each.
    ways: Vec<Vec<Way>>,
    /// Faults that have held up a message since somebody asked.
    felt: RefCell<BTreeSet<u64>>,
}

impl Network {
    pub(super) fn new(plan: NetPlan, brokers: &[u32], controllers: &[u32]) -> Self {
        let dcs: Vec<u32> = brokers.iter().chain(controllers).copied().collect();
        let ways = vec![vec![Way::default(); dcs.len()]; dcs.len()];
        Self { plan, brokers: brokers.len(), dcs, ways, felt: RefCell::default() }
    }

    pub(super) fn broker(&self, id: BrokerId) -> Site {
        Site(usize::try_from(id.0).unwrap_or(1).saturating_sub(1))
    }

    pub(super) fn controller(&self, number: usize) -> Site {
        Site(self.brokers + number)
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = Site> + use<> {
        (0..self.dcs.len()).map(Site)
    }

    pub(super) fn dc(&self, site: Site) -> u32 {
        self.dcs[site.0]
    }

    /// Nothing passes from one to the other until then, because of the fault with this number.
    pub(super) fn cut(&mut self, from: Site, to: Site, until: Millis, cause: u64) {
        let way = &mut self.ways[from.0][to.0];
        (way.cut_until, way.cause) = (way.cut_until.max(until), cause);
    }

    /// Half of the time nothing passes, because of the fault with this number.
    pub(super) fn flap(&mut self, from: Site, to: Site, until: Millis, cause: u64) {
        let way = &mut self.ways[from.0][to.0];
        (way.flaps_until, way.cause) = (way.flaps_until.max(until), cause);
    }

    /// Faults that have held up a message since this was last asked.
    pub(super) fn take_felt(&mut self) -> BTreeSet<u64> {
        std::mem::take(self.felt.get_mut())
    }

    pub(super) fn heal(&mut self) {
        self.ways.iter_mut().flatten().for_each(|way| *way = Way::default());
    }

    /// When the way is open again; None: it is open now.
    pub(super) fn blocked(&self, from: Site, to: Site, now: Millis) -> Option<Millis> {
        let way = self.ways[from.0][to.0];
        let half = FLAP_MS / 2;
        let closed = way.flaps_until > now && now % FLAP_MS < half;
        let cut = (way.cut_until > now).then_some(way.cut_until);
        let until = cut.or_else(|| closed.then(|| now - now % FLAP_MS + half));
        if until.is_some() {
            self.felt.borrow_mut().insert(way.cause);
        }
        until
    }

    /// How long a message takes that is not lost.
    pub(super) fn delay(&self, from: Site, to: Site, rng: &mut Random) -> Millis {
        let far = if self.dc(from) == self.dc(to) { 0 } else { self.plan.far_ms };
        far + if rng.below(1_000) < self.plan.late { rng.between(50, 3_000) } else { rng.between(1, self.plan.near_ms) }
    }

    /// A message that stands alone (a request, an answer, a heartbeat) arrives after that; None: it is lost.
    pub(super) fn send(&self, from: Site, to: Site, now: Millis, rng: &mut Random) -> Option<Millis> {
        let lost = self.blocked(from, to, now).is_some() || rng.below(1_000) < self.plan.loss;
        (!lost).then(|| self.delay(from, to, rng))
    }

    /// Whether a request that arrived comes a second time.
    pub(super) fn repeats(&self, rng: &mut Random) -> bool {
        rng.below(1_000) < self.plan.twice
    }

    /// Ends loss, repetition and lateness.
    pub(super) fn calm(&mut self) {
        (self.plan.loss, self.plan.twice, self.plan.late) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_holds_one_way_and_ends() {
        let plan = NetPlan { near_ms: 2, far_ms: 5, loss: 0, twice: 0, late: 0 };
        let mut net = Network::new(plan, &[0, 1], &[0]);
        let (a, b) = (net.broker(BrokerId(1)), net.broker(BrokerId(2)));
        net.cut(a, b, 100, 7);
        assert_eq!((net.blocked(a, b, 99), net.blocked(a, b, 100), net.blocked(b, a, 50)), (Some(100), None, None));
        net.flap(b, a, 1_000, 8);
        assert_eq!((net.blocked(b, a, 310), net.blocked(b, a, 360)), (Some(350), None));
        let mut rng = Random::new(1);
        assert!((0..50).all(|_| net.delay(a, b, &mut rng) >= 6));
        assert_eq!(net.take_felt(), [7, 8].into());
        assert_eq!(net.take_felt(), [].into());
        net.heal();
        assert_eq!((net.blocked(b, a, 310), net.controller(0)), (None, Site(2)));
    }
}
