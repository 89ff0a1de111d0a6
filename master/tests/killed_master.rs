//! The process is killed at any moment of a random load and started again: what is served is what was put.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{Client, Master, Random, place, segment, uuid};
use mooncake_wire::method::*;
use mooncake_wire::model::{ObjectMeta, ReplicateConfig, Tenant};

const SEGMENT_BYTES: u64 = 64 * 512;

/// What the clients know: the bytes, and which keys must be there.
#[derive(Default)]
struct World {
    /// The put that wrote each granule last.
    memory: BTreeMap<u64, u64>,
    /// The key of each put.
    puts: BTreeMap<u64, Vec<u8>>,
    /// Keys whose put was answered and that nobody removed since; none of them may be missing, unless evicted.
    sure: BTreeSet<Vec<u8>>,
    next: u64,
}

fn load(client: &mut Client, world: &mut World, random: &mut Random) -> std::io::Result<()> {
    let tenant = Tenant::default();
    loop {
        let names: Vec<Vec<u8>> = (0..4).map(|_| format!("k{}", random.below(40)).into_bytes()).collect();
        let keys: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        match random.below(4) {
            0..=2 => {
                let lengths: Vec<u64> = keys.iter().map(|_| 64 * (1 + random.below(20))).collect();
                let config = ReplicateConfig::default();
                let start = BatchPutStart { client: uuid(1), keys: keys.clone(), lengths, config, tenant };
                let answers = client.try_call(&start)?.expect("start");
                let mut written = Vec::new();
                for (key, answer) in keys.iter().zip(answers) {
                    if let Ok(replicas) = answer {
                        world.next += 1;
                        world.puts.insert(world.next, key.to_vec());
                        let (address, length) = place(&replicas[0]);
                        for granule in (address..address + length).step_by(64) {
                            world.memory.insert(granule, world.next);
                        }
                        written.push(*key);
                    }
                }
                let objects: Vec<_> = written.iter().map(|key| ObjectMeta { key, checksum: None }).collect();
                let end = BatchPutEnd { client: uuid(1), objects, tenant, ..BatchPutEnd::default() };
                let answers = client.try_call(&end)?.expect("end");
                for (key, answer) in written.iter().zip(answers) {
                    assert_eq!(answer, Ok(()));
                    world.sure.insert(key.to_vec());
                }
            }
            _ => {
                for key in &keys {
                    world.sure.remove(*key);
                }
                let remove = BatchRemove { keys: keys.clone(), force: true, tenant };
                let _ = client.try_call(&remove)?.expect("remove");
            }
        }
    }
}

fn check(client: &mut Client, world: &mut World, round: u64) {
    let tenant = Tenant::default();
    let list = GetReplicaListByRegex { pattern: b"", tenant };
    let found = client.call(&list).expect("call").expect("list").0;
    let mut seen = BTreeSet::new();
    for (key, replicas) in found {
        let (address, length) = place(&replicas[0]);
        let stamps: BTreeSet<_> =
            (address..address + length).step_by(64).map(|granule| world.memory.get(&granule)).collect();
        assert_eq!(stamps.len(), 1, "round {round}: {key:?} is of one put");
        let stamp = stamps.first().copied().flatten().expect("written");
        assert_eq!(world.puts[stamp], *key, "round {round}: bytes of another key");
        seen.insert(key.to_vec());
    }
    for key in &world.sure {
        assert!(seen.contains(key), "round {round}: {key:?} was put and is gone");
    }
    // A put that ended unseen may be there as well; what is there now is what later rounds begin with.
    world.sure = seen;
}

#[test]
fn kill_and_restart_again_and_again() {
    rounds("--journal_sync=false", 12);
}

/// The same with every answer waiting for the disk, which is another way through the server.
#[test]
fn kill_and_restart_with_a_synced_journal() {
    rounds("--journal_sync=true", 6);
}

fn rounds(sync: &str, count: u64) {
    let directory = tempfile::tempdir().expect("directory");
    let journal = format!("--journal_dir={}", directory.path().display());
    // No eviction, so that every key that was put must be there.
    let flags = [
        journal.as_str(),
        sync,
        "--eviction_ratio=0",
        "--eviction_high_watermark_ratio=1",
        "--default_kv_lease_ttl=1",
    ];
    let mut world = World::default();
    let mut random = Random(11);
    for round in 0..count {
        let master = Master::start(&flags);
        let mut client = master.client();
        let segments = vec![segment(1, "a", SEGMENT_BYTES), segment(2, "b", SEGMENT_BYTES)];
        client.call(&ReMountSegment { segments, client: uuid(9) }).expect("call").expect("mount");
        check(&mut client, &mut world, round);
        let end = Duration::from_micros(20_000 + random.below(60_000));
        std::thread::scope(|scope| {
            // When it is killed says nothing about the result; that it is, at some moment of the load, does.
            scope.spawn(move || {
                std::thread::sleep(end);
                master.kill();
            });
            assert!(load(&mut client, &mut world, &mut random).is_err());
        });
    }
}

/// When there is room again, the journal goes on by itself, and the next restart keeps everything.
#[test]
fn a_journal_goes_on_when_the_disk_has_room_again() {
    if !std::process::Command::new("prlimit")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        mooncake_test_support::skip("no prlimit, which stands for a disk that fills and empties");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let journal = format!("--journal_dir={}", directory.path().display());
    let mut command = std::process::Command::new("prlimit");
    command.args([
        "--fsize=8192:unlimited",
        "env",
        "--ignore-signal=XFSZ",
        env!("CARGO_BIN_EXE_mooncake_master"),
    ]);
    command.args(["--rpc_port=0", "--port=0", "--metrics_port=0", "--rpc_address=127.0.0.1"]);
    let master = Master::start_command(command.args(["--metrics_host=127.0.0.1", &journal]));
    let mut client = master.client();
    let segments = || vec![segment(1, "a", 1 << 30)];
    client.call(&ReMountSegment { segments: segments(), client: uuid(9) }).expect("call").expect("mount");
    let put = |client: &mut Client, index: u64| {
        let key = format!("key{index}").into_bytes();
        let start = PutStart { client: uuid(1), key: &key, length: 64, ..PutStart::default() };
        client.call(&start).expect("call").expect("space");
        let object = ObjectMeta { key: &key, checksum: None };
        client.call(&PutEnd { client: uuid(1), object, ..PutEnd::default() }).expect("call").expect("end");
    };
    for index in 0..500 {
        put(&mut client, index);
    }
    let failed =
        |value: u8| master.http("GET /metrics").1.contains(&format!("\nmaster_journal_failed {value}\n"));
    assert!(failed(1));
    let pid = format!("--pid={}", master.child.id());
    let more = std::process::Command::new("prlimit").args([&pid, "--fsize=unlimited:unlimited"]).status();
    assert!(more.expect("prlimit").success());
    common::eventually("a compaction has written everything", || failed(0));
    put(&mut client, 500);
    master.kill();
    let master = Master::start(&[&journal]);
    let mut client = master.client();
    client.call(&ReMountSegment { segments: segments(), client: uuid(9) }).expect("call").expect("mount");
    let keys: Vec<String> = (0..=500).map(|index| format!("key{index}")).collect();
    let keys = keys.iter().map(String::as_bytes).collect();
    let found = client.call(&BatchExistKey { keys, tenant: Tenant::default() }).expect("call");
    assert!(found.iter().all(|found| *found == Ok(true)), "{found:?}");
}

#[test]
fn a_full_disk_stops_the_journal_and_nothing_else() {
    let directory = tempfile::tempdir().expect("directory");
    let journal = format!("--journal_dir={}", directory.path().display());
    // The master may write files of 8 KiB at most, as on a disk that is full then.
    let limited = format!(
        "trap '' XFSZ; ulimit -f 16; exec {} --rpc_port=0 --port=0 --metrics_port=0 --rpc_address=127.0.0.1 \
         --metrics_host=127.0.0.1 {journal}",
        env!("CARGO_BIN_EXE_mooncake_master")
    );
    let master = Master::start_command(std::process::Command::new("sh").args(["-c", &limited]));
    let mut client = master.client();
    let segments = || vec![segment(1, "a", 1 << 30)];
    client.call(&ReMountSegment { segments: segments(), client: uuid(9) }).expect("call").expect("mount");
    for index in 0..2000u64 {
        let key = format!("key{index}").into_bytes();
        let start = PutStart { client: uuid(1), key: &key, length: 64, ..PutStart::default() };
        client.call(&start).expect("call").expect("space");
        let end =
            PutEnd { client: uuid(1), object: ObjectMeta { key: &key, checksum: None }, ..PutEnd::default() };
        client.call(&end).expect("call").expect("end");
    }
    assert!(master.http("GET /metrics").1.contains("\nmaster_journal_failed 1\n"));
    let exist = |key: &'static [u8]| ExistKey { key, tenant: Tenant::default() };
    assert_eq!(client.call(&exist(b"key0")), Ok(Ok(true)));
    assert_eq!(client.call(&exist(b"key1999")), Ok(Ok(true)));
    master.kill();

    // The journal lacks the later puts, so that it must not be used: their space would be given away.
    let master = Master::start(&[&journal]);
    assert!(master.log().contains("journal: not used"), "{}", master.log());
    let mut client = master.client();
    client.call(&ReMountSegment { segments: segments(), client: uuid(9) }).expect("call").expect("mount");
    assert_eq!(client.call(&exist(b"key0")), Ok(Ok(false)));
    // The new journal is good again.
    let start = PutStart { client: uuid(1), key: b"new", length: 64, ..PutStart::default() };
    client.call(&start).expect("call").expect("space");
    let end =
        PutEnd { client: uuid(1), object: ObjectMeta { key: b"new", checksum: None }, ..PutEnd::default() };
    client.call(&end).expect("call").expect("end");
    master.kill();
    let master = Master::start(&[&journal]);
    let mut client = master.client();
    client.call(&ReMountSegment { segments: segments(), client: uuid(9) }).expect("call").expect("mount");
    assert_eq!(client.call(&exist(b"new")), Ok(Ok(true)));
}
