//! Type literals: the byte string that spells a type tree, and the hash made from it.
//!
//! A literal is built at compile time by joining those of the members, so a message type whose members change
//! changes its hash with them, as upstream's does.

use crate::md5;

/// Longest literal of any message of the profiles is 117 bytes.
const CAPACITY: usize = 192;

/// A type literal. A wrong build (too long) fails at compile time.
#[derive(Clone, Copy)]
pub struct Literal {
    bytes: [u8; CAPACITY],
    length: usize,
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where a wrong index is a build error"
)]
impl Literal {
    /// A literal of one tag.
    #[must_use]
    pub const fn tag(tag: u8) -> Self {
        let mut bytes = [0; CAPACITY];
        bytes[0] = tag;
        Self { bytes, length: 1 }
    }

    /// This literal with one more tag.
    #[must_use]
    pub const fn with(mut self, tag: u8) -> Self {
        self.bytes[self.length] = tag;
        self.length += 1;
        self
    }

    /// This literal followed by `tail`.
    #[must_use]
    pub const fn then(mut self, tail: &Self) -> Self {
        let mut index = 0;
        while index < tail.length {
            self.bytes[self.length] = tail.bytes[index];
            self.length += 1;
            index += 1;
        }
        self
    }

    /// The type code: bit 0 is always clear, since on the wire it says that a metainfo byte follows.
    #[must_use]
    pub const fn hash(&self) -> u32 {
        md5::first_word(&self.bytes, self.length) & !1
    }
}

impl Literal {
    /// The bytes of the literal, without the NUL that ends it on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl std::fmt::Debug for Literal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.as_bytes() {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Tags of the literal grammar that the messages of the master use.
pub mod tags {
    /// `int32_t`, and every plain `enum class`.
    pub const I32: u8 = 1;
    /// `uint32_t`.
    pub const U32: u8 = 2;
    /// `int64_t`.
    pub const I64: u8 = 3;
    /// `uint64_t`, `size_t`, `uintptr_t`.
    pub const U64: u8 = 4;
    /// `uint8_t`.
    pub const U8: u8 = 6;
    /// `uint16_t`.
    pub const U16: u8 = 8;
    /// `bool`.
    pub const BOOL: u8 = 11;
    /// `char`.
    pub const CHAR: u8 = 12;
    /// `std::string`, followed by its character type.
    pub const STRING: u8 = 128;
    /// `std::map` and `std::unordered_map`, followed by key and value.
    pub const MAP: u8 = 130;
    /// `std::vector`, followed by its element.
    pub const VECTOR: u8 = 132;
    /// `std::optional`, followed by its element.
    pub const OPTIONAL: u8 = 133;
    /// `std::variant`, followed by its alternatives and `END`.
    pub const VARIANT: u8 = 134;
    /// `expected`, followed by value and error.
    pub const EXPECTED: u8 = 135;
    /// `void`.
    pub const VOID: u8 = 250;
    /// A struct, pair or tuple, followed by its members and `END`.
    pub const STRUCT: u8 = 253;
    /// Ends a struct or a variant.
    pub const END: u8 = 255;
    /// The size literal of 8: pack alignment and alignment of the one trivially serialisable struct, the UUID.
    pub const SIZE_8: u8 = 0x89;
}
