//! Changes of the voters that are cut short: what the caller is told, and what becomes of them.

use super::super::{ChangeError, Quorum, VoterChange, VoterChanged, VoterId};
use super::links::{SOON, World, spec};
use openraft::ChangeMembers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ALL: [u32; 3] = [1, 2, 3];

fn others(id: u32) -> Vec<u32> {
    ALL.into_iter().filter(|other| *other != id).collect()
}

/// Worlds in which the circumstances are looked for: on a busy machine a leader may lose its place before.
const WORLDS_MAX: u32 = 20;

/// A switch of voters under answers that come after the lease: the joint membership commits, the entry that ends it is
/// refused. What the caller is told must agree with what comes of it, whatever happened before on this machine.
/// None: the leader did not come to the switch. True: it was cut short, and completed after all.
async fn switch_under_late_answers() -> Option<bool> {
    let mut world = World::start(3).await;
    world.set(&ALL, 1000).await;
    world.boot(4).await;
    let (leader, _) = world.leader_among(&ALL).await;
    let quorum = world.node(leader);
    for other in others(leader).into_iter().chain([4]) {
        world.node(other).raft.runtime_config().elect(false);
    }
    // Known and caught up before: only the switch to the new voters is cut short.
    let mut basis = quorum.basis().ok()?;
    let learner = ChangeMembers::SetNodes(BTreeMap::from([(spec(4).voter, spec(4).node)]));
    quorum.change(learner, true, &mut basis, tokio::time::Instant::now() + SOON).await.ok()?;
    world.until("does not catch up", 4, |learner| learner.status().applied == quorum.status().applied).await;
    let before = members(&quorum);
    let old = spec(others(leader)[0]).voter;
    let target: BTreeSet<_> = before.iter().copied().filter(|v| *v != old).chain([spec(4).voter]).collect();
    world.answer_late(leader);
    let told = quorum.switch(target.clone(), &mut basis, tokio::time::Instant::now() + SOON).await;
    world.heal();
    for id in [1, 2, 3, 4] {
        world.node(id).raft.runtime_config().elect(true);
    }
    world.set(&[1, 2, 3, 4], 2000).await;
    world.until("stays joint", leader, |quorum| !quorum.status().joint).await;
    let taken = members(&quorum) == target;
    assert!(taken || members(&quorum) == before, "neither the old voters nor the wanted ones: {:?}", members(&quorum));
    match told {
        Ok(()) => assert!(taken, "told as done, and undone"),
        Err(ChangeError::Unknown(_)) => {}
        Err(ref refused) => assert!(!taken, "told as refused, and done: {refused:?}"),
    }
    Some(matches!(told, Err(ChangeError::Unknown(_))) && taken)
}

fn members(quorum: &Quorum) -> BTreeSet<VoterId> {
    quorum.status().voters.iter().map(|v| v.voter).collect()
}

#[tokio::test]
async fn a_change_that_committed_half_is_never_told_as_refused() {
    for _ in 0..WORLDS_MAX {
        if switch_under_late_answers().await == Some(true) {
            return;
        }
    }
    panic!("no change was cut short in {WORLDS_MAX} worlds");
}

#[tokio::test]
async fn a_switch_that_others_completed_is_told_as_done() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let quorum = world.node(leader);
    let stale = quorum.basis().expect("leads");
    let gone = spec(others(leader)[0]).voter;
    let change = VoterChange { remove: vec![gone], force: true, ..VoterChange::default() };
    quorum.change_voters(change, SOON).await.expect("removed");
    let voters = |without: Option<_>| ALL.into_iter().map(|id| spec(id).voter).filter(move |v| Some(*v) != without);
    let deadline = tokio::time::Instant::now() + SOON;
    let done = quorum.switch(voters(Some(gone)).collect(), &mut { stale }, deadline).await;
    assert_eq!(done, Ok(()), "the membership is the wanted one");
    let moved = quorum.switch(voters(None).collect(), &mut { stale }, deadline).await;
    assert!(matches!(moved, Err(ChangeError::Unknown(_))), "it moved since, who knows by whom: {moved:?}");
}

#[tokio::test]
async fn a_leader_that_was_removed_changes_the_voters_no_more() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let quorum = world.node(leader);
    let remove = VoterChange { remove: vec![spec(leader).voter], force: true, ..VoterChange::default() };
    quorum.change_voters(remove, SOON).await.expect("removed");
    // At once: Raft has not let go of its leadership yet.
    let again = VoterChange { add: vec![spec(leader)], force: true, ..VoterChange::default() };
    assert_eq!(quorum.change_voters(again, SOON).await, Err(ChangeError::NotLeader));
}

#[tokio::test]
async fn a_leader_that_was_removed_vouches_for_nothing() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, term) = world.leader().await;
    let quorum = world.node(leader);
    assert!(quorum.quorum_ack_age(term).is_some(), "it leads");
    let remove = VoterChange { remove: vec![spec(leader).voter], force: true, ..VoterChange::default() };
    quorum.change_voters(remove, SOON).await.expect("removed");
    // At once: Raft has not let go of its leadership yet, and its last round is young.
    assert_eq!(quorum.quorum_ack_age(term), None);
    assert!(!quorum.is_fresh(term));
}

#[tokio::test]
async fn a_step_of_a_change_rests_on_the_term_it_was_judged_in() {
    let world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, _) = world.leader().await;
    let quorum = world.node(leader);
    let present = quorum.basis().expect("leads");
    let mut late = present;
    late.term += 1;
    let set = || ChangeMembers::SetNodes(BTreeMap::from([(spec(leader).voter, spec(leader).node)]));
    let deadline = tokio::time::Instant::now() + SOON;
    assert_eq!(quorum.change(set(), true, &mut late, deadline).await, Err(ChangeError::Moved));
    assert_eq!(quorum.change(set(), true, &mut { present }, deadline).await, Ok(()), "only the term was another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_change_is_ended_by_the_next_one() {
    let world = World::start(1).await;
    world.set(&[1], 1000).await;
    world.leader().await;
    let runtime = tokio::runtime::Handle::current();
    // From outside the runtime's threads: there a task may run, and end, before its spawner goes on.
    let asking = |quorum: Arc<super::super::Quorum>| {
        let runtime = runtime.clone();
        move || {
            let mut told: Vec<Result<VoterChanged, ChangeError>> = Vec::new();
            while told.len() < 1_000 {
                let change = VoterChange { dry_run: true, ..VoterChange::default() };
                match runtime.block_on(quorum.change_voters(change, SOON)) {
                    Err(ChangeError::InProgress) => std::thread::yield_now(),
                    other => told.push(other),
                }
            }
            told
        }
    };
    let askers: Vec<_> = (0..4).map(|_| tokio::task::spawn_blocking(asking(world.node(1)))).collect();
    for asker in askers {
        for told in asker.await.expect("no panic") {
            assert!(told.is_ok(), "a dry run of one voter was ended by another: {told:?}");
        }
    }
}
