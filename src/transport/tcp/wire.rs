//! The bytes of upstream's TCP data protocol: request header and status frame.
//!
//! A request is a header of 24 bytes and, for a write, the bytes. Version 2 (bit 7 of the operation) answers
//! with a status frame of 8 bytes: for a write once the bytes are in memory, for a read before them. Version 1
//! answers a write with nothing and a read with the bytes alone. Seven bytes of the header are padding, which
//! upstream fills with whatever was in memory.

/// Bytes of a request header.
pub const HEADER_BYTES: usize = 24;
/// Bytes of a status frame.
pub const STATUS_BYTES: usize = 8;

/// "MCTV" in the upper half of a status frame.
const STATUS_MAGIC: u64 = 0x4D43_5456 << 32;
const CONFIRMED: u8 = 0x80;
const WRITE: u8 = 1;

/// Code of a status frame: done.
pub const OK: u32 = 0;
/// Code of a status frame: the range lies in no registered buffer. The server closes after it.
pub const REJECTED: u32 = 1;

/// The version in which writes are confirmed.
pub const CONFIRMED_VERSION: u32 = 2;

/// One request as it goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of bytes; 0 is refused.
    pub length_bytes: u64,
    /// Address at the server.
    pub address: u64,
    /// Write to the server, or read from it.
    pub write: bool,
    /// Version 2: a status frame is wanted.
    pub confirmed: bool,
}

impl Header {
    /// The bytes; the padding is zero.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let operation = (u8::from(self.write) * WRITE) | (u8::from(self.confirmed) * CONFIRMED);
        let fields = self.length_bytes.to_le_bytes().into_iter().chain(self.address.to_le_bytes());
        for (byte, value) in bytes.iter_mut().zip(fields.chain([operation])) {
            *byte = value;
        }
        bytes
    }

    /// Reads a header. Every sequence of bytes is one: as upstream has it, what is not a write is a read.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, operation, ..] = *bytes;
        Self {
            length_bytes: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            address: u64::from_le_bytes([i, j, k, l, m, n, o, p]),
            write: operation & !CONFIRMED == WRITE,
            confirmed: operation & CONFIRMED != 0,
        }
    }
}

/// A status frame.
#[must_use]
pub fn status(code: u32) -> [u8; STATUS_BYTES] {
    (STATUS_MAGIC | u64::from(code)).to_le_bytes()
}

/// The code of a status frame; `None` for bytes that are none.
#[must_use]
pub fn read_status(bytes: [u8; STATUS_BYTES]) -> Option<u32> {
    let word = u64::from_le_bytes(bytes);
    let code = u32::try_from(word & u64::from(u32::MAX)).ok()?;
    (word & !u64::from(u32::MAX) == STATUS_MAGIC).then_some(code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn status_frames_are_upstreams() {
        assert_eq!(status(OK), [0, 0, 0, 0, 0x56, 0x54, 0x43, 0x4d]);
        assert_eq!(status(REJECTED), [1, 0, 0, 0, 0x56, 0x54, 0x43, 0x4d]);
        assert_eq!(read_status(*b"\x05\0\0\0VTCM"), Some(5));
        assert_eq!(read_status(*b"\0\0\0\0VTCX"), None);
    }

    #[test]
    fn garbage_in_the_padding_is_ignored() {
        let mut bytes = [0xAA; HEADER_BYTES];
        bytes[..8].copy_from_slice(&5_u64.to_le_bytes());
        bytes[16] = 1;
        let header = Header::decode(&bytes);
        assert_eq!((header.length_bytes, header.write, header.confirmed), (5, true, false));
        for (operation, write, confirmed) in [
            (0, false, false),
            (2, false, false),
            (0x80, false, true),
            (0x81, true, true),
            (0x82, false, true),
        ] {
            bytes[16] = operation;
            let header = Header::decode(&bytes);
            assert_eq!((header.write, header.confirmed), (write, confirmed), "{operation:#x}");
        }
    }

    proptest! {
        #[test]
        fn headers_round_trip(length_bytes: u64, address: u64, write: bool, confirmed: bool) {
            let header = Header { length_bytes, address, write, confirmed };
            prop_assert_eq!(Header::decode(&header.encode()), header);
        }

        #[test]
        fn any_bytes_are_a_header(bytes: [u8; HEADER_BYTES]) {
            let header = Header::decode(&bytes);
            let again = Header::decode(&header.encode());
            prop_assert_eq!(again, header);
        }

        #[test]
        fn a_changed_status_is_another_code_or_none(code: u32, at in 0_usize..STATUS_BYTES, flip in 1_u8..) {
            let mut bytes = status(code);
            bytes[at] ^= flip;
            let read = read_status(bytes);
            if at < 4 { prop_assert!(read.is_some_and(|other| other != code)); } else { prop_assert_eq!(read, None); }
        }
    }
}
