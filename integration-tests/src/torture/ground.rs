//! Planted bugs of the storage, hunted by single states of torture.

use std::sync::OnceLock;

use protocol::planted::{Bug, planted};

use super::crash::{OUTCOMES, calls, judge, points};
use super::errors::fail_a_sync;
use super::{Broker, Controller, Dice, Subject, without_panic};
use crate::mutants::{Ground, Seen};

/// One state a run: a power cut at a call, or a failed sync, that the run's number chooses.
pub(crate) const GROUND: Ground = Ground { ring: "torture", bugs: BUGS, look, parallel: true, runs_max: 500 };

const BUGS: &[Bug] = &[
    Bug::RetryFsync,
    Bug::MissingDirectoryFsync,
    Bug::EndMarkAheadOfSync,
    Bug::TruncationBeforeMarkLowered,
    Bug::VoteNotSynced,
    Bug::LogTruncationNotSynced,
    Bug::SnapshotWithoutMembership,
    Bug::PurgeBeforeSnapshot,
    Bug::KeptTailNotSynced,
    Bug::RaftAppendSync,
    Bug::PartitionSync,
];

fn look(bug: Bug, run: u64) -> Seen {
    let seen = if run.is_multiple_of(2) { one::<Broker>(bug, run) } else { one::<Controller>(bug, run) };
    match seen {
        Ok(()) => Seen::Nothing,
        Err(text) => match text.split_once(": ") {
            Some((name @ ("found-is-promised" | "shown-is-durable"), _)) => Seen::By(name.to_owned()),
            _ => Seen::Unnamed(text),
        },
    }
}

fn one<S: Subject>(bug: Bug, run: u64) -> Result<(), String>
where
    S::Told: 'static,
{
    static CALLS: OnceLock<[u64; 2]> = OnceLock::new();
    let all = CALLS.get_or_init(|| [calls::<Broker>(0), calls::<Controller>(0)]);
    let calls = all[usize::from(S::NAME == Controller::NAME)];
    let mut dice = Dice(run);
    if dice.below(4) == 0 {
        let number = dice.below(calls / 4);
        return without_panic(|| planted(bug, || fail_a_sync::<S>(0, number)))?;
    }
    let (target, outcome) = (dice.below(calls + 1), OUTCOMES[dice.below(OUTCOMES.len() as u64) as usize]);
    planted(bug, || {
        let points = points::<S>(0, move |n| n == target);
        let Some((disk, told, _)) = points.first() else { return Ok(()) };
        outcome.cut(disk, run);
        judge::<S>(disk, told)
    })
}
