//! The baseline: the vendor's `HcclBatchPut` or `HcclBatchGet` in a loop, with nothing around it.
//!
//! One of the few modules of this crate with `unsafe`. Both ranks of its communicator live in this process,
//! on two devices; the passive one does nothing after the preparation, as in a transfer between processes.
//! Ranks are named as the software NPU has them: physical ids equal to the ids that `aclrtSetDevice` takes.

#![expect(unsafe_code, reason = "the vendor's functions are the baseline")]

use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use cann_sys::bindings::{
    COMM_MEM_TYPE_DEVICE, COMM_MEM_TYPE_HOST, CommMem, HCCL_DATA_TYPE_INT8, HcclComm, HcclCommConfig,
    HcclOneSideOpDesc, HcclPrepareConfig, aclrtStream,
};

use crate::device::{Memory, Npu};

/// One call takes no more.
const DESCRIPTORS_OF_A_CALL: usize = 256;
/// How long the two ranks may take to find each other.
const PREPARE_SECONDS: i32 = 30;

/// A function of HCCL that may be missing; the answer as a result.
macro_rules! hccl {
    ($npu:expr, $function:ident ( $($argument:expr),* )) => {{
        let function = $npu.cann().hccl.$function.context(concat!("this CANN has no ", stringify!($function)))?;
        // SAFETY: the vendor's function of that name; what the arguments point to outlives the call.
        match unsafe { function($($argument),*) } {
            0 => Ok(()),
            code => Err($npu.failure(stringify!($function), i32::try_from(code).unwrap_or(-1))),
        }
    }};
}

/// A function of ACL that may be missing; the answer as a result.
macro_rules! acl {
    ($npu:expr, $function:ident ( $($argument:expr),* )) => {{
        let function = $npu.cann().acl.$function.context(concat!("this CANN has no ", stringify!($function)))?;
        // SAFETY: the vendor's function of that name; what the arguments point to outlives the call.
        match unsafe { function($($argument),*) } {
            0 => Ok(()),
            code => Err($npu.failure(stringify!($function), code)),
        }
    }};
}

/// One rank with its bound regions.
struct Rank {
    npu: Arc<Npu>,
    memory: Memory,
    communicator: HcclComm,
    regions: Vec<*mut c_void>,
}

// SAFETY: both handles may be used from any thread that has bound the device, which every use does first.
unsafe impl Send for Rank {}
// SAFETY: as above; the two ranks' calls do not touch each other's handles.
unsafe impl Sync for Rank {}

impl Rank {
    /// A rank whose memory is registered and bound in `count` equal parts.
    fn new(npu: &Arc<Npu>, rank: u32, name: &str, table: &str, memory: Memory, count: u64) -> Result<Self> {
        npu.bind()?;
        let is_device = memory.location().starts_with("npu");
        let part_bytes = memory.length_bytes() / count;
        let mut regions = Vec::new();
        for part in 0..count {
            let description = CommMem {
                type_: if is_device { COMM_MEM_TYPE_DEVICE } else { COMM_MEM_TYPE_HOST },
                addr: address(memory.address() + part * part_bytes)?,
                size: part_bytes,
            };
            let mut region = null_mut();
            hccl!(npu, HcclRegisterGlobalMem(&raw const description, &raw mut region))?;
            regions.push(region);
        }
        let table = CString::new(table)?;
        let mut config = HcclCommConfig::named(name)?;
        let mut communicator: HcclComm = null_mut();
        hccl!(
            npu,
            HcclCommInitClusterInfoMemConfig(table.as_ptr(), rank, &raw mut config, &raw mut communicator)
        )?;
        for region in &regions {
            hccl!(npu, HcclCommBindMem(communicator, *region))?;
        }
        Ok(Self { npu: Arc::clone(npu), memory, communicator, regions })
    }

    fn prepare(&self) -> Result<()> {
        self.npu.bind()?;
        let config = HcclPrepareConfig::full_mesh();
        hccl!(self.npu, HcclCommPrepare(self.communicator, &raw const config, PREPARE_SECONDS))
    }

    fn end(&self) -> Result<()> {
        self.npu.bind()?;
        for region in &self.regions {
            hccl!(self.npu, HcclCommUnbindMem(self.communicator, *region))?;
        }
        hccl!(self.npu, HcclCommDestroy(self.communicator))?;
        self.regions.iter().try_for_each(|region| hccl!(self.npu, HcclDeregisterGlobalMem(*region)))
    }
}

/// What lies between the two ranks, and what the active one's memory is. By default two devices of one server and
/// one region of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The rank table puts them on two servers, which on A2 makes the link RoCE.
    pub is_far: bool,
    /// The active rank's memory is that of the host.
    pub local_is_host: bool,
    /// Regions of the active rank: equal parts of its memory, each registered and bound by itself.
    pub local_regions: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { is_far: false, local_is_host: false, local_regions: 1 }
    }
}

/// Which way the bytes go, as the active rank sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the passive rank.
    Put,
    /// From it.
    Get,
}

/// A prepared pair of ranks.
pub struct Pair {
    active: Rank,
    passive: Rank,
    stream: aclrtStream,
}

impl Pair {
    /// Connects two devices of this process, with `length_bytes` of memory on each.
    ///
    /// # Errors
    /// If the vendor refuses anything.
    pub fn connect(active: &Arc<Npu>, passive: &Arc<Npu>, shape: Shape, length_bytes: u64) -> Result<Self> {
        ensure!(active.id() != passive.id(), "a communicator needs two devices");
        let table = rank_table(active, passive, shape.is_far);
        let name = format!("mooncake-bench-bare-{}", std::process::id());
        let local = if shape.local_is_host {
            Memory::host(length_bytes)?
        } else {
            Memory::device(active, length_bytes)?
        };
        let active_rank = Rank::new(active, 0, &name, &table, local, shape.local_regions)?;
        let remote = Memory::device(passive, length_bytes)?;
        let passive_rank = Rank::new(passive, 1, &name, &table, remote, 1)?;
        // Preparation is collective: both ranks have to be in it at once.
        let (here, there) = std::thread::scope(|scope| {
            let there = scope.spawn(|| passive_rank.prepare());
            (active_rank.prepare(), there.join())
        });
        here?;
        there.map_err(|_panic| anyhow!("the passive rank panicked"))??;
        active.bind()?;
        let mut stream: aclrtStream = null_mut();
        acl!(active, aclrtCreateStream(&raw mut stream))?;
        Ok(Self { active: active_rank, passive: passive_rank, stream })
    }

    /// Puts blocks of `block_bytes` at these distances (local, remote) and waits for the last of them; returns
    /// the time it took. The descriptors are made beforehand.
    ///
    /// # Errors
    /// If the vendor refuses.
    pub fn put(&self, blocks: &[(u64, u64)], block_bytes: u64) -> Result<Duration> {
        self.transfer(Way::Put, blocks, block_bytes)
    }

    /// The same in either direction.
    ///
    /// # Errors
    /// If the vendor refuses.
    pub fn transfer(&self, way: Way, blocks: &[(u64, u64)], block_bytes: u64) -> Result<Duration> {
        self.timed(way, blocks, block_bytes, Instant::now, |start| start.elapsed())
    }

    /// The same, timed by a clock of the caller's: `start` just before the first call, `end` after the wait.
    ///
    /// # Errors
    /// If the vendor refuses.
    pub fn timed<Start, Time>(
        &self,
        way: Way,
        blocks: &[(u64, u64)],
        block_bytes: u64,
        start: impl FnOnce() -> Start,
        end: impl FnOnce(Start) -> Time,
    ) -> Result<Time> {
        let npu = &self.active.npu;
        npu.bind()?;
        let descriptor = |(local, remote): &(u64, u64)| -> Result<HcclOneSideOpDesc> {
            Ok(HcclOneSideOpDesc {
                localAddr: address(self.active.memory.address() + local)?,
                remoteAddr: address(self.passive.memory.address() + remote)?,
                count: block_bytes,
                dataType: HCCL_DATA_TYPE_INT8,
            })
        };
        let mut descriptors = blocks.iter().map(descriptor).collect::<Result<Vec<_>>>()?;
        let start = start();
        for call in descriptors.chunks_mut(DESCRIPTORS_OF_A_CALL) {
            let count = u32::try_from(call.len())?;
            let (communicator, first) = (self.active.communicator, call.as_mut_ptr());
            match way {
                Way::Put => hccl!(npu, HcclBatchPut(communicator, 1, first, count, self.stream))?,
                Way::Get => hccl!(npu, HcclBatchGet(communicator, 1, first, count, self.stream))?,
            }
        }
        acl!(npu, aclrtSynchronizeStream(self.stream))?;
        Ok(end(start))
    }

    /// Gives the active side's region its contents.
    ///
    /// # Errors
    /// If the vendor refuses.
    pub fn upload(&self, bytes: &[u8]) -> Result<()> {
        self.active.npu.bind()?;
        self.active.memory.upload(0, bytes)
    }

    /// The contents of the passive side's region.
    ///
    /// # Errors
    /// If the vendor refuses.
    pub fn download(&self) -> Result<Vec<u8>> {
        self.passive.npu.bind()?;
        let mut bytes = vec![0; usize::try_from(self.passive.memory.length_bytes())?];
        self.passive.memory.download(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Takes it down in the vendor's order.
    ///
    /// # Errors
    /// If the vendor refuses.
    pub fn end(self) -> Result<()> {
        self.active.npu.bind()?;
        acl!(self.active.npu, aclrtDestroyStream(self.stream))?;
        self.active.end()?;
        self.passive.end()
    }
}

/// The members' JSON text. Addresses are made up: the software NPU takes any.
fn rank_table(active: &Npu, passive: &Npu, is_far: bool) -> String {
    let device = |npu: &Npu, rank: u32| {
        format!(
            "{{\"device_id\":\"{}\",\"device_ip\":\"29.1.0.{}\",\"rank_id\":\"{rank}\"}}",
            npu.id(),
            rank + 1
        )
    };
    let server = |name: &str, devices: &str| format!("{{\"server_id\":\"{name}\",\"device\":[{devices}]}}");
    let (first, second) = (device(active, 0), device(passive, 1));
    let (count, servers) = if is_far {
        (2, format!("{},{}", server("bench", &first), server("bench-far", &second)))
    } else {
        (1, server("bench", &format!("{first},{second}")))
    };
    format!(
        "{{\"version\":\"1.0\",\"status\":\"completed\",\"server_count\":\"{count}\",\"server_list\":[{servers}]}}"
    )
}

fn address(value: u64) -> Result<*mut c_void> {
    Ok(std::ptr::with_exposed_provenance_mut(usize::try_from(value)?))
}
