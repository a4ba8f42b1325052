//! Whether some order of the administrative operations explains every answer, per topic name.
//!
//! Owns the search (after Wing and Gong, in Lowe's form that goes along the history): a configuration is what the topic is
//! now and which open operations have taken effect already. An operation of unknown outcome stays open for ever. Topics
//! are independent, so each is searched alone. Bounded: beyond the bound the answer is a doubt, never a pass.

use crate::checker::anomaly::{Class, Findings};
use crate::checker::event::{Answer, Body, Change, Op, Rules};
use crate::checker::view::Done;
use std::collections::{BTreeMap, BTreeSet};

/// What an operation's answer says it found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It found this and left that.
    Step { found: bool, left: bool },
    /// It did nothing and says nothing.
    Nothing,
    /// If it took effect, the topic is this now, whatever it was.
    Perhaps { left: bool },
}

fn effect(done: &Done, rules: &Rules) -> Effect {
    let Op::Admin { change, .. } = done.op else { return Effect::Nothing };
    let step = |found, left| Effect::Step { found, left };
    match (change, done.end.map(|end| &end.body)) {
        (Change::Create, Some(Body::Ok { .. })) => step(false, true),
        (Change::Delete, Some(Body::Ok { .. })) => step(true, false),
        (Change::Describe, Some(Body::Ok { answer: Answer::Exists(there), .. })) => step(*there, *there),
        (_, Some(Body::Fail { code, .. })) if *code == rules.exists => step(true, true),
        (_, Some(Body::Fail { code, .. })) if *code == rules.absent => step(false, false),
        (Change::Create, None | Some(Body::Info { .. })) => Effect::Perhaps { left: true },
        (Change::Delete, None | Some(Body::Info { .. })) => Effect::Perhaps { left: false },
        _ => Effect::Nothing,
    }
}

/// What the topic is now, and which open operations have taken effect (by index, sorted).
///
/// Beside it stands how many creations of unknown outcome were needed to get there. Those are alike, so only their number
/// counts; and fewer is better, whatever comes. The number of deletions follows: what took effect changes by turns.
type Configurations = BTreeMap<(bool, Vec<usize>), Used>;

/// Operations of unknown outcome that took effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Used {
    creations: usize,
    deletions: usize,
}

/// Operations under way.
#[derive(Debug, Default)]
struct Open {
    steps: BTreeSet<usize>,
    /// Of unknown outcome: these never end.
    unknown: Used,
}

/// Searches one topic.
pub fn linearizable(topic: &str, operations: &[Done], rules: &Rules, findings: &mut Findings) {
    let effects: Vec<Effect> = operations.iter().map(|done| effect(done, rules)).collect();
    let mut moments: Vec<(u64, usize, bool)> = Vec::new();
    for (at, done) in operations.iter().enumerate().filter(|(at, _)| effects[*at] != Effect::Nothing) {
        moments.push((done.invoke.seq, at, false));
        if let (Effect::Step { .. }, Some(end)) = (effects[at], done.end) {
            moments.push((end.seq, at, true));
        }
    }
    moments.sort_unstable();
    let mut open = Open::default();
    let mut now = Configurations::from([((false, vec![]), Used::default())]);
    let mut visited = 0;
    for (seq, at, ended) in moments {
        match (ended, effects[at]) {
            (false, Effect::Perhaps { left: true }) => open.unknown.creations += 1,
            (false, Effect::Perhaps { left: false }) => open.unknown.deletions += 1,
            (false, _) => drop(open.steps.insert(at)),
            (true, _) => {
                let Some(reached) = expand(&now, &open, &effects, rules.search_max, &mut visited) else {
                    findings.doubts.push(format!("topic {topic}: more than {} configurations", rules.search_max));
                    return;
                };
                open.steps.remove(&at);
                now = reached
                    .into_iter()
                    .filter_map(|(configuration, used)| Some((ended_in(configuration, at)?, used)))
                    .collect();
                if now.is_empty() {
                    let end = operations[at].end.map_or(seq, |end| end.seq);
                    let what = format!("topic {topic}: no order of the operations so far gives the answer at {seq}");
                    findings.accuse(Class::NotLinearizable, None, seq, &[operations[at].invoke.seq, end], what);
                    return;
                }
            }
        }
    }
}

/// The configuration without an operation that ended in it; None if it has not taken effect there.
fn ended_in((there, mut taken): (bool, Vec<usize>), at: usize) -> Option<(bool, Vec<usize>)> {
    let place = taken.binary_search(&at).ok()?;
    taken.remove(place);
    Some((there, taken))
}

/// Every configuration that open operations can lead to; None beyond the bound.
fn expand(
    from: &Configurations,
    open: &Open,
    effects: &[Effect],
    bound: usize,
    visited: &mut usize,
) -> Option<Configurations> {
    let mut reached = from.clone();
    let mut ahead: Vec<((bool, Vec<usize>), Used)> = from.iter().map(|(key, used)| (key.clone(), *used)).collect();
    while let Some(((there, taken), used)) = ahead.pop() {
        *visited += 1;
        if *visited > bound {
            return None;
        }
        let mut next = Vec::new();
        for at in &open.steps {
            if let (Err(place), Effect::Step { found, left }) = (taken.binary_search(at), effects[*at])
                && found == there
            {
                let mut taken = taken.clone();
                taken.insert(place, *at);
                next.push(((left, taken), used));
            }
        }
        // One that changes nothing may as well never take effect.
        if !there && used.creations < open.unknown.creations {
            next.push(((true, taken.clone()), Used { creations: used.creations + 1, ..used }));
        }
        if there && used.deletions < open.unknown.deletions {
            next.push(((false, taken), Used { deletions: used.deletions + 1, ..used }));
        }
        for (configuration, used) in next {
            if reached.get(&configuration).is_none_or(|known| used < *known) {
                reached.insert(configuration.clone(), used);
                ahead.push((configuration, used));
            }
        }
    }
    Some(reached)
}
