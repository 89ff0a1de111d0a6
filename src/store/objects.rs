//! Put and get, in all their forms. Addresses are those of host memory or of an NPU's, registered or not.

use mooncake_wire::ErrorCode;
use mooncake_wire::model::ReplicateConfig;

use super::Store;
use super::failure::{Failure, Outcome};
use super::get::Found;
use super::put::Kind;
use super::transfer::{Piece, Pieces};

/// A part of an object, and where it is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Address in this process.
    pub address: u64,
    /// Offset in the object, in bytes.
    pub offset_bytes: u64,
    /// Bytes.
    pub length_bytes: u64,
}

fn address_of(bytes: &[u8]) -> Piece {
    (bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64)
}

fn only<T>(results: Vec<Outcome<T>>) -> Outcome<T> {
    results.into_iter().next().unwrap_or_else(|| Err(ErrorCode::INTERNAL_ERROR.into()))
}

fn refuse_same_node(config: &ReplicateConfig) -> Outcome<()> {
    if config.prefer_alloc_in_same_node {
        return Err(Failure::refused("prefer_alloc_in_same_node is for batches of many buffers"));
    }
    Ok(())
}

impl Store {
    /// Stores a value. A key that exists keeps its first value, and that is success.
    ///
    /// # Errors
    /// `INVALID_PARAMS` for an empty key or value; `NO_AVAILABLE_HANDLE` when the pool is full; `TRANSFER_FAIL`;
    /// `RPC_FAIL`, `RPC_TIMEOUT`; `OBJECT_NOT_FOUND` when one owner after the other left before the value was complete.
    pub fn put(&self, key: &[u8], value: &[u8], config: &ReplicateConfig) -> Outcome<()> {
        self.put_staged(Kind::Put, key, &[value], config)
    }

    /// [`Store::put`] of the parts one after the other; no bytes at all are success without an object.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put_parts(&self, key: &[u8], parts: &[&[u8]], config: &ReplicateConfig) -> Outcome<()> {
        if parts.iter().all(|part| part.is_empty()) {
            return self.enter().map(drop);
        }
        self.put_staged(Kind::Put, key, parts, config)
    }

    /// [`Store::put`] of many, one result each.
    pub fn batch_put(&self, keys: &[&[u8]], values: &[&[u8]], config: &ReplicateConfig) -> Vec<Outcome<()>> {
        self.batch_put_staged(Kind::Put, keys, values, config)
    }

    /// [`Store::put`] from memory that need not be readable by this process; length 0 is success without an object.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put_from(
        &self,
        key: &[u8],
        address: u64,
        length_bytes: u64,
        config: &ReplicateConfig,
    ) -> Outcome<()> {
        self.put_from_as(Kind::Put, key, address, length_bytes, config)
    }

    /// [`Store::put_from`] of many: address and length for each key; one result each.
    pub fn batch_put_from(
        &self,
        keys: &[&[u8]],
        buffers: &[(u64, u64)],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<()>> {
        self.batch_put_from_as(Kind::Put, keys, buffers, config)
    }

    /// Stores values made of many pieces, address and length each; one result a key.
    pub fn batch_put_from_multi_buffers(
        &self,
        keys: &[&[u8]],
        buffers: &[&[(u64, u64)]],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<()>> {
        self.batch_write(Kind::Put, keys, buffers, config)
    }

    /// [`Store::put`] that replaces the value of a key that exists.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn upsert(&self, key: &[u8], value: &[u8], config: &ReplicateConfig) -> Outcome<()> {
        self.put_staged(Kind::Upsert, key, &[value], config)
    }

    /// [`Store::put_parts`] that replaces the value of a key that exists.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn upsert_parts(&self, key: &[u8], parts: &[&[u8]], config: &ReplicateConfig) -> Outcome<()> {
        if parts.iter().all(|part| part.is_empty()) {
            return self.enter().map(drop);
        }
        self.put_staged(Kind::Upsert, key, parts, config)
    }

    /// [`Store::upsert`] of many, one result each.
    pub fn batch_upsert(
        &self,
        keys: &[&[u8]],
        values: &[&[u8]],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<()>> {
        self.batch_put_staged(Kind::Upsert, keys, values, config)
    }

    /// [`Store::put_from`] that replaces the value of a key that exists.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn upsert_from(
        &self,
        key: &[u8],
        address: u64,
        length_bytes: u64,
        config: &ReplicateConfig,
    ) -> Outcome<()> {
        self.put_from_as(Kind::Upsert, key, address, length_bytes, config)
    }

    /// [`Store::upsert_from`] of many, one result each.
    pub fn batch_upsert_from(
        &self,
        keys: &[&[u8]],
        buffers: &[(u64, u64)],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<()>> {
        self.batch_put_from_as(Kind::Upsert, keys, buffers, config)
    }

    /// [`Store::batch_put_from_multi_buffers`] that replaces the values of keys that exist.
    pub fn batch_upsert_from_multi_buffers(
        &self,
        keys: &[&[u8]],
        buffers: &[&[(u64, u64)]],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<()>> {
        self.batch_write(Kind::Upsert, keys, buffers, config)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// `OBJECT_NOT_FOUND`, `REPLICA_IS_NOT_READY`; `LEASE_EXPIRED`; `INVALID_PARAMS` without a staging area;
    /// `TRANSFER_FAIL`; `RPC_FAIL`, `RPC_TIMEOUT`.
    pub fn get(&self, key: &[u8]) -> Outcome<Vec<u8>> {
        only(self.batch_get(&[key]))
    }

    /// [`Store::get`] of many, one result each.
    #[must_use]
    pub fn batch_get(&self, keys: &[&[u8]]) -> Vec<Outcome<Vec<u8>>> {
        let _use = match self.enter_staged() {
            Ok(entered) => entered,
            Err(failure) => return vec![Err(failure); keys.len()],
        };
        let mut found = self.core.find(keys);
        let values: Vec<Vec<u8>> = found.iter_mut().map(allocate).collect();
        let pieces: Vec<Piece> = values.iter().map(|value| address_of(value)).collect();
        let targets: Vec<_> =
            pieces.iter().map(|piece| Pieces::Whole(std::slice::from_ref(piece), piece.1)).collect();
        let results = self.core.fetch(keys, found, &targets);
        results.into_iter().zip(values).map(|(result, value)| result.map(|_| value)).collect()
    }

    /// Reads a value to where it is wanted; gives its bytes. The place may be larger.
    ///
    /// # Errors
    /// As [`Store::get`]; `INVALID_PARAMS` when the place is too small.
    pub fn get_into(&self, key: &[u8], address: u64, length_bytes: u64) -> Outcome<u64> {
        only(self.batch_get_into(&[key], &[(address, length_bytes)]))
    }

    /// [`Store::get_into`] of many: address and length for each key; one result each.
    #[must_use]
    pub fn batch_get_into(&self, keys: &[&[u8]], buffers: &[(u64, u64)]) -> Vec<Outcome<u64>> {
        let buffers: Vec<_> = buffers.iter().map(std::slice::from_ref).collect();
        self.get_pieces(keys, &buffers, false)
    }

    /// Reads values into many pieces, address and length each, whose sum is the value's length; gives the bytes of
    /// each key. The pieces may be cut differently from those of the put.
    ///
    /// Per key `INVALID_PARAMS` when the pieces are too small, `TRANSFER_FAIL` when they are too large.
    #[must_use]
    pub fn batch_get_into_multi_buffers(
        &self,
        keys: &[&[u8]],
        buffers: &[&[(u64, u64)]],
    ) -> Vec<Outcome<u64>> {
        self.get_pieces(keys, buffers, true)
    }

    /// Reads parts of objects; gives the bytes of each key.
    ///
    /// Per key `INVALID_PARAMS` when a part is not inside of the object.
    #[must_use]
    pub fn batch_get_into_ranges(&self, keys: &[&[u8]], ranges: &[&[Range]]) -> Vec<Outcome<u64>> {
        let _use = match self.enter() {
            Ok(entered) => entered,
            Err(failure) => return vec![Err(failure); keys.len()],
        };
        if keys.len() != ranges.len() {
            return vec![Err(mismatch(keys.len(), ranges.len())); keys.len()];
        }
        let parts: Vec<Vec<_>> = ranges
            .iter()
            .map(|list| {
                list.iter().map(|part| (part.address, part.offset_bytes, part.length_bytes)).collect()
            })
            .collect();
        let mut found = self.core.find(keys);
        for (found, parts) in found.iter_mut().zip(&parts) {
            let Ok(object) = found else { continue };
            let inside = |&(address, offset, length): &(u64, u64, u64)| {
                address != 0 && offset.checked_add(length).is_some_and(|end| end <= object.size)
            };
            if !parts.iter().all(inside) {
                let text = format!("a part lies outside of the object's {} bytes", object.size);
                *found = Err(Failure::refused(text));
            }
        }
        let targets: Vec<_> = parts.iter().map(|parts| Pieces::Parts(parts)).collect();
        self.core.fetch(keys, found, &targets)
    }

    fn get_pieces(&self, keys: &[&[u8]], buffers: &[&[Piece]], exactly: bool) -> Vec<Outcome<u64>> {
        let _use = match self.enter() {
            Ok(entered) => entered,
            Err(failure) => return vec![Err(failure); keys.len()],
        };
        if keys.len() != buffers.len() {
            return vec![Err(mismatch(keys.len(), buffers.len())); keys.len()];
        }
        let mut found = self.core.find(keys);
        for (found, pieces) in found.iter_mut().zip(buffers) {
            let Ok(object) = found else { continue };
            if let Err(failure) = fits(object.size, pieces, exactly) {
                *found = Err(failure);
            }
        }
        let limit = |found: &Outcome<Found>| found.as_ref().map_or(0, |object| object.size);
        let targets: Vec<_> =
            found.iter().zip(buffers).map(|(found, pieces)| Pieces::Whole(pieces, limit(found))).collect();
        self.core.fetch(keys, found, &targets)
    }

    fn put_staged(&self, kind: Kind, key: &[u8], parts: &[&[u8]], config: &ReplicateConfig) -> Outcome<()> {
        let _use = self.enter_staged()?;
        refuse_same_node(config)?;
        let pieces: Vec<Piece> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| address_of(part)).collect();
        only(self.core.write(kind, &[key], &[&pieces], config))
    }

    fn batch_put_staged(
        &self,
        kind: Kind,
        keys: &[&[u8]],
        values: &[&[u8]],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<()>> {
        let _use = match self.enter_staged().and_then(|entered| refuse_same_node(config).map(|()| entered)) {
            Ok(entered) => entered,
            Err(failure) => return vec![Err(failure); keys.len()],
        };
        let pieces: Vec<Piece> = values.iter().map(|value| address_of(value)).collect();
        let pieces: Vec<&[Piece]> = pieces.iter().map(std::slice::from_ref).collect();
        self.core.write(kind, keys, &pieces, config)
    }

    fn put_from_as(
        &self,
        kind: Kind,
        key: &[u8],
        address: u64,
        length_bytes: u64,
        config: &ReplicateConfig,
    ) -> Outcome<()> {
        if length_bytes == 0 {
            return self.enter().map(drop);
        }
        only(self.batch_put_from_as(kind, &[key], &[(address, length_bytes)], config))
    }

    fn batch_write(
        &self,
        kind: Kind,
        keys: &[&[u8]],
        buffers: &[&[(u64, u64)]],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<()>> {
        match self.enter() {
            Ok(_use) => self.core.write(kind, keys, buffers, config),
            Err(failure) => vec![Err(failure); keys.len()],
        }
    }

    fn batch_put_from_as(
        &self,
        kind: Kind,
        keys: &[&[u8]],
        buffers: &[Piece],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<()>> {
        let _use = match self.enter().and_then(|entered| refuse_same_node(config).map(|()| entered)) {
            Ok(entered) => entered,
            Err(failure) => return vec![Err(failure); keys.len()],
        };
        let pieces: Vec<&[Piece]> = buffers.iter().map(std::slice::from_ref).collect();
        self.core.write(kind, keys, &pieces, config)
    }

    fn enter_staged(&self) -> Outcome<super::Use<'_>> {
        let entered = self.enter()?;
        if !self.core.staging {
            return Err(Failure::refused(
                "the store was set up without a local buffer, which put and get need; the calls that take addresses do not",
            ));
        }
        Ok(entered)
    }
}

fn mismatch(keys: usize, buffers: usize) -> Failure {
    Failure::refused(format!("{keys} keys, but {buffers} buffers"))
}

/// Memory for a value; an object that does not fit in this process's memory fails.
fn allocate(found: &mut Outcome<Found>) -> Vec<u8> {
    let Ok(object) = found else { return Vec::new() };
    let mut value = Vec::new();
    let length = usize::try_from(object.size).unwrap_or(usize::MAX);
    if value.try_reserve_exact(length).is_ok() {
        value.resize(length, 0);
    } else {
        *found = Err(Failure::refused(format!("no memory for a value of {} bytes", object.size)));
    }
    value
}

fn fits(size: u64, pieces: &[Piece], exactly: bool) -> Outcome<()> {
    let sum = pieces
        .iter()
        .try_fold(0_u64, |sum, &(address, length)| (address != 0).then_some(sum)?.checked_add(length));
    match sum {
        None => Err(Failure::refused("a piece needs an address and a length")),
        Some(sum) if sum < size => {
            Err(Failure::refused(format!("an object of {size} bytes does not fit in {sum}")))
        }
        Some(sum) if exactly && sum > size => {
            let text = format!("the pieces hold {sum} bytes, the object has {size}");
            let error = crate::error::Error::new(
                crate::error::Code::InvalidArgument,
                crate::error::Stage::Submit,
                text,
            );
            Err(Failure::new(ErrorCode::TRANSFER_FAIL, error))
        }
        Some(_) => Ok(()),
    }
}
