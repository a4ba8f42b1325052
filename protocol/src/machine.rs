//! The seam between a node and its machine, for simulations: who else could tell the time, draw random numbers, carry
//! bytes and let work take time.
//!
//! Owns: the trait [`Machine`], which machine the present thread simulates, and the helpers that behave differently on one:
//! [`blocking`], [`pause`], [`Worker`], [`uuid_v4`], [`uuid_v7`]. Never: reads a real clock or opens a real socket;
//! whoever does so asks [`simulated`] first.
//! Invariant: without the feature `simulation` (test builds) [`simulated`] is a constant `None` and the compiler drops
//! every branch on it. On a simulated machine nothing leaves the thread: what has a thread of its own elsewhere is a task.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinError;
use uuid::Uuid;

/// A connection of a simulated network.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug> Wire for T {}

/// An answer that comes later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection and its peer.
pub type Accepted = io::Result<(Box<dyn Wire>, SocketAddr)>;

/// A bound socket of a simulated network.
pub trait Accept: Send + Sync + fmt::Debug {
    /// Where it is bound.
    fn local_addr(&self) -> SocketAddr;
    /// The next connection and its peer.
    fn accept(self: Arc<Self>) -> Later<Accepted>;
}

/// The clocks of a machine, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clocks {
    /// Since boot, suspended time included.
    pub boot: Duration,
    /// Since boot, without it.
    pub awake: Duration,
    /// Since 1970.
    pub wall: Duration,
}

/// A simulated machine.
pub trait Machine: Send + Sync {
    /// Its clocks.
    fn clocks(&self) -> Clocks;
    /// Random bits from the simulation's seed.
    fn random(&self) -> u128;
    /// How long the next piece of blocking work (a sync, say) takes.
    fn work_time(&self) -> Duration;
    /// Binds a socket.
    ///
    /// # Errors
    /// A taken port, say.
    fn bind(&self, address: &str) -> io::Result<Arc<dyn Accept>>;
    /// Connects to a node by name or address.
    fn connect(&self, host: &str, port: u16) -> Later<io::Result<Box<dyn Wire>>>;
}

/// The machine that the present thread simulates.
#[cfg(not(feature = "simulation"))]
#[inline]
#[must_use]
pub const fn simulated() -> Option<Arc<dyn Machine>> {
    None
}

#[cfg(feature = "simulation")]
pub use enabled::{simulate, simulated};

#[cfg(feature = "simulation")]
mod enabled {
    use super::{Arc, Machine};
    use std::cell::RefCell;

    thread_local! {
        static HERE: RefCell<Option<Arc<dyn Machine>>> = const { RefCell::new(None) };
    }

    /// The machine that the present thread simulates.
    #[must_use]
    pub fn simulated() -> Option<Arc<dyn Machine>> {
        HERE.with_borrow(Clone::clone)
    }

    /// Runs `work` with every node of this thread on `machine`.
    pub fn simulate<T>(machine: Arc<dyn Machine>, work: impl FnOnce() -> T) -> T {
        struct Restore(Option<Arc<dyn Machine>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                HERE.replace(self.0.take());
            }
        }
        let _restore = Restore(HERE.replace(Some(machine)));
        work()
    }
}

/// A random id.
#[must_use]
pub fn uuid_v4() -> Uuid {
    match simulated() {
        Some(machine) => uuid::Builder::from_random_bytes(machine.random().to_be_bytes()).into_uuid(),
        None => Uuid::new_v4(),
    }
}

/// A random id that begins with the time.
#[must_use]
pub fn uuid_v7() -> Uuid {
    match simulated() {
        Some(machine) => {
            let millis = u64::try_from(machine.clocks().wall.as_millis()).unwrap_or(u64::MAX);
            let mut random = [0; 10];
            random.copy_from_slice(&machine.random().to_be_bytes()[..10]);
            uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
        }
        None => Uuid::now_v7(),
    }
}

/// 64 random bits for jitter and placement; no secret depends on them.
#[must_use]
pub fn random() -> u64 {
    // Six bits of an id are fixed, no two of them at the same place of its halves.
    let (high, low) = uuid_v4().as_u64_pair();
    high ^ low
}

/// Runs work that blocks off the async threads.
///
/// # Errors
/// The work panicked, or the runtime ends.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if simulated().is_some() {
        pause().await;
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// On a simulated machine: the time that a piece of blocking work takes. None elsewhere.
pub async fn pause() {
    if let Some(machine) = simulated() {
        tokio::time::sleep(machine.work_time()).await;
    }
}

/// A loop with a thread of its own, on which it may block.
#[derive(Debug)]
pub struct Worker(Kind);

#[derive(Debug)]
enum Kind {
    Thread(std::thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

/// Why the loop of a new thread did not begin.
enum Unbegun<E> {
    Refused(io::Error),
    Failed(E),
}

/// A worker got no thread, or its thread no runtime.
#[derive(Debug, thiserror::Error)]
#[error("thread {name}: {source}")]
pub struct NoThread {
    /// The worker's name.
    pub name: String,
    /// The operating system's answer.
    pub source: io::Error,
}

impl From<NoThread> for io::Error {
    fn from(error: NoThread) -> Self {
        Self::new(error.source.kind(), error)
    }
}

impl Worker {
    /// Starts it. `begin` runs on the new thread, within a runtime of its own, and makes the loop or fails; its failure is
    /// returned here.
    ///
    /// # Errors
    /// What `begin` says; [`NoThread`].
    pub fn start<F, E>(name: &str, begin: impl FnOnce() -> Result<F, E> + Send + 'static) -> Result<Self, E>
    where
        F: Future<Output = ()> + 'static,
        E: From<NoThread> + Send + 'static,
    {
        if simulated().is_some() {
            return Ok(Self(Kind::Task(tokio::task::spawn_local(begin()?))));
        }
        let refused = |source| NoThread { name: name.to_owned(), source };
        let (begun, beginning) = std::sync::mpsc::sync_channel::<Result<(), Unbegun<E>>>(1);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Made here and not where the worker is started: a runtime must not be dropped within another, should the
            // system refuse the thread. Whoever starts it waits for what is sent.
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(begun.send(Err(Unbegun::Refused(error)))),
            };
            runtime.block_on(async move {
                match begin() {
                    Ok(work) => {
                        begun.send(Ok(())).ok();
                        work.await;
                    }
                    Err(error) => drop(begun.send(Err(Unbegun::Failed(error)))),
                }
            });
            runtime.shutdown_background();
        });
        let thread = thread.map_err(refused)?;
        let ended = || Err(Unbegun::Refused(io::Error::other("it ended before it began")));
        match beginning.recv().unwrap_or_else(|_| ended()) {
            Ok(()) => Ok(Self(Kind::Thread(thread))),
            Err(Unbegun::Refused(error)) => Err(refused(error).into()),
            Err(Unbegun::Failed(error)) => Err(error),
        }
    }

    /// A thread that was started otherwise.
    #[must_use]
    pub fn thread(thread: std::thread::JoinHandle<()>) -> Self {
        Self(Kind::Thread(thread))
    }

    /// Waits for its end; false if it panicked.
    pub async fn join(self) -> bool {
        match self.0 {
            Kind::Thread(thread) => {
                tokio::task::spawn_blocking(move || thread.join()).await.is_ok_and(|ended| ended.is_ok())
            }
            Kind::Task(task) => task.await.is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_runs_until_its_queue_ends_and_is_joined() {
        let (sender, mut queue) = tokio::sync::mpsc::unbounded_channel::<u32>();
        let (done, sum) = tokio::sync::oneshot::channel();
        let worker = Worker::start("sum", move || {
            Ok::<_, io::Error>(async move {
                let mut total = 0;
                while let Some(next) = queue.recv().await {
                    total += next;
                }
                done.send(total).ok();
            })
        });
        let worker = worker.expect("threads start");
        (1..=3).for_each(|n| sender.send(n).expect("it listens"));
        drop(sender);
        assert_eq!(sum.await, Ok(6));
        assert!(worker.join().await);
    }

    #[tokio::test]
    async fn a_worker_that_cannot_begin_says_why() {
        let refused = Worker::start("none", || Err::<std::future::Ready<()>, _>(io::Error::other("no port")));
        assert_eq!(refused.expect_err("it did not begin").to_string(), "no port");
    }

    #[tokio::test]
    async fn a_worker_that_gets_no_thread_says_which() {
        let panics = || -> Result<std::future::Ready<()>, io::Error> { panic!("on purpose") };
        let refused = Worker::start("third", panics).expect_err("it ended");
        assert_eq!(refused.to_string(), "thread third: it ended before it began");
    }

    #[test]
    fn every_random_bit_is_random() {
        let (mut zeros, mut ones) = (0_u64, 0_u64);
        for _ in 0..256 {
            let random = random();
            (zeros, ones) = (zeros | !random, ones | random);
        }
        assert_eq!((zeros, ones), (u64::MAX, u64::MAX));
    }
}
