//! The baseline and the buffers themselves, on the software NPU, without the engine.

use cann_sys::LoadOptions;
use mooncake_test_support::artifacts;
use mooncake_transfer_bench::arena::{Arena, Gap, Run};
use mooncake_transfer_bench::bare::{Pair, Shape};
use mooncake_transfer_bench::device::{Memory, Npu};

fn options() -> LoadOptions {
    LoadOptions { cann_path: Some(artifacts::software_npu()), ..LoadOptions::default() }
}

#[test]
fn npu_memory_holds_and_gives_back_its_contents() {
    let npu = Npu::open(&options(), 0).unwrap();
    let arena = Arena::new(Memory::device(&npu, 10_000_001).unwrap(), 5).unwrap();
    assert_eq!(arena.location(), "npu:0");
    let clean = arena.check_and_restore(0..arena.length_bytes(), Vec::new(), Gap::Own).unwrap();
    assert_eq!((clean.verified_bytes, clean.mismatched_bytes), (0, 0));
    let absent = Run { at: 5_000_000, length_bytes: 1000, seed: 6, from: 0 };
    let verdict = arena.check_and_restore(0..arena.length_bytes(), vec![absent], Gap::Own).unwrap();
    assert_eq!(verdict.verified_bytes, 1000);
    assert!(verdict.mismatched_bytes > 900);
}

#[test]
fn the_bare_loop_moves_more_blocks_than_one_call_takes() {
    let active = Npu::open(&options(), 1).unwrap();
    let passive = Npu::open(&options(), 0).unwrap();
    let shape = Shape { local_regions: 4, ..Shape::default() };
    let pair = Pair::connect(&active, &passive, shape, 8 << 20).unwrap();
    let blocks: Vec<_> = (0..1000).map(|index| (index * 8192, (999 - index) * 512)).collect();
    pair.upload(&vec![7; 8 << 20]).unwrap();
    assert!(!pair.put(&blocks, 64).unwrap().is_zero());
    let target = pair.download().unwrap();
    for (position, byte) in target.iter().enumerate() {
        let inside = position % 512 < 64 && position < 1000 * 512;
        assert_eq!(*byte, if inside { 7 } else { 0 }, "at {position}");
    }
    pair.end().unwrap();
}
