//! What a run was like, and what many were like together.
//!
//! Owns: when a run proves nothing, and the distribution. Never: judges what the cluster did.

use super::record::Broken;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

/// Without these a run proves nothing.
const MUST_HAPPEN: [&str; 6] =
    ["acknowledged", "read", "metadata writes", "metadata reads", "leader terms", "partition leaders"];

/// Seeds of a volume with a change of voters, at least.
const VOTERS_IN: usize = 10;

/// So many seeds are a volume, of which more is asked than of one run.
const VOLUME: usize = 50;

/// What the middle run of a volume shows at least.
const MEDIANS: [(&str, u64); 6] = [
    ("acknowledged", 800),
    ("read", 800),
    ("metadata writes", 100),
    ("metadata reads", 300),
    ("leader terms", 2),
    ("partition leaders", 2),
];

/// Faults that the middle run of a volume has felt at least.
const FAULTS_MEDIAN: u64 = 4;

/// What is felt somewhere in a volume, each in so many of its seeds at least.
const CLASSES_IN: usize = 5;

/// Classes of faults, as they are called in the history.
const CLASSES: [&str; 7] = ["cut", "held link", "kill", "one-way cut", "orderly stop", "power cut", "slow link"];

/// What a run was like.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Hash of the trace.
    pub hash: u64,
    /// Broken laws.
    pub broken: Vec<Broken>,
    /// Why the run proves nothing, if so: a planned fault that nobody felt, say.
    pub worthless: Vec<String>,
    /// How often things happened.
    pub counts: BTreeMap<String, u64>,
    /// Faults that took effect.
    pub faults: BTreeMap<String, u64>,
    /// Most dials of one host within a second.
    pub most_dials: u64,
    /// Simulated time.
    pub simulated: Duration,
}

impl Report {
    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Faults that took effect, of all classes.
    pub fn faults_taken(&self) -> u64 {
        self.faults.values().sum()
    }

    /// No law was broken, and the run proves something.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty() && self.worthless.is_empty()
    }

    /// A run that went to its end without these is worthless.
    pub(super) fn insist_on_events(&mut self) {
        if !self.broken.is_empty() {
            return;
        }
        let missing: Vec<_> = MUST_HAPPEN.into_iter().filter(|what| self.count(what) == 0).collect();
        self.worthless.extend(missing.into_iter().map(|what| format!("no {what}")));
        if self.faults_taken() == 0 {
            self.worthless.push("no fault".to_owned());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace {:016x}, {:.1} simulated s", self.hash, self.simulated.as_secs_f64())?;
        self.counts.iter().try_for_each(|(what, count)| write!(f, ", {what} {count}"))?;
        write!(f, "; faults {}:", self.faults_taken())?;
        self.faults.iter().try_for_each(|(class, count)| write!(f, " {class} {count}"))?;
        self.worthless.iter().try_for_each(|why| write!(f, "\n  proves nothing: {why}"))?;
        self.broken.iter().try_for_each(|broken| write!(f, "\n  {broken}"))
    }
}

/// Smallest, median, 95th of a hundred and largest.
fn spread(mut numbers: Vec<u64>) -> String {
    numbers.sort_unstable();
    let Some(last) = numbers.len().checked_sub(1) else { return "none".into() };
    let at = |percent: usize| numbers[last * percent / 100];
    format!("min {} median {} p95 {} max {}", at(0), at(50), at(95), at(100))
}

/// The distribution over many runs, for people. `took`: wall time of each, ms.
pub(super) fn distribution(reports: &BTreeMap<u64, Report>, took: &BTreeMap<u64, u64>) -> String {
    let mut text = String::new();
    let of = |what: &dyn Fn(&Report) -> u64| spread(reports.values().map(what).collect());
    let mut line = |what: &str, spread: String| {
        let _ = writeln!(text, "{what:<24} {spread}");
    };
    line("simulated ms", of(&|r| u64::try_from(r.simulated.as_millis()).unwrap_or(u64::MAX)));
    line("wall ms", spread(took.values().copied().collect()));
    for what in ["acknowledged", "not acknowledged", "read", "metadata writes", "metadata reads"] {
        line(what, of(&|r| r.count(what)));
    }
    for what in ["leader terms", "partition leaders", "voter changes"] {
        line(what, of(&|r| r.count(what)));
    }
    line("faults that took effect", of(&Report::faults_taken));
    line("dials of a host in a s", of(&|r| r.most_dials));
    let mut classes: BTreeMap<&String, (u64, u64)> = BTreeMap::new();
    for (class, count) in reports.values().flat_map(|report| &report.faults) {
        let sum = classes.entry(class).or_default();
        *sum = (sum.0 + count, sum.1 + 1);
    }
    for (class, (count, seeds)) in classes {
        let _ = writeln!(text, "fault {class}: {count} in {seeds} seeds");
    }
    text
}

/// What a volume must show at least and does not. Fewer seeds are no volume, and are asked for nothing.
pub(super) fn too_little(reports: &BTreeMap<u64, Report>) -> Vec<String> {
    if reports.len() < VOLUME {
        return Vec::new();
    }
    let median = |of: &dyn Fn(&Report) -> u64| {
        let mut numbers: Vec<u64> = reports.values().map(of).collect();
        numbers.sort_unstable();
        numbers[numbers.len() / 2]
    };
    let mut wanted: Vec<_> = MEDIANS
        .into_iter()
        .map(|(what, least)| (format!("median of {what}"), median(&|r| r.count(what)), least))
        .collect();
    wanted.push(("median of faults felt".to_owned(), median(&Report::faults_taken), FAULTS_MEDIAN));
    for class in CLASSES {
        let seeds = reports.values().filter(|r| r.faults.contains_key(class)).count();
        wanted.push((format!("seeds that felt the fault {class}"), seeds as u64, CLASSES_IN as u64));
    }
    let changed = reports.values().filter(|r| r.count("voter changes") > 0).count();
    wanted.push(("seeds with a change of voters".to_owned(), changed as u64, VOTERS_IN as u64));
    let short = wanted.into_iter().filter(|(_, found, least)| found < least);
    short.map(|(what, found, least)| format!("{what}: {found}, wanted {least}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_in_which_little_happened_is_not_clean_and_few_seeds_are_no_volume() {
        let run =
            || Report { counts: MUST_HAPPEN.iter().map(|what| ((*what).to_owned(), 1)).collect(), ..Report::default() };
        let few: BTreeMap<_, _> = (0..VOLUME as u64 - 1).map(|seed| (seed, run())).collect();
        assert_eq!(too_little(&few), Vec::<String>::new());
        let many: BTreeMap<_, _> = (0..VOLUME as u64).map(|seed| (seed, run())).collect();
        let short = too_little(&many);
        assert_eq!(short.len(), MEDIANS.len() + 1 + CLASSES.len() + 1, "{short:?}");
        let busy = || Report {
            counts: MEDIANS
                .iter()
                .map(|(what, least)| ((*what).to_owned(), *least))
                .chain([("voter changes".to_owned(), 1)])
                .collect(),
            faults: CLASSES.iter().map(|class| ((*class).to_owned(), 1)).collect(),
            ..Report::default()
        };
        let enough: BTreeMap<_, _> = (0..VOLUME as u64).map(|seed| (seed, busy())).collect();
        assert_eq!(too_little(&enough), Vec::<String>::new());
    }

    #[test]
    fn a_run_in_which_nothing_happened_is_not_clean() {
        let mut report = Report::default();
        report.insist_on_events();
        assert!(!report.is_clean() && report.worthless.contains(&"no fault".to_owned()), "{report}");
        let mut report = Report {
            counts: MUST_HAPPEN.iter().map(|what| ((*what).to_owned(), 1)).collect(),
            faults: BTreeMap::from([("kill".to_owned(), 1)]),
            ..Report::default()
        };
        report.insist_on_events();
        assert!(report.is_clean(), "{report}");
    }
}
