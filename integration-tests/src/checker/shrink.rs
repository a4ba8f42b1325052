//! Makes a history that shows an anomaly as small as it gets: delta debugging, by key, then by client, then by operation.
//!
//! Owns the search. What stays is judged by the checker itself, and must show the *same* anomaly: class, key and subject.
//! Another one that the cutting itself brings about counts for nothing.

use super::anomaly::{Anomaly, Class, Findings};
use super::event::{Body, Change, Event, History, KeyId, Op};
use super::judge;
use std::collections::{BTreeMap, BTreeSet};

/// Judgements that one shrinking may cost.
const TRIES_MAX: usize = 2_000;

/// A smaller history with the same anomaly.
pub fn shrink(history: &History, anomaly: &Anomaly) -> History {
    let mut search = Search { best: history.clone(), anomaly, tries: 0 };
    if let Some(key) = anomaly.key {
        search.attempt(search.without(&|event| of_key(event, &search.best).is_some_and(|of| of != key)));
    }
    search.attempt(search.without(&|event| matches!(event.body, Body::Node(_) | Body::Fault(_) | Body::Led { .. })));
    let units = Units::of(&search.best);
    let clients: BTreeSet<_> = search.best.events.iter().map(Event::process).filter(|who| *who != (0, 0)).collect();
    let whole = clients.into_iter().map(|who| vec![who]).collect();
    search.minimize(whole, &|event, who| event.process() == *who && !units.shared(event));
    let operations: BTreeSet<u64> = search.best.events.iter().map(|event| units.unit(event)).collect();
    let single = operations.into_iter().map(|op| vec![op]).collect();
    search.minimize(single, &|event, op| units.unit(event) == *op || units.past(event) == Some(*op));
    search.best
}

/// Whether the findings hold this very anomaly.
pub fn same(findings: &Findings, anomaly: &Anomaly) -> bool {
    findings
        .anomalies
        .iter()
        .any(|found| (found.class, found.key, found.subject) == (anomaly.class, anomaly.key, anomaly.subject))
}

/// What is cut as one: an operation with its end. All operations that made or removed one topic, or may have, are one
/// unit: what one of them left is what the next one found, so without it the others would tell of another cluster. Those
/// that only looked, or were refused, go one by one: a history that is wrong without them is wrong with them. But nobody
/// looks at a topic whose past is gone.
struct Units {
    /// Operations that changed a topic, by the first that changed the same.
    changes: BTreeMap<u64, u64>,
    /// All others of topics that were changed, likewise.
    looks: BTreeMap<u64, u64>,
}

impl Units {
    fn of(history: &History) -> Self {
        let operations = history.events.iter().filter_map(|event| match &event.body {
            Body::Invoke(Op::Admin { topic, change }) if *change != Change::Describe => Some((event.seq, topic)),
            _ => None,
        });
        let mut changes: BTreeMap<u64, &String> = operations.collect();
        for event in &history.events {
            if let Body::Fail { of, .. } = event.body {
                changes.remove(&of);
            }
        }
        let mut first: BTreeMap<&String, u64> = BTreeMap::new();
        let units = changes.iter().map(|(seq, topic)| (*seq, *first.entry(topic).or_insert(*seq))).collect();
        let looks = history.events.iter().filter_map(|event| match &event.body {
            Body::Invoke(Op::Admin { topic, .. }) if !changes.contains_key(&event.seq) => {
                Some((event.seq, *first.get(topic)?))
            }
            _ => None,
        });
        Self { changes: units, looks: looks.collect() }
    }

    /// The unit that holds the past of what this event tells of, if it only looks.
    fn past(&self, event: &Event) -> Option<u64> {
        self.looks.get(&event.body.completes().unwrap_or(event.seq)).copied()
    }

    fn unit(&self, event: &Event) -> u64 {
        let operation = event.body.completes().unwrap_or(event.seq);
        self.changes.get(&operation).copied().unwrap_or(operation)
    }

    /// Whether it is of a unit of several clients' operations.
    fn shared(&self, event: &Event) -> bool {
        self.changes.contains_key(&event.body.completes().unwrap_or(event.seq))
    }
}

fn of_key(event: &Event, history: &History) -> Option<KeyId> {
    match &event.body {
        Body::Invoke(op) => op.key(),
        Body::Key { key, .. } | Body::Truncated { key, .. } | Body::Led { key, .. } => Some(*key),
        body => match &history.event(body.completes()?)?.body {
            Body::Invoke(op) => op.key(),
            _ => None,
        },
    }
}

struct Search<'a> {
    best: History,
    anomaly: &'a Anomaly,
    tries: usize,
}

impl Search<'_> {
    fn without(&self, gone: &dyn Fn(&Event) -> bool) -> History {
        let events = self.best.events.iter().filter(|event| !gone(event)).cloned().collect();
        History { header: self.best.header.clone(), events, torn: self.best.torn }
    }

    /// Keeps the smaller history if it still shows the anomaly.
    fn attempt(&mut self, smaller: History) -> bool {
        self.tries += 1;
        let good = smaller.events.len() < self.best.events.len() && same(&judge(&smaller), self.anomaly);
        if good {
            self.best = smaller;
        }
        good
    }

    /// Takes parts away in halves, quarters and so on, until no single one can go.
    fn minimize<T: Ord + Clone>(&mut self, parts: Vec<Vec<T>>, is_of: &dyn Fn(&Event, &T) -> bool) {
        let mut left: Vec<T> = parts.into_iter().flatten().collect();
        let mut chunk = left.len().div_ceil(2);
        while chunk > 0 && self.tries < TRIES_MAX {
            let mut at = 0;
            let mut went = false;
            while at < left.len() && self.tries < TRIES_MAX {
                let until = (at + chunk).min(left.len());
                let going: BTreeSet<T> = left[at..until].iter().cloned().collect();
                let smaller = self.without(&|event| going.iter().any(|part| is_of(event, part)));
                if self.attempt(smaller) {
                    left.drain(at..until);
                    went = true;
                } else {
                    at = until;
                }
            }
            if chunk == 1 && !went {
                return;
            }
            chunk = if chunk > 1 { chunk.div_ceil(2) } else { 1 };
        }
    }
}

/// The anomaly that is cheapest to understand: of the class asked for (or any), the one with the fewest events.
pub fn shortest(findings: &Findings, class: Option<Class>) -> Option<&Anomaly> {
    let wanted = |anomaly: &&Anomaly| class.is_none_or(|class| anomaly.class == class);
    findings.anomalies.iter().filter(wanted).min_by_key(|anomaly| (anomaly.events.len(), anomaly.events.clone()))
}
