//! Puts and gets between two processes, over either link.

use std::ptr;

use cann_sys::HcclOneSideOpDesc;

use super::cases;
use crate::case::Answer;
use crate::pair::{self, Pair, TRANSFER_LIMIT_MS, bytes, patterned};
use crate::probe::{Probe, SIZE, acl, at, step};
use crate::table::Reach;

cases! {
    bytes_over_hccs, "2.4.5", "Do puts and gets over HCCS move the right bytes without work by the owner?";
    bytes_over_roce, "2.4.5, 2.5", "The same over RoCE, with host memory on both sides?";
    order_over_hccs, "8.4", "Do the puts of one call land in the order of the descriptors over HCCS?";
    order_over_roce, "8.4", "The same over RoCE?";
    threads_over_hccs, "8.8", "Can several threads and streams use one communicator at once over HCCS?";
    threads_over_roce, "8.8", "The same over RoCE?";
    communicator_after_abort_over_hccs, "8.9",
        "Is a communicator good after its stream was aborted in the middle over HCCS?";
    communicator_after_abort_over_roce, "8.9", "The same over RoCE?";
    dead_peer_over_hccs, "7.1, 8.5", "What does a put to a process that was killed answer over HCCS?";
    dead_peer_over_roce, "8.5", "The same over RoCE: does the stream wait for ever?";
}

/// Bytes of a scattered block, and how many there are.
const BLOCK: usize = 5000;
const BLOCKS: usize = 100;

/// Moves scattered blocks both ways between `local` (of device or host) and a place of the peer's.
fn move_both_ways(probe: &Probe, pair: &mut Pair, place: &str, local: usize, remote: usize) -> Answer {
    let stream = probe.stream()?;
    let half = SIZE / 2;
    let block = |index: usize| index * 2 * BLOCK;
    let mut gets: Vec<HcclOneSideOpDesc> =
        (0..BLOCKS).map(|index| bytes(local + index * BLOCK, remote + half + block(index), BLOCK)).collect();
    probe.hccl(&format!("get from {place}"), 0, pair.side.get(probe, &mut gets, stream)?);
    probe.acl("wait", 0, pair::wait(probe, stream)?);
    let expected: Vec<u8> = (0..BLOCKS).flat_map(|index| patterned(half + block(index), BLOCK, 1)).collect();
    let got = match pair.side.host {
        // SAFETY: our own pinned block, of which the first blocks were written by the transfer that is done.
        Some(host) if host == local => unsafe {
            std::slice::from_raw_parts(host as *const u8, BLOCKS * BLOCK).to_vec()
        },
        _ => probe.read(local, BLOCKS * BLOCK)?,
    };
    probe.value("bytes that came over", expected.len(), equal(&expected, &got));
    let mut puts: Vec<HcclOneSideOpDesc> =
        (0..BLOCKS).map(|index| bytes(local + half + index * BLOCK, remote + block(index), BLOCK)).collect();
    probe.hccl(&format!("put to {place}"), 0, pair.side.put(probe, &mut puts, stream)?);
    probe.acl("wait", 0, pair::wait(probe, stream)?);
    let seen = pair.peer.bytes(place, 0, BLOCKS * 2 * BLOCK)?;
    let mut expected = patterned(0, BLOCKS * 2 * BLOCK, 1);
    for index in 0..BLOCKS {
        let source = patterned(half + index * BLOCK, BLOCK, 0);
        if let Some(target) = expected.get_mut(block(index)..block(index) + BLOCK) {
            target.copy_from_slice(&source);
        }
    }
    probe.value("bytes the peer sees as they should be", expected.len(), equal(&expected, &seen));
    Ok(())
}

fn equal(expected: &[u8], seen: &[u8]) -> usize {
    expected.iter().zip(seen).filter(|(expected, seen)| expected == seen).count()
}

fn bytes_over_hccs(probe: &mut Probe) -> Answer {
    let mut pair = Pair::connect(probe, Reach::Near, false)?;
    let (local, remote) = (pair.side.memory, pair.peer.memory);
    move_both_ways(probe, &mut pair, "device", local, remote)?;
    pair.close(probe)
}

fn bytes_over_roce(probe: &mut Probe) -> Answer {
    let mut pair = Pair::connect(probe, Reach::Far, true)?;
    let (local, remote) = (pair.side.memory, pair.peer.memory);
    move_both_ways(probe, &mut pair, "device", local, remote)?;
    let (local, remote) = (pair.side.host.unwrap_or(0), pair.peer.host);
    move_both_ways(probe, &mut pair, "host", local, remote)?;
    pair.close(probe)
}

fn order(probe: &Probe, reach: Reach) -> Answer {
    const ROUNDS: usize = 20;
    const PUTS: usize = 16;
    const LENGTH: usize = 64 << 10;
    let mut pair = Pair::connect(probe, reach, false)?;
    let stream = probe.stream()?;
    for number in 0..PUTS {
        let byte = u8::try_from(number).unwrap_or(0);
        probe.write(pair.side.memory + number * LENGTH, &vec![byte; LENGTH])?;
    }
    let mut in_order = 0_usize;
    for _ in 0..ROUNDS {
        let mut puts: Vec<HcclOneSideOpDesc> = (0..PUTS)
            .map(|number| bytes(pair.side.memory + number * LENGTH, pair.peer.memory, LENGTH))
            .collect();
        crate::probe::need("HcclBatchPut", pair.side.put(probe, &mut puts, stream)?)?;
        crate::probe::need("aclrtSynchronizeStream", pair::wait(probe, stream)?)?;
        let seen = pair.peer.bytes("device", 0, LENGTH)?;
        let last = u8::try_from(PUTS - 1).unwrap_or(0);
        in_order += usize::from(seen.len() == LENGTH && seen.iter().all(|byte| *byte == last));
    }
    probe.value("rounds in which the last put had the last word", ROUNDS, in_order);
    pair.close(probe)
}

fn order_over_hccs(probe: &mut Probe) -> Answer {
    order(probe, Reach::Near)
}

fn order_over_roce(probe: &mut Probe) -> Answer {
    order(probe, Reach::Far)
}

fn threads(probe: &Probe, reach: Reach) -> Answer {
    const THREADS: usize = 4;
    const CALLS: usize = 25;
    const SHARE: usize = SIZE / 2 / THREADS;
    const PIECE: usize = 4096;
    const PIECES: usize = SHARE / PIECE;
    let mut pair = Pair::connect(probe, reach, false)?;
    let mut context = ptr::null_mut();
    step!(probe, acl aclrtGetCurrentContext(&raw mut context));
    let (context, local, remote) = (context as usize, pair.side.memory, pair.peer.memory);
    let communicator = pair.side.communicator as usize;
    let work = |thread: usize| -> Answer<Vec<i32>> {
        step!(probe, acl aclrtSetCurrentContext(at(context)));
        let stream = probe.stream()?;
        let mut codes = Vec::new();
        let base = thread * SHARE;
        for _ in 0..CALLS {
            let mut puts: Vec<HcclOneSideOpDesc> = (0..PIECES)
                .map(|piece| {
                    let offset = base + piece * PIECE;
                    bytes(local + SIZE / 2 + offset, remote + offset, PIECE)
                })
                .collect();
            let count = u32::try_from(PIECES).unwrap_or(0);
            codes.push(crate::probe::hccl!(
                probe,
                HcclBatchPut(at(communicator), 1, puts.as_mut_ptr(), count, stream)
            ));
        }
        codes.push(pair::wait(probe, stream)?);
        Ok(codes)
    };
    let codes = std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(Ok(vec![-1]))).collect::<Answer<Vec<_>>>()
    })?;
    let good = codes.iter().flatten().filter(|code| **code == 0).count();
    probe.value("calls and waits without error", THREADS * (CALLS + 1), good);
    let seen = pair.peer.bytes("device", 0, SIZE / 2)?;
    probe.value("bytes that arrived", SIZE / 2, equal(&patterned(SIZE / 2, SIZE / 2, 0), &seen));
    pair.close(probe)
}

fn threads_over_hccs(probe: &mut Probe) -> Answer {
    threads(probe, Reach::Near)
}

fn threads_over_roce(probe: &mut Probe) -> Answer {
    threads(probe, Reach::Far)
}

fn after_abort(probe: &Probe, reach: Reach) -> Answer {
    const LENGTH: usize = 16 << 10;
    let mut pair = Pair::connect(probe, reach, false)?;
    let stream = probe.stream()?;
    // As much work as the queue takes well, so that the abort finds some of it undone.
    for _ in 0..8 {
        let mut puts: Vec<HcclOneSideOpDesc> = (0..256)
            .map(|number| {
                let offset = (number * LENGTH) % (SIZE / 2);
                bytes(pair.side.memory + offset, pair.peer.memory + offset, LENGTH)
            })
            .collect();
        crate::probe::need("HcclBatchPut", pair.side.put(probe, &mut puts, stream)?)?;
    }
    probe.acl("aclrtStreamAbort", 0, acl!(probe, aclrtStreamAbort(stream)));
    probe.acl("wait for the aborted stream", 0, pair::wait(probe, stream)?);
    let fresh = probe.stream()?;
    let mut put = [bytes(pair.side.memory, pair.peer.memory + SIZE / 2, 4096)];
    probe.hccl("a put on another stream", 0, pair.side.put(probe, &mut put, fresh)?);
    probe.acl("wait", 0, pair::wait(probe, fresh)?);
    let seen = pair.peer.bytes("device", SIZE / 2, 4096)?;
    probe.value("bytes that arrived", 4096, equal(&patterned(0, 4096, 0), &seen));
    pair.close(probe)
}

fn communicator_after_abort_over_hccs(probe: &mut Probe) -> Answer {
    after_abort(probe, Reach::Near)
}

fn communicator_after_abort_over_roce(probe: &mut Probe) -> Answer {
    after_abort(probe, Reach::Far)
}

/// A put after the peer was killed: the call's code, the stream's after at most `limit_ms`, and what works
/// after.
fn dead_peer(probe: &Probe, reach: Reach, limit_ms: i32, expected: i32) -> Answer {
    let mut pair = Pair::connect(probe, reach, false)?;
    let stream = probe.stream()?;
    let mut put = [bytes(pair.side.memory, pair.peer.memory, 4096)];
    probe.hccl("a put while it lives", 0, pair.side.put(probe, &mut put, stream)?);
    probe.acl("wait", 0, pair::wait(probe, stream)?);
    pair.peer.kill();
    probe.hccl("a put after it was killed", 0, pair.side.put(probe, &mut put, stream)?);
    let start = std::time::Instant::now();
    let code = acl!(probe, aclrtSynchronizeStreamWithTimeout(stream, limit_ms));
    probe.acl("wait", expected, code);
    probe.measured("it took ms", start.elapsed().as_millis());
    let last = acl!(probe, aclGetRecentErrMsg());
    if !last.is_null() {
        // SAFETY: not NULL, so it is a C string that stays until the next call.
        let text = unsafe { std::ffi::CStr::from_ptr(last) }.to_string_lossy();
        probe.measured("text", text.lines().next().unwrap_or("").replace('\t', " "));
    }
    probe.acl("aclrtStreamAbort", 0, acl!(probe, aclrtStreamAbort(stream)));
    let codes = pair.side.close(probe)?;
    probe.holds("local unbind, destroy, deregister work", codes.iter().all(|code| *code == 0));
    let fresh = probe.stream()?;
    probe.acl("wait for another stream", 0, pair::wait(probe, fresh)?);
    Ok(())
}

fn dead_peer_over_hccs(probe: &mut Probe) -> Answer {
    dead_peer(probe, Reach::Near, TRANSFER_LIMIT_MS, 507_057)
}

fn dead_peer_over_roce(probe: &mut Probe) -> Answer {
    dead_peer(probe, Reach::Far, 1_000, 507_046)
}
