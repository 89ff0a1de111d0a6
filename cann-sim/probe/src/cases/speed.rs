//! Numbers without an expectation: what the model's cost profiles are to be calibrated with.

use std::time::Instant;

use cann_sys::{ACL_MEMCPY_DEVICE_TO_HOST, ACL_MEMCPY_HOST_TO_DEVICE, HcclOneSideOpDesc};

use super::cases;
use crate::case::Answer;
use crate::pair::{self, Pair, bytes};
use crate::probe::{Probe, SIZE, acl, at};
use crate::table::Reach;

cases! {
    block_sizes_over_hccs, "8.10", "How long does a descriptor take by block size over HCCS?";
    block_sizes_over_roce, "8.10", "The same over RoCE (where 32 KiB was slower than 16 KiB)?";
    host_copies, "8.13", "How long do host-device copies take?";
    connecting, "8.13", "How long does it take to build a communicator and prepare it?";
}

/// Times of the same thing, of which the median is told.
const ROUNDS: usize = 9;

fn median_microseconds(mut once: impl FnMut() -> Answer) -> Answer<f64> {
    let mut times = Vec::new();
    once()?; // the first use of anything is slower
    for _ in 0..ROUNDS {
        let start = Instant::now();
        once()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(ROUNDS / 2).copied().unwrap_or(f64::NAN))
}

fn block_sizes(probe: &Probe, reach: Reach) -> Answer {
    const DESCRIPTORS: u32 = 64;
    let pair = Pair::connect(probe, reach, false)?;
    let stream = probe.stream()?;
    for shift in 14..=21 {
        let length = 1_usize << shift;
        let mut descriptors: Vec<HcclOneSideOpDesc> = (0..usize::try_from(DESCRIPTORS).unwrap_or(0))
            .map(|number| {
                let offset = number * length % SIZE;
                bytes(pair.side.memory + offset, pair.peer.memory + offset, length)
            })
            .collect();
        let put = median_microseconds(|| {
            crate::probe::need("HcclBatchPut", pair.side.put(probe, &mut descriptors, stream)?)?;
            crate::probe::need("aclrtSynchronizeStream", pair::wait(probe, stream)?)
        })?;
        let get = median_microseconds(|| {
            crate::probe::need("HcclBatchGet", pair.side.get(probe, &mut descriptors, stream)?)?;
            crate::probe::need("aclrtSynchronizeStream", pair::wait(probe, stream)?)
        })?;
        let each = f64::from(DESCRIPTORS);
        probe.measured(
            &format!("{} KiB: microseconds a descriptor, put and get", length >> 10),
            format!("{:.2} {:.2}", put / each, get / each),
        );
    }
    pair.close(probe)
}

fn block_sizes_over_hccs(probe: &mut Probe) -> Answer {
    block_sizes(probe, Reach::Near)
}

fn block_sizes_over_roce(probe: &mut Probe) -> Answer {
    block_sizes(probe, Reach::Far)
}

fn host_copies(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let probe = &*probe;
    let stream = probe.stream()?;
    let (memory, host) = (at(probe.device_memory(SIZE)?), at(probe.pinned_memory(SIZE)?));
    for length in [4096, 64 << 10, 1 << 20, SIZE] {
        let to_device = median_microseconds(|| {
            let code = acl!(
                probe,
                aclrtMemcpyAsync(memory, length, host, length, ACL_MEMCPY_HOST_TO_DEVICE, stream)
            );
            crate::probe::need("aclrtMemcpyAsync", code)?;
            crate::probe::need("aclrtSynchronizeStream", pair::wait(probe, stream)?)
        })?;
        let to_host = median_microseconds(|| {
            let code = acl!(
                probe,
                aclrtMemcpyAsync(host, length, memory, length, ACL_MEMCPY_DEVICE_TO_HOST, stream)
            );
            crate::probe::need("aclrtMemcpyAsync", code)?;
            crate::probe::need("aclrtSynchronizeStream", pair::wait(probe, stream)?)
        })?;
        probe.measured(
            &format!("{} KiB: microseconds, to the device and back", length >> 10),
            format!("{to_device:.1} {to_host:.1}"),
        );
    }
    Ok(())
}

fn connecting(probe: &mut Probe) -> Answer {
    let start = Instant::now();
    let pair = Pair::connect(probe, Reach::Near, false)?;
    probe.measured("milliseconds with the start of the peer's process", start.elapsed().as_millis());
    let start = Instant::now();
    pair.close(probe)?;
    probe.measured("milliseconds to take it down on both sides", start.elapsed().as_millis());
    Ok(())
}
