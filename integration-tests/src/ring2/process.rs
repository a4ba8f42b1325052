//! Each seed in a process of its own.
//!
//! The runtime counts its tasks for the whole process and drops those of a stopped host in an order that depends on
//! their numbers: a second run in one process would not be the run that its seed means.

use super::{Broken, Law, Report};
use protocol::planted::Bug;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The program that runs a seed: the very one that runs now, if that is `seawall-sim` (also when another was built in its
/// place meanwhile), else the one beside it or one directory up (a test's).
fn program() -> Result<PathBuf, String> {
    let here = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    if here.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seawall-sim")) {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    let beside = here.ancestors().skip(1).take(2).map(|dir| dir.join("seawall-sim"));
    beside.into_iter().find(|path| path.is_file()).ok_or_else(|| format!("no seawall-sim beside {}", here.display()))
}

/// The words with which [`super::main`] runs one seed and prints its report as one line of JSON.
fn words(seed: u64, bug: Option<Bug>) -> Vec<String> {
    let mut words =
        vec!["ring2".to_owned(), "--seed".to_owned(), seed.to_string(), "--print".to_owned(), "json".to_owned()];
    words.extend(bug.into_iter().flat_map(|bug| ["--planted".to_owned(), bug.name().to_owned()]));
    words
}

/// Runs a seed in a process of its own. A process that ends without a report broke [`Law::NobodyPanics`].
///
/// # Errors
/// There is no program to run.
pub fn run_apart(seed: u64, bug: Option<Bug>) -> Result<Report, String> {
    let program = program()?;
    let ran = Command::new(&program).args(words(seed, bug)).output();
    let ran = ran.map_err(|error| format!("{} does not run: {error}", program.display()))?;
    let told = String::from_utf8_lossy(&ran.stdout);
    let ended = matches!(ran.status.code(), Some(0 | 1));
    if let Some(report) = told.lines().last().and_then(|line| serde_json::from_str(line).ok()).filter(|_| ended) {
        return Ok(report);
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let what = format!("the run ended without a report ({}): {}", ran.status, said.trim_end());
    let broken = vec![Broken { law: Law::NobodyPanics, at: Duration::ZERO, what }];
    Ok(Report { broken, ..Report::default() })
}
