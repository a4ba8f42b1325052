//! Carries out what `state` decides: registers, stores the epoch, proves, sends heartbeats, publishes the lease.
//!
//! Runs on the control runtime, apart from the shards, so that load on the data path never costs a lease.
//! Never: decides when. Invariant: a step sees the time at which it is made, and the lease reaches the shards before
//! anything else follows from it.

use log::LogError;
use log::data_dir::{BrokerState, DataDir};
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BatchNo, BrokerEpoch, BrokerId, ControllerId};
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{Endpoint, METADATA_VERSION_MAX, METADATA_VERSION_MIN};
use protocol::rpc::channel::{admin_client, lifecycle_client};
use protocol::rpc::convert::{cluster_ref, topic_id_bytes, uuid_bytes};
use protocol::rpc::pb::admin::v1::DescribeClusterRequest;
use protocol::rpc::pb::common::v1::ClusterRef;
use protocol::rpc::pb::lifecycle::v1 as wire;
use protocol::timers::Timers;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::heartbeats::Heartbeats;
use super::state::{Effect, FatalReason, Heartbeat, HeartbeatAnswer, ImageFacts, Input, Lifecycle, Phase};
use crate::clock;
use crate::evidence::Evidence;
use crate::fatal::{Fatal, Halt};
use crate::lease_cell::LeaseCell;
use crate::limits;
use crate::link::{CallOptions, Controllers, Repeat};
use crate::metadata::follower::Images;
use crate::metrics;
use crate::shard::Shards;
use crate::shard::message::Control;

/// What happened outside.
#[derive(Debug)]
pub(super) enum Event {
    Answer(HeartbeatAnswer),
    /// Where the active controller stands, asked before a registration.
    ActiveStands(BatchNo),
    /// With the previous epoch that was claimed.
    Registered(Result<(wire::RegisterResponse, BrokerEpoch), ApiError>),
    EpochStored(BrokerEpoch),
    Proof(Result<(), ApiError>),
}

/// Who this process is, for `Register`.
#[derive(Debug, Clone)]
pub struct Registrant {
    /// The broker's number.
    pub me: BrokerId,
    /// Made at start.
    pub incarnation: Uuid,
    /// What nodes dial.
    pub internal: Endpoint,
    /// What applications dial.
    pub client: Endpoint,
    /// `region/dc/rack`
    pub locality: String,
    /// Its data directory.
    pub directory: Uuid,
}

/// What the task needs.
pub struct LifecycleParts {
    /// Who this is.
    pub registrant: Registrant,
    /// Timers of the cluster.
    pub timers: Timers,
    /// The data directory.
    pub data: Arc<DataDir>,
    /// What this start can prove.
    pub evidence: Arc<Evidence>,
    /// Images.
    pub images: Arc<Images>,
    /// Controllers.
    pub controllers: Controllers,
    /// Where the lease goes.
    pub lease: LeaseCell,
    /// Shards.
    pub shards: Shards,
    /// Rung to change the feed's source.
    pub change_source: Arc<Notify>,
    /// Told the epoch once it is durable.
    pub registered: watch::Sender<Option<BrokerEpoch>>,
    /// Where the broker is in its life, for `/readyz`.
    pub phase: watch::Sender<Phase>,
    /// Asked to stop.
    pub stop_asked: CancellationToken,
    /// The end of the road.
    pub halt: Halt,
}

/// The running task.
pub struct LifecycleTask {
    parts: Arc<LifecycleParts>,
    state: Lifecycle,
    heartbeats: Heartbeats,
    events: mpsc::Sender<Event>,
    queue: mpsc::Receiver<Event>,
    /// The registration whose proof the controller will take, if any.
    admissible: Arc<AtomicBool>,
    claimed: BrokerEpoch,
    ended: Option<bool>,
}

impl LifecycleTask {
    /// Takes its parts.
    #[must_use]
    pub fn new(parts: LifecycleParts) -> Self {
        let (events, queue) = mpsc::channel(limits::LIFECYCLE_QUEUE);
        let pause_max = Duration::from_millis(parts.timers.broker_heartbeat_ms);
        let heartbeats = Heartbeats::new(parts.controllers.clone(), events.clone(), pause_max);
        Self {
            state: Lifecycle::new(parts.timers),
            parts: Arc::new(parts),
            heartbeats,
            events,
            queue,
            admissible: Arc::default(),
            claimed: BrokerEpoch(0),
            ended: None,
        }
    }

    /// Until life in the cluster is over; true if leaderships had moved first.
    pub async fn run(mut self) -> bool {
        let mut images = self.parts.images.subscribe();
        // What was published before this line counts too.
        images.mark_changed();
        let mut recovered = false;
        let mut stop_told = false;
        loop {
            let wait = self.until_deadline();
            let stop_asked = self.parts.stop_asked.clone();
            tokio::select! {
                event = self.queue.recv() => {
                    if let Some(event) = event {
                        self.on_event(event);
                    }
                }
                changed = images.changed() => {
                    let image = self.parts.images.load();
                    ::metrics::gauge!(metrics::METADATA_BATCH).set(image.batch_no.0 as f64);
                    let facts = ImageFacts::of(&image, self.parts.registrant.me);
                    self.step(Input::Image(facts));
                    self.step(Input::Reconciled(image.batch_no));
                    // Directories are recovered before this task starts; the claim needs an image.
                    if changed.is_ok() && image.cluster.is_formed() && !recovered {
                        recovered = true;
                        self.step(Input::Recovered);
                    }
                }
                () = stop_asked.cancelled(), if !stop_told => {
                    stop_told = true;
                    self.step(Input::Stop);
                }
                () = tokio::time::sleep(wait) => self.step(Input::Tick),
            }
            self.parts.phase.send_replace(self.state.phase());
            let remaining = self.state.lease().valid_until as f64 - clock::now() as f64;
            ::metrics::gauge!(metrics::LEASE_MS).set(remaining);
            if let Some(released) = self.ended {
                return released;
            }
        }
    }

    fn until_deadline(&self) -> Duration {
        let now = clock::now();
        let next = self.state.next_deadline().unwrap_or(now + limits::LIFECYCLE_TICK_MS);
        Duration::from_millis(next.saturating_sub(now).min(limits::LIFECYCLE_TICK_MS))
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Answer(answer) => self.step(Input::Answer(answer)),
            Event::ActiveStands(batch_no) => self.step(Input::ActiveStands(batch_no)),
            Event::Registered(Ok((response, claimed))) => {
                let (epoch, admissible) = (response.broker_epoch, response.proof_admissible);
                tracing::info!(epoch, previous = claimed.0, admissible, "registered");
                self.claimed = claimed;
                self.admissible.store(response.proof_admissible, Ordering::Relaxed);
                self.step(Input::Registered { epoch: BrokerEpoch(response.broker_epoch) });
            }
            Event::Registered(Err(error)) => {
                tracing::warn!(%error, "not registered");
                self.step(Input::RegisterFailed(error.code));
            }
            Event::EpochStored(epoch) => {
                for shard in self.parts.shards.iter() {
                    shard.control(Control::Registered(epoch));
                }
                self.parts.registered.send_replace(Some(epoch));
                self.step(Input::EpochStored);
            }
            Event::Proof(Ok(())) => self.step(Input::ProofTaken),
            Event::Proof(Err(error)) => {
                tracing::warn!(%error, "the restart proof was not taken");
                self.step(Input::ProofFailed(error.code));
            }
        }
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.state.step(input, clock::now(), &mut effects);
        for effect in effects {
            self.run_effect(effect);
        }
    }

    fn run_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Register => self.register(),
            Effect::StoreEpoch(epoch) => self.store_epoch(epoch),
            Effect::Prove(epoch) => self.prove(epoch),
            Effect::Heartbeat(heartbeat) => {
                let request = self.heartbeat(heartbeat);
                self.heartbeats.send(&request);
            }
            Effect::Lease(lease) => {
                self.parts.lease.set(lease);
            }
            Effect::ActiveController(number) => self.active_changed(number),
            Effect::ChangeFeedSource => self.parts.change_source.notify_one(),
            Effect::Stopped { released } => self.ended = Some(released),
            Effect::Fatal(reason) => {
                let fatal = match reason {
                    FatalReason::Replaced { .. } => Fatal::Replaced(reason.to_string()),
                    FatalReason::Refused(_) => Fatal::Metadata(reason.to_string()),
                };
                self.parts.lease.set(crate::replica::lease::Lease::NONE);
                self.parts.halt.halt(&fatal);
                self.ended = Some(false);
            }
        }
    }

    fn active_changed(&self, number: ControllerId) {
        if let Some(endpoint) = self.heartbeats.endpoint(number) {
            tracing::info!(controller = %format!("{}:{}", endpoint.host, endpoint.port), "active controller");
            self.parts.controllers.set_active(endpoint);
        }
        for shard in self.parts.shards.iter() {
            shard.control(Control::ActiveControllerChanged);
        }
    }

    fn cluster(&self) -> ClusterRef {
        cluster(&self.parts)
    }

    fn heartbeat(&self, heartbeat: Heartbeat) -> wire::HeartbeatRequest {
        wire::HeartbeatRequest {
            cluster: Some(self.cluster()),
            broker_id: self.parts.registrant.me.0,
            broker_epoch: heartbeat.epoch.0,
            seq: heartbeat.seq,
            applied_batch_no: heartbeat.applied.0,
            wants_unfence: heartbeat.wants_unfence,
            wants_shutdown: heartbeat.wants_shutdown,
        }
    }

    fn register(&self) {
        let (parts, events) = (self.parts.clone(), self.events.clone());
        tokio::spawn(async move {
            let outcome = register(&parts, &events).await;
            events.send(Event::Registered(outcome)).await.ok();
        });
    }

    /// The epoch is durable before this broker asks to be unfenced. The claimed one stays beside it until then. Without room
    /// for it the broker waits, fenced.
    fn store_epoch(&self, epoch: BrokerEpoch) {
        let (parts, events, claimed) = (self.parts.clone(), self.events.clone(), self.claimed);
        tokio::spawn(async move {
            let earlier_epoch = (claimed.0 != 0).then_some(claimed.0);
            let store = move |data: Arc<DataDir>| {
                let boot_id = data.boot_id()?;
                data.store_broker_state(&BrokerState { broker_epoch: epoch.0, earlier_epoch, boot_id })
            };
            let mut tick = tokio::time::interval(Duration::from_millis(limits::NOTE_RETRY_MS));
            loop {
                tick.tick().await;
                let data = parts.data.clone();
                let stored = match protocol::machine::blocking(move || store(data)).await {
                    Ok(stored) => stored,
                    Err(error) if error.is_panic() => {
                        return parts.halt.halt(&Fatal::Invariant(format!("storing the broker epoch: {error}")));
                    }
                    // The runtime ends.
                    Err(_) => return,
                };
                match stored {
                    Err(error @ LogError::DiskFull { .. }) => {
                        tracing::warn!(%error, "no room for the broker epoch: it waits")
                    }
                    Err(error) => return parts.halt.halt(&Fatal::Disk(format!("broker state: {error}"))),
                    Ok(()) => return drop(events.send(Event::EpochStored(epoch)).await),
                }
            }
        });
    }

    fn prove(&self, epoch: BrokerEpoch) {
        let (parts, events) = (self.parts.clone(), self.events.clone());
        let claimed = self.admissible.load(Ordering::Relaxed).then_some(self.claimed);
        let cluster = self.cluster();
        tokio::spawn(async move {
            let outcome = send_proof(&parts, epoch, claimed, cluster).await;
            events.send(Event::Proof(outcome)).await.ok();
        });
    }
}

fn cluster(parts: &LifecycleParts) -> ClusterRef {
    let image = parts.images.load();
    cluster_ref(parts.data.identity().cluster_id, image.cluster.incarnation)
}

fn command() -> CallOptions {
    CallOptions::command(Repeat::Harmless, Duration::from_millis(limits::REGISTER_DEADLINE_MS))
}

/// Waits until the image here is as new as the active controller's. A controller that has just started serves an image
/// from before its last snapshot; by such a one this broker would claim an epoch that is no longer the last unfenced.
/// The lifecycle hears of the goal: a feed that does not get there is changed.
async fn catch_up(parts: &LifecycleParts, events: &mpsc::Sender<Event>) -> Result<(), ApiError> {
    let call = parts.controllers.call(command(), |channel| {
        let mut client = admin_client(channel);
        async move { client.describe_cluster(DescribeClusterRequest {}).await }
    });
    let goal = BatchNo(call.await?.batch_no);
    events.send(Event::ActiveStands(goal)).await.ok();
    let mut applied = parts.images.subscribe();
    let patience = Duration::from_millis(limits::REGISTER_DEADLINE_MS);
    match tokio::time::timeout(patience, applied.wait_for(|at| *at >= goal)).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(ApiError::new(ErrorCode::Timeout, format!("the feed has not reached batch {goal} yet"))),
    }
}

async fn register(
    parts: &LifecycleParts,
    events: &mpsc::Sender<Event>,
) -> Result<(wire::RegisterResponse, BrokerEpoch), ApiError> {
    catch_up(parts, events).await?;
    let (request, claimed) = request(&parts.registrant, &parts.evidence, &parts.images.load(), cluster(parts));
    let call = parts.controllers.call(command(), |channel| {
        let (mut client, request) = (lifecycle_client(channel), request.clone());
        async move { client.register(request).await }
    });
    Ok((call.await?, claimed))
}

/// The registration as this image has it made, and the epoch it claims. Refused as stale, it is made anew from a newer image.
fn request(
    who: &Registrant,
    evidence: &Evidence,
    image: &MetadataImage,
    cluster: ClusterRef,
) -> (wire::RegisterRequest, BrokerEpoch) {
    let seen = image.brokers.view(who.me);
    let claimed = evidence.claim(seen.last_unfenced);
    let request = wire::RegisterRequest {
        cluster: Some(cluster),
        broker_id: who.me.0,
        incarnation: uuid_bytes(who.incarnation),
        internal: Some((&who.internal).into()),
        client: Some((&who.client).into()),
        locality: who.locality.clone(),
        directories: vec![uuid_bytes(who.directory)],
        min_metadata_version: u32::from(METADATA_VERSION_MIN),
        max_metadata_version: u32::from(METADATA_VERSION_MAX),
        previous_broker_epoch: claimed.0,
        clean_shutdown: evidence.is_clean(claimed),
        seen_broker_epoch: seen.registered.map_or(0, |e| e.0),
        seen_last_unfenced_epoch: seen.last_unfenced.map_or(0, |e| e.0),
    };
    (request, claimed)
}

/// Sends every provable place in chunks; the last chunk says so, even if it names nothing.
async fn send_proof(
    parts: &LifecycleParts,
    epoch: BrokerEpoch,
    claimed: Option<BrokerEpoch>,
    cluster: ClusterRef,
) -> Result<(), ApiError> {
    let me = parts.registrant.me;
    let image = parts.images.load();
    let places = image.topics.places_of(me);
    let proved: Vec<_> = places.filter(|at| claimed.is_some_and(|c| parts.evidence.proves(*at, c))).collect();
    let mut chunks: Vec<&[_]> = proved.chunks(limits::PROOF_PARTITIONS_PER_REQUEST).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let count = chunks.len();
    for (number, chunk) in chunks.into_iter().enumerate() {
        let mut topics: BTreeMap<_, Vec<u32>> = BTreeMap::new();
        for at in chunk {
            topics.entry(at.topic).or_default().push(at.partition);
        }
        let proved = topics
            .into_iter()
            .map(|(topic, partitions)| wire::ProvedTopic { topic_id: topic_id_bytes(topic), partitions });
        let request = wire::ProveRestartRequest {
            cluster: Some(cluster.clone()),
            broker_id: me.0,
            broker_epoch: epoch.0,
            proved: proved.collect(),
            last: number + 1 == count,
        };
        let call = parts.controllers.call(command(), |channel| {
            let (mut client, request) = (lifecycle_client(channel), request.clone());
            async move { client.prove_restart(request).await }
        });
        call.await.map_err(|error| match error.code {
            ErrorCode::StaleBrokerEpoch => error,
            _ => ApiError::new(ErrorCode::Timeout, error.message),
        })?;
    }
    tracing::info!(proved = proved.len(), "restart proof sent");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::metadata::draft::Fold;
    use protocol::metadata::record::{BrokerRef, Fact};

    /// Brokers 1 and 2 of the image are registered and let in under epochs 1 and 2.
    #[test]
    fn a_registration_refused_as_stale_is_made_anew_from_what_the_image_shows_by_then() {
        let endpoint = Endpoint { host: "h".into(), port: 1 };
        let (me, nobody) = (BrokerId(2), Uuid::nil());
        let locality = "eu/a/1".to_owned();
        let who = Registrant {
            me,
            incarnation: nobody,
            internal: endpoint.clone(),
            client: endpoint,
            locality,
            directory: nobody,
        };
        // The life before this one was registered as 3 and noted that; whether it was let in is for the image to say.
        let evidence = Evidence { epoch: 3, earlier: Some(2), clean: Some(3), ..Evidence::default() };
        let made = |image: &MetadataImage| {
            let (request, claimed) = request(&who, &evidence, image, ClusterRef::default());
            assert_eq!(request.previous_broker_epoch, claimed.0);
            (claimed.0, request.seen_broker_epoch, request.seen_last_unfenced_epoch, request.clean_shutdown)
        };
        assert_eq!(made(&MetadataImage::default()), (3, 0, 0, true), "a broker that the image does not know");

        let mut image = crate::metadata::reconcile::tests::brokers();
        let known = image.brokers.get(me).expect("broker 2 is in it").clone();
        image.fold(&Fact::BrokerFenced(BrokerRef { broker: me, epoch: known.epoch }));
        crate::metadata::reconcile::tests::registered(&mut image, me.0, 3);
        assert_eq!(made(&image), (2, 3, 2, false));
        image.fold(&Fact::BrokerProved(BrokerRef { broker: me, epoch: BrokerEpoch(3) }));
        image.fold(&Fact::BrokerUnfenced(BrokerRef { broker: me, epoch: BrokerEpoch(3) }));
        assert_eq!(made(&image), (3, 3, 3, true), "the former process was let in after all");
    }
}
