//! Changes a protobuf message as a message: fields that are dropped, doubled, swapped, set to the edge of their types; the
//! lengths around them stay right. Knows the encoding (varint, fixed, length-delimited), no schema.

use super::mutate::{EDGES, change, varint};
use crate::chaos::random::Random;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    number: u64,
    value: Value,
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(taken)
}

fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(take_varint(&mut bytes)?),
            1 => Value::Fixed(take(&mut bytes, 8)?.to_vec()),
            2 => {
                let len = take_varint(&mut bytes)?;
                Value::Bytes(take(&mut bytes, len)?.to_vec())
            }
            5 => Value::Fixed(take(&mut bytes, 4)?.to_vec()),
            _ => return None,
        };
        if key >> 3 == 0 {
            return None;
        }
        fields.push(Field { number: key >> 3, value });
    }
    Some(fields)
}

fn write(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Field { number, value } in fields {
        match value {
            Value::Varint(value) => {
                bytes.extend(varint(number << 3));
                bytes.extend(varint(*value));
            }
            Value::Fixed(value) => {
                bytes.extend(varint(number << 3 | if value.len() == 8 { 1 } else { 5 }));
                bytes.extend_from_slice(value);
            }
            Value::Bytes(value) => {
                bytes.extend(varint(number << 3 | 2));
                bytes.extend(varint(value.len() as u64));
                bytes.extend_from_slice(value);
            }
        }
    }
    bytes
}

/// The message with one thing changed; what is no message gets its bytes changed.
pub(super) fn vary(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let Some(mut fields) = parse(bytes).filter(|fields| !fields.is_empty()) else {
        let mut bytes = bytes.to_vec();
        change(rng, &mut bytes);
        return bytes;
    };
    let (at, other) = (place(rng, fields.len()), place(rng, fields.len()));
    match rng.below(10) {
        0 => drop(fields.remove(at)),
        1 => fields.insert(at, fields[other].clone()),
        2 => fields.swap(at, other),
        3 => fields[at].value = fields[other].value.clone(),
        4 => fields.push(Field { number: rng.between(1, 20), value: Value::Varint(*rng.one_of(&EDGES)) }),
        _ => fields[at].value = varied(rng, &fields[at].value),
    }
    write(&fields)
}

fn place(rng: &mut Random, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or(0)
}

fn varied(rng: &mut Random, value: &Value) -> Value {
    match value {
        Value::Varint(value) => Value::Varint(match rng.below(4) {
            0 => value.wrapping_add(1),
            1 => value.wrapping_sub(1),
            2 => rng.below(10),
            _ => *rng.one_of(&EDGES),
        }),
        Value::Fixed(value) => Value::Fixed(value.iter().map(|byte| byte ^ rng.number().to_le_bytes()[0]).collect()),
        Value::Bytes(value) if rng.chance(70) => Value::Bytes(vary(rng, value)),
        Value::Bytes(value) => {
            let mut value = value.clone();
            change(rng, &mut value);
            Value::Bytes(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_it_was_read_and_stays_one_when_it_is_varied() {
        let inner = write(&[Field { number: 1, value: Value::Varint(7) }]);
        let fields = vec![
            Field { number: 1, value: Value::Varint(300) },
            Field { number: 2, value: Value::Bytes(inner) },
            Field { number: 16, value: Value::Fixed(vec![1; 8]) },
        ];
        let bytes = write(&fields);
        assert_eq!(parse(&bytes), Some(fields));
        let mut rng = Random::new(5);
        assert!((0..500).all(|_| parse(&vary(&mut rng, &bytes)).is_some()));
    }
}
