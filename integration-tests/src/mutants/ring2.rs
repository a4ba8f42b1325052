//! Bugs of the shells, hunted with the real services on simulated machines: one run per seed.

use super::{Ground, Seen};
use crate::ring2::{Law, run_apart};
use protocol::planted::Bug;

/// The real services on simulated machines.
pub(super) const GROUND: Ground = Ground { ring: "ring 2", bugs: BUGS, look, parallel: true, runs_max: 500 };

const BUGS: &[Bug] = &[Bug::ReplyBeforeVerdict, Bug::NoReadBarrier, Bug::RestartedVoterVotes];

fn look(bug: Bug, seed: u64) -> Seen {
    let report = match run_apart(seed, Some(bug)) {
        Ok(report) => report,
        Err(why) => return Seen::Unnamed(why),
    };
    let Some(broken) = report.broken.first() else { return Seen::Nothing };
    // A seed that fails without the bug as well has not seen the bug.
    match run_apart(seed, None) {
        Ok(without) if without.broken.is_empty() => {}
        Ok(_) => return Seen::Nothing,
        Err(why) => return Seen::Unnamed(why),
    }
    match broken.law {
        // An assertion inside of the mutated code would be the code vouching for itself.
        Law::NobodyPanics => Seen::Unnamed(broken.to_string()),
        law => Seen::By(law.name()),
    }
}
