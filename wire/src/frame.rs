//! coro_rpc frames: a 20-byte request header or a 16-byte response header, then body and attachment.
//!
//! Integers are little-endian. A wrong magic, version or serialisation ends the connection, as upstream does.

use crate::error::{DecodeError, EncodeError};
use crate::limits::MAX_ATTACHMENT_BYTES;

/// First byte of every frame.
pub const MAGIC: u8 = 21;
const VERSION: u8 = 0;
const STRUCT_PACK: u8 = 0;

/// Header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Chosen by the client, echoed by the server.
    pub sequence: u32,
    /// Which function is called.
    pub function_id: u32,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// Bytes of the attachment after the body.
    pub attachment_bytes: u32,
}

/// Header of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeader {
    /// 0, or why the call was not carried out.
    pub error: u8,
    /// The sequence number of the request.
    pub sequence: u32,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// Bytes of the attachment after the body.
    pub attachment_bytes: u32,
}

fn word(bytes: [u8; 4]) -> u32 {
    u32::from_le_bytes(bytes)
}

fn check_lengths(body_bytes: u32, attachment_bytes: u32, max_body_bytes: u32) -> Result<(), DecodeError> {
    for (length, limit) in [(body_bytes, max_body_bytes), (attachment_bytes, MAX_ATTACHMENT_BYTES)] {
        if length > limit {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            return Err(DecodeError::Length { length: u64::from(length), limit });
        }
    }
    Ok(())
}

impl RequestHeader {
    /// Bytes of a request header.
    pub const BYTES: usize = 20;

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let [s0, s1, s2, s3] = self.sequence.to_le_bytes();
        let [f0, f1, f2, f3] = self.function_id.to_le_bytes();
        let [b0, b1, b2, b3] = self.body_bytes.to_le_bytes();
        let [a0, a1, a2, a3] = self.attachment_bytes.to_le_bytes();
        [MAGIC, VERSION, STRUCT_PACK, 0, s0, s1, s2, s3, f0, f1, f2, f3, b0, b1, b2, b3, a0, a1, a2, a3]
    }

    /// Reads a header; the message type byte is ignored, as upstream does.
    ///
    /// # Errors
    /// Not a frame of ours, or a length above `max_body_bytes` or the attachment limit.
    pub fn decode(bytes: &[u8; Self::BYTES], max_body_bytes: u32) -> Result<Self, DecodeError> {
        let &[magic, version, kind, _, s0, s1, s2, s3, f0, f1, f2, f3, b0, b1, b2, b3, a0, a1, a2, a3] =
            bytes;
        if magic != MAGIC {
            return Err(DecodeError::Magic(magic));
        }
        if version > VERSION {
            return Err(DecodeError::Version(version));
        }
        if kind != STRUCT_PACK {
            return Err(DecodeError::Serialization(kind));
        }
        let header = Self {
            sequence: word([s0, s1, s2, s3]),
            function_id: word([f0, f1, f2, f3]),
            body_bytes: word([b0, b1, b2, b3]),
            attachment_bytes: word([a0, a1, a2, a3]),
        };
        check_lengths(header.body_bytes, header.attachment_bytes, max_body_bytes)?;
        Ok(header)
    }
}

impl ResponseHeader {
    /// Bytes of a response header.
    pub const BYTES: usize = 16;

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let [s0, s1, s2, s3] = self.sequence.to_le_bytes();
        let [b0, b1, b2, b3] = self.body_bytes.to_le_bytes();
        let [a0, a1, a2, a3] = self.attachment_bytes.to_le_bytes();
        [MAGIC, VERSION, self.error, 0, s0, s1, s2, s3, b0, b1, b2, b3, a0, a1, a2, a3]
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Not a frame of ours, or a length above `max_body_bytes` or the attachment limit.
    pub fn decode(bytes: &[u8; Self::BYTES], max_body_bytes: u32) -> Result<Self, DecodeError> {
        let &[magic, version, error, _, s0, s1, s2, s3, b0, b1, b2, b3, a0, a1, a2, a3] = bytes;
        if magic != MAGIC {
            return Err(DecodeError::Magic(magic));
        }
        if version > VERSION {
            return Err(DecodeError::Version(version));
        }
        let header = Self {
            error,
            sequence: word([s0, s1, s2, s3]),
            body_bytes: word([b0, b1, b2, b3]),
            attachment_bytes: word([a0, a1, a2, a3]),
        };
        check_lengths(header.body_bytes, header.attachment_bytes, max_body_bytes)?;
        Ok(header)
    }
}

/// Appends one request frame whose body `write` appends.
///
/// # Errors
/// `write` failed, or the body is too long for a frame; `out` is then as before.
pub fn request(
    out: &mut Vec<u8>,
    sequence: u32,
    function_id: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    frame(out, RequestHeader::BYTES, write, |body_bytes| {
        RequestHeader { sequence, function_id, body_bytes, attachment_bytes: 0 }.encode()
    })
}

/// Appends one response frame whose body `write` appends.
///
/// # Errors
/// `write` failed, or the body is too long for a frame; `out` is then as before.
pub fn response(
    out: &mut Vec<u8>,
    sequence: u32,
    error: u8,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    frame(out, ResponseHeader::BYTES, write, |body_bytes| {
        ResponseHeader { error, sequence, body_bytes, attachment_bytes: 0 }.encode()
    })
}

fn frame<const N: usize>(
    out: &mut Vec<u8>,
    header_bytes: usize,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    header: impl FnOnce(u32) -> [u8; N],
) -> Result<(), EncodeError> {
    let start = out.len();
    out.resize(start + header_bytes, 0);
    let written = write(out).and_then(|()| {
        let length = out.len() - start - header_bytes;
        u32::try_from(length).map_err(|_| EncodeError::TooLong(length))
    });
    match written {
        Ok(length) => {
            if let Some(place) = out.get_mut(start..start + header_bytes) {
                place.copy_from_slice(&header(length));
            }
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}
