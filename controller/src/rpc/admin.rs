//! Administration. Writes go through the decider; reads are answered from the committed image, on the active controller
//! and only while nobody else can be active. Any controller describes the quorum as it sees it and gives the hash of
//! its image.

use super::lifecycle::unexpected;
use super::{Context, admin_wire as convert_admin, commands};
use crate::clock;
use crate::decide::command::{Command, ConfigTarget, DeleteTopic, Reply};
use crate::decide::explain;
use crate::limits::MEMBERSHIP_DEADLINE;
use crate::quorum::{ChangeError, VoterChange};
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::TopicId;
use protocol::machine;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::ConfigResource;
use protocol::rpc::convert;
use protocol::rpc::pb::admin::v1 as wire;
use protocol::rpc::pb::admin::v1::admin_server::Admin;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) struct AdminService(pub(super) Arc<Context>);

type Answer<T> = Result<Response<T>, Status>;

impl Context {
    /// The committed image, if this controller may answer reads from it.
    fn readable(&self) -> Result<Arc<MetadataImage>, ApiError> {
        if self.decider.may_read() { Ok(self.feed.image()) } else { Err(self.decider.not_controller()) }
    }
}

/// 64 random bits for placement, made at the edge.
fn seed() -> u64 {
    machine::random()
}

fn change_error(error: &ChangeError) -> ApiError {
    let code = match error {
        ChangeError::NotLeader => ErrorCode::NotController,
        ChangeError::InProgress | ChangeError::Moved => ErrorCode::MembershipInProgress,
        ChangeError::Invalid { field, value, limit } => {
            return ApiError::bad(ErrorCode::InvalidRequest, field, value, limit);
        }
        ChangeError::Layout(_) | ChangeError::Tolerance(_) => ErrorCode::VoterLayoutRefused,
        ChangeError::NotCaughtUp { .. } => ErrorCode::VoterNotCaughtUp,
        ChangeError::Unknown(_) => ErrorCode::OutcomeUnknown,
    };
    ApiError::new(code, error.to_string())
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_topic(&self, request: Request<wire::CreateTopicRequest>) -> Answer<wire::CreateTopicResponse> {
        let request = request.into_inner();
        let command = commands::create_topic(request, TopicId(machine::uuid_v7()), seed(), clock::wall());
        match self.0.ask(Command::CreateTopic(command)).await? {
            Reply::TopicCreated { topic, batch_no, partitions } => {
                let image = self.0.feed.image();
                let rule = |isr: &[_]| image.topics.get(topic).is_none_or(|t| image.satisfies(t, isr));
                let numbered = (0u32..).zip(&partitions);
                let states = numbered.map(|(n, p)| convert_admin::partition_state(n, p, rule(&p.isr)));
                Ok(Response::new(wire::CreateTopicResponse {
                    topic_id: convert::topic_id_bytes(topic),
                    batch_no: batch_no.0,
                    partitions: states.collect(),
                }))
            }
            other => Err(unexpected(&other).into()),
        }
    }

    async fn delete_topic(&self, request: Request<wire::DeleteTopicRequest>) -> Answer<wire::DeleteTopicResponse> {
        let command = DeleteTopic { name: request.into_inner().name, at_ms: clock::wall() };
        match self.0.ask(Command::DeleteTopic(command)).await? {
            Reply::TopicDeleted { topic, batch_no } => Ok(Response::new(wire::DeleteTopicResponse {
                topic_id: convert::topic_id_bytes(topic),
                batch_no: batch_no.0,
            })),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn create_partitions(
        &self,
        request: Request<wire::CreatePartitionsRequest>,
    ) -> Answer<wire::CreatePartitionsResponse> {
        let request = request.into_inner();
        let command = commands::create_partitions(request, seed());
        match self.0.ask(Command::CreatePartitions(command)).await? {
            Reply::Committed { batch_no } => Ok(Response::new(wire::CreatePartitionsResponse { batch_no: batch_no.0 })),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn describe_topics(
        &self,
        request: Request<wire::DescribeTopicsRequest>,
    ) -> Answer<wire::DescribeTopicsResponse> {
        let request = request.into_inner();
        let image = self.0.readable()?;
        let describe = |t| convert_admin::topic(&image, t, request.with_partitions);
        let topics = if request.names.is_empty() {
            image.topics.iter().filter(|t| t.is_live() || request.include_deleted).map(describe).collect()
        } else {
            let named = request.names.iter();
            named.map(|n| image.topics.by_name(n).map_or_else(|| convert_admin::unknown_topic(n), describe)).collect()
        };
        Ok(Response::new(wire::DescribeTopicsResponse { topics, batch_no: image.batch_no.0 }))
    }

    async fn alter_configs(&self, request: Request<wire::AlterConfigsRequest>) -> Answer<wire::AlterConfigsResponse> {
        let request = request.into_inner();
        let command = commands::alter_configs(request)?;
        match self.0.ask(Command::AlterConfigs(command)).await? {
            Reply::Committed { batch_no } => Ok(Response::new(wire::AlterConfigsResponse { batch_no: batch_no.0 })),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn describe_configs(
        &self,
        request: Request<wire::DescribeConfigsRequest>,
    ) -> Answer<wire::DescribeConfigsResponse> {
        let request = request.into_inner();
        let image = self.0.readable()?;
        let resource = match convert_admin::target(request.kind, &request.name)? {
            ConfigTarget::Cluster => ConfigResource::Cluster,
            ConfigTarget::Broker(id) => ConfigResource::Broker(id),
            ConfigTarget::Topic(name) => match image.topics.by_name(&name) {
                Some(topic) => ConfigResource::Topic(topic.id),
                None => {
                    let limit = "the name of a topic that exists";
                    return Err(ApiError::bad(ErrorCode::UnknownTopic, "topic", name, limit).into());
                }
            },
        };
        let entries = convert_admin::config_values(&image, resource);
        Ok(Response::new(wire::DescribeConfigsResponse { entries }))
    }

    async fn describe_cluster(
        &self,
        _request: Request<wire::DescribeClusterRequest>,
    ) -> Answer<wire::DescribeClusterResponse> {
        self.0.readable()?;
        let (image, counts) = self.0.walks.census.of(&self.0.feed).await?;
        // Once more: the walk takes a while, and an answer must not be older than its question.
        self.0.readable()?;
        let sessions = self.0.decider.sessions().lock().clone();
        let now = clock::mono();
        let brokers = image.brokers.iter().map(|b| convert_admin::broker(&image, &sessions, b, now)).collect();
        Ok(Response::new(wire::DescribeClusterResponse {
            cluster: Some(convert::cluster_ref(self.0.cluster_id, image.cluster.incarnation)),
            batch_no: image.batch_no.0,
            metadata_version: u32::from(image.cluster.metadata_version),
            active_controller: self.0.quorum.me().id,
            brokers,
            topics: counts.topics,
            partitions: counts.partitions,
            offline_partitions: counts.offline,
            under_replicated: counts.under_replicated,
            under_min_isr: counts.under_min_isr,
        }))
    }

    async fn describe_quorum(
        &self,
        _request: Request<wire::DescribeQuorumRequest>,
    ) -> Answer<wire::DescribeQuorumResponse> {
        Ok(Response::new(convert_admin::quorum(self.0.quorum.me(), self.0.quorum.status())))
    }

    async fn change_voters(&self, request: Request<wire::ChangeVotersRequest>) -> Answer<wire::ChangeVotersResponse> {
        let request = request.into_inner();
        let change = VoterChange {
            add: request.add.into_iter().map(convert_admin::voter).collect::<Result<_, _>>()?,
            remove: request.remove.iter().map(|v| convert_admin::voter_id("remove", v)).collect::<Result<_, _>>()?,
            force: request.force,
            dry_run: request.dry_run,
        };
        let changed = self.0.quorum.change_voters(change, MEMBERSHIP_DEADLINE).await;
        let changed = changed.map_err(|e| self.0.with_hint(change_error(&e)))?;
        Ok(Response::new(wire::ChangeVotersResponse {
            verdicts: changed.verdicts.into_iter().map(convert_admin::verdict).collect(),
            voters: changed.voters.into_iter().map(convert_admin::voter_wire).collect(),
        }))
    }

    async fn elect_leaders(&self, request: Request<wire::ElectLeadersRequest>) -> Answer<wire::ElectLeadersResponse> {
        let command = commands::elect_leaders(request.into_inner(), clock::wall())?;
        match self.0.ask(Command::ElectLeaders(command)).await? {
            Reply::Elected(results) => {
                let results = results.into_iter().map(convert_admin::elected).collect();
                Ok(Response::new(wire::ElectLeadersResponse { results }))
            }
            other => Err(unexpected(&other).into()),
        }
    }

    async fn shutdown_broker(
        &self,
        request: Request<wire::ShutdownBrokerRequest>,
    ) -> Answer<wire::ShutdownBrokerResponse> {
        let broker = convert::broker_id("broker_id", request.into_inner().broker_id)?;
        match self.0.ask(Command::ShutdownBroker { broker }).await? {
            Reply::Committed { batch_no } => Ok(Response::new(wire::ShutdownBrokerResponse { batch_no: batch_no.0 })),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn explain_partition(
        &self,
        request: Request<wire::ExplainPartitionRequest>,
    ) -> Answer<wire::ExplainPartitionResponse> {
        let request = request.into_inner();
        let image = self.0.readable()?;
        let explained = explain::explain_partition(&image, &request.topic, request.partition)?;
        Ok(Response::new(convert_admin::explanation(explained)))
    }

    async fn metadata_hash(&self, _request: Request<wire::MetadataHashRequest>) -> Answer<wire::MetadataHashResponse> {
        let (image, image_hash) = self.0.walks.image_hash.of(&self.0.feed).await?;
        Ok(Response::new(wire::MetadataHashResponse {
            node_id: self.0.quorum.me().id,
            batch_no: image.batch_no.0,
            chain_hash: image.chain_hash,
            image_hash,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::error::{Effect, Next};
    use std::time::Duration;

    #[test]
    fn a_voter_that_never_caught_up_is_named_and_asking_again_is_no_help() {
        let voter = crate::quorum::VoterId::from(4);
        let told = change_error(&ChangeError::NotCaughtUp { voter, waited: Duration::from_secs(60) });
        assert_eq!((told.code.effect(), told.code.next()), (Effect::None, Next::GiveUp), "{told}");
        assert!(told.message.contains(&voter.to_string()) && told.message.contains("reachable"), "{told}");
    }
}
