//! The struct_pack subset: how one value is spelled (`Shape`), written (`Pack`) and read (`Unpack`).
//!
//! Each trait is parametrised by a release profile `P`, so that the same internal type has the layout of every
//! release it occurs in and no copy of it exists per release. Reading borrows from the message.
//!
//! Invariants: a reader never allocates more than a constant plus a small multiple of the bytes that are there;
//! every length is checked against the rest of the message before anything is reserved.

use std::sync::Arc;

use crate::error::{DecodeError, EncodeError};
use crate::limits::{MAX_ELEMENTS, MAX_RESERVED_ELEMENTS, MAX_STRING_BYTES};
use crate::literal::{Literal, tags};

/// The spelling of a type in the profile `P`.
pub trait Shape<P> {
    /// Type literal without the closing NUL.
    const LITERAL: Literal;
    /// Fewest bytes a value takes on the wire: bounds the element count of a container before it is read.
    const MINIMUM_BYTES: usize;
}

/// A value that can be written in the profile `P`.
pub trait Pack<P>: Shape<P> {
    /// The longest string or container inside the value; it decides the width of all length prefixes.
    fn longest(&self) -> usize;
    /// Writes the payload.
    fn pack(&self, writer: &mut Writer<'_>);
}

/// A value that can be read in the profile `P`, borrowing from the message.
pub trait Unpack<'a, P>: Shape<P> + Sized {
    /// Reads the payload.
    ///
    /// # Errors
    /// The message is truncated, a length is above its limit, or a byte is out of range.
    fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
}

/// Width of the length prefixes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    One,
    Two,
    Four,
    Eight,
}

impl Width {
    pub(crate) const fn of(longest: usize) -> Self {
        match longest {
            0..=0xff => Self::One,
            0x100..=0xffff => Self::Two,
            0x1_0000..=0xffff_ffff => Self::Four,
            _ => Self::Eight,
        }
    }

    /// Whether a length prefix of this width can say so much.
    pub(crate) const fn says(self, length: usize) -> bool {
        match self {
            Self::One => length <= 0xff,
            Self::Two => length <= 0xffff,
            Self::Four => length <= 0xffff_ffff,
            Self::Eight => true,
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::One => 0,
            Self::Two => 1,
            Self::Four => 2,
            Self::Eight => 3,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Self {
        match code & 3 {
            0 => Self::One,
            1 => Self::Two,
            2 => Self::Four,
            _ => Self::Eight,
        }
    }
}

/// Appends payload bytes to a buffer.
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    width: Width,
    failure: Option<EncodeError>,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(out: &'b mut Vec<u8>, width: Width) -> Self {
        Self { out, width, failure: None }
    }

    pub(crate) fn finish(self) -> Result<(), EncodeError> {
        self.failure.map_or(Ok(()), Err)
    }

    /// Appends raw bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Appends bytes whose number the compiler knows, which is a matter of a few instructions.
    #[inline]
    pub(crate) fn fixed<const N: usize>(&mut self, bytes: [u8; N]) {
        self.out.extend_from_slice(&bytes);
    }

    /// Appends the first `length` of these bytes, as fast as `fixed` appends them all.
    #[inline]
    pub(crate) fn start_of<const N: usize>(&mut self, bytes: [u8; N], length: usize) {
        let end = self.out.len() + length.min(N);
        self.fixed(bytes);
        self.out.truncate(end);
    }

    /// Appends a length prefix.
    #[inline]
    pub fn length(&mut self, length: usize) {
        let [a, b, c, d, e, f, g, h] = (length as u64).to_le_bytes();
        match self.width {
            Width::One => self.fixed([a]),
            Width::Two => self.fixed([a, b]),
            Width::Four => self.fixed([a, b, c, d]),
            Width::Eight => self.fixed([a, b, c, d, e, f, g, h]),
        }
    }

    /// Remembers that the value has no form in this release; the message is then not sent.
    pub fn fail(&mut self, failure: EncodeError) {
        self.failure.get_or_insert(failure);
    }
}

/// Takes payload bytes from a message.
pub struct Reader<'a> {
    bytes: &'a [u8],
    width: Width,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], width: Width) -> Self {
        Self { bytes, width }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// Takes `count` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.bytes.split_at_checked(count) else {
            return Err(DecodeError::Truncated { needed: count, left: self.bytes.len() });
        };
        self.bytes = tail;
        Ok(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, tail)) = self.bytes.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { needed: N, left: self.bytes.len() });
        };
        self.bytes = tail;
        Ok(*head)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// None is left.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Takes the length of a container whose elements take at least `minimum_bytes` each.
    ///
    /// # Errors
    /// The length is above `limit` or above what the rest of the message can hold.
    #[inline]
    pub fn length(&mut self, minimum_bytes: usize, limit: usize) -> Result<usize, DecodeError> {
        let length = match self.width {
            Width::One => u64::from(self.byte()?),
            Width::Two => u64::from(u16::from_le_bytes(self.array()?)),
            Width::Four => u64::from(u32::from_le_bytes(self.array()?)),
            Width::Eight => u64::from_le_bytes(self.array()?),
        };
        let room = self.bytes.len().checked_div(minimum_bytes).unwrap_or(usize::MAX).min(limit);
        match usize::try_from(length) {
            Ok(count) if count <= room => Ok(count),
            _ => Err(DecodeError::Length { length, limit: room }),
        }
    }

    #[inline]
    fn string(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length(1, MAX_STRING_BYTES)?;
        self.take(length)
    }

    #[inline]
    fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.string()?).map_err(|_| DecodeError::Text)
    }
}

macro_rules! scalar {
    ($($type:ty = $tag:ident;)*) => {$(
        impl<P> Shape<P> for $type {
            const LITERAL: Literal = Literal::tag(tags::$tag);
            const MINIMUM_BYTES: usize = size_of::<$type>();
        }
        impl<P> Pack<P> for $type {
            fn longest(&self) -> usize {
                0
            }
            fn pack(&self, writer: &mut Writer<'_>) {
                writer.bytes(&self.to_le_bytes());
            }
        }
        impl<'a, P> Unpack<'a, P> for $type {
            fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                Ok(Self::from_le_bytes(reader.array()?))
            }
        }
    )*};
}

scalar! {
    i32 = I32;
    u32 = U32;
    i64 = I64;
    u64 = U64;
    u8 = U8;
    u16 = U16;
}

impl<P> Shape<P> for bool {
    const LITERAL: Literal = Literal::tag(tags::BOOL);
    const MINIMUM_BYTES: usize = 1;
}

impl<P> Pack<P> for bool {
    fn longest(&self) -> usize {
        0
    }
    fn pack(&self, writer: &mut Writer<'_>) {
        writer.bytes(&[u8::from(*self)]);
    }
}

impl<'a, P> Unpack<'a, P> for bool {
    fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Range { what: "boolean", value }),
        }
    }
}

/// `void`: the value of an `expected` without one.
impl<P> Shape<P> for () {
    const LITERAL: Literal = Literal::tag(tags::VOID);
    const MINIMUM_BYTES: usize = 0;
}

impl<P> Pack<P> for () {
    fn longest(&self) -> usize {
        0
    }
    fn pack(&self, _writer: &mut Writer<'_>) {}
}

impl<'a, P> Unpack<'a, P> for () {
    fn unpack(_reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

macro_rules! string {
    ($($type:ty, $as_bytes:expr, $from:expr;)*) => {$(
        impl<'s, P> Shape<P> for $type {
            const LITERAL: Literal = Literal::tag(tags::STRING).with(tags::CHAR);
            const MINIMUM_BYTES: usize = 1;
        }
        impl<'s, P> Pack<P> for $type {
            fn longest(&self) -> usize {
                self.len()
            }
            fn pack(&self, writer: &mut Writer<'_>) {
                let as_bytes: for<'v> fn(&'v $type) -> &'v [u8] = $as_bytes;
                writer.length(self.len());
                writer.bytes(as_bytes(self));
            }
        }
        impl<'s, P> Unpack<'s, P> for $type {
            fn unpack(reader: &mut Reader<'s>) -> Result<Self, DecodeError> {
                let from: fn(&mut Reader<'s>) -> Result<Self, DecodeError> = $from;
                from(reader)
            }
        }
    )*};
}

string! {
    // A key: any bytes, borrowed from the message.
    &'s [u8], |value| value, |reader| reader.string();
    // An owned key.
    Box<[u8]>, |value| value, |reader| Ok(reader.string()?.into());
    // Names, endpoints, paths.
    String, |value| value.as_bytes(), |reader| Ok(reader.text()?.to_owned());
    // Names that a server repeats in many answers.
    Arc<str>, |value| value.as_bytes(), |reader| Ok(reader.text()?.into());
}

impl<P, T: Shape<P>> Shape<P> for Vec<T> {
    const LITERAL: Literal = Literal::tag(tags::VECTOR).then(&T::LITERAL);
    const MINIMUM_BYTES: usize = 1;
}

impl<P, T: Pack<P>> Pack<P> for Vec<T> {
    fn longest(&self) -> usize {
        self.iter().map(Pack::longest).fold(self.len(), usize::max)
    }
    fn pack(&self, writer: &mut Writer<'_>) {
        writer.length(self.len());
        for element in self {
            element.pack(writer);
        }
    }
}

impl<'a, P, T: Unpack<'a, P>> Unpack<'a, P> for Vec<T> {
    fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let length = reader.length(T::MINIMUM_BYTES.max(1), MAX_ELEMENTS)?;
        let mut elements = Self::with_capacity(length.min(MAX_RESERVED_ELEMENTS));
        for _ in 0..length {
            elements.push(T::unpack(reader)?);
        }
        Ok(elements)
    }
}

/// A map, kept as pairs in the order of the message: nobody here looks up in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map<K, V>(pub Vec<(K, V)>);

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<P, K: Shape<P>, V: Shape<P>> Shape<P> for Map<K, V> {
    const LITERAL: Literal = Literal::tag(tags::MAP).then(&K::LITERAL).then(&V::LITERAL);
    const MINIMUM_BYTES: usize = 1;
}

impl<P, K: Pack<P>, V: Pack<P>> Pack<P> for Map<K, V> {
    fn longest(&self) -> usize {
        self.0.iter().map(|(key, value)| key.longest().max(value.longest())).fold(self.0.len(), usize::max)
    }
    fn pack(&self, writer: &mut Writer<'_>) {
        writer.length(self.0.len());
        for (key, value) in &self.0 {
            key.pack(writer);
            value.pack(writer);
        }
    }
}

impl<'a, P, K: Unpack<'a, P>, V: Unpack<'a, P>> Unpack<'a, P> for Map<K, V> {
    fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let length = reader.length((K::MINIMUM_BYTES + V::MINIMUM_BYTES).max(1), MAX_ELEMENTS)?;
        let mut pairs = Vec::with_capacity(length.min(MAX_RESERVED_ELEMENTS));
        for _ in 0..length {
            pairs.push((K::unpack(reader)?, V::unpack(reader)?));
        }
        Ok(Self(pairs))
    }
}

impl<P, T: Shape<P>> Shape<P> for Option<T> {
    const LITERAL: Literal = Literal::tag(tags::OPTIONAL).then(&T::LITERAL);
    const MINIMUM_BYTES: usize = 1;
}

impl<P, T: Pack<P>> Pack<P> for Option<T> {
    fn longest(&self) -> usize {
        self.as_ref().map_or(0, Pack::longest)
    }
    fn pack(&self, writer: &mut Writer<'_>) {
        match self {
            None => writer.bytes(&[0]),
            Some(value) => {
                writer.bytes(&[1]);
                value.pack(writer);
            }
        }
    }
}

impl<'a, P, T: Unpack<'a, P>> Unpack<'a, P> for Option<T> {
    fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.byte()? {
            0 => Ok(None),
            1 => Ok(Some(T::unpack(reader)?)),
            value => Err(DecodeError::Range { what: "presence", value }),
        }
    }
}

/// `expected<T, E>`.
impl<P, T: Shape<P>, E: Shape<P>> Shape<P> for Result<T, E> {
    const LITERAL: Literal = Literal::tag(tags::EXPECTED).then(&T::LITERAL).then(&E::LITERAL);
    const MINIMUM_BYTES: usize = 1;
}

impl<P, T: Pack<P>, E: Pack<P>> Pack<P> for Result<T, E> {
    fn longest(&self) -> usize {
        match self {
            Ok(value) => value.longest(),
            Err(error) => error.longest(),
        }
    }
    fn pack(&self, writer: &mut Writer<'_>) {
        match self {
            Ok(value) => {
                writer.bytes(&[1]);
                value.pack(writer);
            }
            Err(error) => {
                writer.bytes(&[0]);
                error.pack(writer);
            }
        }
    }
}

impl<'a, P, T: Unpack<'a, P>, E: Unpack<'a, P>> Unpack<'a, P> for Result<T, E> {
    fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.byte()? {
            1 => Ok(Ok(T::unpack(reader)?)),
            0 => Ok(Err(E::unpack(reader)?)),
            value => Err(DecodeError::Range { what: "expected", value }),
        }
    }
}

macro_rules! tuple {
    ($(($($name:ident),+);)*) => {$(
        impl<P, $($name: Shape<P>),+> Shape<P> for ($($name,)+) {
            const LITERAL: Literal = Literal::tag(tags::STRUCT)$(.then(&$name::LITERAL))+.with(tags::END);
            const MINIMUM_BYTES: usize = 0 $(+ $name::MINIMUM_BYTES)+;
        }
    )*};
}

// Tuples only spell the argument lists of calls that are answered without being read.
tuple! {
    (A, B);
    (A, B, C);
    (A, B, C, D);
    (A, B, C, D, E);
    (A, B, C, D, E, F);
    (A, B, C, D, E, F, G);
}

/// Gives a struct the layout of one release. Fields the release does not have keep their default.
macro_rules! layout {
    ($profile:ty, $name:ident $(<$life:lifetime>)? { $($field:ident: $type:ty),+ $(,)? }) => {
        impl<'a> $crate::codec::Shape<$profile> for $name$(<$life>)? {
            const LITERAL: $crate::literal::Literal =
                $crate::literal::Literal::tag($crate::literal::tags::STRUCT)
                $(.then(&<$type as $crate::codec::Shape<$profile>>::LITERAL))+
                .with($crate::literal::tags::END);
            const MINIMUM_BYTES: usize = 0 $(+ <$type as $crate::codec::Shape<$profile>>::MINIMUM_BYTES)+;
        }
        impl<'a> $crate::codec::Pack<$profile> for $name$(<$life>)? {
            fn longest(&self) -> usize {
                0usize $(.max(<$type as $crate::codec::Pack<$profile>>::longest(&self.$field)))+
            }
            fn pack(&self, writer: &mut $crate::codec::Writer<'_>) {
                $(<$type as $crate::codec::Pack<$profile>>::pack(&self.$field, writer);)+
            }
        }
        impl<'a> $crate::codec::Unpack<'a, $profile> for $name$(<$life>)? {
            #[allow(clippy::needless_update)] // the newest release has every field
            fn unpack(reader: &mut $crate::codec::Reader<'a>) -> Result<Self, $crate::error::DecodeError> {
                Ok(Self {
                    $($field: <$type as $crate::codec::Unpack<'a, $profile>>::unpack(reader)?,)+
                    ..Default::default()
                })
            }
        }
    };
}
pub(crate) use layout;
