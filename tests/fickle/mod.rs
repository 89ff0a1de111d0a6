//! A metadata service by HTTP that can be told to refuse, to forget, to be late and to be silent.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mooncake_test_support::loopback;

/// Longest time in which a late service waits before it serves all the same.
pub const LATE: Duration = Duration::from_millis(700);

/// How the service behaves.
#[derive(Default)]
struct State {
    values: HashMap<String, Vec<u8>>,
    /// The first words of each request that changes something, and its body; as they come, not as they are served.
    changes: Vec<(String, String)>,
    /// Requests of any kind that have come.
    asked: usize,
    /// Looks at each key that have come.
    looks: HashMap<String, usize>,
    /// News is not taken.
    refuses: bool,
    /// Nobody gets to see a value.
    hides: bool,
    /// News is taken only after the next removal, or after [`LATE`].
    late: bool,
    /// Requests are read and never answered.
    silent: bool,
}

/// A store of keys and values.
pub struct Fickle {
    pub uri: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Fickle {
    pub fn start() -> Self {
        let listener = loopback::listen();
        let uri = format!("http://{}/metadata", listener.local_addr().unwrap());
        let shared: Arc<Shared> = Arc::default();
        let serving = Arc::clone(&shared);
        // Named, so that tests that count threads know it, and those it starts.
        let named = std::thread::Builder::new().name("fickle".into());
        let serve = move || {
            for stream in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.serve(stream));
            }
        };
        drop(named.spawn(serve).unwrap());
        Self { uri, shared }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }

    pub fn refuse(&self, refuses: bool) {
        self.set(|state| state.refuses = refuses);
    }

    pub fn hide(&self, hides: bool) {
        self.set(|state| state.hides = hides);
    }

    pub fn be_late(&self) {
        self.set(|state| state.late = true);
    }

    /// Gives the number of requests that had come till then: whatever comes after it is held.
    pub fn be_silent(&self) -> usize {
        let mut asked = 0;
        self.set(|state| {
            state.silent = true;
            asked = state.asked;
        });
        asked
    }

    /// What a restart does to a service that keeps everything in memory.
    pub fn forget(&self) {
        self.set(|state| state.values.clear());
    }

    /// Forgets one key that ends so.
    pub fn forget_one(&self, end: &str) {
        self.set(|state| state.values.retain(|key, _| !key.ends_with(end)));
    }

    /// Gives a key that ends so another value.
    pub fn replace(&self, end: &str, value: &str) {
        self.set(|state| {
            let key = state.values.keys().find(|key| key.ends_with(end)).cloned().unwrap();
            state.values.insert(key, value.into());
        });
    }

    /// The value of the key that ends so.
    pub fn value(&self, end: &str) -> Option<String> {
        let state = self.shared.state.lock().unwrap();
        let value = state.values.iter().find(|(key, _)| key.ends_with(end)).map(|(_, value)| value.clone());
        value.map(|value| String::from_utf8(value).unwrap())
    }

    /// Looks at keys that end so.
    pub fn looks_at(&self, end: &str) -> usize {
        let state = self.shared.state.lock().unwrap();
        state.looks.iter().filter(|(key, _)| key.ends_with(end)).map(|(_, count)| count).sum()
    }

    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.shared.state.lock().unwrap().values.keys().cloned().collect();
        keys.sort();
        keys
    }

    pub fn changes(&self) -> Vec<(String, String)> {
        self.shared.state.lock().unwrap().changes.clone()
    }

    pub fn asked(&self) -> usize {
        self.shared.state.lock().unwrap().asked
    }
}

impl Shared {
    /// One request after another, until the client goes.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut first = String::new();
            reader.read_line(&mut first).ok().filter(|length| *length > 0)?;
            let (mut length, mut line) = (0, String::new());
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).ok()?;
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let mut words = first.split(' ');
            let (method, key) = (words.next()?, words.next()?.to_owned());
            let mut state = self.state.lock().ok()?;
            state.asked += 1;
            if method == "GET" {
                *state.looks.entry(key.clone()).or_default() += 1;
            } else {
                let body = String::from_utf8(body.clone()).ok()?;
                state.changes.push((format!("{method} {key}"), body));
            }
            self.changed.notify_all();
            if method == "DELETE" {
                state.late = false;
            }
            if method == "PUT" && state.late {
                state = self.changed.wait_timeout_while(state, LATE, |state| state.late).ok()?.0;
                if !state.late {
                    // The removal has the same lock, and is served first: this is the news that comes too late.
                    let gone = |state: &mut State| state.values.contains_key(&key);
                    state = self.changed.wait_timeout_while(state, LATE, gone).ok()?.0;
                }
                state.late = false;
            }
            let _silent = self.changed.wait_while(state, |state| state.silent).ok().map(drop);
            let mut state = self.state.lock().ok()?;
            let (status, answer) = match method {
                "PUT" if state.refuses => ("500 No", Vec::new()),
                "PUT" => (state.values.insert(key, body), ("200 OK", Vec::new())).1,
                "DELETE" => (state.values.remove(&key), ("200 OK", Vec::new())).1,
                _ if state.hides => ("500 No", Vec::new()),
                _ => state
                    .values
                    .get(&key)
                    .map_or(("404 Not Found", Vec::new()), |value| ("200 OK", value.clone())),
            };
            drop(state);
            self.changed.notify_all();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", answer.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer)).ok()?;
        }
    }
}
