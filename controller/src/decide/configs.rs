//! Config changes. A value is checked against the schema, then the rule it results in against the partitions it
//! governs: a durability rule that some partition's replicas could never satisfy is refused. The check runs on the
//! draft with the change folded in; a refusal leaves no trace because the attempt is dropped.

use super::command::{AlterConfigs, ConfigTarget, Reply};
use super::{grace, placement, position, topics};
use protocol::error::{ApiError, ErrorCode};
use protocol::metadata::draft::Draft;
use protocol::metadata::durability::RULE_KEYS;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{ConfigResource, ConfigSet, ConfigUnset, Fact};
use protocol::metadata::topics::Topic;
use std::collections::BTreeSet;

/// Sets and unsets values of one resource, all or nothing.
pub(super) fn alter(draft: &mut Draft<MetadataImage>, command: &AlterConfigs) -> Result<Reply, ApiError> {
    let resource = resource(draft.state(), &command.target)?;
    let keys = command.set.iter().map(|(key, _)| key).chain(&command.unset);
    check_distinct(keys.clone())?;
    keys.clone().try_for_each(|key| grace::check_key(key))?;
    let grace_before = grace::current(draft.state());
    let alters_rule = keys.clone().any(|key| RULE_KEYS.contains(&key.as_str()));
    for (key, value) in &command.set {
        protocol::metadata::configs::check(resource, key, value)?;
        if draft.state().configs.get(resource, key) != Some(value.as_str()) {
            draft.push(Fact::ConfigSet(ConfigSet { resource, key: key.clone(), value: value.clone() }));
        }
    }
    for key in &command.unset {
        check_key(resource, key)?;
        if draft.state().configs.get(resource, key).is_some() {
            draft.push(Fact::ConfigUnset(ConfigUnset { resource, key: key.clone() }));
        }
    }
    grace::keep_larger(draft, grace_before);
    if alters_rule {
        check_rules(draft.state(), resource)?;
    }
    Ok(Reply::Committed { batch_no: position(draft) })
}

fn resource(image: &MetadataImage, target: &ConfigTarget) -> Result<ConfigResource, ApiError> {
    match target {
        ConfigTarget::Cluster => Ok(ConfigResource::Cluster),
        ConfigTarget::Topic(name) => topics::by_name(image, name).map(|t| ConfigResource::Topic(t.id)),
        ConfigTarget::Broker(id) if image.brokers.get(*id).is_some() => Ok(ConfigResource::Broker(*id)),
        ConfigTarget::Broker(id) => {
            Err(ApiError::bad(ErrorCode::UnknownBroker, "broker_id", id, "a registered broker"))
        }
    }
}

/// Refuses a key that is named twice: which of the two was meant?
pub(super) fn check_distinct<'k>(keys: impl Iterator<Item = &'k String>) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(ApiError::bad(ErrorCode::InvalidConfig, "config key", key, "each key once"));
        }
    }
    Ok(())
}

/// Refuses a key that does not belong to the resource; `check` of its default does the naming.
fn check_key(resource: ConfigResource, key: &str) -> Result<(), ApiError> {
    let default = protocol::metadata::configs::definition(key).map_or("", |d| d.default);
    protocol::metadata::configs::check(resource, key, default)
}

fn check_rules(image: &MetadataImage, resource: ConfigResource) -> Result<(), ApiError> {
    match resource {
        ConfigResource::Topic(id) => image.topics.get(id).map_or(Ok(()), |topic| check_rule(image, topic)),
        ConfigResource::Cluster => {
            image.topics.iter().filter(|t| t.is_live()).try_for_each(|topic| check_rule(image, topic))
        }
        ConfigResource::Broker(_) => Ok(()),
    }
}

/// Refuses a topic whose own setting asks for more in-sync replicas than it has, or whose rule (its own or the
/// cluster's) asks for more data centres than some partition's replicas cover.
pub(super) fn check_rule(image: &MetadataImage, topic: &Topic) -> Result<(), ApiError> {
    let own = image.configs.get(ConfigResource::Topic(topic.id), "min.insync.replicas");
    let asked = own.and_then(|v| v.parse::<u16>().ok());
    if let Some(asked) = asked.filter(|asked| *asked > topic.replication_factor) {
        let limit = format!("at most {}, the replicas of topic {}", topic.replication_factor, topic.name);
        return Err(ApiError::bad(ErrorCode::InvalidConfig, "min.insync.replicas", asked, limit));
    }
    let min_dcs = image.rule_of(topic).min_dcs;
    if min_dcs <= 1 {
        return Ok(());
    }
    for (number, partition) in topic.partitions.iter().enumerate() {
        let places = partition.replicas.iter().filter_map(|b| image.brokers.get(*b)).map(|b| &b.locality);
        let covered = placement::data_centres(places);
        if covered < min_dcs {
            let limit = format!("at most {covered}: the data centres that hold replicas of {}/{number}", topic.name);
            return Err(ApiError::bad(ErrorCode::InvalidConfig, "min.insync.dcs", min_dcs, limit));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
