//! The network between data centres, as a program: every packet that the router forwards is handed to it, and it lets the
//! packet pass now, later or never.
//!
//! Owns the fate of packets, pair by pair, each direction by itself ([`Wan`], pure but for its random numbers' seed), and
//! the loop around the kernel's queue ([`serve`]). Told what to do by lines on its input, one answer line each. When it
//! dies the kernel drops everything: the data centres are cut off, not joined.

use super::Failure;
use super::net::{DCS, Net, ROUTER};
use crate::chaos::random::Random;
use crate::wait::hold_fault;
use nfq::{Message, Queue, Verdict};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Pause between two looks at the queue when it was empty: well below the shortest delay that is planned.
const LOOK: Duration = Duration::from_micros(300);

/// Packets that the kernel holds for us at most.
const QUEUE_MAX: u32 = 65_536;

/// Bytes of each packet that are copied: the IP header is within.
const HEADER: u16 = 64;

/// How one direction between two data centres behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Line {
    /// Nothing passes.
    pub cut: bool,
    /// Each packet waits so long, ms.
    pub delay_ms: u64,
    /// Packets lost in a thousand.
    pub loss: u64,
    /// Bytes per millisecond; 0 for no limit.
    pub rate: u64,
}

/// What happened on one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets that passed at once.
    pub passed: u64,
    /// Packets that waited.
    pub delayed: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It passes.
    Now,
    /// It passes at this time, microseconds.
    At(u64),
    /// It is lost.
    Lost,
}

#[derive(Debug, Default)]
struct Direction {
    line: Line,
    count: Count,
    /// When the last packet will have left: nothing overtakes, and a limited line is busy until then.
    busy_until_us: u64,
}

/// All lines.
#[derive(Debug)]
pub struct Wan {
    directions: BTreeMap<(u32, u32), Direction>,
    random: Random,
}

impl Wan {
    /// All lines open and without delay.
    pub fn new(seed: u64) -> Self {
        Self { directions: BTreeMap::new(), random: Random::new(seed) }
    }

    /// Sets one direction.
    pub fn set(&mut self, from: u32, to: u32, line: Line) {
        self.directions.entry((from, to)).or_default().line = line;
    }

    /// Decides about a packet of `len` bytes at `now_us`.
    pub fn fate(&mut self, from: u32, to: u32, len: u64, now_us: u64) -> Fate {
        let direction = self.directions.entry((from, to)).or_default();
        let line = direction.line;
        if line.cut || self.random.below(1_000) < line.loss {
            direction.count.dropped += 1;
            return Fate::Lost;
        }
        let sending_us = (len * 1_000).checked_div(line.rate).unwrap_or(0);
        let at = (now_us + line.delay_ms * 1_000).max(direction.busy_until_us) + sending_us;
        if at <= now_us {
            direction.count.passed += 1;
            return Fate::Now;
        }
        direction.busy_until_us = at;
        direction.count.delayed += 1;
        Fate::At(at)
    }

    fn counts(&self) -> String {
        let of = |((from, to), direction): (&(u32, u32), &Direction)| {
            let Count { passed, delayed, dropped } = direction.count;
            format!("{from} {to} {passed} {delayed} {dropped}")
        };
        self.directions.iter().map(of).collect::<Vec<_>>().join(";")
    }

    /// Carries out one line of input; what is answered.
    fn told(&mut self, line: &str) -> String {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match (line.split_whitespace().next(), &numbers[..]) {
            (Some("counts"), _) => self.counts(),
            (Some("set"), [from, to, cut, delay_ms, loss, rate]) => {
                let (from, to) = (u32::try_from(*from).unwrap_or(0), u32::try_from(*to).unwrap_or(0));
                self.set(from, to, Line { cut: *cut == 1, delay_ms: *delay_ms, loss: *loss, rate: *rate });
                "done".to_owned()
            }
            _ => format!("not understood: {line}"),
        }
    }
}

/// The data centres of a packet, read from its IPv4 header.
fn ends(packet: &[u8]) -> Option<(u32, u32)> {
    let dc = |at: usize| match packet.get(at..at + 4)? {
        [198, 18, dc, _] => Some(u32::from(*dc)),
        _ => None,
    };
    Some((dc(12)?, dc(16)?))
}

/// Decides about packets until its input ends.
///
/// # Errors
/// When the kernel's queue cannot be had or breaks.
pub fn serve(seed: u64) -> Result<(), Failure> {
    let text = |error: std::io::Error| format!("the packet queue: {error}");
    let mut queue = Queue::open().map_err(text)?;
    queue.bind(0).map_err(text)?;
    queue.set_copy_range(0, HEADER).map_err(text)?;
    queue.set_recv_gso(0, true).map_err(text)?;
    queue.set_queue_max_len(0, QUEUE_MAX).map_err(text)?;
    queue.set_nonblocking(true);
    let (sender, commands) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    println!("ready");
    let began = Instant::now();
    let mut wan = Wan::new(seed);
    let mut waiting: BTreeMap<(u64, u64), Message> = BTreeMap::new();
    let mut number = 0;
    loop {
        match commands.try_recv() {
            Ok(line) => println!("{}", wan.told(&line)),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
        }
        let now_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        while let Some(entry) = waiting.first_entry().filter(|entry| entry.key().0 <= now_us) {
            pass(&mut queue, entry.remove(), Verdict::Accept)?;
        }
        match queue.recv() {
            Ok(message) => {
                number += 1;
                let len = message.get_original_len() as u64;
                let fate = ends(message.get_payload()).map_or(Fate::Now, |(from, to)| wan.fate(from, to, len, now_us));
                match fate {
                    Fate::Now => pass(&mut queue, message, Verdict::Accept)?,
                    Fate::Lost => pass(&mut queue, message, Verdict::Drop)?,
                    Fate::At(at) => drop(waiting.insert((at, number), message)),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => hold_fault(LOOK),
            Err(error) => return Err(text(error)),
        }
    }
}

fn pass(queue: &mut Queue, mut message: Message, verdict: Verdict) -> Result<(), Failure> {
    message.set_verdict(verdict);
    queue.verdict(message).map_err(|error| format!("the packet queue: {error}"))
}

/// The program on the router, as its runner sees it.
#[derive(Debug)]
pub struct WanHandle {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl WanHandle {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(net: &Net, program: &str, seed: u64) -> Result<Self, Failure> {
        let mut child = net
            .command(ROUTER, program)
            .args(["wan", &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{program} wan: {error}"))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(answers)) = (orders, answers) else { return Err("no pipes to the WAN".to_owned()) };
        let mut handle = Self { child, orders, answers: BufReader::new(answers) };
        match handle.answer()?.as_str() {
            "ready" => Ok(handle),
            other => Err(format!("the WAN says {other:?}")),
        }
    }

    fn answer(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err("the WAN has ended".to_owned()),
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(format!("the WAN: {error}")),
        }
    }

    /// Sets one direction.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn set(&mut self, from: u32, to: u32, line: Line) -> Result<(), Failure> {
        let Line { cut, delay_ms, loss, rate } = line;
        let order = format!("set {from} {to} {} {delay_ms} {loss} {rate}\n", u8::from(cut));
        self.orders.write_all(order.as_bytes()).map_err(|error| format!("the WAN: {error}"))?;
        match self.answer()?.as_str() {
            "done" => Ok(()),
            other => Err(format!("the WAN says {other:?}")),
        }
    }

    /// Every direction behaves so.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn set_all(&mut self, line: Line) -> Result<(), Failure> {
        for (from, to) in pairs() {
            self.set(from, to, line)?;
        }
        Ok(())
    }

    /// What happened so far, by direction.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn counts(&mut self) -> Result<BTreeMap<(u32, u32), Count>, Failure> {
        self.orders.write_all(b"counts\n").map_err(|error| format!("the WAN: {error}"))?;
        let line = self.answer()?;
        let mut counts = BTreeMap::new();
        for part in line.split(';') {
            let numbers: Vec<u64> = part.split(' ').filter_map(|word| word.parse().ok()).collect();
            if let [from, to, passed, delayed, dropped] = numbers[..] {
                let ends = (u32::try_from(from).unwrap_or(0), u32::try_from(to).unwrap_or(0));
                counts.insert(ends, Count { passed, delayed, dropped });
            }
        }
        Ok(counts)
    }
}

impl Drop for WanHandle {
    fn drop(&mut self) {
        // Its own child; one that has ended already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every direction between two data centres.
pub fn pairs() -> impl Iterator<Item = (u32, u32)> {
    (1..=DCS).flat_map(|from| (1..=DCS).filter(move |to| *to != from).map(move |to| (from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cuts_delays_loses_and_never_reorders() {
        let mut wan = Wan::new(1);
        assert_eq!(wan.fate(1, 2, 100, 5), Fate::Now);
        assert_eq!(wan.told("set 1 2 1 0 0 0"), "done");
        assert_eq!((wan.fate(1, 2, 100, 5), wan.fate(2, 1, 100, 5)), (Fate::Lost, Fate::Now));
        wan.set(1, 2, Line { delay_ms: 50, ..Line::default() });
        assert_eq!(wan.fate(1, 2, 100, 1_000), Fate::At(51_000));
        // What waits is not overtaken when the delay goes.
        wan.set(1, 2, Line::default());
        assert_eq!(wan.fate(1, 2, 100, 2_000), Fate::At(51_000));
        assert_eq!(wan.fate(1, 2, 100, 51_000), Fate::Now);
        // 100 bytes at 10 bytes a millisecond take 10 ms each.
        wan.set(2, 3, Line { rate: 10, ..Line::default() });
        assert_eq!((wan.fate(2, 3, 100, 0), wan.fate(2, 3, 100, 0)), (Fate::At(10_000), Fate::At(20_000)));
        wan.set(3, 1, Line { loss: 300, ..Line::default() });
        let lost = (0..10_000).filter(|_| wan.fate(3, 1, 1, 0) == Fate::Lost).count();
        assert!((2_700..3_300).contains(&lost), "{lost}");
        assert!(wan.told("counts").contains("1 2 2 2 1"), "{}", wan.told("counts"));
        assert!(wan.told("dance").starts_with("not understood"));
    }

    #[test]
    fn the_data_centres_stand_in_the_header() {
        let mut packet = [0_u8; 20];
        packet[12..16].copy_from_slice(&[198, 18, 1, 2]);
        packet[16..20].copy_from_slice(&[198, 18, 3, 1]);
        assert_eq!(ends(&packet), Some((1, 3)));
        assert_eq!(ends(&packet[..15]), None);
        packet[12] = 10;
        assert_eq!(ends(&packet), None);
    }
}
