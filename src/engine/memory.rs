//! Registering and withdrawing memory.

use std::sync::Arc;
use std::time::Duration;

use super::{Engine, Shared, process};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, Location, MemoryKind, SharedMemory};
use crate::registry::Region;
use crate::transport::ascend::Ascend;
use crate::transport::host::Placed;

/// How long requests of peers that are on their way keep a withdrawal waiting.
const LAST_REQUESTS_LIMIT: Duration = Duration::from_secs(1);
/// How often a registration that is taken back looks whether it is still in use.
const BUSY_POLL: Duration = Duration::from_millis(1);

impl Engine {
    /// Registers `length_bytes` at `address`; `location` is `cpu:N`, `npu:N` or `*` (found out from the address).
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for no bytes or an unknown location, [`Code::AddressOverlapped`],
    /// [`Code::Vendor`] when the vendor refuses, [`Code::Metadata`] when the metadata service does not take the news, or
    /// names another engine by this one's name; nothing is registered then. (A transfer of another thread that has
    /// used the range in that moment and does not end keeps it registered; the message says so.)
    pub fn register(&self, address: u64, length_bytes: u64, location: &str) -> Result<()> {
        self.register_batch(&[(address, length_bytes)], location)
    }

    /// Registers several ranges, all or none.
    ///
    /// # Errors
    /// As [`Engine::register`].
    pub fn register_batch(&self, buffers: &[(u64, u64)], location: &str) -> Result<()> {
        let shared = &self.shared;
        shared.check_usable()?;
        let location: Location = location.parse()?;
        let mut ranges = Vec::with_capacity(buffers.len());
        for &(address, length_bytes) in buffers {
            let range = ByteRange::new(address, length_bytes)?;
            if address == 0 || range.is_empty() {
                return Err(Error::new(
                    Code::InvalidArgument,
                    Stage::Register,
                    "a buffer needs an address and a length above 0",
                )
                .range(address, length_bytes));
            }
            let kind = shared.classify(range, location)?;
            ranges.push((range, Location::of(kind), kind));
        }
        if ranges.is_empty() {
            return Ok(());
        }
        let registration = shared.registry.reserve(&ranges)?;
        let mut undo = Undo { shared, done: Vec::new() };
        for &(range, _, kind) in &ranges {
            if let MemoryKind::Device(device) = kind {
                let ascend = shared.npu()?;
                ascend.register(range, kind, device)?;
                undo.done.push((ascend, range, device));
            }
        }
        undo.done.clear();
        for &(range, _, kind) in &ranges {
            if let Some(memory) = SharedMemory::containing(range).filter(|_| kind == MemoryKind::Host) {
                shared.shared_memory.lock().insert(range.start(), memory);
            }
        }
        let regions = registration.commit();
        shared.open_at_peers(&regions);
        for (range, ..) in ranges.iter().filter(|(.., kind)| *kind == MemoryKind::Host) {
            // Of memory of our own making it is known already what pages it has.
            if !shared.shared_memory.lock().contains_key(&range.start()) {
                shared.huge_pages.add(*range);
            }
        }
        shared
            .publish(shared.metadata_deadline())
            .map_err(|error| shared.forget_unpublished(&ranges, error))?;
        shared.observed.metrics.registrations.add(u64::try_from(ranges.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Withdraws the range that was registered at `address`: peers of ours are told and stop first.
    ///
    /// A metadata service that does not take the news is no failure: the memory is free, requests for it are refused,
    /// and the next registration or withdrawal tells the service, or the next look whether it knows the engine.
    ///
    /// # Errors
    /// [`Code::AddressNotRegistered`]; [`Code::Busy`] while transfers, ours or a peer's, use the range, which
    /// then stays registered.
    pub fn unregister(&self, address: u64) -> Result<()> {
        let shared = &self.shared;
        shared.check_usable()?;
        shared.unregister(address)?;
        shared.publish_withdrawal();
        Ok(())
    }

    /// Withdraws several ranges; goes on after an error and returns the first.
    ///
    /// # Errors
    /// As [`Engine::unregister`].
    pub fn unregister_batch(&self, addresses: &[u64]) -> Result<()> {
        let shared = &self.shared;
        shared.check_usable()?;
        let mut first = Ok(());
        for &address in addresses {
            let outcome = shared.unregister(address);
            if first.is_ok() {
                first = outcome;
            }
        }
        shared.publish_withdrawal();
        first
    }
}

/// Takes vendor registrations back when a list fails half-way.
struct Undo<'a> {
    shared: &'a Shared,
    done: Vec<(Arc<Ascend>, ByteRange, i32)>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        for (ascend, range, device) in self.done.drain(..).rev() {
            if let Err(error) = ascend.unregister(range, device, self.shared.metadata_deadline()) {
                log::warn!("{}: taking back a registration: {error}", self.shared.name);
            }
        }
    }
}

impl Shared {
    /// What memory a range is. A stated location is checked against the address where that is possible.
    fn classify(&self, range: ByteRange, location: Location) -> Result<MemoryKind> {
        match location {
            Location::Cpu(_) => Ok(MemoryKind::Host),
            Location::Npu(stated) => {
                let ascend = self.npu()?;
                match ascend.classify(range.start())? {
                    kind @ MemoryKind::Device(_) => Ok(kind),
                    MemoryKind::Host => Err(Error::new(
                        Code::InvalidArgument,
                        Stage::Register,
                        format!("the location says npu:{}, but the address is host memory", number(stated)),
                    )
                    .range(range.start(), range.length_bytes())
                    .advice("register host memory with location \"cpu:0\" or \"*\"")),
                }
            }
            // A machine without CANN has no device memory.
            Location::Any => match self.npu() {
                Ok(ascend) => ascend.classify(range.start()),
                Err(error) => {
                    log::debug!("taking {range} for host memory: {error}");
                    Ok(MemoryKind::Host)
                }
            },
        }
    }

    /// Takes back what was registered and could not be published; the error to report.
    fn forget_unpublished(&self, ranges: &[(ByteRange, Location, MemoryKind)], error: Error) -> Error {
        let until = Deadline::after(LAST_REQUESTS_LIMIT);
        let mut kept = Vec::new();
        for (range, ..) in ranges.iter().rev() {
            loop {
                match self.take_back(range.start()) {
                    Ok(()) => break,
                    Err(busy) if busy.code() == Code::Busy && !until.expired() => {
                        std::thread::sleep(BUSY_POLL);
                    }
                    Err(other) => {
                        log::warn!("{}: taking back a registration: {other}", self.name);
                        kept.push(range.to_string());
                        break;
                    }
                }
            }
        }
        if kept.is_empty() {
            return error;
        }
        let text =
            format!("{}; still registered, because in use: {}", error.record().message, kept.join(", "));
        Error::new(error.code(), error.stage(), text).advice("unregister it when its transfers are over")
    }

    /// Tells the metadata service what was withdrawn.
    fn publish_withdrawal(&self) {
        // One that closes takes all of its entry out.
        if let Err(error) = self.publish(self.metadata_deadline())
            && error.code() != Code::StaleHandle
        {
            log::warn!(
                "{}: the metadata service may still name memory that was withdrawn, requests for which are refused: \
                 {error}",
                self.name
            );
        }
    }

    fn unregister(&self, address: u64) -> Result<()> {
        let metrics = &self.observed.metrics;
        match self.take_back(address) {
            Ok(()) => metrics.unregistrations.increment(),
            Err(error) => {
                if error.code() == Code::Busy {
                    metrics.unregistrations_busy.increment();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn take_back(&self, address: u64) -> Result<()> {
        // Before the registry lets go of the range, so that no request falls between the two.
        let registered =
            ByteRange::new(address, 1).ok().and_then(|first| self.registry.find_containing(first));
        let withdrawal = registered
            .filter(|region| region.range().start() == address)
            .map(|region| self.closing.begin(region.range(), region.kind()));
        let removal = self.registry.begin_remove(address)?;
        let (range, kind) = (removal.region().range(), removal.region().kind());
        let deadline = self.metadata_deadline();
        self.withdraw_at_peers(&[range], deadline)?;
        if let Some(withdrawal) = &withdrawal {
            withdrawal.finish(deadline.sooner(Deadline::after(LAST_REQUESTS_LIMIT)))?;
        }
        if kind == MemoryKind::Host
            && let Err(error) = self.close_at_peers(removal.region(), Deadline::after(LAST_REQUESTS_LIMIT))
        {
            let region = Arc::clone(removal.region());
            drop(removal); // it stays registered
            self.open_at_peers(&[region]);
            return Err(error);
        }
        for engine in process::all() {
            engine.call_in(&[range], deadline);
        }
        if let MemoryKind::Device(device) = kind
            && let Some(ascend) = self.npu.opened()
        {
            // Nothing of ours or a peer's uses the range any more; a channel that will not end keeps only its
            // binding, which goes when the channel does.
            if let Err(error) = ascend.unregister(range, device, deadline) {
                log::warn!("{error}");
            }
        }
        self.huge_pages.withdraw(range.start());
        removal.commit();
        let memory = self.shared_memory.lock().remove(&address);
        drop(memory); // the last one unmaps, which needs no lock of ours
        Ok(())
    }

    /// Lets peers of this host use ranges.
    fn open_at_peers(&self, regions: &[Arc<Region>]) {
        self.boards.open(|| regions.iter().filter_map(|region| placed(region)).collect());
    }

    /// Lets no peer of this host use a range any more, whatever it says or does not say.
    pub(super) fn close_at_peers(&self, region: &Region, deadline: Deadline) -> Result<()> {
        let closed = Placed { place: region.place(), range: region.range() };
        self.boards.close(closed, deadline)
    }

    /// What peers of this host may use now.
    pub(super) fn placed(&self) -> Vec<Placed> {
        let (_, regions) = self.registry.snapshot();
        regions.iter().filter_map(|region| placed(region)).collect()
    }

    /// The time a metadata exchange or a withdrawal may take.
    pub(super) fn metadata_deadline(&self) -> Deadline {
        Deadline::after(self.config.handshake_connect_timeout)
    }
}

/// A range as a board has it, if a peer may use it.
fn placed(region: &Region) -> Option<Placed> {
    let usable = region.kind() == MemoryKind::Host && region.is_open();
    usable.then(|| Placed { place: region.place(), range: region.range() })
}

fn number(stated: Option<u32>) -> String {
    stated.map_or_else(|| "?".to_owned(), |number| number.to_string())
}
