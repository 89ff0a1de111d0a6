//! Random transfers whose every byte is verified or reported failed.
//!
//! Each thread has a lane of its own in the memory of each target, so that what it wrote is what must stand there. A
//! write that succeeded is read back and compared; after one that failed the lane is read twice and must not change
//! any more. Registrations come and go meanwhile, and some batches are cancelled. What takes longer than any limit here
//! allows is told on standard error while it lasts.

use std::time::{Duration, Instant};

use mooncake::engine::{Direction, Request};
use mooncake::error::{Code, Error, Result, Stage};

use crate::Peer;
use crate::doing::{Doing, Watchdog};

/// Bytes of a lane.
pub const LANE_BYTES: u64 = 2 << 20;
/// Threads of a process.
pub const THREADS: u64 = 2;
/// Longer than one step takes by its own limits.
const LATE: Duration = Duration::from_secs(20);

/// What one thread has seen.
#[derive(Default)]
struct Tally {
    verified: u64,
    failed: u64,
    cancelled: u64,
    quiet: u64,
    registrations: u64,
}

/// A generator of numbers without a pattern that matters.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// How the blocks of one end lie at the other.
#[derive(Clone, Copy)]
enum Order {
    Same,
    Reverse,
}

struct Target {
    name: String,
    lane: u64,
}

struct Thread<'a> {
    peer: &'a Peer,
    doing: &'a Doing,
    /// What failed because its connection was lost may land until the peer sees the loss.
    may_land: bool,
    random: Random,
    source: u64,
    sink: u64,
    other: u64,
    tally: Tally,
}

/// Runs for `seconds`; with `may_land` a write that failed may be seen to land later; `targets` are `NAME=ADDRESS` of the first lane, `place` is this process's number.
pub fn run(
    peer: &Peer,
    device: i32,
    place: u64,
    seed: u64,
    seconds: u64,
    may_land: bool,
    targets: &[&str],
) -> Result<String> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let doing: Vec<Doing> = (0..THREADS).map(|_| Doing::default()).collect();
    let watchdog = Watchdog::default();
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        scope.spawn(|| watchdog.watch(peer, &doing, LATE));
        let threads: Vec<_> = (0..THREADS)
            .zip(&doing)
            .map(|(number, doing)| {
                let lane = place * THREADS + number;
                let targets: Vec<Target> = targets
                    .iter()
                    .map(|text| {
                        let (name, address) = text.rsplit_once('=').unwrap();
                        let first: u64 = address.parse().unwrap();
                        Target { name: name.to_owned(), lane: first + lane * LANE_BYTES }
                    })
                    .collect();
                scope.spawn(move || {
                    peer.memory.on(device, || {
                        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (lane + 1));
                        let mut thread = Thread::new(peer, doing, device, random, may_land)?;
                        while Instant::now() < end {
                            thread.step(&targets)?;
                        }
                        thread.settle(&targets)?;
                        thread.end()
                    })
                })
            })
            .collect();
        let joined: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        watchdog.end();
        joined.into_iter().map(|outcome| outcome.unwrap()).collect::<Result<_>>()
    })?;
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    Ok(format!(
        "{} {} {} {} {}",
        sum(|tally| tally.verified),
        sum(|tally| tally.failed),
        sum(|tally| tally.cancelled),
        sum(|tally| tally.quiet),
        sum(|tally| tally.registrations)
    ))
}

fn wrong(message: String) -> Error {
    Error::new(Code::Internal, Stage::Execute, message)
}

impl<'a> Thread<'a> {
    fn new(peer: &'a Peer, doing: &'a Doing, device: i32, random: Random, may_land: bool) -> Result<Self> {
        let place = || -> Result<u64> {
            let address = peer.memory.allocate(device, LANE_BYTES);
            register(peer, address)?;
            Ok(address)
        };
        let (source, sink) = (place()?, place()?);
        let other = peer.memory.allocate(device, LANE_BYTES);
        Ok(Self { peer, doing, may_land, random, source, sink, other, tally: Tally::default() })
    }

    fn step(&mut self, targets: &[Target]) -> Result<()> {
        let count = u64::try_from(targets.len()).unwrap();
        let target = targets.get(usize::try_from(self.random.below(count)).unwrap()).unwrap();
        let block = [64, 4096, 65_536, 1 << 20][usize::try_from(self.random.below(4)).unwrap()];
        let bytes = block * (1 + self.random.below((LANE_BYTES / block).min(512)));
        let seed = self.random.below(u64::MAX);
        // Neighbours at one end and not at the other are nothing that can be merged.
        let order = if self.random.below(2) == 0 { Order::Same } else { Order::Reverse };
        let limit = Duration::from_millis([15, 150, 4000][usize::try_from(self.random.below(3)).unwrap()]);
        self.peer.memory.fill(self.source, bytes, seed);
        let requests = self.requests(Direction::Write, self.source, target, bytes, block, order)?;
        let written = if self.random.below(8) == 0 {
            self.cancelled(&requests)
        } else {
            self.transfer(&requests, limit)
        };
        match written {
            Ok(()) => self.verify(target, bytes, block, order, seed)?,
            Err(error) => {
                expected(&error)?;
                self.tally.failed += 1;
                self.stays_quiet(target, bytes)?;
            }
        }
        if self.random.below(16) == 0 {
            self.register_anew()?;
        }
        Ok(())
    }

    fn requests(
        &self,
        direction: Direction,
        local: u64,
        target: &Target,
        bytes: u64,
        block: u64,
        order: Order,
    ) -> Result<Vec<Request>> {
        let segment = self.peer.engine.open_segment(&target.name, true)?;
        let request = |offset| Request {
            direction,
            local: local + offset,
            segment,
            remote: target.lane
                + match order {
                    Order::Same => offset,
                    Order::Reverse => bytes - block - offset,
                },
            length_bytes: block,
        };
        Ok((0..bytes / block).map(|index| request(index * block)).collect())
    }

    /// Transfers; what could not be made quiet is waited for before anybody touches the memory again.
    fn transfer(&self, requests: &[Request], limit: Duration) -> Result<()> {
        self.doing.now(format!("{} within {} ms", words(requests), limit.as_millis()));
        self.peer.engine.transfer(requests, None, Some(limit)).map_err(|failure| {
            if let Some(batch) = failure.batch {
                self.finish(batch);
            }
            failure.error
        })
    }

    fn finish(&self, batch: u64) {
        self.doing.now(format!("waiting for batch {batch} to be over"));
        let end = Instant::now() + Duration::from_secs(60);
        while self.peer.engine.free_batch(batch).is_err() {
            assert!(Instant::now() < end, "batch {batch} is never over");
            // The next look at it is what counts.
            let _ = self.peer.engine.wait(batch, Duration::from_millis(100));
        }
    }

    fn cancelled(&mut self, requests: &[Request]) -> Result<()> {
        self.doing.now(format!("{} that is cancelled", words(requests)));
        let engine = &self.peer.engine;
        let batch = engine.allocate_batch(requests.len())?;
        engine.submit(batch, requests, None, None)?;
        std::thread::sleep(Duration::from_micros(self.random.below(2000)));
        engine.cancel(batch)?;
        let outcome = engine.wait(batch, Duration::from_secs(30));
        self.finish(batch);
        self.tally.cancelled += 1;
        outcome
    }

    /// What was written stands there.
    fn verify(&mut self, target: &Target, bytes: u64, block: u64, order: Order, seed: u64) -> Result<()> {
        self.peer.memory.fill(self.sink, bytes, !seed);
        let requests = self.requests(Direction::Read, self.sink, target, bytes, block, order)?;
        match self.transfer(&requests, Duration::from_secs(4)) {
            Ok(()) => match self.peer.memory.mismatch(self.sink, bytes, seed) {
                None => self.tally.verified += 1,
                Some(_) if self.may_land => self.tally.failed += 1,
                Some(at) => {
                    return Err(wrong(format!(
                        "{}: byte {at} of {bytes} is not what was written",
                        target.name
                    )));
                }
            },
            Err(error) => {
                expected(&error)?;
                self.tally.failed += 1;
            }
        }
        Ok(())
    }

    /// After a failure nothing lands any more.
    fn stays_quiet(&mut self, target: &Target, bytes: u64) -> Result<()> {
        let requests = self.requests(Direction::Read, self.sink, target, bytes, bytes, Order::Same)?;
        if self.transfer(&requests, Duration::from_secs(4)).is_err() {
            return Ok(());
        }
        let before = self.peer.memory.load(self.sink, bytes);
        std::thread::sleep(Duration::from_millis(self.random.below(60)));
        if self.transfer(&requests, Duration::from_secs(4)).is_ok() {
            if !self.may_land && self.peer.memory.load(self.sink, bytes) != before {
                return Err(wrong(format!("{}: a write landed after it was reported failed", target.name)));
            }
            self.tally.quiet += 1;
        }
        Ok(())
    }

    /// Registrations that come and go under the transfers of the others.
    fn register_anew(&mut self) -> Result<()> {
        let engine = &self.peer.engine;
        self.doing.now(format!("registering {:x}", self.other));
        register(self.peer, self.other)?;
        for address in [self.other, self.source] {
            self.doing.now(format!("unregistering {address:x}"));
            let end = Instant::now() + Duration::from_secs(60);
            while let Err(error) = engine.unregister(address) {
                expected(&error)?;
                if Instant::now() > end {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.doing.now(format!("registering {:x}", self.source));
        register(self.peer, self.source)?;
        self.tally.registrations += 1;
        Ok(())
    }

    /// With the faults over, every target can be used again.
    fn settle(&mut self, targets: &[Target]) -> Result<()> {
        for target in targets {
            let end = Instant::now() + Duration::from_secs(40);
            let seed = self.random.below(u64::MAX);
            self.peer.memory.fill(self.source, LANE_BYTES, seed);
            let requests =
                self.requests(Direction::Write, self.source, target, LANE_BYTES, 65_536, Order::Same)?;
            let before = self.tally.verified;
            while self.tally.verified == before {
                match self.transfer(&requests, Duration::from_secs(10)) {
                    Ok(()) => self.verify(target, LANE_BYTES, 65_536, Order::Same, seed)?,
                    Err(error) if Instant::now() > end => return Err(error),
                    Err(_) => {}
                }
                if Instant::now() > end {
                    return Err(wrong(format!("{} cannot be used after the faults were over", target.name)));
                }
            }
        }
        Ok(())
    }

    fn end(self) -> Result<Tally> {
        for address in [self.source, self.sink] {
            self.doing.now(format!("unregistering {address:x} for good"));
            let end = Instant::now() + Duration::from_secs(60);
            while let Err(error) = self.peer.engine.unregister(address) {
                if error.code() != Code::Busy || Instant::now() > end {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        for address in [self.source, self.sink, self.other] {
            self.peer.memory.release(address);
        }
        self.doing.rest();
        Ok(self.tally)
    }
}

/// A batch of one direction, in words.
fn words(requests: &[Request]) -> String {
    let Some(first) = requests.first() else { return "nothing".to_owned() };
    format!(
        "{:?} of {} times {} bytes, {:x} here and {:x} in segment {}",
        first.direction,
        requests.len(),
        first.length_bytes,
        first.local,
        first.remote,
        first.segment
    )
}

/// Registers, again while faults refuse it.
fn register(peer: &Peer, address: u64) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(error) = peer.engine.register(address, LANE_BYTES, "*") {
        expected(&error)?;
        if Instant::now() > end {
            return Err(error);
        }
    }
    Ok(())
}

/// Failures that faults, limits and cancels explain; anything else ends the run.
fn expected(error: &Error) -> Result<()> {
    match error.code() {
        Code::Timeout
        | Code::Cancelled
        | Code::StillRunning
        | Code::Vendor
        | Code::Endpoint
        | Code::Memory
        | Code::Busy
        | Code::Socket
        | Code::TooManyRequests
        | Code::StaleIncarnation => Ok(()),
        _ => Err(error.clone()),
    }
}
