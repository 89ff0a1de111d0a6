//! The `mooncake_master` command as its users meet it: start line, exit codes, signals, ports, releases, HTTP.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{Client, MIB, Master, http, segment, uuid};
use mooncake_wire::method::*;
use mooncake_wire::model::{ObjectMeta, ReplicateConfig, Tenant};
use mooncake_wire::{ErrorCode, Profile, RpcError, STORE_VERSION};

fn run(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mooncake_master")).args(flags).output().expect("master")
}

#[test]
fn exit_codes_and_texts() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&help.stdout).contains("-eviction_high_watermark_ratio"));
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("mooncake_master version "));
    let unknown = run(&["--bogus=1"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("unknown command line flag 'bogus'"));
    assert_eq!(run(&["--eviction_ratio=2"]).status.code(), Some(134));
    assert_eq!(run(&["--default_kv_lease_ttl=abc"]).status.code(), Some(1));
    let refused = run(&["--enable_offload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--enable_offload"));
}

#[test]
fn one_line_names_every_port_and_sigterm_ends_it_at_once() {
    for signal in ["-TERM", "-INT"] {
        let mut master = Master::start(&["--enable_http_metadata_server", "--http_metadata_server_port=0"]);
        let line = master.log();
        for part in
            ["rpc=127.0.0.1:", "admin_and_metrics_http=127.0.0.1:", "metadata_http=0.0.0.0:", "client_ttl=10"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
        // A client that is connected does not hold it.
        let mut client = master.client();
        assert_eq!(client.call(&ServiceReady {}), Ok(Ok(STORE_VERSION.to_owned())));
        let start = Instant::now();
        master.signal(signal);
        let status = master.child.wait().expect("wait");
        assert_eq!(status.code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

#[test]
fn a_port_that_is_taken_is_a_clear_error() {
    let master = Master::start(&[]);
    for flags in [
        [format!("--rpc_port={}", master.rpc.port()), "--metrics_port=0".to_owned()],
        ["--rpc_port=0".to_owned(), format!("--metrics_port={}", master.admin.port())],
    ] {
        let local = ["--port=0", "--rpc_address=127.0.0.1", "--metrics_host=127.0.0.1"];
        let output = run(&[&local[..], &[flags[0].as_str(), flags[1].as_str()]].concat());
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("cannot listen on 127.0.0.1:") && text.contains("another master"), "{text}");
    }
    assert_eq!(master.http("GET /role").1, "leader");
}

#[test]
fn ipv6_serves_as_ipv4_does() {
    let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else {
        mooncake_test_support::skip("no IPv6 on this machine");
        return;
    };
    drop(listener);
    let master = Master::start(&["--rpc_address=[::1]", "--metrics_host=::1"]);
    assert!(master.rpc.is_ipv6() && master.admin.is_ipv6());
    assert_eq!(master.client().call(&ServiceReady {}), Ok(Ok(STORE_VERSION.to_owned())));
    assert_eq!(master.http("GET /health").0, 200);
}

/// Mounts, puts and reads with one release.
fn use_it(client: &mut Client, key: &[u8]) {
    let id = uuid(u64::from(key[0]));
    assert_eq!(
        client.call(&ReMountSegment { segments: vec![segment(u64::from(key[0]), "s", MIB)], client: id }),
        Ok(Ok(()))
    );
    let start = PutStart {
        client: id,
        key,
        length: 100,
        config: ReplicateConfig::default(),
        tenant: Tenant::default(),
    };
    assert_eq!(client.call(&start).expect("call").expect("space").len(), 1);
    let end = PutEnd { client: id, object: ObjectMeta { key, checksum: None }, ..PutEnd::default() };
    assert_eq!(client.call(&end), Ok(Ok(())));
    let list = client.call(&GetReplicaList { key, tenant: Tenant::default() }).expect("call").expect("found");
    assert_eq!((list.replicas.len(), list.lease_ttl_ms), (1, 10_000));
}

#[test]
fn each_peer_shows_its_release_and_a_fixed_one_refuses_the_other() {
    let master = Master::start(&[]);
    for (index, profile) in Profile::ALL.iter().enumerate() {
        let mut client = Client::connect(master.rpc, *profile).expect("connect");
        use_it(&mut client, if index == 0 { b"a" } else { b"b" });
    }
    // One connection may even change: what counts is the call.
    let mut client = Client::connect(master.rpc, Profile::V0_3_11).expect("connect");
    use_it(&mut client, b"c");
    client.profile = Profile::V0_3_13;
    use_it(&mut client, b"d");

    let fixed = Master::start(&["--wire_profile=0.3.13"]);
    let mut old = Client::connect(fixed.rpc, Profile::V0_3_11).expect("connect");
    let exist = ExistKey { key: b"k", tenant: Tenant::default() };
    let error: RpcError = old.call(&exist).expect_err("refused");
    assert_eq!(error.code, 4);
    for part in ["ExistKey", "9dcffa76", "0.3.11", "0.3.13"] {
        assert!(error.message.contains(part), "{part} in {}", error.message);
    }
    common::eventually("the master says so as well", || fixed.log().contains("are of release 0.3.11"));
    assert!(fixed.http("GET /metrics").1.contains("\nmaster_release_mismatches_total 1\n"));
    // The connection still serves what both releases have.
    assert_eq!(old.call(&ServiceReady {}), Ok(Ok(STORE_VERSION.to_owned())));
}

/// The kernel closes the connections of a process that is killed: new puts pass its memory over at once.
#[test]
fn puts_pass_over_the_memory_of_a_client_whose_connections_have_closed() {
    let master = Master::start(&[]);
    let mut staying = master.client();
    let stays = ReMountSegment { segments: vec![segment(2, "stays", MIB)], client: uuid(2) };
    staying.call(&stays).expect("call").expect("mount");
    let mut gone: Vec<Client> = (0..2).map(|_| master.client()).collect();
    let mount = ReMountSegment { segments: vec![segment(1, "gone", MIB)], client: uuid(1) };
    gone[0].call(&mount).expect("call").expect("mount");
    gone[1].call(&Ping { client: uuid(1) }).expect("call").expect("ping");
    let doubted = |count: u64| {
        let line = format!("master_clients_doubted_total {count}");
        master.http("GET /metrics").1.lines().any(|found| found == line)
    };
    let mut next = 0;
    let mut on_gone = |client: &mut Client| {
        let keys: Vec<String> = (next..next + 64).map(|index| format!("k{index}")).collect();
        next += 64;
        let start = BatchPutStart {
            client: uuid(2),
            keys: keys.iter().map(String::as_bytes).collect(),
            lengths: vec![64; keys.len()],
            ..BatchPutStart::default()
        };
        let answers = client.call(&start).expect("call");
        let endpoint = |answer: &mooncake_wire::Outcome<Vec<mooncake_wire::model::Replica>>| {
            let replicas = answer.as_ref().expect("space");
            match &replicas[0].placement {
                mooncake_wire::model::Placement::Memory(buffer) => buffer.endpoint.to_string(),
                other => panic!("{other:?}"),
            }
        };
        answers.iter().filter(|answer| endpoint(answer) == "10.0.0.1:12000").count()
    };
    assert!(on_gone(&mut staying) > 0, "it takes its share");
    drop(gone.pop());
    drop(gone.pop());
    common::eventually("the master sees it", || doubted(1));
    for _ in 0..10 {
        assert_eq!(on_gone(&mut staying), 0);
    }
    // It lives: the next heartbeat, on a new connection, brings it back.
    let mut back = master.client();
    assert_eq!(back.call(&Ping { client: uuid(1) }).expect("call").expect("ping").client_status, 1);
    assert!(on_gone(&mut staying) > 0, "it takes its share again");
    drop(back);
    common::eventually("the new connection counts as well", || doubted(2));
}

#[test]
fn what_is_not_offered_says_so() {
    let master = Master::start(&[]);
    let mut client = master.client();
    let evict =
        BatchEvictDiskReplica { client: uuid(1), keys: vec![b"a", b"b"], ..BatchEvictDiskReplica::default() };
    let code = ErrorCode::UNAVAILABLE_IN_CURRENT_MODE;
    assert_eq!(client.call(&evict), Ok(vec![Err(code), Err(code)]));
    assert_eq!(client.call(&FetchTasks { client: uuid(1), limit: 16 }), Ok(Ok(Vec::new())));
    assert_eq!(client.call(&GetFsdir {}), Ok(Ok(String::new())));
}

#[test]
fn every_path_of_the_admin_server() {
    let master = Master::start(&[]);
    let mut client = master.client();
    assert_eq!(master.http("GET /get_all_segments"), (200, String::new()));
    use_it(&mut client, b"k");
    let pending = PutStart { client: uuid(1), key: b"pending", length: 10, ..PutStart::default() };
    client.call(&pending).expect("call").expect("space");

    let json = |path: &str| {
        let (status, body) = master.http(&format!("GET {path}"));
        (
            status,
            serde_json::from_str::<serde_json::Value>(&body)
                .unwrap_or_else(|error| panic!("{path}: {error}: {body}")),
        )
    };
    assert_eq!(master.http("GET /role").1, "leader");
    assert_eq!(master.http("GET /ha_status").1, "serving");
    let (status, health) = json("/health");
    assert_eq!((status, &health["status"], &health["service_ready"]), (200, &"ok".into(), &true.into()));
    let (status, found) = json("/query_key?key=k");
    assert_eq!(status, 200);
    assert_eq!(found["data"][0]["size_"], 100);
    assert_eq!(found["data"][0]["transport_endpoint_"], format!("10.0.0.{}:12000", u64::from(b'k')));
    assert_eq!(json("/query_key?key=none").1["error_code"], -704);
    let (status, pending) = json("/query_key?key=pending");
    assert_eq!((status, &pending["error_code"]), (404, &(-703).into()));
    let (_, both) = json("/batch_query_keys?keys=k,none");
    assert_eq!(
        (&both["data"]["k"]["ok"], &both["data"]["none"]["error"]),
        (&true.into(), &"OBJECT_NOT_FOUND".into())
    );
    assert_eq!(master.http("GET /batch_query_keys").0, 400);
    assert_eq!(master.http("GET /get_all_keys").1, "k\n");
    assert_eq!(master.http("GET /get_all_segments").1, "s\n");
    let (_, detail) = json("/get_segments_detail");
    assert_eq!(
        (&detail["total_segments"], &detail["segments"][0]["allocator_used_bytes"]),
        (&1.into(), &192.into())
    );
    assert_eq!(
        master.http("GET /query_segment?segment=s").1,
        "s\nUsed(bytes): 192\nCapacity(bytes) : 1048576\n"
    );
    assert_eq!(master.http("GET /query_segment?segment=x").0, 500);
    assert_eq!(json("/api/v1/segments/status?segment=s").1["status_name"], "OK");
    assert_eq!(master.http("GET /api/v1/segments/status?segment=x").0, 404);
    assert_eq!(master.http("GET /api/v1/tenant_quotas").0, 409);
    assert!(
        master
            .http("GET /metrics/summary")
            .1
            .starts_with("role=leader, state=serving, service_ready=true, master={")
    );
    assert_eq!(master.http("GET /nothing"), (404, "404 Not Found".to_owned()));

    let (_, page) = master.http("GET /metrics");
    for line in [
        "master_allocated_bytes 192",
        "master_total_capacity_bytes 1048576",
        "master_key_count 2",
        "master_active_clients 1",
        "master_put_start_requests_total 2",
        "master_put_end_requests_total 1",
        "master_remount_segment_requests_total 1",
        "master_value_size_bytes_bucket{le=\"4096.000000\"} 2",
        "master_value_size_bytes_count 2",
        "total_get_nums_ 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}");
    }
    // Looking granted no lease; the read did.
    assert_eq!(json("/query_key?key=k").0, 200);
    let (_, removed) = master.http("POST /api/v1/remove_all");
    assert_eq!(removed, r#"{"success":true,"removed_count":0}"#);
    let (_, removed) = master.http("POST /api/v1/remove_all?force=true");
    assert_eq!(removed, r#"{"success":true,"removed_count":1}"#);
}

#[test]
fn counters_never_go_down() {
    let master = Master::start(&[]);
    let mut client = master.client();
    let counters = || -> Vec<(String, f64)> {
        let (_, page) = master.http("GET /metrics");
        let counters: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
        let value = |line: &str| {
            line.split_once(' ').map(|(name, value)| (name.to_owned(), value.parse().expect("number")))
        };
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(value)
            .filter(|(name, _): &(String, f64)| counters.contains(&name.as_str()))
            .collect()
    };
    let mut before = counters();
    assert!(before.len() > 100);
    for key in [b"a", b"b", b"c"] {
        use_it(&mut client, key);
        client.call(&RemoveAll { force: true, ..RemoveAll::default() }).expect("call");
        client.call(&ExistKey { key: b"none", tenant: Tenant::default() }).expect("call").expect("answer");
        let after = counters();
        for ((name, old), (same, new)) in before.iter().zip(&after) {
            assert!(name == same && new >= old, "{name}: {old} then {new}");
        }
        before = after;
    }
}

#[test]
fn the_embedded_metadata_server() {
    let master = Master::start(&[
        "--enable_http_metadata_server",
        "--http_metadata_server_port=0",
        "--http_metadata_server_host=127.0.0.1",
    ]);
    let log = master.log();
    let address =
        log.split("metadata_http=").nth(1).and_then(|rest| rest.split(',').next()).expect("address");
    let address = address.parse().expect("address");
    let call = |request: &str, body: &str| http(address, request, body);
    assert_eq!(call("GET /health", ""), (200, "OK".into()));
    assert_eq!(call("GET /metadata", ""), (400, "Missing key parameter".into()));
    assert_eq!(call("GET /metadata?key=a", ""), (404, "metadata not found".into()));
    assert_eq!(call("PUT /metadata?key=a", "{\"x\":1}"), (200, "metadata updated".into()));
    assert_eq!(call("PUT /metadata?key=a", "{\"x\":2}"), (200, "metadata updated".into()));
    assert_eq!(call("GET /metadata?key=a", ""), (200, "{\"x\":2}".into()));
    assert_eq!(call("PUT /metadata?key=m%2Frpc_meta%2Fh", "1"), (200, "metadata updated".into()));
    assert_eq!(call("PUT /metadata?key=m%2Frpc_meta%2Fh", "1"), (200, "metadata unchanged".into()));
    assert_eq!(
        call("PUT /metadata?key=m%2Frpc_meta%2Fh", "2"),
        (400, "Duplicate rpc_meta key not allowed".into())
    );
    assert_eq!(call("DELETE /metadata?key=a", ""), (200, "metadata deleted".into()));
    assert_eq!(call("DELETE /metadata?key=a", ""), (404, "metadata not found".into()));
}

#[test]
fn the_pool_from_the_command_line() {
    let master = Master::start(&[]);
    let mut client = master.client();
    use_it(&mut client, b"key one");
    use_it(&mut client, b"another");
    let look = |arguments: &[&str]| {
        let output = Command::new(mooncake_test_support::artifacts::program("mooncake"))
            .args(arguments)
            .args(["--admin", &master.admin.to_string()])
            .output()
            .expect("command");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (good, keys) = look(&["keys"]);
    let mut keys: Vec<&str> = keys.lines().collect();
    keys.sort_unstable();
    assert_eq!((good, keys), (true, vec!["another", "key one"]));
    assert_eq!(look(&["keys", "one", "--json"]).1, "[\"key one\"]\n");
    let (_, stats) = look(&["stats", "--json"]);
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!((&stats["keys"], &stats["used_bytes"], &stats["hits"]), (&2.into(), &256.into(), &2.into()));
    assert!(look(&["stats"]).1.contains("capacity_bytes           2097152"));
    let (_, segments) = look(&["segments"]);
    assert_eq!(
        segments.lines().filter(|line| line.starts_with("s ") && line.ends_with("OK")).count(),
        2,
        "{segments}"
    );
    let nobody = Command::new(mooncake_test_support::artifacts::program("mooncake"))
        .args(["stats", "--admin", "127.0.0.1:1"])
        .output();
    assert_eq!(nobody.expect("command").status.code(), Some(1));
}

/// Promise: the master's memory follows what it holds, down as well as up.
#[test]
fn the_memory_of_removed_objects_is_returned() {
    let master = Master::start(&["--default_kv_lease_ttl=1"]);
    let mut client = master.client();
    client
        .call(&ReMountSegment { segments: vec![segment(1, "s", 1 << 40)], client: uuid(1) })
        .expect("call")
        .expect("mount");
    let resident_kib = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", master.child.id())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().split(' ').next().and_then(|text| text.parse().ok()).expect("number")
    };
    let idle = resident_kib();
    let objects = 200_000u64;
    for start in (0..objects).step_by(1000) {
        let names: Vec<String> = (start..start + 1000).map(|index| format!("{index:097}")).collect();
        let keys: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let lengths = vec![64; keys.len()];
        let objects = keys.iter().map(|key| ObjectMeta { key, checksum: None }).collect();
        let begin = BatchPutStart { client: uuid(1), keys, lengths, ..BatchPutStart::default() };
        assert!(client.call(&begin).expect("call").iter().all(Result::is_ok));
        let end = BatchPutEnd { client: uuid(1), objects, ..BatchPutEnd::default() };
        assert!(client.call(&end).expect("call").iter().all(Result::is_ok));
    }
    let full = resident_kib();
    let each = (full - idle) * 1024 / objects;
    assert!((200..=400).contains(&each), "{each} bytes for an object with a key of 97");
    let counted = master.http("GET /metrics").1;
    let counted = counted
        .lines()
        .find_map(|line| line.strip_prefix("master_metadata_bytes "))
        .expect("metric")
        .to_owned();
    let counted: u64 = counted.parse::<u64>().expect("number") / objects;
    assert!(counted.abs_diff(each) < 100, "{counted} are counted, {each} are taken");
    let removed = client.call(&RemoveAll { force: true, ..RemoveAll::default() });
    assert_eq!(removed, Ok(i64::try_from(objects).expect("fits")));
    common::eventually("more than half is returned", || resident_kib() < idle + (full - idle) / 2);
}
