//! Which flush policy this replica acts on, and which it has durably noted.
//!
//! A note precedes acting: `sync` is noted after a full sync, another policy before one unsynced byte is reported.
//! Until then the stricter of the two is acted on, and a `sync` note under way counts as made. So whoever finds the note `sync` after a crash knows that every
//! byte the replica ever counted was on disk (DESIGN.md sections 4(c) and 5).

use protocol::metadata::configs::FlushPolicy;
use protocol::planted::{self, Bug};

/// Noted, wanted, and what is under way between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyNotes {
    /// Durable. None: nothing was ever appended here.
    noted: Option<FlushPolicy>,
    /// The image's.
    wanted: FlushPolicy,
    /// Being made durable.
    noting: Option<FlushPolicy>,
    /// While tightening: end of the bytes that may have been counted unsynced.
    full_sync_to: u64,
}

impl PolicyNotes {
    /// As found at recovery; `log_end` may have been counted unsynced. Strict until the image says otherwise.
    pub(super) fn recovered(noted: Option<FlushPolicy>, log_end: u64) -> Self {
        Self { noted, wanted: FlushPolicy::Sync, noting: None, full_sync_to: log_end }
    }

    /// The image wants this policy; the log ends at `log_end` now.
    pub(super) fn want(&mut self, wanted: FlushPolicy, log_end: u64) {
        if self.wanted != FlushPolicy::Sync && wanted == FlushPolicy::Sync {
            self.full_sync_to = log_end;
        }
        self.wanted = wanted;
    }

    /// Whether positions are durable ends. Also while `sync` is being noted, whatever is wanted by then: it may be on
    /// disk already, and would speak for bytes that are not.
    pub(super) fn strict(&self) -> bool {
        let sync = FlushPolicy::Sync;
        let noted = self.noted.is_none_or(|p| p == sync) && !planted::is(Bug::PolicyNotedLate);
        self.wanted == sync || self.noting == Some(sync) || noted
    }

    /// The policy to name in acknowledgements: the one counted by.
    pub(super) fn named(&self) -> FlushPolicy {
        match self.noted {
            Some(noted) if !self.strict() && noted != FlushPolicy::Sync => noted,
            // Not strict although no looser policy is noted: only with the note planted late.
            _ if !self.strict() => self.wanted,
            _ => FlushPolicy::Sync,
        }
    }

    /// The policy that the image wants.
    pub(super) fn wanted(&self) -> FlushPolicy {
        self.wanted
    }

    /// A note to make now, if any. Asked when the log holds something, or is about to.
    pub(super) fn next_note(&mut self, log_end: u64, durable_end: u64) -> Option<FlushPolicy> {
        let synced = durable_end >= self.full_sync_to.min(log_end);
        let ready = self.noting.is_none() && self.noted != Some(self.wanted);
        if !ready || (self.wanted == FlushPolicy::Sync && !synced) {
            return None;
        }
        self.noting = Some(self.wanted);
        self.noting
    }

    /// A note is durable. `log_end` bounds what the policy it replaces may have counted unsynced.
    pub(super) fn note_done(&mut self, policy: FlushPolicy, log_end: u64) {
        self.noted = Some(policy);
        self.noting = None;
        if policy != FlushPolicy::Sync && self.wanted == FlushPolicy::Sync {
            self.full_sync_to = log_end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FlushPolicy::{Interval, Os, Sync};

    #[test]
    fn loosening_acts_strictly_until_the_note_is_durable() {
        let mut notes = PolicyNotes::recovered(Some(Sync), 0);
        notes.want(Os, 10);
        assert!(notes.strict(), "one unsynced byte reported before the note would break the proof");
        assert_eq!((notes.named(), notes.next_note(10, 5)), (Sync, Some(Os)));
        assert_eq!(notes.next_note(10, 5), None, "one note at a time");
        notes.note_done(Os, 10);
        assert_eq!((notes.strict(), notes.named()), (false, Os));
    }

    #[test]
    fn tightening_acts_strictly_at_once_and_notes_after_a_full_sync() {
        let mut notes = PolicyNotes::recovered(Some(Os), 0);
        notes.want(Os, 0);
        assert!(!notes.strict());
        notes.want(Sync, 100);
        assert_eq!((notes.strict(), notes.named()), (true, Sync));
        assert_eq!(notes.next_note(120, 99), None, "byte 99 was counted unsynced");
        assert_eq!(notes.next_note(120, 100), Some(Sync));
        notes.note_done(Sync, 120);
        assert!(notes.strict());
    }

    #[test]
    fn a_cut_below_the_unsynced_bytes_ends_the_wait_for_them() {
        let mut notes = PolicyNotes::recovered(Some(Os), 0);
        notes.want(Os, 0);
        notes.want(Sync, 100);
        assert_eq!(notes.next_note(60, 60), Some(Sync));
    }

    #[test]
    fn an_overtaken_loose_note_is_followed_by_a_sync_and_another_note() {
        let mut notes = PolicyNotes::recovered(Some(Sync), 0);
        notes.want(Interval, 10);
        assert_eq!(notes.next_note(10, 10), Some(Interval));
        notes.want(Sync, 12);
        notes.note_done(Interval, 15);
        assert!(notes.strict());
        assert_eq!(notes.next_note(20, 14), None);
        assert_eq!(notes.next_note(20, 15), Some(Sync));
    }

    /// What disk and leader know beside the notes: the largest end that was reported without being on disk.
    #[derive(Clone)]
    struct Walk {
        notes: PolicyNotes,
        end: u64,
        durable: u64,
        reported: u64,
    }

    impl Walk {
        /// The note on disk may be the one being made already, so both must be true of the bytes on disk.
        fn check(&self, path: &[&str]) {
            let may_read_sync = [self.notes.noted, self.notes.noting].contains(&Some(Sync));
            assert!(!may_read_sync || self.reported <= self.durable, "after {path:?} a restart proves too much");
        }

        fn step(&mut self, what: &str) {
            match what {
                "want sync" => self.notes.want(Sync, self.end),
                "want os" => self.notes.want(Os, self.end),
                "want interval" => self.notes.want(Interval, self.end),
                "append" => self.end += 1,
                "flush" => self.durable = self.end,
                "begin a note" => drop(self.notes.next_note(self.end, self.durable)),
                _ => {
                    if let Some(policy) = self.notes.noting {
                        self.notes.note_done(policy, self.end);
                    }
                }
            }
            let position = if self.notes.strict() { self.durable } else { self.end };
            self.reported = self.reported.max(position);
        }
    }

    fn walk(from: &Walk, path: &mut Vec<&'static str>, steps_left: u32) {
        from.check(path);
        if steps_left == 0 {
            return;
        }
        let steps = ["want sync", "want os", "want interval", "append", "flush", "begin a note", "end a note"];
        for what in steps {
            let mut next = from.clone();
            next.step(what);
            path.push(what);
            walk(&next, path, steps_left - 1);
            path.pop();
        }
    }

    #[test]
    fn no_order_of_wishes_notes_and_flushes_lets_a_sync_note_stand_over_unsynced_counted_bytes() {
        for noted in [None, Some(Sync), Some(Os)] {
            let notes = PolicyNotes::recovered(noted, 0);
            walk(&Walk { notes, end: 0, durable: 0, reported: 0 }, &mut Vec::new(), 7);
        }
    }

    #[test]
    fn a_loose_policy_wanted_while_sync_is_being_noted_waits_for_both_notes() {
        let mut notes = PolicyNotes::recovered(Some(Os), 0);
        notes.want(Os, 0);
        notes.want(Sync, 10);
        assert_eq!(notes.next_note(10, 10), Some(Sync));
        notes.want(Os, 10);
        assert_eq!((notes.strict(), notes.named()), (true, Sync), "the note on disk may say sync already");
        notes.note_done(Sync, 12);
        assert_eq!((notes.strict(), notes.next_note(12, 10)), (true, Some(Os)));
        notes.note_done(Os, 12);
        assert_eq!((notes.strict(), notes.named()), (false, Os));
    }

    #[test]
    fn a_first_note_comes_with_the_first_append() {
        let mut notes = PolicyNotes::recovered(None, 0);
        notes.want(Sync, 0);
        assert!(notes.strict());
        assert_eq!(notes.next_note(0, 0), Some(Sync));
    }
}
