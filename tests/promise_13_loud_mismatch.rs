//! Promise 13: a version mismatch is loud on both sides.
//!
//! Our master's part with each call is in `master/tests/process.rs`; here released peers of other versions. Tried by
//! taking the mechanism out: without `Call::complain` the master's log names nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod interop;
#[path = "interop/store.rs"]
mod peers;
mod store;

use interop::missing;
use mooncake::store::Store;
use mooncake_test_support::Child;
use peers::UpstreamMaster;
use serde_json::json;
use store::{MIB, Master, eventually, options};

/// Older than anything we speak.
const OLD: [&str; 2] = ["0.3.10.post2", "0.3.8"];

#[test]
fn our_client_at_an_older_master_says_what_it_speaks() {
    for release in OLD {
        let Some(master) = UpstreamMaster::start(release, &[]) else {
            missing(release);
            continue;
        };
        let failure = match Store::setup(options(&master.address(), 16 * MIB)) {
            Ok(_) => panic!("{release} was taken for one that we speak"),
            Err(failure) => failure.to_string(),
        };
        for part in ["0.3.13", "0.3.11", "use a client and a master of one release"] {
            assert!(failure.contains(part), "{release}: {part} in {failure}");
        }
    }
}

#[test]
fn our_master_names_the_release_of_an_older_client() {
    // The first call whose arguments only that release has.
    for (release, named) in OLD.iter().zip([["PutStart", "0.3.10.post2"], ["MountSegment", "0.3.8"]]) {
        let Some(directory) = interop::peers(release) else {
            missing(release);
            continue;
        };
        let master = Master::start(&[]);
        let mut command = interop::python_of(&directory, release);
        command.arg(mooncake_test_support::artifacts::workspace().join("tests/interop/store_client.py"));
        let mut client = Child::start(&mut command);
        let setup =
            json!(["setup", "127.0.0.1", "P2PHANDSHAKE", 16 * MIB, 16 * MIB, "tcp", "", master.address]);
        client.send(&setup.to_string());
        let put = json!(["put", "k", {"bytes": 100, "fill": 1}]);
        client.send(&put.to_string());
        eventually("the master's log names it", || {
            let log = master.child.output();
            let line = log.lines().find(|line| line.contains("are of release"));
            line.is_some_and(|line| named.iter().all(|part| line.contains(part)))
        });
        assert!(master.metric("master_release_mismatches_total") > 0);
        // The client is told as well: nothing it asked for is taken for done.
        eventually("the client's answer", || {
            client.standard_output().lines().filter(|line| line.starts_with("answer ")).count() == 2
        });
        let output = client.standard_output();
        let answer = output.lines().filter_map(|line| line.strip_prefix("answer ")).next_back();
        assert_ne!(answer, Some("0"), "{release}: a put that was refused");
    }
}
