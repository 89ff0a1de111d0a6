//! One engine on one software NPU, driven by commands on standard input: `NUMBER [&] COMMAND ARGUMENTS`, one line
//! each. With `&` the command runs on a thread of its own, which has no device bound. The answer is one line,
//! `NUMBER ok VALUES` or `NUMBER failed RECORD`, where the record is the failure as JSON.
//!
//! Arguments of the program: the device (`-` for none) and the local name. The environment is the engine's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test program fails by panicking and talks on its standard streams"
)]

mod chaos;
mod command;
mod crowd;
mod doing;
mod memory;
mod store;
mod usage;

use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use mooncake::config::Config;
use mooncake::engine::{Engine, EngineOptions};
use mooncake::error::Error;

use crate::memory::Memory;

/// What the commands work on.
pub struct Peer {
    engine: Arc<Engine>,
    memory: Memory,
    /// Engines that commands have made beside the first one.
    others: Mutex<Vec<Arc<Engine>>>,
}

struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{} {}: {}", record.level(), record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the test reads our answers");
}

fn record(error: &Error, batch: Option<u64>) -> String {
    let record = error.record();
    let vendor = record.vendor.as_ref();
    serde_json::json!({
        "code": record.code.name(),
        "stage": record.stage.name(),
        "message": record.message,
        "peer": record.peer,
        "device": record.device,
        "range": record.range.map(|(start, length)| [start, length]),
        "vendor_function": vendor.map(|vendor| vendor.function),
        "vendor_code": vendor.map(|vendor| vendor.code),
        "vendor_text": vendor.map(|vendor| vendor.text.clone()),
        "vendor_log": vendor.and_then(|vendor| vendor.plog.clone()),
        "advice": record.advice,
        "batch": batch,
    })
    .to_string()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, name] = arguments.as_slice() else { panic!("usage: promise_peer DEVICE|- LOCAL_NAME") };
    let device: Option<i32> = (device != "-").then(|| device.parse().unwrap());
    log::set_logger(&Log).unwrap();
    // What reading the settings complains of is seen, too.
    log::set_max_level(log::LevelFilter::Warn);
    let config = Config::from_env();
    log::set_max_level(config.log_level.unwrap_or(log::LevelFilter::Warn));
    let memory = Memory::open(device, &config);
    let options = EngineOptions {
        metadata: "P2PHANDSHAKE".to_owned(),
        local_name: name.clone(),
        device: None,
        auto_discover: false,
        config,
    };
    let engine = match Engine::new(options) {
        Ok(engine) => engine,
        Err(error) => {
            say(&format!("0 failed {}", record(&error, None)));
            return;
        }
    };
    say(&format!("ready {}", engine.name()));
    let peer = Arc::new(Peer { engine, memory, others: Mutex::default() });
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (number, rest) = line.split_once(' ').expect("a command has a number");
        let number = number.to_owned();
        match rest.strip_prefix("& ") {
            Some(command) => {
                let (peer, command) = (Arc::clone(&peer), command.to_owned());
                std::thread::spawn(move || run(&peer, &number, &command));
            }
            None => run(&peer, &number, rest),
        }
    }
    peer.engine.close();
}

fn run(peer: &Peer, number: &str, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    // Without an answer the test would wait out its time, and not know why.
    match catch_unwind(AssertUnwindSafe(|| command::run(peer, &words))) {
        Ok(Ok(values)) => say(&format!("{number} ok {values}")),
        Ok(Err(failure)) => say(&format!("{number} failed {}", record(&failure.error, failure.batch))),
        Err(_) => {
            let failure = serde_json::json!({ "code": "panic", "message": "see the output" });
            say(&format!("{number} failed {failure}"));
        }
    }
}
