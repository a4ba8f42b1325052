//! Listening sockets and accepted connections, real or of a simulated machine.
//!
//! Owns: [`Socket`] (bound, of no runtime), [`Listener`] (of the runtime it was made on), [`Stream`].
//! Never: counts connections, sets limits (`connections` does) or knows what they carry.
//! Invariant: outside a simulation each is a plain TCP one.

use crate::limits as l;
use crate::machine::{self, Accept, Accepted, Later, Wire};
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::tokio_stream::Stream as _;
use tonic::transport::server::TcpIncoming;

/// A bound socket. Bound at once, so that a taken port is an error at start and not a silent retry.
#[derive(Debug)]
pub struct Socket(Bound);

#[derive(Debug)]
enum Bound {
    Tcp(StdListener),
    Simulated(Arc<dyn Accept>),
}

impl Socket {
    /// Binds `address`.
    ///
    /// # Errors
    /// The operating system's, for example `AddrInUse`.
    pub fn bind(address: &str) -> io::Result<Self> {
        if let Some(machine) = machine::simulated() {
            return machine.bind(address).map(|socket| Self(Bound::Simulated(socket)));
        }
        let socket = StdListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self(Bound::Tcp(socket)))
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Bound::Tcp(socket) => socket.local_addr(),
            Bound::Simulated(socket) => Ok(socket.local_addr()),
        }
    }

    /// Accepts its connections on the present runtime; every clone gets some.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen(&self) -> io::Result<Listener> {
        match &self.0 {
            Bound::Tcp(socket) => Ok(TcpListener::from_std(socket.try_clone()?)?.into()),
            Bound::Simulated(socket) => Ok(Listener(Accepting::Simulated { socket: Arc::clone(socket), next: None })),
        }
    }

    /// Another handle on the same socket.
    ///
    /// # Errors
    /// The operating system's.
    pub fn try_clone(&self) -> io::Result<Self> {
        match &self.0 {
            Bound::Tcp(socket) => Ok(Self(Bound::Tcp(socket.try_clone()?))),
            Bound::Simulated(socket) => Ok(Self(Bound::Simulated(Arc::clone(socket)))),
        }
    }
}

/// A socket that accepts on one runtime.
pub struct Listener(Accepting);

enum Accepting {
    Tcp(Box<TcpIncoming>),
    Simulated { socket: Arc<dyn Accept>, next: Option<Later<Accepted>> },
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.local_addr()).finish()
    }
}

impl From<TcpListener> for Listener {
    /// With `TCP_NODELAY` and keep-alive on accepted connections: a server ignores its own TCP settings for them.
    fn from(listener: TcpListener) -> Self {
        let accepted = TcpIncoming::from(listener)
            .with_nodelay(Some(true))
            .with_keepalive(Some(Duration::from_millis(l::TCP_KEEPALIVE_MS)));
        Self(Accepting::Tcp(Box::new(accepted)))
    }
}

impl Listener {
    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Accepting::Tcp(accepted) => accepted.local_addr(),
            Accepting::Simulated { socket, .. } => Ok(socket.local_addr()),
        }
    }

    /// The next connection. None: there will be no more.
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Stream>>> {
        match &mut self.0 {
            Accepting::Tcp(accepted) => {
                Pin::new(accepted.as_mut()).poll_next(cx).map(|next| next.map(|stream| stream.map(Stream::Tcp)))
            }
            Accepting::Simulated { socket, next } => {
                let coming = next.get_or_insert_with(|| Arc::clone(socket).accept());
                let accepted = ready!(coming.as_mut().poll(cx));
                *next = None;
                Poll::Ready(Some(accepted.map(|(wire, peer)| Stream::Simulated(wire, peer))))
            }
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// A real one.
    Tcp(TcpStream),
    /// One of a simulated network, and its peer.
    Simulated(Box<dyn Wire>, SocketAddr),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Simulated(wire, _) => Pin::new(wire).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Simulated(wire, _) => Pin::new(wire).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Simulated(wire, _) => Pin::new(wire).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Simulated(wire, _) => wire.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Simulated(wire, _) => Pin::new(wire).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Simulated(wire, _) => Pin::new(wire).poll_shutdown(cx),
        }
    }
}
