//! A history read once: operations with their outcomes, sorted by key.
//!
//! Owns the pairing of invocations with completions, and what makes a history malformed. Judges nothing else.

use super::anomaly::{Class, Findings};
use super::event::{Answer, Body, Event, History, KeyId, Op, Phase, Source};
use std::collections::BTreeMap;

/// An operation and how it ended.
#[derive(Debug, Clone, Copy)]
pub struct Done<'a> {
    /// Its beginning.
    pub invoke: &'a Event,
    /// What was asked.
    pub op: &'a Op,
    /// Its end, if there was one.
    pub end: Option<&'a Event>,
}

/// A poll that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Polled<'a> {
    /// Its beginning.
    pub invoke: &'a Event,
    /// Its end.
    pub end: &'a Event,
    /// From where, if told.
    pub from: Option<u64>,
    /// Offset and value.
    pub records: &'a [(u64, u64)],
    /// The answer's high watermark.
    pub high_watermark: Option<u64>,
    /// The answer's log start.
    pub log_start: Option<u64>,
    /// By whom.
    pub source: Source,
}

/// One value as its producer knows it.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The send's beginning.
    pub invoke: &'a Event,
    /// Its end, if there was one.
    pub end: Option<&'a Event>,
    /// The values of the send.
    pub values: &'a [u64],
    /// -1 for all.
    pub acks: i8,
    /// Acknowledged: the offset of the first value (if told), and by whom.
    pub ok: Option<(Option<u64>, Source)>,
    /// Certainly failed.
    pub failed: bool,
}

impl Sent<'_> {
    /// Number of the last event of it.
    pub fn last_seq(&self) -> u64 {
        self.end.map_or(self.invoke.seq, |end| end.seq)
    }
}

/// Records that may have been lost by permission.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// From this offset on.
    pub from: u64,
    /// Since this epoch.
    pub epoch: u32,
}

/// Everything about one key.
#[derive(Debug, Default)]
pub struct KeyView<'a> {
    /// Its head may be dropped without being asked for.
    pub retention: bool,
    /// Sends in order of invocation.
    pub sends: Vec<Sent<'a>>,
    /// Answered polls in order of invocation.
    pub polls: Vec<Polled<'a>>,
    /// Lists of offsets and deletes in order of invocation.
    pub others: Vec<Done<'a>>,
    /// Permitted losses.
    pub cuts: Vec<Cut>,
    /// `(epoch, node, event)` as seen.
    pub led: Vec<(u32, u32, u64)>,
}

/// A history, sorted.
#[derive(Debug)]
pub struct View<'a> {
    /// Where it came from.
    pub history: &'a History,
    /// By key.
    pub keys: BTreeMap<KeyId, KeyView<'a>>,
    /// Administrative operations by topic.
    pub admin: BTreeMap<&'a str, Vec<Done<'a>>>,
    /// Operations on registers by name.
    pub registers: BTreeMap<&'a str, Vec<Done<'a>>>,
    /// The parts of the run.
    pub phases: Vec<(&'a Event, Phase)>,
}

impl<'a> View<'a> {
    /// Sorts a history; contradictions become findings.
    pub fn of(history: &'a History, findings: &mut Findings) -> Self {
        let (keys, admin, registers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut view = View { history, keys, admin, registers, phases: Vec::new() };
        let (mut ops, mut places): (Vec<Done<'a>>, Vec<u64>) = (Vec::new(), Vec::new());
        for event in &history.events {
            if let Body::Invoke(op) = &event.body {
                ops.push(Done { invoke: event, op, end: None });
                places.push(event.seq);
            } else if let Some(of) = event.body.completes() {
                let place = places.binary_search(&of).ok();
                if let Some(why) = view.completion(event, place.map(|at| &mut ops[at])) {
                    findings.accuse(Class::Malformed, None, event.seq, &[of, event.seq], why);
                }
            } else {
                view.other(event);
            }
        }
        findings.counts.operations = ops.len() as u64;
        ops.into_iter().for_each(|op| view.sort(op));
        view
    }

    /// Pairs; what is wrong with it, if anything.
    fn completion(&self, event: &'a Event, op: Option<&mut Done<'a>>) -> Option<String> {
        let Some(op) = op else { return Some("the end of an operation that never began".to_owned()) };
        if op.end.is_some() {
            return Some("a second end of one operation".to_owned());
        }
        if op.invoke.process() != event.process() {
            return Some("an operation that another client ends".to_owned());
        }
        op.end = Some(event);
        match &event.body {
            Body::Fail { code, .. } if !self.history.header.rules.definite.contains(code) => {
                Some(format!("code {code} does not say that nothing happened"))
            }
            Body::Ok { answer, .. } if !fits(op.op, answer) => Some("an answer to another question".to_owned()),
            _ => None,
        }
    }

    fn other(&mut self, event: &'a Event) {
        match &event.body {
            Body::Key { key, retention, .. } => self.keys.entry(*key).or_default().retention = *retention,
            Body::Truncated { key, from, epoch } => {
                self.keys.entry(*key).or_default().cuts.push(Cut { from: *from, epoch: *epoch });
            }
            Body::Led { key, epoch, node } => {
                self.keys.entry(*key).or_default().led.push((*epoch, *node, event.seq));
            }
            Body::Phase(phase) => self.phases.push((event, *phase)),
            _ => {}
        }
    }

    fn sort(&mut self, op: Done<'a>) {
        if let Op::Admin { topic, .. } = op.op {
            self.admin.entry(topic).or_default().push(op);
        }
        if let Op::Put { register, .. } | Op::Get { register } = op.op {
            self.registers.entry(register).or_default().push(op);
        }
        let Some(key) = op.op.key() else { return };
        let view = self.keys.entry(key).or_default();
        if let Some(source) = op.source()
            && let (Some(epoch), Some(node), Some(end)) = (source.epoch, source.node, op.end)
        {
            view.led.push((epoch, node, end.seq));
        }
        match op.op {
            Op::Send { values, acks, .. } => {
                let ok = match op.answer() {
                    Some(Answer::Sent { base, source }) => Some((*base, *source)),
                    _ => None,
                };
                let failed = matches!(op.end.map(|end| &end.body), Some(Body::Fail { .. }));
                view.sends.push(Sent { invoke: op.invoke, end: op.end, values, acks: *acks, ok, failed });
            }
            Op::Poll { from, .. } => {
                if let (Some(Answer::Polled { records, high_watermark, log_start, source }), Some(end)) =
                    (op.answer(), op.end)
                {
                    let (high_watermark, log_start, source) = (*high_watermark, *log_start, *source);
                    let (invoke, from) = (op.invoke, *from);
                    view.polls.push(Polled { invoke, end, from, records, high_watermark, log_start, source });
                }
            }
            _ => view.others.push(op),
        }
    }

    /// When the final reads began.
    pub fn final_reads(&self) -> Option<u64> {
        self.phases.iter().find(|(_, phase)| *phase == Phase::FinalReads).map(|(event, _)| event.seq)
    }
}

impl<'a> Done<'a> {
    /// What was answered, if it succeeded.
    pub fn answer(&self) -> Option<&'a Answer> {
        match &self.end?.body {
            Body::Ok { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// Who answered.
    fn source(&self) -> Option<Source> {
        match self.answer()? {
            Answer::Sent { source, .. } | Answer::Polled { source, .. } => Some(*source),
            Answer::Offset { source, .. } | Answer::Deleted { source, .. } => Some(*source),
            _ => None,
        }
    }
}

fn fits(op: &Op, answer: &Answer) -> bool {
    use super::event::Change;
    matches!(
        (op, answer),
        (Op::Send { .. }, Answer::Sent { .. })
            | (Op::Poll { .. }, Answer::Polled { .. })
            | (Op::ListOffset { .. }, Answer::Offset { .. })
            | (Op::DeleteRecords { .. }, Answer::Deleted { .. })
            | (Op::Admin { change: Change::Describe, .. }, Answer::Exists(_))
            | (Op::Admin { change: Change::Create | Change::Delete, .. } | Op::Put { .. }, Answer::Done)
            | (Op::Get { .. }, Answer::Holds(_))
    )
}
