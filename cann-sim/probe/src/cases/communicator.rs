//! Registration, communicators, preparation, and the checks of a call.

use std::ptr;
use std::time::Instant;

use cann_sys::{COMM_MEM_TYPE_DEVICE, HcclMemDesc, HcclOneSideOpDesc};

use super::cases;
use crate::case::Answer;
use crate::pair::{self, Pair, Peer, Side, bytes, communicator_name, make_communicator, prepare, register};
use crate::probe::{HUGE_PAGE, Probe, SIZE, at, hccl, step};
use crate::table::{self, Reach};

cases! {
    registration, "2.4.2, 2.4.3", "How are double, overlapping and bound registrations answered?";
    names_and_ranks, "2.4.1, 3",
        "Is a communicator's name unique per device, and must the table match the device?";
    connect_timeout_bounds, "8.12",
        "Is HCCL_CONNECT_TIMEOUT below 120 s refused at init?", "HCCL_CONNECT_TIMEOUT" = "60";
    prepare_alone, "8.12", "Does a preparation of one second without a peer answer E_TIMEOUT, and when?";
    unprepared_calls, "8.7",
        "What does a call on an unprepared communicator answer, with and without descriptors?";
    calls_are_checked_in_order, "2.4.5, 8.7",
        "How are stream, count, rank, type and ranges of a call checked?";
    an_error_leaves_what_was_before_it, "2.4.5", "Are the descriptors before a wrong one carried out?";
    alignment_on_hccs, "2.4.4, 2.6", "Is device memory that is not 2 MiB-aligned refused at prepare with 15?";
    host_memory_on_hccs, "2.4.4", "Is host memory on HCCS bound without error and then not reachable?";
    memory_bound_later, "2.4.4", "Is memory bound after prepare out of reach?";
    older_family, "2.4.7, 8.1", "How does HcclRegisterMem check its arguments, where a release has it?";
    different_link_choices, "2.5", "Do two sides with different HCCL_INTRA_ROCE_ENABLE time out?";
}

fn registration(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let memory = probe.device_memory(SIZE)?;
    let (device, size) = (COMM_MEM_TYPE_DEVICE, u64::try_from(SIZE).unwrap_or(0));
    probe.hccl("address NULL", 1, register(probe, device, 0, size)?.0);
    probe.hccl("size 0", 1, register(probe, device, memory, 0)?.0);
    probe.hccl("NULL", 2, hccl!(probe, HcclRegisterGlobalMem(ptr::null(), ptr::null_mut())));
    let (code, handle) = register(probe, device, memory, size)?;
    probe.hccl("a range", 0, code);
    let (code, again) = register(probe, device, memory, size)?;
    probe.hccl("the same range again", 0, code);
    probe.holds("it has the same handle", again == handle);
    probe.hccl("an overlapping range", 1, register(probe, device, memory + HUGE_PAGE, size)?.0);
    let table = table::of_two(probe, Reach::Near)?;
    let (code, communicator) = make_communicator(probe, &table, 0, &communicator_name(probe))?;
    crate::probe::need("HcclCommInitClusterInfoMemConfig", code)?;
    probe.hccl("bind", 0, hccl!(probe, HcclCommBindMem(communicator, handle)));
    probe.hccl("bind again", 1, hccl!(probe, HcclCommBindMem(communicator, handle)));
    probe.hccl("deregister while bound", 1, hccl!(probe, HcclDeregisterGlobalMem(handle)));
    probe.hccl("destroy while memory is bound", 1, hccl!(probe, HcclCommDestroy(communicator)));
    probe.hccl("unbind", 0, hccl!(probe, HcclCommUnbindMem(communicator, handle)));
    probe.hccl("unbind again", 1, hccl!(probe, HcclCommUnbindMem(communicator, handle)));
    probe.hccl("destroy", 0, hccl!(probe, HcclCommDestroy(communicator)));
    probe.hccl("deregister", 0, hccl!(probe, HcclDeregisterGlobalMem(handle)));
    probe.hccl("deregister again (not counted)", 1, hccl!(probe, HcclDeregisterGlobalMem(handle)));
    Ok(())
}

fn names_and_ranks(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let table = table::of_two(probe, Reach::Near)?;
    let name = communicator_name(probe);
    let (code, communicator) = make_communicator(probe, &table, 0, &name)?;
    probe.hccl("a communicator", 0, code);
    probe.hccl("the same name", 1, make_communicator(probe, &table, 0, &name)?.0);
    probe.hccl("destroy", 0, hccl!(probe, HcclCommDestroy(communicator)));
    let (code, communicator) = make_communicator(probe, &table, 0, &name)?;
    probe.hccl("the same name after destroy", 0, code);
    probe.hccl("destroy again", 0, hccl!(probe, HcclCommDestroy(communicator)));
    probe.hccl("no name", 1, make_communicator(probe, &table, 0, "")?.0);
    probe.hccl("the other rank (another device's)", 1, make_communicator(probe, &table, 1, "x")?.0);
    probe.hccl("a table that is no JSON", 1, make_communicator(probe, "{", 0, "x")?.0);
    probe.hccl("destroy of NULL", 2, hccl!(probe, HcclCommDestroy(ptr::null_mut())));
    Ok(())
}

fn connect_timeout_bounds(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let table = table::of_two(probe, Reach::Near)?;
    probe.hccl("init with 60 s", 1, make_communicator(probe, &table, 0, &communicator_name(probe))?.0);
    Ok(())
}

fn prepare_alone(probe: &mut Probe) -> Answer {
    let table = table::of_two(probe, Reach::Near)?;
    let mut side = Side::open(probe, 0, &table, &communicator_name(probe), false)?;
    let start = Instant::now();
    probe.hccl("prepare of 1 s", 9, prepare(probe, side.communicator, 1)?);
    let took = start.elapsed();
    probe.measured("it took ms", took.as_millis());
    probe.holds("at least the time given", took.as_millis() >= 950);
    probe.hccl("prepare of -2 s", 1, prepare(probe, side.communicator, -2)?);
    let codes = side.close(probe)?;
    probe.holds("everything can be taken down", codes.iter().all(|code| *code == 0));
    Ok(())
}

fn unprepared_calls(probe: &mut Probe) -> Answer {
    let table = table::of_two(probe, Reach::Near)?;
    let side = Side::open(probe, 0, &table, &communicator_name(probe), false)?;
    let stream = probe.stream()?;
    let mut descriptor = [bytes(side.memory, side.memory, 64)];
    probe.hccl("one descriptor", 6, side.put(probe, &mut descriptor, stream)?);
    let pointer = descriptor.as_mut_ptr();
    let code = hccl!(probe, HcclBatchPut(side.communicator, 1, pointer, 0, stream));
    probe.hccl("no descriptor", 6, code);
    probe.acl("wait for the stream", 0, pair::wait(probe, stream)?);
    Ok(())
}

fn calls_are_checked_in_order(probe: &mut Probe) -> Answer {
    let pair = Pair::connect(probe, Reach::Near, false)?;
    let (ours, theirs) = (pair.side.memory, pair.peer.memory);
    let stream = probe.stream()?;
    let put = |descriptors: &mut [HcclOneSideOpDesc]| pair.side.put(probe, descriptors, stream);
    let mut many: Vec<HcclOneSideOpDesc> = (0..257).map(|_| bytes(ours, theirs, 64)).collect();
    let pointer = many.as_mut_ptr();
    let communicator = pair.side.communicator;
    let call = |communicator, rank, pointer, count, stream| -> Answer<i32> {
        Ok(hccl!(probe, HcclBatchPut(communicator, rank, pointer, count, stream)))
    };
    let null = ptr::null_mut();
    probe.hccl("communicator NULL", 2, call(null, 1, pointer, 1, stream)?);
    probe.hccl("stream NULL", 2, call(communicator, 1, pointer, 1, null)?);
    probe.hccl("descriptors NULL", 2, call(communicator, 1, ptr::null_mut(), 1, stream)?);
    probe.hccl("rank that is not in the table", 1, call(communicator, 2, pointer, 1, stream)?);
    probe.hccl("own rank", 1, call(communicator, 0, pointer, 1, stream)?);
    probe.hccl("no descriptor, prepared", 0, call(communicator, 1, pointer, 0, stream)?);
    probe.hccl("257 descriptors", 1, put(&mut many)?);
    many.pop();
    probe.hccl("256 descriptors", 0, put(&mut many)?);
    let mut wrong = bytes(ours, theirs, 64);
    wrong.dataType = 99;
    probe.hccl("a wrong data type", 1, put(&mut [wrong])?);
    probe.hccl("count 0", 1, put(&mut [bytes(ours, theirs, 0)])?);
    probe.hccl("local NULL", 1, put(&mut [bytes(0, theirs, 64)])?);
    probe.hccl("past the remote region", 4, put(&mut [bytes(ours, theirs + SIZE - 63, 64)])?);
    probe.hccl("past the local region", 4, put(&mut [bytes(ours + SIZE - 63, theirs, 64)])?);
    probe.acl("wait for the stream", 0, pair::wait(probe, stream)?);
    probe.hccl("prepare once more", 0, prepare(probe, communicator, 1)?);
    pair.close(probe)
}

fn an_error_leaves_what_was_before_it(probe: &mut Probe) -> Answer {
    let mut pair = Pair::connect(probe, Reach::Near, false)?;
    let stream = probe.stream()?;
    let (ours, theirs) = (pair.side.memory, pair.peer.memory);
    probe.write(ours, &[0xee; 64])?;
    let mut descriptors =
        [bytes(ours, theirs, 64), bytes(ours, theirs + 64, 64), bytes(ours, theirs + SIZE, 64)];
    probe.hccl("two good descriptors, one wrong", 4, pair.side.put(probe, &mut descriptors, stream)?);
    probe.acl("wait for the stream", 0, pair::wait(probe, stream)?);
    let seen = pair.peer.bytes("device", 0, 192)?;
    probe.value(
        "bytes of the first two that arrived",
        128,
        seen.iter().take(128).filter(|byte| **byte == 0xee).count(),
    );
    pair.close(probe)
}

/// The code of preparing with one region while a peer with good memory prepares too: on hardware the link
/// comes before the memory is looked at, so that without a peer the answer would be a timeout.
fn prepare_with(probe: &Probe, address: usize, size: usize) -> Answer<i32> {
    let table = table::of_two(probe, Reach::Near)?;
    let name = format!("{}-{address:x}-{size:x}", communicator_name(probe));
    let mut peer = Peer::start(probe, "late", &[&table, &name], &[])?;
    let (code, communicator) = make_communicator(probe, &table, 0, &name)?;
    crate::probe::need("HcclCommInitClusterInfoMemConfig", code)?;
    let (code, handle) = register(probe, COMM_MEM_TYPE_DEVICE, address, u64::try_from(size).unwrap_or(0))?;
    crate::probe::need("HcclRegisterGlobalMem", code)?;
    step!(probe, hccl HcclCommBindMem(communicator, handle));
    peer.answer()?; // its preparation begins now
    let code = prepare(probe, communicator, 10)?;
    step!(probe, hccl HcclCommUnbindMem(communicator, handle));
    step!(probe, hccl HcclCommDestroy(communicator));
    step!(probe, hccl HcclDeregisterGlobalMem(handle));
    Ok(code)
}

fn alignment_on_hccs(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let large = probe.device_memory(SIZE)?;
    let small = probe.device_memory(1 << 16)?;
    probe.hccl("an address that is not 2 MiB-aligned", 15, prepare_with(probe, large + 4096, HUGE_PAGE)?);
    probe.hccl("memory of small pages", 15, prepare_with(probe, small, 1 << 16)?);
    probe.hccl("a range longer than the allocation", 15, prepare_with(probe, large, 16 * SIZE)?);
    probe.hccl("aligned memory", 0, prepare_with(probe, large, SIZE)?);
    // Inferred: memory is shared by whole pages, so what is left of the last one may be registered.
    let odd = probe.device_memory(SIZE - HUGE_PAGE / 2)?;
    probe.hccl("an odd length, to the end of its last page", 0, prepare_with(probe, odd, SIZE)?);
    probe.hccl("and past it", 15, prepare_with(probe, odd, SIZE + 4096)?);
    Ok(())
}

fn host_memory_on_hccs(probe: &mut Probe) -> Answer {
    if probe.is_a3()? {
        probe.measured("chip", "A3: its HCCS takes local host memory; only the remote side is asked");
    }
    let pair = Pair::connect(probe, Reach::Near, true)?;
    let stream = probe.stream()?;
    let mut descriptor = [bytes(pair.side.memory, pair.peer.host, 64)];
    probe.hccl("get from the peer's host memory", 4, pair.side.get(probe, &mut descriptor, stream)?);
    let mut descriptor = [bytes(pair.side.memory, pair.peer.memory, 64)];
    probe.hccl("get from its device memory", 0, pair.side.get(probe, &mut descriptor, stream)?);
    probe.acl("wait for the stream", 0, pair::wait(probe, stream)?);
    pair.close(probe)
}

fn memory_bound_later(probe: &mut Probe) -> Answer {
    let mut pair = Pair::connect(probe, Reach::Near, false)?;
    let stream = probe.stream()?;
    let late = probe.device_memory(SIZE)?;
    let (code, handle) = register(probe, COMM_MEM_TYPE_DEVICE, late, u64::try_from(SIZE).unwrap_or(0))?;
    crate::probe::need("HcclRegisterGlobalMem", code)?;
    probe.hccl("bind after prepare", 0, hccl!(probe, HcclCommBindMem(pair.side.communicator, handle)));
    pair.side.handles.push(handle);
    let mut descriptor = [bytes(late, pair.peer.memory, 64)];
    probe.hccl("put from it", 4, pair.side.put(probe, &mut descriptor, stream)?);
    pair::wait(probe, stream)?;
    pair.close(probe)
}

fn older_family(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let memory = probe.device_memory(SIZE)?;
    let table = table::of_two(probe, Reach::Near)?;
    let (code, communicator) = make_communicator(probe, &table, 0, &communicator_name(probe))?;
    crate::probe::need("HcclCommInitClusterInfoMemConfig", code)?;
    let mut description = HcclMemDesc { desc: [0; 512] };
    let mut register = |rank: u32, kind: i32, size: usize| -> Answer<i32> {
        let (address, size) = (at(memory), u64::try_from(size).unwrap_or(0));
        Ok(hccl!(probe, HcclRegisterMem(communicator, rank, kind, address, size, &raw mut description)))
    };
    probe.hccl("size 0", 1, register(1, COMM_MEM_TYPE_DEVICE, 0)?);
    probe.hccl("type 2", 1, register(1, 2, SIZE)?);
    probe.hccl("more than 64 GiB of device memory", 1, register(1, COMM_MEM_TYPE_DEVICE, (64 << 30) + 1)?);
    probe.hccl("own rank", 0, register(0, COMM_MEM_TYPE_DEVICE, SIZE)?);
    let code = hccl!(probe, HcclRegisterMem(ptr::null_mut(), 1, 0, at(memory), 64, ptr::null_mut()));
    probe.hccl("NULL", 2, code);
    step!(probe, hccl HcclCommDestroy(communicator));
    Ok(())
}

fn different_link_choices(probe: &mut Probe) -> Answer {
    let table = table::of_two(probe, Reach::Far)?; // the addresses that RoCE needs are in it
    let table = table.replace("10.0.0.8", "10.0.0.7");
    let table = merge_servers(&table);
    let name = communicator_name(probe);
    let mut peer = Peer::start(probe, "late", &[&table, &name], &[("HCCL_INTRA_ROCE_ENABLE", "1")])?;
    let side = Side::open(probe, 0, &table, &name, false)?;
    peer.answer()?; // its preparation begins now
    probe.hccl("our preparation of 2 s", 9, prepare(probe, side.communicator, 2)?);
    let theirs = peer.answer()?.parse().unwrap_or(-1);
    probe.hccl("the peer's, with the variable", 9, theirs);
    Ok(())
}

/// Two entries of one server become one entry with both devices.
fn merge_servers(table: &str) -> String {
    table
        .replace("]},{\"server_id\":\"10.0.0.7\",\"device\":[", ",")
        .replace("\"server_count\":\"2\"", "\"server_count\":\"1\"")
}
