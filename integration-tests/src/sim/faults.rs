//! What goes wrong with processes, machines, controllers, the network and clocks, and the end of it. Disks are in `disks`.
//!
//! Owns: which fault strikes whom, and that only what took effect is counted. Never: judges.

use super::network::Site;
use super::sometimes::Sometimes;
use super::told::Told;
use super::wire::{Event, ToBroker, ToController};
use super::world::World;
use protocol::ids::{BrokerId, Millis};
use std::sync::atomic::Ordering;

/// A class of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Fault {
    Kill,
    PowerCut,
    DcPowerCut,
    Blackout,
    Pause,
    Stop,
    Depose,
    DeposeInFlight,
    PauseController,
    LagController,
    RestartController,
    PairCut,
    OneWayCut,
    Isolated,
    DcCut,
    DcCutOneWay,
    Flapping,
    ControllersCut,
    SickSync,
    SickSyncEverywhere,
    WriteError,
    ReadError,
    ReadFlip,
    FullDisk,
    SlowDisk,
    Damage,
    MisdirectedWrite,
    DiskReplaced,
    OldDisk,
    WallClockJump,
}

impl Fault {
    /// Every class.
    pub const ALL: [Fault; 30] = [
        Fault::Kill,
        Fault::PowerCut,
        Fault::DcPowerCut,
        Fault::Blackout,
        Fault::Pause,
        Fault::Stop,
        Fault::Depose,
        Fault::DeposeInFlight,
        Fault::PauseController,
        Fault::LagController,
        Fault::RestartController,
        Fault::PairCut,
        Fault::OneWayCut,
        Fault::Isolated,
        Fault::DcCut,
        Fault::DcCutOneWay,
        Fault::Flapping,
        Fault::ControllersCut,
        Fault::SickSync,
        Fault::SickSyncEverywhere,
        Fault::WriteError,
        Fault::ReadError,
        Fault::ReadFlip,
        Fault::FullDisk,
        Fault::SlowDisk,
        Fault::Damage,
        Fault::MisdirectedWrite,
        Fault::DiskReplaced,
        Fault::OldDisk,
        Fault::WallClockJump,
    ];

    /// Whether a read of a disk fails or lies.
    pub(super) fn is_of_reads(self) -> bool {
        matches!(self, Fault::ReadError | Fault::ReadFlip)
    }

    /// In reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::PowerCut => "power cut",
            Fault::DcPowerCut => "power cut of a data centre",
            Fault::Blackout => "power cut of everything",
            Fault::Pause => "broker frozen",
            Fault::Stop => "clean stop",
            Fault::Depose => "controller deposed",
            Fault::DeposeInFlight => "controller deposed while writing",
            Fault::PauseController => "controller frozen",
            Fault::LagController => "controller lags",
            Fault::RestartController => "controller restarted",
            Fault::PairCut => "pair cut",
            Fault::OneWayCut => "one way cut",
            Fault::Isolated => "broker isolated",
            Fault::DcCut => "data centre cut",
            Fault::DcCutOneWay => "data centre cut one way",
            Fault::Flapping => "flapping link",
            Fault::ControllersCut => "controllers cut off",
            Fault::SickSync => "failed sync",
            Fault::SickSyncEverywhere => "failed syncs everywhere",
            Fault::WriteError => "failed write",
            Fault::ReadError => "failed read",
            Fault::ReadFlip => "flipped read",
            Fault::FullDisk => "full disk",
            Fault::SlowDisk => "slow disk",
            Fault::Damage => "damaged disk",
            Fault::MisdirectedWrite => "misdirected write",
            Fault::DiskReplaced => "disk replaced",
            Fault::OldDisk => "old copy of a disk",
            Fault::WallClockJump => "wall clock jump",
        }
    }
}

impl World {
    pub(super) fn nemesis(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let (low, high) = self.plan.fault_pause_ms;
        let next = self.rng.between(low, high);
        self.after(next, Event::Nemesis);
        let total: u64 = self.plan.faults.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.below(total.max(1));
        let mut chosen = Fault::Kill;
        for (fault, weight) in &self.plan.faults {
            if drawn < *weight {
                chosen = *fault;
                break;
            }
            drawn -= weight;
        }
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        let id = *self.rng.one_of(&ids);
        let took = self.inflict(chosen, id)?;
        self.trace.note(self.now, Some(id), format_args!("fault {}: {took}", chosen.name()));
        if took {
            self.struck(chosen);
        }
        Ok(())
    }

    /// A fault took effect.
    pub(super) fn struck(&mut self, fault: Fault) {
        if fault == Fault::FullDisk {
            self.laws.tally.sometimes(Sometimes::DiskFull);
        }
        self.laws.tally.fault(fault.name());
        self.measures.fault(self.now, fault);
    }

    fn inflict(&mut self, fault: Fault, id: BrokerId) -> Result<bool, String> {
        match fault {
            Fault::Kill => self.strike(id, false),
            Fault::PowerCut => self.strike(id, true),
            Fault::DcPowerCut => self.dc_power_cut(id),
            Fault::Blackout => {
                let ids: Vec<_> = self.nodes.keys().copied().collect();
                self.laws.tally.blackouts += 1;
                ids.into_iter().try_fold(false, |any, id| Ok(self.strike(id, true)? | any))
            }
            Fault::Pause => Ok(self.freeze(id)),
            Fault::Stop => Ok(self.stop(id)),
            Fault::Depose => Ok(self.depose()),
            Fault::DeposeInFlight => {
                self.quorum.depose_in_flight = true;
                Ok(false)
            }
            Fault::PauseController | Fault::LagController => Ok(self.slow_controller(fault)),
            Fault::RestartController => {
                let which = usize::try_from(self.rng.below(self.quorum.members.len() as u64)).unwrap_or(0);
                if self.quorum.active == Some(which) {
                    self.depose();
                }
                self.quorum.restart(which, self.timers);
                Ok(true)
            }
            Fault::PairCut
            | Fault::OneWayCut
            | Fault::Isolated
            | Fault::DcCut
            | Fault::DcCutOneWay
            | Fault::Flapping
            | Fault::ControllersCut => {
                self.cut(fault, id);
                Ok(false)
            }
            Fault::WallClockJump => Ok(self.jump(id)),
            Fault::SickSync
            | Fault::SickSyncEverywhere
            | Fault::WriteError
            | Fault::ReadError
            | Fault::ReadFlip
            | Fault::FullDisk
            | Fault::SlowDisk
            | Fault::Damage
            | Fault::MisdirectedWrite
            | Fault::DiskReplaced
            | Fault::OldDisk => self.hurt_disk(fault, id),
        }
    }

    /// Kills a broker (or cuts its power) and starts it again later.
    pub(super) fn strike(&mut self, id: BrokerId, power: bool) -> Result<bool, String> {
        if self.nodes.get(&id).is_none_or(|n| n.process.is_none()) {
            return Ok(false);
        }
        self.kill(id, power)?;
        Ok(true)
    }

    /// A strike that was aimed at this broker, while faults are on.
    pub(super) fn strike_aimed(&mut self, id: BrokerId, power: bool) -> Result<(), String> {
        if self.faults && self.strike(id, power)? {
            self.struck(if power { Fault::PowerCut } else { Fault::Kill });
        }
        Ok(())
    }

    /// Who has just started may not hear the others for a while, or not be heard by them; the controllers hear it.
    pub(super) fn deafen(&mut self, id: BrokerId) {
        let on = super::buggify::Point::FormerLives.is_on(self.plan.buggify) && self.faults;
        if !on || !self.rng.chance(60) {
            return;
        }
        let mut others: Vec<_> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        if self.rng.chance(50) {
            others = vec![*self.rng.one_of(&others)];
        }
        let (until, mute) = (self.now + self.rng.between(1_000, 5_000), self.rng.chance(40));
        let cause = self.cause(Fault::OneWayCut);
        for other in others {
            let (me, other) = (self.net.broker(id), self.net.broker(other));
            let (from, to) = if mute { (me, other) } else { (other, me) };
            self.net.cut(from, to, until, cause);
        }
    }

    fn dc_power_cut(&mut self, near: BrokerId) -> Result<bool, String> {
        let dc = self.net.dc(self.net.broker(near));
        let there: Vec<_> = self.nodes.keys().copied().filter(|id| self.net.dc(self.net.broker(*id)) == dc).collect();
        let took = there.into_iter().try_fold(false, |any, id| Ok::<_, String>(self.strike(id, true)? | any))?;
        if self.quorum.active.is_some_and(|active| self.net.dc(self.net.controller(active)) == dc) {
            self.depose();
        }
        if took {
            self.laws.tally.sometimes(Sometimes::WholeDcLostPower);
        }
        Ok(took)
    }

    pub(super) fn kill(&mut self, id: BrokerId, power: bool) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(process) = node.process.take() else { return Ok(()) };
        let who = process.who();
        self.laws.tally.truncations += process.truncations();
        drop(process);
        self.trace.note(self.now, Some(id), format_args!("{}", if power { "loses power" } else { "dies" }));
        (node.frozen_until, node.wakes_at) = (0, Millis::MAX);
        let rng = &mut self.rng;
        if power {
            self.laws.tally.power_cuts += 1;
            let kept = rng.between(0, 100);
            node.disk.crash(&mut || rng.chance(kept));
            node.remembered.lose(usize::try_from(rng.below(8)).unwrap_or(0));
        } else {
            self.laws.tally.kills += 1;
            node.disk.kill_process();
            node.remembered.lose(usize::from(rng.chance(20)));
        }
        self.laws.observe(self.now, &Told::Ended { who, power })?;
        self.gone(id, who.life, !power);
        let delay = self.restart_delay();
        self.after(delay, Event::Start(id));
        Ok(())
    }

    pub(super) fn restart_delay(&mut self) -> Millis {
        let quick = super::buggify::Point::QuickRestart.is_on(self.plan.buggify);
        if quick { self.rng.between(1, 200) } else { self.rng.between(20, 3_500) }
    }

    /// The others learn that a process is gone: at once when its machine lives on, else when they give up.
    pub(super) fn gone(&mut self, id: BrokerId, stream: u64, resets: bool) {
        for (follower, leader) in self.links.of(id) {
            self.break_link(follower, leader);
        }
        for to in 0..self.quorum.members.len() {
            let (from, site) = (self.net.broker(id), self.net.controller(to));
            if (resets || self.rng.chance(50)) && self.net.blocked(from, site, self.now).is_none() {
                let arrives = self.now + self.rng.between(1, 60);
                let arrives = self.beats.arrives((id, to), arrives);
                self.at(arrives, Event::Controller(ToController::StreamReset { to, broker: id, stream }));
            }
        }
    }

    /// A process that does not run while time goes on: stopped by a signal, or its machine asleep.
    fn freeze(&mut self, id: BrokerId) -> bool {
        let until = self.now + self.rng.between(50, 6_000);
        match self.nodes.get_mut(&id).filter(|n| n.process.is_some()) {
            // What waits for it is waiting in order.
            Some(node) if node.frozen_until > self.now => return false,
            Some(node) => node.frozen_until = until,
            None => return false,
        }
        true
    }

    /// A clean stop is asked for.
    pub(super) fn stop(&mut self, id: BrokerId) -> bool {
        let Some(node) = self.nodes.get(&id).filter(|n| n.process.is_some()) else { return false };
        let life = node.life;
        self.to_broker(id, life, 1, ToBroker::Stop);
        true
    }

    fn depose(&mut self) -> bool {
        let any = self.quorum.active.is_some();
        let answers = self.quorum.depose(self.now, &mut self.rng, &mut self.laws);
        self.send(answers);
        any
    }

    fn slow_controller(&mut self, fault: Fault) -> bool {
        let which = usize::try_from(self.rng.below(self.quorum.members.len() as u64)).unwrap_or(0);
        let until = self.now + self.rng.between(100, 5_000);
        if self.quorum.members[which].frozen_until > self.now {
            return false;
        }
        if fault == Fault::LagController {
            self.quorum.members[which].lags_until = until;
            return true;
        }
        self.quorum.members[which].frozen_until = until;
        if self.quorum.active == Some(which) {
            self.depose();
        }
        true
    }

    fn cut(&mut self, fault: Fault, id: BrokerId) {
        let until = self.now + self.rng.between(50, 7_000);
        let me = self.net.broker(id);
        let sites: Vec<Site> = self.net.sites().filter(|site| *site != me).collect();
        let other = *self.rng.one_of(&sites);
        let dc = self.net.dc(me);
        let (there, here): (Vec<Site>, Vec<Site>) = self.net.sites().partition(|site| self.net.dc(*site) != dc);
        let controllers: Vec<_> = (0..self.quorum.members.len()).map(|c| self.net.controller(c)).collect();
        let mut ways: Vec<(Site, Site)> = Vec::new();
        let cause = self.cause(fault);
        match fault {
            Fault::PairCut => ways.extend([(me, other), (other, me)]),
            Fault::OneWayCut => ways.push(if self.rng.chance(50) { (me, other) } else { (other, me) }),
            Fault::Isolated => sites.iter().for_each(|site| ways.extend([(me, *site), (*site, me)])),
            Fault::DcCut | Fault::DcCutOneWay => {
                let out = self.rng.chance(50);
                for (a, b) in here.iter().flat_map(|a| there.iter().map(|b| (*a, *b))) {
                    let both = fault == Fault::DcCut;
                    ways.extend((both || out).then_some((a, b)));
                    ways.extend((both || !out).then_some((b, a)));
                }
                // Whoever is cut from both others leads nobody any more.
                let beside = |c: &Site| here.contains(c) || *c == me;
                let (inside, outside): (Vec<Site>, Vec<Site>) = controllers.iter().partition(|c| beside(c));
                let small = if inside.len() < outside.len() { inside } else { outside };
                let active = self.quorum.active.map(|active| self.net.controller(active));
                if !there.is_empty() && active.is_some_and(|active| small.contains(&active)) {
                    self.depose();
                }
            }
            Fault::ControllersCut => {
                let kind = self.rng.below(4);
                for to in controllers {
                    ways.extend((kind < 3).then_some((me, to)));
                    ways.extend((kind > 0).then_some((to, me)));
                }
            }
            _ => return [(me, other), (other, me)].iter().for_each(|(a, b)| self.net.flap(*a, *b, until, cause)),
        }
        for (from, to) in ways {
            self.net.cut(from, to, until, cause);
        }
    }

    /// The number of a cut, which counts once it has held up something.
    fn cause(&mut self, fault: Fault) -> u64 {
        let number = self.cuts.last_key_value().map_or(1, |(last, _)| last + 1);
        self.cuts.insert(number, (fault, false));
        number
    }

    /// Counts the cuts and the faults of calls to disks that have been felt since.
    pub(super) fn count_felt(&mut self) {
        for cause in self.net.take_felt() {
            if let Some((fault, felt)) = self.cuts.get_mut(&cause).filter(|(_, felt)| !felt) {
                *felt = true;
                let fault = *fault;
                self.struck(fault);
            }
        }
        let mut sprung = Vec::new();
        for node in self.nodes.values_mut() {
            if let Some((fault, _)) = node.armed.take_if(|(_, sprung)| sprung.load(Ordering::Relaxed)) {
                sprung.push((node.id, fault));
            }
        }
        for (id, fault) in sprung {
            self.trace.note(self.now, Some(id), format_args!("felt: {}", fault.name()));
            self.struck(fault);
            if fault.is_of_reads() {
                self.taint(id);
            }
        }
    }

    fn jump(&mut self, id: BrokerId) -> bool {
        const DAY_MS: i64 = 86_400_000;
        let error = *self.rng.one_of(&[-400 * DAY_MS, -200, 200, 3_600_000]);
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        node.clock.wall_error = error;
        if let Some(process) = node.process.as_mut() {
            process.setup.clock.wall_error = error;
        }
        true
    }

    /// Faults end: ways open, disks are well, and whoever is down starts.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.count_felt();
        self.net.heal();
        self.net.calm();
        for member in &mut self.quorum.members {
            // Who is frozen wakes by itself: what waits for it would come after what is newer.
            member.lags_until = 0;
        }
        self.quorum.depose_in_flight = false;
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for id in ids {
            self.disk_well(id, true);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.flush_ms = 0;
                node.clock.wall_error = 0;
                if let Some(process) = node.process.as_mut() {
                    process.setup.clock.wall_error = 0;
                }
            }
            self.after(1, Event::Start(id));
        }
        self.laws.observe(self.now, &Told::Healed)
    }
}
