//! Stories of one broker's life, and the law of the lease.

use super::*;
use proptest::prelude::*;

const GRACE: Millis = 600_000;
const ONE: ControllerId = ControllerId(1);
const TWO: ControllerId = ControllerId(2);
const MINE: BrokerEpoch = BrokerEpoch(7);

struct Story {
    life: Lifecycle,
    now: Millis,
}

impl Story {
    fn new() -> Self {
        Self { life: Lifecycle::new(Timers::default()), now: 10_000 }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.life.step(input, self.now, &mut effects);
        effects
    }

    fn image(&mut self, batch_no: u64, epoch: BrokerEpoch, state: BrokerState, proved: bool) -> Vec<Effect> {
        let me = Some((epoch, state, proved));
        self.step(Input::Image(ImageFacts { batch_no: BatchNo(batch_no), me, grace_ms: GRACE }))
    }

    fn answer(&mut self, seq: u64, committed: u64) -> Vec<Effect> {
        self.step(Input::Answer(answer(ONE, seq, committed)))
    }

    /// The next heartbeat, after one interval.
    fn beat(&mut self) -> Heartbeat {
        self.now += self.life.timers.broker_heartbeat_ms;
        let effects = self.step(Input::Tick);
        let beat = effects.iter().find_map(|e| match e {
            Effect::Heartbeat(heartbeat) => Some(*heartbeat),
            _ => None,
        });
        beat.expect("a heartbeat after every interval")
    }

    /// Registered, stored, proof taken, image at 20 with everything open, unfenced.
    fn active() -> Self {
        let mut story = Self::new();
        story.step(Input::Recovered);
        story.step(Input::Registered { epoch: MINE });
        story.step(Input::EpochStored);
        story.step(Input::ProofTaken);
        story.image(20, MINE, BrokerState::Active, true);
        story.step(Input::Reconciled(BatchNo(20)));
        story
    }
}

fn answer(controller: ControllerId, seq: u64, committed: u64) -> HeartbeatAnswer {
    let committed = BatchNo(committed);
    let renews_at = committed;
    HeartbeatAnswer { controller, seq, active: true, committed, renews_at, fenced: false, may_stop: false, error: None }
}

fn lease(effects: &[Effect]) -> Option<Lease> {
    effects.iter().find_map(|e| match e {
        Effect::Lease(lease) => Some(*lease),
        _ => None,
    })
}

#[test]
fn from_an_opened_disk_to_taking_part() {
    let mut story = Story::new();
    assert_eq!(story.step(Input::Tick), vec![], "nothing before the directories are recovered");
    assert_eq!(story.step(Input::Recovered), vec![Effect::Register]);
    assert_eq!(story.step(Input::Tick), vec![], "one registration at a time");
    assert_eq!(story.step(Input::Registered { epoch: MINE }), vec![Effect::StoreEpoch(MINE)]);
    let effects = story.step(Input::EpochStored);
    assert!(matches!(effects[..], [Effect::Prove(MINE), Effect::Heartbeat(_)]), "{effects:?}");
    assert_eq!(story.life.phase(), Phase::CatchingUp);
    assert_eq!(story.step(Input::ProofTaken), vec![]);

    story.image(20, MINE, BrokerState::Fenced, true);
    assert!(!story.beat().wants_unfence, "its partitions are not open yet");
    story.step(Input::Reconciled(BatchNo(19)));
    assert!(!story.beat().wants_unfence, "what image 20 asks for is not");
    story.step(Input::Reconciled(BatchNo(20)));
    assert_eq!(story.life.phase(), Phase::Waiting);
    story.image(21, MINE, BrokerState::Fenced, true);
    let beat = story.beat();
    assert!(beat.wants_unfence, "a newer image does not take that back");
    assert_eq!((beat.epoch, beat.applied), (MINE, BatchNo(21)));
    story.image(22, MINE, BrokerState::Active, true);
    assert_eq!(story.life.phase(), Phase::Active);
    assert!(!story.beat().wants_unfence);
}

#[test]
fn fenced_again_it_wants_back_once_its_replicas_have_stepped_down() {
    let mut story = Story::active();
    story.image(30, MINE, BrokerState::Fenced, true);
    assert!(!story.beat().wants_unfence);
    story.step(Input::Reconciled(BatchNo(30)));
    assert!(story.beat().wants_unfence);
}

#[test]
fn unfencing_is_wanted_only_with_ones_own_proved_registration_applied() {
    let cases = [
        ("another registration", BrokerEpoch(6), BrokerState::Fenced, true, false),
        ("not proved", MINE, BrokerState::Fenced, false, false),
        ("all there", MINE, BrokerState::Fenced, true, true),
        ("not fenced at all", MINE, BrokerState::Active, true, false),
    ];
    for (what, epoch, state, proved, wanted) in cases {
        let mut story = Story::new();
        story.step(Input::Recovered);
        story.step(Input::Registered { epoch: MINE });
        story.step(Input::EpochStored);
        story.image(20, epoch, state, proved);
        story.step(Input::Reconciled(BatchNo(20)));
        assert_eq!(story.beat().wants_unfence, wanted, "{what}");
    }
}

#[test]
fn no_heartbeat_and_no_proof_before_the_epoch_is_durable() {
    let mut story = Story::new();
    story.step(Input::Recovered);
    story.step(Input::Registered { epoch: MINE });
    story.now += 5_000;
    assert_eq!(story.step(Input::Tick), vec![]);
}

#[test]
fn the_lease_runs_from_the_send_time_not_from_the_answer() {
    let mut story = Story::active();
    let seq = story.beat().seq;
    let sent = story.now;
    story.now += 300;
    let until = sent + story.life.timers.lease_ms;
    assert_eq!(lease(&story.answer(seq, 20)), Some(Lease { valid_until: until, grace_until: until + GRACE }));
}

#[test]
fn the_lease_waits_for_the_batch_number_in_the_answer() {
    let mut story = Story::active();
    let seq = story.beat().seq;
    let sent = story.now;
    assert_eq!(lease(&story.answer(seq, 22)), None, "22 may be the batch that deposes us");
    assert_eq!(lease(&story.image(21, MINE, BrokerState::Active, true)), None);
    story.now += 100;
    let granted = lease(&story.image(22, MINE, BrokerState::Active, true));
    assert_eq!(granted.map(|l| l.valid_until), Some(sent + story.life.timers.lease_ms));
}

#[test]
fn an_answer_that_waits_for_a_batch_that_never_commits_makes_no_feed_stay_behind() {
    let mut story = Story::active();
    let seq = story.beat().seq;
    let given = HeartbeatAnswer { renews_at: BatchNo(21), ..answer(ONE, seq, 20) };
    assert_eq!(lease(&story.step(Input::Answer(given))), None, "21 may commit, and depose us");
    let seq = story.beat().seq;
    assert!(lease(&story.answer(seq, 20)).is_some(), "it was lost: the next answer says so");
    for _ in 0..100 {
        story.now += 100;
        let seq = story.beat().seq;
        story.answer(seq, 20);
        assert!(!story.step(Input::Tick).contains(&Effect::ChangeFeedSource), "all that is committed is applied");
    }
}

#[test]
fn an_answer_that_comes_after_a_whole_lease_grants_nothing() {
    let mut story = Story::active();
    let seq = story.beat().seq;
    story.now += story.life.timers.lease_ms;
    assert_eq!(lease(&story.answer(seq, 20)), None);
}

#[test]
fn only_unfenced_answers_of_the_active_controller_renew() {
    let spoilt: [fn(&mut HeartbeatAnswer); 4] =
        [|a| a.active = false, |a| a.fenced = true, |a| a.error = Some(ErrorCode::NotController), |a| a.seq += 1_000];
    for spoil in spoilt {
        let mut story = Story::active();
        let mut given = answer(ONE, story.beat().seq, 20);
        spoil(&mut given);
        assert_eq!(lease(&story.step(Input::Answer(given))), None, "{given:?}");
        assert_eq!(story.life.lease(), Lease::NONE);
    }
}

#[test]
fn a_late_answer_to_an_older_heartbeat_shortens_nothing() {
    let mut story = Story::active();
    let (first, second) = (story.beat().seq, story.beat().seq);
    story.answer(second, 20);
    let held = story.life.lease();
    assert_eq!(story.answer(first, 20), vec![]);
    assert_eq!(story.life.lease(), held);
}

#[test]
fn being_fenced_takes_the_lease_and_older_answers_do_not_bring_it_back() {
    let mut story = Story::active();
    let (first, second) = (story.beat().seq, story.beat().seq);
    story.answer(first, 20);
    assert_eq!(lease(&story.image(21, MINE, BrokerState::Fenced, true)), Some(Lease::NONE));
    assert_eq!(lease(&story.answer(second, 20)), None, "given before the fencing");
    let third = story.beat().seq;
    assert_eq!(lease(&story.answer(third, 22)), None);
    assert!(lease(&story.image(22, MINE, BrokerState::Active, true)).is_some(), "22 took it back");
}

#[test]
fn a_shorter_grace_holds_at_once() {
    let mut story = Story::active();
    let seq = story.beat().seq;
    story.answer(seq, 20);
    let me = Some((MINE, BrokerState::Active, true));
    let effects = story.step(Input::Image(ImageFacts { batch_no: BatchNo(21), me, grace_ms: 0 }));
    assert_eq!(lease(&effects).map(|l| l.grace_until - l.valid_until), Some(0));
}

#[test]
fn the_proof_is_sent_again_until_the_image_shows_it() {
    let mut story = Story::new();
    story.step(Input::Recovered);
    story.step(Input::Registered { epoch: MINE });
    story.step(Input::EpochStored);
    story.step(Input::ProofFailed(ErrorCode::NotController));
    story.now += PROOF_RETRY_MS;
    assert!(story.step(Input::Tick).contains(&Effect::Prove(MINE)));
    story.step(Input::ProofTaken);
    let seq = story.beat().seq;
    let effects = story.answer(seq, 1);
    assert!(effects.contains(&Effect::Prove(MINE)), "another active controller may not know of it: {effects:?}");
    story.step(Input::ProofTaken);
    story.now += story.life.timers.session_timeout_ms;
    assert!(story.step(Input::Tick).contains(&Effect::Prove(MINE)), "nothing came of it");
    story.step(Input::ProofTaken);
    story.image(20, MINE, BrokerState::Fenced, true);
    story.now += 60_000;
    assert!(!story.step(Input::Tick).contains(&Effect::Prove(MINE)));
}

#[test]
fn a_replaced_process_stops_however_it_learns_of_it() {
    let replaced = vec![Effect::Fatal(FatalReason::Replaced { mine: Some(MINE) })];
    let mut story = Story::active();
    assert_eq!(story.image(30, BrokerEpoch(8), BrokerState::Fenced, false), replaced);
    let mut story = Story::active();
    let stale = HeartbeatAnswer { error: Some(ErrorCode::StaleBrokerEpoch), ..answer(TWO, 1, 30) };
    assert_eq!(story.step(Input::Answer(stale)), replaced);
    assert_eq!(story.step(Input::Tick), vec![], "and does nothing more");
    let mut story = Story::new();
    story.step(Input::Recovered);
    story.image(30, BrokerEpoch(8), BrokerState::Active, true);
    let effects = story.step(Input::Registered { epoch: MINE });
    assert_eq!(effects.last(), Some(&replaced[0]), "replaced before the answer came");
}

#[test]
fn registration_is_retried_where_that_can_help() {
    let mut story = Story::new();
    story.step(Input::Recovered);
    assert_eq!(story.step(Input::RegisterFailed(ErrorCode::NotController)), vec![]);
    story.now += REGISTER_RETRY_MS;
    assert_eq!(story.step(Input::Tick), vec![Effect::Register]);
    let refused = |code| Effect::Fatal(FatalReason::Refused(code));
    let wrong = story.step(Input::RegisterFailed(ErrorCode::WrongCluster));
    assert_eq!(wrong, vec![refused(ErrorCode::WrongCluster)]);
}

#[test]
fn a_registration_refused_as_stale_is_made_again_however_often() {
    let mut story = Story::new();
    story.step(Input::Recovered);
    for _ in 0..100 {
        assert_eq!(
            story.step(Input::RegisterFailed(ErrorCode::StaleBrokerView)),
            vec![],
            "after a pause: the feed moves"
        );
        story.now += REGISTER_RETRY_MS;
        assert_eq!(story.step(Input::Tick), vec![Effect::Register]);
    }
    story.step(Input::Registered { epoch: MINE });
    let late = story.step(Input::RegisterFailed(ErrorCode::StaleBrokerView));
    assert_eq!(late, vec![], "the answer to a copy of the request says nothing to a registered process");
    assert_eq!(story.life.epoch(), Some(MINE));
}

#[test]
fn a_predecessor_with_another_disk_is_given_a_session_to_end() {
    let mut story = Story::new();
    story.step(Input::Recovered);
    let duplicate = Input::RegisterFailed(ErrorCode::DuplicateBroker);
    let until = story.now + story.life.timers.session_timeout_ms;
    while story.now < until {
        assert_eq!(story.step(duplicate), vec![]);
        story.now += REGISTER_RETRY_MS;
        assert_eq!(story.step(Input::Tick), vec![Effect::Register]);
    }
    let refused = Effect::Fatal(FatalReason::Refused(ErrorCode::DuplicateBroker));
    assert_eq!(story.step(duplicate), vec![refused], "it lives: two of one id never go on");
}

#[test]
fn a_controlled_shutdown_ends_by_an_answer_to_its_own_wish() {
    let mut story = Story::active();
    let before = story.beat().seq;
    let effects = story.step(Input::Stop);
    assert!(matches!(effects[..], [Effect::Heartbeat(Heartbeat { wants_shutdown: true, .. })]), "{effects:?}");
    let may_stop = |seq| Input::Answer(HeartbeatAnswer { may_stop: true, ..answer(ONE, seq, 20) });
    assert!(!story.step(may_stop(before)).contains(&Effect::Stopped { released: true }));
    let seq = story.beat().seq;
    assert!(story.step(may_stop(seq)).contains(&Effect::Stopped { released: true }));
    assert_eq!(story.life.phase(), Phase::Stopped);
}

#[test]
fn a_shutdown_without_release_ends_after_its_patience_and_without_registration_at_once() {
    let mut story = Story::active();
    story.step(Input::Stop);
    story.now += STOP_PATIENCE_MS;
    assert!(story.step(Input::Tick).contains(&Effect::Stopped { released: false }));
    let mut story = Story::new();
    assert_eq!(story.step(Input::Stop), vec![Effect::Stopped { released: true }]);
}

#[test]
fn a_feed_that_stays_behind_is_changed_one_that_follows_is_not() {
    let mut story = Story::active();
    let timeout = story.life.timers.session_timeout_ms;
    let seq = story.beat().seq;
    story.answer(seq, 25);
    story.now += timeout - 1;
    assert!(!story.step(Input::Tick).contains(&Effect::ChangeFeedSource));
    story.image(25, MINE, BrokerState::Active, true);
    story.now += timeout;
    assert!(!story.step(Input::Tick).contains(&Effect::ChangeFeedSource), "it caught up in time");
    let seq = story.beat().seq;
    story.answer(seq, 40);
    story.image(39, MINE, BrokerState::Active, true);
    story.now += timeout;
    assert!(story.step(Input::Tick).contains(&Effect::ChangeFeedSource));
}

#[test]
fn before_any_registration_too_a_feed_that_stays_behind_is_changed() {
    let mut story = Story::new();
    story.step(Input::Recovered);
    story.step(Input::ActiveStands(BatchNo(168)));
    let timeout = story.life.timers.session_timeout_ms;
    assert_eq!(story.life.next_deadline(), Some(story.now + timeout));
    story.step(Input::Image(ImageFacts { batch_no: BatchNo(12), me: None, grace_ms: GRACE }));
    story.now += timeout - 1;
    assert_eq!(story.step(Input::Tick), []);
    story.now += 1;
    assert_eq!(story.step(Input::Tick), [Effect::ChangeFeedSource]);
    story.step(Input::ActiveStands(BatchNo(169)));
    story.step(Input::Image(ImageFacts { batch_no: BatchNo(169), me: None, grace_ms: GRACE }));
    story.now += timeout;
    assert_eq!(story.step(Input::Tick), [], "it has got there");
}

#[test]
fn the_next_deadline_never_lets_a_duty_wait() {
    let mut story = Story::active();
    let at = story.life.next_deadline().expect("heartbeats never end");
    story.now = at;
    assert!(story.step(Input::Tick).iter().any(|e| matches!(e, Effect::Heartbeat(_))));
    assert_eq!(story.life.next_deadline(), Some(at + story.life.timers.broker_heartbeat_ms));
}

#[derive(Debug, Clone)]
enum Event {
    Beat,
    Answer { back: u64, ahead: u64, controller: u32, fenced: bool },
    Apply { by: u64, fenced: bool },
    Wait(Millis),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Beat),
        4 => (0u64..6, 0u64..4, 1u32..4, proptest::bool::weighted(0.1))
            .prop_map(|(back, ahead, controller, fenced)| Event::Answer { back, ahead, controller, fenced }),
        2 => (0u64..4, proptest::bool::weighted(0.1)).prop_map(|(by, fenced)| Event::Apply { by, fenced }),
        2 => (1u64..300).prop_map(Event::Wait),
    ]
}

proptest! {
    /// A lease that holds was granted by an answered heartbeat no older than L whose batch number is applied.
    #[test]
    fn a_held_lease_has_an_applied_answer_behind_it(events in proptest::collection::vec(event(), 1..200)) {
        let mut story = Story::active();
        let (mut sent, mut granted) = (std::collections::BTreeMap::new(), Vec::new());
        let (mut applied, mut committed) = (20, 20);
        for event in events {
            match event {
                Event::Beat => {
                    let beat = story.beat();
                    sent.insert(beat.seq, story.now);
                }
                Event::Answer { back, ahead, controller, fenced } => {
                    let Some((seq, at)) = sent.iter().rev().nth(back as usize).map(|(s, a)| (*s, *a)) else { continue };
                    committed = committed.max(applied) + ahead;
                    let given = HeartbeatAnswer { fenced, ..answer(ControllerId(controller), seq, committed) };
                    story.step(Input::Answer(given));
                    if !fenced {
                        granted.push((committed, at + story.life.timers.lease_ms));
                    }
                }
                Event::Apply { by, fenced } => {
                    applied += by;
                    let state = if fenced { BrokerState::Fenced } else { BrokerState::Active };
                    story.image(applied, MINE, state, true);
                    if fenced {
                        prop_assert_eq!(story.life.lease(), Lease::NONE);
                    }
                }
                Event::Wait(ms) => story.now += ms,
            }
            let lease = story.life.lease();
            if lease.valid_until > story.now {
                let covered = granted.iter().any(|(no, until)| *no <= applied && *until >= lease.valid_until);
                prop_assert!(covered, "{:?} at {} applied {}", lease, story.now, applied);
                prop_assert_eq!(lease.grace_until, lease.valid_until + GRACE);
            }
        }
    }
}
