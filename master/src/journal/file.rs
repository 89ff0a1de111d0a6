//! The journal's files: append, flush, compact, give up.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fs4::fs_std::FileExt;
use parking_lot::Mutex;

use super::record::Record;
use super::replay::{self, Replayed, Verdict};

pub(super) const FILE_HEADER_BYTES: usize = 32;
/// The number of the first journal of a directory.
pub(super) const FIRST_GENERATION: u64 = 1;
const MAGIC: [u8; 8] = *b"MCJRNL01";
/// A journal is compacted when it is longer than this and than a few times what is alive.
const COMPACT_ABOVE_BYTES: u64 = 64 << 20;
const COMPACT_RATIO: u64 = 4;

/// What may go wrong with the journal's directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A file or the directory cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another master has the directory.
    #[error("{path} is in use by another master")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// How the journal is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its directory; made if it does not exist.
    pub directory: PathBuf,
    /// Whether each flush waits for the disk, so that the journal is good after a crash of the host.
    pub sync: bool,
    /// Identifies this start of the host.
    pub boot: [u8; 16],
}

impl Options {
    /// Options for a directory on this host.
    #[must_use]
    pub fn new(directory: PathBuf, sync: bool) -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut digits = text.bytes().filter_map(|byte| char::from(byte).to_digit(16));
        let boot = std::array::from_fn(|_| {
            let high = digits.next().unwrap_or(0);
            let low = digits.next().unwrap_or(0);
            u8::try_from(high * 16 + low).unwrap_or(0)
        });
        Self { directory, sync, boot }
    }
}

/// The first bytes of each file.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileHeader {
    pub(super) boot: [u8; 16],
    pub(super) synced: bool,
    pub(super) valid: bool,
}

impl FileHeader {
    fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        let fields =
            MAGIC.iter().chain(&self.boot).copied().chain([u8::from(self.synced), u8::from(self.valid)]);
        for (place, value) in bytes.iter_mut().zip(fields) {
            *place = value;
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FILE_HEADER_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (boot, rest) = rest.split_first_chunk::<16>()?;
        let &[synced, valid, ..] = rest else {
            return None;
        };
        (*magic == MAGIC && synced <= 1 && valid <= 1).then_some(Self {
            boot: *boot,
            synced: synced == 1,
            valid: valid == 1,
        })
    }
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    /// None while journalling has stopped after a failed write.
    file: Option<File>,
    generation: u64,
    written_bytes: u64,
    scratch: Vec<u8>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    options: Options,
    _lock: File,
    pending: Mutex<Vec<u8>>,
    appended: AtomicU64,
    flushed: AtomicU64,
    output: Mutex<Output>,
    live_bytes: AtomicU64,
    /// Whether there are files of earlier lives, which a compaction would replace by one.
    chained: AtomicBool,
    failed: AtomicBool,
}

fn write_error(path: &Path) -> impl Fn(std::io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Write { path: path.clone(), source }
}

impl Journal {
    /// Opens the journal of a directory and reads what it says.
    ///
    /// A journal that is not used is put aside: a new one begins, and the old files are deleted once it stands.
    ///
    /// # Errors
    /// The directory cannot be made, read or written, or another master has it.
    pub fn open(options: Options) -> Result<(Self, Replayed), JournalError> {
        let directory = options.directory.clone();
        let failed = write_error(&directory);
        std::fs::create_dir_all(&directory).map_err(&failed)?;
        let lock_path = directory.join("lock");
        let lock =
            OpenOptions::new().create(true).append(true).open(&lock_path).map_err(write_error(&lock_path))?;
        if !FileExt::try_lock_exclusive(&lock).map_err(write_error(&lock_path))? {
            return Err(JournalError::InUse { path: directory });
        }
        let replayed = replay::replay(&directory, options.boot)?;
        let used = replayed.verdict == Verdict::Used;
        if !used {
            for kind in ["snapshot", "journal"] {
                for number in replay::generations(&directory, kind)? {
                    let path = directory.join(format!("{kind}.{number}"));
                    std::fs::remove_file(&path).map_err(write_error(&path))?;
                }
            }
        }
        let generation = if used { replayed.generation + 1 } else { FIRST_GENERATION };
        let journal = Self {
            output: Mutex::new(Output {
                path: directory,
                file: None,
                generation: generation - 1,
                written_bytes: 0,
                scratch: Vec::new(),
            }),
            options,
            _lock: lock,
            pending: Mutex::new(Vec::new()),
            appended: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            chained: AtomicBool::new(used),
            failed: AtomicBool::new(false),
        };
        journal.begin_file(&mut journal.output.lock())?;
        Ok((journal, replayed))
    }

    fn begin_file(&self, output: &mut Output) -> Result<(), JournalError> {
        let generation = output.generation + 1;
        let path = self.options.directory.join(format!("journal.{generation}"));
        let failed = write_error(&path);
        let header = FileHeader { boot: self.options.boot, synced: self.options.sync, valid: true };
        let begin = || {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
            file.write_all(&header.encode())?;
            if self.options.sync {
                file.sync_all()?;
                File::open(&self.options.directory)?.sync_all()?;
            }
            Ok(file)
        };
        let file = match begin() {
            Ok(file) => file,
            Err(error) => {
                // Half a file would stand in the way of the one that goes on.
                if let Err(error) = std::fs::remove_file(&path) {
                    log::debug!("journal: {} was not begun: {error}", path.display());
                }
                return Err(failed(error));
            }
        };
        *output = Output {
            path,
            file: Some(file),
            generation,
            written_bytes: 0,
            scratch: std::mem::take(&mut output.scratch),
        };
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), JournalError> {
        let directory = &self.options.directory;
        File::open(directory).and_then(|handle| handle.sync_all()).map_err(write_error(directory))
    }

    /// Appends a record. It is in the file after the next `flush`.
    pub fn append(&self, record: &Record<'_>) {
        let mut pending = self.pending.lock();
        record.write(&mut pending);
        self.appended.fetch_add(1, Ordering::Release);
    }

    /// Writes everything that was appended before the call. A failure stops journalling; see `failed`.
    pub fn flush(&self) {
        let wanted = self.appended.load(Ordering::Acquire);
        if self.flushed.load(Ordering::Acquire) >= wanted {
            return;
        }
        let mut output = self.output.lock();
        if self.flushed.load(Ordering::Acquire) >= wanted {
            return;
        }
        if let Err(error) = self.write_pending(&mut output) {
            self.give_up(&mut output, &error);
        }
    }

    fn write_pending(&self, output: &mut Output) -> Result<(), JournalError> {
        let mut scratch = std::mem::take(&mut output.scratch);
        scratch.clear();
        let appended = {
            let mut pending = self.pending.lock();
            std::mem::swap(&mut *pending, &mut scratch);
            self.appended.load(Ordering::Acquire)
        };
        let result = match &mut output.file {
            Some(file) => file
                .write_all(&scratch)
                .and_then(|()| if self.options.sync { file.sync_data() } else { Ok(()) }),
            None => Ok(()),
        };
        output.written_bytes += scratch.len() as u64;
        // A burst's buffer is not kept for ever.
        scratch.clear();
        scratch.shrink_to(1 << 20);
        output.scratch = scratch;
        // Whoever waits is told that the write is over, whether it went well or journalling stopped.
        self.flushed.store(appended, Ordering::Release);
        result.map_err(write_error(&output.path))
    }

    /// Marks every file as not to be used, in place: that takes no space on a full disk.
    fn give_up(&self, output: &mut Output, error: &JournalError) {
        log::error!(
            "journal: {error}; the cache will not survive a restart until the journal can be written again"
        );
        self.failed.store(true, Ordering::Release);
        let Some(mut file) = output.file.take() else {
            return;
        };
        let header = FileHeader { boot: self.options.boot, synced: self.options.sync, valid: false };
        let marked = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&header.encode()))
            .and_then(|()| file.sync_all());
        if let Err(error) = marked {
            log::error!("journal: cannot mark {} as not to be used: {error}", output.path.display());
            // A journal that is not there is not used either.
            if let Err(error) = std::fs::remove_file(&output.path) {
                log::error!("journal: cannot remove {}: {error}", output.path.display());
            }
        }
    }

    /// Whether a flush waits for the disk.
    #[must_use]
    pub const fn waits_for_disk(&self) -> bool {
        self.options.sync
    }

    /// Whether something was appended that a flush would write.
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        self.flushed.load(Ordering::Acquire) < self.appended.load(Ordering::Acquire)
    }

    /// Whether journalling has stopped.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Bytes of the newest file.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.output.lock().written_bytes
    }

    /// Whether a compaction is worth while.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        let live = self.live_bytes.load(Ordering::Acquire);
        self.failed()
            || self.chained.load(Ordering::Acquire)
            || self.written_bytes() > COMPACT_ABOVE_BYTES.max(live.saturating_mul(COMPACT_RATIO))
    }

    /// Begins a new journal and writes what is alive to the snapshot before it. `records` is called once, with a
    /// function that takes written records; they must name everything that is alive when `records` is called.
    ///
    /// # Errors
    /// A file cannot be written. The journal goes on as it was, or stays stopped.
    pub fn compact(&self, records: impl FnOnce(&mut dyn FnMut(&[u8]))) -> Result<(), JournalError> {
        let (old, generation) = {
            let mut output = self.output.lock();
            let old = output.generation;
            if let Err(error) = self.write_pending(&mut output) {
                self.give_up(&mut output, &error);
            }
            self.begin_file(&mut output)?;
            (old, output.generation)
        };
        let directory = &self.options.directory;
        let (unfinished, path) =
            (directory.join("snapshot.new"), directory.join(format!("snapshot.{generation}")));
        let failed = write_error(&unfinished);
        let file = File::create(&unfinished).map_err(&failed)?;
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, file);
        let header = FileHeader { boot: self.options.boot, synced: self.options.sync, valid: true };
        let mut result = writer.write_all(&header.encode());
        let mut total = 0u64;
        records(&mut |bytes| {
            if result.is_ok() {
                total += bytes.len() as u64;
                result = writer.write_all(bytes);
            }
        });
        result.map_err(&failed)?;
        let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
        if self.options.sync {
            file.sync_all().map_err(&failed)?;
        }
        // What the snapshot says must not come before the records that led to it.
        self.flush();
        std::fs::rename(&unfinished, &path).map_err(&failed)?;
        if self.options.sync {
            self.sync_directory()?;
        }
        self.live_bytes.store(total, Ordering::Release);
        self.chained.store(false, Ordering::Release);
        if self.output.lock().file.is_some() {
            self.failed.store(false, Ordering::Release);
        }
        for (kind, newest) in [("journal", old), ("snapshot", old)] {
            for number in replay::generations(directory, kind)? {
                if number <= newest {
                    let path = directory.join(format!("{kind}.{number}"));
                    std::fs::remove_file(&path).map_err(write_error(&path))?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.flush();
    }
}
