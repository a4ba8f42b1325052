//! The end of the process when going on would be worse: damage on disk, a failed sync, a fact that this build cannot
//! fold. Nothing is skipped, shortened or retried. Tests put a recorder in the place of `abort`.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Ends the process with a reason.
#[derive(Clone)]
pub struct Halt(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Halt")
    }
}

impl Halt {
    /// Prints the reason and aborts.
    #[must_use]
    pub fn abort() -> Self {
        Self(Arc::new(|reason| {
            tracing::error!(reason, "the controller halts");
            // Logging may be off or buffered; the reason must reach the operator.
            eprintln!("seawall controller halts: {reason}");
            std::process::abort();
        }))
    }

    /// Calls `record` instead, for tests; what asked for the halt then gets an error and must stop by itself.
    #[must_use]
    pub fn recording(record: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(record))
    }

    /// Halts. Returns only under a recorder, as an error to hand on.
    pub fn now(&self, reason: &dyn fmt::Display) -> io::Error {
        let reason = reason.to_string();
        (self.0)(&reason);
        io::Error::other(reason)
    }
}
