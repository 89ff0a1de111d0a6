//! From the files of a journal back to what they say.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use mooncake_wire::model::{Segment, Uuid};
use smallvec::SmallVec;

use super::file::{FILE_HEADER_BYTES, FileHeader, JournalError};
use super::record::{Next, Record, ReplicaRecord, next};

/// An object of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedObject {
    /// Its id.
    pub id: u64,
    /// Its key.
    pub key: Box<[u8]>,
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
    /// How long its soft pin holds, in milliseconds.
    pub soft_pin_ttl_ms: u64,
    /// CRC-64, if known.
    pub checksum: Option<u64>,
    /// Its eviction group.
    pub group: Option<String>,
    /// Where it is.
    pub replicas: SmallVec<[ReplicaRecord; 1]>,
}

/// Whether the journal is used, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// There was none.
    Empty,
    /// It is used.
    Used,
    /// A record is wrong, so that later ones may be missing.
    Corrupt(PathBuf),
    /// A write had failed.
    Invalidated(PathBuf),
    /// The host was started again since, and writes were not synced.
    OtherBoot,
}

/// What the journal says.
#[derive(Debug)]
pub struct Replayed {
    /// Whether it is used.
    pub verdict: Verdict,
    /// The segments that were mounted, and by whom.
    pub segments: Vec<(Segment, Uuid)>,
    /// The objects, the oldest first.
    pub objects: Vec<ReplayedObject>,
    /// An id above all that were used.
    pub next_id: u64,
    /// The number of the newest file.
    pub generation: u64,
    /// Records that were read.
    pub records: u64,
}

/// What reading one file led to.
enum Read {
    /// It is whole.
    Whole,
    /// It ends in a torn record, after this many good bytes.
    TornAfter(usize),
    /// Nothing of the journal may be used.
    Unusable(Verdict),
}

#[derive(Debug, Default)]
struct Replay {
    segments: HashMap<Uuid, (Segment, Uuid)>,
    objects: BTreeMap<u64, ReplayedObject>,
    last_id: u64,
    records: u64,
}

impl Replay {
    fn apply(&mut self, record: Record<'_>) {
        self.records += 1;
        match record {
            Record::Mounted(segment, client) => {
                self.segments.insert(segment.id, (segment, client));
            }
            Record::Object(object) => {
                let highest = object.replicas.iter().map(|replica| replica.id).fold(object.id, u64::max);
                self.last_id = self.last_id.max(highest);
                // A snapshot and the journal beside it may both hold an object; which came first says nothing, and
                // the end of a put is in the journal after its start in either case.
                self.objects.entry(object.id).or_insert_with(|| ReplayedObject {
                    id: object.id,
                    key: object.key.into(),
                    length: object.length,
                    owner: object.owner,
                    complete: object.complete,
                    hard_pin: object.hard_pin,
                    data_type: object.data_type,
                    soft_pin_ttl_ms: object.soft_pin_ttl_ms,
                    checksum: object.checksum,
                    group: object.group.map(str::to_owned),
                    replicas: object.replicas,
                });
            }
            Record::Completed { id, checksum } => {
                if let Some(object) = self.objects.get_mut(&id) {
                    object.complete = true;
                    object.checksum = checksum;
                }
            }
            Record::Reopened { id, owner } => {
                if let Some(object) = self.objects.get_mut(&id) {
                    object.complete = false;
                    object.owner = owner;
                }
            }
            Record::Dropped { id } => {
                self.last_id = self.last_id.max(id);
                self.objects.remove(&id);
            }
            Record::ReplicaDropped { id, replica } => {
                if let Some(object) = self.objects.get_mut(&id) {
                    object.replicas.retain(|known| known.id != replica);
                    if object.replicas.is_empty() {
                        self.objects.remove(&id);
                    }
                }
            }
            Record::Unmounted(segment) => {
                self.segments.remove(&segment);
                self.objects.retain(|_, object| {
                    object.replicas.retain(|replica| replica.segment != segment);
                    !object.replicas.is_empty()
                });
            }
        }
    }

    /// Applies a file.
    fn read(
        &mut self,
        path: &Path,
        newest: bool,
        boot: [u8; 16],
        snapshot: bool,
    ) -> Result<Read, JournalError> {
        let bytes =
            std::fs::read(path).map_err(|source| JournalError::Read { path: path.to_owned(), source })?;
        let may_be_torn = newest && !snapshot;
        let corrupt = || Read::Unusable(Verdict::Corrupt(path.to_owned()));
        let Some((header, mut rest)) = bytes.split_first_chunk::<FILE_HEADER_BYTES>() else {
            // The file was made and nothing was written.
            return Ok(if may_be_torn { Read::TornAfter(0) } else { corrupt() });
        };
        let Some(header) = FileHeader::decode(header) else {
            return Ok(corrupt());
        };
        if !header.valid {
            return Ok(Read::Unusable(Verdict::Invalidated(path.to_owned())));
        }
        let other_boot = header.boot != boot;
        if other_boot && !header.synced {
            return Ok(Read::Unusable(Verdict::OtherBoot));
        }
        loop {
            let torn = || Read::TornAfter(bytes.len() - rest.len());
            match next(rest) {
                Next::Record(record, length) => {
                    self.apply(record);
                    rest = rest.get(length..).unwrap_or_default();
                }
                Next::End => return Ok(Read::Whole),
                // Snapshots are whole when they have their name.
                Next::Torn if may_be_torn => return Ok(torn()),
                // After a crash of the host the end of the file may be long and empty: nothing of it was answered.
                Next::Corrupt if may_be_torn && other_boot && rest.iter().all(|byte| *byte == 0) => {
                    return Ok(torn());
                }
                Next::Torn | Next::Corrupt => return Ok(corrupt()),
            }
        }
    }
}

/// The numbered files of one kind, in order.
pub(super) fn generations(directory: &Path, kind: &str) -> Result<Vec<u64>, JournalError> {
    let failed = |source| JournalError::Read { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_prefix(kind)?.strip_prefix('.')?.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads the journal of a directory.
///
/// # Errors
/// A file cannot be read. What is wrong inside a file is a verdict.
pub(super) fn replay(directory: &Path, boot: [u8; 16]) -> Result<Replayed, JournalError> {
    let snapshots = generations(directory, "snapshot")?;
    let journals = generations(directory, "journal")?;
    let generation = snapshots.iter().chain(&journals).copied().max().unwrap_or(0);
    let mut replay = Replay::default();
    let mut verdict =
        if journals.is_empty() && snapshots.is_empty() { Verdict::Empty } else { Verdict::Used };
    let base = snapshots.last().copied();
    let mut files: Vec<(PathBuf, bool, bool)> = Vec::new();
    files.extend(base.map(|number| (directory.join(format!("snapshot.{number}")), false, true)));
    let needed: Vec<u64> =
        journals.iter().copied().filter(|number| base.is_none_or(|base| *number >= base)).collect();
    // A snapshot stands for the journals before its number; none after it may be missing.
    let first = base.or(needed.first().copied()).unwrap_or(0);
    let whole = needed.iter().copied().eq(first..first.saturating_add(needed.len() as u64));
    let begins =
        base.is_some() || needed.first().is_none_or(|number| *number == super::file::FIRST_GENERATION);
    if !whole || !begins || (base.is_some() && needed.is_empty()) {
        verdict = Verdict::Corrupt(directory.to_owned());
        files.clear();
    } else {
        let newest = needed.last().copied();
        files.extend(
            needed
                .iter()
                .map(|number| (directory.join(format!("journal.{number}")), Some(*number) == newest, false)),
        );
    }
    let mut torn = None;
    for (path, newest, snapshot) in files {
        match replay.read(&path, newest, boot, snapshot)? {
            Read::Whole => {}
            Read::TornAfter(length) => torn = Some((path, length)),
            Read::Unusable(reason) => {
                verdict = reason;
                break;
            }
        }
    }
    let generation = match &torn {
        Some((_, 0)) => generation - 1,
        _ => generation,
    };
    let next_id = replay.last_id.saturating_add(1);
    let records = replay.records;
    if verdict != Verdict::Used {
        replay = Replay::default();
    } else if let Some((path, length)) = torn {
        // It is not the newest any more from here on, and only the newest may end in a torn record.
        cut(&path, length).map_err(|source| JournalError::Write { path, source })?;
    }
    Ok(Replayed {
        verdict,
        segments: replay.segments.into_values().collect(),
        objects: replay.objects.into_values().collect(),
        next_id,
        generation,
        records,
    })
}

fn cut(path: &Path, length: usize) -> std::io::Result<()> {
    if length == 0 {
        return std::fs::remove_file(path);
    }
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(length as u64)?;
    file.sync_all()
}
