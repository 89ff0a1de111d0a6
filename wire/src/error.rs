//! What can be wrong with bytes from a peer, and with a value that a profile cannot express.

/// Why a message could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body ends inside a value.
    #[error("message ends inside a value: {needed} bytes needed, {left} left")]
    Truncated {
        /// Bytes the value needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// The type code is that of another type: the peer speaks another release.
    #[error("type hash {got:08x} where {expected:08x} is expected")]
    Hash {
        /// Hash in the message, bit 0 clear.
        got: u32,
        /// Hash of the type of this profile.
        expected: u32,
    },
    /// The type literal in the message differs from ours although the hash is equal.
    #[error("type literal differs from the expected one")]
    Literal,
    /// A metainfo bit that no sender of these messages sets.
    #[error("unsupported metainfo byte {0:#04x}")]
    Metainfo(u8),
    /// A length above the limit, or above what the rest of the message can hold.
    #[error("length {length} exceeds {limit}")]
    Length {
        /// Length in the message.
        length: u64,
        /// Largest acceptable length.
        limit: usize,
    },
    /// A presence, boolean or alternative byte outside its range.
    #[error("byte {value} is out of range for {what}")]
    Range {
        /// What the byte stands for.
        what: &'static str,
        /// The byte.
        value: u8,
    },
    /// A name, endpoint or path that is not UTF-8. Keys are bytes and may be anything.
    #[error("text is not UTF-8")]
    Text,
    /// The first byte of a frame is not coro_rpc's.
    #[error("frame magic {0:#04x} where 0x15 is expected")]
    Magic(u8),
    /// A frame version above ours.
    #[error("frame version {0} is not supported")]
    Version(u8),
    /// A serialisation other than struct_pack.
    #[error("serialisation type {0} is not supported")]
    Serialization(u8),
}

/// Why a value could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The release of this profile has no such alternative.
    #[error("{what} does not exist in release {release}")]
    NotInRelease {
        /// What was to be written.
        what: &'static str,
        /// The release.
        release: &'static str,
    },
    /// The function does not exist in the release of this profile.
    #[error("function {function} does not exist in release {release}")]
    NoFunction {
        /// The function's name.
        function: &'static str,
        /// The release.
        release: &'static str,
    },
    /// The body is longer than a frame header can say.
    #[error("body of {0} bytes does not fit in a frame")]
    TooLong(usize),
}
