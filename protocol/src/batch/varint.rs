//! Zig-zag variable-length integers as Kafka's records use them, hardened against lying input.
//!
//! Owns: reading and writing 32- and 64-bit zig-zag varints, and lengths checked against the bytes at hand.
//! Never: panics, reads past the slice, accepts a value that does not fit its type.
//! Invariant: `read(write(v)) == v`; an encoding of more bits than the type has is an error, not a wrap.

/// Longest encoding of a 64-bit value in bytes.
const MAX_BYTES: u32 = 10;

/// Takes an unsigned base-128 value off the front of `input`.
fn take_raw(input: &mut &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for i in 0..MAX_BYTES {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * i;
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a 64-bit zig-zag value; `None` when it is cut off or too long.
pub(super) fn take_i64(input: &mut &[u8]) -> Option<i64> {
    let raw = take_raw(input)?;
    Some(((raw >> 1) as i64) ^ -((raw & 1) as i64))
}

/// Takes a 32-bit zig-zag value; `None` when it is cut off or does not fit.
pub(super) fn take_i32(input: &mut &[u8]) -> Option<i32> {
    i32::try_from(take_i64(input)?).ok()
}

/// Takes a length that must not be negative nor exceed the bytes left.
pub(super) fn take_len(input: &mut &[u8]) -> Option<usize> {
    let len = usize::try_from(take_i32(input)?).ok()?;
    (len <= input.len()).then_some(len)
}

/// Takes a nullable length: -1 is null, anything else negative or past the end an error.
pub(super) fn take_nullable_len(input: &mut &[u8]) -> Option<Option<usize>> {
    match take_i32(input)? {
        -1 => Some(None),
        n => {
            let len = usize::try_from(n).ok()?;
            (len <= input.len()).then_some(Some(len))
        }
    }
}

/// Appends a 64-bit zig-zag value.
pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push((raw as u8) | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Bytes that [`put_i64`] needs for `value`.
pub(super) fn len_i64(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (raw | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(v in any::<i64>()) {
            let mut out = Vec::new();
            put_i64(&mut out, v);
            prop_assert_eq!(out.len(), len_i64(v));
            let mut s = out.as_slice();
            prop_assert_eq!(take_i64(&mut s), Some(v));
            prop_assert!(s.is_empty());
        }

        #[test]
        fn garbage_never_panics_and_never_reads_past(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let mut s = bytes.as_slice();
            if let Some(len) = take_len(&mut s) {
                prop_assert!(len <= s.len());
            }
            let mut s = bytes.as_slice();
            if let Some(Some(len)) = take_nullable_len(&mut s) {
                prop_assert!(len <= s.len());
            }
        }
    }

    #[test]
    fn too_long_and_too_big_are_refused() {
        assert_eq!(take_i64(&mut &[0xff; 11][..]), None);
        assert_eq!(take_i64(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]), None);
        let mut out = Vec::new();
        put_i64(&mut out, i64::from(i32::MAX) + 1);
        assert_eq!(take_i32(&mut out.as_slice()), None);
        let mut out = Vec::new();
        put_i64(&mut out, -2);
        assert_eq!(take_nullable_len(&mut out.as_slice()), None);
    }
}
