//! Leading: who leaves the ISR, who joins, and what an unanswered change means.

use super::super::LogFacts;
use super::super::input::{Acks, Input, IsrOutcome, SubscriptionId};
use super::super::limits::ISR_RETRY_PAUSE_MS;
use super::super::view::PartitionView;
use super::harness::*;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, LeaderEpoch, PartitionEpoch};

fn three() -> Rig {
    let mut rig = Rig::leader();
    rig.subscribe(TWO, 1, 0, None);
    rig.subscribe(THREE, 1, 0, None);
    rig
}

/// Leads with ISR {1, 2}, both level at 10; follower 3 is not subscribed.
fn two_of_three() -> Rig {
    let mut rig = Rig::over(LogFacts::empty(), 0);
    rig.assign(PartitionView { isr: [ME, TWO].into(), ..view() });
    rig.subscribe(TWO, 1, 0, None);
    rig.produce(Acks::All, 10);
    rig.flushed(10);
    rig.acked(TWO, 1, 10);
    assert_eq!(rig.replica.high_watermark(), 10);
    rig
}

fn shrunk(epoch: u32) -> PartitionView {
    PartitionView { isr: [ME, TWO].into(), partition_epoch: PartitionEpoch(epoch), ..view() }
}

#[test]
fn a_member_leaves_after_the_lag_time_and_the_time_begins_with_the_batch_it_lacks() {
    let mut rig = three();
    rig.now += 60_000;
    rig.produce(Acks::All, 1);
    rig.acked(TWO, 1, 1);
    assert_eq!(proposed(&rig.wait(LAG - 1)), None, "an idle minute before the batch does not count");
    assert_eq!(proposed(&rig.wait(1)), Some((1, vec![ME, TWO])));
    assert_eq!(proposed(&rig.wait(60_000)), None, "one change in flight");
}

#[test]
fn a_member_that_follows_closely_under_load_stays() {
    let mut rig = three();
    for n in 1..100 {
        rig.produce(Acks::None, 1);
        rig.flushed(n);
        rig.acked(TWO, 1, n);
        rig.acked(THREE, 1, n - 1);
        assert_eq!(proposed(&rig.wait(LAG / 10)), None, "one batch behind for {n} batches");
    }
}

#[test]
fn a_lost_subscription_gives_the_lag_time_from_the_loss() {
    let mut rig = three();
    rig.now += 60_000;
    let subscription = super::super::input::SubscriptionId(1);
    rig.step(Input::Unsubscribed { follower: THREE, subscription });
    assert_eq!(proposed(&rig.wait(LAG - 1)), None);
    assert_eq!(rig.replica.next_deadline(rig.now), Some(rig.now + 1));
    assert_eq!(proposed(&rig.wait(1)), Some((1, vec![ME, TWO])));
}

#[test]
fn a_pending_shrink_still_waits_for_the_member_it_drops() {
    let mut rig = three();
    rig.produce(Acks::All, 1);
    rig.flushed(1);
    rig.acked(TWO, 1, 1);
    rig.wait(LAG);
    rig.step(Input::IsrResult { attempt: 1, outcome: IsrOutcome::Committed(PartitionEpoch(2)) });
    assert_eq!(rig.replica.high_watermark(), 0, "our image does not show it yet");
    assert_eq!(written(&rig.assign(shrunk(2))), [(1, 0)]);
}

#[test]
fn growth_needs_high_watermark_and_epoch_start_durably() {
    let mut rig = two_of_three();
    assert_eq!(proposed(&rig.subscribe(THREE, 1, 9, Some(1))), None, "below the high watermark");
    assert_eq!(proposed(&rig.step(Input::Ack(rig.ack(THREE, 1, 10, 9)))), None, "reached, but not durably");
    assert_eq!(proposed(&rig.acked(THREE, 1, 10)), Some((1, vec![ME, TWO, THREE])));

    let mut rig = Rig::over(Rig::log(&[(0, 10, 1)]), 4);
    rig.assign(PartitionView { isr: [ME, TWO].into(), leader_epoch: LeaderEpoch(2), ..view() });
    assert_eq!(proposed(&rig.subscribe(THREE, 1, 6, Some(1))), None, "a new leader's high watermark is old");
    assert_eq!(proposed(&rig.acked(THREE, 1, 10)), Some((1, vec![ME, TWO, THREE])));
}

#[test]
fn growth_is_for_those_who_may_count_under_the_registration_in_the_image() {
    let spoilt: [fn(&mut super::super::view::Member); 3] =
        [|m| m.active = false, |m| m.counts = false, |m| m.broker_epoch = Some(BrokerEpoch(99))];
    for spoil in spoilt {
        let mut rig = two_of_three();
        let mut changed = shrunk(2);
        rig.subscribe(THREE, 1, 5, Some(1));
        spoil(changed.members.get_mut(&THREE).expect("a member"));
        rig.assign(changed.clone());
        assert_eq!(proposed(&rig.acked(THREE, 1, 10)), None, "{changed:?}");
    }
}

#[test]
fn a_pending_growth_counts_in_the_high_watermark_at_once() {
    let mut rig = two_of_three();
    rig.subscribe(THREE, 1, 10, Some(1));
    rig.produce(Acks::All, 1);
    rig.flushed(11);
    assert_eq!(written(&rig.acked(TWO, 1, 11)), [], "3 may be in the committed ISR by now");
    assert_eq!(written(&rig.acked(THREE, 1, 11)), [(2, 10)]);
}

#[test]
fn only_a_definite_refusal_takes_a_proposal_back() {
    let refused = |code| IsrOutcome::Refused(code);
    let cases = [
        (refused(ErrorCode::IneligibleReplica), true),
        (refused(ErrorCode::OperationNotAttempted), true),
        (refused(ErrorCode::NotController), true),
        (IsrOutcome::Unknown, false),
        (refused(ErrorCode::OutcomeUnknown), false),
        (refused(ErrorCode::Timeout), false),
        (refused(ErrorCode::NewLeaderElected), false),
    ];
    for (outcome, reverts) in cases {
        let mut rig = two_of_three();
        rig.subscribe(THREE, 1, 10, Some(1));
        let subscription = super::super::input::SubscriptionId(1);
        rig.step(Input::Unsubscribed { follower: THREE, subscription });
        rig.step(Input::IsrResult { attempt: 1, outcome });
        rig.produce(Acks::All, 1);
        rig.flushed(11);
        let answered = written(&rig.acked(TWO, 1, 11)) == [(2, 10)];
        assert_eq!(answered, reverts, "{outcome:?}");
    }
}

#[test]
fn a_doubtful_growth_counts_until_the_partition_epoch_moves_whatever_a_later_attempt_is_told() {
    let mut rig = two_of_three();
    rig.subscribe(THREE, 1, 10, Some(1));
    rig.step(Input::IsrResult { attempt: 1, outcome: IsrOutcome::Unknown });
    let again = proposed(&rig.wait(ISR_RETRY_PAUSE_MS));
    assert_eq!(again, Some((2, vec![ME, TWO, THREE])), "asked again, so that it is settled");
    let outcome = IsrOutcome::Refused(ErrorCode::IneligibleReplica);
    rig.step(Input::IsrResult { attempt: 2, outcome });
    rig.produce(Acks::All, 1);
    rig.flushed(11);
    assert_eq!(written(&rig.acked(TWO, 1, 11)), [], "the first attempt may still arrive");
    assert_eq!(written(&rig.assign(shrunk(2))), [(2, 10)], "not any more");
}

#[test]
fn a_doubtful_growth_whose_follower_stays_away_is_settled_and_holds_nothing_up() {
    let mut rig = two_of_three();
    rig.subscribe(THREE, 1, 10, Some(1));
    rig.step(Input::IsrResult { attempt: 1, outcome: IsrOutcome::Unknown });
    rig.step(Input::Unsubscribed { follower: THREE, subscription: SubscriptionId(1) });
    rig.produce(Acks::All, 1);
    rig.flushed(11);
    assert_eq!(written(&rig.acked(TWO, 1, 11)), [], "3 may be in the committed ISR by now");
    // A controller that finds 3 unfit and commits anything else.
    for round in 0..10 {
        let Some((attempt, isr)) = proposed(&rig.wait(ISR_RETRY_PAUSE_MS)) else { panic!("round {round}: not asked") };
        if isr.contains(&THREE) {
            let outcome = IsrOutcome::Refused(ErrorCode::IneligibleReplica);
            rig.step(Input::IsrResult { attempt, outcome });
            continue;
        }
        assert_eq!(isr, [ME, TWO], "what is committed, so that the partition epoch moves past the growth");
        rig.step(Input::IsrResult { attempt, outcome: IsrOutcome::Committed(PartitionEpoch(2)) });
        assert_eq!(written(&rig.assign(shrunk(2))), [(2, 10)]);
        return;
    }
    panic!("a growth of unknown fate holds the partition up for ever");
}

#[test]
fn a_member_registered_anew_cannot_be_committed_by_a_late_proposal() {
    let mut rig = two_of_three();
    rig.subscribe(THREE, 1, 10, Some(1));
    rig.step(Input::IsrResult { attempt: 1, outcome: IsrOutcome::Unknown });
    rig.produce(Acks::All, 1);
    rig.flushed(11);
    assert_eq!(written(&rig.acked(TWO, 1, 11)), []);
    let mut anew = PartitionView { isr: [ME, TWO].into(), ..view() };
    anew.members.get_mut(&THREE).expect("a member").broker_epoch = Some(BrokerEpoch(50));
    assert_eq!(written(&rig.assign(anew)), [(2, 10)]);
}

#[test]
fn a_member_that_holds_less_than_the_high_watermark_leaves_at_once() {
    let mut rig = three();
    rig.produce(Acks::All, 5);
    rig.flushed(5);
    rig.acked(TWO, 1, 5);
    rig.acked(THREE, 1, 5);
    assert_eq!(rig.replica.high_watermark(), 5);
    assert_eq!(proposed(&rig.subscribe(THREE, 2, 2, Some(1))), Some((1, vec![ME, TWO])));
}

#[test]
fn a_change_names_every_member_by_registration_and_leaves_out_who_is_fenced() {
    let mut rig = three();
    let mut fenced = PartitionView { partition_epoch: PartitionEpoch(2), ..view() };
    fenced.members.get_mut(&TWO).expect("a member").active = false;
    rig.assign(fenced);
    rig.produce(Acks::All, 1);
    rig.acked(TWO, 1, 1);
    let effects = rig.wait(LAG);
    assert_eq!(proposed(&effects), Some((1, vec![ME])), "naming 2 would have the whole change refused");
    let named = effects.iter().find_map(|e| match e {
        super::super::Effect::AlterPartition { leader_epoch, partition_epoch, new_isr, .. } => {
            Some((*leader_epoch, *partition_epoch, new_isr.clone()))
        }
        _ => None,
    });
    assert_eq!(named, Some((LeaderEpoch(1), PartitionEpoch(2), vec![(ME, epoch_of(ME))])));
}

#[test]
fn a_position_of_a_former_registration_is_forgotten_when_the_image_shows_the_new_one() {
    let mut rig = three();
    rig.produce(Acks::All, 1);
    rig.flushed(1);
    rig.acked(TWO, 1, 1);
    let late = rig.ack(THREE, 1, 1, 1);
    let mut anew = view();
    anew.members.get_mut(&THREE).expect("a member").broker_epoch = Some(BrokerEpoch(50));
    let effects = rig.assign(anew);
    let subscription = super::super::input::SubscriptionId(1);
    assert_eq!(effects, [super::super::Effect::StopPump { follower: THREE, subscription }]);
    assert_eq!(written(&rig.step(Input::Ack(late))), [], "what it held before its restart vouches for nothing");
}

#[test]
fn a_leader_on_its_way_out_proposes_nothing() {
    let mut rig = three();
    let mut leaving = view();
    leaving.members.get_mut(&ME).expect("me").active = false;
    rig.assign(leaving);
    rig.produce(Acks::None, 1);
    assert_eq!(proposed(&rig.wait(LAG)), None);
    assert_eq!(rig.replica.next_deadline(rig.now), None, "and asks for no ticks");
}

#[test]
fn an_answer_to_a_change_of_before_is_ignored() {
    let mut rig = two_of_three();
    rig.subscribe(THREE, 1, 10, Some(1));
    rig.assign(PartitionView { partition_epoch: PartitionEpoch(3), ..view() });
    assert_eq!(rig.step(Input::IsrResult { attempt: 1, outcome: IsrOutcome::Unknown }), []);
    assert_eq!(rig.replica.describe(rig.now).isr_state, "committed");
}

#[test]
fn a_late_refusal_of_an_earlier_leaderships_attempt_takes_nothing_back() {
    let mut rig = two_of_three();
    let (earlier, _) = proposed(&rig.subscribe(THREE, 1, 10, Some(1))).expect("a growth in the first leadership");
    let epochs = (LeaderEpoch(2), PartitionEpoch(2));
    rig.assign(PartitionView { isr: [ME, TWO].into(), leader_epoch: epochs.0, partition_epoch: epochs.1, ..view() });
    rig.subscribe(TWO, 2, 10, Some(1));
    let (now, _) = proposed(&rig.subscribe(THREE, 2, 10, Some(1))).expect("a growth in the second leadership");
    let outcome = IsrOutcome::Refused(ErrorCode::FencedLeaderEpoch);
    rig.step(Input::IsrResult { attempt: earlier, outcome });
    rig.produce(Acks::All, 1);
    rig.flushed(11);
    assert_eq!(written(&rig.acked(TWO, 2, 11)), [], "the change of this leadership may be committed by now");
    let answered = rig.step(Input::IsrResult { attempt: now, outcome });
    assert_eq!(written(&answered), [(2, 10)], "its own refusal takes it back");
}

#[test]
fn a_retry_that_was_due_while_nobody_looked_is_still_due() {
    let mut rig = two_of_three();
    rig.subscribe(THREE, 1, 10, Some(1));
    rig.step(Input::IsrResult { attempt: 1, outcome: IsrOutcome::Unknown });
    let due = rig.now + ISR_RETRY_PAUSE_MS;
    assert_eq!(rig.replica.next_deadline(due + 60_000), Some(due), "asked after a turn that took its time");
    assert!(proposed(&rig.wait(60_000)).is_some());
    assert_eq!(rig.replica.next_deadline(rig.now), None, "and only once");
}
