//! Deltas: what batches touched against what two images differ in.

use super::histories;
use crate::ids::TopicPartition;
use crate::metadata::delta::Delta;
use crate::metadata::image::MetadataImage;
use crate::testing::applied;
use std::collections::BTreeSet;

fn partitions(image: &MetadataImage) -> BTreeSet<TopicPartition> {
    let of = |t: &crate::metadata::topics::Topic| {
        let id = t.id;
        (0u32..)
            .zip(t.partitions.iter())
            .map(move |(partition, _)| TopicPartition { topic: id, partition })
            .collect::<Vec<_>>()
    };
    image.topics.iter().flat_map(of).collect()
}

/// Everything of which the two images say different things, by looking at all of it.
fn differences(old: &MetadataImage, new: &MetadataImage) -> Delta {
    let mut delta =
        Delta { cluster: old.cluster != new.cluster, configs: old.configs != new.configs, ..Delta::default() };
    for id in old.brokers.iter().chain(new.brokers.iter()).map(|b| b.id) {
        if old.brokers.get(id) != new.brokers.get(id) {
            delta.brokers.insert(id);
        }
    }
    let state = |i: &MetadataImage, t| i.topics.get(t).map(|t| t.state);
    for id in old.topics.iter().chain(new.topics.iter()).map(|t| t.id) {
        if state(old, id) != state(new, id) {
            delta.topics.insert(id);
        }
    }
    for at in partitions(old).union(&partitions(new)) {
        let unlike = old.topics.partition(*at) != new.topics.partition(*at)
            || old.topics.last_unclean(*at) != new.topics.last_unclean(*at);
        if unlike || delta.topics.contains(&at.topic) {
            delta.partitions.insert(*at);
        }
    }
    delta
}

fn covers(wide: &Delta, narrow: &Delta) -> bool {
    wide.cluster >= narrow.cluster
        && wide.configs >= narrow.configs
        && wide.brokers.is_superset(&narrow.brokers)
        && wide.topics.is_superset(&narrow.topics)
        && wide.partitions.is_superset(&narrow.partitions)
}

#[test]
fn between_names_exactly_the_differences_and_batches_touch_all_of_them() {
    histories(5, |history| {
        let to = history.rng.below(history.images.len());
        let from = history.rng.below(to + 1);
        let (old, new) = (&history.images[from], &history.images[to]);
        let between = Delta::between(old, new);
        assert_eq!(between, differences(old, new), "seed {}", history.seed);
        let (_, touched) = applied(old, &history.facts[from..to]);
        assert!(covers(&touched, &between), "seed {}: {touched:?} misses some of {between:?}", history.seed);
        assert!(Delta::between(old, old).is_empty());
    });
}

#[test]
fn a_snapshot_from_another_point_names_what_both_histories_would() {
    histories(6, |history| {
        let (a, b) = (history.rng.below(history.images.len()), history.rng.below(history.images.len()));
        let (old, new) = (&history.images[a], &history.images[b]);
        let (there, back) = (Delta::between(old, new), Delta::between(new, old));
        assert_eq!(there, back, "seed {}: what differs does not depend on the direction", history.seed);
    });
}
