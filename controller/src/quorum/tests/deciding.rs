//! The deciding loop over a quorum whose links can be cut: what it answers when it cannot know.

use super::super::Lead;
use super::links::{World, eventually, timers};
use crate::decide::command::{Command, Register, Reply};
use crate::decide::sessions::Sessions;
use crate::decider::{Decider, DeciderHandle, Ended};
use crate::limits::DOUBT_PAUSE;
use protocol::error::{Effect, ErrorCode};
use protocol::ids::BrokerId;
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::brokers::BrokerView;
use protocol::metadata::record::{ClusterFormed, Endpoint, Fact};
use std::collections::BTreeMap;
use uuid::Uuid;

const ALL: [u32; 3] = [1, 2, 3];

fn deciders(world: &World) -> BTreeMap<u32, DeciderHandle> {
    ALL.into_iter().map(|id| (id, decider(world, id))).collect()
}

fn decider(world: &World, id: u32) -> DeciderHandle {
    let (decider, handle) = Decider::new(world.node(id), Sessions::new(timers()), Uuid::from_u128(7));
    drop(tokio::spawn(decider.run()));
    handle
}

async fn active_among(deciders: &BTreeMap<u32, DeciderHandle>, ids: &[u32]) -> u32 {
    eventually("an active controller", async || ids.iter().copied().find(|id| deciders[id].is_active())).await
}

fn register(broker: u32) -> Command {
    let endpoint = |port| Endpoint { host: "h".to_owned(), port };
    Command::Register(Register {
        broker: BrokerId(broker),
        incarnation: Uuid::from_u128(u128::from(broker)),
        internal: endpoint(1),
        client: endpoint(2),
        locality: "eu/a/r".parse().expect("a locality"),
        directories: vec![Uuid::from_u128(u128::from(broker) + 100)],
        min_metadata_version: 1,
        max_metadata_version: 1,
        previous_epoch: None,
        seen: BrokerView::default(),
    })
}

#[tokio::test]
async fn standbys_refuse_with_a_hint_and_the_active_controller_answers_from_the_verdict() {
    let world = World::start(3).await;
    let deciders = deciders(&world);
    let active = active_among(&deciders, &ALL).await;
    let answered = deciders[&active].ask(register(1)).await.expect("registered");
    assert!(matches!(answered, Reply::Registered(r) if r.epoch.0 == 1), "{answered:?}");
    assert!(world.node(active).committed().brokers.get(BrokerId(1)).is_some(), "applied before it was answered");
    for (id, standby) in deciders.iter().filter(|(id, _)| **id != active) {
        let refused = standby.ask(register(2)).await.expect_err("a standby");
        assert_eq!(refused.code, ErrorCode::NotController);
        eventually("a hint", async || (standby.hint().node_id == active).then_some(())).await;
        assert!(!standby.may_read(), "controller {id}");
    }
}

#[tokio::test]
async fn a_cut_off_controller_never_claims_an_outcome_it_cannot_know() {
    let world = World::start(3).await;
    let deciders = deciders(&world);
    let old = active_among(&deciders, &ALL).await;
    deciders[&old].ask(register(1)).await.expect("registered");
    let others: Vec<u32> = ALL.into_iter().filter(|id| *id != old).collect();
    world.isolate(old);
    let refused = deciders[&old].ask(register(2)).await.expect_err("cut off");
    eventually("no reads without a quorum", async || (!deciders[&old].may_read()).then_some(())).await;
    let new = active_among(&deciders, &others).await;
    deciders[&new].ask(register(3)).await.expect("the others go on");
    world.heal();
    let image = world.converged(&ALL).await;
    assert!(image.brokers.get(BrokerId(3)).is_some());
    if refused.code.effect() == Effect::None {
        assert!(image.brokers.get(BrokerId(2)).is_none(), "said certainly not, and did: {refused}");
    }
    eventually("the old one steps back", async || (!deciders[&old].is_active()).then_some(())).await;
}

#[tokio::test]
async fn many_commands_share_an_entry_and_each_gets_its_own_answer() {
    let world = World::start(1).await;
    let decider = decider(&world, 1);
    eventually("active", async || decider.is_active().then_some(())).await;
    let before = world.node(1).status().last_index.expect("entries");
    let asked: Vec<_> = (1..=200).map(|id| decider.ask(register(id))).collect();
    let answers = futures_util::future::join_all(asked).await;
    let mut epochs: Vec<u64> = answers
        .into_iter()
        .map(|answer| match answer.expect("registered") {
            Reply::Registered(registered) => registered.epoch.0,
            other => panic!("another answer: {other:?}"),
        })
        .collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=200).collect::<Vec<_>>());
    let entries = world.node(1).status().last_index.expect("entries") - before;
    assert!(entries < 50, "{entries} entries for 200 commands");
}

#[tokio::test]
async fn after_a_write_of_unknown_fate_nobody_decides_until_it_is_settled() {
    let world = World::start(3).await;
    let deciders = deciders(&world);
    let active = active_among(&deciders, &ALL).await;
    deciders[&active].ask(register(1)).await.expect("registered");
    let (quorum, lead) = (world.node(active), world.node(active).lead().borrow().clone());
    let Lead::Me { term } = lead else { panic!("active and does not lead: {lead:?}") };
    world.stall_entries(active);
    let unknown = deciders[&active].ask(register(2)).await.expect_err("no follower got it");
    assert_eq!(unknown.code, ErrorCode::OutcomeUnknown, "{unknown}");
    eventually("it steps back", async || (!deciders[&active].is_active()).then_some(())).await;
    for _ in 0..20 {
        quorum.barrier(term).await.expect("heartbeats still reach everybody");
        assert!(!deciders[&active].is_active(), "active while the fate of its own batch is not known");
    }
    world.heal();
    let active = active_among(&deciders, &ALL).await;
    let image = world.node(active).committed();
    assert_eq!(image, world.converged(&ALL).await, "whoever is active has applied all there is");
}

#[tokio::test]
async fn a_batch_that_was_dropped_is_answered_as_unknown_and_decided_anew() {
    let world = World::start(1).await;
    let (_, term) = world.leader().await;
    let (decider, handle) = Decider::new(world.node(1), Sessions::new(timers()), Uuid::from_u128(7));
    let mut decided = MetadataBatch { base: world.node(1).committed().batch_no, facts: Vec::new() };
    decided.facts.push(Fact::ClusterFormed(ClusterFormed {
        cluster_id: Uuid::from_u128(7),
        incarnation: 1,
        metadata_version: 1,
    }));
    // Another batch comes between the decision and the write.
    world.set(&[1], 1000).await;
    let image = world.node(1).committed();
    let (told, ended) = decider.write(term, &decided).await.expect_err("dropped");
    assert_eq!(told.code, ErrorCode::OutcomeUnknown, "{told}");
    assert!(matches!(ended, Ended::Refused), "the image is known: the barrier is enough");
    assert_eq!(world.node(1).committed(), image, "nothing came of it");
    drop(tokio::spawn(decider.run()));
    eventually("active", async || handle.is_active().then_some(())).await;
    handle.ask(register(1)).await.expect("decided on the new image");
}

#[tokio::test]
async fn a_full_disk_does_not_make_the_decider_spin() {
    let world = World::start(1).await;
    world.leader().await;
    world.disks[&1].set_free_space(1 << 20);
    world.until("notices that its disk is full", 1, |quorum| quorum.is_disk_full()).await;
    // The cluster is not formed yet: forming it is refused again and again.
    let mut decider = decider(&world, 1);
    let begun = tokio::time::Instant::now();
    for _ in 0..5 {
        decider.active.changed().await.expect("the decider runs");
    }
    assert!(begun.elapsed() >= 4 * DOUBT_PAUSE, "five turns in {:?}", begun.elapsed());
}
