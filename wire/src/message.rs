//! A whole struct_pack message: type code, metainfo, payload.
//!
//! We send no type literal and the narrowest lengths; we accept a literal (it must be ours, byte for byte) and any
//! width. Bytes after the value are ignored, as upstream does.

use crate::codec::{Pack, Reader, Shape, Unpack, Width, Writer};
use crate::error::{DecodeError, EncodeError};
use crate::literal::Literal;

const LITERAL_FOLLOWS: u8 = 1 << 2;
const WIDTH_SHIFT: u8 = 3;
const UNSUPPORTED: u8 = 0b1110_0011;

/// The type code at the start of a body, bit 0 clear; `None` when the body is shorter.
#[must_use]
pub fn type_hash(body: &[u8]) -> Option<u32> {
    body.first_chunk::<4>().map(|head| u32::from_le_bytes(*head) & !1)
}

/// Starts a message of the type with this hash, and returns the width of its lengths.
pub(crate) fn begin(out: &mut Vec<u8>, hash: u32, longest: usize) -> Width {
    let width = Width::of(longest);
    if width == Width::One {
        out.extend_from_slice(&hash.to_le_bytes());
    } else {
        out.extend_from_slice(&(hash | 1).to_le_bytes());
        out.push(width.code() << WIDTH_SHIFT);
    }
    width
}

/// Checks the head of a message of the expected type and returns a reader at its payload.
pub(crate) fn open<'a>(body: &'a [u8], literal: &Literal, hash: u32) -> Result<Reader<'a>, DecodeError> {
    let mut reader = Reader::new(body, Width::One);
    let head = u32::from_le_bytes(reader.array()?);
    if head & !1 != hash {
        return Err(DecodeError::Hash { got: head & !1, expected: hash });
    }
    if head & 1 == 0 {
        return Ok(reader);
    }
    let metainfo = reader.byte()?;
    if metainfo & UNSUPPORTED != 0 {
        return Err(DecodeError::Metainfo(metainfo));
    }
    if metainfo & LITERAL_FOLLOWS != 0 {
        let expected = literal.as_bytes();
        if reader.take(expected.len())? != expected || reader.byte()? != 0 {
            return Err(DecodeError::Literal);
        }
    }
    let left = reader.left();
    Ok(Reader::new(reader.take(left)?, Width::from_code(metainfo >> WIDTH_SHIFT)))
}

struct Hash<P, T: ?Sized>(std::marker::PhantomData<(P, *const T)>);

impl<P, T: Shape<P>> Hash<P, T> {
    // One hash per type and profile, worked out by the compiler.
    const VALUE: u32 = T::LITERAL.hash();
}

/// The type code of `T` in the profile `P`.
#[must_use]
pub fn hash_of<P, T: Shape<P>>() -> u32 {
    Hash::<P, T>::VALUE
}

/// Appends a message.
///
/// # Errors
/// The value has no form in this release.
pub fn encode<P, T: Pack<P>>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let width = begin(out, hash_of::<P, T>(), value.longest());
    let mut writer = Writer::new(out, width);
    value.pack(&mut writer);
    writer.finish()
}

/// Reads a message.
///
/// # Errors
/// It is of another type, truncated, or out of a limit.
pub fn decode<'a, P, T: Unpack<'a, P>>(body: &'a [u8]) -> Result<T, DecodeError> {
    let literal = const { &T::LITERAL };
    T::unpack(&mut open(body, literal, hash_of::<P, T>())?)
}
