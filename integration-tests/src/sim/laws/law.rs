//! The laws by name: what a violation is called in a report, and in the table of planted bugs.

/// One law of the simulation. Its name is its own in kebab case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// An epoch of a partition has one leader, and one life of it.
    OneLeaderPerEpoch,
    /// An offset has one value for ever, as far as anybody was told or could read.
    OneValuePerOffset,
    /// Below their high watermarks all replicas hold the same batches, byte by byte.
    ReplicasAgree,
    /// Every record acknowledged under acks=all is there in the end, on every replica.
    AckedSurvives,
    /// Every member of ISR and ELR in the controllers' image holds every record acknowledged under acks=all; durably, if
    /// the topic says `sync`.
    MembersHoldTheAcked,
    /// When a leader's high watermark rises, every member of the ISR in its image holds as much, under the very registration
    /// that the image names; durably, if the topic says `sync`.
    WatermarkIsHeld,
    /// Whoever a leader asks to have in the ISR holds all up to its high watermark and to the start of its epoch, under the
    /// registration that it names; durably, if the topic says `sync`.
    GrowthIsEarned,
    /// What a log calls durable is there after a power cut at that very moment.
    DurableSurvives,
    /// acks=all is acknowledged only while the ISR in the leader's image satisfies the durability rule.
    AckNeedsTheRule,
    /// What was definitely refused never appears.
    RefusedNeverAppears,
    /// The high watermark of a leader never falls within its epoch, that of a replica never within a life.
    HighWatermarkRises,
    /// Readers see nothing at or above what is committed.
    ReadsAreCommitted,
    /// What a reader has seen stays.
    WhatWasReadStays,
    /// What was once below a high watermark stays, acknowledged or not.
    CommittedStays,
    /// Only committed records are removed by retention or delete-records, and no more of them than was asked for.
    TrimsAreCommitted,
    /// A deposed leader acknowledges acks 0/1 and serves unflagged reads at most one lease after its deposing committed.
    LeaseBound,
    /// A node's image is the fold of the log at its number.
    ImageIsTheFold,
    /// A node's image never goes back.
    ImageNeverFalls,
    /// A batch is folded into the very image that it was decided on.
    DecidedOnWhatItChanges,
    /// A node that does not know a fact goes no further.
    UnknownFactHalts,
    /// A broker is let in when its image holds registration and fencing, its restart is proved, and no place is left from
    /// before its fencing.
    UnfencedWhenFit,
    /// A broker is fenced only after a silence of a lease, or because another process took its place; and never while the
    /// process lives whose registration it was, and its lease runs.
    FencedAfterSilence,
    /// Nobody tells a broker that it takes part while a batch that fences it is being written.
    FencedUnanswered,
    /// An ISR change names its members by their present registrations.
    IsrNamesTheLiving,
    /// A registration never takes the place of a later process's.
    NewestIsRegistered,
    /// One ISR change of a leadership is in flight at a time.
    OneIsrChange,
    /// Leaders come from ISR and ELR, or the election is recorded as unclean.
    ElectedFromMembers,
    /// Who leaves an ISR that no longer satisfies the rule stays eligible, unless its restart is not proved.
    EligibleStay,
    /// The metadata log never stops the nodes.
    LogIsLegal,
    /// A broker whose disk is sound starts.
    SoundDisksStart,
    /// No broker stops for a broken invariant of its own: what it met must not be possible.
    NobodyStops,
    /// After the faults everything heals.
    EverythingHeals,
}

impl Law {
    /// Every law there is.
    pub const ALL: [Law; 32] = [
        Law::OneLeaderPerEpoch,
        Law::OneValuePerOffset,
        Law::ReplicasAgree,
        Law::AckedSurvives,
        Law::MembersHoldTheAcked,
        Law::WatermarkIsHeld,
        Law::GrowthIsEarned,
        Law::DurableSurvives,
        Law::AckNeedsTheRule,
        Law::RefusedNeverAppears,
        Law::HighWatermarkRises,
        Law::ReadsAreCommitted,
        Law::WhatWasReadStays,
        Law::CommittedStays,
        Law::TrimsAreCommitted,
        Law::LeaseBound,
        Law::ImageIsTheFold,
        Law::ImageNeverFalls,
        Law::DecidedOnWhatItChanges,
        Law::UnknownFactHalts,
        Law::UnfencedWhenFit,
        Law::FencedAfterSilence,
        Law::FencedUnanswered,
        Law::IsrNamesTheLiving,
        Law::NewestIsRegistered,
        Law::OneIsrChange,
        Law::ElectedFromMembers,
        Law::EligibleStay,
        Law::LogIsLegal,
        Law::SoundDisksStart,
        Law::NobodyStops,
        Law::EverythingHeals,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// The text of a violation: it names the law.
    #[must_use]
    pub fn broken(self, what: impl std::fmt::Display) -> String {
        format!("[{}] {what}", self.name())
    }

    /// Which law the text of a failed run names; None: it failed for a reason without a name.
    #[must_use]
    pub fn named_in(text: &str) -> Option<Law> {
        let from = text.find('[')? + 1;
        let upto = text[from..].find(']')? + from;
        Law::ALL.into_iter().find(|law| law.name() == text[from..upto])
    }
}

/// `Err` with the law's name, unless it holds.
pub(in crate::sim) fn holds(law: Law, good: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(law.broken(what())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_its_law() {
        for law in Law::ALL {
            assert_eq!(Law::named_in(&format!("seed 7 at 30 ms: {}", law.broken("x [y] z"))), Some(law));
        }
        assert_eq!(Law::named_in("seed 7: something [else]"), None);
    }
}
