//! The same calls at our master and at upstream's: what one answers the other answers.
//!
//! `golden/calls.txt` is what upstream's released masters were seen to answer. Ours is held to it always, theirs where
//! the wheel can be had, which says that the file is still right.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;
mod upstream;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use common::{Client, MIB, Master, segment, uuid};
use mooncake_test_support::wait_until;
use mooncake_wire::method::*;
use mooncake_wire::model::{
    ObjectMeta, Placement, Replica, ReplicaType, ReplicateConfig, Segment, SoftPinAction, Tenant,
};
use mooncake_wire::{Outcome, Profile, RpcError};
use upstream::{STEADY, Upstream};

const GOLDEN: &str = include_str!("golden/calls.txt");

/// What was answered, one line a call: no ids and no addresses.
struct Transcript {
    client: Client,
    lines: Vec<String>,
}

fn spelled(replica: &Replica) -> String {
    let Placement::Memory(buffer) = &replica.placement else { panic!("{replica:?}") };
    format!("{}@{}/{}:{:?}", buffer.size, buffer.endpoint, buffer.protocol, replica.status)
}

fn replicas(answer: Outcome<Vec<Replica>>) -> Outcome<Vec<String>> {
    answer.map(|replicas| {
        let mut spelled: Vec<String> = replicas.iter().map(spelled).collect();
        spelled.sort();
        spelled
    })
}

fn lists(answers: Vec<Outcome<Vec<Replica>>>) -> Vec<Outcome<Vec<String>>> {
    answers.into_iter().map(replicas).collect()
}

impl Transcript {
    fn say<'a, M: Method<'a>, T: Debug>(
        &mut self,
        label: &str,
        method: &M,
        told: impl FnOnce(M::Reply) -> T,
    ) {
        let answer: Result<M::Reply, RpcError> = self.client.call(method);
        let line = match answer {
            Ok(reply) => format!("{:?}", told(reply)),
            Err(error) => format!("RPC error {}", error.code),
        };
        self.lines.push(format!("{label}: {}", line.replace("ErrorCode", "")));
    }

    fn same<'a, M: Method<'a>>(&mut self, label: &str, method: &M)
    where
        M::Reply: Debug,
    {
        self.say(label, method, |reply| reply);
    }
}

fn config(change: impl FnOnce(&mut ReplicateConfig)) -> ReplicateConfig {
    let mut config = ReplicateConfig::default();
    change(&mut config);
    config
}

/// Every call with a meaning, its refusals first.
fn script(address: SocketAddr, profile: Profile) -> Vec<String> {
    let client = Client::connect(address, profile).expect("connect");
    let mut at = Transcript { client, lines: Vec::new() };
    let (mine, other) = (uuid(11), uuid(12));
    let tenant = Tenant::default();
    // Ends of what is lent, so that nobody can have both.
    let lent = |number: u64, name: &str| segment(number, name, 16 * MIB);
    start_and_mount(&mut at, lent);

    at.same("nothing is there", &ExistKey { key: b"k", tenant });
    at.say("get what is not there", &GetReplicaList { key: b"k", tenant }, |answer| answer.map(|_| ()));
    at.same("remove what is not there", &Remove { key: b"k", force: false, tenant });
    let start = |key: &'static [u8], length, config: ReplicateConfig| PutStart {
        client: mine,
        key,
        length,
        config,
        tenant,
    };
    let plain = ReplicateConfig::default;
    at.say("put without a key", &start(b"", 1, plain()), replicas);
    at.say("put of nothing", &start(b"k", 0, plain()), replicas);
    at.say("put without replicas", &start(b"k", 1, config(|config| config.replica_num = 0)), replicas);
    at.say("put of more than there is", &start(b"k", 1 << 40, plain()), replicas);
    at.say("put", &start(b"k", 1000, config(|config| config.preferred_segment = "a".into())), replicas);
    at.say("put again", &start(b"k", 1000, plain()), replicas);
    at.same("exists while it is written", &ExistKey { key: b"k", tenant });
    at.say("get while it is written", &GetReplicaList { key: b"k", tenant }, |answer| answer.map(|_| ()));
    at.same("remove while it is written", &Remove { key: b"k", force: false, tenant });
    at.same("remove by force while it is written", &Remove { key: b"k", force: true, tenant });
    at.same("remove all while it is written", &RemoveAll { force: true, tenant });
    let end = |client, key: &'static [u8], replica_type| PutEnd {
        client,
        object: ObjectMeta { key, checksum: None },
        replica_type,
        tenant,
    };
    at.same("end of another", &end(other, b"k", ReplicaType::ALL));
    at.same("end of what is not there", &end(mine, b"none", ReplicaType::ALL));
    at.same("end of replicas that it has not", &end(mine, b"k", ReplicaType::DISK));
    at.same("it is written still", &ExistKey { key: b"k", tenant });
    at.say(
        "put by another while it is written",
        &PutStart { client: other, ..start(b"k", 5, plain()) },
        replicas,
    );
    at.same("end", &end(mine, b"k", ReplicaType::ALL));
    at.same("end again", &end(mine, b"k", ReplicaType::ALL));
    let revoke =
        |client, key: &'static [u8]| PutRevoke { client, key, replica_type: ReplicaType::ALL, tenant };
    at.same("revoke when it is over", &revoke(mine, b"k"));
    at.say("get", &GetReplicaList { key: b"k", tenant }, |answer| {
        answer.map(|list| (replicas(Ok(list.replicas)), list.lease_ttl_ms))
    });
    at.same("exists", &ExistKey { key: b"k", tenant });
    at.same("remove under lease", &Remove { key: b"k", force: false, tenant });
    at.same("remove by pattern under lease", &RemoveByRegex { pattern: b"^k$", force: false, tenant });
    at.same("remove all under lease", &RemoveAll { force: false, tenant });
    at.same("remove by force", &Remove { key: b"k", force: true, tenant });
    at.same("remove twice", &Remove { key: b"k", force: true, tenant });

    at.say(
        "put to be revoked",
        &start(b"r", 10, config(|config| config.preferred_segment = "b".into())),
        replicas,
    );
    at.same("revoke of another", &revoke(other, b"r"));
    let on_disk = PutRevoke { replica_type: ReplicaType::DISK, ..revoke(mine, b"r") };
    at.same("revoke of replicas that it has not", &on_disk);
    at.same("revoke of what is not there", &revoke(mine, b"none"));
    at.same("revoke", &revoke(mine, b"r"));
    at.same("revoke twice", &revoke(mine, b"r"));
    at.say("put of two of three", &start(b"two", 10, config(|config| config.replica_num = 3)), replicas);
    at.same("end of both", &end(mine, b"two", ReplicaType::MEMORY));
    let listed = |config: &mut ReplicateConfig| config.preferred_segments = vec!["none".into(), "b".into()];
    at.say("put by a list of preferences", &start(b"listed", 10, config(listed)), replicas);
    at.same("end by a list", &end(mine, b"listed", ReplicaType::ALL));
    batches(&mut at);
    upserts(&mut at);
    patterns_and_segments(&mut at, lent);
    at.lines
}

fn start_and_mount(at: &mut Transcript, lent: impl Fn(u64, &str) -> Segment) {
    let mine = uuid(11);
    at.same("ready", &ServiceReady {});
    at.same("file system", &GetFsdir {});
    at.same("storage", &GetStorageConfig {});
    at.say("ping of a stranger", &Ping { client: mine }, |answer| answer.map(|answer| answer.client_status));
    let nowhere = Segment { base: 0, ..lent(1, "a") };
    let empty = Segment { size: 0, ..lent(1, "a") };
    at.same("mount without address", &MountSegment { segment: nowhere, client: mine });
    at.same("mount without length", &MountSegment { segment: empty, client: mine });
    at.same("mount", &MountSegment { segment: lent(1, "a"), client: mine });
    at.same("mount again", &MountSegment { segment: lent(1, "a"), client: mine });
    at.say("ping before the remount", &Ping { client: mine }, |answer| {
        answer.map(|answer| answer.client_status)
    });
    let segments = vec![lent(1, "a"), lent(2, "b")];
    at.same("remount", &ReMountSegment { segments: segments.clone(), client: mine });
    at.same("remount again", &ReMountSegment { segments, client: mine });
    // The master takes its note of the remount within a second.
    let seen = wait_until(Duration::from_secs(20), || {
        at.client.call(&Ping { client: mine }).expect("call").expect("ping").client_status == 1
    });
    assert!(seen, "the client is known");
    at.same("tasks", &FetchTasks { client: mine, limit: 16 });
}

fn batches(at: &mut Transcript) {
    let (mine, other, tenant) = (uuid(11), uuid(12), Tenant::default());
    let on_a = config(|config| config.preferred_segment = "a".into());
    let keys: Vec<&[u8]> = vec![b"a", b"", b"b", b"a", b"c"];
    let begin = |keys: Vec<&'static [u8]>, lengths: Vec<u64>, config: ReplicateConfig| BatchPutStart {
        client: mine,
        keys,
        lengths,
        config,
        tenant,
    };
    at.say("batch put", &begin(keys, vec![100, 100, 0, 100, 300], on_a.clone()), lists);
    at.say("batch put of too few lengths", &begin(vec![b"x", b"y"], vec![1], on_a), |answer| answer.len());
    at.say("batch put of nothing", &begin(vec![], vec![], ReplicateConfig::default()), lists);
    let metas = |keys: &[&'static [u8]]| -> Vec<ObjectMeta<'static>> {
        keys.iter().map(|key| ObjectMeta { key, checksum: None }).collect()
    };
    let end = |client, keys: &[&'static [u8]]| BatchPutEnd {
        client,
        objects: metas(keys),
        replica_type: ReplicaType::ALL,
        tenant,
    };
    at.same("batch end of another", &end(other, &[b"a"]));
    at.same("batch end", &end(mine, &[b"a", b"none", b"a"]));
    let revoke = |keys: Vec<&'static [u8]>| BatchPutRevoke {
        client: mine,
        keys,
        replica_type: ReplicaType::ALL,
        tenant,
    };
    at.same("batch revoke", &revoke(vec![b"a", b"none", b"c", b"c"]));
    let keys: Vec<&[u8]> = vec![b"a", b"c", b"none"];
    at.same("batch exists", &BatchExistKey { keys: keys.clone(), tenant });
    at.say("batch get", &BatchGetReplicaList { keys, tenant }, |answers| {
        answers.into_iter().map(|answer| answer.map(|list| replicas(Ok(list.replicas)))).collect::<Vec<_>>()
    });
    at.same("batch exists of nothing", &BatchExistKey { keys: vec![], tenant });
    at.same("batch remove", &BatchRemove { keys: vec![b"a", b"none"], force: false, tenant });
    at.same("batch remove by force", &BatchRemove { keys: vec![b"a", b"none", b"a"], force: true, tenant });
}

fn upserts(at: &mut Transcript) {
    let (mine, other, tenant) = (uuid(11), uuid(12), Tenant::default());
    let on_a = config(|config| config.preferred_segment = "a".into());
    let start = |client, length| UpsertStart { client, key: b"u", length, config: on_a.clone(), tenant };
    let end = |client| UpsertEnd {
        client,
        object: ObjectMeta { key: b"u", checksum: None },
        replica_type: ReplicaType::ALL,
        tenant,
    };
    at.say("upsert of nothing", &start(mine, 0), replicas);
    at.say("upsert of a new key", &start(mine, 100), replicas);
    at.same("upsert's end of another", &end(other));
    at.same("upsert's end", &end(mine));
    at.say("upsert of the same length", &start(mine, 100), replicas);
    at.same("exists during an upsert", &ExistKey { key: b"u", tenant });
    at.same("the second upsert's end", &end(mine));
    at.say("upsert of another client", &start(other, 100), replicas);
    at.same("end of who wrote before", &end(mine));
    at.say("upsert while another writes", &start(mine, 100), replicas);
    at.same("end of who was replaced", &end(other));
    at.same("end of who writes", &end(mine));
    at.say("upsert of another length", &start(mine, 200), replicas);
    at.same("the third upsert's end", &end(mine));
    at.say("get of the last value", &GetReplicaList { key: b"u", tenant }, |answer| {
        answer.map(|list| replicas(Ok(list.replicas)))
    });
    let revoke = |client| UpsertRevoke { client, key: b"u", replica_type: ReplicaType::ALL, tenant };
    at.same("upsert's revoke when it is over", &revoke(mine));
    let batch = BatchUpsertStart {
        client: mine,
        keys: vec![b"v", b"", b"w"],
        lengths: vec![10, 10, 20],
        config: on_a.clone(),
        tenant,
    };
    at.say("batch upsert", &batch, lists);
    let objects = vec![ObjectMeta { key: b"v", checksum: None }, ObjectMeta { key: b"none", checksum: None }];
    at.same("batch upsert's end", &BatchUpsertEnd { client: mine, objects, tenant });
    at.same("batch upsert's revoke", &BatchUpsertRevoke { client: mine, keys: vec![b"w", b"none"], tenant });
}

fn patterns_and_segments(at: &mut Transcript, lent: impl Fn(u64, &str) -> Segment) {
    let (mine, other, tenant) = (uuid(11), uuid(12), Tenant::default());
    let find = |pattern: &'static [u8]| GetReplicaListByRegex { pattern, tenant };
    let found = |answer: Outcome<mooncake_wire::codec::Map<Box<[u8]>, Vec<Replica>>>| {
        answer.map(|found| {
            let mut keys: Vec<_> = found
                .0
                .into_iter()
                .map(|(key, list)| (String::from_utf8_lossy(&key).into_owned(), replicas(Ok(list))))
                .collect();
            keys.sort();
            keys
        })
    };
    at.say("find anywhere in a key", &find(b"w"), found);
    at.say("find nothing", &find(b"^w$"), found);
    at.say("find by a bad pattern", &find(b"("), found);
    at.same("remove by a bad pattern", &RemoveByRegex { pattern: b"(", force: true, tenant });
    let clear = |client, name: &str| BatchReplicaClear {
        keys: vec![b"two", b"none", b"u"],
        client,
        segment_name: name.to_owned(),
    };
    let names = |answer: Outcome<Vec<Box<[u8]>>>| {
        answer
            .map(|keys| keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>())
    };
    at.say("clear what another owns", &clear(other, ""), names);
    at.say("clear what is leased", &clear(mine, ""), names);
    // These are put and never read, so that no lease is in the way.
    let (pair, both) = (vec![b"c1".as_slice(), b"c2"], config(|config| config.replica_num = 2));
    let lengths = vec![10, 10];
    let begin = BatchPutStart { client: mine, keys: pair.clone(), lengths, config: both, tenant };
    at.say("two to be cleared", &begin, lists);
    let objects = pair.iter().map(|key| ObjectMeta { key, checksum: None }).collect();
    at.same("their end", &BatchPutEnd { client: mine, objects, replica_type: ReplicaType::ALL, tenant });
    let cleared = |keys: &[&'static [u8]], name: &str| BatchReplicaClear {
        keys: keys.to_vec(),
        client: mine,
        segment_name: name.to_owned(),
    };
    at.say("clear in no segment", &cleared(&pair, "none"), names);
    at.say("clear in one segment", &cleared(&[b"c1"], "a"), names);
    at.say("clear everywhere", &cleared(&[b"c2"], ""), names);
    at.say("one replica is left", &GetReplicaList { key: b"c1", tenant }, |answer| {
        answer.map(|list| replicas(Ok(list.replicas)))
    });
    at.same("nothing is left", &ExistKey { key: b"c2", tenant });
    at.say("hosts", &BatchQueryIp { clients: vec![mine, other] }, |answer| {
        answer.map(|map| {
            let mut hosts: Vec<String> = map.0.into_iter().flat_map(|(_, hosts)| hosts).collect();
            hosts.sort();
            hosts
        })
    });
    at.same("state of a segment", &QuerySegmentStatus { name: "a".into() });
    at.same("state of no segment", &QuerySegmentStatus { name: "none".into() });
    at.same("remove by pattern", &RemoveByRegex { pattern: b"^[uv]", force: true, tenant });
    at.same("unmount of what is not there", &UnmountSegment { segment: uuid(77), client: mine });
    at.same("unmount", &UnmountSegment { segment: lent(2, "b").id, client: mine });
    at.say("the other replica is left", &GetReplicaList { key: b"two", tenant }, |answer| {
        answer.map(|list| replicas(Ok(list.replicas)))
    });
    at.same("what was there only is gone", &ExistKey { key: b"listed", tenant });
    // Upstream may count an object whose segment has just gone.
    at.say("remove all", &RemoveAll { force: true, tenant }, |count| count > 0);
}

/// Calls that only the newest release can spell.
fn newest(address: SocketAddr) -> Vec<String> {
    let client = Client::connect(address, Profile::V0_3_13).expect("connect");
    let mut at = Transcript { client, lines: Vec::new() };
    let (mine, tenant) = (uuid(21), Tenant::default());
    at.same("0.3.13 mount", &ReMountSegment { segments: vec![segment(3, "c", 16 * MIB)], client: mine });
    let start = |keys: Vec<&'static [u8]>, config: ReplicateConfig| BatchPutStart {
        client: mine,
        lengths: vec![10; keys.len()],
        keys,
        config: ReplicateConfig { preferred_segment: "c".into(), ..config },
        tenant,
    };
    let groups = |groups: &[&str]| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        config(|config| config.group_ids = Some(groups))
    };
    at.say("0.3.13 groups of some keys", &start(vec![b"g1", b"g2"], groups(&["g"])), lists);
    at.say("0.3.13 groups of all keys", &start(vec![b"g1", b"g2"], groups(&["g", "h"])), lists);
    let ttl = |action, ttl_ms| {
        config(|config| {
            config.soft_pin_action = action;
            config.soft_pin_ttl_ms = ttl_ms;
        })
    };
    at.say("0.3.13 pin without saying so", &start(vec![b"p1"], ttl(SoftPinAction::Preserve, Some(5))), lists);
    at.say("0.3.13 pin for too long", &start(vec![b"p2"], ttl(SoftPinAction::Enable, Some(u64::MAX))), lists);
    at.say("0.3.13 pin", &start(vec![b"p3"], ttl(SoftPinAction::Enable, Some(60_000))), lists);
    let end = |key: &'static [u8], checksum| PutEnd {
        client: mine,
        object: ObjectMeta { key, checksum },
        replica_type: ReplicaType::ALL,
        tenant,
    };
    at.same("0.3.13 end with a checksum", &end(b"p3", Some(42)));
    at.say("0.3.13 get with a checksum", &GetReplicaList { key: b"p3", tenant }, |answer| {
        answer.map(|list| list.checksum)
    });
    at.same("0.3.13 state by id", &QuerySegmentStatusById { segment: segment(3, "c", MIB).id });
    at.same("0.3.13 state by no id", &QuerySegmentStatusById { segment: uuid(99) });
    let leave = |number| GracefulUnmountSegment { segment: uuid(number), client: mine, grace_ms: 60_000 };
    at.same("0.3.13 leave of what is not there", &leave(99));
    at.same("0.3.13 leave", &leave(3));
    at.same("0.3.13 state of what leaves", &QuerySegmentStatus { name: "c".into() });
    at.lines
}

fn ours() -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for profile in Profile::ALL {
        let master = Master::start(&STEADY);
        let mut lines = script(master.rpc, *profile);
        if *profile == Profile::V0_3_13 {
            lines.extend(newest(master.rpc));
        }
        all.insert(profile.release().to_owned(), lines);
    }
    all
}

/// The lines of the golden file, by release.
fn golden() -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut release = String::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line.strip_prefix("release ") {
            Some(name) => name.clone_into(&mut release),
            None => all.entry(release.clone()).or_default().push(line.to_owned()),
        }
    }
    all
}

fn compare(who: &str, got: &[String], expected: &[String]) {
    let missing: Vec<_> = expected.iter().filter(|line| !got.contains(line)).collect();
    let more: Vec<_> = got.iter().filter(|line| !expected.contains(line)).collect();
    assert!(got == expected, "{who}\n expected and not answered: {missing:#?}\n answered: {more:#?}");
}

#[test]
fn ours_answers_what_upstreams_was_seen_to_answer() {
    let golden = golden();
    for (release, got) in ours() {
        compare(&release, &got, &golden[&release]);
    }
}

#[test]
fn upstreams_masters_answer_what_the_golden_file_says() {
    let golden = golden();
    let mut all = BTreeMap::new();
    for profile in Profile::ALL {
        let release = format!("{}.post1", profile.release());
        let Some(master) = Upstream::start(&release, &STEADY) else { continue };
        let mut lines = script(master.rpc, *profile);
        if *profile == Profile::V0_3_13 {
            lines.extend(newest(master.rpc));
        }
        println!("release {}\n{}\n", profile.release(), lines.join("\n"));
        all.insert(profile.release(), lines);
    }
    for (release, lines) in all {
        compare(release, &lines, &golden[release]);
    }
}
