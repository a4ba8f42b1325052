//! Administration: topics, configs, brokers, voters, elections.
//!
//! Owns: the [`Admin`] handle; finding a node that takes the request, and repeating it until the deadline.
//! Never: decides anything a server decides; caches an answer.
//! Invariant: a request is repeated only in ways that make it the same request: every command here names the state it
//! wants, so doing it twice does it once; a deletion names no such state (the name may be another topic's by then) and
//! is not repeated once it may have been done. A refusal after an attempt whose effect is unknown says unknown.
//!
//! Brokers pass requests on to the active controller; controllers may be given as bootstrap addresses as well.

mod calls;

use crate::cluster::Cluster;
use crate::config::{ClientConfig, parse_address};
use crate::error::{Effect, Error};
use crate::limits;
use crate::routing::Routing;
use crate::transport::Node;
use calls::{Tries, refused};
use protocol::error::ErrorCode;
use protocol::metadata::record::Endpoint;
use protocol::rpc::pb::admin::v1 as pb;
use protocol::rpc::pb::common::v1 as pb_common;
use protocol::rpc::pb::data::v1 as data;
use std::sync::Arc;
use std::time::Duration;

pub use protocol::rpc::pb::admin::v1 as wire;
pub use protocol::rpc::pb::common::v1 as wire_common;

/// Administers a cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    cluster: Cluster,
    timeout_ms: u64,
}

/// What a topic is to be.
#[derive(Debug, Clone, Default)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Replicas of each, 0 for the cluster's default.
    pub replicas: u32,
    /// Configs set on it.
    pub configs: Vec<(String, String)>,
}

impl Admin {
    /// A handle; must be made inside a tokio runtime. `request.timeout.ms` bounds each call as a whole.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        let timeout_ms = config.request_timeout_ms;
        Self { cluster: Cluster::new(config), timeout_ms }
    }

    /// The same with another deadline per call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { cluster: self.cluster.clone(), timeout_ms: timeout.as_millis() as u64 }
    }

    /// Creates a topic; with `dry_run` only checks. Committed when it returns, see [`Admin::await_leaders`] for more.
    ///
    /// # Errors
    /// `TopicExists` (unless an earlier attempt of this call may have made it as asked), bad names, counts, configs.
    pub async fn create_topic(&self, topic: &NewTopic, dry_run: bool) -> Result<pb::CreateTopicResponse, Error> {
        let request = pb::CreateTopicRequest {
            name: topic.name.clone(),
            partitions: topic.partitions,
            replicas: topic.replicas,
            configs: entries(&topic.configs),
            validate_only: dry_run,
        };
        let mut tries = Tries::default();
        let outcome = self
            .call("create topic", request, &mut tries, |node, request, within| async move {
                node.create_topic(request, within).await
            })
            .await;
        match outcome {
            Err(error) if error.code() == Some(ErrorCode::TopicExists) && tries.maybe_done => {
                self.created_before(topic).await.ok_or(error)
            }
            outcome => outcome.map_err(|error| tries.in_doubt(error)),
        }
    }

    /// After an attempt of unknown effect: the topic, if it is what was asked for.
    async fn created_before(&self, topic: &NewTopic) -> Option<pb::CreateTopicResponse> {
        let found = self.describe_topics(std::slice::from_ref(&topic.name), true).await.ok()?;
        let described = found.topics.into_iter().find(|t| t.name == topic.name && t.error.is_none())?;
        let same = described.partition_count == topic.partitions
            && (topic.replicas == 0 || described.replication_factor == topic.replicas);
        same.then_some(pb::CreateTopicResponse {
            topic_id: described.topic_id,
            batch_no: found.batch_no,
            partitions: described.partitions,
        })
    }

    /// Deletes a topic. It can be restored by its id until `delete.grace.ms` has passed.
    ///
    /// # Errors
    /// `UnknownTopic`. If an attempt may or may not have deleted it there is no second one, which could hit a topic that
    /// somebody has made since: success, with an empty id, if there is no topic of that name now, else unknown.
    pub async fn delete_topic(&self, name: &str) -> Result<pb::DeleteTopicResponse, Error> {
        let request = pb::DeleteTopicRequest { name: name.to_owned() };
        let mut tries = Tries::once();
        let outcome = self
            .call("delete topic", request, &mut tries, |node, request, within| async move {
                node.delete_topic(request, within).await
            })
            .await;
        match outcome {
            Err(_) if tries.maybe_done && self.is_gone(name).await => Ok(Default::default()),
            outcome => outcome.map_err(|error| tries.in_doubt(error)),
        }
    }

    /// Whether it is certain that no topic has that name.
    async fn is_gone(&self, name: &str) -> bool {
        let Ok(found) = self.describe_topics(&[name.to_owned()], false).await else { return false };
        let unknown = |error: &pb_common::Error| ErrorCode::from_wire(error.code) == ErrorCode::UnknownTopic;
        found.topics.iter().filter(|t| t.name == name).all(|t| t.error.as_ref().is_some_and(unknown))
    }

    /// Grows a topic to `total` partitions.
    ///
    /// # Errors
    /// `InvalidPartitions` unless it grows, `UnknownTopic`.
    pub async fn create_partitions(
        &self,
        topic: &str,
        total: u32,
        dry_run: bool,
    ) -> Result<pb::CreatePartitionsResponse, Error> {
        let request = pb::CreatePartitionsRequest { topic: topic.to_owned(), total, validate_only: dry_run };
        self.command("add partitions", request, |node, request, within| async move {
            node.create_partitions(request, within).await
        })
        .await
    }

    /// Describes topics, all if `names` is empty. A name that does not exist is an item with an error.
    ///
    /// # Errors
    /// Only if nobody answers.
    pub async fn describe_topics(
        &self,
        names: &[String],
        with_partitions: bool,
    ) -> Result<pb::DescribeTopicsResponse, Error> {
        let request = pb::DescribeTopicsRequest { names: names.to_vec(), with_partitions, include_deleted: false };
        self.question("describe topics", request, |node, request, within| async move {
            node.describe_topics(request, within).await
        })
        .await
    }

    /// Sets and unsets configs.
    ///
    /// # Errors
    /// `InvalidConfig` naming key, value and limit; then nothing was changed.
    pub async fn alter_configs(
        &self,
        kind: pb::ResourceKind,
        name: &str,
        set: &[(String, String)],
        unset: &[String],
        dry_run: bool,
    ) -> Result<pb::AlterConfigsResponse, Error> {
        let request = pb::AlterConfigsRequest {
            kind: kind.into(),
            name: name.to_owned(),
            set: entries(set),
            unset: unset.to_vec(),
            validate_only: dry_run,
        };
        self.command("alter configs", request, |node, request, within| async move {
            node.alter_configs(request, within).await
        })
        .await
    }

    /// Effective configs with their sources.
    ///
    /// # Errors
    /// Unknown topic or broker.
    pub async fn describe_configs(
        &self,
        kind: pb::ResourceKind,
        name: &str,
    ) -> Result<pb::DescribeConfigsResponse, Error> {
        let request = pb::DescribeConfigsRequest { kind: kind.into(), name: name.to_owned() };
        self.question("describe configs", request, |node, request, within| async move {
            node.describe_configs(request, within).await
        })
        .await
    }

    /// Brokers and counts.
    ///
    /// # Errors
    /// Only if nobody answers.
    pub async fn describe_cluster(&self) -> Result<pb::DescribeClusterResponse, Error> {
        let request = pb::DescribeClusterRequest {};
        self.question("describe cluster", request, |node, request, within| async move {
            node.describe_cluster(request, within).await
        })
        .await
    }

    /// Voters, learners, and what the loss of each data centre would do.
    ///
    /// # Errors
    /// Only if nobody answers.
    pub async fn describe_quorum(&self) -> Result<pb::DescribeQuorumResponse, Error> {
        let request = pb::DescribeQuorumRequest {};
        self.question("describe quorum", request, |node, request, within| async move {
            node.describe_quorum(request, within).await
        })
        .await
    }

    /// Changes the voter set in one joint step. Waits for added ones to catch up, so give it time.
    ///
    /// # Errors
    /// `VoterLayoutRefused` unless forced, `VoterNotCaughtUp`, `MembershipInProgress`.
    pub async fn change_voters(&self, request: pb::ChangeVotersRequest) -> Result<pb::ChangeVotersResponse, Error> {
        self.command("change voters", request, |node, request, within| async move {
            node.change_voters(request, within).await
        })
        .await
    }

    /// Elects leaders: the preferred ones, or (unclean) one that may lose records.
    ///
    /// # Errors
    /// Only if nobody answers; refusals are items of the answer.
    pub async fn elect_leaders(&self, request: pb::ElectLeadersRequest) -> Result<pb::ElectLeadersResponse, Error> {
        self.command("elect leaders", request, |node, request, within| async move {
            node.elect_leaders(request, within).await
        })
        .await
    }

    /// Asks a broker to leave: leaders move first, then it stops.
    ///
    /// # Errors
    /// `UnknownBroker`.
    pub async fn shutdown_broker(&self, broker: u32) -> Result<pb::ShutdownBrokerResponse, Error> {
        let request = pb::ShutdownBrokerRequest { broker_id: broker };
        self.command("shut down broker", request, |node, request, within| async move {
            node.shutdown_broker(request, within).await
        })
        .await
    }

    /// Why a partition is as it is, and what each loss would do.
    ///
    /// # Errors
    /// Unknown topic or partition.
    pub async fn explain_partition(&self, topic: &str, partition: u32) -> Result<pb::ExplainPartitionResponse, Error> {
        let request = pb::ExplainPartitionRequest { topic: topic.to_owned(), partition };
        self.question("explain partition", request, |node, request, within| async move {
            node.explain_partition(request, within).await
        })
        .await
    }

    /// The metadata hash of one node, by address.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn metadata_hash(&self, address: &Endpoint) -> Result<pb::MetadataHashResponse, Error> {
        let node = self.node(address, "metadata hash")?;
        let within = Duration::from_millis(self.timeout_ms.min(limits::ADMIN_ATTEMPT_MS));
        let answer = node.metadata_hash(pb::MetadataHashRequest {}, within).await;
        answer.map_err(|error| refused("metadata hash", node.address(), error))
    }

    /// What one broker's replica knows about itself.
    ///
    /// # Errors
    /// The broker does not answer, or has no such replica.
    pub async fn describe_replica(
        &self,
        address: &Endpoint,
        topic_id: &[u8],
        partition: u32,
    ) -> Result<data::DescribeReplicaResponse, Error> {
        let node = self.node(address, "describe replica")?;
        let within = Duration::from_millis(self.timeout_ms.min(limits::ADMIN_ATTEMPT_MS));
        let request = data::DescribeReplicaRequest { topic_id: topic_id.to_vec().into(), partition };
        let answer = node.describe_replica(request, within).await;
        let refuse = |error| refused("describe replica", node.address(), error);
        let mut answer = answer.map_err(refuse)?;
        match answer.error.take() {
            Some(error) => Err(refuse(error.into())),
            None => Ok(answer),
        }
    }

    /// Deletes the records of a partition below `before` (`None` = the high watermark). Returns the new log start.
    ///
    /// # Errors
    /// Unknown topic or partition, `OffsetOutOfRange` above the high watermark.
    pub async fn delete_records(&self, topic: &str, partition: u32, before: Option<u64>) -> Result<u64, Error> {
        let info = self.cluster.topic(topic, self.timeout_ms).await?;
        let request = data::DeleteRecordsRequest {
            topic_id: protocol::rpc::convert::uuid_bytes(info.id),
            partition,
            before_offset: protocol::rpc::convert::known_or_minus_one(before),
            timeout_ms: u32::try_from(self.timeout_ms).unwrap_or(u32::MAX),
        };
        let answer = self.at_leader("delete records", topic, partition, |node, within| {
            let request = request.clone();
            async move {
                let mut answer = node.delete_records(request, within).await?;
                answer.error.take().map_or(Ok(answer), |error| Err(error.into()))
            }
        });
        Ok(answer.await?.log_start)
    }

    /// Brokers as routing shows them.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn routing(&self) -> Result<Arc<Routing>, Error> {
        self.cluster.refresh().await?;
        Ok(self.cluster.routing())
    }

    /// Waits until the brokers' routing shows a leader for every partition of a topic.
    ///
    /// # Errors
    /// [`Error::Timeout`] naming the partitions without one.
    pub async fn await_leaders(&self, topic: &str, within: Duration) -> Result<(), Error> {
        let clock = self.cluster.clock();
        let start = clock.now();
        loop {
            let left = within.as_millis() as u64;
            let info = self.cluster.topic(topic, left).await?;
            self.cluster.refresh().await?;
            let info = self.cluster.routing().topic(topic).cloned().unwrap_or(info);
            let leaderless: Vec<String> = (0_u32..)
                .zip(&info.partitions)
                .filter(|(_, p)| p.leader.is_none())
                .map(|(number, _)| number.to_string())
                .collect();
            if leaderless.is_empty() {
                return Ok(());
            }
            let waited_ms = clock.now() - start;
            if waited_ms >= left {
                let last = format!("partitions {} of {topic} have no leader", leaderless.join(", "));
                return Err(Error::Timeout {
                    request: "wait for leaders",
                    waited_ms,
                    effect: Effect::NotWritten,
                    last,
                });
            }
            tokio::time::sleep(Duration::from_millis(limits::POLL_PAUSE_MS)).await;
        }
    }

    fn node(&self, address: &Endpoint, request: &'static str) -> Result<Node, Error> {
        self.cluster
            .nodes()
            .node(address)
            .map_err(|error| refused(request, crate::config::show_address(address), error))
    }
}

fn entries(configs: &[(String, String)]) -> Vec<pb::ConfigEntry> {
    configs.iter().map(|(key, value)| pb::ConfigEntry { key: key.clone(), value: value.clone() }).collect()
}

/// `HOST:PORT` as an address, for callers that have text.
#[must_use]
pub fn address(text: &str) -> Option<Endpoint> {
    parse_address(text)
}
