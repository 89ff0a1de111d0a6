//! Keys, buffers and placements as C gives them, checked and viewed; and the places for results.

use std::ffi::{CStr, c_char, c_int, c_void};

use mooncake::error::Stage;
use mooncake::store::{ErrorCode, Failure, Outcome, ReplicateConfig, SoftPinAction};

use super::{Answer, Refusal};
use crate::abi;
use crate::boundary::{array, invalid};

/// A buffer: address and length.
pub(super) type Piece = (u64, u64);

/// Smallest placement struct that is accepted.
const SMALLEST_REPLICATION_BYTES: usize = size_of::<abi::StoreReplication>();

fn refused(message: impl Into<String>) -> Refusal {
    invalid(Stage::Submit, message).into()
}

fn length(value: u64) -> Answer<usize> {
    usize::try_from(value).map_err(|_| refused(format!("{value} does not fit this machine")))
}

/// Keys that follow each other in one run of bytes.
///
/// # Safety
/// `lengths` has `count` entries, and `bytes` as many bytes as they sum up to; nobody changes them for `'a`.
pub(super) unsafe fn keys<'a>(
    bytes: *const c_char,
    lengths: *const u64,
    count: usize,
) -> Answer<Vec<&'a [u8]>> {
    // SAFETY: the caller vouches for it.
    let lengths = unsafe { array(lengths, count, "key_lengths_bytes", Stage::Submit) }?;
    let total = lengths.iter().try_fold(0_u64, |sum, part| sum.checked_add(*part));
    let total = length(total.ok_or_else(|| refused("the keys are too long"))?)?;
    // SAFETY: as above.
    let mut rest: &[u8] = unsafe { array(bytes.cast::<u8>(), total, "keys", Stage::Submit) }?;
    let mut keys = Vec::with_capacity(count);
    for part in lengths {
        let (key, after) =
            rest.split_at_checked(length(*part)?).ok_or_else(|| refused("the keys are too long"))?;
        keys.push(key);
        rest = after;
    }
    Ok(keys)
}

/// Keys that are texts closed by NUL.
///
/// # Safety
/// `keys` has `count` entries, each NULL or a text closed by NUL that nobody changes for `'a`.
pub(super) unsafe fn texts<'a>(keys: *const *const c_char, count: usize) -> Answer<Vec<&'a [u8]>> {
    // SAFETY: the caller vouches for it.
    let keys = unsafe { array(keys, count, "keys", Stage::Submit) }?;
    // SAFETY: as above.
    keys.iter().map(|key| unsafe { text(*key) }).collect()
}

/// One key closed by NUL.
///
/// # Safety
/// `key` is NULL or a text closed by NUL that nobody changes for `'a`.
pub(super) unsafe fn text<'a>(key: *const c_char) -> Answer<&'a [u8]> {
    if key.is_null() {
        return Err(refused("a key is NULL"));
    }
    // SAFETY: not NULL; the caller vouches for the rest.
    Ok(unsafe { CStr::from_ptr(key) }.to_bytes())
}

/// The buffers of all keys, and how many belong to each.
pub(super) struct Buffers {
    pieces: Vec<Piece>,
    counts: Vec<usize>,
}

impl Buffers {
    /// Reads the three arrays.
    ///
    /// # Safety
    /// `counts` has `key_count` entries, and the others as many as these sum up to.
    pub(super) unsafe fn read(
        key_count: usize,
        counts: *const u64,
        addresses: *const u64,
        lengths: *const u64,
    ) -> Answer<Self> {
        // SAFETY: the caller vouches for it.
        let counts = unsafe { array(counts, key_count, "buffer_counts", Stage::Submit) }?;
        let counts = counts.iter().map(|count| length(*count)).collect::<Answer<Vec<_>>>()?;
        let total = counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(*count));
        let total = total.ok_or_else(|| refused("there are too many buffers"))?;
        // SAFETY: as above.
        let addresses = unsafe { array(addresses, total, "addresses", Stage::Submit) }?;
        // SAFETY: as above.
        let lengths = unsafe { array(lengths, total, "lengths_bytes", Stage::Submit) }?;
        Ok(Self { pieces: addresses.iter().copied().zip(lengths.iter().copied()).collect(), counts })
    }

    /// The buffers of each key.
    pub(super) fn rows(&self) -> Vec<&[Piece]> {
        rows(&self.pieces, &self.counts)
    }

    /// How many buffers there are, and how many each key has.
    pub(super) fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// All buffers.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

/// Cuts a list into parts of the given lengths, whose sum is the list's.
pub(super) fn rows<'a, T>(mut items: &'a [T], counts: &[usize]) -> Vec<&'a [T]> {
    let mut parts = Vec::with_capacity(counts.len());
    for count in counts {
        let (part, rest) = items.split_at_checked(*count).unwrap_or((items, &[]));
        parts.push(part);
        items = rest;
    }
    parts
}

/// One buffer for each key, as upstream's C interface gives them.
///
/// # Safety
/// Both arrays have `count` entries.
pub(super) unsafe fn buffers(
    addresses: *const *mut c_void,
    sizes: *const usize,
    count: usize,
) -> Answer<Vec<Piece>> {
    // SAFETY: the caller vouches for it.
    let addresses = unsafe { array(addresses, count, "buffers", Stage::Submit) }?;
    // SAFETY: as above.
    let sizes = unsafe { array(sizes, count, "sizes", Stage::Submit) }?;
    Ok(addresses.iter().zip(sizes).map(|(address, size)| piece(address.cast_const(), *size)).collect())
}

/// A buffer of upstream's C interface. Lossless: the library is 64 bit only, which `handle` asserts.
pub(super) fn piece(address: *const c_void, size: usize) -> Piece {
    (u64::try_from(address.addr()).unwrap_or(u64::MAX), u64::try_from(size).unwrap_or(u64::MAX))
}

fn action(number: c_int) -> Answer<SoftPinAction> {
    match number {
        0 => Ok(SoftPinAction::Preserve),
        1 => Ok(SoftPinAction::Enable),
        2 => Ok(SoftPinAction::Disable),
        other => Err(refused(format!("soft_pin is {other}; 0, 1 and 2 have a meaning"))),
    }
}

/// Copies names.
///
/// # Safety
/// `names` has `count` entries, each a text closed by NUL.
unsafe fn names(names: *const *const c_char, count: usize, what: &str) -> Answer<Vec<String>> {
    // SAFETY: the caller vouches for it.
    let names = unsafe { array(names, count, what, Stage::Submit) }?;
    names
        .iter()
        // SAFETY: as above.
        .map(|name| Ok(unsafe { crate::boundary::text(*name, what, Stage::Submit) }?))
        .collect()
}

/// The placement of our interface; NULL is the default.
///
/// # Safety
/// `replication` is NULL or points to a struct whose `struct_size` is set and whose texts are closed by NUL.
pub(super) unsafe fn replication(replication: *const abi::StoreReplication) -> Answer<ReplicateConfig> {
    if replication.is_null() {
        return Ok(ReplicateConfig::default());
    }
    if !replication.is_aligned() {
        return Err(refused(format!("replication is not aligned: {replication:p}")));
    }
    // SAFETY: not NULL and aligned; the caller set the first field.
    let room_bytes = unsafe { (&raw const (*replication).struct_size).read() };
    if room_bytes < SMALLEST_REPLICATION_BYTES {
        let text = format!("struct_size is {room_bytes}, at least {SMALLEST_REPLICATION_BYTES} is needed");
        return Err(refused(text));
    }
    // SAFETY: the struct is as long as ours, and the caller does not change it meanwhile.
    let given = unsafe { &*replication };
    // SAFETY: the caller vouches for the texts; so for the next.
    let segments =
        unsafe { names(given.preferred_segments, given.preferred_segment_count, "preferred_segments") }?;
    let group_ids = if given.group_ids.is_null() {
        None
    } else {
        // SAFETY: as above.
        Some(unsafe { names(given.group_ids, given.group_id_count, "group_ids") }?)
    };
    Ok(ReplicateConfig {
        replica_num: given.replica_count,
        soft_pin_action: action(given.soft_pin)?,
        soft_pin_ttl_ms: (given.has_soft_pin_ttl != 0).then_some(given.soft_pin_ttl_ms),
        with_hard_pin: given.hard_pin != 0,
        prefer_alloc_in_same_node: given.same_node != 0,
        data_type: u8::try_from(given.data_type)
            .map_err(|_| refused(format!("data_type is {}", given.data_type)))?,
        group_ids,
        ..preferring(segments)
    })
}

/// A placement with segments by preference. Masters before 0.3.11 know a single one.
fn preferring(mut segments: Vec<String>) -> ReplicateConfig {
    let mut config = ReplicateConfig::default();
    if segments.len() == 1 {
        config.preferred_segment = segments.pop().unwrap_or_default();
    } else {
        config.preferred_segments = segments;
    }
    config
}

/// The placement of upstream's C interface; NULL is the default.
///
/// # Safety
/// `config` is NULL or points to a struct whose texts are closed by NUL.
pub(super) unsafe fn upstream_replication(config: *const abi::ReplicateConfig) -> Answer<ReplicateConfig> {
    if config.is_null() {
        return Ok(ReplicateConfig::default());
    }
    if !config.is_aligned() {
        return Err(refused(format!("config is not aligned: {config:p}")));
    }
    // SAFETY: not NULL and aligned; the caller vouches for the rest.
    let given = unsafe { &*config };
    // SAFETY: as above.
    let segments = unsafe {
        names(given.preferred_segments.cast_const(), given.preferred_segments_count, "preferred_segments")
    }?;
    Ok(ReplicateConfig {
        replica_num: u64::try_from(given.replica_num).unwrap_or(u64::MAX),
        soft_pin_action: if given.with_soft_pin == 0 {
            SoftPinAction::Preserve
        } else {
            SoftPinAction::Enable
        },
        with_hard_pin: given.with_hard_pin != 0,
        ..preferring(segments)
    })
}

/// Places of the caller's for one number each.
pub(super) struct Results<T> {
    start: *mut T,
    count: usize,
}

impl<T> Results<T> {
    /// Checks the array before anything is done.
    ///
    /// # Safety
    /// `start` is NULL or may be written for `count` entries while this lives, by this alone.
    pub(super) unsafe fn new(start: *mut T, count: usize) -> Answer<Self> {
        // SAFETY: only checked; what the array holds is not read.
        unsafe {
            array(start.cast_const().cast::<std::mem::MaybeUninit<T>>(), count, "results", Stage::Submit)
        }?;
        Ok(Self { start, count })
    }

    /// Writes the numbers; those that are too many are dropped, and there are never too few.
    pub(super) fn write(self, values: impl Iterator<Item = T>) {
        for (index, value) in values.take(self.count).enumerate() {
            // SAFETY: `new` checked the array, and `index` is below its length.
            unsafe { self.start.add(index).write(value) }
        }
    }
}

/// The outcome of each key as a number; the first failure, one that says more than "not there" before others, becomes
/// the thread's last error.
pub(super) fn numbers<T>(outcomes: &[Outcome<T>], value: impl Fn(&T) -> i64) -> Vec<i64> {
    let failures = || outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let telling = |failure: &&Failure| failure.code() != ErrorCode::OBJECT_NOT_FOUND;
    if let Some(failure) = failures().find(telling).or_else(|| failures().next()) {
        mooncake::error::set_last(failure.to_error());
    }
    outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map_or_else(|failure| i64::from(failure.code().0), &value))
        .collect()
}

/// A number of ours as upstream's functions give it.
pub(super) fn narrow(number: i64) -> c_int {
    c_int::try_from(number).unwrap_or(c_int::MAX)
}

/// A length as a result.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the outcomes are viewed, not taken apart")]
pub(super) fn count(length_bytes: &u64) -> i64 {
    i64::try_from(*length_bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_have_nul_inside_and_may_be_empty() {
        let bytes = b"a\0bc";
        let lengths = [3_u64, 0, 1];
        // SAFETY: both live until the end of the test.
        let keys = unsafe { keys(bytes.as_ptr().cast(), lengths.as_ptr(), 3) }.ok().unwrap();
        assert_eq!(keys, [&b"a\0b"[..], b"", b"c"]);
    }

    #[test]
    fn lengths_that_overflow_are_refused() {
        let lengths = [u64::MAX, 2];
        // SAFETY: refused before the bytes are looked at.
        let refused = unsafe { keys(c"x".as_ptr(), lengths.as_ptr(), 2) }.err().unwrap().0;
        assert_eq!(refused.code(), ErrorCode::INVALID_PARAMS);
        let counts = [u64::MAX, u64::MAX];
        // SAFETY: as above.
        let buffers = unsafe { Buffers::read(2, counts.as_ptr(), std::ptr::null(), std::ptr::null()) };
        assert!(buffers.is_err());
    }

    #[test]
    fn rows_are_cut_by_their_counts() {
        assert_eq!(rows(&[1, 2, 3], &[2, 0, 1]), [&[1, 2][..], &[], &[3]]);
    }

    #[test]
    fn a_failure_that_says_more_becomes_the_last_error() {
        mooncake::error::clear_last();
        let outcomes: [Outcome<u64>; 3] =
            [Err(ErrorCode::OBJECT_NOT_FOUND.into()), Ok(7), Err(ErrorCode::NO_AVAILABLE_HANDLE.into())];
        assert_eq!(numbers(&outcomes, count), [-704, 7, -200]);
        assert!(mooncake::error::last().unwrap().to_string().contains("NO_AVAILABLE_HANDLE"));
    }

    #[test]
    fn a_placement_is_read_as_upstream_means_it() {
        let name = c"10.0.0.1:15000".as_ptr();
        let mut names = [name];
        let given = abi::ReplicateConfig {
            replica_num: 2,
            with_soft_pin: 1,
            with_hard_pin: 0,
            preferred_segments: names.as_mut_ptr(),
            preferred_segments_count: 1,
        };
        // SAFETY: a struct of ours.
        let config = unsafe { upstream_replication(&raw const given) }.ok().unwrap();
        assert_eq!((config.replica_num, config.soft_pin_action), (2, SoftPinAction::Enable));
        assert_eq!(config.preferred_segment, "10.0.0.1:15000");
        // SAFETY: NULL is the default.
        let default = unsafe { upstream_replication(std::ptr::null()) }.ok().unwrap();
        assert_eq!(default, ReplicateConfig::default());
    }
}
