//! Faults on demand, and a record of calls: what tests of an application need to see it cope.
//!
//! Rules come from `CANN_SIM_FAULTS` or, while the process runs, over its control socket
//! (`CANN_SIM_FAULT_SOCKET=1`), an abstract Unix socket named `cann-sim-fault/NAMESPACE/PID`; the command
//! `cann-sim-control` speaks to one process or to all of a namespace. A rule is
//! `NAME[/WHERE]=ACTION[@[all:]N[+]]`, several are joined by `;`:
//!
//! | name | what it is | where | actions |
//! |---|---|---|---|
//! | a function of the vendor's, such as `HcclBatchPut` | each call of it | user id of the current device | `fail`, `delay` |
//! | `transfer` | each accepted put or get, when the stream comes to it | user id of the stream's device | `fail`, `delay`, `stuck`, `late` |
//! | `copy` | each asynchronous copy of the runtime, likewise | the same | the same |
//! | `task` | each task of any kind, likewise | the same | `fail`, `delay`, `stuck`, `kill` |
//! | `link` | each put, get and prepare over a link | physical id, or `A-B` for one pair | `down`, `slow` |
//! | `memory` | device memory, as long as the rule stands | user id | `take` |
//!
//! | action | meaning |
//! |---|---|
//! | `fail:CODE` | the call, or the task on the stream, fails with that number |
//! | `delay:MS` | it takes so much longer; a task can be aborted meanwhile and then does nothing |
//! | `stuck:MS` | a task takes so much longer, and no abort stops it before it has moved its bytes |
//! | `late:MS` | the bytes land so much later even if the stream was aborted; those of a transfer do not once its communicator was destroyed: a work request that the network card has already |
//! | `kill[:CODE]` | the stream is dead: this and all later work of it fails with the number (507000 unless given), and no abort revives it |
//! | `down` | nothing passes: HCCS tasks fail with 507056, RoCE tasks get no answer, prepares time out |
//! | `slow:BYTES` | at most so many bytes a second (suffix K, M, G) |
//! | `take:BYTES` | so much memory is missing: it is neither free nor given |
//!
//! `@N` picks the Nth call only, `@N+` that and all later ones; without it all are meant. Counting starts
//! when the rule is set, in each process by itself; with `all:` it goes on over all processes of the
//! namespace that have the same rule. A missing function is made with `CANN_SIM_HIDE`, because the linker
//! asks for a symbol only once.
//!
//! Functions that answer no error number (`aclrtGetSocName`, `HcclGetErrorString` and the like) are neither
//! disturbed nor counted. A forked child keeps the rules of its parent and has no socket.
//!
//! The socket takes one line a connection and answers one: `set RULES`, `add RULES`, `clear` and `reset`
//! answer `ok`, or `error` and why; `calls` answers what was called since the start or the last `reset`, as
//! `NAME/DEVICE COUNT` joined by `;`, where the device is the one that was current before or after the call,
//! `-` for none; `log [N]` the latest calls as `MICROSECONDS NAME/DEVICE CODE`.

pub mod calls;
pub mod control;
mod rule;
mod rules;

use std::io::{self, Write as _};
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::settings::settings;
use crate::status::{Fail, Outcome};
use crate::stream::Stream;

pub use rule::Action;
use rule::Place;

/// Reads the environment, once; mistakes are told on the standard error output.
fn load() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let settings = settings();
        match rule::parse(&settings.faults) {
            Ok(parsed) => rules::replace(parsed),
            Err(why) => complain(&format!("CANN_SIM_FAULTS: {why}")),
        }
        if settings.fault_socket {
            calls::start();
            if let Err(error) = control::listen() {
                complain(&format!("no control socket: {error}"));
            }
        }
    });
}

fn complain(what: &str) {
    // As the settings do: whoever runs the process must see it.
    let _ = writeln!(io::stderr(), "cann-sim: {what}");
}

/// Runs a call of the vendor's, with its faults, and counts it.
pub fn around_call(name: &'static str, body: impl FnOnce() -> Outcome) -> Outcome {
    load();
    let running = calls::begin(name);
    let outcome = match rules::find(name, || Place::Device(calls::current_device())) {
        Some(Action::Fail(code)) => Err(Fail::new(code, format!("a scripted fault of {name}"))),
        Some(Action::Delay(time)) => {
            std::thread::sleep(time);
            body()
        }
        _ => body(),
    };
    if let Some(running) = running {
        running.end(outcome.as_ref().map_or_else(|fail| fail.code, |()| 0));
    }
    outcome
}

/// How a task on a stream goes on.
pub enum Course {
    /// As always; an abort stops it.
    Normal,
    /// It moves its bytes whatever happens.
    Unstoppable,
    /// Its bytes move after this time, beside the stream.
    Later(Duration),
    /// It was aborted before it began.
    Aborted,
}

/// What the rules of `name` do to a task that the stream comes to now.
pub fn steer(name: &str, stream: &Stream) -> Outcome<Course> {
    load();
    match rules::find(name, || Place::Device(Some(stream.device.user_id))) {
        Some(Action::Fail(code)) => Err(Fail::new(code, format!("a scripted fault of a {name}"))),
        Some(Action::Kill(code)) => {
            let fail = Fail::new(code, "a scripted fault killed the stream");
            stream.kill(fail.clone());
            Err(fail)
        }
        Some(Action::Delay(time)) if stream.hang(Instant::now().checked_add(time)) => Ok(Course::Aborted),
        Some(Action::Stuck(time)) => {
            std::thread::sleep(time);
            Ok(Course::Unstoppable)
        }
        Some(Action::Late(time)) => Ok(Course::Later(time)),
        _ => Ok(Course::Normal),
    }
}

/// Runs `land` after a time beside the stream; the stream goes on when it is done, or when it is aborted.
pub fn land_later(stream: &Stream, time: Duration, land: impl FnOnce() + Send + 'static) {
    let landing = std::thread::spawn(move || {
        std::thread::sleep(time);
        land();
    });
    if !stream.hang(Instant::now().checked_add(time)) {
        // The bytes are there before the stream says so; the landing does not panic.
        let _ = landing.join();
    }
}

/// The state of a link as the rules have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// As always.
    Good,
    /// Nothing passes.
    Down,
    /// So many bytes a second.
    Slow(u64),
}

/// The link between two physical NPUs, for a task that begins on it; counts.
pub fn at_link(one: u32, other: u32) -> LinkState {
    load();
    match rules::find("link", || Place::Link(one, other)) {
        Some(Action::Down) => LinkState::Down,
        Some(Action::Slow(bytes)) => LinkState::Slow(bytes),
        _ => LinkState::Good,
    }
}

/// Whether the link is down for everything, asked while something is under way.
pub fn link_is_down(one: u32, other: u32) -> bool {
    load();
    rules::standing("link", Place::Link(one, other), |action| action == Action::Down).is_some()
}

/// Device memory that the rules take away.
pub fn taken_bytes(user_id: u32) -> usize {
    load();
    let place = Place::Device(Some(user_id));
    match rules::standing("memory", place, |action| matches!(action, Action::Take(_))) {
        Some(Action::Take(bytes)) => usize::try_from(bytes).unwrap_or(usize::MAX),
        _ => 0,
    }
}
