//! Between admin messages and what the controller knows: pure conversions, no decisions.

use crate::decide::brokers::why_fenced;
use crate::decide::command::{ConfigTarget, ElectionResult, Survivor};
use crate::decide::explain::Explanation;
use crate::decide::sessions::Sessions;
use crate::quorum::guard::DcVerdict;
use crate::quorum::{Lead, QuorumStatus, VoterId, VoterNode, VoterSpec, VoterStatus};
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerId, Millis};
use protocol::metadata::brokers::{Broker, BrokerState};
use protocol::metadata::configs::{self, Definition};
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{ConfigResource, RecoveryState};
use protocol::metadata::topics::{Partition, Topic};
use protocol::rpc::convert;
use protocol::rpc::pb::admin::v1 as wire;
use protocol::rpc::pb::common::v1::Endpoint;

pub(super) fn pairs(entries: Vec<wire::ConfigEntry>) -> Vec<(String, String)> {
    entries.into_iter().map(|e| (e.key, e.value)).collect()
}

pub(super) fn partition_state(number: u32, partition: &Partition, satisfies: bool) -> wire::PartitionState {
    wire::PartitionState {
        partition: number,
        replicas: convert::brokers_wire(&partition.replicas),
        isr: convert::brokers_wire(&partition.isr),
        elr: convert::brokers_wire(&partition.elr),
        leader_id: convert::broker_wire(partition.leader),
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch.0,
        adding: convert::brokers_wire(&partition.adding),
        removing: convert::brokers_wire(&partition.removing),
        satisfies,
        recovery: match partition.recovery {
            RecoveryState::Recovered => "recovered".to_owned(),
            RecoveryState::Recovering => "recovering".to_owned(),
        },
    }
}

pub(super) fn topic(image: &MetadataImage, topic: &Topic, with_partitions: bool) -> wire::TopicDescription {
    let config = image.topic_config(topic.id);
    let partitions = if with_partitions {
        let numbered = (0u32..).zip(topic.partitions.iter());
        numbered.map(|(number, p)| partition_state(number, p, image.satisfies(topic, &p.isr))).collect()
    } else {
        Vec::new()
    };
    let set = image.configs.of(ConfigResource::Topic(topic.id));
    let set = set.map(|(key, value)| wire::ConfigEntry { key: key.to_owned(), value: value.to_owned() });
    wire::TopicDescription {
        name: topic.name.clone(),
        topic_id: convert::topic_id_bytes(topic.id),
        partition_count: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
        replication_factor: u32::from(topic.replication_factor),
        partitions,
        configs: set.collect(),
        deleted: !topic.is_live(),
        error: None,
        min_insync_replicas: u32::from(config.min_insync_replicas),
        min_insync_dcs: u32::from(config.min_insync_dcs),
    }
}

pub(super) fn unknown_topic(name: &str) -> wire::TopicDescription {
    let error = ApiError::bad(ErrorCode::UnknownTopic, "topic", name, "the name of a topic that exists");
    wire::TopicDescription { name: name.to_owned(), error: Some(error.into()), ..wire::TopicDescription::default() }
}

/// What a config request is about, as named.
pub(crate) fn target(kind: i32, name: &str) -> Result<ConfigTarget, ApiError> {
    match wire::ResourceKind::try_from(kind) {
        Ok(wire::ResourceKind::ResourceTopic) => Ok(ConfigTarget::Topic(name.to_owned())),
        Ok(wire::ResourceKind::ResourceBroker) => match name.parse::<u32>() {
            Ok(id) if id > 0 => Ok(ConfigTarget::Broker(BrokerId(id))),
            _ => Err(ApiError::bad(ErrorCode::InvalidRequest, "name", name, "a broker id, 1 or more")),
        },
        Ok(wire::ResourceKind::ResourceCluster) => Ok(ConfigTarget::Cluster),
        _ => Err(ApiError::bad(ErrorCode::InvalidRequest, "kind", kind, "topic (1), broker (2) or cluster (3)")),
    }
}

/// Every key that may be set there, with the value in force and where it comes from.
pub(super) fn config_values(image: &MetadataImage, resource: ConfigResource) -> Vec<wire::ConfigValue> {
    let value = |d: &Definition| {
        let source = if image.configs.get(resource, d.key).is_some() {
            match resource {
                ConfigResource::Cluster => "cluster",
                ConfigResource::Broker(_) => "broker",
                ConfigResource::Topic(_) => "topic",
            }
        } else if image.configs.get(ConfigResource::Cluster, d.key).is_some() {
            "cluster"
        } else {
            "default"
        };
        wire::ConfigValue {
            key: d.key.to_owned(),
            value: image.config_value(resource, d.key).unwrap_or_default().to_owned(),
            source: source.to_owned(),
            doc: d.doc.to_owned(),
        }
    };
    configs::SCHEMA.iter().filter(|d| d.allowed_on(resource)).map(value).collect()
}

/// Counts over the image that describe, metrics and readiness share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) topics: u32,
    pub(crate) partitions: u32,
    pub(crate) offline: u32,
    pub(crate) under_replicated: u32,
    pub(crate) under_min_isr: u32,
    pub(crate) not_preferred: u32,
}

pub(crate) fn census(image: &MetadataImage) -> Census {
    let mut found = Census::default();
    for topic in image.topics.iter().filter(|t| t.is_live()) {
        found.topics += 1;
        for partition in topic.partitions.iter() {
            found.partitions += 1;
            found.offline += u32::from(partition.leader.is_none());
            found.under_replicated += u32::from(partition.isr.len() < partition.replicas.len());
            found.under_min_isr += u32::from(!image.satisfies(topic, &partition.isr));
            let preferred = partition.replicas.first().copied();
            found.not_preferred += u32::from(partition.leader.is_some() && partition.leader != preferred);
        }
    }
    found
}

pub(super) fn broker(
    image: &MetadataImage,
    sessions: &Sessions,
    broker: &Broker,
    now: Millis,
) -> wire::BrokerDescription {
    let contact = sessions.contact(broker.id, broker.epoch);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (leaders, replicas) = (count(image.topics.led_count(broker.id)), count(image.topics.place_count(broker.id)));
    let age = contact.map(|c| now.saturating_sub(c.last));
    wire::BrokerDescription {
        id: broker.id.0,
        epoch: broker.epoch.0,
        state: match broker.state {
            BrokerState::Active => "active".to_owned(),
            BrokerState::Fenced => "fenced".to_owned(),
            BrokerState::ShuttingDown => "shutting-down".to_owned(),
        },
        client: Some((&broker.client).into()),
        internal: Some((&broker.internal).into()),
        locality: broker.locality.to_string(),
        leaders,
        replicas,
        last_contact_ms: convert::known_or_minus_one(age),
        why: if broker.is_fenced() { why_fenced(image, sessions, broker, now) } else { Vec::new() },
        incarnation: convert::uuid_bytes(broker.incarnation),
        applied_batch_no: contact.map_or(0, |c| c.applied.0),
    }
}

pub(super) fn member(status: &VoterStatus) -> wire::VoterDescription {
    wire::VoterDescription {
        id: status.voter.id,
        directory: convert::uuid_bytes(status.voter.directory),
        endpoint: Some(Endpoint { host: status.node.host.clone(), port: u32::from(status.node.port) }),
        locality: status.node.locality.clone(),
        matched_index: convert::known_or_minus_one(status.matched),
    }
}

pub(super) fn verdict(verdict: DcVerdict) -> wire::DataCentreVerdict {
    wire::DataCentreVerdict {
        dc: verdict.dc,
        voters: u32::try_from(verdict.voters).unwrap_or(u32::MAX),
        continues: verdict.continues,
        provably_lossless: verdict.provably_lossless,
        text: verdict.text,
    }
}

pub(super) fn quorum(me: VoterId, status: QuorumStatus) -> wire::DescribeQuorumResponse {
    let (leader_id, answered_by_leader) = match &status.lead {
        Lead::Me { .. } => (me.id, true),
        Lead::Other { voter, .. } => (voter.id, false),
        Lead::Nobody => (0, false),
    };
    let age = status.quorum_ack_age.filter(|_| answered_by_leader);
    let age = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    wire::DescribeQuorumResponse {
        leader_id,
        term: status.term,
        last_log_index: status.last_index.unwrap_or(0),
        committed_index: status.committed.unwrap_or(0),
        last_quorum_ack_ms: convert::known_or_minus_one(age),
        voters: status.voters.iter().map(member).collect(),
        learners: status.learners.iter().map(member).collect(),
        verdicts: status.verdicts.into_iter().map(verdict).collect(),
        joint: status.joint,
        snapshot_index: status.snapshot.unwrap_or(0),
        answered_by_leader,
    }
}

pub(crate) fn voter_id(field: &str, spec: &wire::VoterSpec) -> Result<VoterId, ApiError> {
    let directory = convert::uuid(&format!("{field}.directory"), &spec.directory)?;
    Ok(VoterId { id: spec.id, directory })
}

pub(crate) fn voter(spec: wire::VoterSpec) -> Result<VoterSpec, ApiError> {
    let voter = voter_id("add", &spec)?;
    let endpoint = convert::endpoint("add.endpoint", spec.endpoint)?;
    Ok(VoterSpec { voter, node: VoterNode { host: endpoint.host, port: endpoint.port, locality: spec.locality } })
}

pub(super) fn voter_wire(spec: VoterSpec) -> wire::VoterDescription {
    member(&VoterStatus { voter: spec.voter, node: spec.node, matched: None })
}

pub(super) fn elected(result: ElectionResult) -> wire::ElectionResult {
    wire::ElectionResult {
        topic: result.topic,
        partition: result.partition,
        error: result.error.map(Into::into),
        leader_id: convert::broker_wire(result.leader),
        leader_epoch: result.leader_epoch.0,
        survivors: result.survivors.into_iter().map(survivor).collect(),
        text: result.text,
    }
}

fn survivor(survivor: Survivor) -> wire::Survivor {
    let end = survivor.end;
    wire::Survivor {
        broker_id: survivor.broker.0,
        last_epoch: end.and_then(|e| e.last_epoch).map_or(-1, i64::from),
        log_end: end.map_or(0, |e| e.log_end),
        log_start: end.map_or(0, |e| e.log_start),
        damaged: end.is_some_and(|e| e.damaged),
        answered: end.is_some(),
    }
}

pub(super) fn explanation(explained: Explanation) -> wire::ExplainPartitionResponse {
    let losses = explained.losses.into_iter().map(|loss| wire::LossVerdict {
        what: loss.what,
        writes_continue: loss.writes_continue,
        acked_records_safe: loss.acked_records_safe,
        text: loss.text,
    });
    wire::ExplainPartitionResponse {
        state: Some(partition_state(explained.at.partition, &explained.state, explained.satisfies)),
        findings: explained.findings,
        losses: losses.collect(),
        topic_id: explained.at.topic.to_string(),
    }
}
