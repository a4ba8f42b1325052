//! ISR changes as they are asked for: one of a leadership is open at a time. What is asked on a newer partition epoch
//! follows an earlier one that has committed.

use super::law::{Law, holds};
use crate::sim::told::Who;
use protocol::ids::{PartitionEpoch, TopicPartition};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Alters(BTreeMap<(Who, TopicPartition), (PartitionEpoch, u64)>);

impl Alters {
    pub(super) fn proposed(
        &mut self,
        who: Who,
        at: TopicPartition,
        epoch: PartitionEpoch,
        attempt: u64,
    ) -> Result<(), String> {
        let open = self.0.insert((who, at), (epoch, attempt)).filter(|(before, _)| *before >= epoch);
        let what = || format!("{at}: broker {} asks for an ISR change ({attempt}) beside {open:?}", who.id);
        holds(Law::OneIsrChange, open.is_none(), what)
    }

    pub(super) fn answered(&mut self, who: Who, at: TopicPartition, attempt: u64) {
        if self.0.get(&(who, at)).is_some_and(|(_, open)| *open == attempt) {
            self.0.remove(&(who, at));
        }
    }
}
