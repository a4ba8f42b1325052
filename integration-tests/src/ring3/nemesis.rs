//! Carries faults out, and looks whether they took effect: a process that is gone or frozen, packets that were dropped
//! or delayed while the fault lasted.
//!
//! Owns the order within a round, and writes every step into the history. A fault without evidence stays unconfirmed
//! there, and the checker calls the run invalid.

use super::Failure;
use super::nodes::{Nodes, address_of, all, place};
use super::plan::{EVERYTHING, Fault, Round};
use super::wan::{Line, WanHandle, pairs};
use crate::chaos::tape::Tape;
use crate::checker::event::Step;
use crate::wait::hold_fault;
use deploy::dev::process::{Life, Signal};
use std::time::Duration;

/// Half a period of a flapping line.
const FLAP: Duration = Duration::from_millis(100);

/// How long the first fault lasts before the second begins.
const OVERLAP: Duration = Duration::from_millis(700);

/// What carries faults out.
pub struct Nemesis<'a> {
    /// The processes.
    pub nodes: &'a mut Nodes,
    /// The lines between data centres.
    pub wan: &'a mut WanHandle,
    /// The history.
    pub tape: &'a Tape,
}

/// Evidence as it stood when a fault began.
struct Under {
    id: u32,
    fault: Fault,
    before: u64,
}

impl Nemesis<'_> {
    /// Makes one round and leaves everything as it was.
    ///
    /// # Errors
    /// When the harness itself fails.
    pub fn round(&mut self, round: &Round) -> Result<(), Failure> {
        eprintln!("round: {round:?}");
        let mut under = Vec::new();
        for fault in &round.faults {
            if !under.is_empty() {
                hold_fault(OVERLAP);
            }
            under.push(self.begin(fault)?);
        }
        match round.faults.iter().find(|fault| matches!(fault, Fault::Flap(_))) {
            Some(Fault::Flap(dc)) => self.flap(*dc, round.hold_ms)?,
            _ => hold_fault(Duration::from_millis(round.hold_ms)),
        }
        for one in under {
            self.end(one)?;
        }
        hold_fault(Duration::from_millis(round.quiet_ms));
        // A node that went by itself would count as killed by the next fault that wants it.
        self.nodes.all_live()
    }

    /// A pair between which nothing flows cannot be seen to be cut, and is none: followers do not talk to one another.
    /// Whoever leads, the quorum or the first partition, takes the place of the first of the two.
    fn where_something_flows(&self, fault: &Fault) -> Result<Fault, Failure> {
        let Fault::CutPair(class, one, other) = fault else { return Ok(fault.clone()) };
        let leader = self.nodes.leader(one.role)?;
        Ok(Fault::CutPair(class, if leader == *other { *one } else { leader }, *other))
    }

    fn begin(&mut self, fault: &Fault) -> Result<Under, Failure> {
        let fault = &self.where_something_flows(fault)?;
        let (class, target) = (fault.class(), format!("{fault:?}"));
        let id = self.tape.planned(class, &target);
        let before = self.evidence(fault)?;
        self.tape.fault(id, class, &target, Step::Begins);
        match fault {
            Fault::Kill(_, nodes) => {
                self.nodes.kill(nodes)?;
                self.tape.fault(id, class, &target, Step::Confirmed("gone".to_owned()));
            }
            Fault::Pause(_, node) => self.nodes.signal(*node, Signal::STOP)?,
            Fault::CutDc(dc) => self.lines(|from, to| from == *dc || to == *dc, cut())?,
            Fault::CutDcOneWay(dc) => self.lines(|from, _| from == *dc, cut())?,
            Fault::CutPair(_, one, other) => {
                self.nodes.net().drop_from(&place(*one), &address_of(*other))?;
                self.nodes.net().drop_from(&place(*other), &address_of(*one))?;
            }
            Fault::Delay(delay_ms) => self.wan.set_all(Line { delay_ms: *delay_ms, ..Line::default() })?,
            Fault::Loss(loss) => self.wan.set_all(Line { loss: *loss, ..Line::default() })?,
            Fault::Flap(_) => {}
        }
        Ok(Under { id, fault: fault.clone(), before })
    }

    fn end(&mut self, under: Under) -> Result<(), Failure> {
        let (class, target) = (under.fault.class(), format!("{:?}", under.fault));
        let now = self.evidence(&under.fault)?;
        if now > under.before {
            let seen = format!("{} more", now - under.before);
            self.tape.fault(under.id, class, &target, Step::Confirmed(seen));
        }
        match &under.fault {
            Fault::Kill(_, nodes) => self.nodes.start(nodes)?,
            Fault::Pause(_, node) => self.nodes.signal(*node, Signal::CONT)?,
            Fault::CutPair(_, one, other) => {
                self.nodes.net().drop_nothing(&place(*one))?;
                self.nodes.net().drop_nothing(&place(*other))?;
            }
            _ => self.wan.set_all(Line::default())?,
        }
        self.tape.fault(under.id, class, &target, Step::Ends);
        Ok(())
    }

    fn lines(&mut self, of: impl Fn(u32, u32) -> bool, line: Line) -> Result<(), Failure> {
        for (from, to) in pairs().filter(|(from, to)| of(*from, *to)) {
            self.wan.set(from, to, line)?;
        }
        Ok(())
    }

    fn flap(&mut self, dc: u32, for_ms: u64) -> Result<(), Failure> {
        for _ in 0..for_ms / (2 * 100) {
            self.lines(|from, to| from == dc || to == dc, cut())?;
            hold_fault(FLAP);
            self.lines(|from, to| from == dc || to == dc, Line::default())?;
            hold_fault(FLAP);
        }
        Ok(())
    }

    /// What grows when the fault takes effect.
    fn evidence(&mut self, fault: &Fault) -> Result<u64, Failure> {
        let of = |dc: &u32| {
            let dc = *dc;
            move |ends: &(u32, u32)| ends.0 == dc || ends.1 == dc
        };
        Ok(match fault {
            Fault::Kill(..) => 0,
            Fault::Pause(_, node) => u64::from(self.nodes.life(*node) == Life::Paused),
            Fault::CutPair(_, one, other) => {
                self.nodes.net().dropped(&place(*one))? + self.nodes.net().dropped(&place(*other))?
            }
            Fault::CutDc(dc) | Fault::Flap(dc) => {
                self.wan.counts()?.iter().filter(|(ends, _)| of(dc)(ends)).map(|(_, count)| count.dropped).sum()
            }
            Fault::CutDcOneWay(dc) => {
                self.wan.counts()?.iter().filter(|(ends, _)| ends.0 == *dc).map(|(_, count)| count.dropped).sum()
            }
            Fault::Delay(_) => self.wan.counts()?.values().map(|count| count.delayed).sum(),
            Fault::Loss(_) => self.wan.counts()?.values().map(|count| count.dropped).sum(),
        })
    }

    /// Ends whatever a round that failed left behind: frozen nodes go on, the network is whole. Who died stays dead.
    ///
    /// # Errors
    /// When the harness itself fails.
    pub fn heal(&mut self) -> Result<(), Failure> {
        let frozen: Vec<_> = all().into_iter().filter(|node| self.nodes.life(*node) == Life::Paused).collect();
        let woken = frozen.into_iter().map(|node| self.nodes.signal(node, Signal::CONT));
        let mut ended: Vec<Result<(), Failure>> = woken.collect();
        ended.push(self.wan.set_all(Line::default()));
        ended.extend(all().iter().map(|node| self.nodes.net().drop_nothing(&place(*node))));
        ended.into_iter().collect()
    }

    /// Everything dies at one moment and comes back.
    ///
    /// # Errors
    /// When the harness itself fails.
    pub fn everything(&mut self) -> Result<(), Failure> {
        let id = self.tape.planned(EVERYTHING, "all");
        self.tape.fault(id, EVERYTHING, "all", Step::Begins);
        self.nodes.kill(&all())?;
        self.tape.fault(id, EVERYTHING, "all", Step::Confirmed("all gone".to_owned()));
        self.nodes.start(&all())?;
        self.tape.fault(id, EVERYTHING, "all", Step::Ends);
        Ok(())
    }
}

fn cut() -> Line {
    Line { cut: true, ..Line::default() }
}
