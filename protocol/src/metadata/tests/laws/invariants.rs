//! What holds of every image and of every step.

use super::histories;
use crate::ids::{BrokerId, TopicPartition};
use crate::metadata::image::MetadataImage;
use crate::metadata::record::{ConfigResource, Fact, LeaderChange};
use crate::metadata::topics::{Partition, Topic};
use std::collections::{BTreeMap, BTreeSet};

type Places = BTreeMap<BrokerId, BTreeSet<TopicPartition>>;

fn live(image: &MetadataImage) -> Vec<(TopicPartition, &Partition)> {
    let of = |t: &'_ Topic| t.id;
    let mut all = Vec::new();
    for topic in image.topics.iter().filter(|t| t.is_live()) {
        for (partition, state) in (0u32..).zip(topic.partitions.iter()) {
            all.push((TopicPartition { topic: of(topic), partition }, state));
        }
    }
    all
}

fn places(image: &MetadataImage, list: impl Fn(&Partition) -> &[BrokerId]) -> Places {
    let mut places = Places::new();
    for (at, partition) in live(image) {
        for broker in list(partition) {
            places.entry(*broker).or_default().insert(at);
        }
    }
    places
}

fn indexes_hold(image: &MetadataImage) {
    let (replicas, isr) = (places(image, |p| &p.replicas), places(image, |p| &p.isr));
    for broker in (1..=6).map(BrokerId) {
        let expected = |places: &Places| places.get(&broker).cloned().unwrap_or_default();
        assert!(image.topics.places_of(broker).eq(expected(&replicas)));
        assert!(image.topics.places_after(broker, None).eq(expected(&replicas)));
        assert!(image.topics.in_sync_places_of(broker).eq(expected(&isr)));
        let led: Vec<_> = live(image).into_iter().filter(|(_, p)| p.leader == Some(broker)).map(|(at, _)| at).collect();
        assert!(image.topics.led_by(broker).eq(led));
        let first = live(image).into_iter().filter(|(_, p)| p.replicas.first() == Some(&broker));
        assert_eq!(image.topics.first_count(broker), first.count());
        assert_eq!(image.topics.led_count(broker), image.topics.led_by(broker).count());
        if let Some(first) = expected(&isr).first() {
            assert!(image.topics.in_sync_places_after(broker, Some(*first)).eq(expected(&isr).into_iter().skip(1)));
        }
    }
    let leaderless = live(image).into_iter().filter(|(_, p)| p.leader.is_none()).map(|(at, _)| at);
    assert!(image.topics.leaderless().eq(leaderless));
    assert_eq!(image.topics.partition_count(), live(image).len());
    assert!(image.topics.deleted().map(|t| t.id).eq(image.topics.iter().filter(|t| !t.is_live()).map(|t| t.id)));
    for topic in image.topics.iter() {
        assert_eq!(image.topics.by_name(&topic.name).map(|t| t.id) == Some(topic.id), topic.is_live());
    }
}

#[test]
fn every_index_equals_a_walk_over_everything() {
    histories(7, |history| {
        indexes_hold(history.last());
        let place = history.rng.below(history.images.len());
        indexes_hold(&history.images[place]);
    });
}

fn lists_hold(p: &Partition) {
    assert!(p.leader.is_none_or(|l| p.isr.contains(&l)), "leader in ISR: {p:?}");
    assert!(p.isr.iter().all(|b| p.replicas.contains(b) && !p.elr.contains(b)), "ISR apart from ELR: {p:?}");
    assert!(p.elr.iter().all(|b| p.replicas.contains(b)), "{p:?}");
    assert!(p.unclean_epoch.is_none_or(|e| e <= p.leader_epoch), "{p:?}");
}

fn step_holds(old: &Partition, new: &Partition) {
    assert!(new.partition_epoch >= old.partition_epoch && new.leader_epoch >= old.leader_epoch, "epochs fall");
    assert!(new.leader_epoch.0 - old.leader_epoch.0 <= 1, "one election a fact");
    assert!(new == old || new.partition_epoch == old.partition_epoch.next(), "every change moves the partition epoch");
    assert!(new.leader == old.leader || new.leader_epoch == old.leader_epoch.next(), "a leader change moves its epoch");
    assert!(new.unclean_epoch >= old.unclean_epoch);
    let held = |b: &BrokerId| old.isr.contains(b) || old.elr.contains(b);
    assert!(new.elr.iter().all(held), "nobody becomes eligible who held nothing");
    let clean = new.unclean_epoch == old.unclean_epoch;
    if new.leader_epoch > old.leader_epoch && clean {
        assert!(new.leader.is_none_or(|l| held(&l)), "a leader from nowhere without the unclean mark");
    }
}

#[test]
fn epochs_never_fall_and_lists_stay_apart() {
    histories(8, |history| {
        for pair in history.images.windows(2) {
            let (old, new) = (&pair[0], &pair[1]);
            assert!(new.cluster.last_broker_epoch >= old.cluster.last_broker_epoch);
            assert!(new.cluster.incarnation >= old.cluster.incarnation);
            for broker in old.brokers.iter() {
                let now = new.brokers.get(broker.id).expect("brokers are never forgotten");
                assert!(now.epoch >= broker.epoch && now.last_unfenced_epoch >= broker.last_unfenced_epoch);
                assert!(now.is_fenced() || now.proved, "unfenced without proof");
                assert!(now.epoch == broker.epoch || now.is_fenced(), "a new registration begins fenced");
            }
            for (at, partition) in live(new) {
                lists_hold(partition);
                if let Some(before) = old.topics.partition(at) {
                    step_holds(before, partition);
                }
            }
        }
    });
}

#[test]
fn naming_a_leader_always_moves_the_leader_epoch_even_for_the_same_broker() {
    histories(9, |history| {
        for (fact, pair) in history.facts.iter().zip(history.images.windows(2)) {
            let Fact::PartitionsChanged(fact) = fact else { continue };
            for change in &fact.changes {
                let at = TopicPartition { topic: fact.topic, partition: change.partition };
                let epoch = |i: &MetadataImage| i.topics.partition(at).expect("it was changed").leader_epoch;
                let moved = epoch(&pair[1]) > epoch(&pair[0]);
                assert_eq!(moved, change.leader != LeaderChange::Unchanged || change.bump_leader_epoch);
            }
        }
    });
}

#[test]
fn a_change_of_the_rule_clears_the_elr_of_led_partitions_and_of_no_other() {
    let mut cleared = 0;
    histories(10, |history| {
        for (fact, pair) in history.facts.iter().zip(history.images.windows(2)) {
            let resource = match fact {
                Fact::ConfigSet(f) => f.resource,
                Fact::ConfigUnset(f) => f.resource,
                _ => continue,
            };
            let (old, new) = (&pair[0], &pair[1]);
            for (at, before) in live(old) {
                let after = new.topics.partition(at).expect("configs remove no partition");
                let altered = old.durability_rule(at.topic) != new.durability_rule(at.topic);
                if altered && before.leader.is_some() && !before.elr.is_empty() {
                    assert!(after.elr.is_empty() && after.partition_epoch == before.partition_epoch.next());
                    assert_eq!(after.leader_epoch, before.leader_epoch);
                    cleared += 1;
                } else {
                    assert_eq!(after, before, "seed {}", history.seed);
                }
                assert!(!altered || matches!(resource, ConfigResource::Cluster | ConfigResource::Topic(_)));
            }
        }
    });
    assert!(cleared > 20, "the histories reach the case: {cleared}");
}

#[test]
fn the_histories_reach_what_the_laws_are_about() {
    let (mut kinds, mut unclean, mut elected_from_elr, mut fenced_leader) = (BTreeSet::new(), 0, 0, 0);
    histories(11, |history| {
        kinds.extend(history.facts.iter().map(Fact::kind));
        for pair in history.images.windows(2) {
            for (at, now) in live(&pair[1]) {
                let Some(old) = pair[0].topics.partition(at) else { continue };
                unclean += usize::from(now.unclean_epoch > old.unclean_epoch);
                elected_from_elr += usize::from(now.leader.is_some_and(|l| old.elr.contains(&l)));
                let fenced = |b: BrokerId| pair[1].brokers.get(b).is_some_and(|b| b.is_fenced());
                fenced_leader += usize::from(now.leader.is_some_and(fenced));
            }
        }
    });
    // Version 1 is the only one that can be finalized, so kind 2 is never legal.
    let expected: BTreeSet<u16> = Fact::KINDS.iter().map(|(kind, _)| *kind).filter(|kind| *kind != 2).collect();
    assert_eq!(kinds, expected);
    assert!(
        unclean > 100 && elected_from_elr > 100 && fenced_leader > 100,
        "{unclean} {elected_from_elr} {fenced_leader}"
    );
}
