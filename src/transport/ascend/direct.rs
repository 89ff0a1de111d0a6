//! Extents to vendor calls and back: at most 256 descriptors a call, several calls in flight, ends told by events.
//!
//! Invariants: descriptors go to one stream in the order of the extents, so the calls of a stream end in order, and
//! an extent has arrived when the call with its last descriptor has; no descriptor crosses the border of a region
//! on either side, because the vendor looks for one region that holds all of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::raw::{Descriptor, Wait};
use super::session::{Lane, Session, WINDOW};
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;
use crate::plan::{Border, Direction, MAX_EXTENTS_PER_CALL, Regions};
use crate::transport::Request;

/// Longest descriptor. RoCE splits at 2 GiB by itself; shorter ones make a stop prompt: 256 MiB take about 10 ms.
const DESCRIPTOR_LIMIT_BYTES: u64 = 256 << 20;

/// A call is closed when it has this much to move, for the same reason.
const CALL_LIMIT_BYTES: u64 = 256 << 20;

/// The memory a channel reaches, both sides sorted and disjoint.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Regions of this side.
    pub local: Vec<ByteRange>,
    /// Regions of the peer.
    pub remote: Vec<ByteRange>,
}

impl Reach {
    /// The first part of the request that lies in no region, with the side's name.
    #[must_use]
    pub fn uncovered(&self, request: &Request) -> Option<(&'static str, ByteRange)> {
        let (mut local, mut remote) = (Regions::new(&self.local), Regions::new(&self.remote));
        request.extents().iter().skip(request.finished()).find_map(|extent| {
            gap(&mut local, extent.local, extent.length_bytes)
                .map(|gap| ("local", gap))
                .or_else(|| gap(&mut remote, extent.remote, extent.length_bytes).map(|gap| ("remote", gap)))
        })
    }

    /// Takes ranges out of the peer's side.
    pub fn withdraw_remote(&mut self, ranges: &[ByteRange]) {
        for range in ranges {
            self.remote = self
                .remote
                .iter()
                .flat_map(|region| {
                    if !region.overlaps(*range) {
                        return [Some(*region), None];
                    }
                    let before = ByteRange::between(region.start(), range.start().max(region.start()));
                    let after = ByteRange::between(range.end().min(region.end()), region.end());
                    [before, after].map(|part| part.filter(|part| !part.is_empty()))
                })
                .flatten()
                .collect();
        }
    }
}

/// The first part of a range that a side does not reach.
fn gap(side: &mut Regions<'_>, mut address: u64, mut left_bytes: u64) -> Option<ByteRange> {
    while left_bytes > 0 {
        let Some(room_bytes) = side.room_bytes(address) else {
            return ByteRange::checked(address, left_bytes);
        };
        let step_bytes = room_bytes.min(left_bytes);
        address = address.checked_add(step_bytes)?;
        left_bytes -= step_bytes;
    }
    None
}

/// How far a request has been handed to the vendor.
pub struct Cursor {
    request: Arc<Request>,
    extent: usize,
    offset_bytes: u64,
    begun: Instant,
    submitting: Duration,
}

impl Cursor {
    /// At the first extent that has not arrived.
    #[must_use]
    pub fn new(request: Arc<Request>) -> Self {
        let extent = request.finished();
        Self { request, extent, offset_bytes: 0, begun: Instant::now(), submitting: Duration::ZERO }
    }

    /// Whose.
    #[must_use]
    pub fn request(&self) -> &Arc<Request> {
        &self.request
    }

    /// Whether everything was handed over.
    #[must_use]
    pub fn at_end(&self) -> bool {
        self.extent >= self.request.extents().len()
    }

    /// Fills `descriptors` for one call.
    fn fill(&mut self, reach: &Reach, descriptors: &mut Vec<Descriptor>) -> Result<()> {
        let (mut local, mut remote) = (Regions::new(&reach.local), Regions::new(&reach.remote));
        let mut call_bytes = 0_u64;
        while descriptors.len() < MAX_EXTENTS_PER_CALL && call_bytes < CALL_LIMIT_BYTES {
            let Some(extent) = self.request.extents().get(self.extent) else { break };
            let left_bytes = extent.length_bytes - self.offset_bytes;
            let (from, to) = (extent.local + self.offset_bytes, extent.remote + self.offset_bytes);
            let outside = |side, address| {
                Error::new(
                    Code::AddressNotRegistered,
                    Stage::Submit,
                    format!("no region of the channel holds the {side} address"),
                )
                .range(address, left_bytes)
            };
            let length_bytes = left_bytes
                .min(DESCRIPTOR_LIMIT_BYTES)
                .min(local.room_bytes(from).ok_or_else(|| outside("local", from))?)
                .min(remote.room_bytes(to).ok_or_else(|| outside("remote", to))?);
            descriptors.push(Descriptor::new(from, to, length_bytes));
            call_bytes = call_bytes.saturating_add(length_bytes);
            if length_bytes == left_bytes {
                self.extent += 1;
                self.offset_bytes = 0;
            } else {
                self.offset_bytes += length_bytes;
            }
        }
        Ok(())
    }
}

/// One call on the stream.
struct Flight {
    request: Arc<Request>,
    /// Extents before this have arrived when the call has.
    end: usize,
    event: usize,
    begun: Instant,
    submitting: Duration,
}

/// A request that has arrived completely, for the report of its batch.
pub struct Arrival {
    /// The request.
    pub request: Arc<Request>,
    /// From the first vendor call to the end.
    pub executing: Duration,
    /// In vendor calls.
    pub submitting: Duration,
}

/// The calls in flight of one channel.
pub struct Pipeline {
    flights: VecDeque<Flight>,
    descriptors: Vec<Descriptor>,
    next_event: usize,
    /// Since when the oldest call is the oldest.
    turn: Instant,
}

impl Pipeline {
    /// Nothing in flight.
    #[must_use]
    pub fn new() -> Self {
        Self {
            flights: VecDeque::with_capacity(WINDOW),
            descriptors: Vec::with_capacity(MAX_EXTENTS_PER_CALL),
            next_event: 0,
            turn: Instant::now(),
        }
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether another call may be made.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.flights.len() < WINDOW
    }

    /// How long the oldest call has been waited for; nothing when none is in flight.
    #[must_use]
    pub fn oldest_waits(&self) -> Duration {
        if self.flights.is_empty() { Duration::ZERO } else { self.turn.elapsed() }
    }

    /// The requests in flight, each once or more.
    pub fn requests(&self) -> impl Iterator<Item = &Arc<Request>> {
        self.flights.iter().map(|flight| &flight.request)
    }

    /// Makes one call for what comes next of `cursor`. On failure any part of it may be on the stream.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn submit(&mut self, session: &Session, reach: &Reach, cursor: &mut Cursor) -> Result<()> {
        self.descriptors.clear();
        cursor.fill(reach, &mut self.descriptors)?;
        let put = cursor.request.direction() == Direction::Write;
        let (lane, start) = (session.lane(), Instant::now());
        let (runtime, stream) = (lane.runtime(), lane.stream()?);
        let event = lane.event(self.next_event)?;
        let accepted = runtime
            .batch(put, session.communicator()?, session.remote_rank(), &mut self.descriptors, stream)
            .and_then(|()| runtime.record_event(event, stream));
        cause(lane, accepted)?;
        cursor.submitting = cursor.submitting.saturating_add(start.elapsed());
        if self.flights.is_empty() {
            self.turn = start;
        }
        self.flights.push_back(Flight {
            request: Arc::clone(&cursor.request),
            end: cursor.extent,
            event: self.next_event,
            begun: cursor.begun,
            submitting: cursor.submitting,
        });
        self.next_event = (self.next_event + 1) % WINDOW;
        Ok(())
    }

    /// Finishes the calls at the front that are over, without waiting.
    ///
    /// # Errors
    /// The failure of the stream.
    pub fn harvest(&mut self, session: &Session, arrivals: &mut Vec<Arrival>) -> Result<()> {
        let lane = session.lane();
        while let Some(flight) = self.flights.front() {
            match cause(lane, lane.runtime().query_event(lane.event(flight.event)?))? {
                Wait::Pending => break,
                Wait::Done => self.land(arrivals),
            }
        }
        Ok(())
    }

    /// Waits for the oldest call, at most `slice_ms`.
    ///
    /// # Errors
    /// The failure of the stream.
    pub fn wait_oldest(
        &mut self,
        session: &Session,
        slice_ms: i32,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<Wait> {
        let lane = session.lane();
        let Some(flight) = self.flights.front() else { return Ok(Wait::Done) };
        let waited = cause(lane, lane.runtime().synchronize_event(lane.event(flight.event)?, slice_ms))?;
        match waited {
            Wait::Done => self.land(arrivals),
            // A stream that has stopped never reaches the event; only the stream itself tells why.
            Wait::Pending => drop(lane.runtime().query_stream(lane.stream()?)?),
        }
        Ok(waited)
    }

    /// The stream was waited for as a whole and has no failure: everything in flight has arrived.
    pub fn land_all(&mut self, arrivals: &mut Vec<Arrival>) {
        while !self.flights.is_empty() {
            self.land(arrivals);
        }
    }

    /// Forgets what is in flight; it will not arrive. Answers the requests, each once.
    pub fn ground(&mut self) -> Vec<Arc<Request>> {
        let mut requests: Vec<Arc<Request>> = Vec::new();
        for flight in self.flights.drain(..) {
            if requests.last().is_none_or(|last| !Arc::ptr_eq(last, &flight.request)) {
                requests.push(flight.request);
            }
        }
        requests
    }

    fn land(&mut self, arrivals: &mut Vec<Arrival>) {
        let Some(flight) = self.flights.pop_front() else { return };
        self.turn = Instant::now();
        flight.request.arrived(flight.end);
        if flight.request.is_finished() {
            arrivals.push(Arrival {
                executing: flight.begun.elapsed(),
                submitting: flight.submitting,
                request: flight.request,
            });
        }
    }
}

/// A failed event, or a refused call, may tell only that the stream has stopped; the stream knows why.
fn cause<T>(lane: &Lane, result: Result<T>) -> Result<T> {
    result.or_else(|error| match lane.runtime().synchronize_stream(lane.stream()?, 1) {
        Err(cause) => Err(cause),
        Ok(_) => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, length_bytes: u64) -> ByteRange {
        ByteRange::new(start, length_bytes).unwrap()
    }

    #[test]
    fn withdrawing_cuts_regions() {
        let mut reach = Reach { local: vec![], remote: vec![range(0, 100), range(200, 100)] };
        reach.withdraw_remote(&[range(50, 200)]);
        assert_eq!(reach.remote, [range(0, 50), range(250, 50)]);
        reach.withdraw_remote(&[range(10, 10)]);
        assert_eq!(reach.remote, [range(0, 10), range(20, 30), range(250, 50)]);
        reach.withdraw_remote(&[range(0, 1000)]);
        assert!(reach.remote.is_empty());
    }

    #[test]
    fn a_gap_is_found_behind_touching_regions() {
        let sorted = [range(0, 10), range(10, 10), range(30, 10)];
        let mut side = Regions::new(&sorted);
        assert_eq!(gap(&mut side, 5, 15), None);
        assert_eq!(gap(&mut side, 5, 16), Some(range(20, 1)));
        assert_eq!(gap(&mut side, 29, 2), Some(range(29, 2)));
        assert_eq!(gap(&mut side, 30, 0), None);
    }
}
