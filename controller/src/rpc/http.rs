//! The HTTP listener: `/metrics`, `/healthz` (this process lives), `/readyz` (it counts: knows a leader, has applied what
//! is committed). Separate from the controller listener so that a probe needs no gRPC.

use super::Context;
use super::admin_wire::census;
use crate::metrics as name;
use crate::node::Render;
use crate::quorum::{Lead, QuorumStatus};
use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use protocol::limits::HTTP_CONNECTIONS_MAX;
use protocol::rpc::connections::{Connection, Incoming, Places};
use protocol::rpc::server;
use protocol::rpc::socket::Listener as Accepting;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why this controller does not count yet. Empty: it is ready.
pub(crate) fn not_ready(context: &Context) -> Vec<String> {
    let status = context.quorum.status();
    let mut why = Vec::new();
    if status.lead == Lead::Nobody {
        why.push("no quorum leader is known".to_owned());
    }
    if matches!(status.lead, Lead::Me { .. }) && !context.decider.is_active() {
        why.push("this controller leads and has not passed the read barrier".to_owned());
    }
    if status.applied < status.committed {
        why.push(format!("applied {:?} of {:?} committed entries", status.applied, status.committed));
    }
    if !context.feed.image().cluster.is_formed() {
        why.push("the cluster is not formed".to_owned());
    }
    why
}

/// Sets the gauges.
pub(crate) fn report(context: &Context) {
    let image = context.feed.image();
    let counts = census(&image);
    let set = |name: &'static str, value: f64| metrics::gauge!(name).set(value);
    set(name::ACTIVE_CONTROLLER_COUNT, f64::from(u8::from(context.decider.is_active())));
    set(name::BROKER_COUNT, image.brokers.iter().count() as f64);
    set(name::FENCED_BROKER_COUNT, image.brokers.iter().filter(|b| b.is_fenced()).count() as f64);
    set(name::TOPIC_COUNT, f64::from(counts.topics));
    set(name::PARTITION_COUNT, f64::from(counts.partitions));
    set(name::OFFLINE_PARTITIONS, f64::from(counts.offline));
    set(name::UNDER_REPLICATED_PARTITIONS, f64::from(counts.under_replicated));
    set(name::UNDER_MIN_ISR_PARTITIONS, f64::from(counts.under_min_isr));
    set(name::PREFERRED_REPLICA_IMBALANCE, f64::from(counts.not_preferred));
    set(name::METADATA_APPLIED_BATCH, image.batch_no.0 as f64);
    report_raft(&context.quorum.status());
}

fn report_raft(status: &QuorumStatus) {
    let set = |name: &'static str, value: Option<u64>| metrics::gauge!(name).set(value.unwrap_or(0) as f64);
    set(name::RAFT_TERM, Some(status.term));
    set(name::RAFT_LOG_INDEX, status.last_index);
    set(name::RAFT_COMMIT_INDEX, status.committed);
    set(name::RAFT_APPLIED_INDEX, status.applied);
    set(name::RAFT_SNAPSHOT_INDEX, status.snapshot);
    set(name::RAFT_PURGED_INDEX, status.purged);
}

/// The pages.
pub(crate) fn router(context: &Arc<Context>, render: Render) -> Router {
    let (measured, ready) = (Arc::clone(context), Arc::clone(context));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(readiness(&ready))))
        .route(
            "/metrics",
            get(move || {
                report(&measured);
                std::future::ready(([("content-type", "text/plain; version=0.0.4")], render()))
            }),
        )
}

fn readiness(context: &Context) -> impl IntoResponse + use<> {
    let why = not_ready(context);
    if why.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, why.join("\n") + "\n")
    }
}

/// Accepts for the pages, within their places.
pub(crate) struct Capped(Incoming);

impl Capped {
    pub(crate) fn new(listener: Accepting) -> Self {
        Self(server::incoming(listener, Places::pages("metrics", HTTP_CONNECTIONS_MAX)))
    }
}

impl Listener for Capped {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.0.accept().await
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
