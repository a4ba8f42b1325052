//! What is wrong with the links between hosts, and whether anybody felt it.
//!
//! Owns: which fault lies on which link, which faults met traffic, which links are used, how often hosts dial. Never:
//! holds anything up itself (turmoil does) or decides what goes wrong (`nemesis` does).
//! Invariant: a fault counts as felt only once bytes or a dial went onto a link that it lay on at that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::{Handle, Id};

/// A direction of a link: from, to.
pub type Way = (IpAddr, IpAddr);

/// What a fault does to a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoilt {
    /// What goes this way is lost.
    Cut,
    /// It is kept until the fault ends.
    Held,
    /// It takes up to so long.
    Slow(Duration),
}

/// A link was used lately if it was within this time: four heartbeats, so that it will most likely be used again.
const LATELY: Duration = Duration::from_millis(400);

/// In each of so many of these spans in a row something must have gone a way that is used steadily.
const STEADY: (u128, u64) = (250, 6);

/// See the module's text.
#[derive(Debug, Default)]
pub struct Links(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Which host's life runs on which runtime.
    lives: Vec<(Id, IpAddr)>,
    /// Faults on each way.
    faults: BTreeMap<Way, BTreeMap<u32, Spoilt>>,
    felt: BTreeSet<u32>,
    used: BTreeMap<Way, Used>,
    /// Dials of a host within the second that has begun, and the most of any.
    dials: BTreeMap<IpAddr, (u64, u64)>,
    most: (u64, Option<IpAddr>),
}

/// When a way was used last, and in how many spans in a row up to then.
#[derive(Debug, Clone, Copy)]
struct Used {
    last: Duration,
    spans: u64,
}

impl Used {
    fn span(at: Duration) -> u128 {
        at.as_millis() / STEADY.0
    }

    fn again(self, at: Duration) -> Self {
        let spans = match Self::span(at).saturating_sub(Self::span(self.last)) {
            0 => self.spans,
            1 => self.spans + 1,
            _ => 1,
        };
        Self { last: at, spans }
    }
}

impl Links {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }

    /// The present runtime is a life of the host of this name.
    pub fn begins(&self, name: &str) {
        let (id, host) = (Handle::current().id(), turmoil::lookup(name));
        let mut state = self.state();
        state.lives.retain(|(_, known)| *known != host);
        state.lives.push((id, host));
    }

    /// The host whose runtime is the present one.
    pub fn here(&self) -> Option<IpAddr> {
        let id = Handle::current().id();
        self.state().lives.iter().find(|(known, _)| *known == id).map(|(_, host)| *host)
    }

    /// A fault begins on these ways.
    pub fn spoil(&self, ways: &[Way], fault: u32, how: Spoilt) {
        let mut state = self.state();
        for way in ways {
            state.faults.entry(*way).or_default().insert(fault, how);
        }
    }

    /// A fault ends; the ways on which it lay.
    pub fn mend(&self, fault: u32) -> Vec<Way> {
        let mut state = self.state();
        let freed = state.faults.iter_mut().filter_map(|(way, faults)| faults.remove(&fault).map(|_| *way));
        freed.collect()
    }

    /// What lies on a way now.
    pub fn on(&self, way: Way) -> Vec<Spoilt> {
        self.state().faults.get(&way).map(|faults| faults.values().copied().collect()).unwrap_or_default()
    }

    /// What goes one of these ways is lost.
    pub fn is_cut(&self, ways: &[Way]) -> bool {
        ways.iter().any(|way| self.on(*way).contains(&Spoilt::Cut))
    }

    /// Bytes, or a dial, go this way. A host has no link to itself.
    pub fn goes(&self, way: Way, at: Duration) {
        if way.0 == way.1 {
            return;
        }
        let state = &mut *self.state();
        let used = state.used.get(&way).map_or(Used { last: at, spans: 1 }, |used| used.again(at));
        state.used.insert(way, used);
        if let Some(faults) = state.faults.get(&way) {
            state.felt.extend(faults.keys());
        }
    }

    /// A host dials.
    pub fn dials(&self, from: IpAddr, at: Duration) {
        let state = &mut *self.state();
        let (second, count) = state.dials.entry(from).or_default();
        if *second != at.as_secs() {
            (*second, *count) = (at.as_secs(), 0);
        }
        *count += 1;
        if *count > state.most.0 {
            state.most = (*count, Some(from));
        }
    }

    /// Most dials of one host within a second, and whose.
    pub fn most_dials(&self) -> (u64, Option<IpAddr>) {
        self.state().most
    }

    /// Faults that met traffic since the last call.
    pub fn felt(&self) -> BTreeSet<u32> {
        std::mem::take(&mut self.state().felt)
    }

    /// Ways on which something went lately.
    pub fn used_lately(&self, now: Duration) -> BTreeSet<Way> {
        let state = self.state();
        let lately = state.used.iter().filter(|(_, used)| used.last + LATELY >= now);
        lately.map(|(way, _)| *way).collect()
    }

    /// Ways on which something has gone all the time, and most likely goes on.
    pub fn used_steadily(&self, now: Duration) -> Vec<Way> {
        let state = self.state();
        let steady =
            |used: &&Used| used.spans >= STEADY.1 && Used::span(now).saturating_sub(Used::span(used.last)) <= 1;
        state.used.iter().filter(|(_, used)| steady(used)).map(|(way, _)| *way).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_felt_by_traffic_on_its_own_ways_while_it_lasts() {
        let [a, b, c] = [1, 2, 3].map(|n| IpAddr::from([10, 0, 0, n]));
        let (links, second) = (Links::default(), Duration::from_secs(1));
        links.spoil(&[(a, b)], 7, Spoilt::Cut);
        links.spoil(&[(a, b), (b, a)], 8, Spoilt::Held);
        links.goes((a, c), second);
        assert!(links.felt().is_empty());
        links.goes((b, a), second);
        assert_eq!(links.felt(), BTreeSet::from([8]));
        assert!(links.is_cut(&[(b, a), (a, b)]) && !links.is_cut(&[(b, a)]));
        links.goes((a, b), second);
        assert_eq!(links.felt(), BTreeSet::from([7, 8]));
        assert_eq!(links.mend(7), [(a, b)]);
        links.goes((a, b), second);
        assert_eq!(links.felt(), BTreeSet::from([8]));
        assert!(!links.is_cut(&[(a, b)]));
    }

    #[test]
    fn a_link_is_used_for_a_while_and_dials_are_counted_by_the_second() {
        let [a, b] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let links = Links::default();
        links.goes((b, a), Duration::from_secs(1));
        assert_eq!(links.used_lately(Duration::from_secs(1) + LATELY), BTreeSet::from([(b, a)]));
        assert!(links.used_lately(Duration::from_secs(1) + LATELY * 2).is_empty());
        let at = |ms| Duration::from_millis(ms);
        (1..STEADY.1).for_each(|n| links.goes((b, a), at(1_000 + n * 250)));
        assert_eq!(links.used_steadily(at(2_300)), [(b, a)]);
        assert!(links.used_steadily(at(2_900)).is_empty(), "it has ended");
        links.goes((b, a), at(3_000));
        assert!(links.used_steadily(at(3_000)).is_empty(), "it has only begun again");
        for ms in [100, 200, 1_100, 1_200, 1_300, 2_000] {
            links.dials(a, Duration::from_millis(ms));
        }
        assert_eq!(links.most_dials(), (3, Some(a)));
    }
}
