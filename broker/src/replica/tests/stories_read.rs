//! Reading: what applications see, and when they are told to wait.

use super::super::LogFacts;
use super::super::input::Acks;
use super::super::lease::{Guard, Lease};
use super::super::read::{FetchQuery, ReadPermit, ReadRefusal};
use super::super::view::PartitionView;
use super::harness::*;
use protocol::error::ErrorCode;
use protocol::ids::{LeaderEpoch, PartitionEpoch};

fn query(offset: u64) -> FetchQuery {
    FetchQuery { offset, leader_epoch: None, last_fetched_epoch: None }
}

fn code(code: ErrorCode) -> Result<ReadPermit, ReadRefusal> {
    Err(ReadRefusal::Code(code))
}

fn permit(upto: u64) -> Result<ReadPermit, ReadRefusal> {
    Ok(ReadPermit { upto, guard: Guard::Lease })
}

/// A new leader in epoch 5: log [2, 20), high watermark 10 from the epoch before.
fn new_leader() -> Rig {
    let mut rig = Rig::over(Rig::log(&[(2, 12, 1), (12, 20, 3)]), 10);
    rig.assign(PartitionView { leader_epoch: LeaderEpoch(5), ..view() });
    rig
}

#[test]
fn until_the_high_watermark_reaches_the_epochs_start_it_is_unknown() {
    let mut rig = new_leader();
    let now = rig.moment();
    assert_eq!(rig.replica.wire_state().high_watermark, None);
    assert_eq!(rig.replica.latest(None, now), code(ErrorCode::OffsetNotAvailable));
    let cases = [
        (1, code(ErrorCode::OffsetOutOfRange)),
        (2, permit(10)),
        (9, permit(10)),
        (10, code(ErrorCode::OffsetNotAvailable)),
        (20, code(ErrorCode::OffsetNotAvailable)),
        (21, code(ErrorCode::OffsetOutOfRange)),
    ];
    for (offset, expected) in cases {
        assert_eq!(rig.replica.fetch(&query(offset), now), expected, "offset {offset}");
    }
    rig.subscribe(TWO, 1, 20, Some(3));
    rig.subscribe(THREE, 1, 20, Some(3));
    assert_eq!(rig.replica.wire_state().high_watermark, Some(20));
    assert_eq!(rig.replica.latest(None, now), permit(20));
}

#[test]
fn nothing_at_or_above_the_high_watermark_is_read() {
    let mut rig = Rig::leader();
    rig.subscribe(TWO, 1, 0, None);
    rig.subscribe(THREE, 1, 0, None);
    rig.produce(Acks::None, 5);
    let now = rig.moment();
    assert_eq!(rig.replica.fetch(&query(0), now), permit(0), "wait");
    assert_eq!(rig.replica.fetch(&query(3), now), permit(3), "beyond it, within the log: wait");
    assert_eq!(rig.replica.fetch(&query(6), now), code(ErrorCode::OffsetOutOfRange));
    rig.flushed(5);
    rig.acked(TWO, 1, 5);
    rig.acked(THREE, 1, 4);
    assert_eq!(rig.replica.fetch(&query(0), now), permit(4));
    assert_eq!(rig.replica.latest(None, now), permit(4));
}

#[test]
fn without_the_lease_reads_are_flagged_and_end_with_the_grace() {
    let mut rig = new_leader();
    rig.lease = Lease { valid_until: 0, grace_until: rig.now + 1 };
    assert_eq!(rig.replica.fetch(&query(2), rig.moment()), Ok(ReadPermit { upto: 10, guard: Guard::Grace }));
    rig.now += 1;
    assert_eq!(rig.replica.fetch(&query(2), rig.moment()), code(ErrorCode::LeaseExpired));
    assert_eq!(rig.replica.earliest(None, rig.moment()), Err(ReadRefusal::Code(ErrorCode::LeaseExpired)));
}

#[test]
fn epochs_are_checked_both_ways() {
    let rig = new_leader();
    let ask = |epoch| FetchQuery { leader_epoch: Some(LeaderEpoch(epoch)), ..query(2) };
    assert_eq!(rig.replica.fetch(&ask(4), rig.moment()), code(ErrorCode::FencedLeaderEpoch));
    assert_eq!(rig.replica.fetch(&ask(5), rig.moment()), permit(10));
    assert_eq!(rig.replica.fetch(&ask(6), rig.moment()), code(ErrorCode::UnknownLeaderEpoch));
}

#[test]
fn a_reader_whose_history_parted_is_told_where() {
    let rig = new_leader();
    let ask = |offset, epoch| FetchQuery { last_fetched_epoch: Some(LeaderEpoch(epoch)), ..query(offset) };
    assert_eq!(rig.replica.fetch(&ask(9, 1), rig.moment()), permit(10));
    let parted = |epoch, end| Err(ReadRefusal::Diverged { epoch: Some(LeaderEpoch(epoch)), end });
    assert_eq!(rig.replica.fetch(&ask(15, 1), rig.moment()), parted(1, 12));
    assert_eq!(rig.replica.fetch(&ask(16, 2), rig.moment()), parted(1, 12));
    assert_eq!(rig.replica.fetch(&ask(25, 3), rig.moment()), parted(3, 20));
}

/// Another leader committed [50, 200) in an epoch that was never here; an unclean election lets us go on from 200.
#[test]
fn a_reader_of_an_epoch_that_was_never_here_is_told_even_where_our_log_ends_at_its_offset() {
    let mut rig = Rig::over(Rig::log(&[(0, 50, 1), (50, 200, 1)]), 50);
    let alone = [ME].into();
    rig.assign(PartitionView { leader_epoch: LeaderEpoch(3), isr: alone, recovering: true, ..view() });
    let at = |offset, epoch| FetchQuery { last_fetched_epoch: Some(LeaderEpoch(epoch)), ..query(offset) };
    let parted = Err(ReadRefusal::Diverged { epoch: Some(LeaderEpoch(1)), end: 200 });
    assert_eq!(rig.replica.fetch(&at(200, 2), rig.moment()), parted);
    assert_eq!(rig.replica.fetch(&at(120, 2), rig.moment()), parted, "it has read other records than ours");
    assert_ne!(rig.replica.fetch(&at(200, 1), rig.moment()), parted);
}

#[test]
fn only_leaders_are_read() {
    let mut rig = new_leader();
    rig.assign(PartitionView { partition_epoch: PartitionEpoch(2), ..following(TWO, 6) });
    assert_eq!(rig.replica.fetch(&query(2), rig.moment()), code(ErrorCode::NotLeader));
    let nobody =
        PartitionView { leader: None, leader_epoch: LeaderEpoch(7), partition_epoch: PartitionEpoch(3), ..view() };
    rig.assign(nobody);
    assert_eq!(rig.replica.latest(None, rig.moment()), code(ErrorCode::LeaderNotAvailable));
}

#[test]
fn a_lost_checkpoint_starts_at_the_log_start_and_is_made_good_by_the_isr() {
    let facts: LogFacts = Rig::log(&[(2, 12, 1), (12, 20, 3)]);
    let mut rig = Rig::over(facts, 0);
    rig.assign(PartitionView { leader_epoch: LeaderEpoch(5), ..view() });
    assert_eq!(rig.replica.high_watermark(), 2);
    rig.subscribe(TWO, 1, 20, Some(3));
    rig.subscribe(THREE, 1, 20, Some(3));
    assert_eq!(rig.replica.high_watermark(), 20);
}
