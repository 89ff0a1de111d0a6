//! Flags, exit codes, admin pages, metrics and eviction of our master beside upstream's; the calls are in
//! `calls_beside_upstream`.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{Client, MIB, Master, http, segment, uuid};
use mooncake_master::flags::{FLAGS, Support};
use mooncake_test_support::{peers, wait_until};
use mooncake_wire::Profile;
use mooncake_wire::method::*;
use mooncake_wire::model::{ObjectMeta, ReplicateConfig, Tenant};
use serde_json::Value;
use upstream::{STEADY, Upstream, wheel};

/// Name and default of each flag that a help text of gflags lists.
fn listed_flags(help: &str) -> BTreeMap<String, String> {
    let mut flags = BTreeMap::new();
    let mut entry = String::new();
    for line in help.lines() {
        let text = line.trim();
        if line.starts_with("    -") || text.starts_with("Flags from ") {
            entry.clear();
        }
        entry.push(' ');
        entry.push_str(text);
        let Some((name, default)) = entry.trim().strip_prefix('-').and_then(|entry| {
            Some((
                entry.split_once(" (")?.0,
                entry.rsplit_once(" default: ").filter(|_| entry.contains(" type: "))?.1,
            ))
        }) else {
            continue;
        };
        flags.insert(name.to_owned(), default.trim_matches('"').to_owned());
    }
    flags
}

#[test]
fn every_flag_of_upstreams_master_is_known_and_has_its_default() {
    let Some(directory) = wheel("0.3.13.post1") else { return };
    let help = peers::master(&directory, "0.3.13.post1").arg("--help").output().expect("help");
    let theirs = listed_flags(&String::from_utf8_lossy(&help.stdout));
    assert!(theirs.len() > 100, "{} flags", theirs.len());
    // Flags about flags are no settings.
    let about = ["flagfile", "fromenv", "tryfromenv", "undefok", "version"];
    let equal = |left: &str, right: &str| match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => (left - right).abs() < 1e-12,
        _ => left == right,
    };
    for (name, default) in &theirs {
        if about.contains(&name.as_str()) || name.starts_with("help") {
            continue;
        }
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else { panic!("--{name} is not known") };
        assert!(equal(flag.default, default), "--{name}: {} and theirs {default}", flag.default);
    }
    // What only ours has is offered.
    for flag in FLAGS.iter().filter(|flag| !theirs.contains_key(flag.name)) {
        let newer_log = flag.name == "timestamp_in_logfile_name";
        assert!(newer_log || flag.support == Support::Offered, "--{} is whose?", flag.name);
    }
}

/// The exit code as a shell tells it.
fn exit_code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0))
}

#[test]
fn a_start_that_fails_has_upstreams_exit_code() {
    let Some(directory) = wheel("0.3.13.post1") else { return };
    let files = tempfile::tempdir().expect("directory");
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("file");
        path.display().to_string()
    };
    let (other, broken) = (file("a.toml", "rpc_port = 1"), file("b.json", "{"));
    let taken = TcpListener::bind("0.0.0.0:0").expect("port");
    let taken = taken.local_addr().expect("address").port();
    for line in [
        "--help".to_owned(),
        "--version".to_owned(),
        "--bogus=1".to_owned(),
        "--rpc_port=x".to_owned(),
        "--rpc_port".to_owned(),
        "--enable_metric_reporting=maybe".to_owned(),
        "--eviction_ratio=1.5".to_owned(),
        "--eviction_high_watermark_ratio=1.5".to_owned(),
        "--default_kv_lease_ttl=10q".to_owned(),
        "--default_kv_soft_pin_ttl=25h".to_owned(),
        "--put_start_release_timeout_sec=30".to_owned(),
        "--memory_allocator=slab".to_owned(),
        "--rpc_interface=none0".to_owned(),
        "--flagfile=/nowhere/flags".to_owned(),
        "--fromenv=rpc_port".to_owned(),
        "--config_path=/nowhere/master.yaml".to_owned(),
        format!("--config_path={other}"),
        format!("--config_path={broken}"),
        format!("--metrics_port={taken}"),
    ] {
        let run = |mut command: Command| {
            let words = line.split(' ').chain(["--rpc_address=127.0.0.1"]).filter(|_| line != "--rpc_port");
            command.args(words).args(Some(&line).filter(|line| *line == "--rpc_port"));
            exit_code(&command.stdin(Stdio::null()).output().expect("master"))
        };
        let ours = run(Command::new(env!("CARGO_BIN_EXE_mooncake_master")));
        let mut bounded = Command::new("timeout");
        let theirs = peers::master(&directory, "0.3.13.post1");
        bounded.arg("30").arg(theirs.get_program());
        for (name, value) in theirs.get_envs() {
            bounded.env(name, value.unwrap_or_default());
        }
        assert_eq!(ours, run(bounded), "{line}");
    }
}

/// One object that is readable, one that is being written.
fn little(address: SocketAddr) {
    let mut client = Client::connect(address, Profile::V0_3_13).expect("connect");
    let (mine, tenant) = (uuid(1), Tenant::default());
    let segments = vec![segment(1, "s", MIB)];
    client.call(&ReMountSegment { segments, client: mine }).expect("call").expect("mount");
    for key in [b"k".as_slice(), b"pending"] {
        let start = PutStart { client: mine, key, length: 1024, config: ReplicateConfig::default(), tenant };
        client.call(&start).expect("call").expect("space");
    }
    let object = ObjectMeta { key: b"k", checksum: None };
    client.call(&PutEnd { client: mine, object, ..PutEnd::default() }).expect("call").expect("end");
    // Upstream's `/query_key` grants a lease, ours does not: here both have one.
    assert_eq!(client.call(&ExistKey { key: b"k", tenant }), Ok(Ok(true)));
}

/// Takes out what only ours tells.
fn without_ours(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.remove("suspect");
            entries.remove("largest_free_bytes");
            entries.values_mut().for_each(without_ours);
        }
        Value::Array(entries) => entries.iter_mut().for_each(without_ours),
        _ => {}
    }
}

#[test]
fn every_admin_path_answers_as_upstreams() {
    let Some(theirs) = Upstream::start("0.3.13.post1", &STEADY) else { return };
    let ours = Master::start(&STEADY);
    // Before anything is mounted, readiness is asked for.
    let both = |request: &str| [http(ours.admin, request, ""), http(theirs.admin, request, "")];
    let [our_empty, their_empty] = both("GET /get_all_segments");
    assert_eq!(our_empty, their_empty);
    little(ours.rpc);
    little(theirs.rpc);
    let mut differences = Vec::new();
    for request in [
        "GET /health",
        "GET /role",
        "GET /ha_status",
        "GET /leader",
        "GET /kv_events/status",
        "GET /query_key?key=k",
        "GET /query_key?key=none",
        "GET /query_key?key=pending",
        "GET /query_key",
        "GET /batch_query_keys?keys=k,none,pending",
        "GET /batch_query_keys",
        "GET /get_all_keys",
        "GET /get_all_segments",
        "GET /get_segments_detail",
        "GET /query_segment?segment=s",
        "GET /query_segment?segment=none",
        "GET /query_segment",
        "GET /api/v1/segments/status?segment=s",
        "GET /api/v1/segments/status?segment=none",
        "GET /api/v1/segments/status",
        "GET /api/v1/tenant_quotas",
        "GET /nothing",
        "POST /get_all_keys",
        "POST /api/v1/remove_all",
        "POST /api/v1/remove_all?force=true",
        "GET /get_all_keys",
    ] {
        let [(our_status, our_body), (their_status, their_body)] = both(request);
        let json = |body: &str| {
            let mut value = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
            without_ours(&mut value);
            value
        };
        let (ours, theirs) = ((our_status, json(&our_body)), (their_status, json(&their_body)));
        if ours != theirs {
            differences.push(format!("{request}\n ours   {ours:?}\n theirs {theirs:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Name and kind of each family of a page in Prometheus' text format.
fn families(page: &str) -> BTreeMap<String, String> {
    let heads = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    heads.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

#[test]
fn every_metric_of_upstreams_master_has_its_name_and_kind() {
    // What belongs to features that are not here.
    const ABSENT: [&str; 5] =
        ["ha_", "master_promotion_", "master_nof_", "master_total_nof_", "master_update_task_"];
    let Some(theirs) = Upstream::start("0.3.13.post1", &[]) else { return };
    let ours = Master::start(&[]);
    little(ours.rpc);
    little(theirs.rpc);
    let [ours, theirs] = [ours.admin, theirs.admin].map(|address| http(address, "GET /metrics", "").1);
    let (known, wanted) = (families(&ours), families(&theirs));
    assert!(wanted.len() > 100, "{} families", wanted.len());
    for (name, kind) in wanted.iter().filter(|(name, _)| !ABSENT.iter().any(|group| name.starts_with(group)))
    {
        assert_eq!(known.get(name), Some(kind), "{name}");
    }
    let bucket = "master_value_size_bytes_bucket{le=\"4096.000000\"} ";
    assert!(ours.contains(bucket) && theirs.contains(bucket), "the bounds are spelled alike");
    for line in ["master_total_capacity_bytes 1048576", "master_key_count 2", "mem_cache_nums_ 1"] {
        let there = |page: &str| page.lines().any(|found| found == line);
        assert!(there(&ours) && there(&theirs), "{line}");
    }
}

/// Fills a pool of 64 MiB up to the watermark, the first ten objects being read last; answers what eviction leaves.
fn left_by_eviction(rpc: SocketAddr, admin: SocketAddr) -> BTreeSet<u64> {
    let mut client = Client::connect(rpc, Profile::V0_3_13).expect("connect");
    let (mine, tenant) = (uuid(1), Tenant::default());
    let segments = vec![segment(1, "s", 64 * MIB)];
    client.call(&ReMountSegment { segments, client: mine }).expect("call").expect("mount");
    // Ages are told by the millisecond.
    let apart = || {
        let start = std::time::Instant::now();
        assert!(wait_until(Duration::from_secs(20), || start.elapsed() > Duration::from_millis(3)));
    };
    let put = |client: &mut Client, index: u64| {
        apart();
        let key = index.to_string().into_bytes();
        let config = ReplicateConfig::default();
        let start = PutStart { client: mine, key: &key, length: MIB, config, tenant };
        client.call(&start).expect("call").expect("space");
        let object = ObjectMeta { key: &key, checksum: None };
        client.call(&PutEnd { client: mine, object, ..PutEnd::default() }).expect("call").expect("end");
    };
    (0..57).for_each(|index| put(&mut client, index));
    for index in 0..10u64 {
        let key = index.to_string().into_bytes();
        assert_eq!(client.call(&ExistKey { key: &key, tenant }), Ok(Ok(true)));
    }
    // 57 of 64 are below nine tenths, 58 are above.
    put(&mut client, 57);
    let keys = || -> BTreeSet<u64> {
        http(admin, "GET /get_all_keys", "").1.lines().map(|key| key.parse().expect("a number")).collect()
    };
    assert!(wait_until(Duration::from_secs(20), || keys().len() < 58), "nothing was evicted");
    keys()
}

#[test]
fn eviction_takes_what_upstreams_takes() {
    let flags = [
        "--default_kv_lease_ttl=1",
        "--eviction_high_watermark_ratio=0.9",
        "--eviction_ratio=0.05",
        "--client_ttl=60",
    ];
    // 0.05 and what is above the watermark, of 58, rounded up: the four oldest that were not read.
    let expected: BTreeSet<u64> = (0..58).filter(|index| !(10..14).contains(index)).collect();
    let ours = Master::start(&flags);
    assert_eq!(left_by_eviction(ours.rpc, ours.admin), expected);
    if let Some(theirs) = Upstream::start("0.3.13.post1", &flags) {
        assert_eq!(left_by_eviction(theirs.rpc, theirs.admin), expected, "theirs");
    }
}

#[test]
fn the_embedded_metadata_server_answers_as_upstreams() {
    let port = TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address").port();
    let on = "--enable_http_metadata_server=true";
    let Some(_theirs) = Upstream::start(
        "0.3.13.post1",
        &[on, &format!("--http_metadata_server_port={port}"), "--http_metadata_server_host=127.0.0.1"],
    ) else {
        return;
    };
    let ours = Master::start(&[on, "--http_metadata_server_port=0", "--http_metadata_server_host=127.0.0.1"]);
    let log = ours.log();
    let address =
        log.split("metadata_http=").nth(1).and_then(|rest| rest.split(',').next()).expect("address");
    let addresses: [SocketAddr; 2] =
        [address.parse().expect("address"), SocketAddr::from(([127, 0, 0, 1], port))];
    for (request, body) in [
        ("GET /health", ""),
        ("GET /metadata", ""),
        ("PUT /metadata", "1"),
        ("DELETE /metadata", ""),
        ("GET /metadata?key=a", ""),
        ("PUT /metadata?key=a", "{\"x\":1}"),
        ("PUT /metadata?key=a", "{\"x\":2}"),
        ("GET /metadata?key=a", ""),
        ("PUT /metadata?key=mooncake%2Frpc_meta%2Fh", "1"),
        ("PUT /metadata?key=mooncake%2Frpc_meta%2Fh", "1"),
        ("PUT /metadata?key=mooncake%2Frpc_meta%2Fh", "2"),
        ("GET /metadata?key=mooncake%2Frpc_meta%2Fh", ""),
        ("DELETE /metadata?key=a", ""),
        ("DELETE /metadata?key=a", ""),
        ("GET /metadata?key=a", ""),
    ] {
        let [ours, theirs] = addresses.map(|address| http(address, request, body));
        assert_eq!(ours, theirs, "{request} {body}");
    }
}
