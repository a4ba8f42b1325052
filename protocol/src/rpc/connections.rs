//! How many connections a listener has open: accepted up to a limit, closed at once beyond it.
//!
//! Owns: the places of a listener and the accepted stream that holds one. Never: queues a connection or reads from it.
//! Invariant: an open connection holds a place from accept until its stream is dropped. Why closed and not left waiting: a
//! peer that is closed tries another node; one that waits in the backlog believes itself connected.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::codegen::tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

/// Connections closed because their listener had no place left. Label `listener`.
pub const CONNECTIONS_REFUSED: &str = "seawall_connections_refused_total";

/// The places of one listener. Clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    listener: &'static str,
    limit: usize,
    free: Arc<Semaphore>,
    /// The last one was refused: said once, not for each.
    refusing: Arc<AtomicBool>,
}

impl Places {
    /// For a listener that has at most `limit` connections open; its name stands in the metric and the log.
    #[must_use]
    pub fn new(listener: &'static str, limit: usize) -> Self {
        Self { listener, limit, free: Arc::new(Semaphore::new(limit)), refusing: Arc::default() }
    }

    /// A connection that may stay, or None: it is closed.
    #[must_use]
    pub fn admit(&self, stream: TcpStream) -> Option<Connection> {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            self.refusing.store(false, Ordering::Relaxed);
            return Some(Connection { stream, _place: place });
        }
        metrics::counter!(CONNECTIONS_REFUSED, "listener" => self.listener).increment(1);
        if !self.refusing.swap(true, Ordering::Relaxed) {
            tracing::warn!(listener = self.listener, limit = self.limit, "too many connections: closing new ones");
        }
        None
    }
}

/// An accepted connection and its place.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
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
    accepted: TcpIncoming,
    places: Places,
}

impl Incoming {
    pub(super) fn new(accepted: TcpIncoming, places: Places) -> Self {
        Self { accepted, places }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match Pin::new(&mut self.accepted).poll_next(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    if let Some(connection) = self.places.admit(stream) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
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
    use std::future::poll_fn;
    use std::net::SocketAddr;
    use tokio::io::AsyncReadExt;

    async fn next(incoming: &mut Incoming) -> Connection {
        let accepted = poll_fn(|cx| Pin::new(&mut *incoming).poll_next(cx)).await;
        accepted.expect("it listens").expect("it accepts")
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
}
