//! Histories of an ideal cluster: whatever its seed, nothing in them is wrong.
//!
//! Owns the model: one log per key, changed at one moment between each operation's beginning and end. Clients overlap,
//! outcomes get lost, leaders change, heads are deleted, an election may lose records by permission. Deterministic.

use super::event::{
    Answer, Body, Change, Event, Fault, Header, History, Node, Op, Phase, Process, Rules, Source, Step,
};
use crate::chaos::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// The code that the model's definite failures carry.
pub const REFUSED: u16 = 20;
/// The model's "exists".
pub const EXISTS: u16 = 12;
/// The model's "does not exist".
pub const ABSENT: u16 = 10;

/// How large, and with what in it.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Operations, roughly.
    pub operations: usize,
    /// Partitions.
    pub keys: u32,
    /// Clients.
    pub clients: u32,
    /// One operation in so many is about a topic.
    pub admin_every: u64,
    /// Records may be written twice by a retry.
    pub duplicates: bool,
    /// One election may lose records by permission.
    pub permitted_loss: bool,
}

#[derive(Debug, Default)]
struct Log {
    values: Vec<u64>,
    start: u64,
    /// Everything below is committed and visible.
    high_watermark: u64,
    epoch: u32,
    node: u32,
}

#[derive(Debug)]
struct Pending {
    seq: u64,
    op: Op,
    /// How it will end, once the model has carried it out.
    end: Option<Ended>,
}

#[derive(Debug)]
enum Ended {
    Ok(Answer),
    Fail(u16),
    Info,
}

#[derive(Debug, Default)]
struct Client {
    pending: Vec<Pending>,
    /// Per key: whether the next poll names its offset, and where the reader is.
    positions: BTreeMap<u32, u64>,
    seek: BTreeSet<u32>,
    written: u64,
}

struct Model<'r> {
    random: &'r mut Random,
    shape: Shape,
    logs: Vec<Log>,
    topics: [bool; 2],
    clients: Vec<Client>,
    events: Vec<Event>,
    now_ns: u64,
}

/// A valid history.
pub fn valid(seed: u64, shape: Shape) -> History {
    let mut random = Random::new(seed);
    let logs = (0..shape.keys).map(|_| Log { node: 1, ..Log::default() }).collect();
    let clients = (0..shape.clients).map(|_| Client::default()).collect();
    let topics = [false; 2];
    let mut model = Model { random: &mut random, shape, logs, topics, clients, events: vec![], now_ns: 0 };
    model.run();
    let rules = Rules {
        definite: BTreeSet::from([REFUSED, EXISTS, ABSENT]),
        exists: EXISTS,
        absent: ABSENT,
        accuse_duplicates: !shape.duplicates,
        recency_ns: Some(20_000_000),
        liveness_ns: Some(60_000_000_000),
        search_max: 100_000,
    };
    let events = model.events;
    History { header: Header { run: "model".to_owned(), seed, rules }, events, torn: false }
}

impl Model<'_> {
    fn run(&mut self) {
        for key in 0..self.shape.keys {
            self.note(Body::Key { key, topic: "t".to_owned(), partition: key, retention: false });
        }
        self.note(Body::Node(Node { name: "broker-1".to_owned(), incarnation: 1, what: "started".to_owned() }));
        self.note(Body::Phase(Phase::HealthyBegins));
        self.traffic(self.shape.operations / 2);
        self.note(Body::Phase(Phase::HealthyEnds));
        self.faulty(self.shape.operations / 4);
        self.note(Body::Phase(Phase::Healed));
        for key in 0..self.shape.keys {
            self.settle_all();
            self.invoke(0, self.send_op(0, key, 1, -1));
            self.settle_all_ok();
        }
        self.traffic(self.shape.operations / 4);
        self.settle_all();
        self.note(Body::Phase(Phase::FinalReads));
        self.final_reads();
    }

    fn note(&mut self, body: Body) -> u64 {
        self.push((0, 0), body)
    }

    fn push(&mut self, process: Process, body: Body) -> u64 {
        self.now_ns += self.random.between(1_000, 2_000_000);
        let seq = self.events.len() as u64 + 1;
        let (mono_ns, wall_ns) = (self.now_ns, self.now_ns);
        self.events.push(Event { seq, wall_ns, mono_ns, process: process.0, incarnation: process.1, body });
        seq
    }

    fn traffic(&mut self, operations: usize) {
        let mut begun = 0;
        while begun < operations {
            let client = usize::try_from(self.random.below(u64::from(self.shape.clients))).unwrap_or(0);
            match self.random.below(3) {
                0 if self.clients[client].pending.len() < 4 => {
                    let op = self.choose(client);
                    self.invoke(client, op);
                    begun += 1;
                }
                1 => self.carry_out(client),
                _ => self.finish(client),
            }
        }
    }

    fn faulty(&mut self, operations: usize) {
        let fault =
            |step| Body::Fault(Fault { id: 1, class: "kill-broker".to_owned(), target: "broker-1".to_owned(), step });
        self.note(fault(Step::Planned));
        self.note(fault(Step::Begins));
        self.traffic(operations / 2);
        for key in 0..self.shape.keys {
            if self.random.chance(70) {
                self.elect(key);
            }
        }
        self.note(fault(Step::Confirmed("gone".to_owned())));
        self.traffic(operations / 2);
        if self.shape.permitted_loss {
            let key = u32::try_from(self.random.below(u64::from(self.shape.keys))).unwrap_or(0);
            self.lose(key);
        }
        self.note(fault(Step::Ends));
    }

    fn log(&mut self, key: u32) -> &mut Log {
        &mut self.logs[key as usize]
    }

    fn elect(&mut self, key: u32) {
        let log = self.log(key);
        log.epoch += 1;
        log.node = log.node % 3 + 1;
        let (epoch, node) = (log.epoch, log.node);
        self.note(Body::Led { key, epoch, node });
    }

    /// An election that may lose records: says so, and readers have to find their place again.
    fn lose(&mut self, key: u32) {
        let (start, upto) = (self.log(key).start, self.log(key).high_watermark);
        let from = self.random.between(start, upto);
        self.elect(key);
        let log = self.log(key);
        log.values.truncate(usize::try_from(from).unwrap_or(usize::MAX));
        log.high_watermark = from;
        let epoch = log.epoch;
        self.note(Body::Truncated { key, from, epoch });
        for client in &mut self.clients {
            client.seek.insert(key);
        }
    }

    /// Even clients write, odd ones read; both ask other things too.
    fn choose(&mut self, client: usize) -> Op {
        let key = u32::try_from(self.random.below(u64::from(self.shape.keys))).unwrap_or(0);
        if self.random.below(self.shape.admin_every) == 0 {
            let change = *self.random.one_of(&[Change::Create, Change::Delete, Change::Describe]);
            let topic = (*self.random.one_of(&["a", "b"])).to_owned();
            return Op::Admin { topic, change };
        }
        match self.random.below(20) {
            0 => Op::ListOffset { key, latest: self.random.chance(50) },
            1 => Op::DeleteRecords { key, before: self.random.between(0, self.logs[key as usize].high_watermark) },
            _ if client.is_multiple_of(2) => {
                let records = if self.random.chance(80) { 1 } else { self.random.between(2, 4) };
                let acks = if self.random.chance(90) { -1 } else { 1 };
                self.send_op(client, key, records, acks)
            }
            _ => self.poll_op(client, key),
        }
    }

    fn send_op(&self, client: usize, key: u32, records: u64, acks: i8) -> Op {
        let first = ((client as u64) << 32) + self.clients[client].written;
        Op::Send { key, values: (first..first + records).collect(), acks }
    }

    /// One poll at a time per client and key: a reader knows where it is.
    fn poll_op(&mut self, client: usize, key: u32) -> Op {
        let reading = |pending: &Pending| matches!(pending.op, Op::Poll { key: of, .. } if of == key);
        if self.clients[client].pending.iter().any(reading) {
            return Op::ListOffset { key, latest: true };
        }
        let upto = self.logs[key as usize].high_watermark;
        let seek = self.clients[client].seek.remove(&key) || self.random.chance(10);
        let from = seek.then(|| self.random.between(0, upto));
        Op::Poll { key, from }
    }

    fn invoke(&mut self, client: usize, op: Op) {
        if let Op::Send { values, .. } = &op {
            self.clients[client].written += values.len() as u64;
        }
        let process = (u32::try_from(client).unwrap_or(0) + 1, 1);
        let seq = self.push(process, Body::Invoke(op.clone()));
        self.clients[client].pending.push(Pending { seq, op, end: None });
    }

    /// Carries out the client's oldest operation that was not yet.
    fn carry_out(&mut self, client: usize) {
        let Some(at) = self.clients[client].pending.iter().position(|pending| pending.end.is_none()) else { return };
        let op = self.clients[client].pending[at].op.clone();
        let end = self.effect(client, &op, false);
        self.clients[client].pending[at].end = Some(end);
    }

    fn effect(&mut self, client: usize, op: &Op, surely: bool) -> Ended {
        let luck = if surely { 99 } else { self.random.below(100) };
        match op {
            Op::Send { key, values, acks } => self.append(*key, values, *acks, luck),
            Op::Poll { key, from } => self.read(client, *key, *from, luck),
            Op::ListOffset { key, latest } => {
                let log = self.log(*key);
                let source = Source { epoch: Some(log.epoch), node: Some(log.node) };
                let offset = if *latest { log.high_watermark } else { log.start };
                Ended::Ok(Answer::Offset { offset, source })
            }
            Op::DeleteRecords { key, before } => {
                let log = self.log(*key);
                if luck < 10 || *before > log.high_watermark {
                    return Ended::Fail(REFUSED);
                }
                log.start = log.start.max(*before);
                let source = Source { epoch: Some(log.epoch), node: Some(log.node) };
                if luck < 20 { Ended::Info } else { Ended::Ok(Answer::Deleted { log_start: log.start, source }) }
            }
            Op::Admin { topic, change } => self.administer(topic, *change, luck),
            // No client of this model asks for registers: their pass is compared with a search over every order.
            Op::Put { .. } | Op::Get { .. } => Ended::Fail(REFUSED),
        }
    }

    fn append(&mut self, key: u32, values: &[u64], acks: i8, luck: u64) -> Ended {
        let twice = self.shape.duplicates && (10..14).contains(&luck);
        let log = self.log(key);
        let source = Source { epoch: Some(log.epoch), node: Some(log.node) };
        match luck {
            0..3 => return Ended::Fail(REFUSED),
            3..6 => return Ended::Info,
            6 if acks == 1 => return Ended::Ok(Answer::Sent { base: None, source }),
            _ => {}
        }
        if twice {
            log.values.extend(values);
        }
        let base = log.values.len() as u64;
        log.values.extend(values);
        if (7..10).contains(&luck) {
            return Ended::Info;
        }
        log.high_watermark = log.values.len() as u64;
        let told = (luck != 14).then_some(base);
        Ended::Ok(Answer::Sent { base: told, source })
    }

    fn read(&mut self, client: usize, key: u32, from: Option<u64>, luck: u64) -> Ended {
        if luck < 5 {
            return Ended::Info;
        }
        let most = self.random.between(0, 12);
        let position = self.clients[client].positions.get(&key).copied();
        let log = self.log(key);
        let begin = from.or(position).unwrap_or(log.start).max(log.start);
        let until = (begin + most).min(log.high_watermark);
        let records: Vec<(u64, u64)> =
            (begin..until).filter_map(|at| Some((at, *log.values.get(usize::try_from(at).ok()?)?))).collect();
        let source = Source { epoch: Some(log.epoch), node: Some(log.node) };
        let (high_watermark, log_start) = (Some(log.high_watermark), Some(log.start));
        if let Some((last, _)) = records.last() {
            self.clients[client].positions.insert(key, last + 1);
        }
        Ended::Ok(Answer::Polled { records, high_watermark, log_start, source })
    }

    fn administer(&mut self, topic: &str, change: Change, luck: u64) -> Ended {
        let there = &mut self.topics[usize::from(topic == "b")];
        match (change, *there) {
            (Change::Describe, now) => return Ended::Ok(Answer::Exists(now)),
            _ if luck < 5 => return Ended::Info,
            (Change::Create, true) => return Ended::Fail(EXISTS),
            (Change::Delete, false) => return Ended::Fail(ABSENT),
            (Change::Create, false) => *there = true,
            (Change::Delete, true) => *there = false,
        }
        if luck < 10 { Ended::Info } else { Ended::Ok(Answer::Done) }
    }

    /// Ends one of the client's operations that were carried out.
    fn finish(&mut self, client: usize) {
        let ready: Vec<usize> = (0..self.clients[client].pending.len())
            .filter(|at| self.clients[client].pending[*at].end.is_some())
            .collect();
        if !ready.is_empty() {
            let at = *self.random.one_of(&ready);
            self.complete(client, at);
        }
    }

    fn complete(&mut self, client: usize, at: usize) {
        let Pending { seq: of, end, .. } = self.clients[client].pending.remove(at);
        let body = match end {
            Some(Ended::Ok(answer)) => Body::Ok { of, answer },
            Some(Ended::Fail(code)) => Body::Fail { of, code },
            Some(Ended::Info) | None => Body::Info { of, code: 0 },
        };
        self.push((u32::try_from(client).unwrap_or(0) + 1, 1), body);
    }

    fn settle_all(&mut self) {
        for client in 0..self.clients.len() {
            while !self.clients[client].pending.is_empty() {
                self.carry_out(client);
                self.finish(client);
            }
        }
    }

    /// As [`Model::settle_all`], and everything succeeds.
    fn settle_all_ok(&mut self) {
        for client in 0..self.clients.len() {
            while let Some(pending) = self.clients[client].pending.first() {
                let op = pending.op.clone();
                let end = self.effect(client, &op, true);
                self.clients[client].pending[0].end = Some(end);
                self.complete(client, 0);
            }
        }
    }

    fn final_reads(&mut self) {
        for key in 0..self.shape.keys {
            let Log { start, high_watermark: upto, epoch, node, .. } = self.logs[key as usize];
            let mut next = start;
            loop {
                let process = (self.shape.clients + 1, 1);
                let of = self.push(process, Body::Invoke(Op::Poll { key, from: Some(next) }));
                let until = (next + 16).min(upto);
                let log = &self.logs[key as usize];
                let records: Vec<(u64, u64)> =
                    (next..until).filter_map(|at| Some((at, *log.values.get(usize::try_from(at).ok()?)?))).collect();
                let source = Source { epoch: Some(epoch), node: Some(node) };
                let (high_watermark, log_start) = (Some(upto), Some(start));
                let answer = Answer::Polled { records, high_watermark, log_start, source };
                self.push(process, Body::Ok { of, answer });
                next = until;
                if next >= upto {
                    break;
                }
            }
        }
    }
}
