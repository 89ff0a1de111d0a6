//! The end of an engine: everything is quiet, or said not to be, before its owner may free the memory.
//!
//! In this order: nothing new starts, of ours or of anybody else; peers are asked to stop, as for a withdrawal; the
//! transports end; transfers of other engines of the process that move this engine's memory are given a moment, then
//! stopped; what other engines have registered of the memory with the vendor goes back. Every step is bounded, and
//! what is not quiet in the end is named in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{CLOSE_GRACE, Shared, process};
use crate::batch::Stop;
use crate::deadline::Deadline;
use crate::memory::{ByteRange, MemoryKind};
use crate::registry::Region;
use crate::transport::tcp::Tcp;

/// How often the end looks whether what is under way is over.
const POLL: Duration = Duration::from_millis(1);
/// Ranges that are named in the log when their memory is still in use.
const MAX_NAMED: usize = 8;

impl Shared {
    /// Ends the engine; a second call does nothing.
    pub(super) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) || self.pid != std::process::id() {
            return;
        }
        drop(std::mem::take(&mut *self.periodic.lock()));
        self.huge_pages.stop(Deadline::after(CLOSE_GRACE));
        process::leave(&self.incarnation);
        let deadline = Deadline::after(CLOSE_GRACE);
        // Notes of finished batches and refused submissions leave first; then nothing new can start.
        let peers: Vec<_> = self.peers.write().drain().map(|(_, peer)| peer).collect();
        for peer in &peers {
            if !peer.worker().close(deadline) {
                log::warn!("closing while work for {} does not end", peer.name());
            }
        }
        for batch in self.batches.clear() {
            batch.stop(Stop::Cancelled);
        }
        let regions = self.registry.close();
        let ranges: Vec<ByteRange> = regions.iter().map(|region| region.range()).collect();
        if let Some(listener) = self.listener.lock().take() {
            listener.shutdown();
        }
        if let Err(error) = self.withdraw_at_peers(&ranges, deadline) {
            log::warn!("closing engine {} while a peer uses its memory: {error}", self.name);
        }
        for region in regions.iter().filter(|region| region.kind() == MemoryKind::Host) {
            if let Err(error) = self.close_at_peers(region, deadline) {
                log::error!("closing engine {}: its memory must not be freed: {error}", self.name);
            }
        }
        // In time of its own: a peer that used up the rest must not leave the entry of an engine that is gone.
        self.end_entry(Deadline::after(CLOSE_GRACE));
        self.end_transports(deadline);
        self.part_from_process(&regions, &ranges, deadline);
        if let Some(control) = self.control.get() {
            control.shutdown();
        }
        self.boards.shutdown();
    }

    fn end_transports(&self, deadline: Deadline) {
        let told = |outcome: crate::error::Result<()>| {
            if let Err(error) = outcome {
                log::warn!("closing engine {}: {error}", self.name);
            }
        };
        told(self.bouncer.shutdown(deadline));
        self.tcp.get().into_iter().for_each(Tcp::shutdown);
        told(self.host_memory.shutdown(deadline));
        told(self.local.shutdown(deadline));
        if let Some(ascend) = self.npu.take() {
            told(ascend.shutdown(Deadline::after(CLOSE_GRACE)));
        }
    }

    /// Waits until no engine of the process moves this engine's memory, and has back what they hold of it.
    fn part_from_process(&self, regions: &[Arc<Region>], ranges: &[ByteRange], deadline: Deadline) {
        let mut used = still_used(regions, deadline);
        if !used.is_empty() {
            self.guests.stop();
            used = still_used(&used, Deadline::after(self.config.drain_grace));
        }
        if !used.is_empty() {
            let named: Vec<String> =
                used.iter().take(MAX_NAMED).map(|region| region.range().to_string()).collect();
            log::error!(
                "engine {} is closed, but transfers that could not be made quiet still use its memory in {} ranges \
                 ({}): free it only when they are over",
                self.name,
                used.len(),
                named.join(", ")
            );
        }
        let back = Deadline::after(CLOSE_GRACE);
        for engine in process::all() {
            engine.call_in(ranges, back);
        }
    }
}

/// Waits for the regions' pins to go; gives those that still have one at the deadline.
fn still_used(regions: &[Arc<Region>], deadline: Deadline) -> Vec<Arc<Region>> {
    loop {
        let used: Vec<_> = regions.iter().filter(|region| region.in_flight() > 0).cloned().collect();
        if used.is_empty() || deadline.expired() {
            return used;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    use crate::batch::{Batch, Submission};
    use crate::config::Config;
    use crate::engine::{Engine, EngineOptions};
    use crate::error::Code;

    const LONG: Duration = Duration::from_secs(30);

    fn engine() -> Arc<Engine> {
        Engine::new(EngineOptions {
            metadata: "P2PHANDSHAKE".into(),
            local_name: "127.0.0.1".into(),
            device: None,
            auto_discover: false,
            config: Config::default(),
        })
        .unwrap()
    }

    #[test]
    fn the_end_stops_a_batch_of_another_engine_and_waits_until_it_has_let_go() {
        let owner = engine();
        let memory = vec![0_u8; 4096];
        let start = memory.as_ptr().expose_provenance() as u64;
        owner.register(start, 4096, "*").unwrap();
        let batch = Arc::new(Batch::new(1).unwrap());
        let submission = Submission::start(&batch, [4096], Deadline::after(LONG)).unwrap();
        let range = ByteRange::new(start, 4096).unwrap();
        let pin = process::pin(range, &batch).unwrap();
        let region = Arc::clone(pin.region());
        let transport = std::thread::spawn(move || {
            let begun = Instant::now();
            while !submission.cancelled() {
                assert!(begun.elapsed() < LONG, "nobody stopped the batch");
                std::thread::sleep(POLL);
            }
            drop(pin);
        });
        owner.close();
        assert_eq!(region.in_flight(), 0, "the engine ended while its memory was in use");
        transport.join().unwrap();
        assert!(process::pin(range, &batch).is_none(), "an engine that has ended gives no pins");
        let again = owner.shared.registry.reserve(&[]).map(drop).unwrap_err();
        assert_eq!(again.code(), Code::StaleHandle);
    }

    #[test]
    fn the_end_is_bounded_when_nobody_lets_go() {
        let owner = engine();
        let memory = vec![0_u8; 4096];
        let start = memory.as_ptr().expose_provenance() as u64;
        owner.register(start, 4096, "*").unwrap();
        let batch = Arc::new(Batch::new(1).unwrap());
        let pin = process::pin(ByteRange::new(start, 4096).unwrap(), &batch).unwrap();
        let begun = Instant::now();
        owner.close();
        assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
        assert_eq!(pin.region().in_flight(), 1);
    }
}
