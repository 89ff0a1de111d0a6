//! One client of the data listener: its requests, in order, straight from and into registered memory.
//!
//! Invariants: memory is touched only between taking a pin of the one registered region that holds the whole
//! range and dropping it; a request starts only when everything before it is decided, a write only when every
//! read before it has left, so that a client sees its own order; what is kept for a client is bounded. An idle
//! client stays for ever; one that stops in the middle of a request is closed, because it holds a pin.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::reactor::Turn;
use super::wire::{self, HEADER_BYTES, Header, STATUS_BYTES};
use super::{Hold, Served};
use crate::memory::ByteRange;
use crate::memory::io::{Receive, Send};

/// Bytes moved in one turn.
const TURN_BYTES: usize = 1 << 20;
/// Answers that wait to be sent; more requests are not looked at before some have left.
const MAX_ANSWERS: usize = 64;
/// Bytes read ahead: headers, and small writes in one go.
const AHEAD_BYTES: usize = 32 << 10;
/// Bytes of a refused client that are read and thrown away, so that it can read why.
const MAX_DISCARD_BYTES: u64 = 64 << 20;

enum Input {
    /// The next header.
    Header,
    /// The bytes of a write: where the next one goes, and how many are to come.
    Write { _hold: Hold, address: u64, left_bytes: u64, confirmed: bool },
    /// Everything that still comes is thrown away.
    Discard { left_bytes: u64, ending: bool },
}

enum Answer {
    Status { bytes: [u8; STATUS_BYTES], sent: usize },
    Memory { _hold: Hold, address: u64, left_bytes: u64 },
}

/// One client.
pub(super) struct Session {
    stream: TcpStream,
    input: Input,
    ahead: Box<[u8]>,
    ahead_start: usize,
    ahead_end: usize,
    answers: VecDeque<Answer>,
    reads_waiting: usize,
    moved_at: Instant,
    /// The client has ended its side.
    ended: bool,
    /// The last look took all there was; what comes later raises a new event.
    drained: bool,
    may_have_ended: bool,
}

/// Whether the socket had something for us.
enum Io {
    Moved(usize),
    Blocked,
    End,
}

impl Session {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Input::Header,
            ahead: vec![0; AHEAD_BYTES].into_boxed_slice(),
            ahead_start: 0,
            ahead_end: 0,
            answers: VecDeque::new(),
            reads_waiting: 0,
            moved_at: Instant::now(),
            ended: false,
            drained: false,
            may_have_ended: true,
        }
    }

    /// Whether a request is under way, so that the client owes us bytes or has to take some.
    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.input, Input::Header) || !self.answers.is_empty() || self.ahead_start < self.ahead_end
    }

    /// Whether nothing has moved for so long.
    pub(super) fn stalled(&self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.moved_at) >= limit
    }

    /// Does what can be done now. The end of a client's sending may come with its last bytes, in one event: only when
    /// nothing was said of an end (`may_have_ended`), a look that brought less than there was room for is the last.
    pub(super) fn drive(&mut self, served: &dyn Served, may_have_ended: bool) -> Turn {
        self.drained = false;
        self.may_have_ended = may_have_ended;
        match self.advance(served) {
            Ok(turn) => turn,
            Err(error) => {
                log::debug!("a data connection ended: {error}");
                Turn::Closed
            }
        }
    }

    fn advance(&mut self, served: &dyn Served) -> io::Result<Turn> {
        let mut moved_bytes = 0_usize;
        loop {
            self.decide(served);
            if moved_bytes >= TURN_BYTES {
                return Ok(Turn::More);
            }
            let mut progressed = false;
            if !self.answers.is_empty()
                && let Io::Moved(count) = self.send()?
            {
                progressed = true;
                moved_bytes = moved_bytes.saturating_add(count);
            }
            progressed |= self.start_discard();
            if self.wants_input() {
                match self.receive()? {
                    Io::Moved(count) => {
                        progressed = true;
                        moved_bytes = moved_bytes.saturating_add(count);
                    }
                    Io::Blocked => {}
                    Io::End => self.end_input(),
                }
            }
            if self.ended && self.answers.is_empty() {
                return Ok(Turn::Closed);
            }
            if !progressed {
                return Ok(Turn::Waiting);
            }
            self.moved_at = Instant::now();
        }
    }

    /// Whether nothing can be decided before more has been read.
    fn wants_input(&self) -> bool {
        !self.ended
            && !self.drained
            && match &self.input {
                Input::Header => self.ahead_end - self.ahead_start < HEADER_BYTES,
                Input::Write { .. } => true,
                Input::Discard { ending, .. } => *ending,
            }
    }

    /// The client sends no more. What it asked for before is still answered, a write cut short is not.
    fn end_input(&mut self) {
        self.ended = true;
        self.input = Input::Header;
        self.ahead_start = 0;
        self.ahead_end = 0;
    }

    /// Decides the requests that have been read, until more has to be read or sent first.
    fn decide(&mut self, served: &dyn Served) {
        loop {
            match &mut self.input {
                Input::Header => {
                    if self.answers.len() >= MAX_ANSWERS {
                        return;
                    }
                    let ahead = self.ahead.get(self.ahead_start..self.ahead_end).unwrap_or_default();
                    let Some(bytes) = ahead.first_chunk::<HEADER_BYTES>() else {
                        self.compact();
                        return;
                    };
                    let header = Header::decode(bytes);
                    if header.write && self.reads_waiting > 0 {
                        return; // the reads before it must have left
                    }
                    self.ahead_start += HEADER_BYTES;
                    self.begin(header, served);
                }
                Input::Write { address, left_bytes, confirmed, .. } => {
                    let ahead = self.ahead.get_mut(self.ahead_start..self.ahead_end).unwrap_or_default();
                    let count = usize::try_from(*left_bytes).unwrap_or(usize::MAX).min(ahead.len());
                    if let Some(bytes) = ahead.get(..count) {
                        // In range: it lies in the region that the pin holds. A failure leaves it unfilled.
                        if let Err(error) = crate::memory::io::copy_in(*address, bytes) {
                            log::error!("{error}");
                        }
                    }
                    self.ahead_start += count;
                    let count = u64::try_from(count).unwrap_or(u64::MAX);
                    *address = address.saturating_add(count);
                    *left_bytes = left_bytes.saturating_sub(count);
                    if *left_bytes > 0 {
                        self.compact();
                        return;
                    }
                    let confirmed = *confirmed;
                    self.input = Input::Header;
                    if confirmed {
                        self.answer(wire::OK);
                    }
                }
                Input::Discard { .. } => {
                    self.ahead_start = 0;
                    self.ahead_end = 0;
                    return;
                }
            }
        }
    }

    /// Moves what is left of the bytes read ahead to the front.
    fn compact(&mut self) {
        if self.ahead_start > 0 {
            self.ahead.copy_within(self.ahead_start..self.ahead_end, 0);
            self.ahead_end -= self.ahead_start;
            self.ahead_start = 0;
        }
    }

    fn begin(&mut self, header: Header, served: &dyn Served) {
        let range = ByteRange::checked(header.address, header.length_bytes).filter(|range| !range.is_empty());
        let Some(hold) = range.and_then(|range| served.pin(range)) else {
            log::warn!(
                "a data client asked for {:#x}+{}, which lies in no registered buffer",
                header.address,
                header.length_bytes
            );
            if header.confirmed {
                self.answer(wire::REJECTED);
            }
            self.input = Input::Discard { left_bytes: MAX_DISCARD_BYTES, ending: false };
            return;
        };
        let Header { address, length_bytes: left_bytes, confirmed, .. } = header;
        if header.write {
            self.input = Input::Write { _hold: hold, address, left_bytes, confirmed };
            return;
        }
        if confirmed {
            self.answer(wire::OK);
        }
        self.answers.push_back(Answer::Memory { _hold: hold, address, left_bytes });
        self.reads_waiting += 1;
    }

    fn answer(&mut self, code: u32) {
        self.answers.push_back(Answer::Status { bytes: wire::status(code), sent: 0 });
    }

    /// When a refusal has left, no more is sent; what still comes is read, so that the kernel does not answer
    /// it with a reset, which would take the refusal away from the client.
    fn start_discard(&mut self) -> bool {
        let Input::Discard { ending, .. } = &mut self.input else { return false };
        if *ending || !self.answers.is_empty() {
            return false;
        }
        *ending = true;
        // The client may be gone already; then the next read says so.
        let _ = self.stream.shutdown(Shutdown::Write);
        true
    }

    fn send(&mut self) -> io::Result<Io> {
        let mut list = Send::new();
        for answer in &self.answers {
            let room = match answer {
                Answer::Status { bytes, sent } => list.push_buffer(bytes.get(*sent..).unwrap_or_default()),
                Answer::Memory { address, left_bytes, .. } => {
                    let turn_bytes = u64::try_from(TURN_BYTES).unwrap_or(u64::MAX);
                    list.push_memory(*address, (*left_bytes).min(turn_bytes))
                        // What follows a range that is cut here must not be sent before its rest.
                        && *left_bytes <= turn_bytes
                }
            };
            if !room || list.length_bytes() >= TURN_BYTES {
                break;
            }
        }
        let count = match list.send(&self.stream) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Io::Blocked),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Io::Moved(0)),
            Err(error) => return Err(error),
        };
        let mut left = count;
        while left > 0 {
            let Some(answer) = self.answers.front_mut() else { break };
            let over = match answer {
                Answer::Status { bytes, sent } => {
                    let taken = left.min(bytes.len().saturating_sub(*sent));
                    *sent += taken;
                    left -= taken;
                    *sent == bytes.len()
                }
                Answer::Memory { address, left_bytes, .. } => {
                    let taken = u64::try_from(left).unwrap_or(u64::MAX).min(*left_bytes);
                    *address = address.saturating_add(taken);
                    *left_bytes -= taken;
                    left = left.saturating_sub(usize::try_from(taken).unwrap_or(left));
                    *left_bytes == 0
                }
            };
            if !over {
                break;
            }
            if matches!(self.answers.pop_front(), Some(Answer::Memory { .. })) {
                self.reads_waiting = self.reads_waiting.saturating_sub(1);
            }
        }
        Ok(Io::Moved(count))
    }

    fn receive(&mut self) -> io::Result<Io> {
        let mut list = Receive::new();
        let mut direct_bytes = 0;
        let mut ahead_too = true;
        if let Input::Write { address, left_bytes, .. } = &self.input {
            direct_bytes = (*left_bytes).min(u64::try_from(TURN_BYTES).unwrap_or(u64::MAX));
            list.push_memory(*address, direct_bytes);
            // The header behind it comes along, unless the range was cut.
            ahead_too = direct_bytes == *left_bytes;
        }
        if ahead_too {
            list.push_buffer(self.ahead.get_mut(self.ahead_end..).unwrap_or_default());
        }
        let list_bytes = list.length_bytes();
        let count = match list.receive(&self.stream) {
            Ok(0) => return Ok(Io::End),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Io::Blocked),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Io::Moved(0)),
            Err(error) => return Err(error),
        };
        // In a large transfer more comes while this is looked at, and a second look is cheaper than an event.
        self.drained = count < list_bytes.min(AHEAD_BYTES) && !self.may_have_ended;
        let moved_bytes = u64::try_from(count).unwrap_or(u64::MAX);
        match &mut self.input {
            Input::Write { address, left_bytes, .. } => {
                let direct_bytes = moved_bytes.min(direct_bytes);
                *address = address.saturating_add(direct_bytes);
                *left_bytes -= direct_bytes;
                self.ahead_end += count.saturating_sub(usize::try_from(direct_bytes).unwrap_or(count));
            }
            Input::Header => self.ahead_end += count,
            Input::Discard { left_bytes, .. } => {
                let Some(left) = left_bytes.checked_sub(moved_bytes) else { return Ok(Io::End) };
                *left_bytes = left;
            }
        }
        Ok(Io::Moved(count))
    }
}
