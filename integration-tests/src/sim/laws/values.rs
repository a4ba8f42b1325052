//! What became of each value, as its producer was told: a value of which every attempt was definitely refused must not be
//! in any history.

use super::law::{Law, holds};
use protocol::error::{Effect, ErrorCode};
use protocol::ids::TopicPartition;
use std::collections::BTreeMap;

#[derive(Debug, Default, Clone, Copy)]
struct Fate {
    asked: u64,
    refused: u64,
    committed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<u64, Fate>);

impl Values {
    /// A producer sends these, for the first time or again.
    pub(super) fn asked(&mut self, values: &[u64]) {
        values.iter().for_each(|value| self.0.entry(*value).or_default().asked += 1);
    }

    /// An attempt was refused.
    pub(super) fn refused(&mut self, at: TopicPartition, values: &[u64], code: ErrorCode) -> Result<(), String> {
        if code.effect() != Effect::None {
            return Ok(());
        }
        values.iter().try_for_each(|value| {
            let fate = self.0.entry(*value).or_default();
            fate.refused += 1;
            judge(at, *value, *fate)
        })
    }

    /// These are committed.
    pub(super) fn committed(&mut self, at: TopicPartition, values: &[u64]) -> Result<(), String> {
        values.iter().try_for_each(|value| {
            let fate = self.0.entry(*value).or_default();
            fate.committed = true;
            judge(at, *value, *fate)
        })
    }
}

fn judge(at: TopicPartition, value: u64, fate: Fate) -> Result<(), String> {
    let open = !fate.committed || fate.refused < fate.asked;
    holds(Law::RefusedNeverAppears, open, || format!("{at}: value {value} is committed, and its producer was told no"))
}
