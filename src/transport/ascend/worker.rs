//! The thread of a channel that is ready: submits, completes, drains, ends.
//!
//! Invariants: only this thread calls the vendor for the channel; a request is failed only when nothing of it runs
//! any more; a wait for the vendor is cut into slices, so that a deadline, a cancel and the loss of the peer are
//! seen within [`SLICE`].

use std::sync::Arc;
use std::time::Duration;

use super::channel::{Channel, Close, Order};
use super::direct::{Arrival, Cursor, Pipeline};
use super::print::Line;
use super::rank::Link;
use super::raw::Wait;
use super::session::Session;
use crate::config::Config;
use crate::control::Message;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Stage};
use crate::plan::{Allowed, Choice, Group, Route as Chosen, Side, Slots, choose};
use crate::transport::{Request, Route};

/// Longest uninterrupted wait for the vendor.
const SLICE: Duration = Duration::from_millis(50);

/// How long what is in flight may end by itself, after a deadline or a cancel, before the stream is aborted.
const SOFT_DRAIN: Duration = Duration::from_millis(200);

/// How long a retired channel waits for the peer's transfers to end.
const LINGER: Duration = Duration::from_secs(10);

/// How a channel ended.
pub struct Ending {
    /// Requests that another channel may still do.
    pub returned: Vec<Arc<Request>>,
    /// Why, unless it was retired.
    pub failure: Option<Error>,
}

/// What broke the loop.
enum Break {
    /// Told to finish, and nothing is in flight.
    Finished,
    /// A request must stop and does not by itself; the others are not to blame.
    Overdue,
    /// The peer or the engine is gone.
    Stopped(Error),
    /// The vendor failed; of the requests in flight none is known to have arrived.
    Failed(Error),
    /// One call was refused; what was submitted before is fine.
    Refused(Error),
}

struct Worker<'a> {
    channel: &'a Arc<Channel>,
    session: Session,
    config: &'a Config,
    pipeline: Pipeline,
    current: Option<Cursor>,
    arrivals: Vec<Arrival>,
}

/// Runs a channel until it ends; answers what it leaves behind, when everything of it is quiet and given back.
pub fn run(channel: &Arc<Channel>, session: Session, config: &Config) -> Ending {
    let mut worker =
        Worker { channel, session, config, pipeline: Pipeline::new(), current: None, arrivals: Vec::new() };
    let broken = worker.transfer();
    let ending = worker.wind_up(broken);
    let closing = Message::CloseChannel { channel: channel.name().to_owned() };
    if let Err(error) = channel.connection().send(closing) {
        log::debug!("{error}");
    }
    if ending.failure.is_none() {
        channel.wait_peer(Deadline::after(LINGER));
    }
    drop(worker);
    channel.end();
    ending
}

impl Worker<'_> {
    fn transfer(&mut self) -> Break {
        let mut finishing = false;
        loop {
            let idle = self.pipeline.is_empty() && self.current.is_none();
            if finishing && self.pipeline.is_empty() {
                return Break::Finished;
            }
            let wants = self.current.is_none() && self.pipeline.has_room();
            match self.channel.next(idle, wants) {
                Order::Start(request) => {
                    if log::log_enabled!(log::Level::Debug) {
                        log::debug!("{}", modelled(self.channel, &request));
                    }
                    self.current = Some(Cursor::new(request));
                }
                Order::Nothing => {}
                Order::Finish => finishing = true,
                Order::Stop(error) => return Break::Stopped(error),
            }
            if self.drop_overdue() && !self.drain_softly() {
                return Break::Overdue;
            }
            if let Some(cursor) = self.current.as_mut().filter(|_| !finishing && self.pipeline.has_room()) {
                let reach = self.channel.reach();
                match self.pipeline.submit(&self.session, &reach, cursor) {
                    Ok(()) if cursor.at_end() => self.current = None,
                    Ok(()) => {}
                    // Found before the vendor was called: memory that was withdrawn while the request waited.
                    Err(error) if error.code() == Code::AddressNotRegistered => {
                        if let Some(broken) = self.fail_current(&error) {
                            return broken;
                        }
                    }
                    Err(error) => return Break::Refused(error),
                }
            }
            if let Err(error) = self.complete(finishing) {
                return Break::Failed(error);
            }
        }
    }

    /// Fails the request at hand, once what was submitted of it has ended.
    fn fail_current(&mut self, error: &Error) -> Option<Break> {
        while !self.pipeline.is_empty() {
            if self.drop_overdue() && !self.drain_softly() {
                return Some(Break::Overdue);
            }
            if let Err(failure) = self.complete(true) {
                return Some(Break::Failed(failure));
            }
        }
        if let Some(cursor) = self.current.take() {
            cursor.request().fail(error);
            self.channel.settle(cursor.request());
        }
        None
    }

    /// Finishes what is over; waits when there is nothing better to do.
    fn complete(&mut self, finishing: bool) -> Result<(), Error> {
        // With more to submit there is no time to wait: launches of one request pass while another one's bytes do.
        let more = self.current.is_some() || self.channel.has_next();
        let busy = more && !finishing && self.pipeline.has_room();
        let result = if busy || self.pipeline.is_empty() {
            self.pipeline.harvest(&self.session, &mut self.arrivals)
        } else {
            self.pipeline.wait_oldest(&self.session, self.slice_ms(), &mut self.arrivals).map(drop)
        };
        self.report();
        let limit = self.config.ascend_transfer_timeout;
        if result.is_ok() && self.pipeline.oldest_waits() > limit {
            return Err(Error::new(
                Code::Timeout,
                Stage::Execute,
                format!("a call of the vendor's that moves data did not end in {} ms", limit.as_millis()),
            )
            .advice("look at both devices with npu-smi info; ASCEND_TRANSFER_TIMEOUT changes the limit"));
        }
        result
    }

    /// Fails requests that must stop and have nothing in flight. Whether others must stop, too.
    fn drop_overdue(&mut self) -> bool {
        let in_flight = self.pipeline.requests().any(|request| request.is_overdue());
        if let Some(cursor) = &self.current {
            let request = cursor.request();
            if let Some(error) = request.must_stop(Stage::Execute, "the transfer was stopped") {
                if self.pipeline.requests().any(|other| Arc::ptr_eq(other, request)) {
                    return true;
                }
                request.fail(&error);
                self.channel.settle(request);
                self.current = None;
            }
        }
        in_flight
    }

    /// Gives what must stop a moment to end by itself, with nothing new submitted. Whether it did.
    fn drain_softly(&mut self) -> bool {
        let deadline = Deadline::after(SOFT_DRAIN.min(self.config.drain_grace));
        while self.pipeline.requests().any(|request| request.is_overdue()) {
            if deadline.expired() {
                return false;
            }
            let slice_ms = milliseconds(deadline.remaining().min(SLICE));
            if self.pipeline.wait_oldest(&self.session, slice_ms, &mut self.arrivals).is_err() {
                return false;
            }
        }
        self.report();
        // What was only partly handed over is quiet now.
        if let Some(cursor) = self.current.take() {
            match cursor.request().must_stop(Stage::Execute, "the transfer was stopped") {
                Some(error) => {
                    cursor.request().fail(&error);
                    self.channel.settle(cursor.request());
                }
                None => self.current = Some(cursor),
            }
        }
        true
    }

    /// Makes everything quiet and sorts the requests: arrived, failed, or for another channel.
    fn wind_up(&mut self, broken: Break) -> Ending {
        // Closed first: a request that came after the queue was emptied would be lost.
        self.channel.close(Close::Retire);
        let mut returned = self.channel.drain_queue();
        let (failure, to_blame) = match broken {
            Break::Finished => (None, None),
            Break::Overdue => {
                self.abort();
                (Some(stopped(self.channel, "a transfer on it had to be stopped")), None)
            }
            Break::Stopped(error) => {
                if !self.pipeline.is_empty() {
                    self.abort();
                }
                (Some(error.clone()), Some(error))
            }
            Break::Failed(error) => {
                self.abort();
                (Some(error.clone()), Some(error))
            }
            Break::Refused(error) => {
                // What went before it is sound, unless the stream had stopped by then, or does not end.
                let lane = self.session.lane();
                let waited = lane
                    .stream()
                    .and_then(|stream| lane.runtime().synchronize_stream(stream, milliseconds(SOFT_DRAIN)));
                match waited {
                    Ok(Wait::Done) => {
                        self.pipeline.land_all(&mut self.arrivals);
                        self.report();
                        (Some(error.clone()), Some(error))
                    }
                    Ok(Wait::Pending) => {
                        self.abort();
                        (Some(error.clone()), Some(error))
                    }
                    Err(cause) => {
                        self.abort();
                        (Some(cause.clone()), Some(cause))
                    }
                }
            }
        };
        let mut left = self.pipeline.ground();
        if let Some(cursor) = self.current.take()
            && !left.iter().any(|request| Arc::ptr_eq(request, cursor.request()))
        {
            left.push(Arc::clone(cursor.request()));
        }
        for request in left {
            let overdue =
                request.must_stop(Stage::Execute, "the transfer was stopped and its stream aborted");
            match overdue.as_ref().or(to_blame.as_ref()) {
                Some(error) => request.fail(error),
                None => returned.push(Arc::clone(&request)),
            }
            self.channel.settle(&request);
        }
        Ending { returned, failure }
    }

    /// Stops the stream and waits until it is quiet, for ever if need be: nobody may reuse the memory before.
    fn abort(&mut self) {
        // What has arrived is known by its events; after the abort they tell nothing.
        if let Err(error) = self.pipeline.harvest(&self.session, &mut self.arrivals) {
            log::debug!("{error}");
        }
        self.report();
        self.session.lane().abort();
        if self.channel.link() == Link::Roce {
            // Work requests that the network card has already are not stopped by aborting the stream; without the
            // queue pair they are. Unverified on hardware.
            self.session.disconnect();
        }
        // The watch over all channels tells the waiters when this takes longer than the grace time.
        while !self.session.lane().quiet_within(milliseconds(SLICE)) {}
    }

    /// Lets go of arrived requests, with a line each when asked for.
    fn report(&mut self) {
        for arrival in self.arrivals.drain(..) {
            self.channel.settle(&arrival.request);
            // A slot's way over the wire is a part of a staged transfer.
            if self.config.ascend_print && arrival.request.job().route != Route::Wire {
                let (request, total) = (&arrival.request, arrival.request.accepted().elapsed());
                let line = Line {
                    request,
                    route: Chosen::Direct,
                    link: self.channel.link().name(),
                    planning: total.saturating_sub(arrival.executing),
                    submitting: Some(arrival.submitting),
                    executing: arrival.executing,
                    modelled_us: Some(modelled(self.channel, request).chosen_us),
                };
                log::info!("{line}");
            }
        }
    }

    /// Up to the next deadline in flight, at most [`SLICE`].
    fn slice_ms(&self) -> i32 {
        let next = self.pipeline.requests().map(|request| request.deadline().remaining()).min();
        milliseconds(next.unwrap_or(SLICE).min(SLICE))
    }
}

fn stopped(channel: &Channel, why: &str) -> Error {
    Error::new(Code::Endpoint, Stage::Drain, format!("channel {} was given up: {why}", channel.name()))
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// What the table of costs says about a request on its own.
fn modelled(channel: &Channel, request: &Request) -> Choice {
    let side = |is_host| if is_host { Side::Host } else { Side::Device };
    let group = Group {
        extents: request.extents(),
        direction: request.direction(),
        local: side(request.job().local_device.is_none()),
        remote: side(request.job().remote_device.is_none()),
    };
    choose(channel.costs(), &Slots { slot_bytes: 0, count: 0 }, &group, Allowed::Direct)
}
