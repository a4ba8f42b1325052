//! Plans from images: one story per rule.

use super::*;
use protocol::locality::Locality;
use protocol::metadata::draft::Fold;
use protocol::metadata::record::{
    Assignment, BrokerRef, BrokerRegistered, ClusterFormed, ConfigResource, ConfigSet, Endpoint, Fact,
    PartitionsCreated, TopicCreated, TopicDeleted, TopicPurged,
};
use uuid::Uuid;

const ME: Me = Me { id: BrokerId(1), epoch: BrokerEpoch(1) };

fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

pub(crate) fn at(number: u128, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic(number), partition }
}

/// A registration, neither proved nor let in.
pub(crate) fn registered(image: &mut MetadataImage, id: u32, epoch: u64) {
    let endpoint = Endpoint { host: "h".into(), port: 1 };
    let locality: Locality = format!("eu/dc{id}/r").parse().expect("a legal locality");
    let (broker, epoch) = (BrokerId(id), BrokerEpoch(epoch));
    let seen = image.brokers.view(broker);
    image.fold(&Fact::BrokerRegistered(BrokerRegistered {
        broker,
        epoch,
        incarnation: Uuid::from_u128(u128::from(epoch.0)),
        internal: endpoint.clone(),
        client: endpoint,
        locality,
        directories: vec![Uuid::from_u128(u128::from(id))],
        min_metadata_version: 1,
        max_metadata_version: 1,
        seen,
        proof_admissible: false,
    }));
}

fn register(image: &mut MetadataImage, id: u32, epoch: u64) {
    registered(image, id, epoch);
    let (broker, epoch) = (BrokerId(id), BrokerEpoch(epoch));
    image.fold(&Fact::BrokerProved(BrokerRef { broker, epoch }));
    image.fold(&Fact::BrokerUnfenced(BrokerRef { broker, epoch }));
}

/// A topic whose partition n lives on `replicas[n]`.
fn create(image: &mut MetadataImage, number: u128, replicas: &[&[u32]]) {
    let name = format!("t{number}");
    image.fold(&Fact::TopicCreated(TopicCreated { topic: topic(number), name, replication_factor: 1, created_ms: 0 }));
    let assignments = replicas
        .iter()
        .map(|ids| {
            let ids: Vec<_> = ids.iter().map(|id| BrokerId(*id)).collect();
            Assignment { replicas: ids.clone(), leader: ids.first().copied(), isr: ids }
        })
        .collect();
    image.fold(&Fact::PartitionsCreated(PartitionsCreated { topic: topic(number), first: 0, assignments }));
}

/// Brokers 1 and 2; topic 10: partition 0 on both, 1 on broker 2 alone, 2 on broker 1 alone.
/// Brokers 1 and 2, let in, and no topic.
pub(crate) fn brokers() -> MetadataImage {
    let mut image = MetadataImage::default();
    let formed = ClusterFormed { cluster_id: Uuid::from_u128(9), incarnation: 1, metadata_version: 1 };
    image.fold(&Fact::ClusterFormed(formed));
    register(&mut image, 1, 1);
    register(&mut image, 2, 2);
    image
}

pub(crate) fn image() -> MetadataImage {
    let mut image = brokers();
    create(&mut image, 10, &[&[1, 2], &[2], &[1]]);
    image
}

fn local(places: &[(TopicPartition, Local)]) -> BTreeMap<TopicPartition, Local> {
    places.iter().copied().collect()
}

fn everything(local: &BTreeMap<TopicPartition, Local>, image: &MetadataImage) -> Vec<Op> {
    plan(local, image, ME, Scope::Everything, &BTreeSet::new()).expect("registered")
}

fn short(ops: &[Op]) -> Vec<(&'static str, TopicPartition)> {
    ops.iter()
        .map(|op| match op {
            Op::Purge(at) => ("purge", *at),
            Op::SetAside(at) => ("set aside", *at),
            Op::Park(at) => ("park", *at),
            Op::Open(at) => ("open", *at),
            Op::Assign(at, _) => ("assign", *at),
        })
        .collect()
}

#[test]
fn nothing_is_planned_before_the_image_holds_this_registration() {
    let strays = local(&[(at(77, 0), Local::Closed)]);
    let older = Me { epoch: BrokerEpoch(5), ..ME };
    assert_eq!(plan(&strays, &image(), older, Scope::Everything, &BTreeSet::new()), None);
    assert_eq!(plan(&strays, &MetadataImage::default(), ME, Scope::Everything, &BTreeSet::new()), None);
}

#[test]
fn every_place_is_opened_and_assigned_open_ones_only_assigned() {
    let local = local(&[(at(10, 0), Local::Open)]);
    let ops = everything(&local, &image());
    assert_eq!(short(&ops), [("assign", at(10, 0)), ("open", at(10, 2)), ("assign", at(10, 2))]);
    let Op::Assign(_, view) = &ops[0] else { panic!("an assignment") };
    assert_eq!((view.leader, view.isr.len(), view.members.len()), (Some(BrokerId(1)), 2, 2));
}

#[test]
fn a_plan_repeated_asks_for_nothing_new() {
    let local = local(&[(at(10, 0), Local::Open), (at(10, 2), Local::Open)]);
    let kinds: BTreeSet<_> = short(&everything(&local, &image())).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["assign"].into());
}

#[test]
fn what_the_image_does_not_place_here_is_set_aside_never_purged() {
    let strays = [at(10, 1), at(10, 9), at(77, 0)];
    let mut all: Vec<_> = strays.iter().map(|at| (*at, Local::Closed)).collect();
    all.push((at(10, 0), Local::Open));
    all.push((at(10, 2), Local::Open));
    let ops = everything(&local(&all), &image());
    assert_eq!(short(&ops)[..3], strays.map(|at| ("set aside", at)));
    assert!(!short(&ops).iter().any(|(kind, _)| *kind == "purge"));
}

#[test]
fn a_deleted_topic_is_parked_and_purged_only_by_the_committed_fact() {
    let mut image = image();
    image.fold(&Fact::TopicDeleted(TopicDeleted { topic: topic(10), at_ms: 1 }));
    let open = local(&[(at(10, 0), Local::Open), (at(10, 2), Local::Closed)]);
    assert_eq!(short(&everything(&open, &image)), [("park", at(10, 0)), ("park", at(10, 2))]);
    let parked = local(&[(at(10, 0), Local::Parked), (at(10, 2), Local::Parked)]);
    assert_eq!(short(&everything(&parked, &image)), []);

    let before = image.clone();
    image.fold(&Fact::TopicPurged(TopicPurged { topic: topic(10) }));
    let delta = Delta::between(&before, &image);
    let by_fact = plan(&parked, &image, ME, Scope::Touched(&delta), &[topic(10)].into()).expect("registered");
    assert_eq!(short(&by_fact), [("purge", at(10, 0)), ("purge", at(10, 2))]);
    let by_snapshot = plan(&parked, &image, ME, Scope::Touched(&delta), &BTreeSet::new()).expect("registered");
    assert_eq!(short(&by_snapshot), [("set aside", at(10, 0)), ("set aside", at(10, 2))], "absence makes a stray");
}

#[test]
fn a_topic_made_again_under_its_name_does_not_meet_the_old_data() {
    let mut image = image();
    image.fold(&Fact::TopicDeleted(TopicDeleted { topic: topic(10), at_ms: 1 }));
    create(&mut image, 11, &[&[1]]);
    let ops = everything(&local(&[(at(10, 0), Local::Open)]), &image);
    assert_eq!(short(&ops), [("park", at(10, 0)), ("open", at(11, 0)), ("assign", at(11, 0))]);
}

#[test]
fn a_delta_says_where_to_look() {
    let open = local(&[(at(10, 0), Local::Open), (at(10, 2), Local::Open)]);
    let touched = |change: &dyn Fn(&mut MetadataImage)| {
        let before = image();
        let mut after = before.clone();
        change(&mut after);
        let delta = Delta::between(&before, &after);
        short(&plan(&open, &after, ME, Scope::Touched(&delta), &BTreeSet::new()).expect("registered"))
    };
    assert_eq!(touched(&|_| {}), []);
    let fenced = BrokerRef { broker: BrokerId(2), epoch: BrokerEpoch(2) };
    let neighbour = touched(&|image| image.fold(&Fact::BrokerFenced(fenced)));
    assert_eq!(neighbour, [("assign", at(10, 0))], "the one partition shared with broker 2");
    let config = ConfigSet { resource: ConfigResource::Cluster, key: "min.insync.replicas".into(), value: "1".into() };
    let configs = touched(&|image| image.fold(&Fact::ConfigSet(config.clone())));
    assert_eq!(configs, [("assign", at(10, 0)), ("assign", at(10, 2))], "a config may concern all");
    let more = touched(&|image| create(image, 12, &[&[2], &[1]]));
    assert_eq!(more, [("open", at(12, 1)), ("assign", at(12, 1))]);
}

#[test]
fn a_snapshot_takes_the_same_path_as_batches() {
    let before = image();
    let mut after = before.clone();
    create(&mut after, 12, &[&[1]]);
    after.fold(&Fact::TopicDeleted(TopicDeleted { topic: topic(10), at_ms: 1 }));
    let open = local(&[(at(10, 0), Local::Open), (at(10, 2), Local::Open)]);
    let delta = Delta::between(&before, &after);
    let by_delta = plan(&open, &after, ME, Scope::Touched(&delta), &BTreeSet::new());
    assert_eq!(by_delta, plan(&open, &after, ME, Scope::Everything, &BTreeSet::new()));
}
