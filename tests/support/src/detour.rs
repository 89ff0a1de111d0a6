//! A way round for a TCP connection, either direction of which can be held up: a peer that reads nothing for a while
//! and then goes on, as seen from the other end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::loopback;

/// Bytes that are under way here at most, for each direction.
const PIECE_BYTES: usize = 16 << 10;

/// Rounds in which nothing has room, one behind another, a millisecond each.
const QUIET_ROUNDS: u32 = 50;

/// Longest that it may take until nothing has room.
const FILL_LIMIT: Duration = Duration::from_secs(60);

/// A direction of a [`Detour`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who connected.
    There,
    /// To who connected.
    Back,
}

#[derive(Default)]
struct Gate {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, held: bool) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(held, |held| *held));
    }
}

#[derive(Default)]
struct Shared {
    there: Gate,
    back: Gate,
    sockets: Mutex<Sockets>,
}

#[derive(Default)]
struct Sockets {
    /// Both ends, once there are any.
    open: Vec<TcpStream>,
    /// Whether there is to be no connection any more.
    stopped: bool,
}

impl Shared {
    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends until nothing more has room, not even what is short. `send` sends about so many bytes and says whether they had
/// room; whoever reads them at the other end is held up.
///
/// After each that had room the longest is tried again: the sender may just have passed another on to the system, and
/// the room for that filled with the shortest would be more messages than the other end keeps.
///
/// # Panics
/// If there is always room.
pub fn fill(send: impl Fn(usize) -> bool) {
    let until = Instant::now() + FILL_LIMIT;
    let mut refused = 0;
    while refused < QUIET_ROUNDS {
        assert!(Instant::now() < until, "there is always room for more");
        if [1 << 20, 32 << 10, 1 << 10, 0].into_iter().any(&send) {
            refused = 0;
        } else {
            refused += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Passes one connection on to a port of the loopback address. Dropping it ends the connection.
pub struct Detour {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Detour {
    /// Waits for the connection that it will pass on to `target_port`.
    ///
    /// # Panics
    /// If the machine has no port left.
    #[must_use]
    pub fn to(target_port: u16) -> Self {
        let listener = loopback::listen();
        let port = listener.local_addr().expect("a listener has an address").port();
        let shared = Arc::<Shared>::default();
        let on_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let Ok((caller, _)) = listener.accept() else { return };
            let Ok(target) = TcpStream::connect((loopback::address(), target_port)) else { return };
            pass_both(&caller, &target, &on_thread);
        });
        Self { port, shared, thread: Some(thread) }
    }

    /// Where to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Passes nothing more that way.
    pub fn hold(&self, way: Way) {
        self.gate(way).set(true);
    }

    /// Passes on what was held up, and what comes.
    pub fn let_go(&self, way: Way) {
        self.gate(way).set(false);
    }

    fn gate(&self, way: Way) -> &Gate {
        match way {
            Way::There => &self.shared.there,
            Way::Back => &self.shared.back,
        }
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        // In case that nobody has connected.
        drop(TcpStream::connect((loopback::address(), self.port)));
        {
            let mut sockets = self.shared.sockets();
            sockets.stopped = true;
            for socket in &sockets.open {
                // Fails when the connection is over already.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        self.let_go(Way::There);
        self.let_go(Way::Back);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the thread of a detour met a defect");
        }
    }
}

/// Both directions, unless the detour has ended meanwhile.
fn pass_both(caller: &TcpStream, target: &TcpStream, shared: &Shared) {
    let Ok(copies) = [caller, target].map(TcpStream::try_clone).into_iter().collect() else { return };
    {
        let mut sockets = shared.sockets();
        if sockets.stopped {
            return;
        }
        sockets.open = copies;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| pass(caller, target, &shared.there));
        pass(target, caller, &shared.back);
    });
}

/// One direction, until either end is closed.
fn pass(mut from: &TcpStream, mut to: &TcpStream, gate: &Gate) {
    let mut bytes = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        gate.pass();
        if bytes.get(..count).is_none_or(|bytes| to.write_all(bytes).is_err()) {
            break;
        }
    }
    for socket in [from, to] {
        // Fails when the connection is over already.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_no_more_is_full() {
        let room = std::cell::Cell::new((5 << 20) + 1000);
        let longest = std::cell::Cell::new(0);
        fill(|length| {
            let has_room = length > 0 && length <= room.get();
            if has_room {
                room.set(room.get() - length);
                longest.set(longest.get() + u32::from(length == 1 << 20));
            }
            has_room
        });
        assert_eq!((room.get(), longest.get()), (1000, 5));
    }

    #[test]
    fn what_is_held_up_arrives_when_it_is_let_go_and_the_other_way_stays_open() {
        let listener = loopback::listen();
        let detour = Detour::to(listener.local_addr().unwrap().port());
        let mut near = loopback::connect(detour.port());
        let (mut far, _) = listener.accept().unwrap();
        let mut byte = [0];
        detour.hold(Way::There);
        near.write_all(&[1]).unwrap();
        far.write_all(&[2]).unwrap();
        near.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [2]);
        far.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(far.read(&mut byte).is_err(), "it came through");
        far.set_read_timeout(None).unwrap();
        detour.let_go(Way::There);
        far.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [1]);
        drop(detour);
        assert_eq!(near.read(&mut byte).unwrap_or(0), 0);
    }

    #[test]
    fn what_connects_at_the_end_of_a_detour_is_not_passed_on() {
        let listener = loopback::listen();
        let near = loopback::connect(listener.local_addr().unwrap().port());
        let (far, _) = listener.accept().unwrap();
        let shared = Shared::default();
        shared.sockets().stopped = true;
        // Bytes that nobody sends would be waited for no longer than this.
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        }
        pass_both(&near, &far, &shared);
        assert!(shared.sockets().open.is_empty());
    }
}
