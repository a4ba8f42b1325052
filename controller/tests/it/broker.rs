//! As much of a broker as the controllers see: it registers, proves nothing, heartbeats on every controller, and claims to
//! have applied whatever it is told is committed.

use crate::cluster::{Cluster, eventually};
use parking_lot::Mutex;
use protocol::error::{ApiError, ErrorCode};
use protocol::rpc::channel::Channel;
use protocol::rpc::channel::lifecycle_client;
use protocol::rpc::convert;
use protocol::rpc::pb::common::v1::Endpoint;
use protocol::rpc::pb::lifecycle::v1::{
    HeartbeatRequest, HeartbeatResponse, ProveRestartRequest, RegisterRequest, RegisterResponse,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Answers of the active controller, newest last, with the controller's id.
pub(crate) type Answers = Arc<Mutex<Vec<(u32, HeartbeatResponse)>>>;

pub(crate) struct FakeBroker {
    pub(crate) id: u32,
    pub(crate) epoch: u64,
    pub(crate) answers: Answers,
    dead: CancellationToken,
}

pub(crate) fn request(cluster: &Cluster, id: u32, directory: Uuid) -> RegisterRequest {
    let endpoint = |port| Some(Endpoint { host: "127.0.0.1".to_owned(), port });
    RegisterRequest {
        cluster: Some(convert::cluster_ref(cluster.cluster_id, 1)),
        broker_id: id,
        incarnation: convert::uuid_bytes(Uuid::new_v4()),
        internal: endpoint(9000 + id),
        client: endpoint(9100 + id),
        locality: format!("eu/dc{id}/r1"),
        directories: vec![convert::uuid_bytes(directory)],
        min_metadata_version: 1,
        max_metadata_version: 1,
        ..RegisterRequest::default()
    }
}

/// Registers on the controller it is pointed at.
pub(crate) async fn register(channel: Channel, request: RegisterRequest) -> Result<RegisterResponse, ApiError> {
    let answer = lifecycle_client(channel).register(request).await;
    answer.map(tonic::Response::into_inner).map_err(|s| convert::from_status(&s))
}

impl FakeBroker {
    /// Registers with whoever is active, closes its (empty) proof, and waits to be unfenced.
    pub(crate) async fn join(cluster: &Cluster, id: u32) -> Self {
        let directory = Uuid::from_u128(u128::from(id));
        // One process: asked again after a lost answer, it hears the same.
        let asked = request(cluster, id, directory);
        let registered = eventually("registration", || async {
            register(cluster.channel(cluster.active()), asked.clone()).await.ok()
        })
        .await;
        let proof = ProveRestartRequest {
            cluster: Some(convert::cluster_ref(cluster.cluster_id, 1)),
            broker_id: id,
            broker_epoch: registered.broker_epoch,
            proved: Vec::new(),
            last: true,
        };
        eventually("proof", || async {
            lifecycle_client(cluster.channel(cluster.active())).prove_restart(proof.clone()).await.ok()
        })
        .await;
        let answers = Answers::default();
        let applied = Arc::new(AtomicU64::new(registered.batch_no));
        let beats = cluster.nodes.keys().map(|controller| {
            let (controller, channel) = (*controller, cluster.channel(*controller));
            let first = HeartbeatRequest {
                cluster: Some(convert::cluster_ref(cluster.cluster_id, 1)),
                broker_id: id,
                broker_epoch: registered.broker_epoch,
                wants_unfence: true,
                ..HeartbeatRequest::default()
            };
            let (applied, answers) = (Arc::clone(&applied), Arc::clone(&answers));
            move |dead| beat(dead, controller, channel, first, applied, answers)
        });
        let dead = CancellationToken::new();
        beats.for_each(|beating| drop(tokio::spawn(dead.clone().run_until_cancelled_owned(beating(dead.clone())))));
        let broker = Self { id, epoch: registered.broker_epoch, answers, dead };
        eventually("unfencing", || async { broker.last().filter(|(_, a)| !a.fenced && a.error_code == 0) }).await;
        broker
    }

    pub(crate) fn last(&self) -> Option<(u32, HeartbeatResponse)> {
        self.answers.lock().last().cloned()
    }

    /// Stops heartbeating without a word.
    pub(crate) fn die(self) {
        self.dead.cancel();
    }
}

/// One heartbeat stream to one controller, opened again whenever it breaks.
async fn beat(
    dead: CancellationToken,
    controller: u32,
    channel: Channel,
    first: HeartbeatRequest,
    applied: Arc<AtomicU64>,
    answers: Answers,
) {
    let seq = Arc::new(AtomicU64::new(0));
    let mut tries = tokio::time::interval(Duration::from_millis(20));
    loop {
        tries.tick().await;
        let (first, seen, seq) = (first.clone(), Arc::clone(&applied), Arc::clone(&seq));
        let requests = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(Duration::from_millis(20)))
            .map(move |_| HeartbeatRequest {
                seq: seq.fetch_add(1, Ordering::Relaxed),
                applied_batch_no: seen.load(Ordering::Relaxed),
                ..first.clone()
            });
        // The connection goes on sending a request stream whose answers nobody reads: the stream itself must end.
        let requests = futures_util::StreamExt::take_until(requests, dead.clone().cancelled_owned());
        if let Ok(opened) = lifecycle_client(channel.clone()).heartbeat(requests).await {
            let mut stream = opened.into_inner();
            while let Ok(Some(answer)) = stream.message().await {
                if answer.active {
                    applied.fetch_max(answer.committed_batch_no, Ordering::Relaxed);
                    answers.lock().push((controller, answer));
                }
            }
        }
    }
}

/// Whether the refusal says where to go instead.
pub(crate) fn names_the_leader(error: &ApiError, leader: u32) -> bool {
    error.code == ErrorCode::NotController && error.hint.as_ref().is_some_and(|h| h.node_id == leader && h.port != 0)
}
