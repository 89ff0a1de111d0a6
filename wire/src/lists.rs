//! The answer of `BatchGetReplicaList`, written object by object by whoever knows them.
//!
//! A master answers it more often than anything else, and knows its objects in a form of its own. Written straight
//! from that, nothing is copied for the sake of being written. The bytes are those of the answer as a value, with one
//! exception that is an error: a name of 256 bytes or more widens all lengths, and those have been written by then.

use crate::code::ErrorCode;
use crate::codec::{Pack, Width, Writer};
use crate::error::EncodeError;
use crate::message;
use crate::method::{BatchGetReplicaList, Method};
use crate::model::ReplicaStatus;
use crate::profile::{Profile, V0_3_11, V0_3_13};

/// A replica in memory, borrowed from where it is known.
#[derive(Debug, Clone, Copy)]
pub struct MemoryReplica<'a> {
    /// Its id.
    pub id: u64,
    /// Length in bytes.
    pub size: u64,
    /// Address in the memory of its owner.
    pub address: u64,
    /// The transport's protocol.
    pub protocol: &'a str,
    /// Where the owner's transfer engine listens.
    pub endpoint: &'a str,
    /// Whether it can be read.
    pub status: ReplicaStatus,
}

/// Takes one entry after the other, as many as were announced.
pub struct ReplicaLists<'b> {
    writer: Writer<'b>,
    profile: Profile,
    /// Longest name that the width of the lengths allows.
    limit: usize,
    left: usize,
}

impl ReplicaLists<'_> {
    /// The next key has no replicas to be told.
    pub fn missing(&mut self, code: ErrorCode) {
        self.left = self.left.saturating_sub(1);
        self.writer.bytes(&[0]);
        Pack::<V0_3_13>::pack(&code, &mut self.writer);
    }

    /// The next key has these.
    pub fn found<'r>(
        &mut self,
        replicas: impl ExactSizeIterator<Item = MemoryReplica<'r>>,
        lease_ttl_ms: u64,
        checksum: Option<u64>,
    ) {
        self.left = self.left.saturating_sub(1);
        self.writer.bytes(&[1]);
        self.check(replicas.len());
        self.writer.length(replicas.len());
        for replica in replicas {
            // What has a fixed length goes in one piece: appending costs more than the bytes do.
            let mut fixed = [0; 25];
            let (id, rest) = fixed.split_at_mut(8);
            // The byte between them is the first alternative of a placement, memory.
            let (_, rest) = rest.split_at_mut(1);
            let (size, address) = rest.split_at_mut(8);
            id.copy_from_slice(&replica.id.to_le_bytes());
            size.copy_from_slice(&replica.size.to_le_bytes());
            address.copy_from_slice(&replica.address.to_le_bytes());
            self.writer.bytes(&fixed);
            self.text(replica.protocol);
            self.text(replica.endpoint);
            self.writer.bytes(&replica.status.code().to_le_bytes());
        }
        self.writer.bytes(&lease_ttl_ms.to_le_bytes());
        if self.profile == Profile::V0_3_13 {
            Pack::<V0_3_13>::pack(&checksum, &mut self.writer);
        }
    }

    fn check(&mut self, length: usize) {
        if length > self.limit {
            self.writer.fail(EncodeError::TooLong(length));
        }
    }

    fn text(&mut self, text: &str) {
        self.check(text.len());
        self.writer.length(text.len());
        self.writer.bytes(text.as_bytes());
    }
}

/// Appends the answer for `count` keys, whose entries `write` gives in order.
///
/// # Errors
/// A name is too long for the width that the count asks for, or there were not as many entries: write the answer as a
/// value then. What was appended so far is the caller's to take back.
pub fn encode_replica_lists(
    profile: Profile,
    out: &mut Vec<u8>,
    count: usize,
    write: impl FnOnce(&mut ReplicaLists<'_>),
) -> Result<(), EncodeError> {
    type Answer = <BatchGetReplicaList<'static> as Method<'static>>::Reply;
    let hash = match profile {
        Profile::V0_3_13 => message::hash_of::<V0_3_13, Answer>(),
        Profile::V0_3_11 => message::hash_of::<V0_3_11, Answer>(),
    };
    let width = message::begin(out, hash, count);
    let mut writer = Writer::new(out, width);
    writer.length(count);
    let limit = match width {
        Width::One => 0xff,
        Width::Two => 0xffff,
        Width::Four | Width::Eight => 0xffff_ffff,
    };
    let mut lists = ReplicaLists { writer, profile, limit, left: count };
    write(&mut lists);
    if lists.left > 0 {
        lists.writer.fail(EncodeError::TooLong(lists.left));
    }
    lists.writer.finish()
}
