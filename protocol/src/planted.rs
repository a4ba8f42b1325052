//! Planted bugs: deliberate mistakes that the tests must be able to see. Each names a rule; a check that stays green with
//! the rule switched off proves nothing about it.
//!
//! Exists only with the feature `planted-bugs` (test builds); without it [`is`] is a constant `false` and the compiler
//! drops the branch. Nothing is planted unless a test program asks for it: [`plant_from_environment`] for a process,
//! [`planted`] for the present thread.

/// Environment variable that names the bugs of a process, separated by commas. Variables with the prefix `SEAWALL_` are
/// configuration; this is none.
pub const VARIABLE: &str = "PLANTED_BUGS";

/// One deliberate mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A broker reports appended batches as durable without having synced anything.
    PartitionSync,
    /// A controller reports appended Raft entries as durable without having synced anything.
    RaftAppendSync,
}

impl Bug {
    /// Every bug there is.
    pub const ALL: [Bug; 2] = [Bug::PartitionSync, Bug::RaftAppendSync];

    /// Its name in [`VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Bug::PartitionSync => "partition-sync",
            Bug::RaftAppendSync => "raft-append-sync",
        }
    }
}

/// True if `bug` is planted in this thread or process.
#[cfg(not(feature = "planted-bugs"))]
#[inline]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
pub use enabled::{is, plant_from_environment, planted};

#[cfg(feature = "planted-bugs")]
mod enabled {
    use super::{Bug, VARIABLE};
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering};

    static PROCESS: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        static THREAD: Cell<u64> = const { Cell::new(0) };
    }

    fn bit(bug: Bug) -> u64 {
        1 << bug as u64
    }

    /// True if `bug` is planted in this thread or process.
    pub fn is(bug: Bug) -> bool {
        (PROCESS.load(Ordering::Relaxed) | THREAD.get()) & bit(bug) != 0
    }

    /// Runs `work` with `bug` planted in this thread.
    pub fn planted<T>(bug: Bug, work: impl FnOnce() -> T) -> T {
        struct Restore(u64);
        impl Drop for Restore {
            fn drop(&mut self) {
                THREAD.set(self.0);
            }
        }
        let _restore = Restore(THREAD.replace(THREAD.get() | bit(bug)));
        work()
    }

    /// Plants what [`VARIABLE`] names in this process.
    ///
    /// # Errors
    /// The name that is no bug.
    pub fn plant_from_environment() -> Result<(), String> {
        let Ok(names) = std::env::var(VARIABLE) else { return Ok(()) };
        for name in names.split(',').filter(|name| !name.is_empty()) {
            let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
            let bug =
                bug.ok_or_else(|| format!("{VARIABLE} is {name:?}, allowed: {}", Bug::ALL.map(Bug::name).join(", ")))?;
            PROCESS.fetch_or(bit(bug), Ordering::Relaxed);
        }
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_bug_is_planted_only_where_it_was_asked_for() {
            assert!(!is(Bug::PartitionSync));
            planted(Bug::PartitionSync, || {
                assert!(is(Bug::PartitionSync) && !is(Bug::RaftAppendSync));
                std::thread::spawn(|| assert!(!is(Bug::PartitionSync))).join().expect("the other thread sees none");
            });
            assert!(!is(Bug::PartitionSync));
        }
    }
}
