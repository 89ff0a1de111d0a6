//! One connection for each peer pair, whoever opens it; requests, messages, losses and ends behave as promised.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use mooncake::config::Config;
use mooncake::control::frame::MAX_BODY_BYTES;
use mooncake::control::{Connection, Control, Handler, Hello, Message, Pending};
use mooncake::deadline::Deadline;
use mooncake::endpoint::Incarnation;
use mooncake::error::{Code, Error, Result, Stage};
use mooncake_test_support::detour::{self, Detour, Way};
use mooncake_test_support::loopback;
use parking_lot::Mutex;

const LONG: Duration = Duration::from_secs(20);

fn soon() -> Deadline {
    Deadline::after(LONG)
}

/// An engine as far as control is concerned: answers, records, tells.
struct Peer {
    incarnation: Incarnation,
    control: Control,
    handler: Arc<Recorder>,
    lost: Mutex<Receiver<(Incarnation, Error)>>,
    connected: Mutex<Receiver<String>>,
    seen: Mutex<Receiver<Message>>,
}

struct Recorder {
    lost: Mutex<Sender<(Incarnation, Error)>>,
    connected: Mutex<Sender<String>>,
    seen: Mutex<Sender<Message>>,
    handled: AtomicUsize,
    hold: Mutex<()>,
}

impl Handler for Recorder {
    fn request(&self, from: &Arc<Connection>, message: Message) -> Result<Message> {
        match &message {
            Message::ChannelReady { channel } => match channel.as_str() {
                "fail" => {
                    return Err(Error::new(Code::Vendor, Stage::Execute, "scripted").device(3));
                }
                "panic" => panic!("scripted"),
                "hold" => drop(self.hold.lock()),
                // Asks back on the same connection while the first request runs.
                "nest" => return from.request(Message::Withdrawn, soon()),
                "long" => {
                    self.handled.fetch_add(1, Ordering::SeqCst);
                    return Ok(Message::CloseChannel { channel: "x".repeat(MAX_BODY_BYTES - 100) });
                }
                _ => {}
            },
            Message::CloseChannel { .. } => self.seen.lock().send(message).unwrap(),
            _ => {}
        }
        self.handled.fetch_add(1, Ordering::SeqCst);
        Ok(Message::Done)
    }

    fn connected(&self, peer: &Hello) {
        self.connected.lock().send(peer.segment.clone()).unwrap();
    }

    fn lost(&self, peer: &Incarnation, why: &Error) {
        self.lost.lock().send((peer.clone(), why.clone())).unwrap();
    }
}

fn config() -> Config {
    Config { control_port: None, rpc_port_min: 15_000, rpc_port_max: 17_000, ..Config::default() }
}

fn peer_with(config: &Config, id: Option<u128>) -> Peer {
    let mut incarnation = Incarnation::new(None).unwrap();
    incarnation.id = id.unwrap_or(incarnation.id);
    let (lost, lost_seen) = channel();
    let (connected, connections) = channel();
    let (seen, messages) = channel();
    let handler = Arc::new(Recorder {
        lost: Mutex::new(lost),
        connected: Mutex::new(connected),
        seen: Mutex::new(seen),
        handled: AtomicUsize::new(0),
        hold: Mutex::new(()),
    });
    let control = Control::start(
        config,
        incarnation.clone(),
        &format!("peer-{:x}:1", incarnation.id),
        Arc::clone(&handler) as Arc<dyn Handler>,
    )
    .unwrap();
    let (lost, connected) = (Mutex::new(lost_seen), Mutex::new(connections));
    Peer { incarnation, control, handler, lost, connected, seen: Mutex::new(messages) }
}

fn peer() -> Peer {
    peer_with(&config(), None)
}

impl Peer {
    fn connect(&self, to: &Peer) -> Result<Arc<Connection>> {
        self.control.connect(&loopback::host(), to.control.port(), &to.incarnation, soon())
    }

    fn back(&self, to: &Peer) -> Arc<Connection> {
        wait_for(|| self.control.connection(&to.incarnation))
    }

    fn next_loss(&self) -> (Incarnation, Error) {
        self.lost.lock().recv_timeout(LONG).unwrap()
    }
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = soon();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(!deadline.expired(), "did not come about");
        std::thread::yield_now();
    }
}

fn ready(channel: &str) -> Message {
    Message::ChannelReady { channel: channel.into() }
}

#[test]
fn both_ends_ask_and_answer_on_one_connection() {
    let (a, b) = (peer(), peer());
    let there = a.connect(&b).unwrap();
    let back = b.back(&a);
    assert_eq!(there.peer().connection, back.peer().connection);
    assert_eq!(back.peer().incarnation, a.incarnation);
    assert_eq!(there.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
    assert_eq!(back.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
    assert_eq!(there.request(ready("nest"), soon()).unwrap(), Message::Done);
    assert!(Arc::ptr_eq(&a.connect(&b).unwrap(), &there), "an open connection is used again");
    assert!(Arc::ptr_eq(&b.connect(&a).unwrap(), &back));
}

#[test]
fn the_peers_error_arrives_with_code_stage_and_name() {
    let (a, b) = (peer(), peer());
    let connection = a.connect(&b).unwrap();
    let error = connection.request(ready("fail"), soon()).unwrap_err();
    assert_eq!((error.code(), error.stage()), (Code::Vendor, Stage::Execute));
    assert!(error.to_string().contains("scripted") && error.to_string().contains("device 3"), "{error}");
    assert_eq!(error.record().peer.as_deref(), Some(connection.peer().segment.as_str()));
    let error = connection.request(ready("panic"), soon()).unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert_eq!(
        connection.request(Message::Withdrawn, soon()).unwrap(),
        Message::Done,
        "only that one failed"
    );
}

#[test]
fn a_request_keeps_its_deadline_and_the_connection_lives_on() {
    let (a, b) = (peer(), peer());
    let connection = a.connect(&b).unwrap();
    let held = b.handler.hold.lock();
    let before = Instant::now();
    let error = connection.request(ready("hold"), Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert_eq!(error.code(), Code::Timeout);
    assert!(before.elapsed() >= Duration::from_millis(50));
    assert_eq!(
        connection.request(Message::Withdrawn, soon()).unwrap(),
        Message::Done,
        "others are not held up"
    );
    drop(held);
    assert!(connection.is_alive());
}

#[test]
fn messages_without_answer_keep_their_order() {
    let (a, b) = (peer(), peer());
    let connection = a.connect(&b).unwrap();
    for number in 0..2000 {
        let message = Message::CloseChannel { channel: number.to_string() };
        while let Err(error) = connection.send(message.clone()) {
            assert_eq!(error.code(), Code::TooManyRequests);
        }
        // Stays below the bound of the inbox, whatever the scheduler does.
        if number % 500 == 499 {
            connection.request(Message::Withdrawn, soon()).unwrap();
        }
    }
    for number in 0..2000 {
        let message = b.seen.lock().recv_timeout(LONG).unwrap();
        assert_eq!(message, Message::CloseChannel { channel: number.to_string() });
    }
}

#[test]
fn openings_that_cross_end_in_one_connection() {
    for round in 0..100 {
        let (a, b) = (peer_with(&config(), Some(1 + round)), peer_with(&config(), Some(1000 + round)));
        let barrier = std::sync::Barrier::new(4);
        let ids: HashSet<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = [(&a, &b), (&b, &a), (&a, &b), (&b, &a)]
                .into_iter()
                .map(|(from, to)| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        let connection = from.connect(to).unwrap();
                        assert_eq!(connection.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
                        connection.peer().connection.clone()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), 1, "round {round}: {ids:?}");
        assert!(a.lost.lock().try_recv().is_err() && b.lost.lock().try_recv().is_err(), "round {round}");
    }
}

#[test]
fn another_process_at_the_address_is_told_apart() {
    let (a, b) = (peer(), peer());
    let gone = Incarnation::new(None).unwrap();
    let error = a.control.connect(&loopback::host(), b.control.port(), &gone, soon()).unwrap_err();
    assert_eq!(error.code(), Code::StaleIncarnation);
    assert!(a.connect(&b).is_ok(), "the one that is there can be reached");
}

#[test]
fn an_engine_does_not_connect_to_itself() {
    let a = peer();
    assert_eq!(a.connect(&a).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn the_end_of_a_peer_is_told_once_and_waiting_requests_learn_of_it() {
    let a = peer();
    let b = peer();
    let connection = a.connect(&b).unwrap();
    let held = b.handler.hold.lock();
    let waiting = {
        let connection = Arc::clone(&connection);
        std::thread::spawn(move || connection.request(ready("hold"), soon()))
    };
    connection.request(Message::Withdrawn, soon()).unwrap();
    // The handler of b is still held: its end must not wait for that to tell a.
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            b.control.shutdown();
            ended.store(true, Ordering::SeqCst);
        });
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Socket, "{error}");
        let (who, why) = a.next_loss();
        assert_eq!(who, b.incarnation);
        assert_eq!(why.record().peer.as_deref(), Some(connection.peer().segment.as_str()));
        assert!(why.to_string().contains("the peer's engine was closed"), "good order is no loss: {why}");
        drop(held);
    });
    assert!(ended.load(Ordering::SeqCst));
    assert!(!connection.is_alive());
    assert!(connection.send(Message::Done).is_err());
    assert!(a.control.connection(&b.incarnation).is_none());
    assert!(a.lost.lock().try_recv().is_err(), "told twice");
    assert!(b.lost.lock().try_recv().is_err(), "the one that ends is not told");
    let error = a.connect(&b).unwrap_err();
    assert_eq!(error.code(), Code::Socket, "{error}");
}

#[test]
fn a_connection_closed_here_is_lost_there_and_can_be_made_again() {
    let (a, b) = (peer(), peer());
    let first = a.connect(&b).unwrap();
    first.request(Message::Withdrawn, soon()).unwrap();
    // Whoever opens it, the other end hears of it: a peer that calls is alive.
    let opener = b.connected.lock().recv_timeout(LONG).unwrap();
    assert_eq!(opener, format!("peer-{:x}:1", a.incarnation.id));
    assert!(a.connected.lock().try_recv().is_err(), "it called itself");
    first.close();
    let (who, why) = b.next_loss();
    assert_eq!(who, a.incarnation);
    assert!(!why.to_string().contains("the peer's engine was closed"), "a cut connection is a loss: {why}");
    let second = wait_for(|| a.connect(&b).ok().filter(|second| !Arc::ptr_eq(second, &first)));
    assert_eq!(second.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
    assert!(a.lost.lock().try_recv().is_err());
}

#[test]
fn a_loss_is_told_before_the_next_connection_comes_up() {
    for _ in 0..30 {
        let (a, b) = (peer(), peer());
        let first = b.connect(&a).unwrap();
        first.request(Message::Withdrawn, soon()).unwrap();
        first.close();
        // a has to learn of the end before it takes the next; its record shows the order.
        let second = b.connect(&a).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(a.lost.lock().try_recv().unwrap().0, b.incarnation);
        second.request(Message::Withdrawn, soon()).unwrap();
    }
}

#[test]
fn many_peers_at_once() {
    let hub = peer();
    let others: Vec<Peer> = (0..24).map(|_| peer()).collect();
    std::thread::scope(|scope| {
        for other in &others {
            scope.spawn(|| {
                let connection = other.connect(&hub).unwrap();
                for _ in 0..50 {
                    assert_eq!(connection.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
                }
            });
        }
        for other in &others {
            let hub = &hub;
            scope.spawn(move || {
                let connection = hub.connect(other).unwrap();
                for _ in 0..50 {
                    assert_eq!(connection.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
                }
            });
        }
    });
    assert_eq!(hub.handler.handled.load(Ordering::SeqCst), 24 * 50);
    assert!(hub.lost.lock().try_recv().is_err());
}

#[test]
fn nothing_works_after_the_shutdown_and_a_second_one_is_no_harm() {
    let (a, b) = (peer(), peer());
    let connection = a.connect(&b).unwrap();
    a.control.shutdown();
    a.control.shutdown();
    assert_eq!(a.connect(&b).unwrap_err().code(), Code::StaleHandle);
    assert_eq!(connection.request(Message::Withdrawn, soon()).unwrap_err().code(), Code::StaleHandle);
    assert_eq!(b.next_loss().0, a.incarnation);
}

#[test]
fn idle_peers_stay_connected_beyond_the_silence_limit() {
    let quick = Config {
        control_ping_interval: Duration::from_millis(20),
        control_silence_limit: Duration::from_millis(200),
        ..config()
    };
    let (a, b) = (peer_with(&quick, None), peer_with(&quick, None));
    let connection = a.connect(&b).unwrap();
    // Told only if the pings do not keep it alive; nothing else is said meanwhile.
    let silent = a.lost.lock().recv_timeout(Duration::from_millis(600));
    assert!(silent.is_err(), "{silent:?}");
    assert_eq!(connection.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
}

#[test]
fn ipv6_works_as_ipv4_does() {
    let (a, b) = (peer(), peer());
    if std::net::TcpStream::connect(("::1", b.control.port())).is_err() {
        mooncake_test_support::skip("this machine has no IPv6 loopback");
        return;
    }
    let connection = a.control.connect("::1", b.control.port(), &b.incarnation, soon()).unwrap();
    assert_eq!(connection.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
}

/// Beside a slowed software NPU messages are slowed too: question and answer are held back once each, in order.
#[test]
fn messages_are_held_back_for_as_long_as_asked() {
    let latency = Duration::from_millis(30);
    let slow = Config { control_latency: latency, ..config() };
    let (a, b) = (peer_with(&slow, None), peer_with(&slow, None));
    let connection = a.connect(&b).unwrap();
    let start = std::time::Instant::now();
    assert_eq!(connection.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
    assert!(start.elapsed() >= 2 * latency);
    // Those that are under way together wait together.
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                assert_eq!(connection.request(Message::Withdrawn, soon()).unwrap(), Message::Done);
            });
        }
    });
    assert!(start.elapsed() >= 2 * latency);
    assert_eq!(b.handler.handled.load(Ordering::SeqCst), 51);
    // What came before the end is served before the end is told.
    drop(connection);
    a.control.shutdown();
    assert_eq!(b.next_loss().0, a.incarnation);
}

/// Sends until nothing more has room, not even what is short.
fn fill(connection: &Connection) {
    let text = |length: usize| Message::CloseChannel { channel: "x".repeat(length) };
    detour::fill(|length| connection.send(text(length)).is_ok());
}

/// Two that find nobody silent, joined by a way that can be held up.
fn joined_by_detour() -> (Peer, Peer, Detour, Arc<Connection>) {
    let patient = Config {
        control_ping_interval: Duration::from_secs(600),
        control_silence_limit: Duration::from_secs(1800),
        ..config()
    };
    let (a, b) = (peer_with(&patient, None), peer_with(&patient, None));
    let detour = Detour::to(b.control.port());
    let connection = a.control.connect(&loopback::host(), detour.port(), &b.incarnation, soon()).unwrap();
    connection.request(Message::Withdrawn, soon()).unwrap();
    (a, b, detour, connection)
}

#[test]
fn answers_have_room_when_nothing_else_has() {
    let (a, b, detour, connection) = joined_by_detour();
    detour.hold(Way::Back);
    let back = b.back(&a);
    let mut pending = Vec::new();
    let deadline = soon();
    loop {
        fill(&back);
        let before = b.handler.handled.load(Ordering::SeqCst);
        pending.extend((0..100).map(|_| connection.ask(&Message::Withdrawn).unwrap()));
        wait_for(|| (b.handler.handled.load(Ordering::SeqCst) == before + 100).then_some(()));
        // The socket may have taken more meanwhile, so that there was room for all; then it is done again.
        if let Err(error) = back.send(Message::Withdrawn) {
            assert_eq!(error.code(), Code::TooManyRequests, "{error}");
            break;
        }
        assert!(!deadline.expired(), "there is always room");
    }
    detour.let_go(Way::Back);
    for pending in pending {
        assert_eq!(pending.wait(soon()).unwrap(), Some(Message::Done), "an answer was lost");
    }
    assert!(connection.is_alive() && back.is_alive());
    wait_for(|| back.send(Message::Withdrawn).ok());
}

#[test]
fn the_longest_answer_has_room_when_nothing_else_has() {
    let (a, b, detour, connection) = joined_by_detour();
    detour.hold(Way::Back);
    let back = b.back(&a);
    fill(&back);
    let before = b.handler.handled.load(Ordering::SeqCst);
    let pending = connection.ask(&ready("long")).unwrap();
    wait_for(|| (b.handler.handled.load(Ordering::SeqCst) == before + 1).then_some(()));
    // Time for the answer to be queued; not needed to pass.
    std::thread::sleep(Duration::from_millis(200));
    assert!(back.is_alive(), "{:?}", back.ended());
    detour.let_go(Way::Back);
    let answer = pending.wait(soon()).unwrap();
    assert!(matches!(answer, Some(Message::CloseChannel { channel }) if channel.len() > MAX_BODY_BYTES / 2));
    assert!(connection.is_alive() && back.is_alive());
}

#[test]
fn a_peer_that_lets_its_answers_pile_up_is_lost() {
    let (a, b, detour, connection) = joined_by_detour();
    detour.hold(Way::Back);
    let back = b.back(&a);
    fill(&back);
    // Each is asked when those before are answered, and is so one of few that are served.
    let deadline = Deadline::after(3 * LONG);
    let mut pending: Vec<Pending> = Vec::new();
    while back.is_alive() {
        assert!(!deadline.expired(), "all answers have room");
        let before = b.handler.handled.load(Ordering::SeqCst);
        pending = connection.ask(&ready("long")).into_iter().collect();
        let answered = || b.handler.handled.load(Ordering::SeqCst) > before;
        wait_for(|| (answered() || !back.is_alive()).then_some(()));
    }
    let (who, why) = b.next_loss();
    assert_eq!((who, why.code()), (a.incarnation.clone(), Code::TooManyRequests), "{why}");
    // Who asked hears of the end, too.
    detour.let_go(Way::Back);
    assert_eq!(a.next_loss().0, b.incarnation);
    assert!(
        pending.into_iter().all(|one| !matches!(one.wait(soon()), Ok(None))),
        "somebody waits for nobody"
    );
}
