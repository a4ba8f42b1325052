//! Planted bugs: deliberate mistakes that the tests must be able to see. Each names a rule; a check that stays green with
//! the rule switched off proves nothing about it.
//!
//! Exists only with the feature `planted-bugs` (test builds); without it [`is`] is a constant `false` and the compiler
//! drops the branch. Nothing is planted unless a test program asks for it: [`plant_from_environment`] for a process,
//! [`planted`] for the present thread.

/// Environment variable that names the bugs of a process, separated by commas. Variables with the prefix `SEAWALL_` are
/// configuration; this is none.
pub const VARIABLE: &str = "PLANTED_BUGS";

/// One deliberate mistake. Its name in [`VARIABLE`] is its own in kebab case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A broker reports appended batches as durable without having synced anything.
    PartitionSync,
    /// A controller reports appended Raft entries as durable without having synced anything.
    RaftAppendSync,
    /// A follower cuts its log to its own high watermark at a leader change (KIP-101).
    TruncateToHighWatermark,
    /// The high watermark's gate asks whether the maximal ISR satisfies the rule, not the committed one.
    GateOverMaximalIsr,
    /// The high watermark is the minimum over the committed ISR, not over the maximal one.
    PositionOverSmallerIsr,
    /// acks=all is answered once the leader has the batch.
    AnswerBeforeCommit,
    /// Log ends count for the high watermark under `flush.policy=sync`, not durable ends.
    AnswerBeforeSync,
    /// A follower joins the ISR at the high watermark, before it has reached the start of the leader's epoch.
    IsrGrowthWithoutEpochRule,
    /// An ISR change ignores under which registration its members are known.
    AlterWithoutBrokerEpoch,
    /// A leader keeps a follower's position when the follower registers anew.
    StalePositionAcrossIncarnations,
    /// A broker is let in before its own image holds its registration.
    UnfenceOnFirstHeartbeat,
    /// A broker is let in before its proof is done.
    UnfenceWithoutProof,
    /// A leader that restarts goes on in its old leader epoch.
    SameEpochLeaderRestart,
    /// A proof is admitted from another directory than the one last unfenced.
    IsrKeptWithEmptyDisk,
    /// A restart that proved nothing keeps its places in the ELR.
    ElrKeptAfterUnprovedRestart,
    /// The ELR is cleared once members suffice, whatever data centres they are in.
    ElrIgnoresDataCentres,
    /// A new active controller takes brokers as it last heard them as a standby, without a fresh grace.
    SessionsNotCarried,
    /// A broker's heartbeat is answered while the batch that fences it is in flight.
    HeartbeatAnsweredDuringFence,
    /// A leader's lease is renewed while a batch that takes a partition from it is in flight.
    LeaseRenewedDuringDeposition,
    /// The lease is checked when a request comes, not when its answer leaves.
    LeaseCheckedOnEntryOnly,
    /// A leader answers without any lease.
    ZombieLeaderWithoutLease,
    /// A metadata batch is applied whatever image it was decided on.
    SkipCompareAndAppend,
    /// A controller answers a command before the verdict of apply.
    ReplyBeforeVerdict,
    /// A controller answers reads without asking a quorum whether it still leads.
    NoReadBarrier,
    /// A broker takes an older image from a controller that is behind.
    ImageBackwards,
    /// A broker applies a metadata batch although the one before it never came.
    FeedGapSkipped,
    /// A fact of an unknown kind is skipped instead of halting the node.
    UnknownFactSkipped,
    /// A failed sync is tried again and believed.
    RetryFsync,
    /// A new name is never synced in its directory.
    MissingDirectoryFsync,
    /// A segment's end mark is written before the sync that it speaks of.
    EndMarkAheadOfSync,
    /// A truncation cuts the file before the end mark is lowered.
    TruncationBeforeMarkLowered,
    /// A controller's vote is acknowledged before it is on disk.
    VoteNotSynced,
    /// A truncation of the Raft log is acknowledged before it is on disk.
    LogTruncationNotSynced,
    /// A controller's snapshot loses the quorum's membership.
    SnapshotWithoutMembership,
    /// The Raft log is purged before the snapshot that replaces it is durable.
    PurgeBeforeSnapshot,
    /// Any active replica may be elected, a member of ISR and ELR or not.
    ElectionFromOutside,
    /// A leader proposes a second ISR while the first is undecided.
    TwoAltersInFlight,
    /// Retention removes records that are not committed.
    RetentionPastHighWatermark,
    /// A consumer is served up to the log end.
    ConsumerAboveHighWatermark,
    /// A sync that began before a truncation counts for what was appended after it.
    FlushFromBeforeTruncation,
    /// A leader counts an acknowledgement of a subscription that has ended.
    AckOfFormerSubscription,
    /// A follower joins the ISR by its log end, not its durable end.
    GrowthByUnsyncedEnd,
    /// A looser flush policy is noted after the first unsynced byte was reported.
    PolicyNotedLate,
    /// A leader appends on after its own append of a forwarded batch failed.
    AppendAfterForwardFailure,
    /// Recovery does not sync what it keeps above the end mark.
    KeptTailNotSynced,
    /// A broker is let in before the elections that its fencing called for.
    UnfenceBeforeElections,
    /// A controller votes at once after a start, within a lease that it has forgotten.
    RestartedVoterVotes,
    /// A registration is decided whatever its sender saw of the broker.
    RegistrationOnAnyView,
}

impl Bug {
    /// Every bug there is.
    pub const ALL: [Bug; 48] = [
        Bug::PartitionSync,
        Bug::RaftAppendSync,
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
        Bug::ReplyBeforeVerdict,
        Bug::NoReadBarrier,
        Bug::ImageBackwards,
        Bug::FeedGapSkipped,
        Bug::UnknownFactSkipped,
        Bug::RetryFsync,
        Bug::MissingDirectoryFsync,
        Bug::EndMarkAheadOfSync,
        Bug::TruncationBeforeMarkLowered,
        Bug::VoteNotSynced,
        Bug::LogTruncationNotSynced,
        Bug::SnapshotWithoutMembership,
        Bug::PurgeBeforeSnapshot,
        Bug::ElectionFromOutside,
        Bug::TwoAltersInFlight,
        Bug::RetentionPastHighWatermark,
        Bug::ConsumerAboveHighWatermark,
        Bug::FlushFromBeforeTruncation,
        Bug::AckOfFormerSubscription,
        Bug::GrowthByUnsyncedEnd,
        Bug::PolicyNotedLate,
        Bug::AppendAfterForwardFailure,
        Bug::KeptTailNotSynced,
        Bug::UnfenceBeforeElections,
        Bug::RestartedVoterVotes,
        Bug::RegistrationOnAnyView,
    ];

    /// Its name in [`VARIABLE`].
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

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Bug> {
        Bug::ALL.into_iter().find(|bug| bug.name() == name)
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
            let bug = Bug::named(name);
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
        fn every_bug_has_its_own_name_and_bit() {
            assert_eq!(Bug::PartitionSync.name(), "partition-sync");
            let bits = Bug::ALL.iter().fold(0, |bits, bug| bits | bit(*bug));
            assert_eq!(bits.count_ones() as usize, Bug::ALL.len());
            assert!(Bug::ALL.iter().all(|bug| Bug::named(&bug.name()) == Some(*bug)));
        }

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
