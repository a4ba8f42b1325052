//! Whether some order of the operations on a register explains every answer.
//!
//! Owns the decision, after Gibbons and Korach (1997): each value is given once, so it is known which answer speaks of
//! which operation, and no search is needed. All that speak of one value (who gave it, who found it) stand together in
//! any order that explains them. If the first of them ended before the last of them began, the value was there all the
//! time in between (its *reign*), and no other value was there then. So: two reigns must not overlap, and the operations
//! of a value without a reign, which can stand at any one moment that they share, must not share theirs with one reign
//! from end to end.
//!
//! A value given with unknown outcome may take effect at any time after the operation began, also long after its client
//! gave up, and also after later ones; or never. So its giving has no end; nobody who found it could do so earlier.

use crate::checker::anomaly::{Class, Findings};
use crate::checker::event::{Answer, Body, Op, Value};
use crate::checker::view::Done;
use std::collections::BTreeMap;

/// The end of what never ended.
const NEVER: u64 = u64::MAX;

/// All that is known of one value.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// When the first operation that speaks of it ended, and its invocation.
    first_end: (u64, u64),
    /// When the last that speaks of it began.
    last_begin: u64,
    /// When its giving began; 0 for the value at first.
    given: u64,
    /// Who gave it was told that nothing came of it.
    refused: bool,
    /// The first answer that holds it: its end and its invocation.
    found: Option<(u64, u64)>,
}

impl Known {
    /// Of the value that the register holds at first.
    const AT_FIRST: Known = Known { first_end: (0, 0), last_begin: 0, given: 0, refused: false, found: None };

    fn reigns(&self) -> bool {
        self.first_end.0 < self.last_begin
    }
}

/// Decides one register.
pub fn linearizable(name: &str, operations: &[Done], findings: &mut Findings) {
    let mut accuse = |events: &[u64], seq: u64, what: String| {
        findings.accuse(Class::NotLinearizable, None, seq, events, format!("register {name}: {what}"));
    };
    let mut values = given(operations);
    for done in operations {
        let (Some(Answer::Holds(value)), Some(end)) = (done.answer(), done.end) else { continue };
        let (begin, end) = (done.invoke.seq, end.seq);
        let Some(known) = values.get_mut(value).filter(|known| known.given < end) else {
            accuse(&[begin, end], end, format!("{value} was found, and nobody had given it"));
            continue;
        };
        if known.refused {
            accuse(&[known.given, begin, end], end, format!("{value} was found, and giving it was refused"));
        }
        known.found = known.found.min(Some((end, begin))).or(Some((end, begin)));
        known.first_end = known.first_end.min((end, begin));
        known.last_begin = known.last_begin.max(begin);
    }
    // What nobody found and nobody was told of may never have happened.
    values.retain(|_, known| known.found.is_some() || (known.first_end.0 != NEVER && !known.refused));
    for (events, seq, what) in contradictions(&values) {
        accuse(&events, seq, what);
    }
}

/// The values that were given, with the value at first.
fn given(operations: &[Done]) -> BTreeMap<Value, Known> {
    let mut values = BTreeMap::from([(0, Known::AT_FIRST)]);
    for done in operations {
        let Op::Put { value, .. } = done.op else { continue };
        let begin = done.invoke.seq;
        let (end, refused) = match done.end.map(|end| (&end.body, end.seq)) {
            Some((Body::Ok { .. }, seq)) => (seq, false),
            Some((Body::Fail { .. }, _)) => (NEVER, true),
            _ => (NEVER, false),
        };
        let known = Known { first_end: (end, begin), last_begin: begin, given: begin, refused, found: None };
        values.insert(*value, known);
    }
    values
}

/// Pairs of values that no order explains: the events, the number of the last of them, and why.
fn contradictions(values: &BTreeMap<Value, Known>) -> Vec<(Vec<u64>, u64, String)> {
    let mut reigns: Vec<(Value, &Known)> = values.iter().filter(|(_, k)| k.reigns()).map(|(v, k)| (*v, k)).collect();
    reigns.sort_by_key(|(_, known)| known.first_end);
    let mut found = Vec::new();
    for two in reigns.windows(2) {
        let ((one, before), (other, after)) = (two[0], two[1]);
        if after.first_end.0 < before.last_begin {
            let events = vec![before.first_end.1, before.last_begin, after.first_end.1, after.last_begin];
            let seq = before.last_begin.max(after.last_begin);
            let what = format!("{one} was there before and after {other} was");
            found.push((events, seq, what));
        }
    }
    for (value, known) in values.iter().filter(|(_, known)| !known.reigns()) {
        // The reign that began last before all of them had begun.
        let at = reigns.partition_point(|(_, reign)| reign.first_end.0 < known.last_begin);
        let Some((ruler, reign)) = at.checked_sub(1).map(|at| reigns[at]) else { continue };
        if known.first_end.0 < reign.last_begin {
            let events = vec![reign.first_end.1, reign.last_begin, known.given, known.first_end.1];
            let what = format!("{value} was there while {ruler} was");
            found.push((events, known.first_end.0.max(reign.last_begin), what));
        }
    }
    found
}

#[cfg(test)]
mod tests;
