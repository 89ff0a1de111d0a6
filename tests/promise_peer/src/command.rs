//! The commands. A transfer is `read|write LOCAL PEER REMOTE BYTES BLOCK TIMEOUT_MS`: BYTES in blocks of BLOCK, with
//! 0 for the default time limit. `as N COMMAND` gives a command to the Nth of the engines that `engines` has made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mooncake::engine::{Direction, Engine, Note, Request, TransferFailure};
use mooncake::error::Result;

use crate::{Peer, chaos, crowd, store, usage};

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("\"{word}\" is no number of the right kind"))
}

/// Runs one command; the values of the answer.
pub fn run(peer: &Peer, words: &[&str]) -> Result<String, TransferFailure> {
    run_on(peer, &peer.engine, words)
}

fn run_on(peer: &Peer, engine: &Arc<Engine>, words: &[&str]) -> Result<String, TransferFailure> {
    let memory = &peer.memory;
    Ok(match words {
        ["as", place, rest @ ..] => {
            let other = peer.others.lock().unwrap().get(number::<usize>(place)).cloned();
            run_on(peer, &other.expect("there is such an engine"), rest)?
        }
        ["alloc", device, bytes] => memory.allocate(number(device), number(bytes)).to_string(),
        ["release", address] => {
            memory.release(number(address));
            String::new()
        }
        ["pool", bytes] => memory.pool(number(bytes)).to_string(),
        ["host", bytes] => memory.host(number(bytes)).to_string(),
        // From here on no process without the right to trace any may look into this one.
        ["closed"] => {
            let none = rustix::process::DumpableBehavior::NotDumpable;
            rustix::process::set_dumpable_behavior(none).unwrap();
            String::new()
        }
        ["fill", address, bytes, seed] => {
            memory.fill(number(address), number(bytes), number(seed));
            String::new()
        }
        ["mismatch", address, bytes, seed] => {
            let at = memory.mismatch(number(address), number(bytes), number(seed));
            at.map_or_else(|| "none".to_owned(), |at| at.to_string())
        }
        ["register", address, bytes, location] => {
            done(engine.register(number(address), number(bytes), location))?
        }
        ["unregister", address] => done(engine.unregister(number(address)))?,
        ["install", protocol] => done(engine.install_transport(protocol, None).map(drop))?,
        ["open", name] => engine.open_segment(name, false)?.to_string(),
        ["probe", name] => done(engine.probe(name))?,
        ["note", segment, text] => {
            let note = Note { name: "promise".to_owned(), message: (*text).to_owned() };
            done(engine.send_note(number(segment), note))?
        }
        ["notes"] => engine.take_notes().into_iter().map(|note| note.message).collect::<Vec<_>>().join(" "),
        ["submit", rest @ ..] => {
            let (requests, timeout) = requests(engine, rest)?;
            let batch = engine.allocate_batch(requests.len())?;
            engine.submit(batch, &requests, None, timeout)?;
            batch.to_string()
        }
        ["transfer", rest @ ..] => {
            let (requests, timeout) = requests(engine, rest)?;
            let start = Instant::now();
            match engine.transfer(&requests, None, timeout) {
                Ok(()) => start.elapsed().as_micros().to_string(),
                Err(failure) => return Err(failure),
            }
        }
        ["wait", batch, limit_ms] => {
            let (start, processor) = (Instant::now(), usage::processor_us());
            let outcome = engine.wait(number(batch), Duration::from_millis(number(limit_ms)));
            let used = usage::processor_us() - processor;
            outcome?;
            format!("{} {used}", start.elapsed().as_micros())
        }
        ["status", batch, task] => {
            let state = engine.status(number(batch), number(task))?;
            format!("{:?} {}", state.status, state.transferred_bytes)
        }
        ["task-error", batch, task] => match engine.task_error(number(batch), number(task)) {
            Some(error) => return Err(error.into()),
            None => "none".to_owned(),
        },
        ["cancel", batch] => done(engine.cancel(number(batch)))?,
        ["free", batch] => done(engine.free_batch(number(batch)))?,
        ["processor"] => usage::processor_us().to_string(),
        ["usage"] => {
            format!("{} {} {}", usage::descriptors(), usage::status("Threads"), usage::status("VmRSS"))
        }
        ["device"] => format!("{:?}", memory.runtime().current_device()?),
        // The same command, and the device of the thread before and after it.
        ["bound", rest @ ..] => {
            let before = memory.runtime().current_device()?;
            let values = run(peer, rest)?;
            format!("{before:?} {:?} {values}", memory.runtime().current_device()?)
        }
        ["crowd", first, count, name, remote, bytes] => {
            crowd::run(peer, number(first), number(count), name, number(remote), number(bytes))?
        }
        ["engines", count] => crowd::engines(peer, number(count))?,
        ["introduce"] => crowd::introduce(peer)?,
        ["chaos", device, place, seed, seconds, bytes, targets @ ..] => {
            let may_land = *bytes == "lossy";
            chaos::run(peer, number(device), number(place), number(seed), number(seconds), may_land, targets)?
        }
        ["metric", name] => {
            let text = engine.metrics_text();
            let line = text.lines().find_map(|line| line.strip_prefix(*name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no metric {name}")).to_owned()
        }
        ["libraries", word] => usage::mappings(word).to_string(),
        ["close"] => {
            engine.close();
            String::new()
        }
        ["store", rest @ ..] => store::run(peer, rest)?,
        other => panic!("no such command: {other:?}"),
    })
}

fn done(outcome: Result<()>) -> Result<String> {
    outcome.map(|()| String::new())
}

fn requests(engine: &Engine, words: &[&str]) -> Result<(Vec<Request>, Option<Duration>)> {
    let [direction, local, name, remote, bytes, block, timeout_ms] = words else {
        panic!("a transfer is DIRECTION LOCAL PEER REMOTE BYTES BLOCK TIMEOUT_MS, not {words:?}")
    };
    let direction = if *direction == "read" { Direction::Read } else { Direction::Write };
    let (local, remote, bytes, block): (u64, u64, u64, u64) =
        (number(local), number(remote), number(bytes), number(block));
    let timeout_ms: u64 = number(timeout_ms);
    let segment = engine.open_segment(name, true)?;
    let requests = (0..bytes / block)
        .map(|index| {
            let offset = index * block;
            // Wild addresses are part of what is tested.
            Request {
                direction,
                local: local.wrapping_add(offset),
                segment,
                remote: remote.wrapping_add(offset),
                length_bytes: block,
            }
        })
        .collect();
    Ok((requests, (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms))))
}
