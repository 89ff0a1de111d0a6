//! The KV caches of two models, as a decode node reads and a prefill node writes them, on every cost profile of the
//! software NPU, with aggregation off and on: every byte, and off means off.
//!
//! A quarter of a request of 4,096 tokens in half of a small pool, at the speed of the profile; how fast each way is
//! is what `transfer_engine_bench --profile` measures.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod ascend_pair;

use ascend_pair::*;
use mooncake::config::Config;
use mooncake::plan::Direction;

/// Blocks of 128 tokens that a tensor of the pool has, and how many of them a request has.
const POOL_BLOCKS: u64 = 16;
const REQUEST_BLOCKS: u64 = 8;

/// Where the parts of the bytes begin that the tensors of either end have.
const NEAR: usize = 0;
const FAR: usize = 100;

/// Tensors, each registered on its own, and 128 tokens of one.
struct Layout {
    name: &'static str,
    tensors: u64,
    block_bytes: u64,
}

const LAYOUTS: [Layout; 2] = [
    // 28 layers, a K and a V tensor each, of 4 heads of 128 numbers of 2 bytes a token.
    Layout { name: "Qwen2.5-7B", tensors: 28 * 2, block_bytes: 128 * 4 * 128 * 2 },
    // 61 layers, a tensor each, of 576 numbers of 2 bytes a token.
    Layout { name: "DeepSeek-V3", tensors: 61, block_bytes: 128 * 576 * 2 },
];

impl Layout {
    fn tensor_bytes(&self) -> u64 {
        POOL_BLOCKS * self.block_bytes
    }

    fn tensors(&self, node: &Node) -> Vec<u64> {
        (0..self.tensors).map(|_| node.buffer(self.tensor_bytes())).collect()
    }

    /// Fills each tensor with its part of `bytes`.
    fn fill(&self, node: &Node, tensors: &[u64], bytes: &[u8], seed: usize) {
        for (tensor, seed) in tensors.iter().zip(seed..) {
            store(node.device, *tensor, self.part(bytes, seed));
        }
    }

    /// A tensor's own part: one begins a byte behind the other.
    fn part<'a>(&self, bytes: &'a [u8], seed: usize) -> &'a [u8] {
        &bytes[seed..seed + self.tensor_bytes() as usize]
    }

    /// The numbers of a request's blocks at either end: no two are neighbours at both.
    fn table() -> impl Iterator<Item = (u64, u64)> {
        (0..REQUEST_BLOCKS).map(|index| ((index * 5 + 3) % POOL_BLOCKS, (index * 7 + 1) % POOL_BLOCKS))
    }

    fn blocks(&self, near: &[u64], far: &[u64]) -> Vec<(u64, u64, u64)> {
        let length = self.block_bytes;
        near.iter()
            .zip(far)
            .flat_map(|(near, far)| Self::table().map(move |(local, remote)| (near, local, far, remote)))
            .map(|(near, local, far, remote)| (near + local * length, far + remote * length, length))
            .collect()
    }

    /// That the blocks of a request are those of the other end, and that all others are what they were.
    fn holds(&self, node: &Node, tensors: &[u64], bytes: &[u8], (was, other): (usize, usize), what: &str) {
        let length = self.block_bytes as usize;
        for (number, tensor) in tensors.iter().enumerate() {
            let mut wanted = self.part(bytes, was + number).to_vec();
            let from = self.part(bytes, other + number);
            for (local, remote) in Self::table() {
                let (to, source) = if was == NEAR { (local, remote) } else { (remote, local) };
                let (to, source) = (to as usize * length, source as usize * length);
                wanted[to..to + length].copy_from_slice(&from[source..source + length]);
            }
            assert!(load(node.device, *tensor, self.tensor_bytes()) == wanted, "{what}: tensor {number}");
        }
    }
}

/// Runs in a process of its own, whose software NPU has the profile.
fn every_byte_arrives(test: &str, profile: &str) {
    let is_roce = profile.ends_with("roce");
    let settings =
        [("CANN_SIM_PROFILE", profile), ("HCCL_INTRA_ROCE_ENABLE", if is_roce { "1" } else { "0" })];
    if !inside(test, &settings) {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("hccn.conf");
    std::fs::write(&path, "address_0=192.0.2.10\naddress_1=192.0.2.11\n").unwrap();
    for layout in &LAYOUTS {
        let bytes = pattern(1, layout.tensor_bytes() + 200);
        for aggregate in [false, true] {
            let on = |server: &str| Config {
                hccn_conf: path.clone(),
                intra_roce: is_roce,
                server_id: profile.ends_with("2node").then(|| server.to_owned()),
                ascend_aggregate: aggregate,
                ..Config::default()
            };
            let (decode, prefill) = (node_with(0, &on("one"), false), node_with(1, &on("two"), false));
            let what = format!("{} on {profile}, aggregation {aggregate}", layout.name);
            let (near, far) = (layout.tensors(&decode), layout.tensors(&prefill));
            // The first makes the channel, so that it is known what the link costs.
            decode.must_transfer(&prefill, Direction::Read, &[(near[0], far[0], 64)]);
            layout.fill(&decode, &near, &bytes, NEAR);
            layout.fill(&prefill, &far, &bytes, FAR);

            let blocks = layout.blocks(&near, &far);
            decode.must_transfer(&prefill, Direction::Read, &blocks);
            layout.holds(&decode, &near, &bytes, (NEAR, FAR), &what);
            layout.fill(&decode, &near, &bytes, NEAR);
            decode.must_transfer(&prefill, Direction::Write, &blocks);
            layout.holds(&prefill, &far, &bytes, (FAR, NEAR), &what);

            assert_eq!(decode.ascend.channels()[0].link, if is_roce { "RoCE" } else { "HCCS" }, "{what}");
            let (staged, total) = (decode.ascend.staged(), 2 * blocks.len() as u64 * layout.block_bytes);
            let helped_bytes = staged.moved_bytes + staged.by_peers_bytes;
            assert!(helped_bytes <= total, "{what}: {staged:?}");
            if !aggregate {
                assert_eq!((staged.requests, helped_bytes), (0, 0), "{what}");
            } else if profile == "a2-roce" {
                // The link whose descriptors are the dearest.
                assert!(helped_bytes > 0, "{what}: {staged:?}");
            }
            for (node, tensors) in [(&decode, near), (&prefill, far)] {
                tensors.iter().for_each(|tensor| node.release(*tensor, layout.tensor_bytes()));
                node.ascend.shutdown(soon()).unwrap();
                node.control.shutdown();
            }
        }
    }
}

#[test]
fn on_a2_hccs() {
    every_byte_arrives("on_a2_hccs", "a2-hccs");
}

#[test]
fn on_a2_roce() {
    every_byte_arrives("on_a2_roce", "a2-roce");
}

#[test]
fn on_a3_hccs() {
    every_byte_arrives("on_a3_hccs", "a3-hccs");
}

#[test]
fn on_a3_hccs_2node() {
    every_byte_arrives("on_a3_hccs_2node", "a3-hccs-2node");
}

#[test]
fn on_a3_roce() {
    every_byte_arrives("on_a3_roce", "a3-roce");
}
