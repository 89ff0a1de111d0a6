//! Faults on demand, and a count of calls: what tests of an application need to see it cope.
//!
//! Rules come from `CANN_SIM_FAULTS` or, while the process runs, over its control socket (`CANN_SIM_FAULT_SOCKET=1`),
//! an abstract Unix socket named `cann-sim-fault/NAMESPACE/PID`. A rule is `NAME=ACTION`, several are joined by `;`:
//!
//! | name | what it is |
//! |---|---|
//! | a function of the vendor's, such as `HcclBatchPut` | each call of it in this process |
//! | `transfer` | each accepted put or get, when the stream comes to it |
//! | `link` | every link of this process, as long as the rule stands; the action is `down` |
//!
//! | action | meaning |
//! |---|---|
//! | `fail:CODE` | the call, or the task on the stream, fails with that number |
//! | `delay:MS` | it takes so much longer; a transfer can be aborted meanwhile and then moves nothing |
//! | `stuck:MS` | a transfer takes so much longer, and no abort stops it before it has moved its bytes |
//! | `late:MS` | a transfer's bytes land so much later even if the stream was aborted, unless the communicator was destroyed: a work request that the network card has already |
//! | `down` | as if the peer's process were gone |
//!
//! `@N` after an action picks the Nth call only, `@N+` that and all later ones; without it all are meant.
//! Counting starts when the rule is set.
//!
//! The socket takes one line a connection and answers one: `set RULES`, `add RULES` and `clear` answer `ok`, or
//! `error` and why; `calls` answers what was called so far, as `NAME/DEVICE COUNT` joined by `;`, where the device is
//! the one that was current before or after the call, `-` for none.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Once};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::context;
use crate::settings::settings;
use crate::status::{Fail, Outcome};

/// Longest line the control socket takes.
const LINE_LIMIT_BYTES: u64 = 64 << 10;
/// How long the control socket waits for a client's line.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// With this number.
    Fail(i32),
    /// Later by this; an abort ends the wait.
    Delay(Duration),
    /// Later by this, and no abort helps.
    Stuck(Duration),
    /// The bytes come after this, whatever became of the stream.
    Late(Duration),
    /// The peer cannot be reached.
    Down,
}

/// One rule.
#[derive(Debug)]
struct Rule {
    name: String,
    action: Action,
    first: u64,
    last: u64,
    seen: AtomicU64,
}

impl Rule {
    fn applies(&self, name: &str) -> bool {
        self.name == name && {
            let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
            (self.first..=self.last).contains(&number)
        }
    }
}

/// Calls by name and device.
type Calls = BTreeMap<(String, Option<u32>), u64>;

static RULES: RwLock<Vec<Arc<Rule>>> = RwLock::new(Vec::new());
/// There are rules or calls are counted: what every call looks at.
static ACTIVE: AtomicBool = AtomicBool::new(false);
static COUNTING: AtomicBool = AtomicBool::new(false);
static CALLS: LazyLock<Mutex<Calls>> = LazyLock::new(Mutex::default);

/// Reads the environment, once; mistakes are told on the standard error output.
fn load() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let settings = settings();
        match parse(&settings.faults) {
            Ok(rules) => replace(rules),
            Err(why) => complain(&format!("CANN_SIM_FAULTS: {why}")),
        }
        if settings.fault_socket {
            COUNTING.store(true, Ordering::Relaxed);
            ACTIVE.store(true, Ordering::Relaxed);
            if let Err(error) = listen() {
                complain(&format!("no control socket: {error}"));
            }
        }
    });
}

fn complain(what: &str) {
    // As the settings do: whoever runs the process must see it.
    let _ = writeln!(io::stderr(), "cann-sim: {what}");
}

fn replace(rules: Vec<Rule>) {
    let any = !rules.is_empty() || COUNTING.load(Ordering::Relaxed);
    *RULES.write() = rules.into_iter().map(Arc::new).collect();
    ACTIVE.store(any, Ordering::Relaxed);
}

/// Rules as text.
fn parse(text: &str) -> Result<Vec<Rule>, String> {
    text.split(';').map(str::trim).filter(|rule| !rule.is_empty()).map(parse_rule).collect()
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let wrong = || format!("\"{text}\" is no NAME=ACTION[@N[+]]");
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (action, which) = rest.split_once('@').map_or((rest, None), |(action, which)| (action, Some(which)));
    let (first, last) = match which {
        None => (1, u64::MAX),
        Some(which) => {
            let (digits, last) =
                which.strip_suffix('+').map_or((which, None), |digits| (digits, Some(u64::MAX)));
            let first: u64 = digits.parse().map_err(|_| wrong())?;
            (first, last.unwrap_or(first))
        }
    };
    let (verb, number) = action.split_once(':').unwrap_or((action, "0"));
    let duration = || number.parse().map(Duration::from_millis).map_err(|_| wrong());
    let action = match verb {
        "fail" => Action::Fail(number.parse().ok().filter(|code| *code != 0).ok_or_else(wrong)?),
        "delay" => Action::Delay(duration()?),
        "stuck" => Action::Stuck(duration()?),
        "late" => Action::Late(duration()?),
        "down" => Action::Down,
        _ => return Err(wrong()),
    };
    Ok(Rule { name: name.trim().to_owned(), action, first, last, seen: AtomicU64::new(0) })
}

fn find(name: &str) -> Option<Action> {
    load();
    if !ACTIVE.load(Ordering::Relaxed) {
        return None;
    }
    // Every rule of the name counts the call; the first one that means it decides.
    RULES.read().iter().fold(None, |found, rule| {
        let applies = rule.applies(name);
        found.or(applies.then_some(rule.action))
    })
}

/// Passed by every call of the vendor's, before it does anything.
pub fn at_call(name: &str) -> Outcome {
    match find(name) {
        Some(Action::Fail(code)) => Err(Fail::new(code, format!("a scripted fault of {name}"))),
        Some(Action::Delay(time) | Action::Stuck(time) | Action::Late(time)) => {
            std::thread::sleep(time);
            Ok(())
        }
        Some(Action::Down) | None => Ok(()),
    }
}

/// What is to go wrong with the put or get that a stream comes to now.
pub fn at_transfer() -> Option<Action> {
    find("transfer")
}

/// Whether the links of this process are down.
pub fn links_are_down() -> bool {
    find("link") == Some(Action::Down)
}

/// Counts a call; returns what [`count_after`] wants.
pub fn count_before(name: &str) -> Option<u32> {
    if !COUNTING.load(Ordering::Relaxed) {
        return None;
    }
    let device = current_device();
    count(name, device);
    device
}

/// Counts a call for the device that it made current, if it did.
pub fn count_after(name: &str, before: Option<u32>) {
    if COUNTING.load(Ordering::Relaxed) {
        let after = current_device();
        if after.is_some() && after != before {
            count(name, after);
        }
    }
}

fn current_device() -> Option<u32> {
    context::current().ok().map(|context| context.device.user_id)
}

fn count(name: &str, device: Option<u32>) {
    *CALLS.lock().entry((name.to_owned(), device)).or_default() += 1;
}

fn listen() -> io::Result<()> {
    let name = format!("cann-sim-fault/{}/{}", settings().namespace, std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    std::thread::Builder::new().name("cann-sim-fault".to_owned()).spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that goes away or says nothing has no answer to get.
            let _ = serve(&client);
        }
    })?;
    Ok(())
}

fn serve(client: &UnixStream) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_LIMIT))?;
    let mut line = String::new();
    BufReader::new(io::Read::take(client, LINE_LIMIT_BYTES)).read_line(&mut line)?;
    let mut client = client;
    writeln!(client, "{}", answer(line.trim()))
}

fn answer(line: &str) -> String {
    let (verb, text) = line.split_once(' ').unwrap_or((line, ""));
    let rules = match parse(text) {
        Ok(rules) => rules,
        Err(why) => return format!("error {why}"),
    };
    match verb {
        "set" => replace(rules),
        "add" => {
            RULES.write().extend(rules.into_iter().map(Arc::new));
            ACTIVE.store(true, Ordering::Relaxed);
        }
        "clear" => replace(Vec::new()),
        "calls" => {
            let calls = CALLS.lock();
            let device = |device: &Option<u32>| device.map_or_else(|| "-".to_owned(), |id| id.to_string());
            let words: Vec<_> =
                calls.iter().map(|((name, id), count)| format!("{name}/{} {count}", device(id))).collect();
            return words.join(";");
        }
        _ => return format!("error \"{verb}\" is not set, add, clear or calls"),
    }
    "ok".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_pick_the_calls_they_name() {
        let rules = parse("A=fail:15@2; B=delay:7@3+ ;C=down").unwrap();
        let calls = |rule: &Rule, name| (0..5).map(|_| rule.applies(name)).collect::<Vec<_>>();
        assert_eq!(calls(&rules[0], "A"), [false, true, false, false, false]);
        assert_eq!(calls(&rules[1], "A"), [false; 5]);
        assert_eq!(calls(&rules[1], "B"), [false, false, true, true, true]);
        assert_eq!(rules[0].action, Action::Fail(15));
        assert_eq!(rules[1].action, Action::Delay(Duration::from_millis(7)));
        assert_eq!(rules[2].action, Action::Down);
    }

    #[test]
    fn nonsense_is_refused_with_the_rule() {
        for text in ["x", "x=", "x=fail", "x=fail:0", "x=delay:y", "x=fail:1@", "x=down@z"] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(text), "{why}");
        }
        assert!(answer("what").starts_with("error"));
        assert!(answer("set x").starts_with("error"));
    }
}
