//! How many connections a listener has open: accepted up to a limit, closed at once beyond it; and how long one may be silent.
//!
//! Owns: the places of a listener, the process's budget of descriptors for connections, the accepted stream that holds one
//! of each. Never: queues a connection or looks at what it carries.
//! Invariant: an open connection holds a place from accept until its stream is dropped, and a peer that says nothing gives it
//! back in a bounded time. Why closed and not left waiting: a peer that is closed tries another node; one that waits in the
//! backlog believes itself connected. Why a budget: without a descriptor the next segment, or a vote, cannot be written.

use super::socket::{Listener, Stream};
use crate::limits::{ACCEPT_PAUSE_MS, GREETING_BYTES, GREETING_MS, HTTP_IDLE_MS};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tonic::codegen::tokio_stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Connections closed because their listener had no place left. Label `listener`.
pub const CONNECTIONS_REFUSED: &str = "seawall_connections_refused_total";

/// Descriptors that connections of all listeners together may hold.
#[derive(Debug)]
struct Budget {
    limit: AtomicUsize,
    open: AtomicUsize,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), open: AtomicUsize::new(0) }
    }

    fn take(self: &Arc<Self>) -> Option<Share> {
        let share = Share(Arc::clone(self));
        let open = self.open.fetch_add(1, Ordering::SeqCst);
        (open < self.limit.load(Ordering::SeqCst)).then_some(share)
    }
}

/// One descriptor of a budget.
#[derive(Debug)]
struct Share(Arc<Budget>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

static PROCESS: LazyLock<Arc<Budget>> = LazyLock::new(|| Arc::new(Budget::new(usize::MAX)));

/// Sets how many descriptors this process's accepted connections may hold together; without it only each listener's own
/// limit counts.
pub fn limit_process(connections: usize) {
    PROCESS.limit.store(connections, Ordering::SeqCst);
}

/// When a peer's silence ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// gRPC: it must greet (the HTTP/2 preface); pings watch it from then on.
    UntilGreeted,
    /// HTTP/1: it must greet, and may not be idle for long afterwards, since nothing else watches it.
    Always,
}

/// The places of one listener. Clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    listener: &'static str,
    limit: usize,
    silence: Silence,
    greeting: Duration,
    free: Arc<Semaphore>,
    budget: Arc<Budget>,
    /// The last one was refused: said once, not for each.
    refusing: Arc<AtomicBool>,
}

impl Places {
    /// For a gRPC listener that has at most `limit` connections open; its name stands in the metric and the log.
    #[must_use]
    pub fn new(listener: &'static str, limit: usize) -> Self {
        Self::within(listener, limit, Silence::UntilGreeted, Arc::clone(&PROCESS))
    }

    /// The same for a listener of HTTP/1 pages.
    #[must_use]
    pub fn pages(listener: &'static str, limit: usize) -> Self {
        Self::within(listener, limit, Silence::Always, Arc::clone(&PROCESS))
    }

    fn within(listener: &'static str, limit: usize, silence: Silence, budget: Arc<Budget>) -> Self {
        let free = Arc::new(Semaphore::new(limit));
        let greeting = Duration::from_millis(GREETING_MS);
        Self { listener, limit, silence, greeting, free, budget, refusing: Arc::default() }
    }

    /// A connection that may stay, or None: it is closed.
    #[must_use]
    pub fn admit(&self, stream: impl Into<Stream>) -> Option<Connection> {
        let stream = stream.into();
        let place = Arc::clone(&self.free).try_acquire_owned().ok();
        if let Some((place, share)) = place.and_then(|place| Some((place, self.budget.take()?))) {
            self.refusing.store(false, Ordering::Relaxed);
            let patience = Patience::new(self.silence, self.greeting);
            return Some(Connection { stream, patience: Some(patience), _place: place, _share: share });
        }
        metrics::counter!(CONNECTIONS_REFUSED, "listener" => self.listener).increment(1);
        if !self.refusing.swap(true, Ordering::Relaxed) {
            let budget = self.budget.limit.load(Ordering::Relaxed);
            tracing::warn!(
                listener = self.listener,
                limit = self.limit,
                budget,
                "too many connections: closing new ones"
            );
        }
        None
    }
}

/// How much longer a peer may be silent.
#[derive(Debug)]
struct Patience {
    silence: Silence,
    /// Bytes of the greeting that have not come.
    missing: usize,
    ends: Pin<Box<Sleep>>,
}

impl Patience {
    fn new(silence: Silence, greeting: Duration) -> Self {
        Self { silence, missing: GREETING_BYTES, ends: Box::pin(sleep(greeting)) }
    }

    /// So many bytes came. False: nothing is asked of the peer from here on.
    fn heard(&mut self, bytes: usize) -> bool {
        let greeted = self.missing == 0;
        self.missing = self.missing.saturating_sub(bytes);
        if self.missing > 0 {
            return true;
        }
        if self.silence == Silence::Always && (bytes > 0 || !greeted) {
            self.ends.as_mut().reset(Instant::now() + Duration::from_millis(HTTP_IDLE_MS));
        }
        self.silence == Silence::Always
    }
}

/// An accepted connection and its place.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    patience: Option<Patience>,
    _place: OwnedSemaphorePermit,
    _share: Share,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match &self.stream {
            Stream::Tcp(stream) => stream.connect_info(),
            Stream::Simulated(_, peer) => TcpConnectInfo { local_addr: None, remote_addr: Some(*peer) },
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(patience) = &mut self.patience else { return read };
        if read.is_pending() {
            ready!(patience.ends.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer was silent for too long")));
        }
        if !patience.heard(buf.filled().len() - before) {
            self.patience = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepted connections of one socket.
#[derive(Debug)]
pub struct Incoming {
    listener: Listener,
    places: Places,
    /// Accepting failed: the next try is after this.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    pub(super) fn new(listener: Listener, places: Places) -> Self {
        Self { listener, places, pause: None }
    }
}

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_accept(cx).map(|next| next.map(Ok))
    }
}

impl Incoming {
    /// The next connection that may stay, and its peer. Pends for ever when there will be no more.
    pub async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Some(connection) => {
                    let peer = connection.connect_info().remote_addr();
                    return (connection, peer.unwrap_or_else(|| SocketAddr::from(([0; 4], 0))));
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Connection>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.listener.poll_accept(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    if let Some(connection) = self.places.admit(stream) {
                        return Poll::Ready(Some(connection));
                    }
                }
                // Out of descriptors, say: the same connection would fail again at once.
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!(%error, listener = self.places.listener, "a connection could not be accepted");
                    self.pause = Some(Box::pin(sleep(Duration::from_millis(ACCEPT_PAUSE_MS))));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::server;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn next(incoming: &mut Incoming) -> Connection {
        incoming.accept().await.0
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_closed_and_a_place_is_given_back_with_its_stream() {
        let listener = server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut incoming = server::incoming(listener, Places::new("test", 2));
        let _clients = [TcpStream::connect(address).await, TcpStream::connect(address).await];
        let (first, _second) = (next(&mut incoming).await, next(&mut incoming).await);
        let mut third = TcpStream::connect(address).await.expect("the backlog takes it");
        let refused = tokio::select! {
            _ = next(&mut incoming) => panic!("there is no place"),
            read = third.read_u8() => read,
        };
        refused.expect_err("it was closed");
        drop(first);
        let fourth = TcpStream::connect(address).await.expect("the backlog takes it");
        let accepted = next(&mut incoming).await;
        assert_eq!(accepted.connect_info().remote_addr(), Some(fourth.local_addr().expect("connected")));
    }

    async fn pair(places: &Places) -> (TcpStream, Option<Connection>) {
        let listener = server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("the backlog takes it");
        let (stream, _) = listener.accept().await.expect("it is there");
        (client, places.admit(stream))
    }

    #[tokio::test]
    async fn listeners_share_the_budget_of_their_process() {
        let budget = Arc::new(Budget::new(1));
        let one = Places::within("one", 16, Silence::UntilGreeted, Arc::clone(&budget));
        let other = Places::within("other", 16, Silence::Always, budget);
        let (_first, held) = pair(&one).await;
        assert!(held.is_some());
        assert!(pair(&other).await.1.is_none(), "the budget is spent");
        drop(held);
        assert!(pair(&other).await.1.is_some(), "and given back");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_greet_loses_its_place() {
        let budget = Arc::new(Budget::new(16));
        let mut places = Places::within("test", 1, Silence::UntilGreeted, budget);
        places.greeting = Duration::from_millis(20);
        let (mut client, held) = pair(&places).await;
        client.write_all(b"PRI").await.expect("it is open");
        let mut held = held.expect("there is a place");
        held.read_exact(&mut [0; 3]).await.expect("three bytes came");
        let cut = held.read_u8().await.expect_err("three bytes are no greeting");
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn after_its_greeting_only_a_reader_of_pages_is_watched() {
        for (silence, watched) in [(Silence::UntilGreeted, false), (Silence::Always, true)] {
            let places = Places::within("test", 1, silence, Arc::new(Budget::new(16)));
            let (mut client, held) = pair(&places).await;
            client.write_all(&[b'x'; GREETING_BYTES]).await.expect("it is open");
            let mut held = held.expect("there is a place");
            held.read_exact(&mut [0; GREETING_BYTES]).await.expect("the greeting came");
            let idle = held.patience.as_ref().map(|patience| patience.ends.deadline() - Instant::now());
            assert_eq!(idle.is_some(), watched, "{silence:?}");
            assert!(idle.is_none_or(|left| left > Duration::from_millis(GREETING_MS)), "{idle:?}");
        }
    }
}
