//! Memory of the peer: on devices and of the host, filled and compared by a pattern.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cann_sys::LoadOptions;
use mooncake::config::Config;
use mooncake::memory::{HugePages, SharedMemory};
use mooncake::transport::ascend::Runtime;
use mooncake::transport::ascend::raw::{Context, CopyKind};

/// How long a fault of the engine's may keep the test from its own context.
const CONTEXT_LIMIT: Duration = Duration::from_secs(10);

/// Allocations by address.
pub struct Memory {
    runtime: Option<Arc<Runtime>>,
    /// The device of an address.
    devices: Mutex<BTreeMap<u64, i32>>,
    hosts: Mutex<BTreeMap<u64, Box<[u64]>>>,
    /// Host memory of which the kernel has given what was written only.
    pools: Mutex<BTreeMap<u64, SharedMemory>>,
}

impl Memory {
    /// Binds the calling thread to `device`, as an application's framework does.
    pub fn open(device: Option<i32>, config: &Config) -> Self {
        let runtime = device.map(|device| {
            let path = config.cann_path.clone().expect("the test says where the software NPU is");
            let runtime = Runtime::load(&LoadOptions::only(path)).unwrap();
            // It stays current on this thread.
            let context = runtime.create_context(device).unwrap();
            runtime.set_current_context(context).unwrap();
            runtime
        });
        Self { runtime, devices: Mutex::default(), hosts: Mutex::default(), pools: Mutex::default() }
    }

    /// The vendor's functions.
    pub fn runtime(&self) -> &Arc<Runtime> {
        self.runtime.as_ref().expect("the program was started with a device")
    }

    /// Device memory.
    pub fn allocate(&self, device: i32, length_bytes: u64) -> u64 {
        let address = self.on(device, || self.runtime().allocate_device(length_bytes).unwrap());
        self.devices.lock().unwrap().insert(address, device);
        address
    }

    /// Gives device memory back.
    pub fn release(&self, address: u64) {
        let device = self.devices.lock().unwrap().remove(&address).expect("an address of ours");
        self.on(device, || self.runtime().free_device(address).unwrap());
    }

    /// Host memory.
    pub fn host(&self, length_bytes: u64) -> u64 {
        let words = vec![0_u64; usize::try_from(length_bytes.div_ceil(8)).unwrap()].into_boxed_slice();
        let address = words.as_ptr().expose_provenance() as u64;
        self.hosts.lock().unwrap().insert(address, words);
        address
    }

    /// Host memory that may be longer than the machine's, as long as little of it is written.
    pub fn pool(&self, length_bytes: u64) -> u64 {
        let memory = SharedMemory::allocate(length_bytes, HugePages::No).unwrap();
        let address = memory.address();
        self.pools.lock().unwrap().insert(address, memory);
        address
    }

    /// The pool that holds the range, and where in it that begins.
    fn pool_of(&self, address: u64, length_bytes: u64) -> Option<(SharedMemory, u64)> {
        let pools = self.pools.lock().unwrap();
        let (start, memory) = pools.range(..=address).next_back()?;
        let offset = address - start;
        (offset + length_bytes <= memory.length_bytes()).then(|| (memory.clone(), offset))
    }

    /// Writes the pattern of `seed`.
    pub fn fill(&self, address: u64, length_bytes: u64, seed: u64) {
        let words = pattern(length_bytes, seed);
        if let Some((pool, offset)) = self.pool_of(address, length_bytes) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            return pool.write(offset, &bytes).unwrap();
        }
        if self.on_host(address, length_bytes, |target| target.copy_from_slice(&words)).is_some() {
            return;
        }
        let source = words.as_ptr().expose_provenance() as u64;
        self.on(self.device_of(address), || {
            self.runtime().copy(address, source, length_bytes, CopyKind::HostToDevice).unwrap();
        });
    }

    /// The bytes, as words.
    pub fn load(&self, address: u64, length_bytes: u64) -> Vec<u64> {
        if let Some((pool, offset)) = self.pool_of(address, length_bytes) {
            let mut bytes = vec![0; usize::try_from(length_bytes).unwrap()];
            pool.read(offset, &mut bytes).unwrap();
            return bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        }
        if let Some(seen) = self.on_host(address, length_bytes, |words| std::hint::black_box(words).to_vec())
        {
            return seen;
        }
        let seen = vec![0_u64; usize::try_from(length_bytes.div_ceil(8)).unwrap()];
        let target = seen.as_ptr().expose_provenance() as u64;
        self.on(self.device_of(address), || {
            self.runtime().copy(target, address, length_bytes, CopyKind::DeviceToHost).unwrap();
        });
        std::hint::black_box(seen)
    }

    /// The offset of the first byte that is not the pattern's, if there is one.
    pub fn mismatch(&self, address: u64, length_bytes: u64, seed: u64) -> Option<u64> {
        let expected = pattern(length_bytes, seed);
        let seen = self.load(address, length_bytes);
        let whole = usize::try_from(length_bytes / 8).unwrap();
        (0..whole).find(|&index| seen.get(index) != expected.get(index)).map(|index| index as u64 * 8)
    }

    /// Works on the words of host memory of ours, if the range lies in it; it starts at a word.
    fn on_host<T>(&self, address: u64, length_bytes: u64, work: impl FnOnce(&mut [u64]) -> T) -> Option<T> {
        let mut hosts = self.hosts.lock().unwrap();
        let (start, words) = hosts.range_mut(..=address).next_back()?;
        let first = usize::try_from((address - start) / 8).unwrap();
        let count = usize::try_from(length_bytes.div_ceil(8)).unwrap();
        words.get_mut(first..first + count).map(work)
    }

    /// The device of the allocation that holds the address.
    fn device_of(&self, address: u64) -> i32 {
        let devices = self.devices.lock().unwrap();
        *devices.range(..=address).next_back().expect("device memory of ours").1
    }

    /// Runs `work` with a device bound, and restores what was bound.
    pub fn on<T>(&self, device: i32, work: impl FnOnce() -> T) -> T {
        let runtime = self.runtime();
        if runtime.current_device().unwrap() == Some(device) {
            return work();
        }
        let before = runtime.current_context().unwrap();
        let context = fresh_context(runtime, device);
        runtime.set_current_context(context).unwrap();
        let result = work();
        restore(runtime, before);
        runtime.destroy_context(context).unwrap();
        result
    }
}

/// A context for the test's own work. A scripted fault that was meant for the engine may meet it.
fn fresh_context(runtime: &Runtime, device: i32) -> Context {
    let end = Instant::now() + CONTEXT_LIMIT;
    loop {
        match runtime.create_context(device) {
            Ok(context) => return context,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn restore(runtime: &Runtime, before: Option<Context>) {
    if let Some(context) = before {
        runtime.set_current_context(context).unwrap();
    }
}

/// Words of which each differs from its neighbours and from those of another seed.
fn pattern(length_bytes: u64, seed: u64) -> Vec<u64> {
    (1..=length_bytes.div_ceil(8))
        .map(|position| {
            let mixed =
                position.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 29)
        })
        .collect()
}
