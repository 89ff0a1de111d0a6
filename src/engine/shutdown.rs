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
        self.end_entry();
        // In time of their own: what peers and the metadata service used up is not taken from who still moves memory.
        let deadline = Deadline::after(CLOSE_GRACE);
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
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::time::Instant;

    use crate::batch::{Batch, Submission};
    use crate::config::Config;
    use crate::engine::{Engine, EngineOptions};
    use crate::error::Code;

    const LONG: Duration = Duration::from_secs(30);

    fn engine() -> Arc<Engine> {
        engine_at("P2PHANDSHAKE")
    }

    fn engine_at(metadata: &str) -> Arc<Engine> {
        Engine::new(EngineOptions {
            metadata: metadata.into(),
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

    /// A metadata service that knows nothing and takes everything, until it is silent.
    #[derive(Default)]
    struct Service {
        silent: AtomicBool,
        /// Requests that had no answer until the engine gave them up.
        given_up: AtomicUsize,
    }

    impl Service {
        fn start() -> (Arc<Self>, String) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let uri = format!("http://{}/metadata", listener.local_addr().unwrap());
            let service = Arc::<Self>::default();
            let serving = Arc::clone(&service);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let serving = Arc::clone(&serving);
                    std::thread::spawn(move || serving.serve(stream));
                }
            });
            (service, uri)
        }

        fn serve(&self, mut stream: TcpStream) -> Option<()> {
            let mut reader = BufReader::new(stream.try_clone().ok()?);
            loop {
                let (mut head, mut length) = (String::new(), 0);
                while !head.ends_with("\r\n\r\n") {
                    reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
                }
                for line in head.to_lowercase().lines() {
                    length = line
                        .strip_prefix("content-length:")
                        .map_or(length, |text| text.trim().parse().unwrap());
                }
                reader.read_exact(&mut vec![0; length]).ok()?;
                if self.silent.load(Ordering::Acquire) {
                    let _gone = reader.read(&mut [0]);
                    self.given_up.fetch_add(1, Ordering::AcqRel);
                    return None;
                }
                let status = if head.starts_with("GET") { "404 Not Found" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).ok()?;
            }
        }
    }

    #[test]
    fn what_a_silent_metadata_service_costs_is_not_taken_from_who_moves_memory() {
        let (service, uri) = Service::start();
        let owner = engine_at(&uri);
        let memory = vec![0_u8; 4096];
        let start = memory.as_ptr().expose_provenance() as u64;
        owner.register(start, 4096, "*").unwrap();
        let batch = Arc::new(Batch::new(1).unwrap());
        let submission = Submission::start(&batch, [4096], Deadline::after(LONG)).unwrap();
        let pin = process::pin(ByteRange::new(start, 4096).unwrap(), &batch).unwrap();
        service.silent.store(true, Ordering::Release);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let begun = Instant::now();
                // A look at whose the entry is, and a removal.
                while service.given_up.load(Ordering::Acquire) < 2 {
                    assert!(begun.elapsed() < LONG, "the service is not asked");
                    std::thread::sleep(POLL);
                }
                // A tenth of what it has; to see the test fail, not to see it pass.
                std::thread::sleep(CLOSE_GRACE / 10);
                assert!(!submission.cancelled(), "the time was used up");
                drop(pin);
            });
            owner.close();
        });
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
