//! A writer per partition that never stops: one record in flight, acks=all, every acknowledgement timed.
//!
//! Owns the writers and the times around one fault. A write counts as "after the fault" only if it was handed over after
//! it, so that an answer that was already on its way is not taken for a recovery. Knows nothing of nodes or faults.

use client::{Producer, ProducerRecord};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Times of one partition around one fault. Pure: every moment is an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    fault: Instant,
    last_ack: Instant,
    longest_gap: Duration,
    recovered: Option<Duration>,
}

impl Window {
    /// A window that opens at `fault`, the partition's last acknowledgement having come at `last_ack`.
    pub fn open(fault: Instant, last_ack: Instant) -> Self {
        Self { fault, last_ack: last_ack.min(fault), longest_gap: Duration::ZERO, recovered: None }
    }

    /// A record handed over at `sent` was acknowledged at `acked`.
    pub fn acknowledged(&mut self, sent: Instant, acked: Instant) {
        self.longest_gap = self.longest_gap.max(acked.saturating_duration_since(self.last_ack));
        self.last_ack = self.last_ack.max(acked);
        if sent >= self.fault && self.recovered.is_none() {
            self.recovered = Some(acked.saturating_duration_since(self.fault));
        }
    }

    /// From the fault to the first acknowledged write handed over after it.
    pub fn recovered(&self) -> Option<Duration> {
        self.recovered
    }

    /// The longest time between two acknowledgements so far, the open one at `now` included.
    pub fn longest_gap(&self, now: Instant) -> Duration {
        self.longest_gap.max(now.saturating_duration_since(self.last_ack))
    }
}

/// The writers.
#[derive(Debug)]
pub struct Probe {
    windows: Arc<Mutex<Vec<Window>>>,
    acks: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
    writers: JoinSet<()>,
}

impl Probe {
    /// Starts a writer for each of the topic's partitions. They stop when the probe is dropped.
    pub fn start(producer: &Arc<Producer>, topic: &str, partitions: u32) -> Self {
        let now = Instant::now();
        let windows = Arc::new(Mutex::new(vec![Window::open(now, now); partitions as usize]));
        let (acks, failures) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut writers = JoinSet::new();
        let topic: Arc<str> = Arc::from(topic);
        for partition in 0..partitions {
            let (producer, windows, topic) = (producer.clone(), windows.clone(), topic.clone());
            let (acks, failures) = (acks.clone(), failures.clone());
            writers.spawn(async move {
                loop {
                    let sent = Instant::now();
                    let record = ProducerRecord::new(topic.clone(), "probe").partition(partition);
                    let written = match producer.send(record).await {
                        Ok(delivery) => delivery.await.is_ok(),
                        Err(_) => false,
                    };
                    if written {
                        acks.fetch_add(1, Ordering::Relaxed);
                        lock(&windows)[partition as usize].acknowledged(sent, Instant::now());
                    } else {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        Self { windows, acks, failures, writers }
    }

    /// Opens a new window on every partition: the fault happens now.
    pub fn fault(&self) -> Instant {
        let now = Instant::now();
        for window in lock(&self.windows).iter_mut() {
            *window = Window::open(now, window.last_ack);
        }
        now
    }

    /// The windows as they are.
    pub fn windows(&self) -> Vec<Window> {
        lock(&self.windows).clone()
    }

    /// `(acknowledged, failed)` writes so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.acks.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// How many writers run: all of them, for the probe's whole life.
    pub fn writers(&self) -> usize {
        self.writers.len()
    }
}

fn lock(windows: &Mutex<Vec<Window>>) -> MutexGuard<'_, Vec<Window>> {
    windows.lock().expect("no writer panics while it holds the windows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_already_on_its_way_is_no_recovery() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut window = Window::open(at(100), at(98));
        window.acknowledged(at(97), at(101));
        assert_eq!(window.recovered(), None);
        window.acknowledged(at(102), at(700));
        assert_eq!(window.recovered(), Some(Duration::from_millis(600)));
        window.acknowledged(at(701), at(702));
        assert_eq!(window.longest_gap(at(703)), Duration::from_millis(599));
        assert_eq!(window.longest_gap(at(2000)), Duration::from_millis(1298));
        assert_eq!(window.recovered(), Some(Duration::from_millis(600)));
    }
}
