//! The log against a dumb model: a list of batches and a durable end.

use bytes::Bytes;
use log::storage::memory::MemStorage;
use log::{EpochTable, FlushJob, Log, LogConfig, Verify};
use proptest::prelude::*;
use protocol::batch::Header;

use crate::common::*;

#[derive(Debug, Clone)]
enum Do {
    Append {
        records: usize,
        payload: usize,
        new_epoch: bool,
    },
    Flush,
    /// Takes a flush job and keeps it for later.
    BeginFlush,
    EndFlush,
    Idle,
    Read {
        at: u16,
        max: u16,
        upto: u16,
    },
    Truncate(u16),
    DropHead(u16),
    Reset(u16),
    Roll,
    Crash(u64),
    Kill,
    Close,
}

fn arb_do() -> impl Strategy<Value = Do> {
    prop_oneof![
        12 => (1usize..5, 0usize..300, prop::bool::weighted(0.2))
            .prop_map(|(records, payload, new_epoch)| Do::Append { records, payload, new_epoch }),
        3 => Just(Do::Flush),
        2 => Just(Do::BeginFlush),
        2 => Just(Do::EndFlush),
        1 => Just(Do::Idle),
        4 => (any::<u16>(), 0u16..2000, any::<u16>()).prop_map(|(at, max, upto)| Do::Read { at, max, upto }),
        2 => any::<u16>().prop_map(Do::Truncate),
        2 => any::<u16>().prop_map(Do::DropHead),
        1 => (0u16..50).prop_map(Do::Reset),
        1 => Just(Do::Roll),
        3 => any::<u64>().prop_map(Do::Crash),
        1 => Just(Do::Kill),
        1 => Just(Do::Close),
    ]
}

#[derive(Debug, Clone, Default)]
struct Model {
    start: u64,
    end: u64,
    durable: u64,
    epoch: u32,
    batches: Vec<Bytes>,
}

impl Model {
    fn header(bytes: &Bytes) -> Header {
        Header::parse(bytes).expect("the model holds good batches")
    }

    fn cut(&mut self, to: u64) {
        self.batches.retain(|b| Self::header(b).next_offset() <= to);
        self.end = self.batches.last().map_or(self.start.min(to), |b| Self::header(b).next_offset());
        self.durable = self.durable.min(self.end);
    }

    /// Batches that hold an offset at or above the start.
    fn visible(&self) -> Vec<Bytes> {
        self.batches.iter().filter(|b| Self::header(b).next_offset() > self.start).cloned().collect()
    }

    fn epochs(&self) -> EpochTable {
        let mut table = EpochTable::new();
        for header in self.batches.iter().map(Self::header) {
            table.assign(header.leader_epoch.expect("stamped"), header.base_offset);
        }
        table.trim_head(self.start);
        table
    }
}

struct World {
    disk: MemStorage,
    config: LogConfig,
    log: Option<Log>,
    model: Model,
    job: Option<FlushJob>,
    salt: u64,
}

fn spread(raw: u16, low: u64, high: u64) -> u64 {
    low + u64::from(raw) % (high - low + 1)
}

impl World {
    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("open between steps")
    }

    fn step(&mut self, what: Do) {
        match what {
            Do::Append { records, payload, new_epoch } => {
                self.salt += 1;
                self.model.epoch += u32::from(new_epoch);
                let bytes = batch(self.model.end, self.model.epoch, records, payload, self.salt);
                let base = self.model.end;
                self.log().append(base, &bytes).expect("append");
                self.model.end += records as u64;
                self.model.batches.push(Bytes::from(bytes));
            }
            Do::Flush => {
                self.log().sync().expect("sync");
                self.model.durable = self.model.end;
            }
            Do::BeginFlush => self.job = self.log().flush_job(),
            Do::EndFlush => self.end_flush(),
            Do::Idle => {
                self.log().idle_mark().expect("idle");
                self.model.durable = self.model.end;
                assert!(!self.log().needs_idle_mark());
            }
            Do::Read { at, max, upto } => self.read(at, max, upto),
            Do::Truncate(raw) => {
                let to = spread(raw, self.model.start, self.model.end);
                let now = self.log().truncate(to).expect("truncate");
                if to < self.model.end {
                    self.model.cut(to);
                    self.model.durable = self.model.end;
                }
                if self.model.end < self.model.start {
                    self.model.reset(self.model.start);
                }
                assert_eq!(now, self.model.end);
            }
            Do::DropHead(raw) => {
                let upto = spread(raw, self.model.start, self.model.end);
                self.log().drop_head(upto).expect("drop head");
                self.model.start = upto;
                // It may have synced more than it had to.
                let durable = self.log().durable_end();
                assert!(durable >= self.model.durable.max(upto));
                self.model.durable = durable;
            }
            Do::Reset(raw) => {
                let start = self.model.end + u64::from(raw);
                self.log().reset(start).expect("reset");
                self.model.reset(start);
            }
            Do::Roll => {
                self.log().roll_if_needed(i64::MAX).expect("roll");
            }
            Do::Crash(seed) => {
                let mut dice = Dice(seed);
                let odds = dice.below(5);
                self.job = None;
                self.disk.crash(&mut || dice.below(4) < odds);
                self.reopen(false);
            }
            Do::Kill => {
                self.disk.kill_process();
                self.job = None;
                self.model.durable = self.model.end;
                self.reopen(true);
            }
            Do::Close => {
                self.log.take().expect("open between steps").close_clean().expect("close");
                self.model.durable = self.model.end;
                self.job = None;
                self.disk.crash(&mut || false);
                self.reopen(true);
            }
        }
        self.check();
    }

    fn end_flush(&mut self) {
        let Some(job) = self.job.take() else { return };
        let current = job.generation() == self.log().generation();
        let upto = job.upto();
        let flushed = job.run().expect("flush");
        let moved = self.log().flushed(flushed).expect("apply");
        if current {
            self.model.durable = self.model.durable.max(upto);
        } else {
            assert_eq!(moved, None);
        }
    }

    fn reopen(&mut self, nothing_lost: bool) {
        self.log = None;
        let (log, recovery) = open(&self.disk, self.config.clone());
        assert!(log.end_offset() >= self.model.durable, "durable {} lost: {recovery:?}", self.model.durable);
        assert_eq!(log.end_offset(), log.durable_end(), "everything shown is durable");
        if nothing_lost {
            assert_eq!((log.end_offset(), &recovery.cut), (self.model.end, &None));
        }
        self.model.cut(log.end_offset());
        assert_eq!(self.model.end, log.end_offset(), "the end is a batch boundary");
        self.model.durable = self.model.end;
        self.log = Some(log);
    }

    fn read(&mut self, at: u16, max: u16, upto: u16) {
        let at = spread(at, self.model.start, self.model.end);
        let upto = spread(upto, 0, self.model.end + 3);
        let got = self.log().read(at, max.into(), upto, false).expect("read");
        let expected = self.model.batches.iter().skip_while(|b| Model::header(b).next_offset() <= at);
        let allowed = expected.take_while(|b| Model::header(b).next_offset() <= upto).flat_map(|b| b.to_vec());
        let allowed: Vec<u8> = if at < upto { allowed.collect() } else { Vec::new() };
        assert!(allowed.starts_with(&got), "a read returns what was written, and nothing beyond its bound");
        assert!(got.len() <= usize::from(max));
    }

    fn check(&mut self) {
        let model = self.model.clone();
        let log = self.log();
        let bounds = (log.start_offset(), log.end_offset(), log.durable_end());
        assert_eq!(bounds, (model.start, model.end, model.durable));
        // The epoch that covered the start when it was raised stays known until the next raise.
        let mut epochs = log.epochs().clone();
        epochs.trim_head(model.start);
        assert_eq!(epochs, model.epochs());
    }
}

impl Model {
    fn reset(&mut self, start: u64) {
        *self = Model { start, end: start, durable: start, epoch: self.epoch, batches: Vec::new() };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list_of_batches_with_a_durable_end(
        steps in proptest::collection::vec(arb_do(), 1..80),
        preallocate in any::<bool>(),
        everything in any::<bool>(),
    ) {
        let verify = if everything { Verify::Everything } else { Verify::Tail };
        let config = LogConfig { preallocate, verify, ..tiny() };
        let disk = disk();
        let (log, _) = open(&disk, config.clone());
        let mut world = World { disk, config, log: Some(log), model: Model::default(), job: None, salt: 0 };
        for step in steps {
            world.step(step);
        }
        let visible = world.model.visible();
        prop_assert_eq!(read_all(world.log()), visible);
    }
}
