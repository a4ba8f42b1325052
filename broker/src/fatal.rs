//! Stopping the process when going on could lose or falsify data: damaged metadata, a failed write or sync, a broken
//! invariant. Owns the reasons and their exit codes; never decides that something is fatal.
//!
//! Why a handler and not a plain exit: a test that provokes damage has to outlive it.

use std::fmt;
use std::sync::Arc;

/// Why the process must not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fatal {
    /// A write or sync failed, or a file is damaged where it must not be: what, and on which file.
    Disk(String),
    /// The metadata log cannot be folded here, or this node's history parted from the controllers'.
    Metadata(String),
    /// The cluster gave this broker's id to another process.
    Replaced(String),
    /// The program contradicts itself.
    Invariant(String),
}

impl Fatal {
    /// The process's exit code; documented in the operations guide.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Disk(_) => 74,
            Self::Metadata(_) => 65,
            Self::Replaced(_) => 69,
            Self::Invariant(_) => 70,
        }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(text) => write!(f, "disk: {text}"),
            Self::Metadata(text) => write!(f, "metadata: {text}"),
            Self::Replaced(text) => write!(f, "replaced: {text}"),
            Self::Invariant(text) => write!(f, "broken invariant: {text}"),
        }
    }
}

/// What happens on a [`Fatal`]. The production handler does not return.
#[derive(Clone)]
pub struct Halt(Arc<dyn Fn(&Fatal) + Send + Sync>);

impl fmt::Debug for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Halt")
    }
}

impl Halt {
    /// Logs the reason and ends the process with its exit code, without running anything that could still write.
    #[must_use]
    pub fn process() -> Self {
        Self::with(|fatal| {
            tracing::error!(exit_code = fatal.exit_code(), "stopping at once: {fatal}");
            eprintln!("seawall broker: stopping at once: {fatal}");
            std::process::exit(fatal.exit_code());
        })
    }

    /// Another reaction, for tests.
    #[must_use]
    pub fn with(handler: impl Fn(&Fatal) + Send + Sync + 'static) -> Self {
        Self(Arc::new(handler))
    }

    /// Reports the reason. Callers return at once and touch nothing more, in case the handler returns.
    pub fn halt(&self, fatal: &Fatal) {
        (self.0)(fatal);
    }
}

/// Ends the process when a thread that holds it panics: what the thread left half done must not be worked with. In a
/// simulation the panic itself ends the run.
#[derive(Debug)]
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() && protocol::machine::simulated().is_none() {
            eprintln!("seawall broker: a thread panicked; stopping at once");
            std::process::abort();
        }
    }
}
