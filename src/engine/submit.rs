//! From requests to groups of blocks: everything that needs no word from the peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dispatch::Group;
use super::drain::{first_error, wait_or_drain};
use super::observed::Observed;
use super::remote::foreign;
use super::{Engine, Request, Shared, TaskState};
use crate::batch::{Batch, BatchId, Observer, Stop, Submission, Waited};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, MemoryKind};
use crate::notify::Note;
use crate::plan::{Block, Direction, Groups};
use crate::registry::Pin;
use crate::segment::{LOCAL_SEGMENT, Segment};
use crate::transport::ascend::{Runtime, classify};

/// What a transfer that did not succeed leaves behind.
#[derive(Debug)]
pub struct TransferFailure {
    /// Why.
    pub error: Error,
    /// The batch, when something of it could not be made quiet ([`Code::StillRunning`]): wait for it again and
    /// free it.
    pub batch: Option<u64>,
}

impl From<Error> for TransferFailure {
    fn from(error: Error) -> Self {
        Self { error, batch: None }
    }
}

/// What the blocks of a group share.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    segment: i32,
    direction: Direction,
    local_device: Option<i32>,
    loose: bool,
}

impl Engine {
    /// Submits requests; returns when they are queued. Every request is a task; its number is its position over
    /// all submissions of the batch. With `note`, the peer of the first request is told once all is completed.
    ///
    /// The time limit is `timeout`, or `MC_TRANSFER_TIMEOUT`, plus one nanosecond a byte.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for an unknown segment or a note without a request, [`Code::TooManyRequests`]
    /// when the batch is full, [`Code::NotSupportedTransport`] for a segment whose published protocol is not spoken
    /// here, [`Code::StaleHandle`]. Then nothing is submitted. What is wrong with a single
    /// request is told by its task.
    pub fn submit(
        &self,
        batch: u64,
        requests: &[Request],
        note: Option<Note>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        self.shared.check_usable()?;
        let batch = self.shared.batches.get(BatchId::from_raw(batch))?;
        let started = Instant::now();
        let outcome = self.shared.submit(&batch, requests, note, timeout);
        self.shared.count_submit(&outcome, requests.len(), started);
        outcome
    }

    /// Submits requests, waits for them, and when the time is over makes quiet what it started before it
    /// returns.
    ///
    /// # Errors
    /// The first task's error; [`Code::Timeout`]; [`Code::StillRunning`] with the batch's handle when something
    /// could not be made quiet.
    pub fn transfer(
        &self,
        requests: &[Request],
        note: Option<Note>,
        timeout: Option<Duration>,
    ) -> Result<(), TransferFailure> {
        self.shared.check_usable()?;
        let id = self.allocate_batch(requests.len())?;
        let batch = self.shared.batches.get(BatchId::from_raw(id))?;
        let limit = self.shared.time_limit(requests, timeout);
        batch.expect_wait();
        // A transport drains for the grace time, and then needs a moment to say how that went.
        let grace = self.shared.config.drain_grace.saturating_mul(2);
        let outcome = self
            .submit(id, requests, note, timeout)
            .and_then(|()| wait_or_drain(&batch, Deadline::after(limit), grace, None));
        match outcome {
            Err(error) if error.code() == Code::StillRunning => {
                Err(TransferFailure { error, batch: Some(id) })
            }
            outcome => {
                self.shared.batches.abandon(BatchId::from_raw(id))?;
                self.shared.observed.metrics.batches_freed.increment();
                outcome.map_err(TransferFailure::from)
            }
        }
    }

    /// Polls one task; never blocks.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for a task that was not submitted, [`Code::StaleHandle`].
    pub fn status(&self, batch: u64, task: usize) -> Result<TaskState> {
        self.shared.check_usable()?;
        let batch = self.shared.batches.get(BatchId::from_raw(batch))?;
        let number = u32::try_from(task).map_err(|_| {
            Error::new(Code::InvalidArgument, Stage::Submit, format!("no task {task} was submitted"))
        })?;
        let (status, transferred_bytes) = batch.poll(number)?;
        Ok(TaskState { status, transferred_bytes })
    }

    /// Sleeps until all tasks of the batch are over. The transfers go on when the time is over first.
    ///
    /// # Errors
    /// The first task's error; [`Code::Timeout`]; [`Code::StillRunning`] when a transport had to give up.
    pub fn wait(&self, batch: u64, timeout: Duration) -> Result<()> {
        self.shared.check_usable()?;
        let batch = self.shared.batches.get(BatchId::from_raw(batch))?;
        match batch.wait(Deadline::after(timeout)) {
            Waited::Finished(outcome) if outcome.is_success() => Ok(()),
            Waited::Finished(_) => Err(first_error(&batch)),
            Waited::Stuck(error) => Err(error),
            Waited::Late => Err(Error::new(
                Code::Timeout,
                Stage::Execute,
                format!("the batch is not over after {} ms; it goes on", timeout.as_millis()),
            )
            .advice("wait again, or cancel the batch")),
        }
    }

    /// Asks all transfers of the batch to stop. Its tasks become terminal when they are quiet.
    ///
    /// # Errors
    /// [`Code::StaleHandle`].
    pub fn cancel(&self, batch: u64) -> Result<()> {
        self.shared.check_usable()?;
        self.shared.batches.get(BatchId::from_raw(batch))?.stop(Stop::Cancelled);
        Ok(())
    }

    /// Frees a batch whose tasks were all seen finished, by a poll or a wait.
    ///
    /// # Errors
    /// [`Code::Busy`] while that is not so, [`Code::StaleHandle`].
    pub fn free_batch(&self, batch: u64) -> Result<()> {
        self.shared.check_usable()?;
        self.shared.batches.free(BatchId::from_raw(batch))?;
        self.shared.observed.metrics.batches_freed.increment();
        Ok(())
    }

    /// Why a task failed.
    #[must_use]
    pub fn task_error(&self, batch: u64, task: usize) -> Option<Error> {
        let batch = self.shared.batches.get(BatchId::from_raw(batch)).ok()?;
        batch.error(u32::try_from(task).ok()?)
    }
}

impl Shared {
    fn time_limit(&self, requests: &[Request], timeout: Option<Duration>) -> Duration {
        let bytes = requests.iter().fold(0_u64, |sum, request| sum.saturating_add(request.length_bytes));
        timeout.unwrap_or(self.config.transfer_timeout).saturating_add(Duration::from_nanos(bytes))
    }

    fn submit(
        self: &Arc<Self>,
        batch: &Arc<Batch>,
        requests: &[Request],
        note: Option<Note>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let targets = self.targets(requests)?;
        let noted = match (note, targets.first()) {
            (Some(_), None) => {
                return Err(Error::new(
                    Code::InvalidArgument,
                    Stage::Submit,
                    "a note goes to the peer of the first request, and there is none",
                ));
            }
            (Some(note), Some(first)) => Some((note, Arc::clone(first))),
            (None, _) => None,
        };
        let deadline = Deadline::after(self.time_limit(requests, timeout));
        let lengths_bytes = requests.iter().map(|request| request.length_bytes);
        let observer: Arc<dyn Observer> = Arc::<Observed>::clone(&self.observed);
        self.observed.metrics.submissions_running.increment();
        let submission = Submission::start_observed(batch, lengths_bytes, deadline, Some(observer))
            .inspect_err(|_| self.observed.metrics.submissions_running.decrement())?;
        if let Some((note, segment)) = noted {
            self.note_when_finished(batch, segment, note);
        }
        for group in self.group(requests, &targets, &submission) {
            self.dispatch(group);
        }
        Ok(())
    }

    fn count_submit(&self, outcome: &Result<()>, requests: usize, started: Instant) {
        let metrics = &self.observed.metrics;
        metrics.submit_seconds.observe(started.elapsed());
        match outcome {
            Ok(()) => {
                metrics.submissions.increment();
                metrics.requests_submitted.add(u64::try_from(requests).unwrap_or(u64::MAX));
            }
            Err(error) => {
                metrics.submissions_refused.increment();
                metrics.failures.count(error);
            }
        }
    }

    /// The segments that the requests name, each once.
    fn targets(&self, requests: &[Request]) -> Result<Vec<Arc<Segment>>> {
        let mut targets: Vec<Arc<Segment>> = Vec::new();
        let mut last = None;
        for request in requests {
            if last == Some(request.segment) || targets.iter().any(|target| target.id == request.segment) {
                last = Some(request.segment);
                continue;
            }
            let segment = self.segment(request.segment).ok_or_else(|| {
                Error::new(
                    Code::InvalidArgument,
                    Stage::Submit,
                    format!("no segment {} is open", request.segment),
                )
                .advice("open the segment by name first")
            })?;
            let descriptor = segment.descriptor();
            if segment.id != LOCAL_SEGMENT && descriptor.ours.is_none() && descriptor.protocol != "tcp" {
                return Err(foreign(&descriptor));
            }
            last = Some(request.segment);
            targets.push(segment);
        }
        Ok(targets)
    }

    /// Sorts requests by target, direction and local device, and pins the local memory.
    fn group(
        &self,
        requests: &[Request],
        targets: &[Arc<Segment>],
        submission: &Arc<Submission>,
    ) -> Vec<Group> {
        let mut groups = Groups::new();
        let mut refused: Vec<(u32, Error)> = Vec::new();
        let mut unregistered: Vec<(&Request, Block)> = Vec::new();
        let key = |request: &Request, kind: MemoryKind, registered: bool| Key {
            segment: request.segment,
            direction: request.direction,
            local_device: kind.device(),
            loose: !registered && kind.device().is_some(),
        };
        let mut resolver = self.registry.resolver();
        for (task, request) in (0_u32..).zip(requests) {
            if request.length_bytes == 0 {
                continue;
            }
            let block = Block {
                local: request.local,
                remote: request.remote,
                length_bytes: request.length_bytes,
                task,
            };
            let range = match ByteRange::new(request.local, request.length_bytes) {
                Ok(range) => range,
                Err(error) => {
                    refused.push((task, error));
                    continue;
                }
            };
            let Some(region) = resolver.resolve(range) else {
                unregistered.push((request, block));
                continue;
            };
            groups.add(key(request, region.kind(), true), block, requests.len());
        }
        // The resolver's lock ends here; the vendor may be asked only after it.
        let mut pins = resolver.into_pins();
        for (request, block) in unregistered {
            match self.kind_of(&mut pins, &block, submission.batch()) {
                Ok((kind, registered)) => groups.add(key(request, kind, registered), block, requests.len()),
                Err(error) => refused.push((block.task, error)),
            }
        }
        for (task, error) in refused {
            submission.task_failed(task, &error);
        }
        groups
            .into_iter()
            .filter_map(|(key, blocks)| {
                let segment = targets.iter().find(|target| target.id == key.segment)?;
                Some(Group {
                    segment: Arc::clone(segment),
                    direction: key.direction,
                    local_device: key.local_device,
                    loose: key.loose,
                    blocks,
                    pins: pins.clone(),
                    submission: Arc::clone(submission),
                })
            })
            .collect()
    }

    /// What memory is that this engine has not registered, and whether some engine has. Memory of another engine of
    /// the process is pinned, once per region and call.
    fn kind_of(&self, pins: &mut Vec<Pin>, block: &Block, batch: &Arc<Batch>) -> Result<(MemoryKind, bool)> {
        let range = ByteRange::new(block.local, block.length_bytes)?;
        if let Some(pin) = pins.iter().rev().find(|pin| pin.region().range().contains(range)) {
            return Ok((pin.region().kind(), true));
        }
        if let Some(pin) = self.borrow(range, batch)? {
            let kind = pin.region().kind();
            pins.push(pin);
            return Ok((kind, true));
        }
        // The vendor's library is asked where it is open already, be it by another engine; it is not opened for this.
        let kind = match Runtime::loaded().filter(|_| !self.config.force_tcp) {
            Some(runtime) => classify(&runtime, block.local)?,
            None => MemoryKind::Host,
        };
        Ok((kind, false))
    }

    fn note_when_finished(self: &Arc<Self>, batch: &Arc<Batch>, segment: Arc<Segment>, note: Note) {
        let shared = Arc::downgrade(self);
        batch.when_finished(move |outcome| {
            let Some(shared) = shared.upgrade() else { return };
            if !outcome.is_success() {
                return;
            }
            let peer = shared.peer(&segment);
            let sender = Arc::clone(&shared);
            let queued = peer.worker().push(Box::new(move || {
                if let Err(error) = sender.send_note(&segment, &note) {
                    log::warn!("{error}");
                }
            }));
            if let Err(error) = queued {
                log::warn!("a note is lost: {error}");
            }
        });
    }
}
