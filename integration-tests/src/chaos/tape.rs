//! The history of one run on disk: which partitions are watched, what their keys are, and the checker's rules.
//!
//! Owns the bridge between this project's error codes and the checker, which knows none of our crates: which codes are
//! definite failures is handed over as data. Judges nothing itself.

use super::stamp::Partition;
use crate::checker::event::{Body, Fault, KeyId, Phase, Process, Source, Step};
use crate::checker::recorder::Recorder;
use crate::checker::{Findings, Header, History, Rules, Verdict, file, judge, report};
use client::DeliveryFailure;
use protocol::error::{ApiError, Effect, ErrorCode};
use protocol::rpc::pb::data::v1::DataState;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The code of a failure that the client itself vouches for: nothing left it, or every attempt was refused.
pub const NOT_WRITTEN: u16 = 65_000;

/// A topic whose acknowledgements are judged.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// Its name.
    pub topic: &'static str,
    /// Its partitions.
    pub partitions: u32,
    /// Its heads may be dropped without being asked for.
    pub retention: bool,
}

/// A history being written.
#[derive(Debug)]
pub struct Tape {
    /// Where events go.
    pub recorder: Recorder,
    path: PathBuf,
    keys: BTreeMap<Partition, KeyId>,
    faults: AtomicU32,
}

/// What our error codes mean to the checker.
pub fn rules() -> Rules {
    let definite = ErrorCode::ALL.iter().filter(|code| code.effect() == Effect::None).map(|code| *code as u16);
    Rules {
        definite: definite.chain([NOT_WRITTEN]).collect::<BTreeSet<u16>>(),
        exists: ErrorCode::TopicExists as u16,
        absent: ErrorCode::UnknownTopic as u16,
        ..Rules::default()
    }
}

impl Tape {
    /// Begins the history of a run in a file.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn begin(path: &Path, run: &str, seed: u64, rules: Rules, watched: &[Watched]) -> Self {
        let header = Header { run: run.to_owned(), seed, rules };
        let recorder = Recorder::create(path, &header).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut keys = BTreeMap::new();
        for topic in watched {
            for partition in 0..topic.partitions {
                let key = recorder.key(topic.topic, partition, topic.retention);
                keys.insert((topic.topic.to_owned(), partition), key);
            }
        }
        Self { recorder, path: path.to_path_buf(), keys, faults: AtomicU32::new(0) }
    }

    /// The key of a partition.
    ///
    /// # Panics
    /// When it is not watched.
    pub fn key(&self, topic: &str, partition: u32) -> KeyId {
        let key = self.keys.get(&(topic.to_owned(), partition));
        *key.unwrap_or_else(|| panic!("{topic}/{partition} is not watched"))
    }

    /// A node was seen to lead; partitions that are not watched are passed over.
    pub fn led(&self, partition: &Partition, epoch: u32, node: u32) {
        if let Some(key) = self.keys.get(partition) {
            self.recorder.note(Body::Led { key: *key, epoch, node });
        }
    }

    /// A part of the run begins.
    pub fn phase(&self, phase: Phase) {
        self.recorder.note(Body::Phase(phase));
    }

    /// A new fault, planned; its number.
    pub fn planned(&self, class: &str, target: &str) -> u32 {
        let id = self.faults.fetch_add(1, Ordering::Relaxed) + 1;
        self.fault(id, class, target, Step::Planned);
        id
    }

    /// An operation failed, for certain or not, as its code says.
    pub fn failed(&self, process: Process, of: u64, error: &ApiError) {
        let code = error.code as u16;
        match error.code.effect() {
            Effect::None => self.recorder.fail(process, of, code),
            Effect::Unknown => self.recorder.info(process, of, code),
        }
    }

    /// A step of a fault.
    pub fn fault(&self, id: u32, class: &str, target: &str, step: Step) {
        let (class, target) = (class.to_owned(), target.to_owned());
        self.recorder.note(Body::Fault(Fault { id, class, target, step }));
    }

    /// Reads the file back and judges it.
    ///
    /// # Panics
    /// When what was written cannot be read.
    pub fn judge(&self) -> (History, Findings) {
        self.recorder.flush();
        let bytes = std::fs::read(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        let history = file::decode(&bytes).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        let findings = judge(&history);
        (history, findings)
    }

    /// Judges, and insists on a valid run; a history that is not is kept beside the temporary files, its place printed.
    ///
    /// # Panics
    /// When the verdict is another.
    pub fn insist(&self) -> Findings {
        let (history, findings) = self.judge();
        let text = report::text(&history, &findings);
        if findings.verdict() != Verdict::Valid {
            let kept =
                std::env::temp_dir().join(format!("seawall-{}-{}.history", history.header.run, history.header.seed));
            let unknown = findings.verdict() == Verdict::Unknown;
            match std::fs::copy(&self.path, &kept) {
                Ok(_) if unknown => panic!("invalid run: {text}\nthe history is kept in {}", kept.display()),
                Ok(_) => panic!("{text}\nthe history is kept in {}", kept.display()),
                Err(error) => panic!("{text}\nthe history could not be kept: {error}"),
            }
        }
        eprint!("{text}");
        findings
    }
}

/// What a replica's state says of who answered.
pub fn source(state: &DataState) -> Source {
    Source { epoch: Some(state.leader_epoch), node: Some(state.node_id) }
}

/// The code under which a failed record enters the history: definite or not, as the client says.
pub fn code_of(failure: &DeliveryFailure) -> (bool, u16) {
    let code = match &failure.error {
        client::Error::Refused { error, .. } => Some(error.code),
        _ => None,
    };
    let definite = failure.effect == client::Effect::NotWritten;
    match code {
        Some(code) if (code.effect() == Effect::None) == definite => (definite, code as u16),
        _ if definite => (true, NOT_WRITTEN),
        _ => (false, ErrorCode::OutcomeUnknown as u16),
    }
}
