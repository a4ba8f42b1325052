//! Where new partitions live. Deterministic: (brokers, loads, spec, seed) decide everything.
//!
//! Constraints: distinct brokers, only those handed in (active ones). Goals, each only among what the former leave:
//! 1. a partition's replicas spread over data centres (counts differ by one at most while brokers last), so RF covers
//!    min(RF, data centres);
//! 2. then over racks within a data centre;
//! 3. then the topic's replicas are even over brokers, then all replicas of the cluster;
//! 4. the first replica (preferred leader) is the member that is first least often in this topic.
//!
//! Ties fall by the seed, so that many small topics spread evenly too. A small data centre is used as much as a large
//! one: goal 1 wins over load, on purpose, since a copy per data centre is what survives losing one.

use protocol::ids::BrokerId;
use protocol::locality::Locality;
use std::collections::{BTreeMap, BTreeSet};

/// A broker that may take replicas.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Which.
    pub id: BrokerId,
    /// Where it stands.
    pub locality: Locality,
    /// Replicas of this topic it has.
    pub in_topic: usize,
    /// Partitions of this topic of which it is the first replica.
    pub first_in_topic: usize,
    /// Replicas of all topics it has.
    pub in_cluster: usize,
}

/// Replicas for `partitions` (by number), `replicas` each, in preference order. `replicas` must not exceed the
/// candidates; the caller has refused that by name.
pub(super) fn place(
    mut candidates: Vec<Candidate>,
    partitions: std::ops::Range<u32>,
    replicas: usize,
    seed: u64,
) -> Vec<Vec<BrokerId>> {
    let replicas = replicas.min(candidates.len());
    partitions.map(|number| place_one(&mut candidates, number, replicas, seed)).collect()
}

fn place_one(candidates: &mut [Candidate], number: u32, replicas: usize, seed: u64) -> Vec<BrokerId> {
    let mut chosen: Vec<usize> = Vec::with_capacity(replicas);
    for slot in 0..replicas {
        let (mut in_dc, mut in_rack) = (BTreeMap::new(), BTreeMap::new());
        for member in &chosen {
            let locality = &candidates[*member].locality;
            *in_dc.entry(locality.data_centre()).or_insert(0_usize) += 1;
            *in_rack.entry(locality).or_insert(0_usize) += 1;
        }
        let cost = |index: &usize| {
            let c = &candidates[*index];
            let dc = in_dc.get(&c.locality.data_centre()).copied().unwrap_or(0);
            let rack = in_rack.get(&c.locality).copied().unwrap_or(0);
            (dc, rack, c.in_topic, c.in_cluster, lot(seed, number, slot, c.id))
        };
        let best = (0..candidates.len()).filter(|i| !chosen.contains(i)).min_by_key(cost);
        let Some(best) = best else { break };
        chosen.push(best);
    }
    for member in &chosen {
        candidates[*member].in_topic += 1;
        candidates[*member].in_cluster += 1;
    }
    lead(candidates, &mut chosen, number, seed);
    chosen.iter().map(|i| candidates[*i].id).collect()
}

/// Puts the member first that is first least often; the others follow by lot, so that the leaderships of one broker
/// that dies fall on different ones.
fn lead(candidates: &mut [Candidate], chosen: &mut [usize], number: u32, seed: u64) {
    chosen.sort_by_key(|i| lot(seed ^ u64::MAX, number, 0, candidates[*i].id));
    let first = (0..chosen.len()).min_by_key(|at| (candidates[chosen[*at]].first_in_topic, *at));
    if let Some(first) = first {
        chosen[..=first].rotate_right(1);
        candidates[chosen[0]].first_in_topic += 1;
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
