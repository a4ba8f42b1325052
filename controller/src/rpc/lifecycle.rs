//! Broker to controller. Writes go through the decider. Heartbeats are soft state and answered here while the quorum is
//! fresh: standbys note the contact and answer "not active"; only the active controller's answers renew a lease.

use super::{Context, commands};
use crate::clock;
use crate::decide::command::{AlterResult, Command, Heartbeat, HeartbeatAnswer, Reply};
use crate::decide::sessions::HeartbeatDecision;
use crate::limits::{HEARTBEAT_ANSWER_QUEUE, HEARTBEAT_STREAMS_MAX};
use crate::tasks;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use protocol::error::{ApiError, ErrorCode};
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

#[tonic::async_trait]
impl Lifecycle for LifecycleService {
    type HeartbeatStream = BoxStream<'static, Result<wire::HeartbeatResponse, Status>>;

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let request = request.into_inner();
        self.0.check_command(request.cluster.as_ref())?;
        match self.0.ask(Command::Register(commands::register(request)?)).await? {
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
        let command = commands::prove_restart(&request)?;
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
        let command = commands::alter_partitions(request)?;
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
        let command = commands::report_log_ends(request)?;
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
        let heartbeat = commands::heartbeat(&request, self.number)?;
        if self.broker.is_some_and(|known| known != heartbeat.broker) {
            return Err(ApiError::bad(ErrorCode::InvalidRequest, "broker_id", heartbeat.broker, "one a stream"));
        }
        self.broker = Some(heartbeat.broker);
        self.answer(request.seq, heartbeat);
        Ok(())
    }

    fn answer(&self, seq: u64, heartbeat: Heartbeat) {
        let now = clock::mono();
        let fresh = self.context.decider.is_active() && self.context.decider.may_read();
        let mut sessions = self.context.decider.sessions().lock();
        // Within the lock: whatever batch is no longer noted as being written is in this image.
        let image = self.context.feed.image();
        if !sessions.is_active() {
            sessions.note_heartbeat(&image, &heartbeat, now);
            drop(sessions);
            return self.send(wire::HeartbeatResponse {
                seq,
                active: false,
                committed_batch_no: image.batch_no.0,
                hint: Some(self.context.decider.hint().into()),
                ..wire::HeartbeatResponse::default()
            });
        }
        let decision = sessions.answer_heartbeat(&image, &heartbeat, now, fresh);
        drop(sessions);
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
        renews_at_batch_no: answer.renews_at.0,
        fenced: answer.fenced,
        may_stop: answer.may_stop,
        hint: None,
        error_code,
        error_message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::BatchNo;

    #[test]
    fn an_answer_names_the_batch_that_the_lease_waits_for() {
        let (committed, renews_at) = (BatchNo(20), BatchNo(21));
        let answer = HeartbeatAnswer { committed, renews_at, fenced: false, may_stop: false, error: None };
        let sent = active_answer(7, answer);
        assert_eq!((sent.seq, sent.active, sent.committed_batch_no, sent.renews_at_batch_no), (7, true, 20, 21));
    }
}
