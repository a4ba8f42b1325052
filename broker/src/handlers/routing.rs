//! Which brokers there are and who leads what, out of the image alone.
//!
//! Never: knows more than the image that every shard of this broker has taken, so a client is never sent here for a
//! partition that the shard has not heard of.

use protocol::error::{ApiError, ErrorCode};
use protocol::metadata::image::MetadataImage;
use protocol::metadata::topics::Topic;
use protocol::rpc::convert::{broker_wire, brokers_wire, topic_id_bytes, uuid_bytes};
use protocol::rpc::pb::data::v1::{RoutingBroker, RoutingPartition, RoutingRequest, RoutingResponse, RoutingTopic};

/// Answers a routing request.
///
/// # Errors
/// `LeaderNotAvailable` from a broker that has no metadata yet.
pub fn routing(image: &MetadataImage, request: &RoutingRequest) -> Result<RoutingResponse, ApiError> {
    super::informed(image)?;
    let topics = if request.all {
        image.topics.iter().filter(|t| t.is_live()).map(|t| topic(image, t)).collect()
    } else {
        request.topics.iter().map(|name| by_name(image, name)).collect()
    };
    Ok(RoutingResponse {
        cluster_id: uuid_bytes(image.cluster.cluster_id),
        incarnation: image.cluster.incarnation,
        batch_no: image.batch_no.0,
        brokers: image
            .brokers
            .iter()
            .map(|b| RoutingBroker {
                id: b.id.0,
                client: Some((&b.client).into()),
                locality: b.locality.to_string(),
                fenced: b.is_fenced(),
                epoch: b.epoch.0,
            })
            .collect(),
        topics,
    })
}

fn by_name(image: &MetadataImage, name: &str) -> RoutingTopic {
    if let Some(found) = image.topics.by_name(name) {
        return topic(image, found);
    }
    let mut error = ApiError::new(ErrorCode::UnknownTopic, format!("topic {name:?} does not exist"));
    error.field = "topic".to_owned();
    error.value = name.to_owned();
    RoutingTopic { name: name.to_owned(), error: Some(error.into()), ..RoutingTopic::default() }
}

fn topic(image: &MetadataImage, topic: &Topic) -> RoutingTopic {
    RoutingTopic {
        name: topic.name.clone(),
        topic_id: topic_id_bytes(topic.id),
        error: None,
        partitions: (0u32..)
            .zip(topic.partitions.iter())
            .map(|(partition, state)| RoutingPartition {
                partition,
                leader_id: broker_wire(state.leader),
                leader_epoch: state.leader_epoch.0,
                replicas: brokers_wire(&state.replicas),
                isr: brokers_wire(&state.isr),
            })
            .collect(),
        max_message_bytes: image.topic_config(topic.id).max_message_bytes,
    }
}
