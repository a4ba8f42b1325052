//! What goes wrong in a run, drawn from its seed: crashes, orderly stops, cuts of both or one direction, held and slow
//! links, changes of voters, one after the other and over each other.
//!
//! Owns: the agenda, and what must be undone. Never: looks at what clients were told.
//! Invariants: after [`Nemesis::mend`] every node runs and every link carries everything at its usual speed. A fault of
//! links lies where something went lately, and lasts until something met it: what nobody felt proves nothing.

mod network;

use super::clients::{Stage, VoterWish};
use super::links::Links;
use super::nodes::{Cluster, Kind, Node};
use super::record::Shared;
use crate::chaos::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use turmoil::Sim;

/// What may be drawn in a run: a swarm, so that some runs have much of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Crash,
    CrashActive,
    Stop,
    Cut,
    CutActive,
    OneWay,
    Hold,
    Slow,
    Voters,
    Forget,
}

const CLASSES: [Class; 10] = [
    Class::Crash,
    Class::CrashActive,
    Class::Stop,
    Class::Cut,
    Class::CutActive,
    Class::OneWay,
    Class::Hold,
    Class::Slow,
    Class::Voters,
    Class::Forget,
];

/// Circumstances that are legal and that chance shows too rarely: some seeds have little else. The laws stay what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// A voter that forgot the lease it gave is asked for its vote by one that the leader does not reach.
    ForgottenLease,
    /// A leader is cut off with somebody who asks it, and with or without the one who writes, until others lead.
    Deposed,
}

impl Story {
    fn of(seed: u64) -> Option<Self> {
        match seed % 8 {
            3 => Some(Story::ForgottenLease),
            6 => Some(Story::Deposed),
            _ => None,
        }
    }

    fn class(self) -> Class {
        match self {
            Story::ForgottenLease => Class::Forget,
            Story::Deposed => Class::CutActive,
        }
    }
}

/// Mean pause between two faults of a story, ms: the one before has ended and the cluster is whole again.
const STORY_PAUSE_MS: u64 = 3_000;

/// How much longer a fault of links lasts when nobody has felt it.
const UNFELT: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
enum Undo {
    /// The node starts again.
    Start(Rc<Node>),
    /// It was asked to stop with this fault, and starts once it has.
    StartOnceStopped(Rc<Node>, u32),
    /// Something else begins: the first node is cut off from the second, killed and soon back.
    Restart(Rc<Node>, Rc<Node>),
    /// A fault of links ends.
    Join(u32),
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// See the module's text.
pub struct Nemesis {
    random: Random,
    classes: Vec<Class>,
    story: Option<Story>,
    /// When the next thing goes wrong.
    next: Duration,
    /// Mean pause between two, ms.
    pause_ms: u64,
    agenda: BTreeMap<(Duration, u64), Undo>,
    drawn: u64,
    power: bool,
    latency: Duration,
    cluster: Rc<Cluster>,
    stage: Rc<Stage>,
    record: Shared,
    links: Arc<Links>,
    hosts: Vec<String>,
    /// Addresses of the hosts, once looked up.
    addresses: BTreeMap<String, IpAddr>,
    down: BTreeSet<String>,
    /// Nothing new goes wrong any more.
    mending: bool,
}

impl Nemesis {
    /// Draws what may happen in the run of a seed. `power`: a crash may lose what was not synced. `latency`: the usual longest one.
    pub fn new(
        seed: u64,
        power: bool,
        latency: Duration,
        (cluster, stage, record, links): (Rc<Cluster>, Rc<Stage>, Shared, Arc<Links>),
        clients: &[String],
    ) -> Self {
        let mut random = Random::new(seed ^ 0xBAD);
        let story = Story::of(seed);
        let count = usize::try_from(random.between(2, 6)).unwrap_or(2);
        let drawn = random.shuffled(&CLASSES).into_iter().take(count).collect();
        let classes = story.map_or(drawn, |story| vec![story.class()]);
        let pause_ms = story.map_or(random.between(300, 2_500), |_| STORY_PAUSE_MS);
        let hosts = cluster.nodes.iter().map(|node| node.name.clone()).chain(clients.iter().cloned()).collect();
        Self {
            random,
            classes,
            story,
            next: Duration::from_secs(4),
            pause_ms,
            agenda: BTreeMap::new(),
            drawn: 0,
            power,
            latency,
            cluster,
            stage,
            record,
            links,
            hosts,
            addresses: BTreeMap::new(),
            down: BTreeSet::new(),
            mending: false,
        }
    }

    fn note(&self, at: Duration, what: &str) {
        self.record.borrow_mut().note(at, what);
    }

    fn planned(&self, at: Duration, class: &'static str, target: &str) -> u32 {
        self.record.borrow_mut().planned(at, class, target)
    }

    /// Does what is due.
    pub fn act(&mut self, at: Duration, sim: &mut Sim<'_>) {
        self.felt(at);
        self.undo_due(at, sim);
        if at < self.next {
            return;
        }
        self.next = at + Duration::from_millis(self.random.between(self.pause_ms / 3, self.pause_ms * 2));
        let class = *self.random.one_of(&self.classes);
        self.begin(class, at, sim);
    }

    /// Begins nothing more; false once everything planned was seen to take effect.
    pub fn goes_on(&mut self, at: Duration, sim: &mut Sim<'_>) -> bool {
        self.felt(at);
        self.undo_due(at, sim);
        !self.record.borrow().all_confirmed()
    }

    fn felt(&self, at: Duration) {
        for fault in self.links.felt() {
            self.record.borrow_mut().confirm(at, fault, "something met it");
        }
    }

    fn undo_due(&mut self, at: Duration, sim: &mut Sim<'_>) {
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= at) {
            let undo = entry.remove();
            let waits = match &undo {
                Undo::Join(fault) => !self.record.borrow().is_confirmed(*fault),
                Undo::StartOnceStopped(node, _) => node.up.get(),
                _ => false,
            };
            if waits {
                self.drawn += 1;
                self.agenda.insert((at + UNFELT, self.drawn), undo);
            } else {
                self.undo(undo, at, sim);
            }
        }
    }

    fn later(&mut self, at: Duration, (low, high): (u64, u64), undo: Undo) {
        let due = at + Duration::from_millis(self.random.between(low, high));
        self.drawn += 1;
        self.agenda.insert((due, self.drawn), undo);
    }

    fn begin(&mut self, class: Class, at: Duration, sim: &mut Sim<'_>) {
        match class {
            Class::Crash => {
                let nodes = self.cluster.nodes.clone();
                let node = Rc::clone(self.random.one_of(&nodes));
                self.crash(&node, at, sim);
            }
            Class::CrashActive => {
                if let Some(node) = self.cluster.active() {
                    self.crash(&node, at, sim);
                }
            }
            Class::Stop => {
                let nodes = self.cluster.nodes.clone();
                let node = Rc::clone(self.random.one_of(&nodes));
                // One that is still starting does not listen yet.
                if node.up.get() && self.down.insert(node.name.clone()) {
                    let fault = self.planned(at, "orderly stop", &node.name);
                    node.ask_to_stop();
                    self.later(at, (1_500, 5_000), Undo::StartOnceStopped(node, fault));
                }
            }
            Class::Cut => self.cut(at, sim),
            Class::CutActive => self.cut_active(at, sim),
            Class::OneWay => self.one_way(at, sim),
            Class::Forget => self.forget_a_lease(at, sim),
            Class::Hold => self.hold(at, sim),
            Class::Slow => self.slow(at, sim),
            Class::Voters => {
                let wish =
                    *self.random.one_of(&[VoterWish::Add, VoterWish::Remove, VoterWish::Replace, VoterWish::Replace]);
                self.stage.changes.borrow_mut().push_back(wish);
            }
        }
    }

    fn crash(&mut self, node: &Rc<Node>, at: Duration, sim: &mut Sim<'_>) {
        if self.down.contains(&node.name) || !sim.is_host_running(node.name.as_str()) {
            return;
        }
        self.down.insert(node.name.clone());
        let power = self.power && self.random.chance(60);
        let fault = self.planned(at, if power { "power cut" } else { "kill" }, &node.name);
        if power {
            let kept = self.random.below(101);
            let random = &mut self.random;
            node.disk.crash(&mut || random.chance(kept));
        } else {
            node.disk.kill_process();
        }
        self.take_down(node, fault, at, sim);
        self.later(at, (50, 6_000), Undo::Start(Rc::clone(node)));
    }

    /// The disk is dead already.
    fn take_down(&self, node: &Node, fault: u32, at: Duration, sim: &mut Sim<'_>) {
        node.forget();
        sim.crash(node.name.as_str());
        if !sim.is_host_running(node.name.as_str()) {
            self.record.borrow_mut().confirm(at, fault, "its process is gone");
        }
    }

    /// One controller is cut off from the active one and wants to lead; the one that holds it back by the lease it gave is
    /// restarted at once, and hears no more of the active one: that one's quorum stays fresh for a little while. Those who
    /// write metadata do not reach it either, or the rival's log would be too old for any vote.
    fn forget_a_lease(&mut self, at: Duration, sim: &mut Sim<'_>) {
        let Some(active) = self.cluster.active() else { return };
        let Some(quorum) = active.quorum() else { return };
        let voters: BTreeSet<u32> = quorum.status().voters.iter().map(|known| known.voter.id).collect();
        let other = |node: &&Rc<Node>| node.up.get() && node.id != active.id && voters.contains(&node.id);
        let others: Vec<_> = self.cluster.of(Kind::Controller).filter(other).cloned().collect();
        let [rival, keeper, ..] = &self.random.shuffled(&others)[..] else { return };
        let unheard = [rival.name.clone(), "admin".to_owned(), "voters".to_owned()];
        if self.apart(std::slice::from_ref(&active.name), &unheard, (3_000, 5_000), at, sim) {
            self.later(at, (700, 1_500), Undo::Restart(Rc::clone(keeper), active));
        }
    }

    fn undo(&mut self, undo: Undo, at: Duration, sim: &mut Sim<'_>) {
        match undo {
            Undo::Start(node) => self.start(&node, at, sim),
            Undo::StartOnceStopped(node, fault) => {
                if !node.up.get() {
                    self.record.borrow_mut().confirm(at, fault, "its process has ended");
                }
                self.start(&node, at, sim);
            }
            Undo::Restart(node, from) => {
                if sim.is_host_running(node.name.as_str()) && self.down.insert(node.name.clone()) {
                    if !self.mending {
                        let (node, from) = (std::slice::from_ref(&node.name), std::slice::from_ref(&from.name));
                        self.apart(from, node, (1_500, 2_500), at, sim);
                    }
                    let fault = self.planned(at, "kill", &node.name);
                    node.disk.kill_process();
                    self.take_down(&node, fault, at, sim);
                    self.later(at, (1, 60), Undo::Start(node));
                }
            }
            Undo::Join(fault) => {
                self.note(at, &format!("fault {fault} ends"));
                self.join(fault, sim);
            }
        }
    }

    fn start(&mut self, node: &Rc<Node>, at: Duration, sim: &mut Sim<'_>) {
        if sim.is_host_running(node.name.as_str()) {
            // It was asked to stop and has not got there yet: it is killed.
            node.disk.kill_process();
            node.forget();
            sim.crash(node.name.as_str());
        }
        self.down.remove(&node.name);
        self.note(at, &format!("{} starts", node.name));
        node.disk.kill_process();
        sim.bounce(node.name.as_str());
    }

    /// Mends everything.
    pub fn mend(&mut self, at: Duration, sim: &mut Sim<'_>) {
        self.felt(at);
        self.mending = true;
        // A restart that was planned begins with an end: it puts a start on the agenda again.
        while let Some((_, undo)) = self.agenda.pop_first() {
            self.undo(undo, at, sim);
        }
        self.note(at, "everything is mended");
    }
}
