//! Laws of the batch format, and one batch built by another implementation (kafka-python).

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// Built by kafka-python's `DefaultRecordBatchBuilder`: three records, headers, null key, null value.
const FOREIGN: &str = "00000000000000000000005d0000000002e87421a30000000000020000018bcfe568000000018bcfe56805\
ffffffffffffffffffffffffffff0000000322000000046b310a68656c6c6f02026802761a000a02010e73656177616c6c00160004\
04046b320102026e01";

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex digits of a constant"))
        .collect()
}

fn foreign_records() -> Vec<Record> {
    let header = |key: &str, value: Option<&'static [u8]>| RecordHeader {
        key: key.into(),
        value: value.map(Bytes::from_static),
    };
    vec![
        Record {
            timestamp: 1_700_000_000_000,
            key: Some(Bytes::from_static(b"k1")),
            value: Some(Bytes::from_static(b"hello")),
            headers: vec![header("h", Some(b"v"))],
        },
        Record {
            timestamp: 1_700_000_000_005,
            key: None,
            value: Some(Bytes::from_static(b"seawall")),
            headers: vec![],
        },
        Record {
            timestamp: 1_700_000_000_002,
            key: Some(Bytes::from_static(b"k2")),
            value: None,
            headers: vec![header("n", None)],
        },
    ]
}

fn build(compression: Compression, records: &[Record]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression);
    for r in records {
        builder.push(r.timestamp, r.key.as_deref(), r.value.as_deref(), &r.headers).expect("small record");
    }
    builder.build().expect("small batch")
}

#[test]
fn a_foreign_batch_reads_and_is_rebuilt_byte_for_byte() {
    let golden = unhex(FOREIGN);
    let mut ours = build(Compression::None, &foreign_records());
    stamp(&mut ours, 0, 0);
    assert_eq!(ours, golden);
    check(&golden, &Limits::default(), Origin::Client).expect("valid");
    let bytes = Bytes::from(golden);
    check_records(&bytes, &Limits::default()).expect("valid records");
    let read: Vec<Record> =
        records(&bytes, &Limits::default()).expect("header").map(|r| r.expect("record").record).collect();
    assert_eq!(read, foreign_records());
}

fn arb_record() -> impl Strategy<Value = Record> {
    let blob = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from));
    let header = ("[a-z]{0,5}", blob()).prop_map(|(key, value)| RecordHeader { key, value });
    (0i64..2_000_000_000_000, blob(), blob(), proptest::collection::vec(header, 0..3))
        .prop_map(|(timestamp, key, value, headers)| Record { timestamp, key, value, headers })
}

fn arb_compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

proptest! {
    #[test]
    fn what_is_built_is_read(
        rs in proptest::collection::vec(arb_record(), 1..20),
        compression in arb_compression(),
        base in 0u64..1 << 40,
        epoch in 0u32..1000,
    ) {
        let mut bytes = build(compression, &rs);
        stamp(&mut bytes, base, epoch);
        let info = check(&bytes, &Limits::default(), Origin::Client).expect("valid");
        prop_assert_eq!(info.header.base_offset, base);
        prop_assert_eq!(info.header.leader_epoch, Some(epoch));
        prop_assert_eq!(info.header.next_offset(), base + rs.len() as u64);
        prop_assert_eq!(info.header.max_timestamp, rs.iter().map(|r| r.timestamp).max().expect("one"));
        let bytes = Bytes::from(bytes);
        check_records(&bytes, &Limits::default()).expect("valid records");
        let read: Vec<StoredRecord> =
            records(&bytes, &Limits::default()).expect("header").collect::<Result<_, _>>().expect("records");
        for (i, (ours, stored)) in rs.iter().zip(&read).enumerate() {
            prop_assert_eq!(stored.offset, base + i as u64);
            prop_assert_eq!(&stored.record, ours);
        }
        prop_assert_eq!(read.len(), rs.len());
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() > 16 {
            bytes[16] = 2;
        }
        drop(check(&bytes, &Limits::default(), Origin::Cluster));
        let bytes = Bytes::from(bytes);
        if let Ok(iter) = records(&bytes, &Limits::default()) {
            iter.for_each(drop);
        }
        batches(&bytes).for_each(drop);
    }

    /// A hostile producer computes the right checksum over any body: decoding is still bounded and never panics.
    #[test]
    fn a_lying_body_with_a_good_checksum_never_panics(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        code in 0u8..5,
        count in any::<u32>(),
    ) {
        let mut bytes = build(Compression::None, &foreign_records());
        bytes.truncate(Header::LEN);
        bytes.extend_from_slice(&body);
        let length = (bytes.len() - 12) as u32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[22] = code;
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let bytes = Bytes::from(bytes);
        if let Ok(iter) = records(&bytes, &Limits::default()) {
            prop_assert!(iter.take(1000).count() < 1000);
        }
    }
}

#[test]
fn every_flipped_bit_is_detected_or_lies_in_a_stamped_field() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let mut rs = foreign_records();
        rs[1].value = Some(Bytes::from(vec![7; 300]));
        let bytes = build(compression, &rs);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                let stamped = at < 8 || (12..16).contains(&at);
                let accepted = check(&bad, &Limits::default(), Origin::Client).is_ok();
                assert!(!accepted || stamped, "{compression:?}: bit {bit} of byte {at} went unseen");
            }
        }
    }
}

#[test]
fn batches_split_and_a_cut_one_is_an_error() {
    let one = build(Compression::None, &foreign_records());
    let two = build(Compression::Lz4, &foreign_records());
    let mut all = one.clone();
    all.extend_from_slice(&two);
    let parts: Vec<Bytes> = batches(&Bytes::from(all.clone())).collect::<Result<_, _>>().expect("whole");
    assert_eq!(parts, [Bytes::from(one), Bytes::from(two)]);
    all.pop();
    let parts: Vec<_> = batches(&Bytes::from(all)).collect();
    assert_eq!(parts.len(), 2);
    assert!(matches!(parts[1], Err(BatchError::Truncated { .. })));
}

#[test]
fn clients_cannot_forge_what_belongs_to_the_cluster() {
    let with_attributes = |bits: u16| {
        let mut bytes = build(Compression::None, &foreign_records());
        bytes[21..23].copy_from_slice(&bits.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let limits = Limits::default();
    for bits in [0x10, 0x20, 0x40] {
        let bytes = with_attributes(bits);
        assert!(matches!(check(&bytes, &limits, Origin::Client), Err(BatchError::Reserved { .. })));
        check(&bytes, &limits, Origin::Cluster).expect("the cluster may");
    }
    assert!(matches!(
        check(&with_attributes(0x80), &limits, Origin::Cluster),
        Err(BatchError::UnknownAttributes { .. })
    ));
    for code in [1, 2, 5, 7] {
        assert!(matches!(
            check(&with_attributes(code), &limits, Origin::Cluster),
            Err(BatchError::UnsupportedCompression { .. })
        ));
    }
    let big = build(Compression::None, &foreign_records());
    let tight = Limits { max_batch_bytes: big.len() - 1, ..limits };
    assert_eq!(
        check(&big, &tight, Origin::Client),
        Err(BatchError::TooLarge { size: big.len(), limit: big.len() - 1 })
    );
}

#[test]
fn a_bomb_is_refused_and_the_builder_never_makes_one() {
    let zeros = vec![0u8; 8 * 1024 * 1024];
    let tight = Limits { max_decompressed_bytes: 4 * 1024 * 1024, ..Limits::default() };
    for compression in [Compression::Lz4, Compression::Zstd] {
        let roomy = Limits { max_decompression_ratio: usize::MAX, ..Limits::with_max_batch_bytes(16 * 1024 * 1024) };
        let mut builder = BatchBuilder::with_limits(compression, roomy);
        builder.push(0, None, Some(&zeros), &[]).expect("fits");
        let bomb = Bytes::from(builder.build().expect("small when packed"));
        assert!(bomb.len() < 64 * 1024);
        assert!(matches!(records(&bomb, &tight), Err(BatchError::Bomb { .. })));
        let mut builder = BatchBuilder::with_limits(compression, Limits::with_max_batch_bytes(16 * 1024 * 1024));
        builder.push(0, None, Some(&zeros), &[]).expect("fits");
        let built = Bytes::from(builder.build().expect("fits"));
        records(&built, &Limits::default()).expect("what we build is readable");
    }
}

#[test]
fn a_window_above_the_limit_is_refused() {
    // A zstd frame of one raw block of one byte that announces a window of 2^log bytes.
    let frame = |log: u32| {
        let window = u8::try_from((log - 10) << 3).expect("a small number");
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, window][..], &[9, 0, 0, 7]].concat()
    };
    let limits = Limits::default();
    let within = Compression::Zstd.decompress(&frame(super::limits::ZSTD_WINDOW_LOG_MAX), &limits);
    assert_eq!(within, Ok(vec![7]));
    for log in [super::limits::ZSTD_WINDOW_LOG_MAX + 1, 27, 31] {
        let refused = Compression::Zstd.decompress(&frame(log), &limits);
        assert!(matches!(refused, Err(BatchError::Decompression { .. })), "{log}: {refused:?}");
    }
}

#[test]
fn a_header_that_overflows_is_refused() {
    let mut bytes = build(Compression::None, &foreign_records());
    bytes[0..8].copy_from_slice(&(i64::MAX - 2).to_be_bytes());
    assert!(matches!(Header::parse(&bytes), Err(BatchError::OffsetOverflow { .. })));
    bytes[0..8].copy_from_slice(&(-1i64).to_be_bytes());
    assert!(matches!(Header::parse(&bytes), Err(BatchError::Negative { field: "base offset", .. })));
    let mut bytes = build(Compression::None, &foreign_records());
    bytes[12..16].copy_from_slice(&(-2i32).to_be_bytes());
    assert!(matches!(Header::parse(&bytes), Err(BatchError::Negative { .. })));
}
