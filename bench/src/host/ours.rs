//! This engine, by one of its routes; its target is a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use mooncake::config::Config;
use mooncake::engine::{Direction, Engine, EngineOptions, Request};

use super::contender::Contender;
use super::{Cell, Measured, drive, processor_time_of};
use crate::console::tell;
use crate::host::BUFFER_BYTES;

/// Makes an engine for one side; with `huge_pages` it puts registered memory together.
///
/// # Errors
/// When it cannot be made.
pub fn engine(force_tcp: bool, huge_pages: bool) -> Result<Arc<Engine>> {
    let config = Config { force_tcp, huge_pages, ..Config::default() };
    Ok(Engine::new(EngineOptions {
        metadata: "P2PHANDSHAKE".into(),
        local_name: "127.0.0.1".into(),
        device: None,
        auto_discover: false,
        config,
    })?)
}

/// The engine's initiator.
pub struct Ours {
    name: &'static str,
    engine: Arc<Engine>,
    segment: i32,
    local: u64,
    remote: u64,
    target: u32,
}

impl Ours {
    /// An initiator, by an engine, for the target `segment` with its buffer at `remote`, in process `target`.
    ///
    /// # Errors
    /// When the target cannot be opened.
    pub fn new(
        name: &'static str,
        engine: Arc<Engine>,
        segment: &str,
        remote: u64,
        target: u32,
        local: u64,
    ) -> Result<Self> {
        engine.register(local, BUFFER_BYTES, "cpu:0")?;
        let segment = engine.open_segment(segment, true)?;
        Ok(Self { name, engine, segment, local, remote, target })
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, cell: &Cell, limit: Duration) -> Result<Measured> {
        let failed = AtomicBool::new(false);
        let pids = [std::process::id(), self.target];
        let before: Duration = pids.iter().map(|pid| processor_time_of(*pid)).sum();
        let direction = if cell.write { Direction::Write } else { Direction::Read };
        let (calls, elapsed) = drive(cell, limit, |thread, number| {
            let requests: Vec<Request> = cell
                .blocks(thread, number)
                .map(|(here, there)| Request {
                    direction,
                    local: self.local + here,
                    segment: self.segment,
                    remote: self.remote + there,
                    length_bytes: cell.block_bytes,
                })
                .collect();
            if let Err(failure) = self.engine.transfer(&requests, None, None) {
                tell(format!("{}: {}", self.name, failure.error));
                failed.store(true, Ordering::Relaxed);
            }
        });
        let after: Duration = pids.iter().map(|pid| processor_time_of(*pid)).sum();
        if failed.into_inner() {
            bail!("a transfer of {} failed", self.name);
        }
        Ok(Measured { calls, elapsed, processor: after.saturating_sub(before) })
    }
}

/// Processor time of the calling thread.
#[must_use]
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
