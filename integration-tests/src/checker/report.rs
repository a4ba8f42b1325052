//! Findings as text for people and as JSON for programs.
//!
//! Owns the wording: per class the shortest witness, its operations in order, and what stands at the offsets around it.

use super::anomaly::{Anomaly, Class, Findings, Verdict};
use super::event::{Body, Event, History, KeyId};
use super::passes::offsets;
use super::shrink::shortest;
use super::view::View;
use std::fmt::Write;

/// Offsets shown on each side of an anomaly's own.
const AROUND: u64 = 3;

/// Most records of one answer that are printed.
const RECORDS_SHOWN: usize = 8;

/// The findings in words.
pub fn text(history: &History, findings: &Findings) -> String {
    let mut out = String::new();
    let counts = &findings.counts;
    let _ = writeln!(out, "run {} seed {}: {}", history.header.run, history.header.seed, word(findings.verdict()));
    let _ = writeln!(
        out,
        "{} operations; {} acknowledged: {} found, {} below a log start, {} in a permitted loss, {} lost with acks below all",
        counts.operations, counts.acknowledged, counts.checked, counts.removed, counts.truncated, counts.lost_unsafe
    );
    let _ = writeln!(
        out,
        "{} of unknown outcome ({} of them there), {} certainly failed, {} duplicates, {} records read, {} recent answers",
        counts.unknown, counts.unacknowledged, counts.failed, counts.duplicates, counts.read, counts.recent
    );
    for (class, times) in &counts.faults {
        let _ = writeln!(out, "fault {class}: {times}");
    }
    for doubt in &findings.doubts {
        let _ = writeln!(out, "doubt: {doubt}");
    }
    for (class, times) in findings.by_class() {
        let _ = writeln!(out, "anomaly {class}: {times}");
    }
    for class in Class::ALL {
        if let Some(anomaly) = shortest(findings, Some(*class)) {
            witness(history, anomaly, &mut out);
        }
    }
    out
}

/// The verdict as one word.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Invalid => "invalid",
        Verdict::Unknown => "unknown",
    }
}

/// The findings as JSON: verdict, counts, doubts, anomalies with the lines of their events.
pub fn json(history: &History, findings: &Findings) -> serde_json::Value {
    let shown = |anomaly: &Anomaly| {
        let events: Vec<_> = anomaly.events.iter().filter_map(|seq| history.event(*seq)).collect();
        serde_json::json!({ "anomaly": anomaly, "witness": events })
    };
    serde_json::json!({
        "run": history.header.run,
        "seed": history.header.seed,
        "verdict": findings.verdict(),
        "counts": findings.counts,
        "doubts": findings.doubts,
        "anomalies": findings.anomalies.iter().map(shown).collect::<Vec<_>>(),
    })
}

fn witness(history: &History, anomaly: &Anomaly, out: &mut String) {
    let place = anomaly.key.map_or_else(String::new, |key| format!(" in {}", name(history, key)));
    let _ = writeln!(out, "\n{}{place}: {}", anomaly.class.name(), anomaly.what);
    for event in anomaly.events.iter().filter_map(|seq| history.event(*seq)) {
        let _ = writeln!(out, "  {}", line(event));
    }
    if let Some(key) = anomaly.key {
        table(history, key, anomaly, out);
    }
}

fn name(history: &History, key: KeyId) -> String {
    let named = history.events.iter().find_map(|event| match &event.body {
        Body::Key { key: this, topic, partition, .. } if *this == key => Some(format!("{topic}/{partition}")),
        _ => None,
    });
    named.unwrap_or_else(|| format!("key {key}"))
}

fn line(event: &Event) -> String {
    let mut text = format!("{:?}", event.body);
    if let Body::Ok { answer: super::event::Answer::Polled { records, .. }, .. } = &event.body
        && records.len() > RECORDS_SHOWN
    {
        let (first, last) = (records[0], records[records.len() - 1]);
        text = format!("polled {} records, {first:?} to {last:?}", records.len());
    }
    let ms = event.mono_ns / 1_000_000;
    format!("#{} {ms} ms client {}.{}: {text}", event.seq, event.process, event.incarnation)
}

/// What was ever seen at the offsets around the anomaly.
fn table(history: &History, key: KeyId, anomaly: &Anomaly, out: &mut String) {
    let mut aside = Findings::default();
    let view = View::of(history, &mut aside);
    let Some(on) = view.keys.get(&key) else { return };
    let seen = offsets::observations(on);
    let about = |one: &&offsets::Seen| one.value == anomaly.subject || one.offset == anomaly.subject;
    let Some(centre) = seen.iter().find(about).map(|one| one.offset) else { return };
    let near = seen.iter().filter(|one| one.offset.abs_diff(centre) <= AROUND);
    let mut last = None;
    for one in near {
        let now = (one.offset, one.value, one.read);
        if last != Some(now) {
            let how = if one.read { "read" } else { "acknowledged" };
            let _ = writeln!(out, "  offset {}: {} ({how}, #{})", one.offset, one.value, one.seq);
        }
        last = Some(now);
    }
}
