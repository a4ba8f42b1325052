//! Following: handshake, cuts, appends, what is told the leader; and having no leader.

use super::super::effect::{Effect, FatalReason, ToLeader};
use super::super::input::{FollowerAck, Input, Pushed, Subscribe, SubscriptionId};
use super::super::limits::{NO_ROOM_PAUSE_MS, RESUBSCRIBE_PAUSE_MS, RESUBSCRIBE_PAUSE_MS_MAX};
use super::super::view::PartitionView;
use super::super::{Checkpoint, LogFacts, RoleName};
use super::harness::*;
use protocol::error::ErrorCode;
use protocol::ids::{LeaderEpoch, PartitionEpoch};
use protocol::metadata::configs::FlushPolicy;

/// Follows broker 2 in epoch 5 over this log; its first subscription.
fn follow(facts: LogFacts, checkpoint: u64, member: bool) -> (Rig, Subscribe) {
    let mut rig = Rig::over(facts, checkpoint);
    let isr = if member { [ME, TWO].into() } else { [TWO].into() };
    let asked = subscribed(&rig.assign(PartitionView { isr, ..following(TWO, 5) })).expect("a subscription");
    (rig, asked)
}

fn start(rig: &mut Rig, subscription: SubscriptionId) -> Vec<Effect> {
    let from = rig.replica.log_end();
    rig.step(Input::Started { subscription, leader_epoch: LeaderEpoch(5), from, high_watermark: None, log_start: 0 })
}

/// Copies from an empty log on.
fn copying() -> (Rig, SubscriptionId) {
    let (mut rig, asked) = follow(LogFacts::empty(), 0, true);
    start(&mut rig, asked.subscription);
    (rig, asked.subscription)
}

#[test]
fn it_asks_with_what_it_has() {
    let (_, asked) = follow(Rig::log(&[(3, 7, 1), (7, 9, 4)]), 5, true);
    let expected = Subscribe {
        follower: ME,
        broker_epoch: epoch_of(ME),
        subscription: SubscriptionId((1 << 32) | 1),
        leader_epoch: LeaderEpoch(5),
        log_start: 3,
        log_end: 9,
        durable_end: 9,
        last_epoch: Some(LeaderEpoch(4)),
        noted_policy: FlushPolicy::Sync,
    };
    assert_eq!(asked, expected);
}

#[test]
fn pushes_are_appended_at_the_end_and_acknowledged_twice() {
    let (mut rig, subscription) = copying();
    let effects = rig.push(subscription, &[(0, 4, 3), (4, 6, 5)], 0);
    let ack = acknowledged(&effects).expect("an acknowledgement");
    assert_eq!((ack.log_end, ack.durable_end, ack.leader_epoch), (6, 0, LeaderEpoch(5)));
    assert!(effects.contains(&Effect::Flush { generation: 0, upto: 6 }), "{effects:?}");
    let ack = acknowledged(&rig.flushed(6)).expect("another when it is durable");
    assert_eq!((ack.log_end, ack.durable_end, ack.subscription), (6, 6, subscription));
}

#[test]
fn what_is_not_for_the_present_subscription_and_epoch_is_ignored() {
    let (mut rig, subscription) = copying();
    assert_eq!(rig.push(SubscriptionId(subscription.0 + 1), &[(0, 1, 5)], 0), []);
    let batches = vec![super::super::input::BatchSpan { base: 0, end: 1, epoch: LeaderEpoch(4) }];
    let leader_epoch = LeaderEpoch(4);
    let old = Pushed { subscription, leader_epoch, batches, high_watermark: None, log_start: 0 };
    assert_eq!(rig.step(Input::Pushed(old)), []);
    assert_eq!(rig.replica.log_end(), 0);
}

#[test]
fn a_push_that_does_not_fit_ends_the_subscription() {
    type Batches = &'static [(u64, u64, u32)];
    let cases: [(&str, Batches); 5] = [
        ("a gap before it", &[(3, 5, 5)]),
        ("a gap in it", &[(2, 3, 5), (4, 5, 5)]),
        ("again what we have", &[(0, 2, 5)]),
        ("an epoch that falls", &[(2, 3, 2)]),
        ("an epoch above the leader's", &[(2, 3, 6)]),
    ];
    for (what, batches) in cases {
        let (mut rig, subscription) = copying();
        rig.push(subscription, &[(0, 2, 3)], 0);
        let effects = rig.push(subscription, batches, 0);
        let unsubscribe = Effect::ToLeader { leader: TWO, message: ToLeader::Unsubscribe(subscription) };
        assert_eq!(effects, [unsubscribe], "{what}");
        assert_eq!(rig.replica.log_end(), 2, "{what}");
        let again = subscribed(&rig.wait(RESUBSCRIBE_PAUSE_MS)).expect("it asks again");
        assert!(again.subscription > subscription);
        assert_eq!(again.log_end, 2);
    }
}

#[test]
fn it_truncates_to_the_divergence_point_and_never_to_its_high_watermark() {
    let (mut rig, asked) = follow(Rig::log(&[(0, 5, 1), (5, 10, 2), (10, 20, 3)]), 2, true);
    let diverged = |subscription, epoch: u32, end| Input::Diverged {
        subscription,
        leader_epoch: LeaderEpoch(5),
        epoch: Some(LeaderEpoch(epoch)),
        end,
    };
    let effects = rig.step(diverged(asked.subscription, 2, 8));
    assert!(effects.contains(&Effect::Truncate { to: 8, keep_aside: false }), "{effects:?}");
    let again = subscribed(&effects).expect("it asks again with what is left");
    assert_eq!((again.log_end, again.last_epoch), (8, Some(LeaderEpoch(2))));
    assert_eq!(rig.replica.high_watermark(), 2);
    assert_eq!(rig.step(diverged(asked.subscription, 1, 5)), [], "an answer to the subscription before");
}

#[test]
fn a_member_asked_to_cut_below_its_high_watermark_stops_instead() {
    let (mut rig, asked) = follow(Rig::log(&[(0, 5, 1), (5, 10, 2)]), 7, true);
    let (epoch, leader_epoch) = (Some(LeaderEpoch(1)), LeaderEpoch(5));
    let effects = rig.step(Input::Diverged { subscription: asked.subscription, leader_epoch, epoch, end: 5 });
    let reason = FatalReason::TruncateBelowHighWatermark { to: 5, high_watermark: 7 };
    assert_eq!(effects, [Effect::Fatal(reason)]);
}

#[test]
fn who_is_no_member_may_be_overruled_and_keeps_the_tail_aside() {
    let (mut rig, asked) = follow(Rig::log(&[(0, 5, 1), (5, 10, 2)]), 7, false);
    let (epoch, leader_epoch) = (Some(LeaderEpoch(1)), LeaderEpoch(5));
    let effects = rig.step(Input::Diverged { subscription: asked.subscription, leader_epoch, epoch, end: 5 });
    assert!(effects.contains(&Effect::Truncate { to: 5, keep_aside: true }), "{effects:?}");
    assert_eq!(rig.replica.high_watermark(), 5);
}

#[test]
fn a_checkpoint_from_before_an_unclean_election_is_not_believed_after_a_restart() {
    let (mut rig, asked) = follow(Rig::log(&[(0, 30, 1), (30, 50, 2)]), 50, false);
    let stale = Some(Checkpoint { high_watermark: 50, epoch: LeaderEpoch(2) });
    let (epoch, leader_epoch) = (Some(LeaderEpoch(1)), LeaderEpoch(5));
    let effects = rig.step(Input::Diverged { subscription: asked.subscription, leader_epoch, epoch, end: 30 });
    let again = subscribed(&effects).expect("it asks again").subscription;
    start(&mut rig, again);
    rig.push(again, &[(30, 60, 5)], 40);
    assert_eq!(rig.replica.high_watermark(), 40);
    let after = Rig::recovered(Rig::log(&[(0, 30, 1), (30, 60, 5)]), stale);
    assert!(after.replica.high_watermark() <= 40, "40..50 is not committed: {}", after.replica.high_watermark());
}

#[test]
fn a_flush_from_before_the_cut_is_not_acknowledged() {
    let (mut rig, subscription) = copying();
    rig.push(subscription, &[(0, 10, 3)], 0);
    let generation = rig.replica.generation();
    let lost = subscribed(&rig.step(Input::StreamLost { subscription })).expect("it asks again");
    let (epoch, leader_epoch) = (Some(LeaderEpoch(3)), LeaderEpoch(5));
    let effects = rig.step(Input::Diverged { subscription: lost.subscription, leader_epoch, epoch, end: 4 });
    let again = subscribed(&effects).expect("and again").subscription;
    start(&mut rig, again);
    rig.push(again, &[(4, 12, 5)], 0);
    assert_eq!(rig.step(Input::Flushed { generation, upto: 10 }), []);
    assert_eq!(rig.replica.durable_end(), 0);
}

#[test]
fn it_begins_anew_at_the_leaders_start() {
    let (mut rig, asked) = follow(Rig::log(&[(0, 5, 1)]), 5, false);
    let (subscription, leader_epoch) = (asked.subscription, LeaderEpoch(5));
    let effects = rig.step(Input::BeginAt { subscription, leader_epoch, log_start: 40 });
    assert!(effects.contains(&Effect::Reset { start: 40, keep_aside: false }), "{effects:?}");
    let again = subscribed(&effects).expect("it asks again");
    assert_eq!((again.log_start, again.log_end, again.last_epoch), (40, 40, None));
    assert_eq!(rig.replica.high_watermark(), 40);
}

#[test]
fn a_start_inside_a_batch_takes_the_batch_whole() {
    let (mut rig, asked) = follow(LogFacts::empty(), 0, false);
    let (subscription, leader_epoch) = (asked.subscription, LeaderEpoch(5));
    let effects = rig.step(Input::BeginAt { subscription, leader_epoch, log_start: 40 });
    let again = subscribed(&effects).expect("it asks again").subscription;
    start(&mut rig, again);
    rig.push(again, &[(38, 44, 2), (44, 45, 2)], 45);
    assert_eq!((rig.replica.log_start(), rig.replica.log_end()), (38, 45));
    let advance = Input::Advance { subscription: again, leader_epoch, high_watermark: Some(45), log_start: 40 };
    assert!(rig.step(advance).contains(&Effect::AdvanceStart { to: 40 }));
}

#[test]
fn the_leaders_high_watermark_counts_as_far_as_the_log_and_its_start_as_far_as_that() {
    let (mut rig, subscription) = copying();
    rig.push(subscription, &[(0, 10, 5)], 4);
    assert_eq!(rig.replica.high_watermark(), 4);
    let leader_epoch = LeaderEpoch(5);
    let advance = |high_watermark, log_start| Input::Advance { subscription, leader_epoch, high_watermark, log_start };
    let effects = rig.step(advance(Some(4), 7));
    assert!(effects.contains(&Effect::AdvanceStart { to: 4 }), "7 is not known to be committed: {effects:?}");
    assert_eq!(acknowledged(&effects).map(|ack| ack.log_start), Some(4), "the leader hears where the log begins");
    let effects = rig.step(advance(None, 6));
    assert!(effects.contains(&Effect::AdvanceStart { to: 6 }), "what a leader dropped was committed: {effects:?}");
    rig.step(advance(Some(50), 7));
    assert_eq!((rig.replica.high_watermark(), rig.replica.log_start()), (10, 7));
    rig.step(advance(Some(3), 2));
    assert_eq!((rig.replica.high_watermark(), rig.replica.log_start()), (10, 7), "neither falls");
}

#[test]
fn refusals_pause_and_lost_streams_do_not() {
    let (mut rig, asked) = follow(LogFacts::empty(), 0, true);
    let subscription = asked.subscription;
    assert_eq!(rig.step(Input::Refused { subscription, code: ErrorCode::UnknownLeaderEpoch }), []);
    assert_eq!(rig.replica.next_deadline(rig.now), Some(rig.now + RESUBSCRIBE_PAUSE_MS));
    let second = subscribed(&rig.wait(RESUBSCRIBE_PAUSE_MS)).expect("after the pause").subscription;
    let third = subscribed(&rig.step(Input::StreamLost { subscription: second })).expect("at once").subscription;
    assert!(third > second && second > subscription);
    assert_eq!(rig.step(Input::StreamLost { subscription: second }), [], "noticed before");
}

#[test]
fn a_new_leader_is_followed_at_once_and_the_old_one_let_go() {
    let (mut rig, subscription) = copying();
    let next = PartitionView { partition_epoch: PartitionEpoch(2), ..following(THREE, 6) };
    let effects = rig.assign(next.clone());
    let unsubscribe = Effect::ToLeader { leader: TWO, message: ToLeader::Unsubscribe(subscription) };
    assert_eq!(effects[0], unsubscribe);
    assert_eq!(subscribed(&effects).map(|s| s.leader_epoch), Some(LeaderEpoch(6)));
    let same = PartitionView { partition_epoch: PartitionEpoch(3), ..next };
    assert_eq!(rig.assign(same), [], "the same leader and epoch: nothing to do");
}

#[test]
fn unsynced_bytes_are_reported_as_such_only_after_the_loose_policy_is_noted() {
    let mut os = following(TWO, 5);
    os.config.flush_policy = FlushPolicy::Os;
    let mut rig = Rig::over(LogFacts::empty(), 0);
    let subscription = subscribed(&rig.assign(os.clone())).expect("a subscription").subscription;
    start(&mut rig, subscription);
    let effects = rig.push(subscription, &[(0, 5, 5)], 0);
    let note = effects.iter().position(|e| matches!(e, Effect::NotePolicy(FlushPolicy::Os))).expect("a note");
    let append = effects.iter().position(|e| matches!(e, Effect::Append { .. })).expect("an append");
    assert!(note < append, "{effects:?}");
    assert_eq!(acknowledged(&effects).map(|a| a.noted_policy), Some(FlushPolicy::Sync));
    let noted = acknowledged(&rig.step(Input::PolicyNoted(FlushPolicy::Os)));
    assert_eq!(noted.map(|a| (a.noted_policy, a.log_end)), Some((FlushPolicy::Os, 5)));
    let effects = rig.push(subscription, &[(5, 7, 5)], 0);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Flush { .. })), "{effects:?}");
    let mut sync = PartitionView { partition_epoch: PartitionEpoch(2), ..os };
    sync.config.flush_policy = FlushPolicy::Sync;
    let effects = rig.assign(sync);
    assert!(effects.contains(&Effect::Flush { generation: 0, upto: 7 }), "{effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::NotePolicy(_))), "not before the full sync");
    let effects = rig.flushed(7);
    assert!(effects.contains(&Effect::NotePolicy(FlushPolicy::Sync)), "{effects:?}");
    let ack: FollowerAck = acknowledged(&effects).expect("an acknowledgement");
    assert_eq!(ack.noted_policy, FlushPolicy::Sync, "acted on before it is noted");
}

#[test]
fn no_room_pauses_the_copy_and_goes_on_from_where_it_ended() {
    let (mut rig, subscription) = copying();
    rig.no_room = true;
    rig.push(subscription, &[(0, 5, 5)], 0);
    assert_eq!(rig.replica.log_end(), 0);
    assert_eq!(subscribed(&rig.wait(NO_ROOM_PAUSE_MS)).map(|s| s.log_end), Some(0));
}

#[test]
fn no_room_for_a_cut_changes_nothing_and_it_is_asked_for_again() {
    let (mut rig, asked) = follow(Rig::log(&[(0, 5, 1), (5, 10, 2)]), 2, true);
    let diverged = |subscription| Input::Diverged {
        subscription,
        leader_epoch: LeaderEpoch(5),
        epoch: Some(LeaderEpoch(2)),
        end: 8,
    };
    rig.no_room = true;
    let effects = rig.step(diverged(asked.subscription));
    assert!(effects.contains(&Effect::Truncate { to: 8, keep_aside: false }), "{effects:?}");
    assert_eq!((rig.replica.log_end(), subscribed(&effects)), (10, None));
    let again = subscribed(&rig.wait(NO_ROOM_PAUSE_MS)).expect("it asks again later");
    assert_eq!(again.log_end, 10);
    let effects = rig.step(diverged(again.subscription));
    assert_eq!(subscribed(&effects).map(|s| s.log_end), Some(8), "there is room");
}

#[test]
fn without_a_leader_the_log_end_is_reported_once_per_epoch_and_on_request() {
    let mut rig = Rig::over(Rig::log(&[(0, 5, 1), (5, 9, 3)]), 0);
    let nobody = PartitionView { leader: None, leader_epoch: LeaderEpoch(4), ..view() };
    let effects = rig.assign(nobody.clone());
    let [Effect::ReportLogEnd(report)] = effects[..] else { panic!("{effects:?}") };
    assert_eq!((report.leader_epoch, report.last_epoch, report.log_end), (LeaderEpoch(4), Some(LeaderEpoch(3)), 9));
    assert_eq!(rig.assign(nobody), []);
    assert_eq!(rig.replica.log_end_report(), Some(report));
    rig.assign(PartitionView { partition_epoch: PartitionEpoch(2), ..following(TWO, 5) });
    assert_eq!(rig.replica.log_end_report(), None);
}

#[test]
fn without_its_own_registration_in_the_image_a_replica_is_idle() {
    let mut other = following(TWO, 5);
    other.members.get_mut(&ME).expect("me").broker_epoch = None;
    let mut rig = Rig::over(LogFacts::empty(), 0);
    assert_eq!(rig.assign(other), []);
    assert_eq!(rig.replica.role(), RoleName::Idle);
    let (mut rig, subscription) = copying();
    let effects = rig.step(Input::Withdraw);
    assert_eq!(effects, [Effect::ToLeader { leader: TWO, message: ToLeader::Unsubscribe(subscription) }]);
}

#[test]
fn refusals_in_a_row_are_asked_ever_more_rarely_until_a_push_is_taken() {
    let (mut rig, asked) = follow(LogFacts::empty(), 0, true);
    let (mut subscription, mut pauses) = (asked.subscription, Vec::new());
    let refuse = |rig: &mut Rig, subscription| {
        rig.step(Input::Refused { subscription, code: ErrorCode::NotLeader });
        let mut waited = 0;
        loop {
            waited += 50;
            if let Some(again) = subscribed(&rig.wait(50)) {
                return (waited, again.subscription);
            }
        }
    };
    for _ in 0..70 {
        let (waited, again) = refuse(&mut rig, subscription);
        pauses.push(waited);
        subscription = again;
    }
    assert_eq!(pauses[..6], [50, 100, 200, 400, 800, RESUBSCRIBE_PAUSE_MS_MAX]);
    assert!(pauses[5..].iter().all(|pause| *pause == RESUBSCRIBE_PAUSE_MS_MAX), "bounded");
    start(&mut rig, subscription);
    rig.push(subscription, &[(0, 4, 5)], 0);
    assert_eq!(refuse(&mut rig, subscription).0, RESUBSCRIBE_PAUSE_MS, "it works again");
}

#[test]
fn a_follower_whose_directory_is_not_noted_claims_nothing_as_durable_in_handshake_or_acknowledgement() {
    for policy in [FlushPolicy::Sync, FlushPolicy::Os] {
        let mut view = following(TWO, 5);
        view.config.flush_policy = policy;
        let mut rig = Rig::recovered(LogFacts { noted_policy: Some(policy), ..LogFacts::empty() }, None);
        let subscription = subscribed(&rig.assign(view)).expect("a subscription").subscription;
        start(&mut rig, subscription);
        let effects = rig.push(subscription, &[(0, 5, 5)], 0);
        let note = effects.iter().position(|e| *e == Effect::NoteDirectory).expect("a note");
        let append = effects.iter().position(|e| matches!(e, Effect::Append { .. })).expect("an append");
        assert!(note < append, "{effects:?}");
        rig.flushed(5);
        let again = subscribed(&rig.step(Input::StreamLost { subscription })).expect("it asks again");
        let claim = (again.log_end, again.durable_end, again.noted_policy);
        assert_eq!(claim, (5, 0, FlushPolicy::Sync), "a leader counts this for nothing, whatever its topic says");
        start(&mut rig, again.subscription);
        let ack = acknowledged(&rig.step(Input::DirectoryNoted)).expect("an acknowledgement");
        assert_eq!((ack.log_end, ack.durable_end, ack.noted_policy), (5, 5, policy));
    }
}

#[test]
fn a_log_that_begins_anew_behind_others_is_noted_before_it_counts() {
    let mut rig = Rig::recovered(LogFacts::empty(), None);
    let asked = subscribed(&rig.assign(following(TWO, 5))).expect("a subscription");
    let (subscription, leader_epoch) = (asked.subscription, LeaderEpoch(5));
    let effects = rig.step(Input::BeginAt { subscription, leader_epoch, log_start: 40 });
    let note = effects.iter().position(|e| *e == Effect::NoteDirectory).expect("a note");
    let reset = effects.iter().position(|e| matches!(e, Effect::Reset { .. })).expect("a reset");
    assert!(note < reset, "{effects:?}");
    let again = subscribed(&effects).expect("it asks again");
    assert_eq!((again.log_end, again.durable_end), (40, 0), "an empty log at 40 is more than none at all");
    start(&mut rig, again.subscription);
    let ack = acknowledged(&rig.step(Input::DirectoryNoted)).expect("an acknowledgement");
    assert_eq!((ack.log_end, ack.durable_end), (40, 40));
}

#[test]
fn a_directory_with_records_that_the_registry_lacks_is_noted_at_once() {
    let mut rig = Rig::recovered(Rig::log(&[(0, 5, 1)]), None);
    let effects = rig.assign(following(TWO, 5));
    assert!(effects.contains(&Effect::NoteDirectory), "{effects:?}");
    assert_eq!(subscribed(&effects).map(|s| (s.log_end, s.durable_end)), Some((5, 0)));
}
