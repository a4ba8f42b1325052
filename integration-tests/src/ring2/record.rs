//! What was seen in a run: the clients' history, the laws broken, and the trace that two runs of a seed must share.
//!
//! Owns: [`Record`]. Never: looks at a node; the history is judged by `crate::checker`.
//! Invariant: every line of the trace goes into its hash, in order, with the simulated time.

use super::machine::{EPOCH, simulated_now};
use crate::chaos::stamp::Partition;
use crate::chaos::tape::rules;
use crate::checker::anomaly::Class;
use crate::checker::event::{Answer, Body, Fault, KeyId, Op, Phase, Process, Rules, Step};
use crate::checker::recorder::Recorder;
use crate::checker::{Header, judge, report};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A promise that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Law {
    /// What clients were told contradicts itself or what was read at the end: see `checker::anomaly` for its kinds.
    History,
    /// Two controllers led in one Raft term.
    OneLeaderPerTerm,
    /// Two controllers applied different metadata up to the same batch.
    OneMetadataHistory,
    /// A controller's image went back within one life of its process.
    ImageGoesForward,
    /// A controller would have answered reads from its term while one of a later term was active.
    OneMayAnswer,
    /// A controller answered with something older than what somebody had been told before the question. Of a batch number
    /// that is to be seen at once: it never falls. Of the register it is for the checker to say: a value given with
    /// unknown outcome may arrive late, after others, and what is answered then is not old.
    AnswersAreNotOld,
    /// A consumer was refused what it had been given before.
    ReadsStayReadable,
    /// A node halted, though no disk failed it.
    NobodyHalts,
    /// A node did not start.
    EveryoneStarts,
    /// A task of a node or a client panicked.
    NobodyPanics,
    /// A host dialled again and again without a pause.
    NobodyDialsInALoop,
    /// After every fault was mended the cluster did not work again in time.
    WorksAgain,
}

impl Law {
    /// All of them.
    pub const ALL: [Law; 12] = [
        Law::History,
        Law::OneLeaderPerTerm,
        Law::OneMetadataHistory,
        Law::ImageGoesForward,
        Law::OneMayAnswer,
        Law::AnswersAreNotOld,
        Law::ReadsStayReadable,
        Law::NobodyHalts,
        Law::EveryoneStarts,
        Law::NobodyPanics,
        Law::NobodyDialsInALoop,
        Law::WorksAgain,
    ];

    /// Its name.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// A broken law and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Which.
    pub law: Law,
    /// Simulated time.
    pub at: Duration,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.3} s: {}", self.law.name(), self.at.as_secs_f64(), self.what)
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Record {
    /// Laws broken so far.
    pub broken: Vec<Broken>,
    /// How often things happened.
    pub counts: BTreeMap<&'static str, u64>,
    recorder: Recorder,
    /// Simulated time at the last tick, ns: what the recorder's clocks show outside of the hosts.
    tick: Arc<AtomicU64>,
    rules: Rules,
    keys: BTreeMap<Partition, KeyId>,
    /// Class of each planned fault, and whether it was seen to take effect.
    faults: Vec<(&'static str, bool)>,
    led: BTreeSet<(KeyId, u32, u32)>,
    /// Partitions that took a record sent since the faults ended.
    taken: BTreeSet<KeyId>,
    healed: bool,
    hash: u64,
    aloud: bool,
    /// Newest metadata batch that anybody was told of.
    told_batch: u64,
}

/// The record, shared by everything in one run.
pub type Shared = Rc<RefCell<Record>>;

impl Record {
    /// An empty one; `aloud` prints the trace. After the faults each partition must take a record within `liveness`.
    pub fn new(aloud: bool, liveness: Duration) -> Shared {
        let tick = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&tick);
        let clocks = move || {
            let here = simulated_now().unwrap_or_default();
            let at = here.max(Duration::from_nanos(seen.load(Ordering::Relaxed)));
            (EPOCH + at, at)
        };
        Rc::new(RefCell::new(Self {
            broken: Vec::new(),
            counts: BTreeMap::new(),
            recorder: Recorder::in_memory(clocks),
            tick,
            rules: Rules { liveness_ns: u64::try_from(liveness.as_nanos()).ok(), ..rules() },
            keys: BTreeMap::new(),
            faults: Vec::new(),
            led: BTreeSet::new(),
            taken: BTreeSet::new(),
            healed: false,
            hash: 0xcbf2_9ce4_8422_2325,
            aloud,
            told_batch: 0,
        }))
    }

    /// A topic whose records are judged.
    pub fn watch(&mut self, topic: &str, partitions: u32) {
        for partition in 0..partitions {
            let key = self.recorder.key(topic, partition, false);
            self.keys.insert((topic.to_owned(), partition), key);
        }
    }

    /// The key of a partition that is watched.
    pub fn key(&self, topic: &str, partition: u32) -> KeyId {
        *self.keys.get(&(topic.to_owned(), partition)).expect("only records of the watched topic are handled")
    }

    /// Simulated time at the end of a tick.
    pub fn ticked(&self, at: Duration) {
        self.tick.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Something happened.
    pub fn note(&mut self, at: Duration, what: &str) {
        for byte in at.as_micros().to_be_bytes().iter().chain(what.as_bytes()) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.aloud {
            println!("{:>9.3} {what}", at.as_secs_f64());
        }
    }

    /// Something countable happened.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// The hash of the trace.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// A law was broken. Said once for each law: what follows is a consequence.
    pub fn broke(&mut self, law: Law, at: Duration, what: String) {
        self.note(at, &format!("BROKEN {}: {what}", law.name()));
        if self.broken.iter().all(|broken| broken.law != law) {
            self.broken.push(Broken { law, at, what });
        }
    }

    /// An operation is about to leave its client; the number is what its end names.
    pub fn invoke(&self, client: Process, op: Op) -> u64 {
        self.recorder.invoke(client, op)
    }

    /// It succeeded.
    pub fn ok(&self, client: Process, of: u64, answer: Answer) {
        self.recorder.ok(client, of, answer);
    }

    /// It failed with this code: for certain, or with unknown outcome, as the code's own meaning is.
    pub fn failed(&self, client: Process, of: u64, code: u16) {
        if self.rules.definite.contains(&code) {
            self.recorder.fail(client, of, code);
        } else {
            self.recorder.info(client, of, code);
        }
    }

    /// A part of the run begins.
    pub fn phase(&mut self, phase: Phase) {
        self.healed |= phase == Phase::Healed;
        self.recorder.note(Body::Phase(phase));
    }

    /// A record sent to this partition after the faults was acknowledged.
    pub fn took(&mut self, key: KeyId) {
        self.taken.insert(key);
    }

    /// The faults have ended.
    pub fn is_healed(&self) -> bool {
        self.healed
    }

    /// Every partition took a record sent since the faults ended.
    pub fn all_took(&self) -> bool {
        self.keys.values().all(|key| self.taken.contains(key))
    }

    /// A committed image says who leads.
    pub fn leads(&mut self, topic: &str, partition: u32, epoch: u32, node: u32) {
        let Some(key) = self.keys.get(&(topic.to_owned(), partition)).copied() else { return };
        if self.led.insert((key, epoch, node)) {
            self.count("partition leaders");
            self.recorder.note(Body::Led { key, epoch, node });
        }
    }

    /// A fault begins that must be seen to take effect; its number.
    pub fn planned(&mut self, at: Duration, class: &'static str, target: &str) -> u32 {
        let id = u32::try_from(self.faults.len()).unwrap_or(u32::MAX);
        self.faults.push((class, false));
        self.note(at, &format!("fault {id}, {class}: {target}"));
        self.recorder.note(Body::Fault(Fault { id, class: class.into(), target: target.into(), step: Step::Planned }));
        id
    }

    /// It was seen to take effect. Said once.
    pub fn confirm(&mut self, at: Duration, id: u32, how: &str) {
        let Some((class, false)) = self.faults.get(id as usize).copied() else { return };
        self.faults[id as usize].1 = true;
        self.note(at, &format!("fault {id} took effect: {how}"));
        let step = Step::Confirmed(how.to_owned());
        self.recorder.note(Body::Fault(Fault { id, class: class.into(), target: String::new(), step }));
    }

    /// Whether it was seen to take effect.
    pub fn is_confirmed(&self, id: u32) -> bool {
        self.faults.get(id as usize).is_some_and(|(_, confirmed)| *confirmed)
    }

    /// Whether everything planned was seen to take effect.
    pub fn all_confirmed(&self) -> bool {
        self.faults.iter().all(|(_, confirmed)| *confirmed)
    }

    /// Faults that took effect, by class.
    pub fn faults(&self) -> BTreeMap<String, u64> {
        let mut taken = BTreeMap::new();
        for (class, _) in self.faults.iter().filter(|(_, confirmed)| *confirmed) {
            *taken.entry((*class).to_owned()).or_default() += 1;
        }
        taken
    }

    /// What any question from now on must be answered with at least.
    pub fn told_batch(&self) -> u64 {
        self.told_batch
    }

    /// Somebody was told of this metadata batch.
    pub fn tell_batch(&mut self, batch: u64) {
        self.told_batch = self.told_batch.max(batch);
    }

    /// Judges the whole history. What makes the run worthless is returned.
    pub fn judge(&mut self, seed: u64, at: Duration) -> Vec<String> {
        let history = self.recorder.history(Header { run: "ring2".into(), seed, rules: self.rules.clone() });
        let findings = judge(&history);
        let mut worthless = findings.doubts.clone();
        for anomaly in &findings.anomalies {
            let what = format!("{}: {}", anomaly.class.name(), anomaly.what);
            match anomaly.class {
                Class::FaultUnconfirmed | Class::Malformed => worthless.push(what),
                Class::NotLinearizable => self.broke(Law::AnswersAreNotOld, at, what),
                Class::NotLive => self.broke(Law::WorksAgain, at, what),
                _ => self.broke(Law::History, at, what),
            }
        }
        if self.aloud {
            print!("{}", report::text(&history, &findings));
        }
        worthless
    }
}
