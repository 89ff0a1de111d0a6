//! The records and their bytes.
//!
//! A record is: length of the payload (u32), its complement (u32), CRC-32 of the payload (u32), payload. The length is
//! checked by itself, so that a record cut short is told from one that was changed.

use mooncake_wire::model::{Segment, Uuid};
use smallvec::SmallVec;

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 12;
/// Longest payload: an object with the longest key and name that the wire lets through.
const MAX_PAYLOAD_BYTES: usize = 8 << 20;

/// A replica as the journal knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaRecord {
    /// Its id.
    pub id: u64,
    /// Its segment.
    pub segment: Uuid,
    /// Offset in the segment, in bytes.
    pub offset: u64,
}

/// An object as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRecord<'a> {
    /// Its id.
    pub id: u64,
    /// Its key.
    pub key: &'a [u8],
    /// Its length in bytes.
    pub length: u64,
    /// Who put it.
    pub owner: Uuid,
    /// Whether the put has ended.
    pub complete: bool,
    /// Never evicted.
    pub hard_pin: bool,
    /// What the bytes are.
    pub data_type: u8,
    /// How long its soft pin holds from the end of the put on, in milliseconds.
    pub soft_pin_ttl_ms: u64,
    /// CRC-64, if known.
    pub checksum: Option<u64>,
    /// Its eviction group.
    pub group: Option<&'a str>,
    /// Where it is.
    pub replicas: SmallVec<[ReplicaRecord; 1]>,
}

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A segment was mounted by a client.
    Mounted(Segment, Uuid),
    /// Space was allocated for an object, or a snapshot holds it.
    Object(ObjectRecord<'a>),
    /// A put has ended.
    Completed {
        /// The object.
        id: u64,
        /// CRC-64, if the writer gave one.
        checksum: Option<u64>,
    },
    /// An object is written again in its place.
    Reopened {
        /// The object.
        id: u64,
        /// Who writes.
        owner: Uuid,
    },
    /// An object is gone and its space may be used.
    Dropped {
        /// The object.
        id: u64,
    },
    /// One replica is gone and its space may be used.
    ReplicaDropped {
        /// The object.
        id: u64,
        /// The replica.
        replica: u64,
    },
    /// A segment is gone, and everything in it.
    Unmounted(Uuid),
}

struct Writer<'b>(&'b mut Vec<u8>);

impl Writer<'_> {
    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }
    fn word(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn uuid(&mut self, value: Uuid) {
        self.word(value.first);
        self.word(value.second);
    }
    fn bytes(&mut self, value: &[u8]) {
        self.word(value.len() as u64);
        self.0.extend_from_slice(value);
    }
    fn optional(&mut self, value: Option<u64>) {
        self.byte(u8::from(value.is_some()));
        self.word(value.unwrap_or(0));
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }
    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }
    fn word(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }
    fn uuid(&mut self) -> Option<Uuid> {
        Some(Uuid { first: self.word()?, second: self.word()? })
    }
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.word()?).ok()?;
        self.take(length)
    }
    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    fn optional(&mut self) -> Option<Option<u64>> {
        let present = self.flag()?;
        let value = self.word()?;
        Some(present.then_some(value))
    }
}

impl<'a> Record<'a> {
    /// Appends the record with its header.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        self.write_payload(&mut Writer(out));
        let Some((header, payload)) =
            out.get_mut(start..).and_then(|record| record.split_at_mut_checked(HEADER_BYTES))
        else {
            return;
        };
        let Ok(length) = u32::try_from(payload.len()) else {
            out.truncate(start);
            return;
        };
        let sum = crc32fast::hash(payload);
        for (place, value) in header.chunks_exact_mut(4).zip([length, !length, sum]) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn write_payload(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Mounted(segment, client) => {
                writer.byte(1);
                writer.uuid(segment.id);
                writer.uuid(*client);
                writer.word(segment.base);
                writer.word(segment.size);
                for text in [&segment.name, &segment.te_endpoint, &segment.protocol, &segment.host_id] {
                    writer.bytes(text.as_bytes());
                }
            }
            Self::Object(object) => {
                writer.byte(2);
                writer.word(object.id);
                writer.bytes(object.key);
                writer.word(object.length);
                writer.uuid(object.owner);
                writer.byte(u8::from(object.complete));
                writer.byte(u8::from(object.hard_pin));
                writer.byte(object.data_type);
                writer.word(object.soft_pin_ttl_ms);
                writer.optional(object.checksum);
                writer.byte(u8::from(object.group.is_some()));
                writer.bytes(object.group.unwrap_or_default().as_bytes());
                writer.word(object.replicas.len() as u64);
                for replica in &object.replicas {
                    writer.word(replica.id);
                    writer.uuid(replica.segment);
                    writer.word(replica.offset);
                }
            }
            Self::Completed { id, checksum } => {
                writer.byte(3);
                writer.word(*id);
                writer.optional(*checksum);
            }
            Self::Reopened { id, owner } => {
                writer.byte(4);
                writer.word(*id);
                writer.uuid(*owner);
            }
            Self::Dropped { id } => {
                writer.byte(5);
                writer.word(*id);
            }
            Self::ReplicaDropped { id, replica } => {
                writer.byte(6);
                writer.word(*id);
                writer.word(*replica);
            }
            Self::Unmounted(segment) => {
                writer.byte(7);
                writer.uuid(*segment);
            }
        }
    }

    fn read_payload(reader: &mut Reader<'a>) -> Option<Self> {
        let record = match reader.byte()? {
            1 => {
                let (id, client) = (reader.uuid()?, reader.uuid()?);
                let (base, size) = (reader.word()?, reader.word()?);
                let segment = Segment {
                    id,
                    base,
                    size,
                    name: reader.text()?.to_owned(),
                    te_endpoint: reader.text()?.to_owned(),
                    protocol: reader.text()?.to_owned(),
                    host_id: reader.text()?.to_owned(),
                };
                Self::Mounted(segment, client)
            }
            2 => {
                let mut object = ObjectRecord {
                    id: reader.word()?,
                    key: reader.bytes()?,
                    length: reader.word()?,
                    owner: reader.uuid()?,
                    complete: reader.flag()?,
                    hard_pin: reader.flag()?,
                    data_type: reader.byte()?,
                    soft_pin_ttl_ms: reader.word()?,
                    checksum: reader.optional()?,
                    group: None,
                    replicas: SmallVec::new(),
                };
                let grouped = reader.flag()?;
                let group = reader.text()?;
                object.group = grouped.then_some(group);
                let count = reader.word()?;
                for _ in 0..count {
                    let (id, segment, offset) = (reader.word()?, reader.uuid()?, reader.word()?);
                    object.replicas.push(ReplicaRecord { id, segment, offset });
                }
                Self::Object(object)
            }
            3 => Self::Completed { id: reader.word()?, checksum: reader.optional()? },
            4 => Self::Reopened { id: reader.word()?, owner: reader.uuid()? },
            5 => Self::Dropped { id: reader.word()? },
            6 => Self::ReplicaDropped { id: reader.word()?, replica: reader.word()? },
            7 => Self::Unmounted(reader.uuid()?),
            _ => return None,
        };
        reader.0.is_empty().then_some(record)
    }
}

/// What stands at the start of some bytes of a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A record, and how many bytes it takes.
    Record(Record<'a>, usize),
    /// The bytes end here.
    End,
    /// The bytes end inside a record.
    Torn,
    /// What stands here was never written like this.
    Corrupt,
}

/// Reads the record at the start of `bytes`.
pub(super) fn next(bytes: &[u8]) -> Next<'_> {
    if bytes.is_empty() {
        return Next::End;
    }
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Next::Torn;
    };
    let mut words =
        header.chunks_exact(4).map(|word| word.first_chunk().map_or(0, |word| u32::from_le_bytes(*word)));
    let (Some(length), Some(complement), Some(sum)) = (words.next(), words.next(), words.next()) else {
        return Next::Torn;
    };
    let payload_bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if length != !complement || payload_bytes > MAX_PAYLOAD_BYTES {
        return Next::Corrupt;
    }
    let Some(payload) = rest.get(..payload_bytes) else {
        return Next::Torn;
    };
    if crc32fast::hash(payload) != sum {
        return Next::Corrupt;
    }
    match Record::read_payload(&mut Reader(payload)) {
        Some(record) => Next::Record(record, HEADER_BYTES + payload_bytes),
        None => Next::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record<'static>> {
        let id = Uuid { first: 1, second: u64::MAX };
        let segment =
            Segment { id, name: "n".into(), base: 7, size: 9, te_endpoint: "e".into(), ..Segment::default() };
        let replica = ReplicaRecord { id: 3, segment: id, offset: 64 };
        let object = ObjectRecord {
            id: 3,
            key: b"a\0key",
            length: 10,
            owner: id,
            complete: true,
            hard_pin: false,
            data_type: 1,
            soft_pin_ttl_ms: 5,
            checksum: Some(0),
            group: Some(""),
            replicas: SmallVec::from_slice(&[replica, replica]),
        };
        vec![
            Record::Mounted(segment, id),
            Record::Object(object),
            Record::Completed { id: 3, checksum: None },
            Record::Reopened { id: 3, owner: id },
            Record::Dropped { id: 3 },
            Record::ReplicaDropped { id: 3, replica: 4 },
            Record::Unmounted(id),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        for record in samples() {
            record.write(&mut bytes);
        }
        let mut rest = bytes.as_slice();
        for record in samples() {
            let Next::Record(read, length) = next(rest) else { panic!("a record") };
            assert_eq!(read, record);
            rest = &rest[length..];
        }
        assert_eq!(next(rest), Next::End);
    }

    #[test]
    fn every_cut_is_torn_and_every_changed_bit_is_corrupt() {
        for record in samples() {
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            for length in 1..bytes.len() {
                assert_eq!(next(&bytes[..length]), Next::Torn);
            }
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(next(&changed), Next::Corrupt, "bit {bit}");
            }
        }
    }
}
