//! The readers: one that goes along with the writers, by the client as applications use it, and the last one, by the bare
//! wire, so that a mistake of the client cannot hide one of the brokers.

use super::{Client, TOPIC, now, simulated_pause, text};
use crate::chaos::read_back::{led, polled, take};
use crate::chaos::stamp::Stamp;
use crate::checker::event::{Answer, NO_ANSWER, Op, Phase, Source};
use crate::ring2::nodes::Kind;
use crate::ring2::record::Law;
use crate::wire;
use client::{Consumer, ConsumerConfig, ConsumerRecord, Start};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

impl Client {
    /// A consumer that stands at the start of the topic, and where its partitions begin.
    async fn assigned(&self) -> (Consumer, BTreeMap<u32, u64>) {
        loop {
            let config = ConsumerConfig::new(&self.cluster.bootstrap(Kind::Broker))
                .and_then(|c| c.set("request.timeout.ms", "3000"))
                .and_then(|c| c.set("fetch.max.wait.ms", "100"));
            let consumer = Consumer::new(config.expect("legal options"));
            let begun = async {
                let starts = consumer.offsets(TOPIC, None, Start::Earliest).await?;
                consumer.assign(TOPIC, None, Start::Earliest).await?;
                Ok::<_, client::Error>(starts)
            };
            match begun.await {
                Ok(starts) => {
                    let starts = starts.into_iter().filter_map(|(partition, start)| Some((partition, start?)));
                    let starts = starts.collect();
                    return (consumer, starts);
                }
                Err(error) => self.note(&format!("not assigned: {}", text(&error))),
            }
        }
    }

    /// Reads along; what it was given stays.
    pub async fn read_along(self) {
        self.begins();
        self.ready().await;
        let (mut consumer, starts) = self.assigned().await;
        while !self.stage.stop.get() {
            let Ok(next) = timeout(Duration::from_millis(200), consumer.recv()).await else { continue };
            match next {
                Ok(read) => self.was_given(&read, starts.get(&read.partition).copied()),
                Err(error) => {
                    self.record.borrow_mut().broke(Law::ReadsStayReadable, now(), text(&error));
                    break;
                }
            }
        }
        self.leave();
    }

    /// A record handed over is a poll of its own, asked for where this reader was.
    fn was_given(&self, read: &ConsumerRecord, log_start: Option<u64>) {
        let mut record = self.record.borrow_mut();
        let value = read.value.as_deref().unwrap_or_default();
        let Ok(stamp) = String::from_utf8_lossy(value).parse::<Stamp>() else {
            let what = format!("offset {} of partition {} holds what nobody wrote", read.offset, read.partition);
            record.broke(Law::History, now(), what);
            return;
        };
        let of = record.invoke(self.process(), Op::Poll { key: record.key(TOPIC, read.partition), from: None });
        let (records, source) = (vec![(read.offset, stamp.value())], Source::default());
        record.ok(self.process(), of, Answer::Polled { records, high_watermark: None, log_start, source });
        record.count("read");
        record.note(now(), &format!("read {} {} {stamp}", read.partition, read.offset));
    }

    /// Once everything is mended: reads every partition from its start to its high watermark.
    pub async fn read_back(self) {
        self.record.borrow_mut().phase(Phase::FinalReads);
        for partition in 0..self.partitions {
            while let Err(why) = self.read_partition(partition).await {
                self.note(&format!("partition {partition} not read yet: {why}"));
                simulated_pause(Duration::from_millis(200)).await;
            }
        }
        self.stage.read.set(true);
    }

    async fn read_partition(&self, partition: u32) -> Result<(), String> {
        let mut why = "no broker is known".to_owned();
        for address in self.cluster.bootstrap(Kind::Broker).split(',') {
            match wire::routing(address, TOPIC).await.and_then(|routing| led(&routing)) {
                Ok((id, partitions)) => {
                    let at = partitions.iter().find(|led| led.partition == partition).ok_or("no such partition")?;
                    return self.read_from(&at.leader, id, partition).await;
                }
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn read_from(&self, leader: &str, id: bytes::Bytes, partition: u32) -> Result<(), String> {
        let key = self.record.borrow().key(TOPIC, partition);
        let mut next = wire::log_start(leader, id.clone(), partition).await?;
        loop {
            let of = self.record.borrow().invoke(self.process(), Op::Poll { key, from: Some(next) });
            let fetched = wire::fetch(leader, id.clone(), partition, next).await;
            let (bytes, state) = fetched.inspect_err(|_| self.record.borrow().failed(self.process(), of, NO_ANSWER))?;
            let records = take(&bytes, next)?;
            let empty = records.is_empty();
            next = records.last().map_or(next, |(offset, _)| offset + 1);
            self.note(&format!("read back {partition} up to {next}"));
            self.record.borrow().ok(self.process(), of, polled(records, &state));
            let high_watermark = u64::try_from(state.high_watermark);
            let high_watermark = high_watermark.map_err(|_| "the high watermark is not known yet")?;
            if next >= high_watermark {
                return Ok(());
            }
            if empty {
                return Err(format!("nothing at {next}, high watermark {high_watermark}"));
            }
        }
    }
}
