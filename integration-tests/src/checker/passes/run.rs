//! What concerns the run as a whole: leaders, coming back after the heal, faults that were planned and must have happened.
//!
//! Owns these three. A run whose planned fault did not take effect proves nothing, and is invalid rather than green.

use crate::checker::anomaly::{Class, Findings};
use crate::checker::event::{Body, History, KeyId, Phase, Step};
use crate::checker::view::{KeyView, View};
use std::collections::BTreeMap;

/// One epoch, one leader.
pub fn leaders(key: KeyId, view: &KeyView, findings: &mut Findings) {
    let mut of: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
    for (epoch, node, event) in &view.led {
        let (known, first) = *of.entry(*epoch).or_insert((*node, *event));
        if known != *node {
            let what = format!("in leader epoch {epoch} both {known} and {node} lead");
            findings.accuse(Class::TwoLeaders, Some(key), u64::from(*epoch), &[first, *event], what);
        }
    }
}

/// After the heal every key that is written to takes a record within the bound.
pub fn liveness(view: &View, findings: &mut Findings) {
    let Some(bound) = view.history.header.rules.liveness_ns else { return };
    let Some((healed, _)) = view.phases.iter().rev().find(|(_, phase)| *phase == Phase::Healed) else {
        findings.doubts.push("no heal: whether the cluster comes back was not seen".to_owned());
        return;
    };
    for (key, on) in view.keys.iter().filter(|(_, on)| on.sends.iter().any(|sent| sent.acks == -1)) {
        // An answer that waits for nobody shows nothing.
        let after = || on.sends.iter().filter(|sent| sent.invoke.seq > healed.seq && sent.acks == -1);
        let in_time = |mono_ns: u64| mono_ns <= healed.mono_ns + bound;
        if after().next().is_none() {
            findings.doubts.push(format!("key {key}: nobody wrote after the heal"));
        } else if !after().any(|sent| sent.ok.is_some() && sent.end.is_some_and(|end| in_time(end.mono_ns))) {
            let what = format!("no record was acknowledged within {} ms of the heal", bound / 1_000_000);
            findings.accuse(Class::NotLive, Some(*key), 0, &[healed.seq], what);
        }
    }
}

/// Every planned fault took effect.
pub fn faults(history: &History, findings: &mut Findings) {
    let mut planned: BTreeMap<u32, (&str, u64, bool)> = BTreeMap::new();
    for event in &history.events {
        let Body::Fault(fault) = &event.body else { continue };
        let known = planned.entry(fault.id).or_insert((&fault.class, event.seq, false));
        if matches!(fault.step, Step::Confirmed(_)) && !known.2 {
            known.2 = true;
            *findings.counts.faults.entry(fault.class.clone()).or_default() += 1;
        }
    }
    for (id, (class, event, confirmed)) in planned {
        if !confirmed {
            let what = format!("fault {id} ({class}) was not seen to take effect");
            findings.accuse(Class::FaultUnconfirmed, None, u64::from(id), &[event], what);
        }
    }
}
