//! Broker to controller. Writes go through the decider. Heartbeats are soft state and answered here while the quorum is
//! fresh: standbys note the contact and answer "not active"; only the active controller's answers renew a lease.

use super::Context;
use crate::clock;
use crate::decide::command::{
    AlterPartition, AlterPartitions, AlterResult, Command, Heartbeat, HeartbeatAnswer, ProveRestart, Register, Reply,
    ReportLogEnds, ReportedEnd,
};
use crate::decide::sessions::HeartbeatDecision;
use crate::limits::{HEARTBEAT_ANSWER_QUEUE, HEARTBEAT_STREAMS_MAX};
use crate::tasks;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BatchNo, BrokerEpoch, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition};
use protocol::locality::Locality;
use protocol::rpc::convert;
use protocol::rpc::pb::lifecycle::v1 as wire;
use protocol::rpc::pb::lifecycle::v1::lifecycle_server::Lifecycle;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(super) struct LifecycleService(pub(super) Arc<Context>);

impl Context {
    /// Asks the decider; a refusal that names no leader gets the hint.
    pub(super) async fn ask(&self, command: Command) -> Result<Reply, ApiError> {
        self.decider.ask(command).await.map_err(|e| self.with_hint(e))
    }
}

/// A reply of another kind than the command's is a broken invariant of `decide`.
pub(super) fn unexpected(reply: &Reply) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("the decider answered another question: {reply:?}"))
}

fn version(field: &str, number: u32) -> Result<u16, ApiError> {
    u16::try_from(number).map_err(|_| ApiError::bad(ErrorCode::InvalidRequest, field, number, "0 to 65535"))
}

fn register_command(request: wire::RegisterRequest) -> Result<Register, ApiError> {
    let locality: Result<Locality, _> = request.locality.parse();
    let directories = request.directories.iter().map(|d| convert::uuid("directories", d));
    Ok(Register {
        broker: convert::broker_id("broker_id", request.broker_id)?,
        incarnation: convert::uuid("incarnation", &request.incarnation)?,
        internal: convert::endpoint("internal", request.internal)?,
        client: convert::endpoint("client", request.client)?,
        locality: locality
            .map_err(|e| ApiError::bad(ErrorCode::InvalidRequest, "locality", &request.locality, e.to_string()))?,
        directories: directories.collect::<Result<_, _>>()?,
        min_metadata_version: version("min_metadata_version", request.min_metadata_version)?,
        max_metadata_version: version("max_metadata_version", request.max_metadata_version)?,
        previous_epoch: (request.previous_broker_epoch != 0).then_some(BrokerEpoch(request.previous_broker_epoch)),
    })
}

fn at(topic: &[u8], partition: u32) -> Result<TopicPartition, ApiError> {
    Ok(TopicPartition { topic: convert::topic_id(topic)?, partition })
}

fn proposal(wire: wire::AlterPartition) -> Result<AlterPartition, ApiError> {
    let member = |m: &wire::IsrMember| Ok((convert::broker_id("new_isr", m.broker_id)?, BrokerEpoch(m.broker_epoch)));
    Ok(AlterPartition {
        at: at(&wire.topic_id, wire.partition)?,
        leader_epoch: LeaderEpoch(wire.leader_epoch),
        partition_epoch: PartitionEpoch(wire.partition_epoch),
        isr: wire.new_isr.iter().map(member).collect::<Result<_, ApiError>>()?,
    })
}

fn altered(result: AlterResult) -> wire::AlterPartitionResult {
    wire::AlterPartitionResult {
        topic_id: convert::topic_id_bytes(result.at.topic),
        partition: result.at.partition,
        error_code: result.error.map_or(0, |code| u32::from(code as u16)),
        leader_id: convert::broker_wire(result.leader),
        leader_epoch: result.leader_epoch.0,
        partition_epoch: result.partition_epoch.0,
        isr: convert::brokers_wire(&result.isr),
    }
}

fn reported(end: wire::LogEnd) -> Result<ReportedEnd, ApiError> {
    // A log that never held anything has no last epoch. One that was emptied from its head has.
    let last_epoch = (end.log_end > 0).then_some(end.last_epoch);
    Ok(ReportedEnd {
        at: at(&end.topic_id, end.partition)?,
        leader_epoch: LeaderEpoch(end.leader_epoch),
        last_epoch,
        log_end: end.log_end,
        log_start: end.log_start,
        damaged: end.damaged,
    })
}

#[tonic::async_trait]
impl Lifecycle for LifecycleService {
    type HeartbeatStream = BoxStream<'static, Result<wire::HeartbeatResponse, Status>>;

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let request = request.into_inner();
        self.0.check_command(request.cluster.as_ref())?;
        match self.0.ask(Command::Register(register_command(request)?)).await? {
            Reply::Registered(registered) => Ok(Response::new(wire::RegisterResponse {
                broker_epoch: registered.epoch.0,
                batch_no: registered.batch_no.0,
                proof_admissible: registered.proof_admissible,
                max_inter_dc_rtt_ms: self.0.timers.rtt_ms,
            })),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn prove_restart(
        &self,
        request: Request<wire::ProveRestartRequest>,
    ) -> Result<Response<wire::ProveRestartResponse>, Status> {
        let request = request.into_inner();
        self.0.check_command(request.cluster.as_ref())?;
        let mut proved = Vec::new();
        for named in &request.proved {
            let topic: TopicId = convert::topic_id(&named.topic_id)?;
            proved.extend(named.partitions.iter().map(|partition| TopicPartition { topic, partition: *partition }));
        }
        let command = ProveRestart {
            broker: convert::broker_id("broker_id", request.broker_id)?,
            epoch: BrokerEpoch(request.broker_epoch),
            proved,
            last: request.last,
        };
        match self.0.ask(Command::ProveRestart(command)).await? {
            Reply::ProofNoted { batch_no } => Ok(Response::new(wire::ProveRestartResponse { batch_no: batch_no.0 })),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<wire::HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let place = Arc::clone(&self.0.heartbeat_places).try_acquire_owned().map_err(|_| {
            let text = format!("{HEARTBEAT_STREAMS_MAX} heartbeat streams are open on this controller");
            ApiError::new(ErrorCode::Overloaded, text)
        })?;
        let (answers, receiver) = mpsc::channel(HEARTBEAT_ANSWER_QUEUE);
        let number = self.0.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let beats =
            Beats { context: Arc::clone(&self.0), number, answers, broker: None, checked: false, _place: place };
        tasks::spawn("heartbeats", beats.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn alter_partitions(
        &self,
        request: Request<wire::AlterPartitionsRequest>,
    ) -> Result<Response<wire::AlterPartitionsResponse>, Status> {
        let request = request.into_inner();
        self.0.check_command(request.cluster.as_ref())?;
        let command = AlterPartitions {
            broker: convert::broker_id("broker_id", request.broker_id)?,
            epoch: BrokerEpoch(request.broker_epoch),
            partitions: request.partitions.into_iter().map(proposal).collect::<Result<_, _>>()?,
        };
        match self.0.ask(Command::AlterPartitions(command)).await? {
            Reply::Altered(results) => {
                let results = results.into_iter().map(altered).collect();
                Ok(Response::new(wire::AlterPartitionsResponse { results }))
            }
            other => Err(unexpected(&other).into()),
        }
    }

    async fn report_log_ends(
        &self,
        request: Request<wire::ReportLogEndsRequest>,
    ) -> Result<Response<wire::ReportLogEndsResponse>, Status> {
        let request = request.into_inner();
        self.0.check_command(request.cluster.as_ref())?;
        let command = ReportLogEnds {
            broker: convert::broker_id("broker_id", request.broker_id)?,
            epoch: BrokerEpoch(request.broker_epoch),
            ends: request.ends.into_iter().map(reported).collect::<Result<_, _>>()?,
        };
        self.0.ask(Command::ReportLogEnds(command)).await?;
        Ok(Response::new(wire::ReportLogEndsResponse {}))
    }
}

/// One heartbeat stream.
struct Beats {
    context: Arc<Context>,
    number: u64,
    answers: mpsc::Sender<Result<wire::HeartbeatResponse, Status>>,
    broker: Option<protocol::ids::BrokerId>,
    checked: bool,
    _place: OwnedSemaphorePermit,
}

impl Beats {
    async fn run(mut self, mut requests: Streaming<wire::HeartbeatRequest>) {
        let stopping = self.context.stopping.clone();
        loop {
            let request = tokio::select! {
                () = stopping.cancelled() => return,
                request = requests.message() => request,
            };
            let Ok(Some(request)) = request else { break };
            if self.answers.is_closed() {
                break;
            }
            if let Err(error) = self.beat(request) {
                let _broker_may_be_gone = self.answers.try_send(Err(error.into()));
                break;
            }
        }
        if let Some(broker) = self.broker {
            self.context.decider.sessions().lock().note_reset(broker, self.number);
        }
    }

    fn beat(&mut self, request: wire::HeartbeatRequest) -> Result<(), ApiError> {
        if !self.checked {
            self.context.check(request.cluster.as_ref(), true)?;
            self.checked = true;
        }
        let heartbeat = Heartbeat {
            broker: convert::broker_id("broker_id", request.broker_id)?,
            epoch: BrokerEpoch(request.broker_epoch),
            stream: self.number,
            applied: BatchNo(request.applied_batch_no),
            wants_unfence: request.wants_unfence,
            wants_shutdown: request.wants_shutdown,
        };
        if self.broker.is_some_and(|known| known != heartbeat.broker) {
            return Err(ApiError::bad(ErrorCode::InvalidRequest, "broker_id", heartbeat.broker, "one a stream"));
        }
        self.broker = Some(heartbeat.broker);
        self.answer(request.seq, heartbeat);
        Ok(())
    }

    fn answer(&self, seq: u64, heartbeat: Heartbeat) {
        let image = self.context.feed.image();
        let now = clock::mono();
        if !self.context.decider.is_active() {
            self.context.decider.sessions().lock().note_heartbeat(&image, &heartbeat, now);
            return self.send(wire::HeartbeatResponse {
                seq,
                active: false,
                committed_batch_no: image.batch_no.0,
                hint: Some(self.context.decider.hint().into()),
                ..wire::HeartbeatResponse::default()
            });
        }
        let fresh = self.context.decider.may_read();
        let decision = self.context.decider.sessions().lock().answer_heartbeat(&image, &heartbeat, now, fresh);
        match decision {
            HeartbeatDecision::Silent => metrics::counter!(crate::metrics::HEARTBEATS_WITHHELD).increment(1),
            HeartbeatDecision::Answer { answer, submit } => {
                metrics::counter!(crate::metrics::HEARTBEATS_ANSWERED).increment(1);
                self.send(active_answer(seq, answer));
                if submit {
                    self.submit(seq, heartbeat);
                }
            }
        }
    }

    /// Queues the wish; what comes of it is sent over and above the answer given.
    fn submit(&self, seq: u64, heartbeat: Heartbeat) {
        let (context, answers) = (Arc::clone(&self.context), self.answers.clone());
        tasks::spawn("heartbeat-wish", async move {
            match context.ask(Command::Heartbeat(heartbeat)).await {
                Ok(Reply::Heartbeat { answer, .. }) => {
                    let _stream_may_be_full = answers.try_send(Ok(active_answer(seq, answer)));
                }
                Ok(other) => tracing::error!(error = %unexpected(&other), "heartbeat"),
                Err(error) => tracing::info!(broker = %heartbeat.broker, %error, "the broker's wish was not met"),
            }
        });
    }

    /// An answer that finds the queue full is left out: the broker is not reading, the next one says more.
    fn send(&self, answer: wire::HeartbeatResponse) {
        let _stream_may_be_full = self.answers.try_send(Ok(answer));
    }
}

fn active_answer(seq: u64, answer: HeartbeatAnswer) -> wire::HeartbeatResponse {
    let (error_code, error_message) = match answer.error {
        Some(error) => (u32::from(error.code as u16), error.message),
        None => (0, String::new()),
    };
    wire::HeartbeatResponse {
        seq,
        active: true,
        committed_batch_no: answer.committed.0,
        fenced: answer.fenced,
        may_stop: answer.may_stop,
        hint: None,
        error_code,
        error_message,
    }
}
