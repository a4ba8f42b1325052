//! A cluster in memory: brokers on loopback ports over one shared set of logs. Every write is at once on every
//! "replica", so a leader change loses nothing by itself; faults come from a script.

use bytes::Bytes;
use client::admin::wire as admin;
use futures_util::StreamExt;
use parking_lot::Mutex;
use protocol::batch::{Header, stamp};
use protocol::error::{ApiError, ErrorCode, Hint};
use protocol::rpc::convert::{uuid, uuid_bytes};
use protocol::rpc::pb::common::v1::Endpoint;
use protocol::rpc::pb::data::v1 as data;
use protocol::rpc::server::{self, ServerOptions};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// What happens to a produce request instead of the usual.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Refused; nothing is written.
    Refuse(ErrorCode),
    /// Written, then refused.
    RefuseAfterAppend(ErrorCode),
    /// Written, then the stream breaks.
    LoseAnswer,
    /// The stream breaks; nothing is written.
    LoseRequest,
    /// Neither written nor answered.
    Silence,
    /// A deletion: done, then the name is made again with three partitions; the answer is lost.
    MadeAgain,
}

#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) leader: u32,
    pub(crate) epoch: u32,
    pub(crate) batches: Vec<Bytes>,
    pub(crate) log_start: u64,
    pub(crate) cut_at: Option<u64>,
}

impl Partition {
    pub(crate) fn end(&self) -> u64 {
        self.batches.last().map_or(self.log_start, |b| Header::parse(b).unwrap().next_offset())
    }

    pub(crate) fn append(&mut self, batch: &[u8]) -> u64 {
        let base = self.end();
        let mut batch = batch.to_vec();
        stamp(&mut batch, base, self.epoch);
        self.batches.push(batch.into());
        base
    }

    /// Values in log order.
    pub(crate) fn values(&self) -> Vec<String> {
        let limits = protocol::batch::Limits::with_max_batch_bytes(64 << 20);
        let records = self.batches.iter().flat_map(|b| protocol::batch::records(b, &limits).unwrap());
        records.map(|r| String::from_utf8(r.unwrap().record.value.unwrap().to_vec()).unwrap()).collect()
    }
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) max_message_bytes: u32,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) cluster_id: Uuid,
    pub(crate) batch_no: u64,
    pub(crate) topics: BTreeMap<String, Topic>,
    pub(crate) addresses: BTreeMap<u32, SocketAddr>,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) admin_faults: VecDeque<Fault>,
    pub(crate) hints: bool,
    pub(crate) silent_fetches: Vec<u32>,
    pub(crate) produce_requests: u64,
    pub(crate) fetch_requests: u64,
    /// The leader epochs that fetches and lists of offsets named, with the broker asked.
    pub(crate) named: Vec<(u32, i64)>,
}

impl World {
    fn by_id(&mut self, id: Uuid) -> Result<&mut Topic, ApiError> {
        let gone = || ApiError::bad(ErrorCode::UnknownTopic, "topic_id", id, "a topic that exists");
        self.topics.values_mut().find(|t| t.id == id).ok_or_else(gone)
    }

    /// The partition, if broker `me` leads it under this epoch.
    fn led(&mut self, me: u32, id: &[u8], partition: u32, epoch: i64) -> Result<&mut Partition, ApiError> {
        let (hints, addresses) = (self.hints, self.addresses.clone());
        let topic = self.by_id(uuid("topic_id", id)?)?;
        let gone = ApiError::new(ErrorCode::UnknownPartition, "no such partition");
        let state = topic.partitions.get_mut(partition as usize).ok_or(gone)?;
        if state.leader != me {
            let error = ApiError::new(ErrorCode::NotLeader, "another one leads");
            return Err(match addresses.get(&state.leader) {
                Some(address) if hints => error.with_hint(Hint {
                    node_id: state.leader,
                    host: address.ip().to_string(),
                    port: address.port(),
                    leader_epoch: Some(state.epoch),
                }),
                _ => error,
            });
        }
        match epoch {
            -1 => Ok(state),
            e if e < i64::from(state.epoch) => Err(ApiError::new(ErrorCode::FencedLeaderEpoch, "old epoch")),
            e if e > i64::from(state.epoch) => Err(ApiError::new(ErrorCode::UnknownLeaderEpoch, "new epoch")),
            _ => Ok(state),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) world: Arc<Mutex<World>>,
    appended: Arc<Notify>,
    running: Arc<Mutex<BTreeMap<u32, Runtime>>>,
}

impl Fake {
    pub(crate) async fn start(brokers: u32) -> Self {
        let world = World {
            cluster_id: Uuid::new_v4(),
            batch_no: 1,
            topics: BTreeMap::new(),
            addresses: BTreeMap::new(),
            faults: VecDeque::new(),
            admin_faults: VecDeque::new(),
            hints: true,
            silent_fetches: Vec::new(),
            produce_requests: 0,
            fetch_requests: 0,
            named: Vec::new(),
        };
        let fake =
            Self { world: Arc::new(Mutex::new(world)), appended: Arc::new(Notify::new()), running: Arc::default() };
        for id in 1..=brokers {
            fake.run(id, "127.0.0.1:0".parse().unwrap()).await;
        }
        fake
    }

    async fn run(&self, id: u32, address: SocketAddr) {
        // A runtime of its own, so that a kill takes its connections along.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(server::bind(address)).await.unwrap().unwrap();
        self.world.lock().addresses.insert(id, listener.local_addr().unwrap());
        let node = Node { id, fake: self.clone() };
        let router = server::server(&ServerOptions::client())
            .unwrap()
            .add_service(server::data(node.clone()))
            .add_service(server::admin(node));
        runtime.spawn(async move {
            router
                .serve_with_incoming(server::incoming(listener, protocol::rpc::connections::Places::new("fake", 64)))
                .await
                .unwrap()
        });
        self.running.lock().insert(id, runtime);
    }

    /// Breaks every connection of a broker and refuses new ones.
    pub(crate) async fn kill(&self, id: u32) {
        let runtime = self.running.lock().remove(&id).expect("a broker that runs");
        let stop = move || runtime.shutdown_timeout(Duration::from_secs(5));
        tokio::task::spawn_blocking(stop).await.unwrap();
    }

    pub(crate) async fn restart(&self, id: u32) {
        let address = self.world.lock().addresses[&id];
        self.run(id, address).await;
    }

    pub(crate) fn bootstrap(&self) -> String {
        let world = self.world.lock();
        world.addresses.values().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn topic(&self, name: &str, partitions: u32) {
        let mut world = self.world.lock();
        let brokers = world.addresses.len() as u32;
        let partition = |p| Partition { leader: p % brokers + 1, epoch: 1, ..Default::default() };
        let partitions = (0..partitions).map(partition).collect();
        let topic = Topic { id: Uuid::new_v4(), partitions, max_message_bytes: 1_048_588 };
        world.topics.insert(name.to_owned(), topic);
        world.batch_no += 1;
    }

    pub(crate) fn with<R>(&self, topic: &str, partition: u32, f: impl FnOnce(&mut Partition) -> R) -> R {
        f(&mut self.world.lock().topics.get_mut(topic).unwrap().partitions[partition as usize])
    }

    /// Moves a partition to a leader (0 = none) under the next epoch.
    pub(crate) fn lead(&self, topic: &str, partition: u32, leader: u32) {
        self.with(topic, partition, |p| {
            p.leader = leader;
            p.epoch += 1;
        });
        self.world.lock().batch_no += 1;
    }

    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.world.lock().faults.extend(faults);
    }

    pub(crate) fn append(&self, topic: &str, partition: u32, batch: &[u8]) -> u64 {
        let base = self.with(topic, partition, |p| p.append(batch));
        self.appended.notify_waiters();
        base
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if Arc::strong_count(&self.running) == 1 {
            std::mem::take(&mut *self.running.lock()).into_values().for_each(Runtime::shutdown_background);
        }
    }
}

#[derive(Clone)]
struct Node {
    id: u32,
    fake: Fake,
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

enum Reply {
    Answer(data::ProduceResponse),
    Break,
    Nothing,
}

impl Node {
    fn produce_one(&self, request: &data::ProduceRequest) -> Reply {
        let mut world = self.fake.world.lock();
        world.produce_requests += 1;
        let fault = world.faults.pop_front();
        let max = world.topics.values().map(|t| t.max_message_bytes as usize).max().unwrap_or(0);
        let led = world.led(self.id, &request.topic_id, request.partition, request.leader_epoch);
        let leader_epoch = led.as_ref().map_or(0, |partition| partition.epoch);
        let state = data::DataState { node_id: self.id, leader_epoch, ..Default::default() };
        let refuse = |error: ApiError| {
            let (correlation, error, state) = (request.correlation, Some(error.into()), Some(state));
            Reply::Answer(data::ProduceResponse { correlation, error, base_offset: 0, state })
        };
        let partition = match (led, fault) {
            (Err(error), _) => return refuse(error),
            (_, Some(Fault::Refuse(code))) => return refuse(ApiError::new(code, "scripted")),
            (_, Some(Fault::Silence)) => return Reply::Nothing,
            (_, Some(Fault::LoseRequest)) => return Reply::Break,
            (Ok(_), _) if request.batch.len() > max => {
                return refuse(ApiError::bad(ErrorCode::MessageTooLarge, "batch", request.batch.len(), max));
            }
            (Ok(partition), _) => partition,
        };
        let base_offset = partition.append(&request.batch);
        drop(world);
        self.fake.appended.notify_waiters();
        match fault {
            Some(Fault::RefuseAfterAppend(code)) => refuse(ApiError::new(code, "scripted")),
            Some(Fault::LoseAnswer) => Reply::Break,
            _ => Reply::Answer(data::ProduceResponse {
                correlation: request.correlation,
                error: None,
                base_offset,
                state: Some(state),
            }),
        }
    }

    fn fetch_one(&self, asked: &data::FetchPartition) -> data::FetchedPartition {
        let mut world = self.fake.world.lock();
        world.named.push((self.id, asked.leader_epoch));
        let mut answer = data::FetchedPartition {
            topic_id: asked.topic_id.clone(),
            partition: asked.partition,
            ..Default::default()
        };
        let partition = match world.led(self.id, &asked.topic_id, asked.partition, asked.leader_epoch) {
            Ok(partition) => partition,
            Err(error) => {
                answer.error = Some(error.into());
                return answer;
            }
        };
        answer.state = Some(data::DataState {
            node_id: self.id,
            leader_epoch: partition.epoch,
            high_watermark: partition.end() as i64,
            log_start: partition.log_start,
            unleased: false,
        });
        let outside = asked.offset < partition.log_start || asked.offset > partition.end();
        if let Some(cut) = partition.cut_at.filter(|cut| asked.last_fetched_epoch >= 0 && asked.offset > *cut) {
            let mut error = ApiError::new(ErrorCode::OffsetOutOfRange, "parted");
            error.field = "last_fetched_epoch".to_owned();
            error.limit = cut.to_string();
            answer.error = Some(error.into());
        } else if outside {
            answer.error = Some(ApiError::new(ErrorCode::OffsetOutOfRange, "outside").into());
        } else {
            let mut bytes = Vec::new();
            for batch in &partition.batches {
                if Header::parse(batch).is_ok_and(|h| h.next_offset() > asked.offset) {
                    if !bytes.is_empty() && bytes.len() + batch.len() > asked.max_bytes as usize {
                        break;
                    }
                    bytes.extend_from_slice(batch);
                }
            }
            answer.batches = bytes.into();
        }
        answer
    }

    fn scripted_admin(&self) -> Option<Fault> {
        self.fake.world.lock().admin_faults.pop_front()
    }
}

#[tonic::async_trait]
impl data::data_server::Data for Node {
    type ProduceStream = Answers<data::ProduceResponse>;

    async fn produce(
        &self,
        request: Request<Streaming<data::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let (sender, answers) = mpsc::channel(16);
        let (node, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                if !request.cluster_id.is_empty() && request.cluster_id != uuid_bytes(node.fake.world.lock().cluster_id)
                {
                    let error = ApiError::new(ErrorCode::WrongCluster, "another cluster");
                    let _ = sender.send(Err(error.into())).await;
                    return;
                }
                match node.produce_one(&request) {
                    Reply::Answer(answer) => drop(sender.send(Ok(answer)).await),
                    Reply::Break => drop(sender.send(Err(Status::unavailable("broken"))).await),
                    Reply::Nothing => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn fetch(&self, request: Request<data::FetchRequest>) -> Result<Response<data::FetchResponse>, Status> {
        let request = request.into_inner();
        self.fake.world.lock().fetch_requests += 1;
        if self.fake.world.lock().silent_fetches.contains(&self.id) {
            std::future::pending::<()>().await;
        }
        let deadline = tokio::time::Instant::now() + Duration::from_millis(request.max_wait_ms.into());
        loop {
            let appended = self.fake.appended.notified();
            let partitions: Vec<_> = request.partitions.iter().map(|asked| self.fetch_one(asked)).collect();
            let enough = partitions.iter().any(|p| p.error.is_some() || !p.batches.is_empty());
            if enough || tokio::time::timeout_at(deadline, appended).await.is_err() {
                return Ok(Response::new(data::FetchResponse { partitions }));
            }
        }
    }

    async fn list_offsets(
        &self,
        request: Request<data::ListOffsetsRequest>,
    ) -> Result<Response<data::ListOffsetsResponse>, Status> {
        let mut world = self.fake.world.lock();
        let mut partitions = Vec::new();
        for asked in request.into_inner().partitions {
            let (topic_id, partition) = (asked.topic_id.clone(), asked.partition);
            let mut listed = data::ListedOffset { topic_id, partition, offset: -1, ..Default::default() };
            match world.led(self.id, &asked.topic_id, asked.partition, asked.leader_epoch) {
                Err(error) => listed.error = Some(error.into()),
                Ok(state) => {
                    listed.offset = match asked.timestamp_ms {
                        -1 => state.end() as i64,
                        -2 => state.log_start as i64,
                        time => {
                            let limits = protocol::batch::Limits::default();
                            let all = state.batches.iter().flat_map(|b| protocol::batch::records(b, &limits).unwrap());
                            let young = all.map(Result::unwrap).find(|r| r.record.timestamp >= time);
                            young.map_or(-1, |r| r.offset as i64)
                        }
                    }
                }
            }
            partitions.push(listed);
        }
        Ok(Response::new(data::ListOffsetsResponse { partitions }))
    }

    async fn delete_records(
        &self,
        request: Request<data::DeleteRecordsRequest>,
    ) -> Result<Response<data::DeleteRecordsResponse>, Status> {
        let asked = request.into_inner();
        let mut world = self.fake.world.lock();
        let answer = match world.led(self.id, &asked.topic_id, asked.partition, -1) {
            Err(error) => data::DeleteRecordsResponse { error: Some(error.into()), ..Default::default() },
            Ok(partition) => {
                let before = u64::try_from(asked.before_offset).unwrap_or(partition.end());
                partition.log_start = before;
                data::DeleteRecordsResponse { log_start: before, ..Default::default() }
            }
        };
        Ok(Response::new(answer))
    }

    async fn routing(&self, request: Request<data::RoutingRequest>) -> Result<Response<data::RoutingResponse>, Status> {
        let world = self.fake.world.lock();
        let broker = |(id, address): (&u32, &SocketAddr)| data::RoutingBroker {
            id: *id,
            client: Some(Endpoint { host: address.ip().to_string(), port: address.port().into() }),
            ..Default::default()
        };
        let topic = |name: String| match world.topics.get(&name) {
            None => data::RoutingTopic {
                error: Some(ApiError::bad(ErrorCode::UnknownTopic, "topic", &name, "one that exists").into()),
                name,
                ..Default::default()
            },
            Some(topic) => data::RoutingTopic {
                name,
                topic_id: uuid_bytes(topic.id),
                max_message_bytes: topic.max_message_bytes,
                error: None,
                partitions: (0_u32..)
                    .zip(&topic.partitions)
                    .map(|(partition, p)| data::RoutingPartition {
                        partition,
                        leader_id: p.leader,
                        leader_epoch: p.epoch,
                        ..Default::default()
                    })
                    .collect(),
            },
        };
        Ok(Response::new(data::RoutingResponse {
            cluster_id: uuid_bytes(world.cluster_id),
            incarnation: 1,
            batch_no: world.batch_no,
            brokers: world.addresses.iter().map(broker).collect(),
            topics: request.into_inner().topics.into_iter().map(topic).collect(),
        }))
    }

    async fn describe_replica(
        &self,
        _: Request<data::DescribeReplicaRequest>,
    ) -> Result<Response<data::DescribeReplicaResponse>, Status> {
        let (node_id, role) = (self.id, "leader".to_owned());
        Ok(Response::new(data::DescribeReplicaResponse { node_id, role, ..Default::default() }))
    }
}

macro_rules! unserved {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        // Spelled as the attribute on the impl would, which does not look into macros.
        $(fn $name<'life0, 'async_trait>(
            &'life0 self,
            _: Request<admin::$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<admin::$response>, Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            let error = ApiError::new(ErrorCode::InvalidRequest, "the fake does not serve this");
            Box::pin(std::future::ready(Err(error.into())))
        })*
    };
}

#[tonic::async_trait]
impl protocol::rpc::pb::admin::v1::admin_server::Admin for Node {
    async fn create_topic(
        &self,
        request: Request<admin::CreateTopicRequest>,
    ) -> Result<Response<admin::CreateTopicResponse>, Status> {
        let asked = request.into_inner();
        let fault = self.scripted_admin();
        if let Some(Fault::Refuse(code)) = fault {
            return Err(ApiError::new(code, "scripted").into());
        }
        if self.fake.world.lock().topics.contains_key(&asked.name) {
            return Err(ApiError::bad(ErrorCode::TopicExists, "name", asked.name, "a new name").into());
        }
        self.fake.topic(&asked.name, asked.partitions);
        match fault {
            Some(Fault::RefuseAfterAppend(code)) => Err(ApiError::new(code, "scripted").into()),
            _ => Ok(Response::new(admin::CreateTopicResponse { batch_no: 1, ..Default::default() })),
        }
    }

    async fn describe_topics(
        &self,
        request: Request<admin::DescribeTopicsRequest>,
    ) -> Result<Response<admin::DescribeTopicsResponse>, Status> {
        let world = self.fake.world.lock();
        let names = request.into_inner().names;
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        let topics =
            world.topics.iter().filter(|(name, _)| wanted(name)).map(|(name, topic)| admin::TopicDescription {
                name: name.clone(),
                topic_id: uuid_bytes(topic.id),
                partition_count: topic.partitions.len() as u32,
                replication_factor: 3,
                ..Default::default()
            });
        Ok(Response::new(admin::DescribeTopicsResponse { topics: topics.collect(), batch_no: world.batch_no }))
    }

    async fn delete_topic(
        &self,
        request: Request<admin::DeleteTopicRequest>,
    ) -> Result<Response<admin::DeleteTopicResponse>, Status> {
        let name = request.into_inner().name;
        let fault = self.scripted_admin();
        let Some(topic) = self.fake.world.lock().topics.remove(&name) else {
            return Err(ApiError::bad(ErrorCode::UnknownTopic, "name", &name, "a topic that exists").into());
        };
        match fault {
            Some(Fault::RefuseAfterAppend(code)) => Err(ApiError::new(code, "scripted").into()),
            Some(Fault::MadeAgain) => {
                self.fake.topic(&name, 3);
                Err(ApiError::new(ErrorCode::OutcomeUnknown, "scripted").into())
            }
            _ => Ok(Response::new(admin::DeleteTopicResponse { topic_id: uuid_bytes(topic.id), batch_no: 1 })),
        }
    }

    async fn create_partitions(
        &self,
        request: Request<admin::CreatePartitionsRequest>,
    ) -> Result<Response<admin::CreatePartitionsResponse>, Status> {
        let asked = request.into_inner();
        let fault = self.scripted_admin();
        let mut world = self.fake.world.lock();
        let partitions = &mut world.topics.get_mut(&asked.topic).unwrap().partitions;
        if asked.total as usize <= partitions.len() {
            return Err(ApiError::new(ErrorCode::InvalidPartitions, "it has as many").into());
        }
        partitions.resize_with(asked.total as usize, Default::default);
        match fault {
            Some(Fault::RefuseAfterAppend(code)) => Err(ApiError::new(code, "scripted").into()),
            _ => Ok(Response::new(Default::default())),
        }
    }

    async fn change_voters(
        &self,
        _: Request<admin::ChangeVotersRequest>,
    ) -> Result<Response<admin::ChangeVotersResponse>, Status> {
        match self.scripted_admin() {
            Some(Fault::Refuse(code) | Fault::RefuseAfterAppend(code)) => Err(ApiError::new(code, "scripted").into()),
            _ => Ok(Response::new(Default::default())),
        }
    }

    unserved! {
        alter_configs(AlterConfigsRequest) -> AlterConfigsResponse;
        describe_configs(DescribeConfigsRequest) -> DescribeConfigsResponse;
        describe_cluster(DescribeClusterRequest) -> DescribeClusterResponse;
        describe_quorum(DescribeQuorumRequest) -> DescribeQuorumResponse;
        elect_leaders(ElectLeadersRequest) -> ElectLeadersResponse;
        shutdown_broker(ShutdownBrokerRequest) -> ShutdownBrokerResponse;
        explain_partition(ExplainPartitionRequest) -> ExplainPartitionResponse;
        metadata_hash(MetadataHashRequest) -> MetadataHashResponse;
    }
}

/// Polls a condition until it holds.
pub(crate) async fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
