//! What a restarted master serves is what was put: a crash at every record of random histories, and between them,
//! with compactions; torn, corrupt, foreign and missing files.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Random, place, segment, uuid};
use mooncake_master::journal::{Journal, Options, Verdict};
use mooncake_master::metrics::Metrics;
use mooncake_master::moment::Moment;
use mooncake_master::policy::Policy;
use mooncake_master::state::{PutRequest, State};
use mooncake_wire::model::{ObjectMeta, ReplicaType, ReplicateConfig, Segment};

const SEGMENT_BYTES: u64 = 64 * 256;
const RELEASE_MS: u64 = 100_000;

fn options(directory: &Path) -> Options {
    Options { directory: directory.to_owned(), sync: false, boot: [7; 16] }
}

fn policy() -> Policy {
    Policy { lease_ttl_ms: 5, put_discard_ms: 40, put_release_ms: RELEASE_MS, ..Policy::default() }
}

fn open(options: Options, policy: Policy, now: Moment) -> (State, Verdict) {
    let (journal, replayed) = Journal::open(options).expect("journal");
    let verdict = replayed.verdict.clone();
    let state = State::new(policy, Some(journal), Arc::new(Metrics::default()));
    state.restore(replayed, now);
    (state, verdict)
}

fn segments() -> [Segment; 2] {
    [segment(1, "a", SEGMENT_BYTES), segment(2, "b", SEGMENT_BYTES)]
}

fn keys(state: &State) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    state.for_each_key(|key| {
        keys.insert(key.to_vec());
    });
    keys
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("directory") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
    }
}

fn newest_journal(directory: &Path) -> PathBuf {
    let number = |path: &PathBuf| path.extension().and_then(|number| number.to_str()?.parse::<u64>().ok());
    let journals = std::fs::read_dir(directory).expect("directory").map(|entry| entry.expect("entry").path());
    let journals = journals.filter(|path| path.file_stem().is_some_and(|stem| stem == "journal"));
    journals.max_by_key(number).expect("a journal")
}

/// The clients' memory: which put wrote each granule last.
#[derive(Clone, Default)]
struct Memory(BTreeMap<u64, usize>);

impl Memory {
    fn write(&mut self, address: u64, length: u64, stamp: usize) {
        for granule in (address..address + length).step_by(64) {
            self.0.insert(granule, stamp);
        }
    }
}

/// Addresses and lengths.
type Ranges = Vec<(u64, u64)>;

/// A state with a journal, the clients' memory, and what each put wrote.
struct World {
    state: State,
    memory: Memory,
    /// By stamp: the key that was written.
    puts: Vec<Vec<u8>>,
    /// Ranges that a writer may still write to, by key and writer.
    writing: BTreeMap<(Vec<u8>, u64), Ranges>,
    now: Moment,
}

impl World {
    fn step(&mut self, random: &mut Random) {
        self.now = self.now.after_ms(random.below(8));
        let now = self.now;
        let key = format!("k{}", random.below(10)).into_bytes();
        let writer = random.below(2);
        let config = ReplicateConfig { replica_num: 1 + random.below(2), ..ReplicateConfig::default() };
        let request = PutRequest { client: uuid(writer), config: &config, now };
        match random.below(12) {
            choice @ 0..=4 => {
                let length = 64 * (1 + random.below(40));
                let started = if choice == 0 {
                    self.state.upsert_start(&request, &key, length)
                } else {
                    self.state.put_start(&request, &key, length)
                };
                self.state.flush();
                if let Ok(replicas) = started {
                    self.puts.push(key.clone());
                    let ranges: Vec<_> = replicas.iter().map(place).collect();
                    for (address, length) in &ranges {
                        self.memory.write(*address, *length, self.puts.len() - 1);
                    }
                    self.writing.insert((key, writer), ranges);
                }
            }
            5..=7 => {
                let meta = ObjectMeta { key: &key, checksum: Some(1) };
                if self.state.put_end(uuid(writer), &meta, ReplicaType::ALL, now).is_ok() {
                    self.writing.remove(&(key, writer));
                }
            }
            8 => {
                if self.state.put_revoke(uuid(writer), &key, ReplicaType::ALL).is_ok() {
                    self.writing.remove(&(key, writer));
                }
            }
            9 => drop(self.state.remove(&key, true, now)),
            10 => {
                let _evicted = self.state.evict_if_needed(now);
                self.state.clear_replicas(&[&key], uuid(writer), "a", now);
            }
            _ => {
                if random.below(6) == 0 {
                    self.state.compact_journal();
                }
                if random.below(20) == 0 {
                    // The client goes, and comes back with the same memory: the objects are gone all the same.
                    self.state.unmount(uuid(1), uuid(9)).expect("unmount");
                    self.state.flush();
                    let there = |(address, _): &(u64, u64)| {
                        (segments()[0].base..segments()[0].base + SEGMENT_BYTES).contains(address)
                    };
                    self.writing.retain(|_, ranges| !ranges.iter().any(there));
                    self.state.mount(&segments()[0], uuid(9), now).expect("mount");
                }
            }
        }
        self.state.flush();
    }

    /// Every object that the restarted master serves has its own bytes, and no new put gets a range that somebody
    /// may still write to.
    fn check_restart(&self, directory: &Path, exact: bool, context: &str) {
        let (state, verdict) = open(options(directory), policy(), Moment(1));
        assert_eq!(verdict, Verdict::Used, "{context}");
        state.remount(&segments(), uuid(9), Moment(2)).expect("remount");
        if exact {
            assert_eq!(keys(&state), keys(&self.state), "{context}");
        }
        let mut served: Vec<(u64, u64)> = Vec::new();
        for key in keys(&state) {
            for replica in state.inspect(&key).expect("readable") {
                let (address, length) = place(&replica);
                served.push((address, length));
                let stamps: BTreeSet<_> = (address..address + length)
                    .step_by(64)
                    .map(|granule| self.memory.0.get(&granule))
                    .collect();
                assert_eq!(stamps.len(), 1, "{context}: {key:?} is of one put");
                let stamp = stamps.first().copied().flatten().expect("written");
                assert_eq!(self.puts[*stamp], key, "{context}: bytes of another key");
            }
        }
        let config = ReplicateConfig::default();
        for index in 0..10_000u64 {
            let key = format!("fill{index}");
            let request = PutRequest { client: uuid(3), config: &config, now: Moment(2) };
            let Ok(replicas) = state.put_start(&request, key.as_bytes(), 64) else {
                return;
            };
            let (address, _) = place(&replicas[0]);
            let taken = self.writing.values().flatten();
            for (start, length) in taken {
                assert!(
                    !(*start..*start + *length).contains(&address),
                    "{context}: a writer's space is given away"
                );
            }
        }
        panic!("the pool has no end");
    }
}

#[test]
fn a_crash_at_every_step_and_between_two() {
    for seed in 0..8u64 {
        let directory = tempfile::tempdir().expect("directory");
        let mut random = Random(seed);
        // Eviction stays off in the checks, where only the ranges are looked at.
        let (state, _) =
            open(options(directory.path()), Policy { eviction_ratio: 0.2, ..policy() }, Moment(1));
        state.remount(&segments(), uuid(9), Moment(1)).expect("mount");
        state.flush();
        let mut world = World {
            state,
            memory: Memory::default(),
            puts: Vec::new(),
            writing: BTreeMap::new(),
            now: Moment(1),
        };
        for step in 0..250 {
            let before = tempfile::tempdir().expect("directory");
            copy(directory.path(), before.path());
            let (memory, mut writing) = (world.memory.clone(), world.writing.clone());
            world.step(&mut random);
            // What the step itself gave up, it may have given up already when it was cut short.
            writing.retain(|writer, ranges| world.writing.get(writer) == Some(ranges));
            let context = format!("seed {seed} step {step}");
            if step % 3 == 0 {
                let after = tempfile::tempdir().expect("directory");
                copy(directory.path(), after.path());
                world.check_restart(after.path(), true, &context);
            }
            // The same step, cut short before it was answered: the memory is as before it.
            let (old, new) = (newest_journal(before.path()), newest_journal(directory.path()));
            if old.file_name() == new.file_name() {
                let whole = std::fs::read(&new).expect("journal");
                let length = std::fs::metadata(&old).expect("journal").len();
                let added = whole.len() as u64 - length;
                if added > 1 {
                    let cut = usize::try_from(length + 1 + random.below(added - 1)).expect("fits");
                    std::fs::write(&old, &whole[..cut]).expect("cut");
                    let (memory, writing) = (
                        std::mem::replace(&mut world.memory, memory),
                        std::mem::replace(&mut world.writing, writing),
                    );
                    world.check_restart(before.path(), false, &format!("{context} cut"));
                    (world.memory, world.writing) = (memory, writing);
                }
            }
        }
    }
}

/// Every state that a crash inside a compaction can leave the directory in: the new journal is begun; the snapshot is
/// written in part, whole, has its name; some of the old files are gone.
#[test]
fn a_crash_at_every_step_of_a_compaction() {
    for seed in 100..106u64 {
        let directory = tempfile::tempdir().expect("directory");
        let mut random = Random(seed);
        let (state, _) = open(options(directory.path()), policy(), Moment(1));
        state.remount(&segments(), uuid(9), Moment(1)).expect("mount");
        let mut world = World {
            state,
            memory: Memory::default(),
            puts: Vec::new(),
            writing: BTreeMap::new(),
            now: Moment(1),
        };
        for round in 0..4 {
            for _ in 0..60 {
                world.step(&mut random);
            }
            let before = tempfile::tempdir().expect("directory");
            copy(directory.path(), before.path());
            world.state.compact_journal();
            let journal = newest_journal(directory.path());
            let number = journal.extension().and_then(|number| number.to_str()).expect("number").to_owned();
            let snapshot = directory.path().join(format!("snapshot.{number}"));
            let whole = std::fs::read(&snapshot).expect("snapshot");
            let old: Vec<_> = std::fs::read_dir(before.path())
                .expect("directory")
                .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
                .filter(|name| name != "lock")
                .collect();
            // The journals go first.
            let mut going: Vec<&String> = old.iter().filter(|name| name.starts_with("journal")).collect();
            going.extend(old.iter().filter(|name| name.starts_with("snapshot")));
            let stage = |named: bool, written: usize, gone: usize| {
                let crashed = tempfile::tempdir().expect("directory");
                copy(before.path(), crashed.path());
                std::fs::copy(&journal, crashed.path().join(format!("journal.{number}"))).expect("copy");
                let name = if named { format!("snapshot.{number}") } else { "snapshot.new".to_owned() };
                std::fs::write(crashed.path().join(name), &whole[..written]).expect("write");
                for name in &going[..gone] {
                    std::fs::remove_file(crashed.path().join(name)).expect("remove");
                }
                let context =
                    format!("seed {seed} round {round} named {named} written {written} gone {gone}");
                // Twice: what the first restart makes of it, the second has to read.
                world.check_restart(crashed.path(), true, &context);
                let again = open(options(crashed.path()), policy(), Moment(1));
                assert_eq!(again.1, Verdict::Used, "{context}");
            };
            for written in [0, 1, whole.len() / 2, whole.len()] {
                stage(false, written, 0);
            }
            for gone in 0..=going.len() {
                stage(true, whole.len(), gone);
            }
        }
    }
}

/// Compactions run while others put and remove: each of their records is in the snapshot or in the journal after it.
#[test]
fn a_compaction_beside_a_load_loses_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let policy = || Policy { eviction_high_watermark: 1.0, lease_ttl_ms: 1, ..policy() };
    let (state, _) = open(options(directory.path()), policy(), Moment(1));
    let large = || [segment(1, "a", 1 << 30)];
    state.remount(&large(), uuid(9), Moment(1)).expect("mount");
    let compacted = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..3u64)
            .map(|thread| {
                let (state, compacted) = (&state, &compacted);
                scope.spawn(move || {
                    let mut random = Random(thread);
                    for step in 0..1_000_000u64 {
                        if step > 3000 && compacted.load(std::sync::atomic::Ordering::Acquire) {
                            break;
                        }
                        let key = format!("{thread}-{}", random.below(500)).into_bytes();
                        if random.below(3) == 0 {
                            let _ = state.remove(&key, true, Moment(10 + step));
                        } else {
                            let config = ReplicateConfig::default();
                            let _ = common::put(state, uuid(thread), &key, 64, &config, Moment(10 + step));
                        }
                        state.flush();
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            state.compact_journal();
        }
        assert!(loads.iter().all(|load| !load.is_finished()), "the load lasted");
        compacted.store(true, std::sync::atomic::Ordering::Release);
    });
    let (expected, used) = (keys(&state), state.usage().0);
    assert!(expected.len() > 500, "{}", expected.len());
    drop(state);
    let (again, verdict) = open(options(directory.path()), policy(), Moment(1));
    assert_eq!(verdict, Verdict::Used);
    again.remount(&large(), uuid(9), Moment(2)).expect("remount");
    assert_eq!(keys(&again), expected);
    assert_eq!(again.usage().0, used, "to the byte");
}

/// A directory with a journal of a few objects.
fn small(sync: bool) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("directory");
    let (state, verdict) = open(Options { sync, ..options(directory.path()) }, policy(), Moment(1));
    assert_eq!(verdict, Verdict::Empty);
    state.remount(&segments(), uuid(9), Moment(1)).expect("mount");
    for key in [b"k1", b"k2", b"k3"] {
        common::put(&state, uuid(1), key, 128, &ReplicateConfig::default(), Moment(2)).expect("space");
    }
    state.flush();
    directory
}

fn restart(options: Options) -> (BTreeSet<Vec<u8>>, Verdict) {
    let (state, verdict) = open(options, policy(), Moment(1));
    assert!(keys(&state).is_empty(), "nothing is served before its segment is mounted");
    state.remount(&segments(), uuid(9), Moment(2)).expect("remount");
    (keys(&state), verdict)
}

#[test]
fn objects_wait_for_their_own_segment() {
    let directory = small(false);
    let (state, _) = open(options(directory.path()), policy(), Moment(1));
    // The same name with another id is a restarted client: its memory is empty.
    state
        .remount(&[segment(11, "a", SEGMENT_BYTES), segment(12, "b", SEGMENT_BYTES)], uuid(9), Moment(2))
        .expect("mount");
    assert!(keys(&state).is_empty());
    // The same id at another address is another memory.
    let mut moved = segments();
    moved[0].base += 4096;
    moved[1].size -= 64;
    state.remount(&moved, uuid(9), Moment(3)).expect("mount");
    assert!(keys(&state).is_empty());
    // What waited is put again without complaint.
    common::put(&state, uuid(1), b"k1", 128, &ReplicateConfig::default(), Moment(4)).expect("space");
    drop(state);
    let (keys, _) = restart(options(directory.path()));
    assert!(keys.is_empty(), "the replaced segments are gone for good: {keys:?}");
}

#[test]
fn waiting_ends() {
    let directory = small(false);
    let (state, _) = open(options(directory.path()), policy(), Moment(1));
    state.look(Moment(600_000));
    assert_eq!(state.totals(Moment(600_000)).objects, 3);
    state.look(Moment(600_002));
    assert_eq!((state.totals(Moment(600_002)).objects, state.metadata_bytes()), (0, 0));
    state.remount(&segments(), uuid(9), Moment(600_003)).expect("mount");
    assert!(keys(&state).is_empty());
}

#[test]
fn several_restarts_and_a_compaction_keep_everything() {
    let directory = small(false);
    for _ in 0..4 {
        let (keys, verdict) = restart(options(directory.path()));
        assert_eq!((keys.len(), verdict), (3, Verdict::Used));
    }
    let (state, _) = open(options(directory.path()), policy(), Moment(1));
    state.compact_journal();
    drop(state);
    let files = std::fs::read_dir(directory.path()).expect("directory").count();
    assert_eq!(files, 3, "lock, snapshot and journal");
    assert_eq!(restart(options(directory.path())).0.len(), 3);
}

#[test]
fn one_master_per_directory() {
    let directory = small(false);
    let held = Journal::open(options(directory.path())).expect("first");
    let error = Journal::open(options(directory.path())).expect_err("second");
    assert!(error.to_string().contains("in use by another master"), "{error}");
    drop(held);
    assert_eq!(restart(options(directory.path())).0.len(), 3);
}

#[test]
fn another_boot_counts_only_what_was_synced() {
    let other = |directory: &Path| Options { boot: [8; 16], ..options(directory) };
    let unsynced = small(false);
    assert_eq!(restart(other(unsynced.path())), (BTreeSet::new(), Verdict::OtherBoot));
    let synced = small(true);
    // The file is longer than what was synced, and empty there.
    let path = newest_journal(synced.path());
    let mut bytes = std::fs::read(&path).expect("journal");
    bytes.extend_from_slice(&[0; 100]);
    std::fs::write(&path, &bytes).expect("write");
    let (keys, verdict) = restart(other(synced.path()));
    assert_eq!((keys.len(), verdict), (3, Verdict::Used));
}

#[test]
fn a_torn_tail_is_dropped_and_a_corrupt_record_ends_trust() {
    let whole = small(false);
    let bytes = std::fs::read(newest_journal(whole.path())).expect("journal");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let directory = tempfile::tempdir().expect("directory");
        copy(whole.path(), directory.path());
        let mut changed = bytes.clone();
        change(&mut changed);
        std::fs::write(newest_journal(directory.path()), changed).expect("write");
        let result = restart(options(directory.path()));
        // Whatever was found, the next start goes on from it.
        let (_, verdict) = restart(options(directory.path()));
        assert_eq!(verdict, Verdict::Used);
        result
    };
    for cut in (0..bytes.len()).step_by(2) {
        let (keys, verdict) = with(&|bytes| bytes.truncate(cut));
        assert_eq!(verdict, Verdict::Used, "cut at {cut}");
        assert!(keys.len() <= 3);
    }
    for byte in (0..bytes.len()).step_by(7) {
        let (keys, verdict) = with(&|bytes| bytes[byte] ^= 0x10);
        match verdict {
            Verdict::Used => {
                assert!((8..24).contains(&byte) || (26..32).contains(&byte), "byte {byte} is not looked at")
            }
            Verdict::Corrupt(_) | Verdict::OtherBoot | Verdict::Invalidated(_) => assert!(keys.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_snapshot_is_whole_or_nothing_is_used() {
    let directory = small(false);
    let (state, _) = open(options(directory.path()), policy(), Moment(1));
    state.compact_journal();
    drop(state);
    let snapshot = directory.path().join("snapshot.3");
    let whole = std::fs::read(&snapshot).expect("snapshot");
    for change in [whole.len() - 1, whole.len() / 2, 40] {
        for cut in [false, true] {
            let copied = tempfile::tempdir().expect("directory");
            copy(directory.path(), copied.path());
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(change);
            } else {
                bytes[change] ^= 1;
            }
            std::fs::write(copied.path().join("snapshot.3"), bytes).expect("write");
            let (keys, verdict) = restart(options(copied.path()));
            assert!(keys.is_empty() && matches!(verdict, Verdict::Corrupt(_)), "{change} {cut}: {verdict:?}");
        }
    }
    assert_eq!(restart(options(directory.path())).0.len(), 3);
}

#[test]
fn a_missing_file_ends_trust() {
    let directory = small(false);
    drop(open(options(directory.path()), policy(), Moment(1)));
    std::fs::remove_file(directory.path().join("journal.1")).expect("remove");
    let (keys, verdict) = restart(options(directory.path()));
    assert!(keys.is_empty() && matches!(verdict, Verdict::Corrupt(_)), "{verdict:?}");
}
