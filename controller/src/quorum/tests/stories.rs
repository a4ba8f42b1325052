//! What a quorum does when links are cut, members die, lag, come and go.

use super::super::transport::Call;
use super::super::{ChangeError, Lead, ServeError, Verdict, VoterChange, VoterId, WriteError};
use super::links::{SOON, World, eventually, next_batch, retention, spec, timers};
use crate::limits::SNAPSHOT_LOG_BYTES;
use bytes::Bytes;
use log::storage::memory::{Fault, Op};
use openraft::async_runtime::watch::WatchReceiver;
use protocol::ids::BatchNo;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

const ALL: [u32; 3] = [1, 2, 3];

fn others(id: u32) -> Vec<u32> {
    ALL.into_iter().filter(|other| *other != id).collect()
}

#[tokio::test]
async fn three_members_agree_on_what_was_written() {
    let world = World::start(3).await;
    for value in 1000..1020 {
        world.set(&ALL, value).await;
    }
    let image = world.converged(&ALL).await;
    assert_eq!(retention(&image), Some(1019));
    let status = world.node(world.leader().await.0).status();
    assert_eq!((status.voters.len(), status.learners.len(), status.joint), (3, 0, false));
    assert!(status.verdicts.iter().all(|v| v.continues && v.provably_lossless), "{:?}", status.verdicts);
}

#[tokio::test]
async fn a_batch_decided_on_another_image_is_dropped() {
    let world = World::start(1).await;
    world.set(&[1], 1000).await;
    let (_, term) = world.leader().await;
    let quorum = world.node(1);
    let image = quorum.committed();
    let (first, second) = (next_batch(&image, 2000), next_batch(&image, 3000));
    assert!(matches!(quorum.write(term, first).await, Ok(Verdict::Applied { .. })));
    let dropped = quorum.write(term, second).await;
    assert_eq!(dropped, Ok(Verdict::Dropped { base: image.batch_no, at: BatchNo(image.batch_no.0 + 1) }));
    assert_eq!(retention(&quorum.committed()), Some(2000));
}

#[tokio::test]
async fn a_write_decided_in_another_term_is_refused_before_it_is_appended() {
    let world = World::start(1).await;
    world.set(&[1], 1000).await;
    let (_, term) = world.leader().await;
    let quorum = world.node(1);
    let refused = quorum.write(term + 1, next_batch(&quorum.committed(), 2000)).await;
    assert_eq!(refused, Err(WriteError::NotLeader { term: term + 1 }));
    assert_eq!(retention(&quorum.committed()), Some(1000));
}

#[tokio::test]
async fn an_isolated_leader_stops_being_fresh_and_the_others_go_on() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (old, old_term) = world.leader().await;
    assert!(world.node(old).is_fresh(old_term));
    world.isolate(old);
    world.until("stays fresh without a quorum", old, |quorum| !quorum.is_fresh(old_term)).await;
    // A batch decided by the deposed leader must not survive, whatever it is told.
    let stale = next_batch(&world.node(old).committed(), 6666);
    let node = world.node(old);
    let writing = tokio::spawn(async move { node.write(old_term, stale).await });
    world.set(&others(old), 2000).await;
    let (_, term) = world.leader_among(&others(old)).await;
    assert!(term > old_term);
    world.heal();
    let image = world.converged(&ALL).await;
    assert_eq!(retention(&image), Some(2000));
    let outcome = tokio::time::timeout(SOON, writing).await.expect("answered").expect("no panic");
    assert!(!matches!(outcome, Ok(Verdict::Applied { .. })), "{outcome:?}");
    world.until("does not follow", old, |quorum| !matches!(*quorum.lead().borrow(), Lead::Me { .. })).await;
}

#[tokio::test]
async fn a_member_that_was_cut_off_does_not_disturb_the_leader_when_it_returns() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, term) = world.leader().await;
    let follower = others(leader)[0];
    world.isolate(follower);
    world
        .until("still believes in the leader", follower, |quorum| {
            // Several election timeouts' worth of rounds: without pre-vote each would raise the term.
            quorum.started.elapsed() > Duration::from_millis(timers().election_max_ms * 12)
        })
        .await;
    world.set(&others(follower), 2000).await;
    world.heal();
    world.converged(&ALL).await;
    assert_eq!(world.leader().await, (leader, term), "leader and term are as before");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut_of_everybody() {
    let mut world = World::start(3).await;
    for value in 1000..1010 {
        world.set(&ALL, value).await;
    }
    let (_, term) = world.leader().await;
    for id in ALL {
        world.cut_power(id).await;
    }
    for id in ALL {
        world.boot(id).await;
    }
    let (leader, new_term) = world.leader().await;
    assert_eq!(retention(&world.node(leader).committed()), Some(1009));
    assert!(new_term > term, "a restarted leader takes a new term");
    world.set(&ALL, 2000).await;
    assert_eq!(retention(&*world.converged(&ALL).await), Some(2000));
    assert!(world.halts.lock().iter().all(|(_, reason)| !reason.contains("damage")), "{:?}", world.halts.lock());
}

#[tokio::test]
async fn a_member_that_lags_behind_the_log_gets_a_snapshot() {
    let mut world = World::start(3).await;
    for id in ALL {
        world.cut_power(id).await;
    }
    world.snapshot_every = 10;
    for id in ALL {
        world.boot(id).await;
    }
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let lagging = others(leader)[0];
    world.isolate(lagging);
    for value in 2000..2060 {
        world.set(&others(lagging), value).await;
    }
    let missing = world.node(lagging).status().last_index.unwrap_or(0);
    let (leader, _) = world.leader_among(&others(lagging)).await;
    world.until("purged nothing", leader, |quorum| quorum.status().purged.is_some_and(|p| p > missing)).await;
    world.heal();
    let image = world.converged(&ALL).await;
    assert_eq!(retention(&image), Some(2059));
    assert!(world.node(lagging).status().snapshot.is_some_and(|s| s > missing), "came without a snapshot");
    // And it starts again from what it was given.
    world.cut_power(lagging).await;
    world.boot(lagging).await;
    assert_eq!(world.converged(&ALL).await, image);
}

#[tokio::test]
async fn a_member_that_has_just_started_grants_no_votes() {
    let mut world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let follower = others(leader)[0];
    world.cut_power(follower).await;
    world.boot(follower).await;
    for call in [Call::Vote, Call::PreVote, Call::TransferLeader] {
        let refused = world.node(follower).serve(call, Bytes::new()).await;
        assert_eq!(refused, Err(ServeError::JustStarted), "{call:?}");
    }
    world.until("never votes again", follower, |quorum| !quorum.just_started()).await;
    let asked = world.node(follower).serve(Call::Vote, Bytes::new()).await;
    assert!(matches!(asked, Err(ServeError::Malformed(_))), "{asked:?}");
}

#[tokio::test]
async fn a_fact_of_an_unknown_kind_halts_every_member_with_its_name() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, term) = world.leader().await;
    let quorum = world.node(leader);
    // As `MetadataBatch` stores it: base, one envelope of kind 999, version 3, no bytes.
    let base = u8::try_from(quorum.committed().batch_no.0).expect("few batches");
    let alien = Bytes::from(vec![base, 1, 0xe7, 0x07, 3, 0]);
    let outcome = quorum.write(term, alien).await;
    assert!(!matches!(outcome, Ok(Verdict::Applied { .. })), "{outcome:?}");
    world.halted(2, "unknown kind 999 (version 3)").await;
}

#[tokio::test]
async fn a_failed_sync_halts_that_member_and_the_others_go_on() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    world.disks[&leader].set_hook(Some(Box::new(|call| {
        (call.op == Op::Sync).then(|| Fault::Fail(std::io::Error::other("the disk is gone")))
    })));
    let quorum = world.node(leader);
    let lead = quorum.lead().borrow().clone();
    if let Lead::Me { term } = lead {
        let _whatever_it_says = quorum.write(term, next_batch(&quorum.committed(), 2000)).await;
    }
    world.halted(1, "the disk is gone").await;
    world.set(&others(leader), 3000).await;
}

#[tokio::test]
async fn voters_are_added_replaced_and_removed() {
    let mut world = World::start(3).await;
    world.set(&ALL, 1000).await;
    world.boot(4).await;
    let (leader, _) = world.leader_among(&ALL).await;
    let replaced = others(leader)[0];
    let change = VoterChange { add: vec![spec(4)], remove: vec![spec(replaced).voter], ..VoterChange::default() };
    let planned = world.node(leader).change_voters(VoterChange { dry_run: true, ..change.clone() }, SOON).await;
    assert_eq!(planned.expect("a dry run").voters.len(), 3);
    assert_eq!(world.node(leader).status().learners.len(), 0, "a dry run changes nothing");
    let changed = world.node(leader).change_voters(change, SOON).await.expect("changed");
    assert_eq!(changed.voters.len(), 3);
    let members: Vec<u32> = [4].into_iter().chain(others(replaced)).collect();
    world
        .until("not a voter", 4, |quorum| {
            let status = quorum.status();
            !status.joint && status.voters.iter().any(|v| v.voter == quorum.me())
        })
        .await;
    world.isolate(replaced);
    world.set(&members, 2000).await;
    world.isolate(others(replaced)[0]);
    world.set(&members.iter().copied().filter(|id| *id != others(replaced)[0]).collect::<Vec<_>>(), 3000).await;
}

#[tokio::test]
async fn a_known_voter_gets_a_new_address() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let mut moved = spec(others(leader)[0]);
    moved.node.port = 2;
    let change = VoterChange { add: vec![moved.clone()], ..VoterChange::default() };
    world.node(leader).change_voters(change, SOON).await.expect("changed");
    let status = world.node(leader).status();
    assert!(status.voters.iter().any(|v| v.voter == moved.voter && v.node.port == 2), "{:?}", status.voters);
    assert_eq!((status.voters.len(), status.learners.len(), status.joint), (3, 0, false));
    world.set(&ALL, 2000).await;
    world.converged(&ALL).await;
}

#[tokio::test]
async fn a_wiped_disk_is_another_voter() {
    let mut world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let wiped = others(leader)[0];
    world.cut_power(wiped).await;
    world.disks.remove(&wiped);
    let new = VoterId { id: wiped, directory: uuid::Uuid::from_u128(0xabc) };
    world.boot_as(wiped, new).await;
    let refused = world.node(leader).check_sender(new);
    assert!(matches!(refused, Err(ServeError::AnotherDirectory { id, .. }) if id == wiped), "{refused:?}");
    let mut joining = spec(wiped);
    joining.voter = new;
    let change = VoterChange { add: vec![joining], remove: vec![spec(wiped).voter], ..VoterChange::default() };
    world.node(leader).change_voters(change, SOON).await.expect("replaced");
    assert_eq!(retention(&*world.converged(&ALL).await), Some(1000));
    assert_eq!(world.node(leader).check_sender(new), Ok(()));
    assert!(world.node(leader).check_sender(spec(wiped).voter).is_err(), "the old disk is out");
}

#[tokio::test]
async fn a_voter_that_is_not_there_is_not_added_and_the_quorum_goes_on() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let change = VoterChange { add: vec![spec(9)], ..VoterChange::default() };
    let refused = world.node(leader).change_voters(change, Duration::from_millis(500)).await;
    assert!(matches!(refused, Err(ChangeError::NotCaughtUp { voter, .. }) if voter == spec(9).voter), "{refused:?}");
    let status = world.node(leader).status();
    assert_eq!((status.voters.len(), status.learners.len(), status.joint), (3, 0, false));
    world.set(&ALL, 2000).await;
}

#[tokio::test]
async fn a_layout_that_one_data_centre_decides_is_refused_unless_forced() {
    let mut world = World::start(1).await;
    world.set(&[1], 1000).await;
    world.boot(2).await;
    world.boot(3).await;
    let mut crowded: Vec<_> = [2, 3].into_iter().map(spec).collect();
    crowded.iter_mut().for_each(|s| s.node.locality = "eu/dc9/r1".to_owned());
    let change = VoterChange { add: crowded, ..VoterChange::default() };
    let refused = world.node(1).change_voters(change.clone(), SOON).await;
    assert!(matches!(&refused, Err(ChangeError::Layout(l)) if l.dc == "eu/dc9" && l.held == 2), "{refused:?}");
    assert_eq!(world.node(1).status().voters.len(), 1);
    let forced = world.node(1).change_voters(VoterChange { force: true, ..change }, SOON).await.expect("forced");
    let lost = forced.verdicts.iter().find(|v| v.dc == "eu/dc9").expect("a verdict");
    assert!(!lost.continues && !lost.provably_lossless);
    world.set(&ALL, 2000).await;
}

#[tokio::test]
async fn a_change_that_bears_less_than_before_is_refused_unless_forced() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let remove = others(leader).into_iter().map(|id| spec(id).voter).collect();
    let change = VoterChange { remove, ..VoterChange::default() };
    let refused = world.node(leader).change_voters(change.clone(), SOON).await;
    let Err(ChangeError::Tolerance(lost)) = refused else { panic!("three voters shrank to one: {refused:?}") };
    assert_eq!((lost.what, lost.old, lost.new), ("voters", 1, 0));
    assert_eq!(world.node(leader).status().voters.len(), 3);
    world.node(leader).change_voters(VoterChange { force: true, ..change }, SOON).await.expect("forced");
    assert_eq!(world.node(leader).status().voters.len(), 1);
    world.set(&[leader], 2000).await;
}

#[tokio::test]
async fn a_stopping_leader_hands_over() {
    let mut world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, term) = world.leader().await;
    let quorum = world.node(leader);
    // Nobody stands by itself, so a successor can only come from the hand-over.
    for other in others(leader) {
        world.node(other).raft.runtime_config().elect(false);
    }
    quorum.stop().await;
    world.disks[&leader].kill_process();
    let (_, new_term) = world.leader_among(&others(leader)).await;
    assert!(new_term > term);
    world.set(&others(leader), 2000).await;
    world.boot(leader).await;
    world.converged(&ALL).await;
}

#[tokio::test]
async fn freshness_is_of_one_term_and_ends_before_a_hand_over_begins() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, term) = world.leader().await;
    let quorum = world.node(leader);
    world.until("not fresh with a quorum", leader, |quorum| quorum.is_fresh(term)).await;
    assert!(
        !quorum.is_fresh(term - 1) && !quorum.is_fresh(term + 1),
        "acknowledgements of one term say nothing of another"
    );
    world.lose_hand_overs();
    let stopping = tokio::spawn(async move { quorum.hand_over().await });
    eventually("a hand-over", async || (world.hand_overs() > 0).then_some(())).await;
    assert!(!world.node(leader).is_fresh(term), "the voters may have been told to forget its lease");
    stopping.abort();
}

#[tokio::test]
async fn a_leader_whose_disk_is_nearly_full_hands_over_and_refuses_writes() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, term) = world.leader().await;
    world.disks[&leader].set_free_space(1 << 20);
    world.until("notices that its disk is full", leader, |quorum| quorum.is_disk_full()).await;
    let quorum = world.node(leader);
    let refused = quorum.write(term, next_batch(&quorum.committed(), 2000)).await;
    assert_eq!(refused, Err(WriteError::DiskFull));
    let (successor, _) = world.leader_among(&others(leader)).await;
    world.set(&others(leader), 3000).await;
    // It still votes and follows.
    assert_eq!(retention(&*world.converged(&ALL).await), Some(3000));
    // With everybody full, whoever leads refuses; with room again the cluster goes on.
    for id in ALL {
        world.disks[&id].set_free_space(1 << 20);
    }
    world.until("notices too", successor, |quorum| quorum.is_disk_full()).await;
    let quorum = world.node(successor);
    let refused = quorum.write(term + 1, next_batch(&quorum.committed(), 4000)).await;
    assert_eq!(refused, Err(WriteError::DiskFull));
    for id in ALL {
        world.disks[&id].set_free_space(u64::MAX);
        world.until("notices the room", id, |quorum| !quorum.is_disk_full()).await;
    }
    world.set(&ALL, 5000).await;
}

#[tokio::test]
async fn of_two_full_disks_neither_gets_leadership_while_a_third_has_room() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    world.converged(&ALL).await;
    let (leader, _) = world.leader().await;
    if leader == 1 {
        world.node(1).hand_over().await;
    }
    let (leader, _) = world.leader_among(&[2, 3]).await;
    // The one that does not lead first: it must not become leader by what it has not noticed yet.
    for id in [5 - leader, leader] {
        world.disks[&id].set_free_space(1 << 20);
        world.until("notices that its disk is full", id, |quorum| quorum.is_disk_full()).await;
    }
    world.leader_among(&[1]).await;
    world.set(&[1], 2000).await;
    assert_eq!(retention(&*world.converged(&ALL).await), Some(2000));
    // Nobody has room: whoever leads goes on, so that heartbeats are answered, and refuses to write.
    let (_, term) = world.leader_among(&[1]).await;
    let sent = world.hand_overs();
    world.disks[&1].set_free_space(1 << 20);
    world.until("notices too", 1, |quorum| quorum.is_disk_full()).await;
    let refusals = world.asked_to_lead();
    eventually("asks again", async || (world.asked_to_lead() > refusals + 4).then_some(())).await;
    assert_eq!((world.hand_overs(), world.leader().await), (sent, (1, term)));
}

#[tokio::test]
async fn a_change_of_voters_goes_on_when_its_caller_is_gone() {
    let mut world = World::start(3).await;
    world.set(&ALL, 1000).await;
    world.boot(4).await;
    let (leader, _) = world.leader_among(&ALL).await;
    let change =
        VoterChange { add: vec![spec(4)], remove: vec![spec(others(leader)[0]).voter], ..VoterChange::default() };
    let quorum = world.node(leader);
    {
        let mut asking = std::pin::pin!(quorum.change_voters(change, SOON));
        assert!(futures_util::poll!(&mut asking).is_pending());
    }
    world
        .until("changed without its caller", leader, |quorum| {
            let status = quorum.status();
            !status.joint && status.voters.len() == 3 && status.voters.iter().any(|v| v.voter == spec(4).voter)
        })
        .await;
}

#[tokio::test]
async fn a_membership_left_joint_is_flattened_by_whoever_leads() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let quorum = world.node(leader);
    let observed = quorum.raft.metrics().borrow_watched().membership_config.clone();
    let nodes: BTreeMap<_, _> = observed.membership().nodes().map(|(id, node)| (*id, node.clone())).collect();
    let all: BTreeSet<_> = nodes.keys().copied().collect();
    let two: BTreeSet<_> = [leader, others(leader)[0]].into_iter().map(|id| spec(id).voter).collect();
    let joint = openraft::Membership::new(vec![all, two], nodes).expect("its nodes are known");
    let on = openraft::raft::Precondition::LastMembershipLogId { last_membership_log_id: *observed.log_id() };
    quorum.raft.append_membership(joint, openraft::EntryPayload::Blank, [on]).await.expect("joint");
    world
        .until("still joint", leader, |quorum| {
            let status = quorum.status();
            !status.joint && status.voters.len() == 2
        })
        .await;
}

#[tokio::test]
async fn a_step_of_a_change_rests_on_the_membership_that_was_looked_at() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let quorum = world.node(leader);
    let mut stale = quorum.basis().expect("leads");
    let mut moved = spec(others(leader)[0]);
    moved.node.port = 2;
    quorum.change_voters(VoterChange { add: vec![moved], ..VoterChange::default() }, SOON).await.expect("changed");
    let set = || openraft::ChangeMembers::SetNodes(BTreeMap::from([(spec(leader).voter, spec(leader).node)]));
    let deadline = tokio::time::Instant::now() + SOON;
    assert_eq!(quorum.change(set(), true, &mut stale, deadline).await, Err(ChangeError::Moved));
    let mut present = quorum.basis().expect("leads");
    assert_eq!(quorum.change(set(), true, &mut present, deadline).await, Ok(()));
}

#[tokio::test]
async fn a_snapshot_is_taken_after_so_many_bytes_however_few_the_entries() {
    let world = World::start(1).await;
    world.set(&[1], 1000).await;
    let quorum = world.node(1);
    assert_eq!(quorum.status().snapshot, None);
    let applied = quorum.applied_bytes.load(Ordering::SeqCst);
    assert!(applied > 0, "batches are counted as they are applied");
    quorum.applied_bytes.fetch_add(SNAPSHOT_LOG_BYTES, Ordering::SeqCst);
    world.until("no snapshot", 1, |quorum| quorum.status().snapshot.is_some()).await;
    assert!(quorum.applied_bytes.load(Ordering::SeqCst) < SNAPSHOT_LOG_BYTES, "counted anew");
}
