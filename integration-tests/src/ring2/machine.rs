//! The simulated machine under every node: turmoil's network and time, randomness from the seed.
//!
//! Owns: [`Simulated`], and how turmoil's sockets become the seam's. Never: decides what goes wrong (`nemesis` does).
//! Invariant: whatever a node takes from its machine is a function of the seed and of what happened before.
//!
//! Turmoil refuses at once a connection to where a cut leads, and never frees the port of a connection that did not come
//! about. So a dial over a cut is held here as a kernel would hold it: it is sent again, later and later, until the cut
//! ends or whoever dialled gives up. What remains (dials of hosts that are down) is bounded by the law on dials.

use super::links::{Links, Way};
use crate::chaos::random::Random;
use futures_util::FutureExt;
use protocol::machine::{Accept, Accepted, Clocks, Later, Machine, Wire};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// What every clock shows at the start: a machine that has run for a while.
const UPTIME: Duration = Duration::from_secs(1_000);

/// Seconds since 1970 at the start.
pub const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// Before a kernel sends the first message of a connection again; doubled each time.
const DIAL_AGAIN: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug)]
pub struct Simulated {
    state: Mutex<State>,
    slowest: Duration,
    links: Arc<Links>,
}

#[derive(Debug)]
struct State {
    random: Random,
    elapsed: Duration,
}

impl Simulated {
    /// A machine with its seed; a piece of blocking work takes up to `slowest`.
    pub fn new(seed: u64, slowest: Duration, links: Arc<Links>) -> Self {
        let state = Mutex::new(State { random: Random::new(seed), elapsed: Duration::ZERO });
        Self { state, slowest, links }
    }

    fn elapsed(&self) -> Duration {
        let mut state = self.state.lock().expect("no holder panics");
        // Outside a host, while one is taken down, time stands still.
        state.elapsed = simulated_now().unwrap_or(state.elapsed).max(state.elapsed);
        state.elapsed
    }
}

/// Simulated time, on a host. None outside of one, and while one is taken down: what is dropped then runs on no runtime,
/// and turmoil would count by the real clock, so that a run depended on how loaded the machine is.
pub fn simulated_now() -> Option<Duration> {
    tokio::runtime::Handle::try_current().ok()?;
    turmoil::sim_elapsed()
}

fn now() -> Duration {
    simulated_now().unwrap_or_default()
}

impl Machine for Simulated {
    fn clocks(&self) -> Clocks {
        let elapsed = self.elapsed();
        Clocks { boot: UPTIME + elapsed, awake: UPTIME + elapsed, wall: EPOCH + elapsed }
    }

    fn random(&self) -> u128 {
        let random = &mut self.state.lock().expect("no holder panics").random;
        u128::from(random.number()) << 64 | u128::from(random.number())
    }

    fn work_time(&self) -> Duration {
        let micros = u64::try_from(self.slowest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.state.lock().expect("no holder panics").random.below(micros + 1))
    }

    fn bind(&self, address: &str) -> io::Result<Arc<dyn Accept>> {
        let bound = TcpListener::bind(address).now_or_never().expect("turmoil binds at once")?;
        Ok(Arc::new(Bound(bound, Arc::clone(&self.links))))
    }

    fn connect(&self, host: &str, port: u16) -> Later<io::Result<Box<dyn Wire>>> {
        let (host, links) = (host.to_owned(), Arc::clone(&self.links));
        Box::pin(async move {
            let ways = links.here().map(|from| (from, turmoil::lookup(host.as_str())));
            if let Some((from, to)) = ways {
                links.dials(from, now());
                let mut again = DIAL_AGAIN;
                loop {
                    links.goes((from, to), now());
                    if !links.is_cut(&[(from, to), (to, from)]) {
                        break;
                    }
                    simulated_pause(again).await;
                    again *= 2;
                }
            }
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            let way = (stream.local_addr()?.ip(), stream.peer_addr()?.ip());
            Ok(Box::new(Line { stream, way, links }) as Box<dyn Wire>)
        })
    }
}

struct Bound(TcpListener, Arc<Links>);

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bound({})", self.local_addr())
    }
}

impl Accept for Bound {
    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr().expect("turmoil knows where it is bound")
    }

    fn accept(self: Arc<Self>) -> Later<Accepted> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            let way = (stream.local_addr()?.ip(), peer.ip());
            let line = Line { stream, way, links: Arc::clone(&self.1) };
            Ok((Box::new(line) as Box<dyn Wire>, peer))
        })
    }
}

/// A connection that says when something goes out on it.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    way: Way,
    links: Arc<Links>,
}

impl Line {
    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(count)) if count > 0) {
            self.links.goes(self.way, now());
        }
        written
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.sent(written)
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

/// A kernel's time between two attempts, on the simulated clock.
async fn simulated_pause(time: Duration) {
    tokio::time::sleep(time).await;
}
