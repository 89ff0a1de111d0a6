//! The vendor's side of a channel: context, stream, events and communicator, all owned by one worker thread.
//!
//! Invariants: every method runs on the thread that made the session; what is bound is unbound, and what is described
//! forgotten, before the communicator is destroyed; a session that failed half-way gives back what it had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::described::Described;
use super::device::{BoundContext, Device};
use super::family::Family;
use super::raw::{Communicator, Event, Runtime, Stream, Wait};
use super::registration::Binding;
use super::result::INIT_UNAVAILABLE;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;

/// Calls of the vendor's that may be in flight on one channel.
pub const WINDOW: usize = 8;

/// Pause after the first init that the vendor refused as unavailable; doubled each time.
const INIT_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two such inits.
const INIT_PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// Inits of one process must not overlap: the vendor does not support it.
static INIT: Mutex<()> = Mutex::new(());

/// What both sides agreed on.
pub struct Agreement {
    /// The communicator's name, the same on both sides.
    pub name: String,
    /// The rank table, the same on both sides.
    pub table: String,
    /// This side's rank; the other is `1 - rank`.
    pub rank: u32,
    /// By which calls memory is shown to the other side.
    pub family: Family,
    /// The peer's regions that the link takes.
    pub remote: Vec<ByteRange>,
}

/// Settings of the vendor's connection.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// RoCE traffic class.
    pub traffic_class: Option<u32>,
    /// RoCE service level.
    pub service_level: Option<u32>,
}

/// A stream with events of its own, in a context of its own.
pub struct Lane {
    runtime: Arc<Runtime>,
    stream: Option<Stream>,
    events: Vec<Event>,
    // Last, so that it outlives what was made in it.
    _context: BoundContext,
}

impl Lane {
    /// Makes context, stream and events, and binds this thread to them.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn new(device: &Device) -> Result<Self> {
        let runtime = Arc::clone(device.runtime());
        let context = BoundContext::new(&runtime, device.id())?;
        let mut lane = Self { runtime, stream: None, events: Vec::with_capacity(WINDOW), _context: context };
        let stream = lane.runtime.create_stream()?;
        lane.stream = Some(stream);
        // A failing task must stop the stream: an event behind a task that was skipped would look like success.
        lane.runtime.stop_stream_on_failure(stream)?;
        for _ in 0..WINDOW {
            let event = lane.runtime.create_event()?;
            lane.events.push(event);
        }
        Ok(lane)
    }

    /// The stream.
    ///
    /// # Errors
    /// [`Code::Internal`] after `abandon`.
    pub fn stream(&self) -> Result<Stream> {
        self.stream.ok_or_else(|| Error::new(Code::Internal, Stage::Execute, "the stream is gone"))
    }

    /// One of the [`WINDOW`] events.
    ///
    /// # Errors
    /// [`Code::Internal`] for another index.
    pub fn event(&self, index: usize) -> Result<Event> {
        self.events
            .get(index)
            .copied()
            .ok_or_else(|| Error::new(Code::Internal, Stage::Execute, "no such event"))
    }

    /// The vendor's functions.
    #[must_use]
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Asks the vendor to drop what is on the stream.
    pub fn abort(&self) {
        let Some(stream) = self.stream else { return };
        if let Err(error) = self.runtime.abort_stream(stream) {
            log::warn!("{error}");
        }
    }

    /// Whether nothing of the stream runs any more, after at most `slice_ms`. A stream that reports a failure has
    /// stopped.
    #[must_use]
    pub fn quiet_within(&self, slice_ms: i32) -> bool {
        let Some(stream) = self.stream else { return true };
        !matches!(self.runtime.synchronize_stream(stream, slice_ms), Ok(Wait::Pending))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        for event in self.events.drain(..) {
            if let Err(error) = self.runtime.destroy_event(event) {
                log::debug!("{error}");
            }
        }
        if let Some(stream) = self.stream.take()
            && let Err(error) = self.runtime.destroy_stream_force(stream)
        {
            log::debug!("{error}");
        }
    }
}

/// A connected channel.
pub struct Session {
    communicator: Option<Communicator>,
    bound: usize,
    described: Described,
    binding: Binding,
    remote_rank: u32,
    lane: Lane,
}

impl Session {
    /// Makes the communicator and connects it; blocks until the peer does the same, at most until `deadline`.
    ///
    /// `stop` is asked between the vendor's calls; an answer ends the attempt with it. `meet` waits for the other side
    /// before the call in which both meet.
    ///
    /// # Errors
    /// What the vendor says, or the answer of `stop` or `meet`.
    pub fn connect(
        device: &Device,
        agreement: &Agreement,
        binding: Binding,
        tuning: Tuning,
        deadline: Deadline,
        stop: &dyn Fn() -> Option<Error>,
        meet: &dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        let lane = Lane::new(device)?;
        let mut session = Self {
            communicator: None,
            bound: 0,
            described: Described::default(),
            binding,
            remote_rank: 1_u32.saturating_sub(agreement.rank),
            lane,
        };
        let runtime = Arc::clone(session.lane.runtime());
        let communicator = create(&runtime, agreement, tuning, deadline, stop)?;
        session.communicator = Some(communicator);
        session.show(agreement, communicator)?;
        if let Some(error) = stop() {
            return Err(error);
        }
        meet()?;
        if let Some(error) = stop() {
            return Err(error);
        }
        let seconds = i32::try_from(deadline.remaining().as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        match agreement.family {
            Family::PerDevice => runtime.prepare(communicator, seconds)?,
            Family::PerCommunicator => {
                let rank = session.remote_rank;
                session.described.exchange(&runtime, communicator, rank, &agreement.remote, seconds)?;
            }
        }
        Ok(session)
    }

    /// Gives the communicator this side's memory.
    fn show(&mut self, agreement: &Agreement, communicator: Communicator) -> Result<()> {
        let (runtime, regions) = (self.lane.runtime(), self.binding.regions());
        if agreement.family == Family::PerCommunicator {
            return self.described.register(runtime, communicator, self.remote_rank, regions);
        }
        for region in regions {
            if let Some(handle) = region.handle {
                runtime
                    .bind_region(communicator, handle)
                    .map_err(|error| error.range(region.range.start(), region.range.length_bytes()))?;
            }
            self.bound = self.bound.saturating_add(1);
        }
        Ok(())
    }

    /// The stream and its events.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The communicator.
    ///
    /// # Errors
    /// [`Code::Internal`] after [`disconnect`](Self::disconnect).
    pub fn communicator(&self) -> Result<Communicator> {
        self.communicator
            .ok_or_else(|| Error::new(Code::Internal, Stage::Execute, "the communicator is gone"))
    }

    /// The other rank.
    #[must_use]
    pub fn remote_rank(&self) -> u32 {
        self.remote_rank
    }

    /// Unbinds and destroys the communicator; what its network queue still held is dropped with it.
    pub fn disconnect(&mut self) {
        let Some(communicator) = self.communicator.take() else { return };
        let runtime = self.lane.runtime();
        self.described.end(runtime, communicator);
        for handle in self.binding.regions().iter().take(self.bound).filter_map(|region| region.handle) {
            if let Err(error) = runtime.unbind_region(communicator, handle) {
                log::warn!("{error}");
            }
        }
        self.bound = 0;
        if let Err(error) = runtime.destroy_communicator(communicator) {
            log::warn!("{error}");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// Init, again while the vendor says that it cannot just now.
fn create(
    runtime: &Runtime,
    agreement: &Agreement,
    tuning: Tuning,
    deadline: Deadline,
    stop: &dyn Fn() -> Option<Error>,
) -> Result<Communicator> {
    let mut pause = INIT_PAUSE;
    loop {
        if let Some(error) = stop() {
            return Err(error);
        }
        let turn = INIT.try_lock_until(deadline.at()).ok_or_else(|| {
            Error::new(
                Code::Timeout,
                Stage::Connect,
                "another channel of this process is being made for too long",
            )
        })?;
        let made = runtime.create_communicator(
            &agreement.name,
            &agreement.table,
            agreement.rank,
            tuning.traffic_class,
            tuning.service_level,
        );
        drop(turn);
        let error = match made {
            Ok(communicator) => return Ok(communicator),
            Err(error) => error,
        };
        let unavailable =
            error.record().vendor.as_ref().is_some_and(|vendor| vendor.code == INIT_UNAVAILABLE);
        let again = Instant::now().checked_add(pause).is_some_and(|at| at < deadline.at());
        if !unavailable || !again {
            return Err(error);
        }
        log::debug!("{error}; again in {} ms", pause.as_millis());
        std::thread::sleep(pause);
        pause = pause.saturating_mul(2).min(INIT_PAUSE_LIMIT);
    }
}
