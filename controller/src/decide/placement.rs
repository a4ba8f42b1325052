//! Where new partitions live. Deterministic: (brokers, loads, spec, seed) decide everything.
//!
//! Constraints: distinct brokers, only those handed in (active ones). Goals, each only among what the former leave:
//! 1. a partition's replicas spread over data centres (counts differ by one at most while brokers last), so RF covers
//!    min(RF, data centres); among data centres the least loaded for its size comes first;
//! 2. then over racks within a data centre, likewise;
//! 3. then the topic's replicas are even over brokers, then all replicas of the cluster;
//! 4. the first replica (preferred leader) of a new partition is a member that is first at most once more in this topic
//!    than any other member, and among those the one that is first least often in the cluster, so that many small topics spread
//!    evenly too.
//!
//! Ties fall by the seed. A small data centre is used as much as a large
//! one: goal 1 wins over load, on purpose, since a copy per data centre is what survives losing one.

use protocol::ids::BrokerId;
use protocol::locality::Locality;
use std::collections::{BTreeMap, BTreeSet};

/// A broker that may take replicas.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Which.
    pub(super) id: BrokerId,
    /// Where it stands.
    pub(super) locality: Locality,
    /// Replicas of this topic it has.
    pub(super) in_topic: usize,
    /// Partitions of this topic of which it is the first replica.
    pub(super) first_in_topic: usize,
    /// Replicas of all topics it has.
    pub(super) in_cluster: usize,
    /// Partitions of all topics of which it is the first replica, whoever leads them now: a broker that was away leads
    /// nothing and gets its own back.
    pub(super) first_in_cluster: usize,
}

/// Replicas for `partitions` (by number), `replicas` each, in preference order. `replicas` must not exceed the
/// candidates; the caller has refused that by name.
pub(super) fn place(
    candidates: Vec<Candidate>,
    partitions: std::ops::Range<u32>,
    replicas: usize,
    seed: u64,
) -> Vec<Vec<BrokerId>> {
    let replicas = replicas.min(candidates.len());
    let mut map = Map::new(candidates);
    let mut placed: Vec<_> = partitions.map(|number| map.place_one(number, replicas, seed)).collect();
    map.even_firsts(&mut placed);
    placed.into_iter().map(|members| members.into_iter().map(|i| map.candidates[i].id).collect()).collect()
}

/// A data centre or a rack: how many candidates stand there, and what they carry.
#[derive(Debug, Clone, Copy, Default)]
struct Area {
    brokers: usize,
    in_topic: usize,
    in_cluster: usize,
    in_partition: usize,
}

impl Area {
    /// Replicas of this partition, then load per broker in thousandths.
    fn cost(&self) -> (usize, usize, usize) {
        let per_broker = |load: usize| load * 1_000 / self.brokers.max(1);
        (self.in_partition, per_broker(self.in_topic), per_broker(self.in_cluster))
    }
}

/// Candidates with the areas they stand in.
struct Map {
    candidates: Vec<Candidate>,
    /// Index into `dcs` and `racks` by candidate.
    seats: Vec<(usize, usize)>,
    dcs: Vec<Area>,
    racks: Vec<Area>,
}

impl Map {
    fn new(candidates: Vec<Candidate>) -> Self {
        let (mut dc_numbers, mut rack_numbers) = (BTreeMap::new(), BTreeMap::new());
        let mut seats = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            let dcs = dc_numbers.len();
            let dc = *dc_numbers.entry(candidate.locality.data_centre()).or_insert(dcs);
            let racks = rack_numbers.len();
            seats.push((dc, *rack_numbers.entry(&candidate.locality).or_insert(racks)));
        }
        let (dcs, racks) = (vec![Area::default(); dc_numbers.len()], vec![Area::default(); rack_numbers.len()]);
        let mut map = Self { candidates: candidates.clone(), seats, dcs, racks };
        for (index, candidate) in candidates.iter().enumerate() {
            map.areas(index, |area| {
                area.brokers += 1;
                area.in_topic += candidate.in_topic;
                area.in_cluster += candidate.in_cluster;
            });
        }
        map
    }

    fn areas(&mut self, candidate: usize, mut change: impl FnMut(&mut Area)) {
        let (dc, rack) = self.seats[candidate];
        change(&mut self.dcs[dc]);
        change(&mut self.racks[rack]);
    }

    fn place_one(&mut self, number: u32, replicas: usize, seed: u64) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::with_capacity(replicas);
        for slot in 0..replicas {
            let cost = |index: &usize| {
                let (c, (dc, rack)) = (&self.candidates[*index], self.seats[*index]);
                let lot = lot(seed, number, slot, c.id);
                (self.dcs[dc].cost(), self.racks[rack].cost(), c.in_topic, c.in_cluster, lot)
            };
            let best = (0..self.candidates.len()).filter(|i| !chosen.contains(i)).min_by_key(cost);
            let Some(best) = best else { break };
            chosen.push(best);
            self.areas(best, |area| area.in_partition += 1);
        }
        for member in &chosen {
            self.candidates[*member].in_topic += 1;
            self.candidates[*member].in_cluster += 1;
            self.areas(*member, |area| {
                area.in_partition = 0;
                area.in_topic += 1;
                area.in_cluster += 1;
            });
        }
        self.lead(&mut chosen, number, seed);
        chosen
    }

    /// Puts the member first that is first least often; the others follow by lot, so that the leaderships of one broker
    /// that dies fall on different ones.
    fn lead(&mut self, chosen: &mut [usize], number: u32, seed: u64) {
        let candidates = &mut self.candidates;
        chosen.sort_by_key(|i| lot(seed ^ u64::MAX, number, 0, candidates[*i].id));
        let load = |at: &usize| (candidates[chosen[*at]].first_in_topic, candidates[chosen[*at]].first_in_cluster, *at);
        if let Some(first) = (0..chosen.len()).min_by_key(load) {
            chosen[..=first].rotate_right(1);
            candidates[chosen[0]].first_in_topic += 1;
            candidates[chosen[0]].first_in_cluster += 1;
        }
    }

    /// Swaps first places until none would help. Ends, since each swap lowers the sum of the squares of the counts.
    fn even_firsts(&mut self, placed: &mut [Vec<usize>]) {
        let mut swapped = true;
        while std::mem::take(&mut swapped) {
            for members in placed.iter_mut() {
                let count = |member: usize| self.candidates[member].first_in_topic;
                let Some(least) = (0..members.len()).min_by_key(|at| (count(members[*at]), *at)) else { continue };
                if count(members[0]) > count(members[least]) + 1 {
                    self.candidates[members[0]].first_in_topic -= 1;
                    self.candidates[members[least]].first_in_topic += 1;
                    members.swap(0, least);
                    swapped = true;
                }
            }
        }
    }
}

/// A number that depends on all its arguments (splitmix64's finish).
fn lot(seed: u64, number: u32, slot: usize, broker: BrokerId) -> u64 {
    let mut x = seed ^ (u64::from(number) << 32) ^ u64::from(broker.0).rotate_left(17) ^ (slot as u64) << 24;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Distinct data centres these localities cover.
pub(super) fn data_centres<'l>(localities: impl Iterator<Item = &'l Locality>) -> usize {
    localities.map(Locality::data_centre).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests;
