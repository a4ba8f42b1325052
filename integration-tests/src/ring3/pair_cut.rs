//! One broker pair, a leader and one of its followers, cut from each other only: both still reach the controllers, so
//! nobody is fenced, and the leader has to take the follower out of the ISR by its lag.
//!
//! Owns the measurement: the longest time without an acknowledgement of acks=all, against `replica.lag.max` and a second.
//! A gap that has not ended yet counts as long as it is; and the cut must be seen to have done its work: packets dropped,
//! the follower out of the ISR, records acknowledged after that while the pair was still cut.

use super::Failure;
use super::net::Net;
use super::nodes::{Nodes, address_of, bootstrap, place};
use super::run::{cluster, runtime};
use super::wan::WanHandle;
use crate::chaos::read_back;
use crate::chaos::workload::patient_producer;
use crate::wait::hold_fault;
use crate::wire;
use client::ProducerRecord;
use deploy::dev::layout::NodeName;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// `replica.lag.max` and a second.
const GAP_MAX: Duration = Duration::from_secs(6);

/// How long the pair stays cut: the first half is for the ISR to shrink, in the second the leader must go on without it.
const CUT: Duration = Duration::from_secs(12);

/// Acknowledgements so far, and the longest time between two.
#[derive(Debug)]
struct Gaps {
    last: Instant,
    longest: Duration,
    acks: u64,
}

impl Gaps {
    fn new(now: Instant) -> Self {
        Self { last: now, longest: Duration::ZERO, acks: 0 }
    }

    fn acknowledged(&mut self, now: Instant) {
        self.longest = self.longest(now);
        self.last = now;
        self.acks += 1;
    }

    /// The one that goes on counts.
    fn longest(&self, now: Instant) -> Duration {
        self.longest.max(now.duration_since(self.last))
    }
}

fn gaps(shared: &Mutex<Gaps>) -> std::sync::MutexGuard<'_, Gaps> {
    shared.lock().expect("nobody panics while holding it")
}

/// Cuts `times` times, and prints each gap.
///
/// # Errors
/// When the harness fails, a gap is longer than it may be, or a cut did not do what it must.
pub fn inner(net: u32, folder: &Path, program: &Path, times: u32) -> Result<(), Failure> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let _router = WanHandle::start(&Net::of(net), &own.to_string_lossy(), 1)?;
    let nodes = cluster(net, program, folder, &[])?;
    nodes.cli(&["topic", "create", "pair", "--partitions", "1", "--replicas", "3"])?;
    let runtime = runtime()?;
    let stop = Arc::new(AtomicBool::new(false));
    let shared = Arc::new(Mutex::new(Gaps::new(Instant::now())));
    let writer = runtime.spawn(write(stop.clone(), shared.clone()));
    let mut worst = Duration::ZERO;
    for time in 1..=times {
        let gap = once(time, &nodes, &runtime, &shared)?;
        worst = worst.max(gap);
        nodes.all_live()?;
    }
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(writer).map_err(|error| error.to_string())?;
    nodes.logs_are_clean()?;
    println!("longest gap of acks=all {} ms, allowed {} ms", worst.as_millis(), GAP_MAX.as_millis());
    if worst > GAP_MAX { Err("the gap is longer than allowed".to_owned()) } else { Ok(()) }
}

/// One cut; the longest gap from its beginning to its end.
fn once(time: u32, nodes: &Nodes, runtime: &Runtime, shared: &Mutex<Gaps>) -> Result<Duration, Failure> {
    let (_, partitions) = runtime.block_on(read_back::whole_topic(&bootstrap(), "pair"));
    let led = partitions.first().ok_or("no partition")?;
    let leader = NodeName::broker(led.leader_id);
    let other = *led.replicas.iter().find(|id| **id != leader.id).ok_or("no follower")?;
    let follower = NodeName::broker(other);
    let dropped = || Ok::<_, Failure>(nodes.net().dropped(&place(leader))? + nodes.net().dropped(&place(follower))?);
    let before = dropped()?;
    nodes.net().drop_from(&place(leader), &address_of(follower))?;
    nodes.net().drop_from(&place(follower), &address_of(leader))?;
    *gaps(shared) = Gaps::new(Instant::now());
    hold_fault(CUT / 2);
    let halfway = gaps(shared).acks;
    hold_fault(CUT / 2);
    let (gap, acks) = {
        let gaps = gaps(shared);
        (gaps.longest(Instant::now()), gaps.acks)
    };
    let isr = runtime.block_on(isr_of(&led.leader));
    let dropped = dropped()? - before;
    nodes.net().drop_nothing(&place(leader))?;
    nodes.net().drop_nothing(&place(follower))?;
    println!(
        "{time}: {leader} cut from {follower}, {dropped} packets dropped, longest gap {} ms, {halfway} acknowledged in the \
         first half and {} in the second, ISR {isr:?}",
        gap.as_millis(),
        acks - halfway
    );
    if dropped == 0 {
        return Err("the cut took no effect: the run proves nothing".to_owned());
    }
    if acks == halfway {
        return Err(format!("nothing was acknowledged in the last {} s of the cut", (CUT / 2).as_secs()));
    }
    if isr?.contains(&follower.id) {
        return Err(format!("{follower} is in the ISR although its leader cannot reach it"));
    }
    Ok(gap)
}

/// The ISR as a broker that is cut from nobody but one other tells it.
async fn isr_of(address: &str) -> Result<Vec<u32>, Failure> {
    let routing = wire::routing(address, "pair").await?;
    let partition = routing.topics.first().and_then(|topic| topic.partitions.first());
    partition.map(|partition| partition.isr.clone()).ok_or_else(|| "no partition in the routing".to_owned())
}

/// Writes one record after another, and keeps the longest time between two acknowledgements.
async fn write(stop: Arc<AtomicBool>, shared: Arc<Mutex<Gaps>>) {
    let producer = patient_producer(&bootstrap(), "all");
    while !stop.load(Ordering::Relaxed) {
        let sent = producer.send(ProducerRecord::new("pair", "x").partition(0)).await;
        let Ok(delivery) = sent else { continue };
        if delivery.await.is_ok() {
            gaps(&shared).acknowledged(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_that_has_not_ended_counts() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut gaps = Gaps::new(begin);
        gaps.acknowledged(at(10));
        assert_eq!((gaps.longest(at(15)), gaps.acks), (Duration::from_millis(10), 1));
        // From here on nothing is acknowledged any more.
        assert_eq!(gaps.longest(at(12_010)), Duration::from_secs(12));
        gaps.acknowledged(at(4_010));
        assert_eq!(gaps.longest(at(4_011)), Duration::from_secs(4));
    }
}
