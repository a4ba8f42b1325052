//! The hunt for one bug on one ground: numbered runs, side by side where the ground allows it, until one sees the bug.
//! The answer is the lowest number that sees it, whatever the threads did.

use super::{Ground, Seen};
use protocol::planted::Bug;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The outcome of a hunt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A named law or check saw it in this run (the first is 1).
    Caught {
        /// Its name.
        by: String,
        /// Runs needed.
        runs: u64,
    },
    /// Nothing did in so many runs; the text of a failure without a name, if there was one.
    Survived {
        /// Runs made.
        runs: u64,
        /// The first nameless failure and its run.
        unnamed: Option<(u64, String)>,
    },
    /// This machine does not permit the runs: nothing was shown.
    NotPermitted {
        /// What it refuses.
        why: String,
    },
}

/// Hunts `bug` with at most `budget` runs on `jobs` threads.
#[must_use]
pub fn hunt(ground: &Ground, bug: Bug, budget: u64, jobs: usize) -> Found {
    let budget = budget.min(ground.runs_max);
    let (next, best) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    let seen: Mutex<BTreeMap<u64, Seen>> = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run > budget || run > best.load(Ordering::Relaxed) {
                return;
            }
            let what = look(ground, bug, run);
            if matches!(what, Seen::By(_)) {
                best.fetch_min(run, Ordering::Relaxed);
            }
            if what != Seen::Nothing {
                seen.lock().expect("no run panics while it holds the list").insert(run, what);
            }
        }
    };
    if ground.parallel && jobs > 1 {
        std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    } else {
        work();
    }
    let seen = seen.into_inner().expect("no run panics while it holds the list");
    let caught = seen.iter().find_map(|(run, what)| match what {
        Seen::By(by) => Some(Found::Caught { by: by.clone(), runs: *run }),
        _ => None,
    });
    let refused = || {
        seen.values().find_map(|what| match what {
            Seen::NotPermitted(why) => Some(Found::NotPermitted { why: why.clone() }),
            _ => None,
        })
    };
    let unnamed = || {
        seen.iter().find_map(|(run, what)| match what {
            Seen::Unnamed(text) => Some((*run, text.clone())),
            _ => None,
        })
    };
    caught.or_else(refused).unwrap_or_else(|| Found::Survived { runs: budget, unnamed: unnamed() })
}

/// One run; a panic is a failure without a name.
fn look(ground: &Ground, bug: Bug, run: u64) -> Seen {
    catch_unwind(AssertUnwindSafe(|| (ground.look)(bug, run))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Seen::Unnamed(format!("panic: {}", text.unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sees_at(bug: Bug, run: u64) -> Seen {
        match (bug, run) {
            (Bug::PartitionSync, 7..) => Seen::By(format!("law of run {run}")),
            (Bug::RetryFsync, 3) => panic!("in the mutated code"),
            (Bug::RetryFsync, 5) => Seen::By("law".into()),
            (Bug::VoteNotSynced, 2) => Seen::Unnamed("something".into()),
            (Bug::MissingDirectoryFsync, _) => Seen::NotPermitted("no tracer".into()),
            _ => Seen::Nothing,
        }
    }

    const GROUND: Ground = Ground { ring: "test", bugs: &[], look: sees_at, parallel: true, runs_max: 9 };

    #[test]
    fn the_lowest_run_that_sees_it_is_the_answer_on_any_number_of_threads() {
        for jobs in [1, 4] {
            let found = hunt(&GROUND, Bug::PartitionSync, 500, jobs);
            assert_eq!(found, Found::Caught { by: "law of run 7".into(), runs: 7 });
        }
    }

    #[test]
    fn a_ground_that_is_not_permitted_shows_nothing() {
        let refused = Found::NotPermitted { why: "no tracer".into() };
        assert_eq!(hunt(&GROUND, Bug::MissingDirectoryFsync, 500, 2), refused);
    }

    #[test]
    fn a_panic_or_a_nameless_failure_is_no_catch() {
        assert_eq!(hunt(&GROUND, Bug::RetryFsync, 500, 2), Found::Caught { by: "law".into(), runs: 5 });
        let unnamed = Some((2, "something".to_owned()));
        assert_eq!(hunt(&GROUND, Bug::VoteNotSynced, 500, 2), Found::Survived { runs: 9, unnamed });
        assert_eq!(hunt(&GROUND, Bug::NoReadBarrier, 500, 2), Found::Survived { runs: 9, unnamed: None });
    }
}
