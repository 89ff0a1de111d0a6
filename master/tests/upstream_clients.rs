//! Upstream's released clients as real peers of the master: 0.3.13.post1 and 0.3.11.post1.
//!
//! The wheels are made by `tests/interop/make_peers.sh`; where they cannot be had, each test is a counted skip.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use common::{Master, eventually};
use mooncake_test_support::{peers, skip};
use serde_json::{Value, json};

const RELEASES: [&str; 2] = ["0.3.13.post1", "0.3.11.post1"];

struct Upstream {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Upstream {
    /// A client of this release that is set up at a master and lends `segment` bytes; none if there is no wheel.
    fn start(release: &str, master: &Master, segment: u64) -> Option<Self> {
        let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/store_client.py");
        let Some(directory) = peers::directory(release) else {
            skip(&format!("no usable wheel of upstream {release}; tests/interop/make_peers.sh makes one"));
            return None;
        };
        let mut child = peers::python(&directory, release)
            .arg(driver)
            .env("MC_STORE_MEMCPY", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python");
        let input = child.stdin.take().expect("stdin");
        let output = BufReader::new(child.stdout.take().expect("stdout"));
        let mut upstream = Self { child, input, output };
        let name = "127.0.0.1";
        let setup =
            json!(["setup", name, "P2PHANDSHAKE", segment, 32 << 20, "tcp", "", master.rpc.to_string()]);
        assert_eq!(upstream.call(&setup), json!(0), "setup of {release}");
        Some(upstream)
    }

    fn call(&mut self, command: &Value) -> Value {
        writeln!(self.input, "{command}").expect("command");
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).expect("answer") > 0, "the client ended at {command}");
            // The client's libraries print to standard output as well.
            if let Some(answer) = line.strip_prefix("answer ") {
                return serde_json::from_str(answer).expect("JSON");
            }
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bytes(length: u64, fill: u64) -> Value {
    json!({"bytes": length, "fill": fill})
}

#[test]
fn every_call_of_the_python_interface() {
    for release in RELEASES {
        let master = Master::start(&["--default_kv_lease_ttl=300"]);
        let Some(mut client) = Upstream::start(release, &master, 64 << 20) else { continue };
        let mut expect =
            |command: Value, answer: Value| assert_eq!(client.call(&command), answer, "{release} {command}");
        expect(json!(["put", "k", bytes(5000, 7)]), json!(0));
        expect(json!(["is_exist", "k"]), json!(1));
        expect(json!(["get", "k"]), bytes(5000, 7));
        expect(json!(["get_size", "k"]), json!(5000));
        expect(json!(["put", "k", bytes(10, 8)]), json!(0));
        expect(json!(["get", "k"]), bytes(5000, 7));
        expect(json!(["get", "none"]), bytes(0, 0));
        expect(json!(["get_size", "none"]), json!(-704));
        let keys: Vec<String> = (0..300).map(|index| format!("b{index}")).collect();
        let values: Vec<Value> = (0..300).map(|index| bytes(1000 + index, index % 256)).collect();
        expect(json!(["put_batch", keys, values]), json!(0));
        expect(json!(["get_batch", keys]), json!(values));
        expect(json!(["batch_is_exist", ["b0", "none", "b299"]]), json!([1, 0, 1]));
        expect(json!(["remove", "k"]), json!(-706));
        expect(json!(["remove", "k", true]), json!(0));
        expect(json!(["remove", "k"]), json!(-704));
        expect(json!(["remove_by_regex", "^b1\\d$", true]), json!(10));
        expect(json!(["remove_by_regex", "(", true]), json!(-600));
        expect(json!(["upsert", "u", bytes(100, 1)]), json!(0));
        expect(json!(["upsert", "u", bytes(200, 2)]), json!(0));
        expect(json!(["get", "u"]), bytes(200, 2));
        let soft = json!({"config": {"with_hard_pin": true, "replica_num": 2}});
        expect(json!(["put", "pinned", bytes(64, 3), soft]), json!(0));
        expect(json!(["remove_all", true]), json!(292));
        expect(json!(["health_check"]), json!(0));
        let (_, page) = master.http("GET /metrics");
        assert!(page.contains("\nmaster_release_mismatches_total 0\n"));
        assert!(page.contains("\nmaster_clients_doubted_total 0\n"), "a client that lives is not doubted");
        assert_eq!(client.call(&json!(["close"])), json!(0));
        eventually("the segment is unmounted", || master.http("GET /get_all_segments").1.is_empty());
    }
}

#[test]
fn two_releases_share_one_pool() {
    let master = Master::start(&[]);
    let Some(mut newer) = Upstream::start(RELEASES[0], &master, 64 << 20) else { return };
    let Some(mut older) = Upstream::start(RELEASES[1], &master, 64 << 20) else { return };
    for (index, key) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        let value = bytes(100_000, index as u64);
        let (writer, reader) =
            if index % 2 == 0 { (&mut newer, &mut older) } else { (&mut older, &mut newer) };
        let two = json!({"config": {"replica_num": 2}});
        assert_eq!(writer.call(&json!(["put", key, value, two])), json!(0));
        assert_eq!(reader.call(&json!(["get", key])), value);
    }
    assert_eq!(master.http("GET /get_all_keys").1.lines().count(), 6);
    // A client that is killed leaves the other's copies readable.
    older.child.kill().expect("kill");
    eventually("its segment is gone", || master.http("GET /get_all_segments").1.lines().count() == 1);
    for (index, key) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        assert_eq!(newer.call(&json!(["get", key])), bytes(100_000, index as u64));
    }
}

/// What is put after a client was killed does not go to its memory: no put fails for the seconds until it is suspect.
#[test]
fn puts_succeed_at_once_after_another_client_was_killed() {
    for release in RELEASES {
        let master = Master::start(&["--client_ttl=60"]);
        let Some(mut lives) = Upstream::start(release, &master, 64 << 20) else { continue };
        let Some(mut dies) = Upstream::start(release, &master, 64 << 20) else { continue };
        eventually("both are known", || {
            master.http("GET /metrics").1.contains("\nmaster_active_clients 2\n")
        });
        let of =
            |page: &str| page.lines().filter(|line| line.starts_with("segment_allocated_bytes{")).count();
        assert_eq!(of(&master.http("GET /metrics").1), 2);
        dies.child.kill().expect("kill");
        eventually("the master sees its connections close", || {
            master.http("GET /metrics").1.contains("\nmaster_clients_doubted_total 1\n")
        });
        for index in 0..40 {
            let value = bytes(50_000, index);
            assert_eq!(
                lives.call(&json!(["put", format!("k{index}"), value])),
                json!(0),
                "{release} k{index}"
            );
            assert_eq!(lives.call(&json!(["get", format!("k{index}")])), value);
        }
        assert_eq!(of(&master.http("GET /metrics").1), 2, "the killed one's segment is still mounted");
    }
}

/// Kills the master and starts it again on the same port; answers whether the object is still there.
fn survives(release: &str, journal: Option<&str>) -> Option<Value> {
    let flags: Vec<String> = journal.iter().map(|directory| format!("--journal_dir={directory}")).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let master = Master::start(&flags);
    let port = master.rpc.port();
    let mut client = Upstream::start(release, &master, 64 << 20)?;
    assert_eq!(client.call(&json!(["put", "k", bytes(70_000, 9)])), json!(0));
    master.kill();
    let master = Master::start_on(port, &flags);
    eventually("the client is back", || !master.http("GET /get_all_segments").1.is_empty());
    let found = client.call(&json!(["get", "k"]));
    assert_eq!(client.call(&json!(["put", "new", bytes(70_000, 4)])), json!(0));
    assert_eq!(client.call(&json!(["get", "new"])), bytes(70_000, 4));
    assert_eq!(client.call(&json!(["get", "k"])), found, "the new object does not touch the old one");
    Some(found)
}

#[test]
fn a_restart_keeps_the_cache_of_upstreams_client_with_a_journal_only() {
    for release in RELEASES {
        let directory = tempfile::tempdir().expect("directory");
        let Some(kept) = survives(release, directory.path().to_str()) else { continue };
        assert_eq!(kept, bytes(70_000, 9), "{release} with a journal");
        assert_eq!(survives(release, None), Some(bytes(0, 0)), "{release} without");
    }
}
