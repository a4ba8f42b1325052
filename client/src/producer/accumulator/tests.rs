use super::*;
use proptest::prelude::*;
use protocol::batch::records;

fn settings() -> Settings {
    Settings {
        batch_bytes: 1_000,
        linger_ms: 5,
        memory_bytes: 10_000,
        max_in_flight: 1,
        delivery_timeout_ms: 1_000,
        compression: Compression::None,
    }
}

fn key(partition: u32) -> Key {
    Key { topic: 0, partition }
}

fn push(acc: &mut Accumulator<u32>, partition: u32, value: &[u8], now: Millis) -> Result<(u32, u32, bool), PushError> {
    let parts = Parts { timestamp: 0, key: None, value: Some(value), headers: &[] };
    acc.push(key(partition), &parts, 100_000, now, || now as u32).map(|p| (*p.ticket, p.index, p.look))
}

fn values(batch: &mut Batch<u32>) -> Vec<String> {
    let bytes = batch.bytes().unwrap();
    records(&bytes, &Limits::default())
        .unwrap()
        .map(|r| String::from_utf8(r.unwrap().record.value.unwrap().to_vec()).unwrap())
        .collect()
}

#[test]
fn a_batch_leaves_after_its_linger_or_when_full() {
    let mut acc = Accumulator::new(settings());
    assert_eq!(push(&mut acc, 0, b"a", 10).unwrap(), (10, 0, true));
    assert_eq!(push(&mut acc, 0, b"b", 12).unwrap(), (10, 1, false));
    assert!(acc.ready(14).is_empty());
    assert_eq!(acc.next_event(), Some(15));
    assert_eq!(acc.ready(15), [key(0)]);
    let (mut batch, early) = acc.take(key(0)).unwrap();
    assert!(early);
    assert_eq!(values(&mut batch), ["a", "b"]);

    let mut acc = Accumulator::new(settings());
    let mut looks = 0;
    for _ in 0..4 {
        looks += usize::from(push(&mut acc, 0, &[b'x'; 300], 0).unwrap().2);
    }
    assert_eq!(looks, 2, "opened, and closed for the one that did not fit");
    assert_eq!(acc.ready(0), [key(0)]);
    assert_eq!(acc.take(key(0)).unwrap().0.records, 2);
}

#[test]
fn with_one_in_flight_nothing_overtakes_a_retried_batch() {
    let mut acc = Accumulator::new(settings());
    push(&mut acc, 0, &[b'a'; 900], 0).unwrap();
    push(&mut acc, 0, &[b'b'; 900], 0).unwrap();
    let (first, _) = acc.take(key(0)).unwrap();
    assert!(acc.ready(100).is_empty(), "one is out");
    acc.retry(first, 50);
    assert!(acc.ready(49).is_empty());
    assert_eq!(acc.next_event(), Some(50));
    let (mut again, _) = acc.take(key(0)).unwrap();
    assert!(values(&mut again)[0].starts_with('a'));
    acc.settle(&again);
    let (mut second, _) = acc.take(key(0)).unwrap();
    assert!(values(&mut second)[0].starts_with('b'));
}

#[test]
fn full_memory_pushes_batches_out_and_frees_on_settle() {
    let mut acc = Accumulator::new(Settings { linger_ms: 60_000, memory_bytes: 1_000, ..settings() });
    push(&mut acc, 0, &[b'x'; 500], 0).unwrap();
    assert!(acc.ready(1).is_empty());
    assert_eq!(push(&mut acc, 1, &[b'x'; 500], 1).unwrap_err(), PushError::Full);
    assert_eq!(acc.ready(1), [key(0)], "somebody waits for memory, so nothing lingers");
    let (batch, _) = acc.take(key(0)).unwrap();
    acc.settle(&batch);
    assert_eq!(acc.used(), 0);
    push(&mut acc, 1, &[b'x'; 500], 1).unwrap();
    let huge = push(&mut acc, 1, &[b'x'; 2_000], 1).unwrap_err();
    assert!(matches!(huge, PushError::Batch(BatchError::RecordLimit { value: 2_031.., limit: 1_000, .. })), "{huge:?}");
}

#[test]
fn waiting_batches_expire_and_flush_waits_for_what_was_there() {
    let mut acc = Accumulator::new(settings());
    push(&mut acc, 0, b"a", 0).unwrap();
    push(&mut acc, 1, b"b", 500).unwrap();
    let upto = acc.flush();
    assert_eq!(acc.ready(0), [key(0), key(1)]);
    push(&mut acc, 2, b"later", 500).unwrap();
    assert!(!acc.settled_below(upto));
    let gone = acc.expire(1_000);
    assert_eq!(gone.iter().map(|b| b.key.partition).collect::<Vec<_>>(), [0]);
    let (batch, _) = acc.take(key(1)).unwrap();
    acc.settle(&batch);
    assert!(acc.settled_below(upto), "the later one does not count");
    assert_eq!(acc.drain().len(), 1);
    assert_eq!((acc.used(), acc.next_event()), (0, None));
}

#[test]
fn a_refused_record_leaves_no_trace() {
    let mut acc = Accumulator::new(settings());
    let headers = vec![RecordHeader { key: String::new(), value: None }; 2_000];
    let settings_memory = Accumulator::<u32>::new(Settings { memory_bytes: 1 << 20, ..settings() });
    let mut wide = settings_memory;
    let parts = Parts { timestamp: 0, key: None, value: None, headers: &headers };
    assert!(matches!(wide.push(key(0), &parts, 100_000, 0, || 0), Err(PushError::Batch(_))));
    assert_eq!((wide.used(), wide.settled_below(u64::MAX)), (0, true));
    push(&mut acc, 0, b"a", 0).unwrap();
    assert_eq!(acc.ready(5), [key(0)]);
}

/// What `ready` and `next_event` are to say, by looking at everything.
fn by_looking(acc: &Accumulator<u32>, now: Millis) -> (Vec<Key>, Option<Millis>) {
    let (mut ready, mut next) = (Vec::new(), Vec::new());
    for (key, queue) in &acc.queues {
        next.extend(queue.closed.iter().chain(&queue.open).map(|b| b.progress.deadline));
        let hurry = queue.flush || acc.pressed;
        let open = queue.open.as_ref().map(|b| if hurry { 0 } else { b.progress.created + acc.settings.linger_ms });
        let leaves = if queue.closed.is_empty() { open } else { Some(0) };
        let leaves = leaves.filter(|_| queue.out < acc.settings.max_in_flight).map(|at| at.max(queue.blocked_until));
        next.extend(leaves);
        if leaves.is_some_and(|at| at <= now) {
            ready.push(*key);
        }
    }
    (ready, next.into_iter().min())
}

#[derive(Debug, Clone)]
enum Step {
    Push(u32, usize),
    Take,
    Fail,
    Settle,
    Expire,
    Tick(u64),
    Block(u32, u64),
    UnblockAll,
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u32..3, 1_usize..600).prop_map(|(p, n)| Step::Push(p, n)),
        4 => Just(Step::Take),
        2 => Just(Step::Fail),
        3 => Just(Step::Settle),
        1 => Just(Step::Expire),
        2 => (1_u64..300).prop_map(Step::Tick),
        1 => (0_u32..3, 1_u64..100).prop_map(|(p, ms)| Step::Block(p, ms)),
        1 => Just(Step::UnblockAll),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    /// Against a plain list of accepted records: each leaves its partition once settled or expired, in order, exactly
    /// once, and memory returns to zero. What the schedule says is what looking at every partition says.
    #[test]
    fn every_record_leaves_once_and_in_order(steps in prop::collection::vec(step(), 1..200), max_in_flight in 1_usize..4) {
        let mut acc = Accumulator::new(Settings { max_in_flight, ..settings() });
        let (mut now, mut serial) = (0, 0_u64);
        let mut out: Vec<Batch<u32>> = Vec::new();
        let mut pushed = [0_usize; 3];
        let mut left: Vec<Vec<(u64, usize)>> = vec![Vec::new(); 3];
        let mut note = |batch: &Batch<u32>| left[batch.key.partition as usize].push((batch.id, batch.records as usize));
        for step in steps {
            match step {
                Step::Push(partition, len) => {
                    serial += 1;
                    if push(&mut acc, partition, &vec![b'v'; len], now).is_ok() {
                        pushed[partition as usize] += 1;
                    }
                    prop_assert!(acc.used() <= 10_000);
                }
                Step::Take => {
                    for ready in acc.ready(now) {
                        let (batch, _) = acc.take(ready).unwrap();
                        let older = out.iter().filter(|b| b.key == batch.key).count();
                        prop_assert!(older < max_in_flight);
                        out.push(batch);
                    }
                }
                Step::Fail => if let Some(batch) = out.pop() { acc.retry(batch, now + 10) },
                Step::Settle => if !out.is_empty() {
                    let batch = out.remove(0);
                    acc.settle(&batch);
                    note(&batch);
                },
                Step::Expire => acc.expire(now).iter().for_each(&mut note),
                Step::Tick(ms) => now += ms,
                Step::Block(partition, ms) => acc.block(key(partition), now + ms),
                Step::UnblockAll => acc.unblock_all(),
                Step::Flush => {
                    acc.flush();
                }
            }
            prop_assert_eq!((acc.ready(now), acc.next_event()), by_looking(&acc, now));
        }
        for batch in out { acc.settle(&batch); note(&batch); }
        acc.drain().iter().for_each(&mut note);
        prop_assert_eq!(acc.used(), 0);
        prop_assert_eq!((acc.queues.len(), acc.next_event()), (0, None));
        prop_assert!(acc.settled_below(u64::MAX));
        for partition in 0..3 {
            prop_assert_eq!(left[partition].iter().map(|(_, n)| n).sum::<usize>(), pushed[partition]);
            if max_in_flight == 1 {
                let ids: Vec<u64> = left[partition].iter().map(|(id, _)| *id).collect();
                let mut sorted = ids.clone();
                sorted.sort_unstable();
                sorted.dedup();
                prop_assert_eq!(ids.len(), sorted.len(), "a batch left twice");
            }
        }
        prop_assert!(serial < u64::MAX);
    }
}
