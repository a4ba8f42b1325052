//! Tasks whose death must not go unnoticed. A panic in any of them ends the process with its name: a controller
//! that lost one of its loops would hang instead of failing over.

use futures_util::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use tokio::task::JoinHandle;

/// Spawns a future; a panic in it aborts the process, or ends the simulation that it is part of.
pub(crate) fn spawn<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
            if protocol::machine::simulated().is_some() {
                std::panic::resume_unwind(panic);
            }
            tracing::error!(task = name, "a task panicked: the controller stops");
            eprintln!("seawall controller: task {name} panicked");
            std::process::abort();
        }
    })
}

/// Ends a task when dropped.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
