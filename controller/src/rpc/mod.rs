//! The controller's services: requests become commands or reads, outcomes become answers. Ids, seeds and wall-clock times
//! of commands are made here. Every internal message is checked for cluster and incarnation before anything else in it
//! is read. The only place (with the client side in `raft_client`) that knows gRPC.

mod admin;
pub(crate) mod admin_wire;
pub(crate) mod commands;
mod derived;
pub(crate) mod http;
mod lifecycle;
mod metadata;
mod peers;
mod raft;
pub(crate) mod raft_client;

use crate::decider::DeciderHandle;
use crate::feed::Feed;
use crate::quorum::Quorum;
use admin_wire::{Census, census};
use derived::Derived;
use protocol::error::{ApiError, ErrorCode};
use protocol::metadata::snapshot;
use protocol::rpc::convert;
use protocol::rpc::pb::common::v1::ClusterRef;
use protocol::rpc::server;
use protocol::timers::Timers;
pub(crate) use raft::Reception;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use uuid::Uuid;

/// What the services share.
pub(crate) struct Context {
    pub(crate) cluster_id: Uuid,
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) decider: DeciderHandle,
    pub(crate) timers: Timers,
    pub(crate) walks: Walks,
    pub(crate) reception: Reception,
    /// Numbers of heartbeat streams in order of acceptance.
    pub(crate) streams: AtomicU64,
    pub(crate) heartbeat_places: Arc<Semaphore>,
    pub(crate) feed_places: Arc<Semaphore>,
    /// Closed when the node stops: long streams end.
    pub(crate) stopping: tokio_util::sync::CancellationToken,
}

/// What administration is told that costs a walk over the image.
pub(crate) struct Walks {
    census: Derived<Census>,
    image_hash: Derived<u64>,
}

impl Default for Walks {
    fn default() -> Self {
        Self { census: Derived::new(census), image_hash: Derived::new(snapshot::image_hash) }
    }
}

impl Context {
    /// Same cluster and same life of it. A sender or a controller that does not know its incarnation yet (0, before the
    /// first image) is let in when `may_be_new`.
    fn check(&self, given: Option<&ClusterRef>, may_be_new: bool) -> Result<(), ApiError> {
        let ours = self.feed.image().cluster.incarnation;
        let theirs = given.map_or(0, |c| c.incarnation);
        let expected = if may_be_new && (ours == 0 || theirs == 0) { theirs } else { ours };
        convert::check_cluster(given, self.cluster_id, expected)
    }

    /// For commands: the check, and that this controller is active.
    fn check_command(&self, given: Option<&ClusterRef>) -> Result<(), ApiError> {
        if !self.feed.image().cluster.is_formed() {
            return Err(self.decider.not_controller());
        }
        self.check(given, false)?;
        if self.decider.is_active() { Ok(()) } else { Err(self.decider.not_controller()) }
    }

    fn with_hint(&self, error: ApiError) -> ApiError {
        if error.code == ErrorCode::NotController { error.with_hint(self.decider.hint()) } else { error }
    }
}

/// Every service of the controller listener.
pub(crate) fn routes<H: Health>(context: &Arc<Context>, health: HealthServer<H>) -> Result<Routes, String> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(protocol::rpc::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| e.to_string())?;
    Ok(Routes::new(health)
        .add_service(reflection)
        .add_service(server::raft(raft::RaftService(Arc::clone(context))))
        .add_service(server::metadata(metadata::MetadataService(Arc::clone(context))))
        .add_service(server::lifecycle(lifecycle::LifecycleService(Arc::clone(context))))
        .add_service(server::admin(admin::AdminService(Arc::clone(context)))))
}
