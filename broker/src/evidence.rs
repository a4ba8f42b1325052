//! What a restart can prove of each partition (pure). DESIGN section 4: same directory, the broker epoch under which the
//! image last had this broker unfenced, and a log that recovery found whole, under a policy that kept it so.
//!
//! Never: reads a disk or sends a proof. Invariant: what one start could not prove, a later start cannot prove either,
//! however often the process dies in between: a partition that was set aside stays unproved until it has been begun
//! anew, and evidence that rests on the page cache is spent by the first start that uses it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use protocol::ids::{BrokerEpoch, TopicPartition};
use protocol::metadata::configs::FlushPolicy;
use std::collections::BTreeMap;

/// What recovery found of one partition's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The policy that everything counted was kept by, None = nothing says so.
    pub policy: Option<FlushPolicy>,
    /// No record in it, and no sign that there ever was one.
    pub empty: bool,
    /// No damage, nothing missing, nothing set aside.
    pub whole: bool,
    /// At most one unfinished batch was cut at the very end: the process died, the page cache did not.
    pub cut_little: bool,
}

/// What the last incarnation left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Epoch of its registration, 0 = none.
    pub epoch: u64,
    /// The registration before that, while `epoch` is not known to have been unfenced.
    pub earlier: Option<u64>,
    /// Epoch in the clean-shutdown marker.
    pub clean: Option<u64>,
    /// The machine has not been started again since `epoch` was stored, and no other start has used that.
    pub same_boot: bool,
    /// Every directory that exists or should.
    pub found: BTreeMap<TopicPartition, Found>,
}

impl Evidence {
    /// The epoch to register with as the previous one: the one under which the image last had this broker unfenced, if
    /// this directory knows it durably, else the last one known.
    #[must_use]
    pub fn claim(&self, last_unfenced: Option<BrokerEpoch>) -> BrokerEpoch {
        let last = last_unfenced.map(|e| e.0);
        match self.earlier {
            Some(earlier) if last == Some(earlier) => BrokerEpoch(earlier),
            _ => BrokerEpoch(self.epoch),
        }
    }

    /// Whether the last stop was a clean one of the claimed incarnation.
    #[must_use]
    pub fn is_clean(&self, claimed: BrokerEpoch) -> bool {
        self.clean == Some(claimed.0)
    }

    /// Whether this restart kept every record of the partition that may have been counted.
    #[must_use]
    pub fn proves(&self, at: TopicPartition, claimed: BrokerEpoch) -> bool {
        // Neither a directory nor a note that there should be one: it never had a record.
        let Some(found) = self.found.get(&at) else { return true };
        if !found.whole {
            return false;
        }
        let page_cache = self.same_boot && claimed.0 == self.epoch && found.cut_little;
        found.empty || found.policy == Some(FlushPolicy::Sync) || self.is_clean(claimed) || page_cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::TopicId;

    const WHOLE: Found = Found { policy: Some(FlushPolicy::Sync), empty: false, whole: true, cut_little: false };
    const CLAIMED: BrokerEpoch = BrokerEpoch(5);

    fn at(partition: u32) -> TopicPartition {
        TopicPartition { topic: TopicId::default(), partition }
    }

    fn evidence(found: Found) -> Evidence {
        Evidence { epoch: 5, found: BTreeMap::from([(at(0), found)]), ..Evidence::default() }
    }

    #[test]
    fn a_whole_synced_log_is_proved_and_one_that_never_was_too() {
        let evidence = evidence(WHOLE);
        assert!(evidence.proves(at(0), CLAIMED));
        assert!(evidence.proves(at(1), CLAIMED), "no directory and no note of one");
    }

    #[test]
    fn a_damaged_missing_or_set_aside_log_is_never_proved() {
        let mut broken = evidence(Found { whole: false, ..WHOLE });
        (broken.clean, broken.same_boot) = (Some(5), true);
        assert!(!broken.proves(at(0), CLAIMED));
    }

    #[test]
    fn an_unsynced_policy_needs_a_clean_stop_or_the_same_boot_with_next_to_nothing_cut() {
        for policy in [Some(FlushPolicy::Os), Some(FlushPolicy::Interval), None] {
            let mut evidence = evidence(Found { policy, cut_little: true, ..WHOLE });
            assert!(!evidence.proves(at(0), CLAIMED));
            evidence.same_boot = true;
            assert!(evidence.proves(at(0), CLAIMED));
            assert!(!evidence.proves(at(0), BrokerEpoch(4)), "the boot was noted under another epoch");
            evidence.found.insert(at(0), Found { policy, ..WHOLE });
            assert!(!evidence.proves(at(0), CLAIMED), "more than one batch was cut");
            evidence.clean = Some(5);
            assert!(evidence.proves(at(0), CLAIMED));
            evidence.clean = Some(4);
            assert!(!evidence.proves(at(0), CLAIMED), "the marker of another incarnation");
        }
    }

    #[test]
    fn a_registration_that_was_never_unfenced_does_not_cost_the_earlier_one() {
        let evidence = Evidence { epoch: 6, earlier: Some(5), ..evidence(WHOLE) };
        assert_eq!(evidence.claim(Some(BrokerEpoch(5))), BrokerEpoch(5));
        assert_eq!(evidence.claim(Some(BrokerEpoch(6))), BrokerEpoch(6));
        assert_eq!(evidence.claim(Some(BrokerEpoch(7))), BrokerEpoch(6), "an old copy of the disk: not admissible");
        assert_eq!(evidence.claim(None), BrokerEpoch(6));
    }
}
