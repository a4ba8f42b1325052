//! Bugs of the deciding cores, hunted in the simulation of the cores: one run per seed.

use super::{Ground, Seen};
use crate::sim::{Law, Plan, run};
use protocol::planted::{Bug, planted};

/// The simulation of the cores.
pub(super) const GROUND: Ground = Ground { ring: "ring 1", bugs: BUGS, look, parallel: true, runs_max: 500 };

const BUGS: &[Bug] = &[
    Bug::PartitionSync,
    Bug::TruncateToHighWatermark,
    Bug::GateOverMaximalIsr,
    Bug::PositionOverSmallerIsr,
    Bug::AnswerBeforeCommit,
    Bug::AnswerBeforeSync,
    Bug::IsrGrowthWithoutEpochRule,
    Bug::AlterWithoutBrokerEpoch,
    Bug::StalePositionAcrossIncarnations,
    Bug::UnfenceOnFirstHeartbeat,
    Bug::UnfenceWithoutProof,
    Bug::SameEpochLeaderRestart,
    Bug::IsrKeptWithEmptyDisk,
    Bug::ElrKeptAfterUnprovedRestart,
    Bug::ElrIgnoresDataCentres,
    Bug::SessionsNotCarried,
    Bug::HeartbeatAnsweredDuringFence,
    Bug::LeaseRenewedDuringDeposition,
    Bug::LeaseCheckedOnEntryOnly,
    Bug::ZombieLeaderWithoutLease,
    Bug::SkipCompareAndAppend,
    Bug::ImageBackwards,
    Bug::FeedGapSkipped,
    Bug::UnknownFactSkipped,
    Bug::ElectionFromOutside,
    Bug::TwoAltersInFlight,
    Bug::RetentionPastHighWatermark,
    Bug::ConsumerAboveHighWatermark,
    Bug::FlushFromBeforeTruncation,
    Bug::AckOfFormerSubscription,
    Bug::GrowthByUnsyncedEnd,
    Bug::PolicyNotedLate,
    Bug::AppendAfterForwardFailure,
    Bug::UnfenceBeforeElections,
    Bug::RegistrationOnAnyView,
];

fn look(bug: Bug, seed: u64) -> Seen {
    let Err(text) = planted(bug, || run(Plan::of(seed))) else { return Seen::Nothing };
    // A seed that fails without the bug as well has not seen the bug.
    if run(Plan::of(seed)).is_err() {
        return Seen::Nothing;
    }
    match Law::named_in(&text) {
        // The product's own word for it: no law from outside saw anything.
        None | Some(Law::NobodyStops | Law::LogIsLegal) => Seen::Unnamed(text),
        Some(law) => Seen::By(law.name()),
    }
}
