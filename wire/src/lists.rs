//! Answers of batches, written entry by entry by whoever knows them.
//!
//! A master answers batches more often than anything else, and knows its objects in a form of its own. Written straight
//! from that, nothing is copied, counted or allocated for the sake of being written. The bytes are those of the answer
//! as a value.

use std::sync::Arc;

use crate::code::ErrorCode;
use crate::codec::{Width, Writer};
use crate::error::EncodeError;
use crate::limits::MAX_RESERVED_ELEMENTS;
use crate::message;
use crate::method::Method;
use crate::model::ReplicaStatus;
use crate::profile::Profile;

/// Names that take no more than this with their lengths are written as a block of this many bytes, of which the rest
/// is taken back: a copy of a fixed length is a few instructions, one of a variable length is a call.
const BLOCK_BYTES: usize = 32;
/// What most entries take at most.
const ENTRY_BYTES: usize = 80;

/// The names of a segment, which every answer about a replica in it repeats; spelled once.
#[derive(Debug)]
pub struct Names {
    protocol: Arc<str>,
    endpoint: Arc<str>,
    /// With lengths of one byte and of two, if they are short enough.
    blocks: [Option<Block>; 2],
}

/// Names as they stand in an answer.
#[derive(Debug, Clone, Copy)]
struct Block {
    bytes: [u8; BLOCK_BYTES],
    length: usize,
}

impl Block {
    fn new(protocol: &str, endpoint: &str, width: Width) -> Option<Self> {
        if !width.says(protocol.len()) || !width.says(endpoint.len()) {
            return None;
        }
        let mut spelled = Vec::new();
        let mut writer = Writer::new(&mut spelled, width);
        for name in [protocol, endpoint] {
            writer.length(name.len());
            writer.bytes(name.as_bytes());
        }
        let mut bytes = [0; BLOCK_BYTES];
        bytes.get_mut(..spelled.len())?.copy_from_slice(&spelled);
        Some(Self { bytes, length: spelled.len() })
    }
}

impl Names {
    /// The names of a segment.
    #[must_use]
    pub fn new(protocol: &str, endpoint: &str) -> Self {
        let blocks = [Width::One, Width::Two].map(|width| Block::new(protocol, endpoint, width));
        Self { protocol: protocol.into(), endpoint: endpoint.into(), blocks }
    }

    /// The transport's protocol.
    #[must_use]
    pub const fn protocol(&self) -> &Arc<str> {
        &self.protocol
    }

    /// Where the owner's transfer engine listens.
    #[must_use]
    pub const fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    /// Length of the longer one.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.protocol.len().max(self.endpoint.len())
    }
}

/// A replica in memory, borrowed from where it is known.
#[derive(Debug, Clone, Copy)]
pub struct MemoryReplica<'a> {
    /// Its id.
    pub id: u64,
    /// Length in bytes.
    pub size: u64,
    /// Address in the memory of its owner.
    pub address: u64,
    /// Where its owner is found.
    pub names: &'a Names,
    /// Whether it can be read.
    pub status: ReplicaStatus,
}

/// Takes one entry after the other, as many as were announced. Which kind an answer has is its method's.
pub struct Entries<'b> {
    writer: Writer<'b>,
    profile: Profile,
    width: Width,
    left: usize,
    failed: usize,
}

impl Entries<'_> {
    /// The next key has no answer but this code.
    pub fn error(&mut self, code: ErrorCode) {
        self.left = self.left.saturating_sub(1);
        self.failed += 1;
        let [a, b, c, d] = code.0.to_le_bytes();
        self.writer.fixed([0, a, b, c, d]);
    }

    /// What the next key was asked for is done: `BatchPutEnd` and others.
    #[inline]
    pub fn done(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.writer.fixed([1]);
    }

    /// Whether the next key is there: `BatchExistKey`.
    #[inline]
    pub fn flag(&mut self, flag: bool) {
        self.left = self.left.saturating_sub(1);
        self.writer.fixed([1, u8::from(flag)]);
    }

    /// The next key is written to these: `BatchPutStart` and others.
    #[inline]
    pub fn replicas<'r>(&mut self, replicas: impl ExactSizeIterator<Item = MemoryReplica<'r>>) {
        self.left = self.left.saturating_sub(1);
        self.writer.fixed([1]);
        self.check(replicas.len());
        self.writer.length(replicas.len());
        for replica in replicas {
            self.replica(&replica);
        }
    }

    /// The next key is read from these: `BatchGetReplicaList`.
    #[inline]
    pub fn readable<'r>(
        &mut self,
        replicas: impl ExactSizeIterator<Item = MemoryReplica<'r>>,
        lease_ttl_ms: u64,
        checksum: Option<u64>,
    ) {
        self.replicas(replicas);
        self.writer.fixed(lease_ttl_ms.to_le_bytes());
        if self.profile == Profile::V0_3_13 {
            match checksum {
                None => self.writer.fixed([0]),
                Some(checksum) => {
                    self.writer.fixed([1]);
                    self.writer.fixed(checksum.to_le_bytes());
                }
            }
        }
    }

    /// Entries that are errors so far.
    #[must_use]
    pub const fn failed(&self) -> usize {
        self.failed
    }

    #[inline]
    fn replica(&mut self, replica: &MemoryReplica<'_>) {
        self.writer.fixed(replica.id.to_le_bytes());
        // The first alternative of a placement: memory.
        self.writer.fixed([0]);
        self.writer.fixed(replica.size.to_le_bytes());
        self.writer.fixed(replica.address.to_le_bytes());
        let [narrow, wide] = &replica.names.blocks;
        let block = match self.width {
            Width::One => narrow,
            Width::Two => wide,
            Width::Four | Width::Eight => &None,
        };
        match block {
            Some(block) => self.writer.start_of(block.bytes, block.length),
            None => self.texts(replica.names),
        }
        self.writer.fixed(replica.status.code().to_le_bytes());
    }

    #[cold]
    fn texts(&mut self, names: &Names) {
        for name in [&names.protocol, &names.endpoint] {
            self.check(name.len());
            self.writer.length(name.len());
            self.writer.bytes(name.as_bytes());
        }
    }

    #[inline]
    fn check(&mut self, length: usize) {
        if !self.width.says(length) {
            self.writer.fail(EncodeError::TooLong(length));
        }
    }
}

/// Appends the answer of the batch call `M` for `count` keys, whose entries `write` gives in order, each of the kind
/// that `M` answers. No name may be longer than `longest_name`.
///
/// # Errors
/// A name is too long for the width of the lengths that was chosen, or there were not as many entries. What was appended
/// so far is the caller's to take back.
pub fn encode_entries<'a, M: Method<'a>>(
    profile: Profile,
    out: &mut Vec<u8>,
    count: usize,
    longest_name: usize,
    write: impl FnOnce(&mut Entries<'_>),
) -> Result<(), EncodeError> {
    let width = message::begin(out, profile.reply_hash::<M>(), count.max(longest_name));
    out.reserve(count.min(MAX_RESERVED_ELEMENTS) * ENTRY_BYTES);
    let mut writer = Writer::new(out, width);
    writer.length(count);
    let mut entries = Entries { writer, profile, width, left: count, failed: 0 };
    write(&mut entries);
    if entries.left > 0 {
        entries.writer.fail(EncodeError::TooLong(entries.left));
    }
    entries.writer.finish()
}
