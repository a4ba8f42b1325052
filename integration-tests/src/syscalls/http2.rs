//! The messages in what one end of a connection sent: HTTP/2 frames, gRPC messages in them.
//!
//! Owns: just enough of both formats (RFC 9113, section 4 and 6.1; the gRPC message prefix). Pure.
//! Invariant: bytes that cannot be followed are an error; a message is never made up of what is left.

use super::Moment;
use std::collections::BTreeMap;

const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const PADDED: u8 = 8;
const MESSAGE_HEAD: usize = 5;

/// A gRPC message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When the call began that carried its first byte.
    pub sent: Moment,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What one end sends, fed call by call.
#[derive(Debug, Default)]
pub struct Sent {
    frames: Pieces,
    streams: BTreeMap<u32, Pieces>,
}

/// Bytes with the moments from which on they came.
#[derive(Debug, Default)]
struct Pieces {
    bytes: Vec<u8>,
    /// Positions at which a later moment begins, in order.
    moments: Vec<(usize, Moment)>,
}

impl Pieces {
    fn push(&mut self, at: Moment, bytes: &[u8]) {
        if self.bytes.is_empty() {
            self.moments.clear();
        }
        self.moments.push((self.bytes.len(), at));
        self.bytes.extend_from_slice(bytes);
    }

    /// The first `count` bytes and the moment of the first of them, if they are all there.
    fn take(&mut self, count: usize) -> Option<(Moment, Vec<u8>)> {
        if count > self.bytes.len() {
            return None;
        }
        let first = self.moments.first()?.1;
        let taken: Vec<u8> = self.bytes.drain(..count).collect();
        let last = self.moments.iter().rposition(|(from, _)| *from <= count)?;
        self.moments.drain(..last);
        for (from, _) in &mut self.moments {
            *from = from.saturating_sub(count);
        }
        Some((first, taken))
    }
}

impl Sent {
    /// The messages that these bytes complete.
    ///
    /// # Errors
    /// What cannot be followed.
    pub fn feed(&mut self, at: Moment, bytes: &[u8]) -> Result<Vec<Message>, String> {
        if !bytes.is_empty() {
            self.frames.push(at, bytes);
        }
        let mut messages = Vec::new();
        while let Some(head) = self.frames.bytes.get(..FRAME_HEAD) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            let Some((at, frame)) = self.frames.take(FRAME_HEAD + length) else { break };
            if kind == DATA {
                let body = if flags & PADDED == 0 { &frame[FRAME_HEAD..] } else { padded(&frame[FRAME_HEAD..])? };
                if !body.is_empty() {
                    let pieces = self.streams.entry(stream).or_default();
                    pieces.push(at, body);
                    whole(pieces, &mut messages)?;
                }
            }
        }
        Ok(messages)
    }
}

fn padded(body: &[u8]) -> Result<&[u8], String> {
    let padding = usize::from(*body.first().ok_or("a padded frame without its padding's length")?);
    let end = body.len().checked_sub(padding).filter(|end| *end > 0).ok_or("more padding than frame")?;
    Ok(&body[1..end])
}

fn whole(pieces: &mut Pieces, messages: &mut Vec<Message>) -> Result<(), String> {
    while let Some(head) = pieces.bytes.get(..MESSAGE_HEAD) {
        if head[0] != 0 {
            return Err("a compressed message".to_owned());
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some((sent, bytes)) = pieces.take(MESSAGE_HEAD + length) else { break };
        messages.push(Message { sent, bytes: bytes[MESSAGE_HEAD..].to_vec() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, body: &[u8]) -> Vec<u8> {
        let length = u8::try_from(body.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], body].concat()
    }

    fn message(text: &str) -> Vec<u8> {
        [&[0, 0, 0, 0, u8::try_from(text.len()).expect("short")][..], text.as_bytes()].concat()
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let (one, two) = (message("one"), message("second"));
        let all = [
            frame(4, 0, 0, b"settings"),
            frame(0, 0, 1, &one[..4]),
            frame(0, 0, 3, &two),
            frame(0, PADDED, 1, &[&[2], &one[4..], &[0, 0]].concat()),
            frame(1, 5, 1, b"trailers"),
        ]
        .concat();
        for cut in 1..all.len() {
            let mut sent = Sent::default();
            let mut found = Vec::new();
            for (number, piece) in all.chunks(cut).enumerate() {
                found.extend(sent.feed(number as u64, piece).expect("frames"));
            }
            let texts: Vec<&[u8]> = found.iter().map(|message| message.bytes.as_slice()).collect();
            assert_eq!(texts, [&b"second"[..], b"one"]);
            // The frames that carry the first byte of each begin at 17 and 30.
            assert_eq!([found[1].sent, found[0].sent], [17 / cut as u64, 30 / cut as u64], "cut every {cut}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        assert!(Sent::default().feed(1, &frame(0, 0, 1, &[1, 0, 0, 0, 0])).is_err());
        assert!(Sent::default().feed(1, &frame(0, PADDED, 1, &[9, 1])).is_err());
    }
}
