//! Changes typed values by their fields: a number to an extreme or to another number of the value, a list with an item
//! swapped, doubled or gone. What comes out is written by the product again, so that everything around it is right.
//!
//! Goes by way of serde's tree of a value; what does not read as the type any more is left as it was.

use super::mutate::{EDGES, change};
use crate::chaos::random::Random;
use protocol::ids::BatchNo;
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use protocol::metadata::snapshot::{self, Restored, SnapshotBegan};
use protocol::testing::FactGen;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Tries to find a change that the type allows.
const TRIES: u64 = 8;

/// The value with one thing in it changed.
pub(super) fn varied<T: Serialize + DeserializeOwned + Clone>(rng: &mut Random, value: &T) -> T {
    let Ok(tree) = serde_json::to_value(value) else { return value.clone() };
    let numbers = numbers(&tree);
    for _ in 0..TRIES {
        let mut tree = tree.clone();
        let mut at = rng.below(size(&tree));
        visit(rng, &mut tree, &mut at, &numbers);
        if let Ok(changed) = serde_json::from_value(tree) {
            return changed;
        }
    }
    value.clone()
}

fn children(tree: &Value) -> Vec<&Value> {
    match tree {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn size(tree: &Value) -> u64 {
    1 + children(tree).into_iter().map(size).sum::<u64>()
}

fn numbers(tree: &Value) -> Vec<u64> {
    let here = tree.as_u64().into_iter();
    here.chain(children(tree).into_iter().flat_map(numbers)).collect()
}

/// Changes the node number `at`, counted from the root down.
fn visit(rng: &mut Random, tree: &mut Value, at: &mut u64, numbers: &[u64]) -> bool {
    if *at == 0 {
        node(rng, tree, numbers);
        return true;
    }
    *at -= 1;
    match tree {
        Value::Array(items) => items.iter_mut().any(|item| visit(rng, item, at, numbers)),
        Value::Object(fields) => fields.values_mut().any(|item| visit(rng, item, at, numbers)),
        _ => false,
    }
}

fn node(rng: &mut Random, node: &mut Value, numbers: &[u64]) {
    match node {
        Value::Null => *node = Value::from(rng.below(6)),
        Value::Bool(value) => *value = !*value,
        Value::Number(number) => {
            let old = number.as_u64().unwrap_or(0);
            *node = Value::from(match rng.below(5) {
                0 => old.wrapping_add(1),
                1 => old.wrapping_sub(1),
                2 if !numbers.is_empty() => *rng.one_of(numbers),
                3 => rng.below(8),
                _ => *rng.one_of(&EDGES),
            });
        }
        Value::String(text) => match rng.below(4) {
            0 => text.clear(),
            1 => text.push('/'),
            2 => *text = "retention.ms".to_owned(),
            _ => *text = text.repeat(3),
        },
        Value::Array(items) => list(rng, items),
        Value::Object(_) => *node = Value::Null,
    }
}

/// One of a list dropped, doubled or swapped with another.
pub(super) fn list<T: Clone>(rng: &mut Random, items: &mut Vec<T>) {
    if items.is_empty() {
        return;
    }
    let mut place = || usize::try_from(rng.below(items.len() as u64)).unwrap_or(0);
    let (at, other) = (place(), place());
    match rng.below(4) {
        0 => drop(items.remove(at)),
        1 => items.insert(at, items[other].clone()),
        2 => items.swap(at, other),
        _ => items.truncate(at),
    }
}

/// A batch of facts with one of them changed, or their order.
pub(super) fn batch(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let Ok(mut batch) = MetadataBatch::decode(bytes) else {
        let mut bytes = bytes.to_vec();
        change(rng, &mut bytes);
        return bytes;
    };
    if batch.facts.is_empty() || rng.chance(5) {
        batch.base = BatchNo(*rng.one_of(&EDGES));
    } else if rng.chance(25) {
        list(rng, &mut batch.facts);
    } else {
        let at = usize::try_from(rng.below(batch.facts.len() as u64)).unwrap_or(0);
        let changed: Fact = varied(rng, &batch.facts[at]);
        batch.facts[at] = changed;
    }
    batch.encode()
}

/// The image after a seed's history.
pub(super) fn image(seed: u64, facts: usize) -> MetadataImage {
    protocol::testing::applied(&MetadataImage::default(), &FactGen::history(seed, facts)).0
}

/// A snapshot of an image with one of its facts changed, or their order.
pub(super) fn stream(rng: &mut Random) -> Vec<u8> {
    let image = image(rng.below(12), 30);
    let mut records: Vec<Restored> = snapshot::records(&image).collect();
    let began = SnapshotBegan { batch_no: image.batch_no, chain_hash: image.chain_hash };
    match rng.below(6) {
        0 => {}
        1 => list(rng, &mut records),
        _ => {
            let at = usize::try_from(rng.below(records.len() as u64)).unwrap_or(0);
            let changed: Restored = varied(rng, &records[at]);
            records[at] = changed;
        }
    }
    let began = if rng.chance(10) { varied(rng, &began) } else { began };
    snapshot::encode_facts(began, records).concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_of_fact_is_changed_and_stays_one() {
        let mut rng = Random::new(3);
        let mut changed = BTreeSet::new();
        for bytes in super::super::records::facts() {
            let batch = MetadataBatch::decode(&bytes).expect("a legal batch");
            for fact in batch.facts {
                let other: Fact = (0..20).map(|_| varied(&mut rng, &fact)).find(|other| *other != fact).unwrap_or(fact);
                changed.insert(other.kind());
            }
        }
        assert_eq!(
            changed.into_iter().collect::<Vec<_>>(),
            Fact::KINDS.iter().map(|(kind, _)| *kind).collect::<Vec<_>>()
        );
    }
}
