//! Waiting for a condition, and holding a fault: the only places where tests may sleep.
//!
//! Owns the polling; a caller says what it waits for, and the deadline's failure repeats that.

use std::future::Future;
use std::time::{Duration, Instant};

/// Pause between two looks.
pub const POLL: Duration = Duration::from_millis(25);

/// How long a cluster may take for anything that should happen by itself: generous, because a loaded build machine
/// stretches everything; a failure is slow, a success is not.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Looks again and again until `look` answers `Ok`.
///
/// # Panics
/// After [`PATIENCE`], with `what` and the last answer.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within_patience(what, look).unwrap_or_else(|why| panic!("{why}"))
}

/// The same for a caller that has something to do when it does not come.
///
/// # Errors
/// After [`PATIENCE`], with `what` and the last answer.
pub fn within_patience<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(why) if Instant::now() > deadline => return Err(format!("gave up waiting until {what}: {why}")),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// The same for a future made anew for each look.
///
/// # Panics
/// After [`PATIENCE`], with `what` and the last answer.
pub async fn eventually_async<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    within_patience_async(what, look).await.unwrap_or_else(|why| panic!("{why}"))
}

/// [`within_patience`] for a future made anew for each look.
///
/// # Errors
/// After [`PATIENCE`], with `what` and the last answer.
pub async fn within_patience_async<T, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(why) if Instant::now() > deadline => return Err(format!("gave up waiting until {what}: {why}")),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// How long a planned fault lasts: the fault itself, not a wait for its effect.
pub fn hold_fault(duration: Duration) {
    std::thread::sleep(duration);
}
