//! Stories of one partition: what waits for what, and what a failing disk leads to.

use super::bench_world::{Bench, ME, OTHER, view};
use broker::fatal::Fatal;
use broker::partition::outside::Note;
use broker::replica::effect::{ProduceOutcome, ToLeader};
use broker::replica::input::{Acks, FollowerAck, Input, IsrOutcome, Pushed, Subscribe, SubscriptionId};
use broker::replica::read::FetchQuery;
use log::FlushJob;
use log::storage::memory::{Call, Fault, Op};
use protocol::batch::Header;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, LeaderEpoch};
use protocol::metadata::configs::FlushPolicy;
use std::io;

fn written(outcome: Option<ProduceOutcome>) -> Option<u64> {
    match outcome {
        Some(ProduceOutcome::Written { base, .. }) => Some(base),
        _ => None,
    }
}

fn leader(policy: FlushPolicy) -> Bench {
    let mut bench = Bench::new();
    bench.assign(view(ME, 1, &[ME], policy));
    bench
}

fn follow(bench: &mut Bench, from: u64) {
    bench.step(Input::Subscribe(Subscribe {
        follower: OTHER,
        broker_epoch: BrokerEpoch(1),
        subscription: SubscriptionId(1),
        leader_epoch: LeaderEpoch(1),
        log_start: 0,
        log_end: from,
        durable_end: from,
        last_epoch: None,
        noted_policy: FlushPolicy::Sync,
    }));
}

#[test]
fn an_acknowledgement_waits_for_the_sync_and_for_the_note_of_the_directory() {
    for note_first in [true, false] {
        let mut bench = leader(FlushPolicy::Sync);
        let id = bench.produce(Acks::All);
        assert_eq!(bench.world.jobs.len(), 1, "the flush is started at once");
        assert!(bench.world.notes.iter().any(|(_, note)| *note == Note::Directory));
        if note_first {
            bench.finish_notes()
        } else {
            bench.finish_flush()
        }
        assert_eq!(bench.outcome(id), None, "one of the two is still missing");
        if note_first {
            bench.finish_flush()
        } else {
            bench.finish_notes()
        }
        assert_eq!(written(bench.outcome(id)), Some(0));
    }
}

#[test]
fn even_an_unsynced_acknowledgement_waits_for_the_note_of_the_directory() {
    let mut bench = leader(FlushPolicy::Os);
    bench.produce(Acks::All);
    bench.finish_notes();
    while !bench.world.jobs.is_empty() {
        bench.finish_flush();
    }
    let mut fresh = leader(FlushPolicy::Os);
    let id = fresh.produce(Acks::None);
    assert_eq!(fresh.outcome(id), None);
    fresh.finish_notes();
    assert_eq!(written(fresh.outcome(id)), Some(0));
}

#[test]
fn batches_that_arrive_during_a_sync_share_the_next_one() {
    let mut bench = leader(FlushPolicy::Sync);
    bench.produce(Acks::All);
    bench.finish_notes();
    let later: Vec<_> = (0..10).map(|_| bench.produce(Acks::All)).collect();
    assert_eq!(bench.world.jobs.len(), 1, "one sync of a partition at a time");
    bench.finish_flush();
    assert!(later.iter().all(|id| bench.outcome(*id).is_none()), "they were appended after the sync began");
    assert_eq!(bench.world.jobs.len(), 1);
    bench.finish_flush();
    assert!(later.iter().all(|id| written(bench.outcome(*id)).is_some()));
}

#[test]
fn a_follower_is_sent_a_batch_before_the_leader_has_synced_it() {
    let mut bench = leader(FlushPolicy::Sync);
    bench.world.credit = 10;
    follow(&mut bench, 0);
    bench.produce(Acks::All);
    let push = bench.world.pushes.iter().find(|p| !p.batches.is_empty()).expect("it was pushed");
    let header = Header::parse(&push.batches).expect("a whole batch");
    assert_eq!((header.base_offset, header.leader_epoch), (0, Some(1)), "stamped before anybody sees it");
    assert_eq!(bench.world.jobs.len(), 1, "the leader's own sync is still under way");
}

#[test]
fn without_credit_nothing_is_pushed_and_later_everything_in_order() {
    let mut bench = leader(FlushPolicy::Sync);
    follow(&mut bench, 0);
    for _ in 0..5 {
        bench.produce(Acks::Leader);
    }
    assert!(bench.world.pushes.iter().all(|p| p.batches.is_empty()));
    bench.world.credit = 100;
    bench.partition.settle(bench.now, &mut bench.world);
    let data = bench.world.pushes.iter().filter(|p| !p.batches.is_empty());
    let bases: Vec<u64> = data.map(|p| p.base).collect();
    assert_eq!(bases, vec![0, 1, 2, 3, 4]);
}

#[test]
fn a_follower_that_has_everything_hears_of_a_moved_high_watermark_once() {
    let mut bench = leader(FlushPolicy::Sync);
    bench.world.credit = 10;
    follow(&mut bench, 0);
    bench.produce(Acks::All);
    bench.finish_notes();
    bench.finish_flush();
    // It is on its way into the ISR, so its position counts already.
    bench.step(Input::Ack(FollowerAck {
        follower: OTHER,
        broker_epoch: BrokerEpoch(1),
        subscription: SubscriptionId(1),
        leader_epoch: LeaderEpoch(1),
        log_start: 0,
        log_end: 1,
        durable_end: 1,
        noted_policy: FlushPolicy::Sync,
    }));
    let told: Vec<_> = bench.world.pushes.iter().filter(|p| p.high_watermark == Some(1)).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    bench.partition.settle(bench.now, &mut bench.world);
    assert_eq!(bench.world.pushes.iter().filter(|p| p.high_watermark == Some(1)).count(), 1, "idle costs nothing");
}

#[test]
fn a_follower_acknowledges_its_log_end_at_once_and_its_durable_end_after_the_sync() {
    let mut bench = Bench::new();
    bench.assign(view(OTHER, 1, &[OTHER, ME], FlushPolicy::Sync));
    let subscription = bench
        .world
        .to_leader
        .iter()
        .find_map(|m| if let ToLeader::Subscribe(s) = m { Some(s.subscription) } else { None })
        .expect("it subscribes");
    let leader_epoch = LeaderEpoch(1);
    bench.step(Input::Started { subscription, leader_epoch, from: 0, high_watermark: None, log_start: 0 });
    let mut bytes = super::bench_world::batch("pushed").to_vec();
    protocol::batch::stamp(&mut bytes, 0, 1);
    let span = broker::replica::input::BatchSpan { base: 0, end: 1, epoch: leader_epoch };
    let push = Pushed { subscription, leader_epoch, batches: vec![span], high_watermark: None, log_start: 0 };
    let hand = std::collections::VecDeque::from([bytes::Bytes::from(bytes)]);
    bench.partition.step_with(Input::Pushed(push), hand, bench.now, &mut bench.world);
    bench.partition.settle(bench.now, &mut bench.world);
    let acks = |bench: &Bench| -> Vec<(u64, u64)> {
        let ack = |m: &ToLeader| if let ToLeader::Ack(a) = m { Some((a.log_end, a.durable_end)) } else { None };
        bench.world.to_leader.iter().filter_map(ack).filter(|(end, _)| *end > 0).collect()
    };
    assert_eq!(acks(&bench), [(1, 0)]);
    bench.finish_flush();
    assert!(acks(&bench).iter().all(|ack| *ack == (1, 0)), "nothing counts until the directory is noted");
    bench.finish_notes();
    assert_eq!(acks(&bench).last(), Some(&(1, 1)));
}

#[test]
fn a_full_disk_refuses_before_an_offset_is_given_and_the_partition_lives_on() {
    let mut bench = leader(FlushPolicy::Sync);
    bench.disk.set_hook(Some(Box::new(|call: &Call<'_>| {
        (call.op == Op::Preallocate).then(|| Fault::Fail(io::ErrorKind::StorageFull.into()))
    })));
    let id = bench.produce(Acks::All);
    assert_eq!(bench.outcome(id), Some(ProduceOutcome::Refused(ErrorCode::DiskFull)));
    assert_eq!(bench.world.fatal, None);
    bench.disk.set_hook(None);
    let id = bench.produce(Acks::All);
    bench.finish_notes();
    bench.finish_flush();
    assert_eq!(written(bench.outcome(id)), Some(0), "no offset was lost to the refusal");
}

#[test]
fn a_failed_write_or_sync_stops_the_process() {
    for op in [Op::Write, Op::Sync] {
        let mut bench = leader(FlushPolicy::Sync);
        bench.produce(Acks::All);
        bench.finish_notes();
        bench.finish_flush();
        let hook = move |call: &Call<'_>| (call.op == op).then(|| Fault::Fail(io::ErrorKind::Other.into()));
        bench.disk.set_hook(Some(Box::new(hook)));
        let id = bench.produce(Acks::All);
        if !bench.world.jobs.is_empty() {
            bench.finish_flush();
        }
        assert!(matches!(bench.world.fatal, Some(Fatal::Disk(_))), "{op:?}: {:?}", bench.world.fatal);
        assert_eq!(bench.outcome(id), None, "{op:?}: nothing is answered after it");
    }
}

#[test]
fn damage_found_by_a_reader_is_answered_as_such_by_a_leader_that_is_alone() {
    let mut bench = leader(FlushPolicy::Sync);
    bench.produce(Acks::All);
    bench.finish_notes();
    bench.finish_flush();
    let dir = bench.partition.log().dir().to_path_buf();
    let files = bench.disk.files_below(&dir).expect("lists");
    let segment = files.iter().max_by_key(|f| bench.disk.contents(f).map_or(0, |c| c.len())).expect("a segment");
    let mut bytes = bench.disk.contents(segment).expect("reads");
    let spot = bytes.windows(6).position(|w| w == b"record").expect("the record's value");
    bytes[spot] ^= 1;
    bench.disk.damage(segment, bytes).expect("writes");
    let query = FetchQuery { offset: 0, leader_epoch: None, last_fetched_epoch: None };
    let refused = bench.partition.read(&query, 1 << 20, bench.now, &mut bench.world);
    assert!(matches!(refused, Err(broker::replica::read::ReadRefusal::Code(ErrorCode::LogDamaged))), "{refused:?}");
}

#[test]
fn damage_that_a_truncation_meets_is_set_aside_before_the_process_stops() {
    let mut bench = Bench::new();
    bench.assign(view(ME, 1, &[ME, OTHER], FlushPolicy::Sync));
    for _ in 0..3 {
        bench.produce(Acks::Leader);
    }
    bench.finish_notes();
    while !bench.world.jobs.is_empty() {
        bench.finish_flush();
    }
    let dir = bench.partition.log().dir().to_path_buf();
    let files = bench.disk.files_below(&dir).expect("lists");
    let segment = files.iter().max_by_key(|f| bench.disk.contents(f).map_or(0, |c| c.len())).expect("a segment");
    let mut bytes = bench.disk.contents(segment).expect("reads");
    let spot = bytes.windows(8).position(|w| w == b"record 1").expect("the first record's value");
    bytes[spot] ^= 1;
    bench.disk.damage(segment, bytes).expect("writes");

    bench.assign(view(OTHER, 2, &[ME, OTHER], FlushPolicy::Sync));
    let subscribed = |m: &ToLeader| if let ToLeader::Subscribe(s) = m { Some(s.subscription) } else { None };
    let subscription = bench.world.to_leader.iter().find_map(subscribed).expect("it subscribes");
    let (leader_epoch, epoch) = (LeaderEpoch(2), Some(LeaderEpoch(1)));
    bench.step(Input::Diverged { subscription, leader_epoch, epoch, end: 1 });
    assert!(
        matches!(&bench.world.fatal, Some(Fatal::Disk(text)) if text.contains("set aside")),
        "{:?}",
        bench.world.fatal
    );
    assert!(!bench.data.storage().exists(&dir).expect("the disk works"), "the next start must not prove it");
}

#[test]
fn a_flush_of_an_ended_life_makes_nothing_of_the_next_one_durable() {
    for ran_before_the_end in [true, false] {
        let mut bench = leader(FlushPolicy::Sync);
        bench.produce(Acks::All);
        bench.finish_notes();
        let (life, job) = bench.world.jobs.remove(0);
        let (mut waiting, mut outcome) = (Some(job), None);
        if ran_before_the_end {
            outcome = waiting.take().map(FlushJob::run);
        }
        bench.set_aside_and_reopen();
        bench.assign(view(ME, 1, &[ME], FlushPolicy::Sync));
        let id = bench.produce(Acks::All);
        bench.finish_notes();
        let outcome = outcome.or_else(|| waiting.take().map(FlushJob::run)).expect("one of the two");
        assert!(outcome.is_ok(), "a job whose log was closed finds that it has nothing left to do: {outcome:?}");
        bench.partition.flushed(life, outcome, bench.now, &mut bench.world);
        bench.partition.settle(bench.now, &mut bench.world);
        assert_eq!(bench.outcome(id), None, "its own bytes were not synced");
        bench.finish_flush();
        assert_eq!(written(bench.outcome(id)), Some(0));
    }
}

#[test]
fn a_note_of_an_ended_life_says_nothing_of_the_next_ones_directory() {
    let mut bench = leader(FlushPolicy::Sync);
    bench.produce(Acks::All);
    let former = std::mem::take(&mut bench.world.notes);
    bench.finish_flush();
    bench.set_aside_and_reopen();
    bench.assign(view(ME, 1, &[ME], FlushPolicy::Sync));
    let id = bench.produce(Acks::All);
    bench.finish_flush();
    for (life, note) in former {
        bench.partition.noted(life, note, bench.now, &mut bench.world);
    }
    assert_eq!(
        bench.outcome(id),
        None,
        "the registry has it set aside: a missing directory would pass for an empty log"
    );
    bench.finish_notes();
    assert_eq!(written(bench.outcome(id)), Some(0));
}

#[test]
fn an_isr_result_of_an_ended_life_takes_no_proposal_of_the_next_one_back() {
    let mut bench = leader(FlushPolicy::Sync);
    follow(&mut bench, 0);
    let former = bench.world.proposals.remove(0);
    bench.set_aside_and_reopen();
    bench.assign(view(ME, 1, &[ME], FlushPolicy::Sync));
    follow(&mut bench, 0);
    let present = bench.world.proposals.remove(0);
    assert_eq!(former.attempt, present.attempt, "both are the first of their life");
    let refused = IsrOutcome::Refused(ErrorCode::IneligibleReplica);
    bench.partition.isr_result(former.life, former.attempt, refused, bench.now, &mut bench.world);
    let id = bench.produce(Acks::All);
    bench.finish_notes();
    bench.finish_flush();
    assert_eq!(bench.outcome(id), None, "the follower may be in the committed ISR by now");
    bench.partition.isr_result(present.life, present.attempt, refused, bench.now, &mut bench.world);
    assert_eq!(written(bench.outcome(id)), Some(0));
}

#[test]
fn what_waits_for_the_note_of_the_directory_is_answered_as_unknown_when_the_partition_is_taken_away() {
    for acks in [Acks::None, Acks::Leader, Acks::All] {
        let mut bench = leader(FlushPolicy::Sync);
        let id = bench.produce(acks);
        bench.finish_flush();
        assert_eq!(bench.outcome(id), None);
        bench.step(Input::Withdraw);
        let unknown = ProduceOutcome::Refused(ErrorCode::NotEnoughReplicasAfterAppend);
        assert_eq!(bench.outcome(id), Some(unknown), "{acks:?}");
    }
}
