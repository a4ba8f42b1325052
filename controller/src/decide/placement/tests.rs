//! Placement: its goals as laws over random clusters.

use super::*;
use proptest::prelude::*;

fn candidates(dcs: &[(usize, usize)]) -> Vec<Candidate> {
    let mut all = Vec::new();
    for (dc, (racks, each)) in dcs.iter().enumerate() {
        for rack in 0..*racks {
            for _ in 0..*each {
                let id = BrokerId(u32::try_from(all.len()).expect("small") + 1);
                let locality = format!("eu/dc{dc}/r{rack}").parse().expect("legal");
                all.push(Candidate {
                    id,
                    locality,
                    in_topic: 0,
                    first_in_topic: 0,
                    in_cluster: 0,
                    first_in_cluster: 0,
                });
            }
        }
    }
    all
}

fn counts(placed: &[Vec<BrokerId>], of: &[Candidate], count: impl Fn(&[BrokerId], BrokerId) -> bool) -> (usize, usize) {
    let per: Vec<_> = of.iter().map(|c| placed.iter().filter(|r| count(r, c.id)).count()).collect();
    (*per.iter().min().expect("brokers"), *per.iter().max().expect("brokers"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replicas_are_distinct_and_cover_as_many_data_centres_as_they_can(
        dcs in prop::collection::vec((1_usize..3, 1_usize..4), 1..5),
        partitions in 1_u32..40,
        replicas in 1_usize..6,
        seed: u64,
    ) {
        let brokers = candidates(&dcs);
        let replicas = replicas.min(brokers.len());
        let placed = place(brokers.clone(), 0..partitions, replicas, seed);
        prop_assert_eq!(placed.len(), partitions as usize);
        let place_of = |id: &BrokerId| &brokers.iter().find(|c| c.id == *id).expect("a candidate").locality;
        for members in &placed {
            prop_assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), replicas);
            prop_assert_eq!(data_centres(members.iter().map(place_of)), replicas.min(dcs.len()));
            // Evenly over data centres, as far as each has brokers.
            let in_dc = |dc: usize| members.iter().filter(|m| place_of(m).dc == format!("dc{dc}")).count();
            for (a, (racks, each)) in dcs.iter().enumerate() {
                for b in 0..dcs.len() {
                    prop_assert!(in_dc(b) <= in_dc(a) + 1 || in_dc(a) == racks * each, "{:?}", members);
                }
            }
        }
    }

    #[test]
    fn like_data_centres_are_loaded_alike(
        dcs in 1_usize..4, each in 1_usize..4, partitions in 1_u32..60, replicas in 1_usize..4, seed: u64,
    ) {
        let brokers = candidates(&vec![(1, each); dcs]);
        let replicas = replicas.min(brokers.len());
        let placed = place(brokers.clone(), 0..partitions, replicas, seed);
        let (least, most) = counts(&placed, &brokers, |r, id| r.contains(&id));
        prop_assert!(most - least <= 1, "replicas from {} to {}", least, most);
        let first = |id: BrokerId| placed.iter().filter(|r| r[0] == id).count();
        for members in &placed {
            let least = members.iter().map(|m| first(*m)).min().expect("members");
            prop_assert!(first(members[0]) <= least + 1, "broker {} is first too often", members[0]);
        }
    }

    #[test]
    fn growing_a_topic_goes_on_where_it_was(partitions in 1_u32..20, more in 1_u32..20, seed: u64) {
        let brokers = candidates(&[(1, 2), (1, 2), (1, 2)]);
        let mut grown = place(brokers.clone(), 0..partitions, 3, seed);
        let mut loaded = brokers.clone();
        for c in &mut loaded {
            c.in_topic = grown.iter().filter(|r| r.contains(&c.id)).count();
            c.first_in_topic = grown.iter().filter(|r| r.first() == Some(&c.id)).count();
        }
        grown.extend(place(loaded, partitions..partitions + more, 3, seed ^ 1));
        let (least, most) = counts(&grown, &brokers, |r, id| r.contains(&id));
        prop_assert!(most - least <= 1);
    }
}

#[test]
fn racks_within_a_data_centre_come_next() {
    let brokers = candidates(&[(2, 3)]);
    for seed in 0..50 {
        let placed = place(brokers.clone(), 0..8, 2, seed);
        for members in placed {
            let racks: BTreeSet<_> = members.iter().map(|m| (m.0 - 1) / 3).collect();
            assert_eq!(racks.len(), 2, "seed {seed}: {members:?}");
        }
    }
}

#[test]
fn the_same_seed_places_alike_and_seeds_spread_single_partitions() {
    let brokers = candidates(&[(1, 1), (1, 1), (1, 1)]);
    assert_eq!(place(brokers.clone(), 0..9, 2, 7), place(brokers.clone(), 0..9, 2, 7));
    let firsts: BTreeSet<_> = (0..40).map(|seed| place(brokers.clone(), 0..1, 3, seed)[0][0]).collect();
    assert_eq!(firsts.len(), 3, "one-partition topics must not all begin on one broker");
}

#[test]
fn an_emptier_broker_is_filled_first_but_not_against_the_spread() {
    let mut brokers = candidates(&[(1, 2), (1, 1)]);
    brokers[0].in_cluster = 100;
    brokers[2].in_cluster = 100;
    for members in place(brokers, 0..1, 2, 3) {
        assert!(members.contains(&BrokerId(2)) && members.contains(&BrokerId(3)), "{members:?}");
    }
}
