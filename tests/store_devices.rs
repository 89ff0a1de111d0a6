//! Values of NPU memory: many small buffers a key, in all the ways in which vLLM-Ascend's three generations set a
//! store up, registered, registered by another engine of the process, or by nobody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;
mod store;

use mooncake_test_support::SoftwareNpu;
use promise::{Peer, software_npu};
use store::{MIB, Master};

/// Buffers of a key: K and V of each layer.
const BUFFERS: u64 = 56;
/// Keys of the longest request of the guide's model.
const KEYS: u64 = 78;

/// How the process uses its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    /// An engine of the store's own and a name `host:port:npu_N`.
    Own,
    /// The engine of the process, which knows the memory.
    Shared,
}

/// Who has registered the device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registered {
    /// The process's own engine.
    ByEngine,
    /// The store, by `register_buffer`.
    ByStore,
    Nobody,
}

struct Node {
    peer: Peer,
    place: u64,
    bytes: u64,
}

impl Node {
    fn start(
        npu: &SoftwareNpu,
        device: u32,
        master: &Master,
        how: (Setup, Registered),
        segment: u64,
        bytes: u64,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut peer = Peer::start_with(npu, Some(device), variables);
        let place: u64 = peer.must(&format!("alloc {device} {bytes}")).parse().unwrap();
        if how.1 == Registered::ByEngine {
            peer.must(&format!("register {place} {bytes} npu:{device}"));
        }
        let (name, engine) = match how.0 {
            Setup::Own => (format!("127.0.0.1:{}:npu_{device}", 8790 + device), "own"),
            Setup::Shared => (peer.name(), "shared"),
        };
        let made = peer.must(&format!("store setup {name} {segment} ascend {engine} {}", master.address));
        assert_eq!(made, name, "the name is kept as it is");
        if how.1 == Registered::ByStore {
            peer.must(&format!("store register {place} {bytes}"));
        }
        Self { peer, place, bytes }
    }

    /// One call that puts the whole memory as so many keys.
    fn put(&mut self, prefix: &str, keys: u64, seed: u64) {
        self.peer.fill(self.place, self.bytes, seed);
        let each = self.bytes / keys;
        let codes = self.peer.must(&format!("store put 1 {prefix} {keys} {} {each} {BUFFERS}", self.place));
        let expected = vec!["0"; usize::try_from(keys).unwrap()].join(" ");
        assert_eq!(codes, expected, "{}", self.peer.child.output());
    }

    /// One call that gets them, cut differently, byte-checked.
    fn get(&mut self, prefix: &str, keys: u64, seed: u64, buffers: u64) {
        self.peer.fill(self.place, self.bytes, 999);
        let each = self.bytes / keys;
        let counts = self.peer.must(&format!("store get {prefix} {keys} {} {each} {buffers}", self.place));
        let expected = vec![each.to_string(); usize::try_from(keys).unwrap()].join(" ");
        assert_eq!(counts, expected, "{}", self.peer.child.output());
        assert!(self.peer.holds(self.place, self.bytes, seed), "{prefix}: other bytes");
    }
}

/// One node lends memory and puts; another one gets, and puts what the first one gets.
fn both_ways(how: (Setup, Registered), keys: u64, piece: u64, variables: &[(&str, &str)]) {
    let master = Master::start(&[]);
    let npu = software_npu(2);
    // Whole pages, so that the vendor can take the memory.
    let bytes = (keys * BUFFERS * piece).next_multiple_of(2 * MIB * keys);
    let segment = (4 * bytes).max(32 * MIB);
    let mut lender = Node::start(&npu, 0, &master, how, segment, bytes, variables);
    let mut other = Node::start(&npu, 1, &master, how, 0, bytes, variables);
    lender.put("a", keys, 1);
    lender.get("a", keys, 1, 1);
    other.get("a", keys, 1, 7);
    other.put("b", keys, 2);
    other.get("b", keys, 2, BUFFERS);
    lender.get("b", keys, 2, 3);
    // A second put changes nothing.
    lender.put("b", keys, 3);
    other.get("b", keys, 2, BUFFERS);
    other.peer.quit();
    lender.peer.quit();
}

const PIECE: u64 = 16 << 10;

#[test]
fn a_store_with_its_own_engine_and_memory_that_another_engine_registered() {
    both_ways((Setup::Own, Registered::ByEngine), 4, PIECE, &[]);
}

#[test]
fn a_store_with_its_own_engine_and_memory_that_nobody_registered() {
    both_ways((Setup::Own, Registered::Nobody), 4, PIECE, &[]);
}

#[test]
fn a_store_with_its_own_engine_that_registers() {
    both_ways((Setup::Own, Registered::ByStore), 4, PIECE, &[]);
}

#[test]
fn a_store_that_shares_an_engine_which_knows_the_memory() {
    both_ways((Setup::Shared, Registered::ByEngine), 4, PIECE, &[]);
}

#[test]
fn a_store_that_shares_an_engine_and_memory_that_nobody_registered() {
    both_ways((Setup::Shared, Registered::Nobody), 4, PIECE, &[]);
}

#[test]
fn by_sockets() {
    both_ways((Setup::Own, Registered::ByEngine), 4, PIECE, &[("MOONCAKE_TRANSFER_SAME_HOST", "0")]);
}

#[test]
fn the_longest_request_of_the_guides_model_is_one_call() {
    both_ways((Setup::Own, Registered::ByEngine), KEYS, PIECE, &[]);
}

#[test]
fn the_longest_request_with_a_shared_engine() {
    both_ways((Setup::Shared, Registered::ByEngine), KEYS, PIECE, &[]);
}

#[test]
fn the_longest_request_by_sockets() {
    both_ways((Setup::Own, Registered::Nobody), KEYS, PIECE, &[("MOONCAKE_TRANSFER_SAME_HOST", "0")]);
}

/// A node that lends 30 GB of host memory where the driver registers 20, to a node on another host that has devices.
#[test]
fn a_segment_of_30_gb_where_the_driver_registers_20() {
    let master = Master::start(&[]);
    let npu = software_npu(2).variable("CANN_SIM_HOST_REGISTRATION_LIMIT", "20G");
    let apart = [("MOONCAKE_TRANSFER_SAME_HOST", "0")];
    let (how, bytes) = ((Setup::Own, Registered::ByEngine), 4 * BUFFERS * PIECE);
    let lender = Node::start(&npu, 0, &master, how, 30 << 30, 2 * MIB, &apart);
    let mut other = Node::start(&npu, 1, &master, how, 0, bytes.next_multiple_of(2 * MIB), &apart);
    other.bytes = bytes;
    other.put("a", 4, 1);
    other.get("a", 4, 1, BUFFERS);
    assert_eq!(master.metric("master_total_capacity_bytes"), 30 << 30);
    let wires = [other.peer.count("HcclBatchPut"), other.peer.count("HcclBatchGet")];
    assert!(wires.iter().all(|count| *count > 0), "it went by another way: {wires:?}");
    other.peer.quit();
    lender.peer.quit();
}

#[test]
fn a_copy_that_the_vendor_refuses_fails_its_call_and_leaves_nothing() {
    let master = Master::start(&[]);
    let npu = software_npu(1);
    let bytes = 8 * MIB;
    let how = (Setup::Own, Registered::ByEngine);
    let mut node = Node::start(&npu, 0, &master, how, 64 * MIB, bytes, &[]);
    node.peer.fill(node.place, bytes, 1);
    for function in ["aclrtMemcpyAsync", "aclrtMemcpyBatch", "aclrtMemcpy"] {
        node.peer.fault(&format!("add {function}=fail:507899"));
    }
    let command = format!("store put 1 k 4 {} {} {BUFFERS}", node.place, bytes / 4);
    assert_eq!(node.peer.must(&command), "-800 -800 -800 -800", "{}", node.peer.child.output());
    assert_eq!(master.metric("master_allocated_bytes"), 0, "the space was given back");
    assert_eq!(node.peer.must("store exist k 4"), "0 0 0 0");
    node.peer.fault("clear");
    node.put("k", 4, 2);
    node.get("k", 4, 2, 3);
    // The same for a get.
    for function in ["aclrtMemcpyAsync", "aclrtMemcpyBatch", "aclrtMemcpy"] {
        node.peer.fault(&format!("add {function}=fail:507899"));
    }
    let command = format!("store get k 4 {} {} {BUFFERS}", node.place, bytes / 4);
    assert_eq!(node.peer.must(&command), "-800 -800 -800 -800", "{}", node.peer.child.output());
    node.peer.fault("clear");
    node.get("k", 4, 2, 5);
}
