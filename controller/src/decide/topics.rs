//! Topics: create, delete, grow. Validate everything first, then push facts; a refusal names field, value and limit.
//!
//! Invariants: live names are unique; a new partition's replicas are all active, form the first ISR and are led by the
//! first of them; a topic whose durability rule its own replicas could never satisfy is refused, not created.

use super::command::{CreatePartitions, CreateTopic, DeleteTopic, Reply};
use super::configs;
use super::limits::{CLUSTER_PARTITIONS_MAX, REPLICATION_MAX, TOPIC_NAME_MAX, TOPIC_PARTITIONS_MAX};
use super::placement::{Candidate, place};
use super::position;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerId, TopicId};
use protocol::metadata::draft::Draft;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{
    Assignment, ConfigResource, ConfigSet, Fact, PartitionsCreated, TopicCreated, TopicDeleted,
};
use protocol::metadata::topics::{Partition, Topic};
use std::collections::BTreeMap;

/// Creates a topic with its configs and partitions.
pub(super) fn create(draft: &mut Draft<MetadataImage>, command: &CreateTopic) -> Result<Reply, ApiError> {
    let image = draft.state();
    check_name(&command.name)?;
    if image.topics.by_name(&command.name).is_some() {
        return Err(ApiError::bad(ErrorCode::TopicExists, "name", &command.name, "a name that no live topic has"));
    }
    if image.topics.get(command.topic).is_some() {
        return Err(ApiError::bad(ErrorCode::InvalidRequest, "topic_id", command.topic, "an id never used before"));
    }
    check_count(image, command.partitions, 0)?;
    let replicas = replication(image, command.replicas)?;
    configs::check_distinct(command.configs.iter().map(|(key, _)| key))?;
    let resource = ConfigResource::Topic(command.topic);
    for (key, value) in &command.configs {
        protocol::metadata::configs::check(resource, key, value)?;
    }
    draft.push(Fact::TopicCreated(TopicCreated {
        topic: command.topic,
        name: command.name.clone(),
        replication_factor: replicas,
        created_ms: command.at_ms,
    }));
    for (key, value) in &command.configs {
        draft.push(Fact::ConfigSet(ConfigSet { resource, key: key.clone(), value: value.clone() }));
    }
    add(draft, command.topic, command.partitions, command.seed)?;
    let partitions = partitions(draft.state(), command.topic);
    Ok(Reply::TopicCreated { topic: command.topic, batch_no: position(draft), partitions })
}

/// Deletes a topic. Its data stays until `TopicPurged`, `delete.grace.ms` later.
pub(super) fn delete(draft: &mut Draft<MetadataImage>, command: &DeleteTopic) -> Result<Reply, ApiError> {
    let topic = by_name(draft.state(), &command.name)?.id;
    draft.push(Fact::TopicDeleted(TopicDeleted { topic, at_ms: command.at_ms }));
    Ok(Reply::TopicDeleted { topic, batch_no: position(draft) })
}

/// Adds partitions up to a total.
pub(super) fn grow(draft: &mut Draft<MetadataImage>, command: &CreatePartitions) -> Result<Reply, ApiError> {
    let image = draft.state();
    let topic = by_name(image, &command.name)?;
    let (id, has) = (topic.id, u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX));
    if command.total <= has {
        let limit = format!("more than {has}, which the topic has; partitions cannot be taken away");
        return Err(ApiError::bad(ErrorCode::InvalidPartitions, "partitions", command.total, limit));
    }
    check_count(image, command.total, has)?;
    replication(image, Some(u32::from(topic.replication_factor)))?;
    add(draft, id, command.total, command.seed)?;
    Ok(Reply::Committed { batch_no: position(draft) })
}

/// A live topic by name.
pub(super) fn by_name<'i>(image: &'i MetadataImage, name: &str) -> Result<&'i Topic, ApiError> {
    image
        .topics
        .by_name(name)
        .ok_or_else(|| ApiError::bad(ErrorCode::UnknownTopic, "topic", name, "the name of a live topic"))
}

/// Kafka's rule: 1 to 249 of a-z A-Z 0-9 . _ -, not "." or ".."; names that begin with "__" are the system's own.
fn check_name(name: &str) -> Result<(), ApiError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let limit = if name.is_empty() || name.len() > TOPIC_NAME_MAX {
        format!("1 to {TOPIC_NAME_MAX} characters")
    } else if !name.bytes().all(legal) {
        "characters out of a-z A-Z 0-9 . _ -".to_owned()
    } else if name == "." || name == ".." {
        "anything but \".\" and \"..\"".to_owned()
    } else if name.starts_with("__") {
        "no name that begins with \"__\": those are the system's own".to_owned()
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(TOPIC_NAME_MAX).collect();
    Err(ApiError::bad(ErrorCode::InvalidName, "name", shown, limit))
}

fn check_count(image: &MetadataImage, total: u32, has: u32) -> Result<(), ApiError> {
    let bad = |limit: String| Err(ApiError::bad(ErrorCode::InvalidPartitions, "partitions", total, limit));
    if !(1..=TOPIC_PARTITIONS_MAX).contains(&total) {
        return bad(format!("1 to {TOPIC_PARTITIONS_MAX} for one topic"));
    }
    let added = total.saturating_sub(has) as usize;
    let room = CLUSTER_PARTITIONS_MAX.saturating_sub(image.topics.partition_count());
    if added > room {
        return bad(format!("{room} more, of {CLUSTER_PARTITIONS_MAX} for the whole cluster"));
    }
    Ok(())
}

/// The replication factor asked for (or the default), if that many brokers are active.
fn replication(image: &MetadataImage, asked: Option<u32>) -> Result<u16, ApiError> {
    let default = || image.config_number::<u32>(ConfigResource::Cluster, "default.replication.factor");
    let replicas = asked.or_else(default).unwrap_or(REPLICATION_MAX);
    let active = image.brokers.iter().filter(|b| b.is_active()).count();
    let limit = if !(1..=REPLICATION_MAX).contains(&replicas) {
        format!("1 to {REPLICATION_MAX}")
    } else if replicas as usize > active {
        format!("at most {active}, the number of active brokers")
    } else {
        return Ok(u16::try_from(replicas).expect("the range above ends far below 65536"));
    };
    Err(ApiError::bad(ErrorCode::InvalidReplication, "replicas", replicas, limit))
}

/// Places partitions up to `total`, then checks that the topic can satisfy its own durability rule.
fn add(draft: &mut Draft<MetadataImage>, id: TopicId, total: u32, seed: u64) -> Result<(), ApiError> {
    let image = draft.state();
    let topic = image.topics.get(id).expect("the caller created it in this draft or found it by name");
    let first = u32::try_from(topic.partitions.len()).expect("limited by TOPIC_PARTITIONS_MAX");
    let replicas = usize::from(topic.replication_factor);
    let placed = place(candidates(image, topic), first..total, replicas, seed);
    let assignments = placed
        .into_iter()
        .map(|replicas| Assignment { isr: replicas.clone(), leader: replicas.first().copied(), replicas })
        .collect();
    draft.push(Fact::PartitionsCreated(PartitionsCreated { topic: id, first, assignments }));
    let topic = draft.state().topics.get(id).expect("it was there before partitions were added");
    configs::check_rule(draft.state(), topic)
}

fn candidates(image: &MetadataImage, topic: &Topic) -> Vec<Candidate> {
    let mut in_topic: BTreeMap<BrokerId, (usize, usize)> = BTreeMap::new();
    for partition in topic.partitions.iter() {
        for (place, broker) in partition.replicas.iter().enumerate() {
            let count = in_topic.entry(*broker).or_default();
            count.0 += 1;
            count.1 += usize::from(place == 0);
        }
    }
    let candidate = |b: &protocol::metadata::brokers::Broker| {
        let (replicas, firsts) = in_topic.get(&b.id).copied().unwrap_or_default();
        Candidate {
            id: b.id,
            locality: b.locality.clone(),
            in_topic: replicas,
            first_in_topic: firsts,
            in_cluster: image.topics.place_count(b.id),
            first_in_cluster: image.topics.first_count(b.id),
        }
    };
    image.brokers.iter().filter(|b| b.is_active()).map(candidate).collect()
}

fn partitions(image: &MetadataImage, id: TopicId) -> Vec<Partition> {
    image.topics.get(id).map(|t| t.partitions.iter().cloned().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
