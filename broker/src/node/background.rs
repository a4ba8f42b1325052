//! Tasks of the control runtime: feed, lifecycle, requests to the controller, free space, HTTP. Apart from the shards, so
//! that load on the data path costs no lease.

use log::data_dir::DataDir;
use protocol::ids::{BrokerEpoch, BrokerId};
use protocol::metadata::brokers::BrokerState;
use protocol::metadata::image::MetadataImage;
use protocol::rpc::channel::admin_client;
use protocol::rpc::convert;
use protocol::rpc::pb::admin::v1::DescribeQuorumRequest;
use protocol::rpc::socket::Socket;
use protocol::timers::Timers;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::{Shared, StartError};
use crate::controller_queue::{ControllerQueueEnd, ControllerSender};
use crate::disk_room::Look;
use crate::evidence::Evidence;
use crate::fatal::Halt;
use crate::http::{self, Readiness, Render};
use crate::lifecycle::state::Phase;
use crate::lifecycle::task::{LifecycleParts, LifecycleTask, Registrant};
use crate::limits;
use crate::link::{CallOptions, Controllers};
use crate::metadata::feed::Change;
use crate::metadata::follower::{Follower, ImageSink, Images};
use crate::metrics;
use crate::shard::Shards;
use crate::shard::message::Control as ShardControl;

/// What the control tasks need.
pub(super) struct Control {
    pub(super) me: BrokerId,
    pub(super) timers: Timers,
    pub(super) registrant: Registrant,
    pub(super) shared: Shared,
    pub(super) data: Arc<DataDir>,
    pub(super) evidence: Arc<Evidence>,
    pub(super) halt: Halt,
}

/// What is left of them to hold.
pub(super) struct Tasks {
    pub(super) lifecycle: JoinHandle<bool>,
    pub(super) registered: watch::Receiver<Option<BrokerEpoch>>,
    pub(super) phase: watch::Receiver<Phase>,
}

/// Hands images to every shard and waits until each has taken it.
#[derive(Debug, Clone)]
struct ToShards(Shards);

impl ImageSink for ToShards {
    async fn take(&self, image: Arc<MetadataImage>, change: Arc<Change>) {
        let mut told = Vec::new();
        for shard in self.0.iter() {
            let (done, taken) = oneshot::channel();
            shard.control(ShardControl::Image { image: image.clone(), change: change.clone(), done });
            told.push(taken);
        }
        for taken in told {
            taken.await.ok();
        }
    }
}

impl Control {
    pub(super) fn start(
        self,
        queue: ControllerQueueEnd,
        http: Socket,
        render: Render,
        health: HealthReporter,
    ) -> Result<Tasks, StartError> {
        let (registered, registered_end) = watch::channel(None);
        let (phase, phase_end) = watch::channel(Phase::Recovering);
        let change_source = Arc::new(Notify::new());
        let shared = &self.shared;
        let follower = Follower {
            cluster_id: self.data.identity().cluster_id,
            node: self.me,
            controllers: shared.controllers.clone(),
            images: shared.images.clone(),
            change_source: change_source.clone(),
            patience: Duration::from_millis(self.timers.session_timeout_ms),
            sink: ToShards(shared.shards.clone()),
            halt: self.halt.clone(),
        };
        tokio::spawn(follower.run(shared.stop.clone()));
        tokio::spawn(send_to_controller(self.me, shared.clone(), registered_end.clone(), queue));
        tokio::spawn(watch_disk(self.data.clone(), shared.clone()));
        tokio::spawn(watch_shutdown(self.me, shared.images.clone(), registered_end.clone(), shared.stop_asked.clone()));
        tokio::spawn(learn_voters(shared.controllers.clone(), shared.stop.clone()));
        tokio::spawn(report_health(health, phase_end.clone()));
        let http = http.listen().map_err(StartError::build("metrics listener"))?;
        tokio::spawn(http::serve(http, render, readiness(phase_end.clone()), shared.stop.clone()));
        let lifecycle = LifecycleTask::new(LifecycleParts {
            registrant: self.registrant,
            timers: self.timers,
            data: self.data,
            evidence: self.evidence,
            images: shared.images.clone(),
            controllers: shared.controllers.clone(),
            lease: shared.lease.clone(),
            shards: shared.shards.clone(),
            change_source,
            registered,
            phase,
            stop_asked: shared.stop_asked.clone(),
            halt: self.halt,
        });
        Ok(Tasks { lifecycle: tokio::spawn(lifecycle.run()), registered: registered_end, phase: phase_end })
    }
}

/// ISR changes and reports wait in their queue until this broker has an epoch to send them under.
async fn send_to_controller(
    me: BrokerId,
    shared: Shared,
    mut registered: watch::Receiver<Option<BrokerEpoch>>,
    queue: ControllerQueueEnd,
) {
    let Some(epoch) = registered.wait_for(Option::is_some).await.ok().and_then(|epoch| *epoch) else { return };
    let sender = ControllerSender { me, epoch, images: shared.images, controllers: shared.controllers };
    sender.run(queue).await;
}

/// Below the floor records are refused, produced or replicated; reads, deletes and retention go on. Above twice the floor
/// they are taken again.
async fn watch_disk(data: Arc<DataDir>, shared: Shared) {
    let mut tick = tokio::time::interval(Duration::from_millis(limits::DISK_CHECK_MS));
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let free = match data.free_space() {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "free space is not known");
                continue;
            }
        };
        let Look { full, changed, floor } = shared.disk.look(free);
        if changed && full {
            tracing::warn!(free, floor, "the disk is full: records are refused until there is room");
        } else if changed {
            tracing::info!(free, floor, "the disk has room: records are taken");
        }
        ::metrics::gauge!(metrics::DISK_FULL).set(if full { 1.0 } else { 0.0 });
    }
}

/// An operator may have asked the cluster to shut this broker down: the image says so.
async fn watch_shutdown(
    me: BrokerId,
    images: Arc<Images>,
    registered: watch::Receiver<Option<BrokerEpoch>>,
    stop_asked: CancellationToken,
) {
    let mut applied = images.subscribe();
    loop {
        let ours = *registered.borrow();
        let image = images.load();
        let leaving = image.brokers.get(me).filter(|b| Some(b.epoch) == ours).map(|b| b.state);
        if leaving == Some(BrokerState::ShuttingDown) {
            return stop_asked.cancel();
        }
        tokio::select! {
            () = stop_asked.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
        }
    }
}

/// Controllers that joined since the configuration was written.
async fn learn_voters(controllers: Controllers, stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_millis(limits::VOTERS_REFRESH_MS));
    let options = CallOptions::question(Duration::from_millis(limits::VOTERS_REFRESH_MS));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let answer = controllers.call(options, |channel| {
            let mut client = admin_client(channel);
            async move { client.describe_quorum(DescribeQuorumRequest {}).await }
        });
        let Ok(answer) = answer.await else { continue };
        for voter in answer.voters {
            if let Ok(endpoint) = convert::endpoint("endpoint", voter.endpoint) {
                controllers.learn(endpoint);
            }
        }
    }
}

fn readiness(phase: watch::Receiver<Phase>) -> Readiness {
    Arc::new(move || match *phase.borrow() {
        Phase::Active => Vec::new(),
        other => vec![format!("broker is {}", phase_name(other))],
    })
}

/// The phase in words.
#[must_use]
pub(super) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Recovering => "recovering: directories are being opened, or no metadata has arrived",
        Phase::Registering => "registering with the active controller",
        Phase::CatchingUp => "catching up: its restart proof or its image is not complete",
        Phase::Waiting => "waiting to be unfenced",
        Phase::Active => "active",
        Phase::ShuttingDown => "shutting down",
        Phase::Stopped => "stopped",
    }
}

async fn report_health(reporter: HealthReporter, mut phase: watch::Receiver<Phase>) {
    loop {
        let serving = *phase.borrow_and_update() == Phase::Active;
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status("", status).await;
        if phase.changed().await.is_err() {
            return;
        }
    }
}
