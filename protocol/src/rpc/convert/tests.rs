//! What survives the wire, what is refused, and that no unknown outcome ever reads as a definite one.

use super::*;
use crate::error::{Effect, Next};
use proptest::prelude::*;

fn any_error() -> impl Strategy<Value = ApiError> {
    let hint = (0u32..9, "[a-z0-9.-]{0,9}", 1u16.., proptest::option::of(any::<u32>())).prop_map(
        |(node_id, host, port, leader_epoch)| {
            let port = if host.is_empty() { 0 } else { port };
            Hint { node_id, host, port, leader_epoch }
        },
    );
    let texts = (".{0,20}", ".{0,20}", ".{0,20}", ".{0,20}");
    (0..ErrorCode::ALL.len(), texts, proptest::option::of(hint)).prop_map(
        |(code, (message, field, value, limit), hint)| ApiError {
            code: ErrorCode::ALL[code],
            message,
            field,
            value,
            limit,
            hint: hint.map(Box::new),
        },
    )
}

proptest! {
    #[test]
    fn an_error_survives_the_wire_as_an_item_and_as_a_status(error in any_error()) {
        let item = wire::Error::decode(&*wire::Error::from(error.clone()).encode_to_vec()).expect("own bytes");
        prop_assert_eq!(ApiError::from(item), error.clone());
        prop_assert_eq!(from_status(&status(error.clone())), error);
    }

    #[test]
    fn garbage_in_the_details_never_reads_as_a_definite_refusal_without_a_code(bytes in any::<Vec<u8>>()) {
        let status = Status::with_details(Code::Unknown, "x", Bytes::from(bytes.clone()));
        let read = from_status(&status);
        if wire::Error::decode(&*bytes).map_or(0, |e| e.code) == 0 {
            prop_assert_eq!(read.code.effect(), Effect::Unknown);
        }
    }

    #[test]
    fn numbers_that_may_be_unknown_read_back(number in proptest::option::of(0..=i64::MAX as u64)) {
        prop_assert_eq!(maybe_number("f", known_or_minus_one(number)), Ok(number));
    }

    #[test]
    fn uuids_read_back_and_other_lengths_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        match uuid("directory", &bytes) {
            Ok(id) => prop_assert_eq!(&*uuid_bytes(id), &*bytes),
            Err(error) => {
                prop_assert_ne!(bytes.len(), 16);
                prop_assert_eq!(error.field, "directory");
                prop_assert_eq!(error.value, format!("{} bytes", bytes.len()));
            }
        }
    }
}

#[test]
fn a_lost_connection_is_an_unknown_outcome() {
    for code in
        [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Unknown, Code::Internal, Code::OutOfRange]
    {
        assert_eq!(from_status(&Status::new(code, "broken pipe")).code.effect(), Effect::Unknown, "{code:?}");
    }
    assert_eq!(from_status(&Status::new(Code::ResourceExhausted, "something")).code.effect(), Effect::Unknown);
}

#[test]
fn a_missing_service_is_definite_and_final() {
    let error = from_status(&Status::unimplemented("no"));
    assert_eq!((error.code.effect(), error.code.next()), (Effect::None, Next::GiveUp));
}

#[test]
fn an_unknown_number_from_a_newer_peer_reads_as_unknown_outcome() {
    let newer = wire::Error { code: 12_345, ..Default::default() };
    assert_eq!(ApiError::from(newer).code.effect(), Effect::Unknown);
}

#[test]
fn long_texts_are_cut_at_a_character_so_that_trailers_stay_small() {
    let long = "ü".repeat(ERROR_TEXT_BYTES_MAX);
    let status = status(ApiError::bad(ErrorCode::InvalidName, "name", &long, &long));
    let read = from_status(&status);
    assert!(read.value.len() <= ERROR_TEXT_BYTES_MAX && read.value.ends_with("..."));
    assert!(status.details().len() < 4 * ERROR_TEXT_BYTES_MAX + 100);
}

#[test]
fn endpoints_out_of_range_are_refused_by_field_and_value() {
    let read = |host: &str, port| Endpoint::try_from(wire::Endpoint { host: host.to_owned(), port });
    assert_eq!(read("h", 1), Ok(Endpoint { host: "h".to_owned(), port: 1 }));
    assert_eq!(read("h", 0).expect_err("port 0").field, "port");
    assert_eq!(read("h", 65_536).expect_err("port past 16 bits").value, "65536");
    assert_eq!(read("", 1).expect_err("no host").field, "host");
    assert_eq!(read("a/b", 1).expect_err("a path").field, "host");
    assert_eq!(read(&"h".repeat(256), 1).expect_err("too long").field, "host");
    assert_eq!(endpoint("internal", None).expect_err("missing").field, "internal");
}

#[test]
fn another_cluster_or_life_is_refused_before_anything_else() {
    let (ours, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let check = |r: &wire::ClusterRef| check_cluster(Some(r), ours, 3).map_err(|e| e.code);
    assert_eq!(check(&cluster_ref(ours, 3)), Ok(()));
    assert_eq!(check(&cluster_ref(other, 3)), Err(ErrorCode::WrongCluster));
    assert_eq!(check(&cluster_ref(ours, 2)), Err(ErrorCode::WrongIncarnation));
    assert_eq!(check(&cluster_ref(ours, 4)), Err(ErrorCode::WrongIncarnation));
    assert_eq!(check_cluster(None, ours, 3).expect_err("missing").field, "cluster");
    let short = wire::ClusterRef { cluster_id: Bytes::from_static(b"abc"), incarnation: 3 };
    assert_eq!(check(&short), Err(ErrorCode::InvalidRequest));
}

#[test]
fn epochs_out_of_range_are_refused() {
    assert_eq!(maybe_epoch("leader_epoch", -1), Ok(None));
    assert_eq!(maybe_epoch("leader_epoch", 7), Ok(Some(LeaderEpoch(7))));
    assert!(maybe_epoch("leader_epoch", -2).is_err());
    assert!(maybe_epoch("leader_epoch", 1 << 32).is_err());
    assert!(broker_id("broker_id", 0).is_err());
    assert_eq!(maybe_broker(0), None);
}
