//! The HTTP listener of a broker: `/metrics`, `/healthz` (this process only), `/readyz` (caught up and unfenced).
//! Knows nothing of how those are computed; serves plain text and takes no input.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::Listener;
use protocol::limits::HTTP_CONNECTIONS_MAX;
use protocol::rpc::connections::{Connection, Incoming, Places};
use protocol::rpc::server;
use protocol::rpc::socket::Listener as Accepting;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Renders the metrics page; given by the binary, which owns the recorder.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Says why the broker is not ready; an empty list means it is.
pub type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

#[derive(Clone)]
struct Pages {
    render: Render,
    readiness: Readiness,
}

/// Serves until the token is cancelled.
///
/// # Errors
/// The listener's own.
pub async fn serve(
    listener: Accepting,
    render: Render,
    readiness: Readiness,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Pages { render, readiness });
    axum::serve(Capped::new(listener), app).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

/// Accepts for the pages, within their places.
struct Capped(Incoming);

impl Capped {
    fn new(listener: Accepting) -> Self {
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

async fn metrics(State(pages): State<Pages>) -> String {
    (pages.render)()
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, String) {
    let reasons = (pages.readiness)();
    if reasons.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n")))
}
