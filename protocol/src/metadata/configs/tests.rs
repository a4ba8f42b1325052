//! The schema against its table in the documents, its edges, and who overrides whom.

use super::*;
use crate::ids::BrokerId;
use uuid::Uuid;

/// A row of docs/limits.md. Cells begin without a backtick, which marks constants.
fn row(d: &Definition) -> String {
    let on = match (d.topic, d.broker) {
        (true, _) => "topic, cluster",
        (_, true) => "broker, cluster",
        _ => "cluster",
    };
    format!("| {} | {} | {} | {on} | {} |", d.key, d.default, d.limit(), d.doc)
}

#[test]
fn the_table_of_configs_is_the_schema() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md");
    let text = std::fs::read_to_string(path).expect("docs/limits.md is there");
    let wanted: Vec<String> = SCHEMA.iter().map(row).collect();
    let is_row = |line: &&str| SCHEMA.iter().any(|d| line.starts_with(&format!("| {} |", d.key)));
    let found: Vec<&str> = text.lines().filter(is_row).collect();
    assert_eq!(found, wanted, "docs/limits.md; wanted:\n{}", wanted.join("\n"));
}

#[test]
fn every_default_passes_its_own_check_and_keys_are_unique() {
    let resource =
        |d: &Definition| if d.topic { ConfigResource::Topic(TopicId::default()) } else { ConfigResource::Cluster };
    for definition in SCHEMA {
        assert_eq!(check(resource(definition), definition.key, definition.default), Ok(()));
        assert_eq!(SCHEMA.iter().filter(|d| d.key == definition.key).count(), 1, "{}", definition.key);
        assert!(definition.key.bytes().all(|b| b.is_ascii_lowercase() || b == b'.'), "{}", definition.key);
    }
}

#[test]
fn edges_of_a_range_are_in_and_the_next_number_is_out_with_field_value_and_limit() {
    for definition in SCHEMA {
        let Kind::Integer { min, max } = definition.kind else { continue };
        let given = |value: i128| check(ConfigResource::Cluster, definition.key, &value.to_string());
        assert_eq!((given(min.into()), given(max.into())), (Ok(()), Ok(())), "{}", definition.key);
        for out in [i128::from(min) - 1, i128::from(max) + 1] {
            let error = given(out).expect_err("out of range");
            assert_eq!((error.code, error.field.as_str()), (ErrorCode::InvalidConfig, definition.key));
            assert_eq!((error.value, error.limit), (out.to_string(), definition.limit()));
        }
    }
}

#[test]
fn words_numbers_and_keys_are_taken_as_written_or_not_at_all() {
    let topic = ConfigResource::Topic(TopicId(Uuid::from_u128(1)));
    for bad in ["", " 2", "2 ", "+2x", "two", "0x2", "2.0", "99999999999999999999"] {
        assert!(check(topic, "min.insync.replicas", bad).is_err(), "{bad:?}");
    }
    for bad in ["Sync", "sync ", "", "fsync"] {
        assert!(check(topic, "flush.policy", bad).is_err(), "{bad:?}");
    }
    assert!(check(topic, "delete.grace.ms", "1").expect_err("a cluster key").limit.contains("retention.ms"));
    assert!(check(ConfigResource::Broker(BrokerId(1)), "replica.lag.max.ms", "100").is_ok());
    assert!(check(topic, "replica.lag.max.ms", "100").is_err());
}

#[test]
fn a_topic_takes_its_own_value_before_the_clusters_before_the_default() {
    let topic = TopicId(Uuid::from_u128(1));
    let mut image = MetadataImage::default();
    assert_eq!(image.topic_config(topic).min_insync_replicas, 2);
    image.configs.set(ConfigResource::Cluster, "min.insync.replicas", "3");
    assert_eq!(image.topic_config(topic).min_insync_replicas, 3);
    image.configs.set(ConfigResource::Topic(topic), "min.insync.replicas", "1");
    assert_eq!(image.topic_config(topic).min_insync_replicas, 1);
    image.configs.unset(ConfigResource::Topic(topic), "min.insync.replicas");
    image.configs.unset(ConfigResource::Cluster, "min.insync.replicas");
    assert_eq!(image.configs, ConfigsImage::default(), "nothing set leaves nothing behind");
}

#[test]
fn the_typed_view_reads_every_word_and_the_open_ends() {
    let topic = TopicId(Uuid::from_u128(1));
    let mut image = MetadataImage::default();
    let mut with = |key: &str, value: &str| {
        image.configs.set(ConfigResource::Topic(topic), key, value);
        image.topic_config(topic)
    };
    assert_eq!(with("flush.policy", "os").flush_policy, FlushPolicy::Os);
    assert_eq!(with("flush.policy", "interval").flush_policy, FlushPolicy::Interval);
    assert_eq!(with("unclean.recovery.policy", "longest").unclean_recovery_policy, UncleanRecoveryPolicy::Longest);
    assert_eq!(with("retention.ms", "-1").retention_ms, None);
    assert_eq!(with("retention.ms", "0").retention_ms, Some(0));
    assert_eq!(with("retention.bytes", "-1").retention_bytes, None);
    for policy in [FlushPolicy::Sync, FlushPolicy::Interval, FlushPolicy::Os] {
        assert_eq!(FlushPolicy::from_wire(policy.to_wire()), policy);
        assert_eq!(with("flush.policy", policy.name()).flush_policy, policy);
    }
    assert_eq!(FlushPolicy::from_wire(0), FlushPolicy::Sync, "unknown counts as the strictest");
}
