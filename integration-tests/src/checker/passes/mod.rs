//! The passes, each over one key or one topic.
//!
//! * [`offsets`]: what stands at which offset. * [`kept`]: what is there at the end. * [`polls`]: what one reader sees.
//! * [`marks`]: high watermark, log start, recency. * [`run`]: leaders, liveness, faults. * [`admin`]: topics.
//! * [`registers`]: values given and found.
//!
//! Owns their order. A pass of groups or transactions is one more module and one more line here.

pub mod admin;
pub mod kept;
pub mod marks;
pub mod offsets;
pub mod polls;
pub mod registers;
pub mod run;

use super::anomaly::{Counts, Findings};
use super::event::History;
use super::view::View;

/// Judges a history.
pub fn judge(history: &History) -> Findings {
    let mut findings = Findings::default();
    let view = View::of(history, &mut findings);
    let rules = &history.header.rules;
    let (windows, final_reads) = (marks::healthy(&view), view.final_reads());
    for (key, on) in &view.keys {
        let seen = offsets::observations(on);
        let origins = offsets::origins(*key, on, &mut findings);
        offsets::consistent(*key, &seen, &mut findings);
        offsets::sent_before_seen(*key, &seen, &origins, &mut findings);
        if rules.accuse_duplicates {
            offsets::duplicates(*key, &seen, &mut findings);
        }
        offsets::producer_order(*key, on, &seen, final_reads, &mut findings);
        kept::at_the_end(*key, on, &seen, &origins, final_reads, &mut findings);
        polls::reader_order(*key, on, &mut findings);
        marks::high_watermark(*key, on, &mut findings);
        marks::log_start(*key, on, &mut findings);
        marks::recency(*key, on, rules, &windows, &mut findings);
        run::leaders(*key, on, &mut findings);
    }
    for (topic, operations) in &view.admin {
        admin::linearizable(topic, operations, rules, &mut findings);
    }
    for (name, operations) in &view.registers {
        registers::linearizable(name, operations, &mut findings);
    }
    run::liveness(&view, &mut findings);
    run::faults(history, &mut findings);
    doubts(history, &mut findings);
    findings
}

fn doubts(history: &History, findings: &mut Findings) {
    if history.torn {
        findings.doubts.push("the stream is cut off within a record: its writer died".to_owned());
    }
    if findings.counts.operations == 0 {
        findings.doubts.push("no operation at all".to_owned());
    }
    let Counts { acknowledged, unknown, failed, .. } = findings.counts;
    if acknowledged == 0 && unknown + failed > 0 {
        findings.doubts.push("nothing that was sent was ever acknowledged".to_owned());
    }
}
