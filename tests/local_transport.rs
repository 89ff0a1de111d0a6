//! Copies inside one process: host and NPU memory in every combination.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::sync::Arc;
use std::time::Duration;

use cann_sys::LoadOptions;
use mooncake::batch::{Batch, Outcome, Stop, Submission, Waited};
use mooncake::config::Config;
use mooncake::deadline::Deadline;
use mooncake::error::{Code, Error, Result};
use mooncake::plan::{Direction, Extent};
use mooncake::transport::Job;
use mooncake::transport::ascend::Runtime;
use mooncake::transport::ascend::raw::CopyKind;
use mooncake::transport::local::Local;
use mooncake_test_support::{artifacts, wait_until};

const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(60);

fn address_of(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

fn target_of(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr().expose_provenance() as u64
}

fn pattern(seed: u64, length_bytes: u64) -> Vec<u8> {
    (0..length_bytes)
        .map(|index| (index.wrapping_mul(29).wrapping_add(index >> 9).wrapping_add(seed) % 251) as u8)
        .collect()
}

fn start(
    local: &Local,
    direction: Direction,
    devices: (Option<i32>, Option<i32>),
    blocks: &[(u64, u64, u64)],
) -> (Arc<Batch>, Result<()>) {
    let deadline = Deadline::after(LONG);
    let batch = Arc::new(Batch::new(u32::try_from(blocks.len()).unwrap()).unwrap());
    let submission = Submission::start(&batch, blocks.iter().map(|block| block.2), deadline).unwrap();
    let extents = blocks
        .iter()
        .zip(0..)
        .map(|(&(near, far, length_bytes), task)| Extent {
            local: near,
            remote: far,
            length_bytes,
            first_task: task,
            task_count: 1,
            skip_bytes: 0,
        })
        .collect();
    let job = Job {
        direction,
        extents,
        submission,
        pins: Vec::new(),
        deadline,
        local_device: devices.0,
        remote_device: devices.1,
        route: mooncake::transport::Route::Any,
        peer: "self".into(),
    };
    let submitted = local.submit(job);
    (batch, submitted)
}

fn finished(batch: &Batch) -> (Outcome, Option<Error>) {
    match batch.wait(Deadline::after(LONG)) {
        Waited::Finished(outcome) => (outcome, batch.first_error()),
        other => panic!("{other:?}"),
    }
}

fn must(
    local: &Local,
    direction: Direction,
    devices: (Option<i32>, Option<i32>),
    blocks: &[(u64, u64, u64)],
) {
    let (batch, submitted) = start(local, direction, devices, blocks);
    submitted.unwrap();
    let (outcome, error) = finished(&batch);
    assert!(outcome.is_success(), "{error:?}");
}

#[test]
fn a_small_copy_is_done_when_submit_returns() {
    let local = Local::start(&Config::default());
    let (source, mut target) = (pattern(1, 200 << 10), vec![0_u8; 200 << 10]);
    let (near, far) = (address_of(&source), target_of(&mut target));
    let blocks =
        [(near, far + 1000, 1000), (near + 1000, far, 1000), (near + 2000, far + 2000, (200 << 10) - 2000)];
    let (batch, submitted) = start(&local, Direction::Write, (None, None), &blocks);
    submitted.unwrap();
    assert!(batch.is_finished());
    assert!(target[1000..2000] == source[..1000] && target[..1000] == source[1000..2000]);
    assert!(target[2000..] == source[2000..]);
}

#[test]
fn large_and_scattered_copies_arrive() {
    let local = Local::start(&Config::default());
    let length = 40 * MIB + 77;
    let (source, mut target) = (pattern(2, length), vec![0_u8; usize::try_from(length).unwrap()]);
    let (near, far) = (target_of(&mut target), address_of(&source));
    must(&local, Direction::Read, (None, None), &[(near, far, length)]);
    assert!(target == source);
    target.fill(0);
    let blocks: Vec<_> =
        (0..10_000).map(|index| (near + index * 4096, far + (9_999 - index) * 4096, 4096)).collect();
    must(&local, Direction::Read, (None, None), &blocks);
    for index in 0..10_000 {
        let back = 9_999 - index;
        assert!(
            target[index * 4096..(index + 1) * 4096] == source[back * 4096..(back + 1) * 4096],
            "block {index}"
        );
    }
}

#[test]
fn many_requests_at_once_arrive() {
    let local = Local::start(&Config::default());
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let local = &local;
            scope.spawn(move || {
                for round in 0..10 {
                    let (source, mut target) = (pattern(seed + round, 3 * MIB), vec![0_u8; 3 << 20]);
                    let near = target_of(&mut target);
                    must(local, Direction::Read, (None, None), &[(near, address_of(&source), 3 * MIB)]);
                    assert!(target == source);
                }
            });
        }
    });
}

#[test]
fn host_and_device_memory_in_every_combination() {
    let runtime = Runtime::load(&LoadOptions::only(artifacts::software_npu())).unwrap();
    let local = Local::start(&Config::default());
    let context = runtime.create_context(0).unwrap();
    let on_zero = runtime.allocate_device(8 * MIB).unwrap();
    let other = runtime.create_context(1).unwrap();
    let on_one = runtime.allocate_device(8 * MIB).unwrap();
    let bytes = pattern(3, 5 * MIB);
    let near = address_of(&bytes);
    // To device 0, inside device 0, to device 1, and back to the host, in scattered blocks.
    let blocks = |from: u64, to: u64| -> Vec<(u64, u64, u64)> {
        (0..1280).map(|index| (from + index * 4096, to + index * 4096, 4096)).collect()
    };
    must(&local, Direction::Write, (None, Some(0)), &blocks(near, on_zero));
    must(&local, Direction::Write, (Some(0), Some(0)), &[(on_zero, on_zero + 5 * MIB, 3 * MIB)]);
    must(&local, Direction::Write, (Some(0), Some(1)), &blocks(on_zero, on_one));
    must(&local, Direction::Read, (Some(1), Some(0)), &[(on_one, on_zero + 5 * MIB, 4096)]);
    let mut back = vec![0_u8; 5 << 20];
    must(&local, Direction::Read, (None, Some(1)), &blocks(target_of(&mut back), on_one));
    assert!(back == bytes);
    let mut inside = vec![0_u8; 3 << 20];
    must(&local, Direction::Read, (None, Some(0)), &[(target_of(&mut inside), on_zero + 5 * MIB, 3 * MIB)]);
    assert!(inside == bytes[..3 << 20]);
    // The caller's thread keeps the device it had.
    assert_eq!(runtime.current_device().unwrap(), Some(1));
    runtime.copy(on_one, near, 16, CopyKind::HostToDevice).unwrap();
    runtime.free_device(on_one).unwrap();
    runtime.destroy_context(other).unwrap();
    runtime.set_current_context(context).unwrap();
    runtime.free_device(on_zero).unwrap();
    runtime.destroy_context(context).unwrap();
}

#[test]
fn a_stopped_copy_fails_and_shutdown_refuses_more() {
    let local = Local::start(&Config::default());
    let (source, mut target) = (pattern(4, MIB), vec![0_u8; 1 << 20]);
    let (near, far) = (target_of(&mut target), address_of(&source));
    let (batch, submitted) = start(&local, Direction::Read, (None, None), &vec![(near, far, MIB); 100_000]);
    submitted.unwrap();
    batch.stop(Stop::Cancelled);
    let (outcome, error) = finished(&batch);
    assert!(outcome.failed > 0);
    assert_eq!(error.unwrap().code(), Code::Cancelled);
    local.shutdown(Deadline::after(LONG)).unwrap();
    let (batch, submitted) = start(&local, Direction::Read, (None, None), &[(near, far, MIB)]);
    assert_eq!(submitted.unwrap_err().code(), Code::StaleHandle);
    assert!(wait_until(LONG, || batch.is_finished()), "a refused request is finished");
}

#[test]
fn a_refused_device_copy_names_vendor_and_device() {
    let runtime = Runtime::load(&LoadOptions::only(artifacts::software_npu())).unwrap();
    let local = Local::start(&Config::default());
    let bytes = pattern(5, 4096);
    let context = runtime.create_context(2).unwrap();
    let small = runtime.allocate_device(8192).unwrap();
    // Past the end of the allocation.
    let (batch, submitted) =
        start(&local, Direction::Write, (None, Some(2)), &[(address_of(&bytes), small + (64 << 20), 4096)]);
    submitted.unwrap();
    let (outcome, error) = finished(&batch);
    assert_eq!(outcome.failed, 1);
    let error = error.unwrap();
    assert_eq!(error.record().device, Some(2), "{error}");
    assert!(error.record().vendor.is_some(), "{error}");
    // The next one goes well again.
    must(&local, Direction::Write, (None, Some(2)), &[(address_of(&bytes), small, 4096)]);
    runtime.free_device(small).unwrap();
    runtime.destroy_context(context).unwrap();
}
