//! Copies between addresses of this process.
//!
//! The contract: an address gets into the core in two ways only, by registering a range and by submitting a
//! request, and both are entry points whose caller vouches that the range stays mapped, readable and (when it
//! is a target) writable until the transfer is over, and that nobody else writes it meanwhile. That is the
//! contract of the C headers too. Code that calls these functions passes such ranges on and makes none up.

use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;

/// The most that is copied in one call by those who must be able to stop soon (DESIGN: bounded chunks).
pub const MAX_CHUNK_BYTES: u64 = 1 << 20;

/// From so many bytes of a request on, source and target together do not stay in a core's own cache (1 MiB on most
/// server processors, 512 KiB on others), so that keeping them there has no use.
const STREAM_FROM_BYTES: u64 = 512 << 10;

/// Whether what is copied should be in the caches afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caching {
    /// It is little, and may be read soon.
    Through,
    /// It does not fit, and is written past them: memory is not read before it is written over.
    Past,
}

impl Caching {
    /// For a request of so many bytes.
    pub(crate) const fn of(request_bytes: u64) -> Self {
        if request_bytes < STREAM_FROM_BYTES { Self::Through } else { Self::Past }
    }
}

/// Copies `source` to the same number of bytes at `target`. The two may overlap.
///
/// Both are host memory of this process, vouched for as the module says.
///
/// # Errors
/// [`Code::InvalidArgument`] when a range passes the end of the address space; nothing is copied then.
pub(crate) fn copy_host(target: u64, source: u64, length_bytes: u64, caching: Caching) -> Result<()> {
    let (target, source) = (ByteRange::new(target, length_bytes)?, ByteRange::new(source, length_bytes)?);
    let native = |value: u64| {
        usize::try_from(value).map_err(|_| {
            Error::new(Code::InvalidArgument, Stage::Execute, "the address does not fit this machine")
                .range(value, length_bytes)
        })
    };
    let (to, from, length) = (native(target.start())?, native(source.start())?, native(length_bytes)?);
    if length == 0 {
        return Ok(());
    }
    let (to, from) =
        (std::ptr::with_exposed_provenance_mut::<u8>(to), std::ptr::with_exposed_provenance::<u8>(from));
    let apart = to.addr().abs_diff(from.addr()) >= length;
    if caching == Caching::Past && apart {
        // SAFETY: as below; and the two do not overlap, since their starts are a length apart.
        unsafe { super::stream::copy(to, from, length) };
        return Ok(());
    }
    // SAFETY: the caller of `Engine::register` or `Engine::submit` vouched that both ranges are mapped, that
    // `from` is readable, `to` writable, and that nobody else writes them until the transfer is over; see the
    // module. `copy` allows overlap, bytes need no alignment, and neither range wraps.
    unsafe { std::ptr::copy(from, to, length) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_overlaps() {
        for caching in [Caching::Through, Caching::Past] {
            let mut bytes: Vec<u8> = (0..=255).collect();
            let base = bytes.as_mut_ptr().expose_provenance() as u64;
            copy_host(base + 1, base, 200, caching).unwrap();
            assert_eq!(bytes[0], 0);
            assert!(bytes[1..=200].iter().zip(0u8..).all(|(&byte, expected)| byte == expected));
            assert_eq!(bytes[201], 201);
            copy_host(base, base + 1, 200, caching).unwrap();
            assert!(bytes[..200].iter().zip(0u8..).all(|(&byte, expected)| byte == expected));
        }
    }

    #[test]
    fn nothing_happens_where_nothing_can() {
        copy_host(0, 0, 0, Caching::Through).unwrap();
        assert_eq!(copy_host(u64::MAX, 16, 2, Caching::Through).unwrap_err().code(), Code::InvalidArgument);
    }
}
