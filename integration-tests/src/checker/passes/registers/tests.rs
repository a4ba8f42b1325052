//! Histories told by hand, and all small ones compared with a search over every order.

use super::*;
use crate::chaos::random::Random;
use crate::checker::event::{Event, Header, History, Rules};
use crate::checker::judge;
use std::collections::BTreeSet;

const REFUSED: u16 = 20;

/// How one operation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    Done,
    Refused,
    Unknown,
}

/// One operation: begin, end, and what it gave (with its outcome) or found.
#[derive(Debug, Clone, Copy)]
enum One {
    Put(u64, u64, Value, Went),
    Get(u64, u64, Value),
}

fn put(begin: u64, end: u64, value: Value) -> One {
    One::Put(begin, end, value, Went::Done)
}

fn get(begin: u64, end: u64, value: Value) -> One {
    One::Get(begin, end, value)
}

fn history(all: &[One]) -> History {
    let rules = Rules { definite: BTreeSet::from([REFUSED]), ..Rules::default() };
    let register = || "r".to_owned();
    let mut events = Vec::new();
    let mut push = |seq, who, body| {
        events.push(Event { seq, wall_ns: seq, mono_ns: seq, process: who, incarnation: 1, body });
    };
    for (who, one) in (1..).zip(all) {
        match *one {
            One::Put(begin, end, value, went) => {
                push(begin, who, Body::Invoke(Op::Put { register: register(), value }));
                push(
                    end,
                    who,
                    match went {
                        Went::Done => Body::Ok { of: begin, answer: Answer::Done },
                        Went::Refused => Body::Fail { of: begin, code: REFUSED },
                        Went::Unknown => Body::Info { of: begin, code: 0 },
                    },
                );
            }
            One::Get(begin, end, value) => {
                push(begin, who, Body::Invoke(Op::Get { register: register() }));
                push(end, who, Body::Ok { of: begin, answer: Answer::Holds(value) });
            }
        }
    }
    events.sort_by_key(|event| event.seq);
    History { header: Header { run: "told".into(), seed: 0, rules }, events, torn: false }
}

fn explicable(all: &[One]) -> bool {
    let findings = judge(&history(all));
    assert!(findings.anomalies.iter().all(|anomaly| anomaly.class == Class::NotLinearizable), "{findings:?}");
    findings.anomalies.is_empty()
}

#[test]
fn what_some_order_explains_is_not_accused() {
    for all in [
        vec![get(1, 2, 0), put(3, 4, 1), get(5, 6, 1)],
        // While it is being given it may be there or not, in an order that somebody can see.
        vec![put(1, 9, 1), get(2, 3, 0), get(4, 5, 1), get(6, 7, 1)],
        vec![put(1, 8, 1), put(2, 9, 2), get(3, 4, 2), get(5, 6, 2)],
        vec![One::Put(1, 2, 1, Went::Refused), get(3, 4, 0)],
        // Of unknown outcome: never, at once, or long after its client gave up and others have given theirs.
        vec![One::Put(1, 2, 1, Went::Unknown), get(3, 4, 0)],
        vec![One::Put(1, 3, 1, Went::Unknown), get(2, 4, 1)],
        vec![One::Put(1, 2, 1, Went::Unknown), put(3, 4, 2), get(5, 6, 2), get(7, 8, 1), get(9, 10, 1)],
    ] {
        assert!(explicable(&all), "{all:?}");
    }
}

#[test]
fn what_no_order_explains_is_accused() {
    for all in [
        // A stale answer.
        vec![put(1, 2, 1), get(3, 4, 0)],
        vec![put(1, 2, 1), put(3, 4, 2), get(5, 6, 1)],
        // Seen, then not: it took effect once only.
        vec![One::Put(1, 2, 1, Went::Unknown), get(3, 4, 1), get(5, 6, 0)],
        vec![put(1, 10, 1), get(2, 3, 1), get(4, 5, 0)],
        // It may be late, but not twice.
        vec![One::Put(1, 2, 1, Went::Unknown), put(3, 4, 2), get(5, 6, 1), get(7, 8, 2), get(9, 10, 1)],
        vec![One::Put(1, 2, 1, Went::Unknown), get(3, 4, 1), put(5, 6, 2), get(7, 8, 1)],
        // Refused, and there; before anybody had begun to give it; given by nobody.
        vec![One::Put(1, 2, 1, Went::Refused), get(3, 4, 1)],
        vec![get(1, 2, 1), put(3, 4, 1)],
        vec![get(1, 2, 5)],
    ] {
        assert!(!explicable(&all), "{all:?}");
    }
}

/// Tries every order: dumb, and for a few operations only.
fn explained(all: &[One], taken: u32, holds: Value) -> bool {
    let open = |at: usize| taken & (1 << at) == 0;
    let must = |one: &One| !matches!(one, One::Put(_, _, _, Went::Unknown | Went::Refused));
    if all.iter().enumerate().all(|(at, one)| !open(at) || !must(one)) {
        return true;
    }
    let bounds = |one: &One| match *one {
        One::Put(begin, _, _, Went::Unknown) => (begin, NEVER),
        One::Put(begin, end, ..) | One::Get(begin, end, _) => (begin, end),
    };
    let left =
        || all.iter().enumerate().filter(|(at, one)| open(*at) && !matches!(one, One::Put(_, _, _, Went::Refused)));
    let soonest = left().map(|(_, one)| bounds(one).1).min().unwrap_or(NEVER);
    left().filter(|(_, one)| bounds(one).0 < soonest).any(|(at, one)| {
        let next = taken | (1 << at);
        match *one {
            One::Put(_, _, value, _) => explained(all, next, value),
            One::Get(_, _, value) => value == holds && explained(all, next, holds),
        }
    })
}

#[test]
fn small_histories_are_judged_as_a_search_over_every_order_judges_them() {
    let mut random = Random::new(0x5EA);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let count = usize::try_from(random.between(2, 6)).expect("small");
        let moments: Vec<u64> = (1..=2 * count as u64).collect();
        let moments = random.shuffled(&moments);
        let mut given = 0;
        let all: Vec<One> = moments
            .chunks(2)
            .map(|two| {
                let (begin, end) = (two[0].min(two[1]), two[0].max(two[1]));
                if random.chance(50) {
                    given += 1;
                    let went = *random.one_of(&[Went::Done, Went::Done, Went::Unknown, Went::Refused]);
                    One::Put(begin, end, given, went)
                } else {
                    One::Get(begin, end, random.below(4))
                }
            })
            .collect();
        let expected = explained(&all, 0, 0);
        assert_eq!(explicable(&all), expected, "{all:?}");
        if expected { good += 1 } else { bad += 1 }
    }
    assert!(good > 2_000 && bad > 2_000, "{good} good, {bad} bad: the comparison says little");
}
