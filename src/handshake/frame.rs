//! Upstream's frame: length (8 bytes, little endian), type (1 byte, counted by the length), JSON.
//!
//! Invariants: memory grows with what has arrived, not with what was announced; a length of zero or beyond the
//! limit is refused as soon as it is read.

use crate::error::{Code, Error, Result, Stage};

/// Bytes of the length.
pub const LENGTH_BYTES: usize = 8;

/// What a frame asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Exchange of RDMA endpoints; answered with an empty endpoint.
    Connection,
    /// Ask for the segment descriptor.
    Metadata,
    /// Leave a note.
    Notify,
    /// Ask whether anybody is there.
    Probe,
    /// An RDMA exchange of the oldest releases, which has no type byte: the whole body is JSON.
    OldConnection,
}

impl Kind {
    /// The kind a type byte stands for.
    ///
    /// As upstream does on x86-64, bytes from 128 up stand for nothing, and unused ones below are taken as the
    /// first byte of JSON.
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Connection),
            1 => Some(Self::Metadata),
            2 => Some(Self::Notify),
            3 => Some(Self::Probe),
            4..=127 => Some(Self::OldConnection),
            _ => None,
        }
    }

    fn byte(self) -> Option<u8> {
        match self {
            Self::Connection => Some(0),
            Self::Metadata => Some(1),
            Self::Notify => Some(2),
            Self::Probe => Some(3),
            Self::OldConnection => None,
        }
    }
}

/// A whole frame as it goes on the wire.
#[must_use]
pub fn encode(kind: Kind, json: &[u8]) -> Vec<u8> {
    let head = kind.byte();
    let length_bytes = json.len().saturating_add(usize::from(head.is_some()));
    let mut bytes = Vec::with_capacity(length_bytes.saturating_add(LENGTH_BYTES));
    bytes.extend_from_slice(&u64::try_from(length_bytes).unwrap_or(u64::MAX).to_le_bytes());
    bytes.extend(head);
    bytes.extend_from_slice(json);
    bytes
}

/// A frame that arrives in pieces.
#[derive(Debug)]
pub struct Assembler {
    limit_bytes: usize,
    length: [u8; LENGTH_BYTES],
    length_seen: usize,
    body_bytes: usize,
    body: Vec<u8>,
}

impl Assembler {
    /// For a frame whose body (type byte included) has at most `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, length: [0; LENGTH_BYTES], length_seen: 0, body_bytes: 0, body: Vec::new() }
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.body.capacity()
    }

    /// Takes the next bytes; true when the frame is whole. What follows the frame is ignored.
    ///
    /// # Errors
    /// [`Code::MalformedJson`] when the length is zero or too large.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<bool> {
        while self.length_seen < LENGTH_BYTES {
            let Some((byte, rest)) = bytes.split_first() else { return Ok(false) };
            if let Some(slot) = self.length.get_mut(self.length_seen) {
                *slot = *byte;
            }
            self.length_seen = self.length_seen.saturating_add(1);
            bytes = rest;
            if self.length_seen == LENGTH_BYTES {
                self.body_bytes = self.checked_length()?;
            }
        }
        let wanted = self.body_bytes.saturating_sub(self.body.len());
        self.body.extend_from_slice(bytes.get(..wanted).unwrap_or(bytes));
        Ok(self.body.len() == self.body_bytes)
    }

    fn checked_length(&self) -> Result<usize> {
        let length = u64::from_le_bytes(self.length);
        usize::try_from(length).ok().filter(|length| (1..=self.limit_bytes).contains(length)).ok_or_else(
            || {
                Error::new(
                    Code::MalformedJson,
                    Stage::Handshake,
                    format!("a handshake message of {length} bytes; 1 to {} are taken", self.limit_bytes),
                )
                .advice("raise MC_HANDSHAKE_MAX_LENGTH at both ends if the segment has very many buffers")
            },
        )
    }

    /// Kind and JSON of the whole frame; `None` for a type byte that stands for nothing.
    #[must_use]
    pub fn parts(&self) -> Option<(Kind, &[u8])> {
        let (first, rest) = self.body.split_first()?;
        let kind = Kind::of(*first)?;
        Some((kind, if kind == Kind::OldConnection { &self.body } else { rest }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_upstreams_bytes() {
        assert_eq!(encode(Kind::Probe, b"{}\n"), b"\x04\0\0\0\0\0\0\0\x03{}\n");
        assert_eq!(encode(Kind::OldConnection, b"{}\n"), b"\x03\0\0\0\0\0\0\0{}\n");
    }

    #[test]
    fn a_frame_is_put_together_from_any_pieces() {
        let bytes = encode(Kind::Metadata, b"{\"a\":1}\n");
        for size in 1..bytes.len() {
            let mut assembler = Assembler::new(1 << 20);
            let mut whole = false;
            for piece in bytes.chunks(size) {
                assert!(!whole);
                whole = assembler.push(piece).unwrap();
            }
            assert!(whole);
            assert_eq!(assembler.parts(), Some((Kind::Metadata, b"{\"a\":1}\n".as_slice())));
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_kept() {
        for length in [0, 101, u64::MAX, 1 << 63] {
            let mut assembler = Assembler::new(100);
            assert!(assembler.push(&length.to_le_bytes()).is_err(), "{length}");
            assert_eq!(assembler.held_bytes(), 0);
        }
        let mut assembler = Assembler::new(100);
        assert!(!assembler.push(&100u64.to_le_bytes()).unwrap());
        assert_eq!(assembler.held_bytes(), 0, "an announced length costs nothing");
    }

    #[test]
    fn type_bytes() {
        assert_eq!(Kind::of(b'{'), Some(Kind::OldConnection));
        assert_eq!(Kind::of(0x80), None);
        assert_eq!(Kind::of(0xff), None);
    }
}
