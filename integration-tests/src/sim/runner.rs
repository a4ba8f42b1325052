//! Many seeds on several threads: what they found, how much happened, and the ledger of what was ever run.
//!
//! Each seed runs on one thread. Never: runs a seed twice to see whether it passes then.

use super::{Plan, Sometimes, Tally, run};
use protocol::planted::{Bug, planted};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Debug, Clone)]
pub struct Job {
    /// Which seeds.
    pub seeds: Range<u64>,
    /// On how many threads.
    pub threads: usize,
    /// Begin no further seed after this time.
    pub limit: Option<Duration>,
    /// Stop at the first violation.
    pub first_only: bool,
    /// A bug that every seed runs with.
    pub bug: Option<Bug>,
    /// Nothing protects the last copy.
    pub hopeless: bool,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Seeds that ran to their end without a violation, with what happened.
    pub clean: BTreeMap<u64, Tally>,
    /// Seeds that broke a law, with its text.
    pub broken: BTreeMap<u64, String>,
    /// Wall time.
    pub took: Duration,
}

/// Runs one seed; a panic is a violation like any other.
///
/// # Errors
/// The law that broke.
pub fn run_seed(seed: u64, bug: Option<Bug>, hopeless: bool) -> Result<Tally, String> {
    let work = || run(if hopeless { Plan::hopeless(seed) } else { Plan::of(seed) });
    let outcome = catch_unwind(AssertUnwindSafe(|| bug.map_or_else(work, |bug| planted(bug, work))));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("seed {seed}: panic: {}", text.unwrap_or_default()))
    })
}

impl Job {
    /// Runs it.
    #[must_use]
    pub fn run(&self) -> Report {
        let (next, began) = (AtomicU64::new(self.seeds.start), Instant::now());
        let report = Mutex::new(Report::default());
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.seeds.end || self.limit.is_some_and(|limit| began.elapsed() >= limit) {
                    return;
                }
                let outcome = run_seed(seed, self.bug, self.hopeless);
                let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match outcome {
                    Ok(tally) => drop(report.clean.insert(seed, tally)),
                    Err(text) => {
                        if self.first_only {
                            next.store(self.seeds.end, Ordering::Relaxed);
                        } else {
                            println!("{}", failure(seed, &text, self.bug, self.hopeless));
                        }
                        report.broken.insert(seed, text);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(work);
            }
        });
        let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        report.took = began.elapsed();
        report
    }
}

/// The commit that is checked out here.
#[must_use]
pub fn commit() -> String {
    let said = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let text = said.ok().filter(|out| out.status.success()).and_then(|out| String::from_utf8(out.stdout).ok());
    text.map_or_else(|| "unknown".into(), |text| text.trim().to_owned())
}

/// A violation as it is told: seed, commit, the command that shows it again.
#[must_use]
pub fn failure(seed: u64, text: &str, bug: Option<Bug>, hopeless: bool) -> String {
    let planted = bug.map_or_else(String::new, |bug| format!(" --planted {}", bug.name()));
    let (commit, mode) = (commit(), if hopeless { " --hopeless" } else { "" });
    format!("VIOLATION seed {seed} commit {commit}: {text}\n  replay: seawall-sim --seed {seed}{mode}{planted}")
}

/// Smallest, median, 95th of a hundred and largest.
fn spread(mut numbers: Vec<u64>) -> String {
    numbers.sort_unstable();
    let Some(last) = numbers.len().checked_sub(1) else { return "none".into() };
    let at = |percent: usize| numbers[last * percent / 100];
    format!("min {} median {} p95 {} max {}", at(0), at(50), at(95), at(100))
}

impl Report {
    /// Everything of the clean seeds added up.
    #[must_use]
    pub fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        self.clean.values().for_each(|tally| sum.add(tally));
        sum
    }

    /// The distribution, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let (sum, mut text) = (self.sum(), String::new());
        let of = |what: &dyn Fn(&Tally) -> u64| spread(self.clean.values().map(what).collect());
        let seconds = self.took.as_secs_f64();
        let seeds = self.clean.len() + self.broken.len();
        let hours = sum.simulated_ms as f64 / 3_600_000.0;
        writeln!(text, "{seeds} seeds, {} violations, {seconds:.1} s, {hours:.2} cluster-hours", self.broken.len())
            .ok();
        writeln!(text, "simulated ms        {}", of(&|t| t.simulated_ms)).ok();
        writeln!(text, "acknowledged records {}", of(&|t| t.acked)).ok();
        writeln!(text, "leader changes      {}", of(&|t| t.leader_changes)).ok();
        writeln!(text, "faults taken        {}", of(&Tally::faults_taken)).ok();
        writeln!(text, "events              {}", of(&|t| t.events)).ok();
        writeln!(text, "longest service of a deposed leader (acks 0/1, unflagged reads): {} ms", sum.stale_service_ms)
            .ok();
        for (class, count) in &sum.faults {
            let seeds = self.clean.values().filter(|t| t.faults.contains_key(class)).count();
            writeln!(text, "fault {class}: {count} in {seeds} seeds").ok();
        }
        for what in Sometimes::ALL {
            let seeds = self.clean.values().filter(|t| t.seen.contains_key(&what)).count();
            writeln!(text, "sometimes {what:?}: {} in {seeds} seeds", sum.seen.get(&what).copied().unwrap_or(0)).ok();
        }
        for (class, gaps) in &sum.unavailable_ms {
            writeln!(text, "unavailable ms, {class}: {} times, {}", gaps.len(), spread(gaps.clone())).ok();
        }
        text
    }

    /// What a run of volume must show at least and does not: median acknowledged records, leader changes and faults.
    #[must_use]
    pub fn too_little(&self) -> Vec<String> {
        let median = |what: &dyn Fn(&Tally) -> u64| {
            let mut numbers: Vec<u64> = self.clean.values().map(what).collect();
            numbers.sort_unstable();
            numbers.get(numbers.len() / 2).copied().unwrap_or(0)
        };
        let shortest = self.clean.values().map(|t| t.simulated_ms).min().unwrap_or(0);
        let wanted: [(&str, u64, u64); 4] = [
            ("simulated ms of the shortest", shortest, 60_000),
            ("median of acknowledged records", median(&|t| t.acked), 200),
            ("median of leader changes", median(&|t| t.leader_changes), 3),
            ("median of faults taken", median(&Tally::faults_taken), 5),
        ];
        let short = wanted.into_iter().filter(|(_, found, least)| found < least);
        short.map(|(what, found, least)| format!("{what}: {found}, wanted {least}")).collect()
    }

    /// Adds another report of the same job, of other seeds.
    pub fn merge(&mut self, other: Report) {
        self.clean.extend(other.clean);
        self.broken.extend(other.broken);
        self.took += other.took;
    }

    /// Rare things that never happened; none may be among a thousand seeds.
    #[must_use]
    pub fn never(&self) -> Vec<Sometimes> {
        let sum = self.sum();
        // Only runs without hope lose what was acknowledged.
        let due = |what: &Sometimes| *what != Sometimes::LostAndKnown && !sum.seen.contains_key(what);
        Sometimes::ALL.into_iter().filter(due).collect()
    }

    /// Adds what was run to the ledger: one line per range of seeds, one per violation.
    ///
    /// # Errors
    /// The file's.
    pub fn append_to(&self, ledger: &Path, bug: Option<Bug>) -> std::io::Result<()> {
        let mut text = String::new();
        let (commit, planted) = (commit(), bug.map_or_else(|| "none".into(), Bug::name));
        let seeds: Vec<u64> = self.clean.keys().chain(self.broken.keys()).copied().collect();
        let (first, last) = (seeds.iter().min().copied().unwrap_or(0), seeds.iter().max().copied().unwrap_or(0));
        let hours = self.sum().simulated_ms as f64 / 3_600_000.0;
        let (ran, broken) = (seeds.len(), self.broken.len());
        writeln!(
            text,
            "{commit} planted={planted} seeds={first}..={last} ran={ran} hours={hours:.2} violations={broken}"
        )
        .ok();
        for (seed, what) in &self.broken {
            let line = what.lines().next().unwrap_or_default();
            writeln!(text, "{commit} planted={planted} seed={seed} VIOLATION {line}").ok();
        }
        OpenOptions::new().create(true).append(true).open(ledger)?.write_all(text.as_bytes())
    }
}

/// Runs each seed twice; what differs.
#[must_use]
pub fn twice(seeds: Range<u64>) -> Vec<u64> {
    seeds.filter(|seed| run_seed(*seed, None, false) != run_seed(*seed, None, false)).collect()
}

/// Where a ledger goes, if anywhere.
pub type Ledger = Option<PathBuf>;
