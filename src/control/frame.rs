//! Frames of the control connection: a header of 16 bytes, then JSON.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | `MCTC` |
//! | 4 | version of the frame |
//! | 5 | kind |
//! | 6..8 | flags, 0 |
//! | 8..12 | request id, little endian; 0 where there is none |
//! | 12..16 | length of the body, little endian |
//!
//! Invariants: a header is checked before anything behind it is read; memory grows with what has arrived, not
//! with what was announced.

use serde::Serialize;

use crate::error::{Code, Error, Result, Stage};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = *b"MCTC";

/// Version of the frame; both sides refuse another one.
pub const FRAME_VERSION: u8 = 1;

/// Longest body between peers that know each other: about 100,000 regions of a channel.
pub const MAX_BODY_BYTES: usize = 8 << 20;

/// Longest body of the first frame, from a peer nobody knows yet.
pub const MAX_HELLO_BYTES: usize = 16 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First frame each way.
    Hello,
    /// In place of a hello: no.
    Refused,
    /// A message that wants an answer.
    Request,
    /// The answer, with the id of the request.
    Reply,
    /// A message that wants none.
    OneWay,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Refused => 2,
            Self::Request => 3,
            Self::Reply => 4,
            Self::OneWay => 5,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Hello, Self::Refused, Self::Request, Self::Reply, Self::OneWay]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Which request it asks or answers; 0 for none.
    pub request_id: u32,
    /// Length of the body that follows.
    pub body_bytes: usize,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`Code::Unsupported`] for another version of the frame, [`Code::RejectHandshake`] for what is no frame or
    /// has a body of more than `limit_bytes`.
    pub fn decode(bytes: &[u8; HEADER_BYTES], limit_bytes: usize) -> Result<Self> {
        let [m0, m1, m2, m3, version, kind, _, _, r0, r1, r2, r3, l0, l1, l2, l3] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(refused("it does not speak the control protocol".into()));
        }
        if version != FRAME_VERSION {
            return Err(Error::new(
                Code::Unsupported,
                Stage::Handshake,
                format!(
                    "the peer speaks version {version} of the control protocol, this side {FRAME_VERSION}"
                ),
            )
            .advice("run the same release of mooncake-transfer at both ends"));
        }
        let kind = Kind::of(kind).ok_or_else(|| refused(format!("frame kind {kind} is not known")))?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let body_bytes = usize::try_from(length)
            .ok()
            .filter(|length| *length <= limit_bytes)
            .ok_or_else(|| refused(format!("a body of {length} bytes; {limit_bytes} are taken")))?;
        Ok(Self { kind, request_id: u32::from_le_bytes([r0, r1, r2, r3]), body_bytes })
    }
}

fn refused(why: String) -> Error {
    Error::new(Code::RejectHandshake, Stage::Handshake, format!("the peer's frame cannot be used: {why}"))
}

/// A whole frame as it goes on the wire.
///
/// # Errors
/// [`Code::InvalidArgument`] when the body cannot be written or is longer than [`MAX_BODY_BYTES`].
pub fn encode(kind: Kind, request_id: u32, body: &impl Serialize) -> Result<Vec<u8>> {
    let unusable = |why: String| Error::new(Code::InvalidArgument, Stage::Connect, why);
    let mut bytes = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut bytes, body)
        .map_err(|error| unusable(format!("a control message cannot be written: {error}")))?;
    let body_bytes = bytes.len().saturating_sub(HEADER_BYTES);
    let length =
        u32::try_from(body_bytes).ok().filter(|_| body_bytes <= MAX_BODY_BYTES).ok_or_else(|| {
            unusable(format!("a control message of {body_bytes} bytes; {MAX_BODY_BYTES} are allowed"))
        })?;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&[FRAME_VERSION, kind.byte(), 0, 0]);
    header.extend_from_slice(&request_id.to_le_bytes());
    header.extend_from_slice(&length.to_le_bytes());
    for (slot, byte) in bytes.iter_mut().zip(header) {
        *slot = byte;
    }
    Ok(bytes)
}

/// Frames that arrive in pieces.
#[derive(Debug)]
pub struct Assembler {
    limit_bytes: usize,
    head: [u8; HEADER_BYTES],
    head_seen: usize,
    header: Option<Header>,
    body: Vec<u8>,
}

impl Assembler {
    /// For frames with bodies of at most `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, head: [0; HEADER_BYTES], head_seen: 0, header: None, body: Vec::new() }
    }

    /// Lets later frames have longer bodies.
    pub fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.body.capacity()
    }

    /// Takes bytes up to the end of a frame from the front of `bytes`, and gives the frame when it is whole.
    ///
    /// # Errors
    /// As [`Header::decode`]; nothing can be read after an error.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<(Header, Vec<u8>)>> {
        let header = match self.header {
            Some(header) => header,
            None => {
                while let Some(slot) = self.head.get_mut(self.head_seen) {
                    let Some((byte, rest)) = bytes.split_first() else { return Ok(None) };
                    *slot = *byte;
                    *bytes = rest;
                    self.head_seen = self.head_seen.saturating_add(1);
                }
                let header = Header::decode(&self.head, self.limit_bytes)?;
                self.header = Some(header);
                header
            }
        };
        let wanted = header.body_bytes.saturating_sub(self.body.len()).min(bytes.len());
        let (part, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
        self.body.extend_from_slice(part);
        *bytes = rest;
        if self.body.len() < header.body_bytes {
            return Ok(None);
        }
        self.head_seen = 0;
        self.header = None;
        Ok(Some((header, std::mem::take(&mut self.body))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Message;
    use proptest::prelude::*;

    #[test]
    fn the_header_is_fixed() {
        let bytes = encode(Kind::Request, 0x0102_0304, &Message::Ping).unwrap();
        assert_eq!(&bytes[..16], b"MCTC\x01\x03\0\0\x04\x03\x02\x01\x0f\0\0\0");
        assert_eq!(&bytes[16..], b"{\"type\":\"ping\"}");
    }

    #[test]
    fn another_version_says_both() {
        let mut bytes = encode(Kind::Hello, 0, &Message::Ping).unwrap();
        bytes[4] = 9;
        let error = Assembler::new(100).take(&mut bytes.as_slice()).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
        assert!(error.to_string().contains("version 9"), "{error}");
    }

    #[test]
    fn a_length_bomb_costs_nothing() {
        let mut bytes = encode(Kind::Request, 1, &Message::Ping).unwrap();
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut assembler = Assembler::new(MAX_BODY_BYTES);
        assert!(assembler.take(&mut bytes.as_slice()).is_err());
        bytes[12..16].copy_from_slice(&u32::try_from(MAX_BODY_BYTES).unwrap().to_le_bytes());
        let mut assembler = Assembler::new(MAX_BODY_BYTES);
        assert!(assembler.take(&mut bytes.as_slice()).unwrap().is_none());
        assert!(assembler.held_bytes() < 1024);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            ids in proptest::collection::vec((any::<u32>(), "\\PC{0,40}"), 1..5),
            size in 1usize..64,
        ) {
            let mut wire = Vec::new();
            for (id, text) in &ids {
                wire.extend(encode(Kind::Reply, *id, text).unwrap());
            }
            let mut assembler = Assembler::new(4096);
            let mut seen = Vec::new();
            for piece in wire.chunks(size) {
                let mut rest = piece;
                while !rest.is_empty() {
                    if let Some((header, body)) = assembler.take(&mut rest).unwrap() {
                        seen.push((header.request_id, serde_json::from_slice::<String>(&body).unwrap()));
                    }
                }
            }
            prop_assert_eq!(seen, ids);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), magic in any::<bool>()) {
            let mut wire = if magic { b"MCTC\x01".to_vec() } else { Vec::new() };
            wire.extend(bytes);
            let mut rest = wire.as_slice();
            let mut assembler = Assembler::new(64);
            while !rest.is_empty() && assembler.take(&mut rest).is_ok() {}
        }
    }
}
