//! The one durability rule. `satisfies(isr)` = at least min(RF, `min.insync.replicas`) members AND at least
//! `min.insync.dcs` data centres covered. Used by the produce check, the high watermark gate, ELR, describe and
//! explain: nobody else may spell it out again (DESIGN.md section 5).

use super::image::MetadataImage;
use super::record::ConfigResource;
use super::topics::Topic;
use crate::ids::{BrokerId, TopicId};
use std::collections::BTreeSet;

/// The configs that bear on the rule.
pub const RULE_KEYS: [&str; 2] = ["min.insync.replicas", "min.insync.dcs"];

/// What an ISR must cover for a record to count as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurabilityRule {
    /// min(RF, `min.insync.replicas`).
    pub min_replicas: usize,
    /// `min.insync.dcs`.
    pub min_dcs: usize,
}

impl DurabilityRule {
    /// Whether these members, each with its data centre where known, satisfy the rule. A member named twice counts once.
    pub fn satisfied_by<D: Ord>(&self, members: impl IntoIterator<Item = (BrokerId, Option<D>)>) -> bool {
        let (mut distinct, mut dcs) = (BTreeSet::new(), BTreeSet::new());
        for (member, dc) in members {
            distinct.insert(member);
            dcs.extend(dc);
        }
        distinct.len() >= self.min_replicas && dcs.len() >= self.min_dcs
    }

    /// The same by an image; for callers that ask for many partitions of one topic.
    #[must_use]
    pub fn holds(&self, image: &MetadataImage, members: &[BrokerId]) -> bool {
        let dc = |b: &BrokerId| image.brokers.get(*b).map(|b| b.locality.data_centre());
        self.satisfied_by(members.iter().map(|b| (*b, dc(b))))
    }
}

impl MetadataImage {
    /// The rule of a topic; None for an unknown topic.
    #[must_use]
    pub fn durability_rule(&self, topic: TopicId) -> Option<DurabilityRule> {
        let topic = self.topics.get(topic)?;
        Some(self.rule_of(topic))
    }

    /// The rule of a topic at hand.
    #[must_use]
    pub fn rule_of(&self, topic: &Topic) -> DurabilityRule {
        let number = |key: &str| -> usize {
            self.config_number(ConfigResource::Topic(topic.id), key)
                .expect("values were checked against the schema before they entered the log")
        };
        let [replicas, dcs] = RULE_KEYS.map(number);
        DurabilityRule { min_replicas: replicas.min(usize::from(topic.replication_factor)), min_dcs: dcs }
    }

    /// Whether these members satisfy the topic's rule. Members this image does not know cover no data centre.
    #[must_use]
    pub fn satisfies(&self, topic: &Topic, members: &[BrokerId]) -> bool {
        self.rule_of(topic).holds(self, members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn satisfied(rule: (usize, usize), members: &[(u32, Option<&str>)]) -> bool {
        let rule = DurabilityRule { min_replicas: rule.0, min_dcs: rule.1 };
        rule.satisfied_by(members.iter().map(|(b, dc)| (BrokerId(*b), *dc)))
    }

    #[test]
    fn both_members_and_data_centres_must_suffice() {
        let (a, b) = (Some("a"), Some("b"));
        assert!(satisfied((2, 1), &[(1, a), (2, a)]));
        assert!(!satisfied((2, 1), &[(1, a)]), "one member short");
        assert!(!satisfied((2, 2), &[(1, a), (2, a)]), "one data centre short");
        assert!(satisfied((2, 2), &[(1, a), (2, b)]));
        assert!(!satisfied((1, 1), &[]), "the empty ISR keeps nothing");
    }

    #[test]
    fn a_member_named_twice_counts_once_and_an_unknown_one_covers_no_data_centre() {
        assert!(!satisfied((2, 1), &[(1, Some("a")), (1, Some("a"))]));
        assert!(!satisfied((2, 2), &[(1, Some("a")), (2, None)]));
        assert!(satisfied((2, 1), &[(1, Some("a")), (2, None)]));
    }

    #[test]
    fn the_rule_never_asks_for_more_members_than_the_topic_has() {
        let topic = TopicId::default();
        let created =
            crate::metadata::record::TopicCreated { topic, name: "t".into(), replication_factor: 1, created_ms: 0 };
        let mut image = MetadataImage::default();
        image.topics.create(&created);
        assert_eq!(
            image.durability_rule(topic),
            Some(DurabilityRule { min_replicas: 1, min_dcs: 1 }),
            "the default asks 2"
        );
        image.configs.set(ConfigResource::Topic(topic), "min.insync.dcs", "2");
        let rule = image.durability_rule(topic).expect("it was created");
        assert_eq!(rule.min_dcs, 2, "data centres are not capped: one replica can never satisfy two");
        assert_eq!(image.durability_rule(TopicId(uuid::Uuid::from_u128(9))), None);
    }
}
