//! Leading: admission, answers, high watermark, the ends of a leadership.

use super::super::effect::{Abdication, Effect, ProduceOutcome, ToFollower};
use super::super::input::{Acks, FollowerAck, Input, IsrOutcome, Produce, RequestId, SubscriptionId};
use super::super::lease::{Guard, Lease};
use super::super::view::PartitionView;
use super::super::{LogFacts, RoleName};
use super::harness::*;
use protocol::error::{Effect as ErrorEffect, ErrorCode};
use protocol::ids::{BrokerEpoch, LeaderEpoch, PartitionEpoch};
use protocol::metadata::configs::FlushPolicy;

/// Leads with both followers subscribed at the empty log's end.
fn three() -> Rig {
    let mut rig = Rig::leader();
    rig.subscribe(TWO, 1, 0, None);
    rig.subscribe(THREE, 1, 0, None);
    rig
}

#[test]
fn acks_all_is_answered_when_every_member_holds_it_durably_the_leader_included() {
    let mut rig = three();
    assert_eq!(written(&rig.produce(Acks::All, 5)), []);
    assert_eq!(written(&rig.acked(TWO, 1, 5)), []);
    assert_eq!(written(&rig.step(Input::Ack(rig.ack(THREE, 1, 5, 0)))), [], "held, but not durably");
    assert_eq!(written(&rig.acked(THREE, 1, 5)), [], "our own sync is not done");
    assert_eq!(rig.replica.high_watermark(), 0);
    assert_eq!(written(&rig.flushed(4)), [], "one record of the batch is missing");
    assert_eq!(written(&rig.flushed(5)), [(1, 0)]);
    assert_eq!(rig.replica.high_watermark(), 5);
}

#[test]
fn under_a_loose_policy_written_is_held() {
    let mut loose = view();
    loose.config.flush_policy = FlushPolicy::Os;
    let mut rig = Rig::over(LogFacts { noted_policy: Some(FlushPolicy::Os), ..LogFacts::empty() }, 0);
    rig.assign(loose);
    for id in [TWO, THREE] {
        rig.subscribe(id, 1, 0, None);
    }
    rig.produce(Acks::All, 5);
    let mut os = |id| {
        rig.step(Input::Ack(super::super::input::FollowerAck { noted_policy: FlushPolicy::Os, ..rig.ack(id, 1, 5, 0) }))
    };
    assert_eq!(written(&os(TWO)), []);
    assert_eq!(written(&os(THREE)), [(1, 0)]);
}

#[test]
fn acks_one_waits_for_our_own_sync_and_acks_zero_for_the_append() {
    let mut rig = three();
    assert_eq!(written(&rig.produce(Acks::None, 1)), [(1, 0)]);
    assert_eq!(written(&rig.produce(Acks::Leader, 1)), []);
    assert_eq!(written(&rig.flushed(2)), [(2, 1)]);
}

#[test]
fn a_batch_is_forwarded_before_it_is_appended_and_flushed_after() {
    let mut rig = three();
    let effects = rig.produce(Acks::All, 2);
    let place = |what: fn(&Effect) -> bool| effects.iter().position(what).expect("among the effects");
    let forward = place(|e| matches!(e, Effect::Forward { base: 0, end: 2 }));
    let append = place(|e| matches!(e, Effect::Append { .. }));
    let flush = place(|e| matches!(e, Effect::Flush { upto: 2, .. }));
    assert!(forward < append && append < flush, "{effects:?}");
    let alone = Rig::leader().produce(Acks::All, 2);
    assert!(!alone.iter().any(|e| matches!(e, Effect::Forward { .. })), "nobody to forward to: {alone:?}");
}

#[test]
fn what_can_be_refused_is_refused_before_an_offset_is_given() {
    type Case = (&'static str, fn(&mut Rig, &mut Produce), ErrorCode);
    let cases: [Case; 9] = [
        ("an older epoch", |_, p| p.leader_epoch = Some(LeaderEpoch(0)), ErrorCode::FencedLeaderEpoch),
        ("a newer epoch", |_, p| p.leader_epoch = Some(LeaderEpoch(2)), ErrorCode::UnknownLeaderEpoch),
        ("too large", |_, p| p.bytes = 1_001, ErrorCode::MessageTooLarge),
        ("no record", |_, p| p.offsets = 0, ErrorCode::CorruptMessage),
        (
            "acks=1 without a lease",
            |rig, p| {
                p.acks = Acks::Leader;
                rig.lease.valid_until = 0;
            },
            ErrorCode::LeaseExpired,
        ),
        (
            "acks=0 without a lease",
            |rig, p| {
                p.acks = Acks::None;
                rig.lease.valid_until = 0;
            },
            ErrorCode::LeaseExpired,
        ),
        ("acks=all after the grace", |rig, _| rig.lease = Lease::NONE, ErrorCode::LeaseExpired),
        ("following", |rig, _| drop(rig.assign(following(TWO, 2))), ErrorCode::NotLeader),
        (
            "leaderless",
            |rig, _| drop(rig.assign(PartitionView { leader: None, leader_epoch: LeaderEpoch(2), ..view() })),
            ErrorCode::LeaderNotAvailable,
        ),
    ];
    for (what, spoil, code) in cases {
        let mut rig = three();
        let deadline = rig.now + 100;
        let id = RequestId(9);
        let mut request = Produce { id, acks: Acks::All, deadline, leader_epoch: None, offsets: 1, bytes: 10 };
        spoil(&mut rig, &mut request);
        let effects = rig.step(Input::Produce(request));
        assert_eq!(refused(&effects), [(9, code)], "{what}");
        assert!(!appended(&effects), "{what}");
        assert_eq!(code.effect(), ErrorEffect::None, "{what}: nothing was written");
    }
}

#[test]
fn acks_all_goes_on_without_a_lease_through_the_grace_time() {
    let mut rig = three();
    rig.lease.valid_until = 0;
    rig.produce(Acks::All, 1);
    rig.flushed(1);
    rig.acked(TWO, 1, 1);
    let effects = rig.acked(THREE, 1, 1);
    let outcome = ProduceOutcome::Written { base: 0, guard: Guard::Grace };
    assert!(effects.contains(&Effect::Reply { id: RequestId(1), outcome }), "{effects:?}");
}

#[test]
fn the_lease_counts_when_the_answer_leaves() {
    let mut rig = three();
    rig.produce(Acks::Leader, 1);
    rig.lease.valid_until = 0;
    assert_eq!(refused(&rig.flushed(1)), [(1, ErrorCode::LeaseExpiredAfterAppend)]);
    let mut rig = three();
    rig.produce(Acks::All, 1);
    rig.flushed(1);
    rig.acked(TWO, 1, 1);
    rig.lease = Lease::NONE;
    assert_eq!(refused(&rig.acked(THREE, 1, 1)), [(1, ErrorCode::LeaseExpiredAfterAppend)]);
}

#[test]
fn below_the_rule_acks_all_is_refused_and_acks_one_is_taken_but_stays_unseen() {
    let mut rig = three();
    rig.assign(PartitionView { isr: [ME].into(), partition_epoch: PartitionEpoch(2), ..view() });
    assert_eq!(refused(&rig.produce(Acks::All, 1)), [(1, ErrorCode::NotEnoughReplicas)]);
    rig.produce(Acks::Leader, 1);
    assert_eq!(written(&rig.flushed(1)), [(2, 0)]);
    assert_eq!(rig.replica.high_watermark(), 0, "the committed ISR does not satisfy the rule");
    rig.acked(TWO, 1, 1);
    assert_eq!(rig.replica.high_watermark(), 0, "a pending growth does not count in the gate");
    rig.assign(PartitionView { isr: [ME, TWO].into(), partition_epoch: PartitionEpoch(3), ..view() });
    assert_eq!(rig.replica.high_watermark(), 1);
}

#[test]
fn data_centres_count_as_the_rule_says() {
    let mut one_dc = view();
    one_dc.rule.min_dcs = 2;
    for id in [ME, TWO, THREE] {
        one_dc.members.get_mut(&id).expect("a member").data_centre = Some("eu/dc1".into());
    }
    let mut rig = Rig::over(LogFacts::empty(), 0);
    rig.assign(one_dc);
    assert_eq!(refused(&rig.produce(Acks::All, 1)), [(1, ErrorCode::NotEnoughReplicas)]);
}

#[test]
fn an_append_that_fails_unseen_is_a_definite_refusal_and_the_next_takes_its_offsets() {
    let mut rig = Rig::leader();
    rig.no_room = true;
    assert_eq!(refused(&rig.produce(Acks::All, 3)), [(1, ErrorCode::DiskFull)]);
    let effects = rig.produce(Acks::None, 3);
    assert_eq!(written(&effects), [(2, 0)]);
}

#[test]
fn an_append_that_fails_after_a_forward_ends_the_leadership_for_this_epoch() {
    let mut rig = three();
    rig.no_room = true;
    let effects = rig.produce(Acks::All, 3);
    assert_eq!(refused(&effects), [(1, ErrorCode::NotEnoughReplicasAfterAppend)]);
    let reason = Abdication::AppendFailedAfterForward;
    assert!(effects.contains(&Effect::Abdicate { leader_epoch: LeaderEpoch(1), reason }), "{effects:?}");
    assert_eq!(refused(&rig.produce(Acks::All, 3)), [(2, ErrorCode::NotLeader)]);
    rig.assign(PartitionView { partition_epoch: PartitionEpoch(2), ..view() });
    assert_eq!(rig.replica.role(), RoleName::Resigned(LeaderEpoch(1)), "the same epoch does not come back");
    rig.assign(PartitionView { partition_epoch: PartitionEpoch(3), leader_epoch: LeaderEpoch(2), ..view() });
    assert_eq!(rig.replica.role(), RoleName::Leader(LeaderEpoch(2)));
}

#[test]
fn the_end_of_a_leadership_leaves_the_outcome_unknown_and_stops_the_pumps() {
    let mut rig = three();
    rig.produce(Acks::All, 1);
    rig.produce(Acks::Leader, 1);
    let effects = rig.assign(PartitionView { partition_epoch: PartitionEpoch(2), ..following(TWO, 2) });
    let code = ErrorCode::NotEnoughReplicasAfterAppend;
    assert_eq!(refused(&effects), [(1, code), (2, code)]);
    assert_eq!(code.effect(), ErrorEffect::Unknown);
    let stops = effects.iter().filter(|e| matches!(e, Effect::StopPump { .. })).count();
    assert_eq!(stops, 2);
}

#[test]
fn a_wait_that_ends_says_why() {
    let mut rig = three();
    rig.produce(Acks::All, 1);
    assert_eq!(rig.replica.next_deadline(rig.now).map(|at| at <= rig.now + 10_000), Some(true));
    rig.wait(4_000);
    rig.acked(TWO, 1, 1);
    assert_eq!(refused(&rig.wait(6_000)), [(1, ErrorCode::Timeout)]);
    let mut rig = three();
    rig.produce(Acks::All, 1);
    rig.assign(PartitionView { isr: [ME].into(), partition_epoch: PartitionEpoch(2), ..view() });
    assert_eq!(refused(&rig.wait(10_000)), [(1, ErrorCode::NotEnoughReplicasAfterAppend)]);
}

#[test]
fn positions_are_forgotten_at_every_leader_change() {
    let mut rig = three();
    rig.produce(Acks::All, 1);
    rig.flushed(1);
    rig.acked(TWO, 1, 1);
    rig.assign(PartitionView { leader_epoch: LeaderEpoch(2), partition_epoch: PartitionEpoch(2), ..view() });
    rig.acked(TWO, 1, 1);
    rig.acked(THREE, 1, 1);
    assert_eq!(rig.replica.high_watermark(), 0, "acknowledgements of subscriptions from before");
    rig.subscribe(TWO, 2, 1, Some(1));
    rig.subscribe(THREE, 2, 1, Some(1));
    assert_eq!(rig.replica.high_watermark(), 1);
}

#[test]
fn acknowledgements_of_another_epoch_registration_or_subscription_move_nothing() {
    let mut rig = three();
    rig.produce(Acks::All, 1);
    rig.flushed(1);
    rig.acked(TWO, 1, 1);
    let good = rig.ack(THREE, 1, 1, 1);
    let late = [
        super::super::input::FollowerAck { leader_epoch: LeaderEpoch(0), ..good },
        super::super::input::FollowerAck { broker_epoch: BrokerEpoch(12), ..good },
        super::super::input::FollowerAck { subscription: SubscriptionId(0), ..good },
    ];
    for ack in late {
        assert_eq!(written(&rig.step(Input::Ack(ack))), [], "{ack:?}");
    }
    assert_eq!(written(&rig.step(Input::Ack(good))), [(1, 0)]);
}

#[test]
fn the_handshake_has_three_answers() {
    let facts = Rig::log(&[(10, 20, 1), (20, 30, 3)]);
    let lead = |log_end, last_epoch| {
        let mut rig = Rig::over(facts.clone(), 30);
        rig.assign(PartitionView { leader_epoch: LeaderEpoch(5), ..view() });
        told(&rig.subscribe(TWO, 1, log_end, last_epoch)).expect("an answer")
    };
    let leader_epoch = LeaderEpoch(5);
    let from = |from| ToFollower::Started { leader_epoch, from, high_watermark: Some(30), log_start: 10 };
    let parted = |epoch: u32, end| ToFollower::Diverged { leader_epoch, epoch: Some(LeaderEpoch(epoch)), end };
    let anew = ToFollower::BeginAt { leader_epoch, log_start: 10 };
    let cases = [
        ("level", 30, Some(3), from(30)),
        ("a prefix", 25, Some(3), from(25)),
        ("a prefix that ends with an epoch", 20, Some(1), from(20)),
        ("empty at our start", 10, None, from(10)),
        ("more of our last epoch than we have", 35, Some(3), parted(3, 30)),
        ("more of an epoch that ended here", 25, Some(1), parted(1, 20)),
        ("an epoch we never had", 25, Some(2), parted(1, 20)),
        ("an epoch after all of ours", 31, Some(4), parted(3, 30)),
        ("ends before our start", 5, Some(1), anew),
        ("nothing in common", 15, Some(0), anew),
        ("empty beyond our end", 40, None, ToFollower::Diverged { leader_epoch, epoch: None, end: 30 }),
    ];
    for (what, log_end, last_epoch, expected) in cases {
        assert_eq!(lead(log_end, last_epoch), expected, "{what}");
    }
}

#[test]
fn a_handshake_that_found_divergence_counts_for_nothing() {
    let mut rig = Rig::over(Rig::log(&[(0, 10, 1)]), 0);
    rig.assign(PartitionView { leader_epoch: LeaderEpoch(2), ..view() });
    rig.subscribe(TWO, 1, 12, Some(1));
    rig.acked(TWO, 1, 10);
    rig.subscribe(THREE, 1, 10, Some(1));
    assert_eq!(rig.replica.high_watermark(), 0);
    rig.subscribe(TWO, 2, 10, Some(1));
    assert_eq!(rig.replica.high_watermark(), 10);
}

#[test]
fn strangers_and_latecomers_are_not_fed() {
    let mut rig = three();
    let base = super::super::input::Subscribe {
        follower: TWO,
        broker_epoch: epoch_of(TWO),
        subscription: SubscriptionId(2),
        leader_epoch: LeaderEpoch(1),
        log_start: 0,
        log_end: 0,
        durable_end: 0,
        last_epoch: None,
        noted_policy: FlushPolicy::Sync,
    };
    let cases = [
        (super::super::input::Subscribe { broker_epoch: BrokerEpoch(99), ..base }, ErrorCode::UnknownFollower),
        (super::super::input::Subscribe { follower: protocol::ids::BrokerId(8), ..base }, ErrorCode::UnknownFollower),
        (super::super::input::Subscribe { leader_epoch: LeaderEpoch(0), ..base }, ErrorCode::FencedLeaderEpoch),
        (super::super::input::Subscribe { leader_epoch: LeaderEpoch(2), ..base }, ErrorCode::UnknownLeaderEpoch),
        (super::super::input::Subscribe { subscription: SubscriptionId(1), ..base }, ErrorCode::SubscriptionReplaced),
    ];
    for (subscribe, code) in cases {
        let effects = rig.step(Input::Subscribe(subscribe));
        assert_eq!(told(&effects), Some(ToFollower::Refused(code)), "{subscribe:?}");
        assert!(
            !effects.iter().any(|e| matches!(e, Effect::StartPump { .. } | Effect::StopPump { .. })),
            "{effects:?}"
        );
    }
}

#[test]
fn no_incarnation_continues_a_leadership() {
    let unfit: [fn(&mut PartitionView); 2] = [
        |v| v.members.get_mut(&ME).expect("me").broker_epoch = Some(BrokerEpoch(3)),
        |v| v.members.get_mut(&ME).expect("me").fenced = true,
    ];
    for spoil in unfit {
        let mut rig = Rig::over(LogFacts::empty(), 0);
        let mut first = view();
        spoil(&mut first);
        rig.assign(first);
        assert!(!matches!(rig.replica.role(), RoleName::Leader(_)));
        rig.assign(PartitionView { partition_epoch: PartitionEpoch(2), ..view() });
        assert_eq!(rig.replica.role(), RoleName::Resigned(LeaderEpoch(1)), "fit now, but the epoch is not ours");
        rig.assign(PartitionView { leader_epoch: LeaderEpoch(2), partition_epoch: PartitionEpoch(3), ..view() });
        assert_eq!(rig.replica.role(), RoleName::Leader(LeaderEpoch(2)));
    }
}

#[test]
fn an_epoch_with_batches_in_the_log_is_never_begun() {
    let mut rig = Rig::over(Rig::log(&[(0, 5, 1)]), 0);
    rig.assign(view());
    assert_eq!(rig.replica.role(), RoleName::Resigned(LeaderEpoch(1)));
}

#[test]
fn fenced_in_its_own_image_a_leader_stops_leading() {
    let mut rig = three();
    let mut fenced = PartitionView { partition_epoch: PartitionEpoch(2), ..view() };
    fenced.members.get_mut(&ME).expect("me").fenced = true;
    rig.assign(fenced);
    assert_eq!(refused(&rig.produce(Acks::All, 1)), [(1, ErrorCode::NotLeader)]);
}

#[test]
fn an_older_image_changes_nothing() {
    let mut rig = three();
    rig.assign(PartitionView { partition_epoch: PartitionEpoch(5), ..view() });
    assert_eq!(rig.assign(PartitionView { partition_epoch: PartitionEpoch(4), ..following(TWO, 1) }), []);
    assert_eq!(rig.replica.role(), RoleName::Leader(LeaderEpoch(1)));
}

#[test]
fn heads_are_dropped_up_to_the_high_watermark_and_no_further() {
    let mut rig = three();
    rig.produce(Acks::All, 10);
    rig.flushed(10);
    rig.acked(TWO, 1, 10);
    rig.acked(THREE, 1, 6);
    assert_eq!(rig.replica.high_watermark(), 6);
    assert!(rig.step(Input::Retain { upto: 9 }).contains(&Effect::AdvanceStart { to: 6 }));
    assert_eq!(deleted(&rig.delete(7, Some(7))), [(7, Err(ErrorCode::OffsetOutOfRange))]);
    rig.acked(TWO, 1, 10);
    rig.acked(THREE, 1, 8);
    assert_eq!(deleted(&rig.delete(8, Some(3))), [(8, Ok(6))], "gone already, everywhere");
    assert!(rig.delete(9, None).contains(&Effect::AdvanceStart { to: 8 }));
    assert_eq!(rig.replica.log_start(), 8);
}

/// Ten records everywhere, the whole ISR subscribed.
fn full() -> Rig {
    let mut rig = three();
    rig.produce(Acks::All, 10);
    rig.flushed(10);
    rig.acked(TWO, 1, 10);
    rig.acked(THREE, 1, 10);
    rig
}

#[test]
fn a_delete_is_answered_once_every_member_of_the_isr_begins_there() {
    let mut rig = full();
    let effects = rig.delete(1, Some(5));
    assert!(effects.contains(&Effect::AdvanceStart { to: 5 }));
    assert_eq!(deleted(&effects), [], "nobody else knows");
    assert_eq!(deleted(&rig.delete(2, Some(3))), [], "gone here, not elsewhere");
    assert_eq!(deleted(&rig.acked(TWO, 1, 10)), []);
    assert_eq!(deleted(&rig.acked(THREE, 1, 10)), [(1, Ok(5)), (2, Ok(5))]);
}

#[test]
fn a_delete_that_followers_do_not_hear_of_is_of_unknown_outcome() {
    let mut rig = full();
    rig.delete(1, Some(5));
    let due = rig.replica.next_deadline(rig.now).expect("an answer is due");
    assert!(due <= rig.now + DELETE_MS);
    assert_eq!(deleted(&rig.wait(DELETE_MS - 1)), []);
    assert_eq!(deleted(&rig.wait(1)), [(1, Err(ErrorCode::Timeout))]);
    rig.delete(2, Some(6));
    let deposed = rig.assign(PartitionView { partition_epoch: PartitionEpoch(2), ..following(TWO, 2) });
    assert_eq!(deleted(&deposed), [(2, Err(ErrorCode::NotEnoughReplicasAfterAppend))]);
}

#[test]
fn a_delete_needs_the_lease_and_not_only_its_grace() {
    let mut rig = full();
    rig.delete(1, Some(5));
    rig.lease = Lease { valid_until: rig.now, grace_until: rig.now + 1_000 };
    assert_eq!(deleted(&rig.delete(2, Some(6))), [(2, Err(ErrorCode::LeaseExpired))]);
    assert_eq!(rig.replica.log_start(), 5);
    rig.acked(TWO, 1, 10);
    assert_eq!(deleted(&rig.acked(THREE, 1, 10)), [(1, Err(ErrorCode::LeaseExpiredAfterAppend))]);
}

#[test]
fn below_the_rule_a_delete_waits_for_whoever_may_be_elected_as_well() {
    let mut rig = full();
    let alone = PartitionView { isr: [ME].into(), elr: [TWO].into(), partition_epoch: PartitionEpoch(2), ..view() };
    rig.assign(alone);
    assert_eq!(deleted(&rig.delete(1, Some(5))), [], "its ELR may begin lower");
}

#[test]
fn a_follower_whose_log_begins_lower_does_not_join_the_isr() {
    let mut rig = full();
    rig.step(Input::Retain { upto: 5 });
    let shrunk = PartitionView { isr: [ME, TWO].into(), partition_epoch: PartitionEpoch(2), ..view() };
    assert_eq!(proposed(&rig.assign(shrunk)), None);
    let behind = FollowerAck { log_start: 4, ..rig.ack(THREE, 1, 10, 10) };
    let proposals = [rig.step(Input::Ack(behind)), rig.acked(THREE, 1, 10)];
    assert_eq!(proposals.map(|effects| proposed(&effects).is_some()), [false, true]);
}

#[test]
fn a_pump_that_fell_below_the_start_begins_anew_and_counts_for_nothing() {
    let mut rig = three();
    rig.produce(Acks::All, 10);
    let effects = rig.step(Input::PumpBelowStart { follower: TWO, subscription: SubscriptionId(1) });
    assert!(matches!(told(&effects), Some(ToFollower::BeginAt { .. })), "{effects:?}");
    rig.flushed(10);
    rig.acked(TWO, 1, 10);
    rig.acked(THREE, 1, 10);
    assert_eq!(rig.replica.high_watermark(), 0);
}

#[test]
fn damage_stops_a_leader_that_others_can_replace() {
    let mut rig = three();
    assert!(matches!(rig.step(Input::DamageFound)[..], [Effect::Fatal(_)]));
    assert_eq!(rig.produce(Acks::All, 1), [], "nothing follows a fatal");
    let mut alone = Rig::leader();
    alone.assign(PartitionView { isr: [ME].into(), partition_epoch: PartitionEpoch(2), ..view() });
    assert_eq!(alone.step(Input::DamageFound), [], "the last copy serves what can be read");
    let grown = PartitionView { partition_epoch: PartitionEpoch(3), ..view() };
    assert!(matches!(alone.assign(grown)[..], [Effect::Fatal(_)]), "now others can lead");
}

#[test]
fn a_deletion_does_not_stop_a_last_copy_that_is_damaged() {
    let mut alone = Rig::leader();
    alone.assign(PartitionView { isr: [ME].into(), partition_epoch: PartitionEpoch(2), ..view() });
    alone.step(Input::DamageFound);
    assert!(
        !alone.step(Input::Withdraw).iter().any(|e| matches!(e, Effect::Fatal(_))),
        "a restore needs what can be read"
    );
}

#[test]
fn damage_waits_for_a_change_that_may_leave_nobody_else() {
    let mut rig = Rig::leader();
    rig.assign(PartitionView { isr: [ME, TWO].into(), partition_epoch: PartitionEpoch(2), ..view() });
    let (attempt, members) = proposed(&rig.wait(LAG)).expect("a silent follower leaves");
    assert_eq!(members, [ME]);
    assert_eq!(rig.step(Input::DamageFound), [], "the change may commit: this may be the last copy");
    let outcome = IsrOutcome::Refused(ErrorCode::InvalidUpdateVersion);
    assert!(matches!(rig.step(Input::IsrResult { attempt, outcome })[..], [Effect::Fatal(_)]));
}

#[test]
fn a_follower_that_cannot_be_fed_is_told_and_may_ask_again() {
    let mut alone = Rig::leader();
    alone.assign(PartitionView { isr: [ME].into(), partition_epoch: PartitionEpoch(2), ..view() });
    alone.produce(Acks::All, 10);
    alone.subscribe(TWO, 1, 0, None);
    let effects = alone.step(Input::PumpUnreadable { follower: TWO, subscription: SubscriptionId(1) });
    assert!(matches!(told(&effects), Some(ToFollower::Refused(ErrorCode::LogDamaged))), "{effects:?}");
    assert!(effects.iter().any(|e| matches!(e, Effect::StopPump { .. })), "{effects:?}");
    let effects = alone.subscribe(TWO, 2, 0, None);
    assert!(effects.iter().any(|e| matches!(e, Effect::StartPump { .. })), "{effects:?}");
}

#[test]
fn inputs_and_log_results_out_of_turn_are_a_broken_invariant() {
    let mut rig = three();
    assert!(matches!(rig.step(Input::Appended)[..], [Effect::Fatal(_)]));
}

#[test]
fn a_leader_whose_directory_is_not_noted_counts_for_nothing_itself() {
    for policy in [FlushPolicy::Sync, FlushPolicy::Os] {
        let mut rig = Rig::recovered(LogFacts { noted_policy: Some(policy), ..LogFacts::empty() }, None);
        let mut config = view().config;
        config.flush_policy = policy;
        rig.assign(PartitionView { config, ..view() });
        rig.subscribe(TWO, 1, 0, None);
        rig.subscribe(THREE, 1, 0, None);
        let effects = [rig.produce(Acks::None, 1), rig.produce(Acks::Leader, 1), rig.produce(Acks::All, 1)].concat();
        assert_eq!(effects.iter().filter(|e| **e == Effect::NoteDirectory).count(), 1, "asked for once");
        let before = [rig.flushed(3), rig.acked(TWO, 1, 3), rig.acked(THREE, 1, 3)].concat();
        assert_eq!((written(&effects), written(&before)), (vec![], vec![]), "{policy:?}");
        assert_eq!(rig.replica.high_watermark(), 0, "{policy:?}: it may come back empty and be believed");
        let mut answered = written(&rig.step(Input::DirectoryNoted));
        answered.sort_unstable();
        assert_eq!(answered, [(1, 0), (2, 1), (3, 2)], "{policy:?}");
    }
}
