//! Laws under random histories: a model of brokers with logs that can be killed, restarted with and without proof,
//! wiped, or set back to an old copy of their disk; leaders whose ISR proposals arrive late; controllers that change
//! and batches that are lost. The model knows what was really committed, so it can tell a lossy election from a safe
//! one; the decider cannot see it.

use super::world::*;
use crate::decide::batch::run_batch;
use crate::decide::command::*;
use crate::decide::election::live;
use crate::decide::sessions::{HeartbeatDecision, Sessions};
use protocol::error::ErrorCode;
use protocol::ids::{BatchNo, BrokerEpoch, BrokerId, TopicPartition};
use protocol::metadata::brokers::BrokerState;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{Fact, LeaderChange, PartitionsChanged, RecoveryState};
use protocol::metadata::topics::{Partition, changed};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const BROKERS: u32 = 5;

/// splitmix64: the histories are functions of the seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// What becomes of a batch.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Applied,
    /// Another controller was first.
    Dropped,
    /// The controller stopped waiting; the next one finds it applied.
    AppliedUnheard,
}

/// A broker as it really is.
#[derive(Clone)]
struct Node {
    alive: bool,
    process: u32,
    directory: u32,
    epoch: Option<BrokerEpoch>,
    durable_epoch: Option<BrokerEpoch>,
    stopping: bool,
    /// Batch number of its image.
    applied: BatchNo,
    /// Committed records it holds, by partition.
    ends: BTreeMap<TopicPartition, u64>,
    /// Partitions whose data this start provably kept.
    kept: BTreeSet<TopicPartition>,
    /// Partitions that lost data in some start and have not been in step with a leader since: a later start must not
    /// prove them, however clean its own recovery is.
    tainted: BTreeSet<TopicPartition>,
    /// An old copy of its disk: epoch and ends of that time.
    copy: Option<(Option<BrokerEpoch>, BTreeMap<TopicPartition, u64>)>,
}

struct Model {
    dice: Dice,
    image: MetadataImage,
    sessions: Sessions,
    standby: Sessions,
    mono: u64,
    nodes: BTreeMap<u32, Node>,
    committed: BTreeMap<TopicPartition, u64>,
    /// ISR proposals under way, by partition: made, not yet decided.
    pending: BTreeMap<TopicPartition, (u32, AlterPartition)>,
    queue: Vec<Command>,
    unclean: usize,
    elections: usize,
    from_elr: usize,
    dropped: usize,
    made: u32,
}

impl Model {
    fn new(seed: u64) -> Self {
        let world = World::empty();
        let node = |id: u32| Node {
            alive: true,
            process: 1,
            directory: id,
            epoch: None,
            durable_epoch: None,
            stopping: false,
            applied: BatchNo(0),
            ends: BTreeMap::new(),
            kept: BTreeSet::new(),
            tainted: BTreeSet::new(),
            copy: None,
        };
        Self {
            dice: Dice(seed),
            image: world.image,
            sessions: world.sessions,
            standby: Sessions::new(timers()),
            mono: world.mono,
            nodes: (1..=BROKERS).map(|id| (id, node(id))).collect(),
            committed: BTreeMap::new(),
            pending: BTreeMap::new(),
            queue: Vec::new(),
            unclean: 0,
            elections: 0,
            from_elr: 0,
            dropped: 0,
            made: 0,
        }
    }

    fn at(&self) -> Vec<TopicPartition> {
        let live = self.image.topics.iter().filter(|t| t.is_live());
        live.flat_map(|t| (0..t.partitions.len()).map(|n| TopicPartition { topic: t.id, partition: n as u32 }))
            .collect()
    }

    fn pick(&mut self) -> u32 {
        1 + self.dice.below(u64::from(BROKERS)) as u32
    }

    /// 100 ms: brokers act, records commit, a batch is decided.
    fn step(&mut self, faults: bool) {
        self.mono += 100;
        for id in 1..=BROKERS {
            self.broker_acts(id);
        }
        self.commit_records();
        self.leaders_propose(faults);
        if faults {
            self.fault();
        }
        let fate = match self.dice.below(80) {
            0 if faults => Fate::Dropped,
            1 if faults => Fate::AppliedUnheard,
            _ => Fate::Applied,
        };
        self.decide(fate);
    }

    fn broker_acts(&mut self, id: u32) {
        let node = self.nodes[&id].clone();
        if !node.alive {
            return;
        }
        let known = self.image.brokers.get(b(id)).filter(|b| Some(b.epoch) == node.epoch).cloned();
        let Some(known) = known else {
            if node.epoch.is_none() {
                let mut command = register(id, node.process);
                command.locality = format!("eu/dc{}/r{}", (id - 1) % 3 + 1, id).parse().expect("legal");
                command.directories = vec![Uuid::from_u128(u128::from(node.directory))];
                command.previous_epoch = node.durable_epoch;
                command.seen = self.image.brokers.view(b(id));
                self.queue.push(Command::Register(command));
            } else {
                self.heartbeat(id, false);
            }
            return;
        };
        if known.state == BrokerState::ShuttingDown {
            self.nodes.get_mut(&id).expect("known").stopping = true;
        }
        if !known.proved {
            let proved = node.kept.iter().copied().collect();
            let command = ProveRestart { broker: b(id), epoch: known.epoch, proved, last: true };
            self.queue.push(Command::ProveRestart(command));
        }
        self.heartbeat(id, known.proved && !node.stopping);
    }

    fn heartbeat(&mut self, id: u32, wants_unfence: bool) {
        if self.dice.below(4) > 0 {
            self.nodes.get_mut(&id).expect("known").applied = self.image.batch_no;
        }
        let node = &self.nodes[&id];
        let Some(epoch) = node.epoch else { return };
        let beat = Heartbeat {
            broker: b(id),
            epoch,
            stream: u64::from(node.process),
            applied: node.applied,
            wants_unfence,
            wants_shutdown: node.stopping,
        };
        self.standby.note_heartbeat(&self.image, &beat, self.mono);
        match self.sessions.answer_heartbeat(&self.image, &beat, self.mono, true) {
            HeartbeatDecision::Silent => {}
            HeartbeatDecision::Answer { answer, submit } => {
                if submit {
                    self.queue.push(Command::Heartbeat(beat));
                }
                if answer.error.as_ref().is_some_and(|e| e.code == ErrorCode::StaleBrokerEpoch) {
                    self.start(id, true);
                } else if answer.may_stop {
                    let leads = self
                        .at()
                        .into_iter()
                        .any(|at| self.image.topics.partition(at).is_some_and(|p| p.leader == Some(b(id))));
                    assert!(!leads, "broker {id} may stop while it leads");
                    self.stop(id);
                }
            }
        }
    }

    /// Everybody in the maximal ISR (committed and proposed) holds what the leader takes; it counts once the committed
    /// ISR satisfies the rule.
    fn commit_records(&mut self) {
        for at in self.at() {
            let (topic, state) = live(&self.image, at).expect("live");
            let Some(leader) = state.leader else { continue };
            // A process that restarted leads nothing before it has registered, and then it is fenced: only one that the
            // image means can act on an election.
            if self.follows(leader) {
                let end = self.nodes[&leader.0].ends.get(&at).copied().unwrap_or(0);
                assert_eq!(end, self.committed[&at], "{at}: {leader} leads without every committed record: {state:?}");
            }
            let proposed =
                self.pending.get(&at).map(|(_, p)| p.isr.iter().map(|(b, _)| *b).collect()).unwrap_or_default();
            let maximal: BTreeSet<BrokerId> = state.isr.iter().copied().chain::<Vec<_>>(proposed).collect();
            let reachable = maximal.iter().all(|b| self.follows(*b));
            if self.follows(leader) && reachable && self.image.satisfies(topic, &state.isr) {
                let end = self.committed.entry(at).or_default();
                *end += 1;
                let end = *end;
                for member in maximal {
                    self.nodes.get_mut(&member.0).expect("known").ends.insert(at, end);
                }
            }
        }
    }

    /// Alive under the registration the image holds.
    fn follows(&self, broker: BrokerId) -> bool {
        let node = &self.nodes[&broker.0];
        node.alive && node.epoch.is_some() && node.epoch == self.image.brokers.get(broker).map(|b| b.epoch)
    }

    fn leaders_propose(&mut self, faults: bool) {
        for at in self.at() {
            let Some((_, state)) = live(&self.image, at) else { continue };
            let state = state.clone();
            let Some(leader) = state.leader.filter(|l| self.follows(*l)) else { continue };
            if self.pending.contains_key(&at) || !self.dice.one_in(3) {
                continue;
            }
            let mut isr: Vec<BrokerId> =
                state.isr.iter().copied().filter(|b| *b == leader || self.follows(*b)).collect();
            let out: Vec<_> = state.replicas.iter().copied().filter(|b| !isr.contains(b) && self.follows(*b)).collect();
            if !out.is_empty() && self.dice.one_in(2) {
                let joins = out[self.dice.below(out.len() as u64) as usize];
                // Caught up with the leader: it holds every committed record the leader holds.
                let end = self.nodes[&leader.0].ends.get(&at).copied().unwrap_or(0);
                let node = self.nodes.get_mut(&joins.0).expect("known");
                node.ends.insert(at, end);
                node.tainted.remove(&at);
                isr.push(joins);
            } else if faults && isr.len() > 1 && self.dice.one_in(4) {
                let leaves = isr[self.dice.below(isr.len() as u64) as usize];
                isr.retain(|b| *b != leaves || *b == leader);
            }
            if isr == state.isr {
                continue;
            }
            let epoch = |b: &BrokerId| self.nodes[&b.0].epoch.expect("it follows");
            let proposal = AlterPartition {
                at,
                leader_epoch: state.leader_epoch,
                partition_epoch: state.partition_epoch,
                isr: isr.iter().map(|b| (*b, epoch(b))).collect(),
            };
            self.pending.insert(at, (leader.0, proposal));
        }
        // Some arrive now, some later; all stay pending until the image has moved past them.
        let due: Vec<_> = self.pending.clone().into_values().filter(|_| self.dice.one_in(2)).collect();
        for (leader, proposal) in due {
            let Some(epoch) = self.nodes[&leader].epoch else { continue };
            let partitions = vec![proposal];
            self.queue.push(Command::AlterPartitions(AlterPartitions { broker: b(leader), epoch, partitions }));
        }
    }

    fn fault(&mut self) {
        let id = self.pick();
        let alive = self.nodes[&id].alive;
        match self.dice.below(60) {
            0..=5 if alive => self.stop(id),
            6..=15 if !alive => {
                let kept = !self.dice.one_in(3);
                self.start(id, kept);
            }
            16 if !alive => self.wipe(id),
            17 if !alive => self.set_back(id),
            18 => {
                let node = self.nodes.get_mut(&id).expect("known");
                node.copy = Some((node.durable_epoch, node.ends.clone()));
            }
            19 if alive => self.nodes.get_mut(&id).expect("known").stopping = true,
            20 => (1..=BROKERS).for_each(|id| self.stop(id)),
            21 => self.failover(),
            22..=24 => self.create(),
            25 => {
                let name = self.image.topics.iter().find(|t| t.is_live()).map(|t| t.name.clone());
                self.queue
                    .extend(name.map(|name| Command::DeleteTopic(DeleteTopic { name, at_ms: WALL_0 + self.mono })));
            }
            26 => self.set_rule(),
            27 => self.queue.push(Command::ElectLeaders(ElectLeaders {
                scope: ElectionScope::All,
                kind: ElectionKind::Preferred,
                dry_run: false,
                at_ms: 0,
            })),
            28 => self.queue.push(Command::ShutdownBroker { broker: b(id) }),
            29 if alive => self.sessions.note_reset(b(id), u64::from(self.nodes[&id].process)),
            30..=31 => self.clean_copy_lies(id),
            32..=33 => self.elect_unclean(),
            _ => {}
        }
    }

    /// A process that is alive says its proof again, naming all partitions: it must change nothing.
    fn clean_copy_lies(&mut self, id: u32) {
        let Some(epoch) = self.nodes[&id].epoch else { return };
        if self.image.brokers.get(b(id)).is_some_and(|b| b.epoch == epoch && b.proved) {
            let command = ProveRestart { broker: b(id), epoch, proved: self.at(), last: true };
            self.queue.push(Command::ProveRestart(command));
        }
    }

    /// Whoever is up says what it has; an operator takes the longest log and does not wait.
    fn elect_unclean(&mut self) {
        let Some(at) = self.image.topics.leaderless().next() else { return };
        let (topic, state) = live(&self.image, at).expect("live");
        let (name, state) = (topic.name.clone(), state.clone());
        let up: Vec<_> = state.replicas.iter().copied().filter(|b| self.follows(*b)).collect();
        for replica in up {
            let node = &self.nodes[&replica.0];
            let log_end = node.ends.get(&at).copied().unwrap_or(0);
            let leader_epoch = state.leader_epoch;
            let end = ReportedEnd { at, leader_epoch, last_epoch: None, log_end, log_start: 0, damaged: false };
            let epoch = node.epoch.expect("it follows");
            self.queue.push(Command::ReportLogEnds(ReportLogEnds { broker: replica, epoch, ends: vec![end] }));
        }
        self.queue.push(Command::ElectLeaders(ElectLeaders {
            scope: ElectionScope::Partition(name, at.partition),
            kind: ElectionKind::Unclean { now: true, chosen: None },
            dry_run: false,
            at_ms: 1,
        }));
    }

    fn set_rule(&mut self) {
        let names: Vec<_> = self.image.topics.iter().filter(|t| t.is_live()).map(|t| t.name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let name = names[self.dice.below(names.len() as u64) as usize].clone();
        let (key, most) = if self.dice.one_in(2) { ("min.insync.replicas", 3) } else { ("min.insync.dcs", 2) };
        let value = (1 + self.dice.below(most)).to_string();
        self.queue.push(Command::AlterConfigs(AlterConfigs {
            target: ConfigTarget::Topic(name),
            set: vec![(key.to_owned(), value)],
            unset: Vec::new(),
            validate_only: false,
        }));
    }

    fn create(&mut self) {
        self.made += 1;
        if self.image.topics.partition_count() < 12 {
            let name = format!("t{}", self.made);
            let replicas = 1 + self.dice.below(4) as u32;
            self.queue
                .push(Command::CreateTopic(CreateTopic { seed: self.dice.next(), ..create(&name, 3, replicas, &[]) }));
        }
    }

    fn stop(&mut self, id: u32) {
        let stream = u64::from(self.nodes[&id].process);
        let node = self.nodes.get_mut(&id).expect("known");
        if node.alive {
            node.alive = false;
            self.sessions.note_reset(b(id), stream);
            self.standby.note_reset(b(id), stream);
        }
    }

    /// A new process. `kept`: it can prove everything; else it lost some, and proves what it kept.
    fn start(&mut self, id: u32, kept: bool) {
        let all: Vec<_> = self.nodes[&id].ends.keys().copied().collect();
        let mut proved = BTreeSet::new();
        for at in all {
            if kept || self.dice.one_in(2) {
                proved.insert(at);
            } else {
                let lost = self.dice.below(3);
                let node = self.nodes.get_mut(&id).expect("known");
                let end = node.ends.get_mut(&at).expect("listed");
                *end = end.saturating_sub(lost);
                node.tainted.insert(at);
            }
        }
        let node = self.nodes.get_mut(&id).expect("known");
        node.alive = true;
        node.process += 1;
        node.epoch = None;
        node.stopping = false;
        node.kept = proved.difference(&node.tainted).copied().collect();
    }

    /// An empty disk that claims everything.
    fn wipe(&mut self, id: u32) {
        self.start(id, true);
        let claimed = self.at().into_iter().collect();
        let node = self.nodes.get_mut(&id).expect("known");
        node.ends.values_mut().for_each(|end| *end = 0);
        node.directory += 100;
        node.durable_epoch = None;
        node.kept = claimed;
    }

    /// An old copy of the disk that claims everything. Only one older than its last unfencing: the fault model.
    fn set_back(&mut self, id: u32) {
        let Some((epoch, ends)) = self.nodes[&id].copy.clone() else { return };
        if epoch == self.image.brokers.get(b(id)).and_then(|b| b.last_unfenced_epoch) {
            return;
        }
        self.start(id, true);
        let claimed = self.at().into_iter().collect();
        let node = self.nodes.get_mut(&id).expect("known");
        node.durable_epoch = epoch;
        for (at, end) in &mut node.ends {
            *end = (*end).min(ends.get(at).copied().unwrap_or(0));
        }
        node.kept = claimed;
    }

    fn failover(&mut self) {
        self.sessions.step_down();
        std::mem::swap(&mut self.sessions, &mut self.standby);
        self.sessions.takeover(self.image.batch_no, self.mono);
        self.queue.clear();
    }

    fn decide(&mut self, fate: Fate) {
        for _ in 0..50 {
            let commands = std::mem::take(&mut self.queue);
            let now = Now { mono: self.mono, wall: WALL_0 + self.mono };
            let plan = run_batch(&self.image, &mut self.sessions, now, &commands);
            if fate != Fate::Dropped && !plan.facts.is_empty() {
                self.apply(plan.facts);
            }
            if fate != Fate::Applied {
                self.dropped += 1;
                self.failover();
                return;
            }
            self.sessions.settled(true);
            for (command, reply) in commands.iter().zip(&plan.replies) {
                self.answered(command, reply);
            }
            self.queue = commands[plan.replies.len()..].to_vec();
            self.pending.retain(|at, (_, p)| {
                live(&self.image, *at).is_some_and(|(_, s)| s.partition_epoch == p.partition_epoch)
            });
            if !plan.more {
                return;
            }
        }
        panic!("work does not end");
    }

    fn answered(&mut self, command: &Command, reply: &Result<Reply, protocol::error::ApiError>) {
        match (command, reply) {
            (Command::Register(c), Ok(Reply::Registered(r))) => {
                let node = self.nodes.get_mut(&c.broker.0).expect("known");
                if node.alive && c.incarnation == register(c.broker.0, node.process).incarnation {
                    node.epoch = Some(r.epoch);
                    node.durable_epoch = Some(r.epoch);
                }
            }
            (Command::AlterPartitions(c), Ok(Reply::Altered(results))) => {
                for (proposal, result) in c.partitions.iter().zip(results) {
                    // A definite refusal ends the proposal; so does its commitment.
                    let _ = result;
                    self.pending.retain(|at, (_, p)| *at != proposal.at || p != proposal);
                }
            }
            (Command::ElectLeaders(_), Ok(Reply::Elected(_))) | (_, Ok(_)) | (_, Err(_)) => {}
        }
    }

    /// Folds facts one by one and holds each against the laws.
    fn apply(&mut self, facts: Vec<Fact>) {
        let batch = protocol::metadata::batch::MetadataBatch { base: self.image.batch_no, facts };
        let bytes = batch.encode();
        let before = self.image.clone();
        let mut draft = protocol::metadata::draft::Draft::new(before.clone());
        let lossy: BTreeSet<_> = batch
            .facts
            .iter()
            .filter_map(|f| match f {
                Fact::UncleanElection(u) => Some(TopicPartition { topic: u.topic, partition: u.partition }),
                _ => None,
            })
            .collect();
        for fact in &batch.facts {
            match fact {
                Fact::PartitionsChanged(f) => self.check_changes(draft.state(), f, &lossy),
                Fact::BrokerUnfenced(at) => check_unfenced(draft.state(), at.broker),
                _ => {}
            }
            draft.push(fact.clone());
        }
        let (image, _) = before.apply(&batch, &bytes).expect("legal");
        self.image = image;
        self.note_new_partitions();
        for at in self.at() {
            let state = self.image.topics.partition(at).expect("live");
            if let Some(leader) = state.leader {
                let fenced = self.image.brokers.get(leader).is_none_or(|b| b.is_fenced());
                assert!(!fenced, "{at}: led by {leader}, which is fenced");
            }
        }
    }

    fn note_new_partitions(&mut self) {
        for at in self.at() {
            if self.committed.contains_key(&at) {
                continue;
            }
            for replica in &self.image.topics.partition(at).expect("live").replicas {
                let node = self.nodes.get_mut(&replica.0).expect("known");
                node.ends.insert(at, 0);
            }
            self.committed.insert(at, 0);
        }
    }

    fn check_changes(&mut self, image: &MetadataImage, fact: &PartitionsChanged, lossy: &BTreeSet<TopicPartition>) {
        for change in &fact.changes {
            let at = TopicPartition { topic: fact.topic, partition: change.partition };
            let (topic, old) = live(image, at).expect("a change of a live partition");
            let new = changed(old, change);
            check_shape(&new);
            if image.satisfies(topic, &new.isr) {
                assert!(new.elr.is_empty(), "{at}: ELR {:?} beside a satisfying ISR", new.elr);
                assert!(new.recovery == RecoveryState::Recovered || change.recovery.is_some(), "{at}: {new:?}");
            }
            for member in new.isr.iter().filter(|b| !old.isr.contains(b)) {
                assert!(image.brokers.is_active(*member), "{at}: {member} joins the ISR and is not active");
            }
            let moved = new.leader != old.leader;
            assert_eq!(new.leader_epoch.0, old.leader_epoch.0 + u32::from(moved), "{at}: leader epoch");
            if let LeaderChange::Broker(leader) = change.leader {
                self.elections += 1;
                assert!(image.brokers.is_active(leader), "{at}: {leader} elected while not active");
                if change.recovery == Some(RecoveryState::Recovering) {
                    assert!(lossy.contains(&at), "{at}: a lossy election without a record of it");
                    assert!(!old.isr.iter().chain(&old.elr).any(|b| image.brokers.is_active(*b)), "{at}: {old:?}");
                    self.unclean += 1;
                    let end = self.nodes[&leader.0].ends.get(&at).copied().unwrap_or(0);
                    self.committed.insert(at, end);
                    continue;
                }
                assert!(old.isr.contains(&leader) || old.elr.contains(&leader), "{at}: {leader} is in neither set");
                self.from_elr += usize::from(!old.isr.contains(&leader));
            }
        }
    }

    /// All brokers up with what they have, no more faults, long enough for everything to settle.
    fn heal(&mut self) {
        for id in 1..=BROKERS {
            if !self.nodes[&id].alive || self.nodes[&id].stopping {
                self.stop(id);
                self.start(id, true);
            }
        }
        for _ in 0..600 {
            self.step(false);
            let dead: Vec<_> = self.nodes.iter().filter(|(_, n)| !n.alive).map(|(id, _)| *id).collect();
            dead.into_iter().for_each(|id| self.start(id, true));
        }
    }

    fn check_healed(&mut self) {
        for id in 1..=BROKERS {
            let broker = self.image.brokers.get(b(id)).expect("registered");
            let why = crate::decide::brokers::why_fenced(&self.image, &self.sessions, broker, self.mono);
            assert!(broker.is_active(), "broker {id} is {:?}: {why:?}", broker.state);
        }
        for at in self.at() {
            let (topic, state) = live(&self.image, at).expect("live");
            if state.leader.is_none() {
                assert!(state.isr.is_empty() && state.elr.is_empty(), "{at}: electable but not elected: {state:?}");
                continue;
            }
            assert!(self.image.satisfies(topic, &state.isr), "{at}: {state:?}");
            assert_eq!(state.leader, state.replicas.first().copied(), "{at}: leadership did not return");
        }
        self.queue.clear();
        let now = Now { mono: self.mono, wall: WALL_0 + self.mono };
        let idle = run_batch(&self.image, &mut self.sessions, now, &[Command::Tick]);
        assert_eq!((idle.facts, idle.more), (Vec::new(), false), "work is left although nothing happens");
    }
}

fn check_shape(state: &Partition) {
    let isr: BTreeSet<_> = state.isr.iter().collect();
    assert!(state.leader.is_none_or(|l| isr.contains(&l)), "{state:?}");
    assert!(state.elr.iter().all(|b| !isr.contains(b)), "{state:?}");
    assert!(state.isr.iter().chain(&state.elr).all(|b| state.replicas.contains(b)), "{state:?}");
}

fn check_unfenced(image: &MetadataImage, broker: BrokerId) {
    for at in image.topics.places_of(broker) {
        let state = image.topics.partition(at).expect("indexed");
        assert!(!state.isr.contains(&broker), "{broker} unfenced with an ISR place in {at} from before");
        assert_ne!(state.leader, Some(broker), "{broker} unfenced as leader of {at}: an incarnation goes on");
    }
}

/// The one that would catch the worst bug: under any history of faults no election outside an unclean one picks a
/// leader that lacks a committed record, and once the faults end everything that can be led is.
#[test]
fn no_history_of_faults_elects_a_leader_that_lacks_a_committed_record() {
    let (mut elections, mut from_elr, mut dropped, mut unclean, mut offline) = (0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut model = Model::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..60).for_each(|_| model.step(false));
            (0..STEPS).for_each(|_| model.step(true));
            model.heal();
            model.check_healed();
        }));
        if let Err(panic) = outcome {
            eprintln!("seed {seed} fails");
            std::panic::resume_unwind(panic);
        }
        elections += model.elections;
        from_elr += model.from_elr;
        dropped += model.dropped;
        unclean += model.unclean;
        offline += model.image.topics.leaderless().count();
    }
    let seen = format!(
        "{elections} elections, {from_elr} from the ELR, {unclean} unclean, {dropped} batches in doubt, {offline} offline at the end"
    );
    eprintln!("{seen}");
    let enough = elections > 1_000 && from_elr > 100 && unclean > 20 && dropped > 20 && offline > 5;
    assert!(enough, "the histories were too quiet to prove anything: {seen}");
}

const SEEDS: u64 = 60;
const STEPS: usize = 400;
