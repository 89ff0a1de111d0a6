//! Many threads of one process, each on a device of its own with an engine of its own, all at once.

use std::sync::{Arc, Barrier};

use mooncake::config::Config;
use mooncake::engine::{Direction, Engine, EngineOptions, Note, Request};
use mooncake::error::{Code, Error, Result, Stage};

use crate::Peer;

/// Runs `count` threads on the devices from `first` on. Each moves `bytes` to its own part of the remote buffer of
/// `name` and back, and looks after each call whether the thread's device is still its own.
pub fn run(peer: &Peer, first: i32, count: u32, name: &str, remote: u64, bytes: u64) -> Result<String> {
    let barrier = Barrier::new(usize::try_from(count).unwrap());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|place| {
                let barrier = &barrier;
                let device = first + i32::try_from(place).unwrap();
                let target = remote + u64::from(place) * bytes;
                scope.spawn(move || {
                    peer.memory.on(device, || {
                        barrier.wait();
                        one(peer, device, name, target, bytes)
                    })
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    Ok(String::new())
}

fn one(peer: &Peer, device: i32, name: &str, remote: u64, bytes: u64) -> Result<()> {
    let memory = &peer.memory;
    let check = |call: &str| {
        let current = memory.runtime().current_device()?;
        if current == Some(device) {
            return Ok(());
        }
        let message = format!("{call} left the thread of device {device} with {current:?}");
        Err(Error::new(Code::Internal, Stage::Execute, message))
    };
    let engine = engine(peer)?;
    check("Engine::new")?;
    engine.install_transport("ascend", None)?;
    check("install_transport")?;
    let local = memory.allocate(device, bytes);
    let seed = u64::try_from(device).unwrap();
    memory.fill(local, bytes, seed);
    engine.register(local, bytes, "*")?;
    check("register")?;
    let segment = engine.open_segment(name, true)?;
    check("open_segment")?;
    let moving = |direction| {
        let request = Request { direction, local, segment, remote, length_bytes: bytes };
        let outcome = engine.transfer(&[request], None, None).map_err(|failure| failure.error);
        outcome.and(check("transfer"))
    };
    moving(Direction::Write)?;
    memory.fill(local, bytes, 0);
    moving(Direction::Read)?;
    if let Some(at) = memory.mismatch(local, bytes, seed) {
        let message = format!("device {device}: byte {at} differs");
        return Err(Error::new(Code::Internal, Stage::Execute, message));
    }
    engine.unregister(local)?;
    check("unregister")?;
    engine.close();
    check("close")?;
    memory.release(local);
    Ok(())
}

/// One more, under the host of the first one.
fn engine(peer: &Peer) -> Result<Arc<Engine>> {
    Engine::new(EngineOptions {
        metadata: "P2PHANDSHAKE".to_owned(),
        local_name: peer.engine.host_and_port().0,
        device: None,
        auto_discover: false,
        config: Config::from_env(),
    })
}

/// Makes `count` engines at the same moment and keeps them; their names.
pub fn engines(peer: &Peer, count: usize) -> Result<String> {
    let barrier = Barrier::new(count);
    let made: Vec<Result<Arc<Engine>>> = std::thread::scope(|scope| {
        let start = || {
            barrier.wait();
            engine(peer)
        };
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let made = made.into_iter().collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = made.iter().map(|engine| engine.name().to_owned()).collect();
    peer.others.lock().unwrap().extend(made);
    Ok(names.join(" "))
}

/// Each kept engine leaves a note with the next one, which then has that note and no other.
pub fn introduce(peer: &Peer) -> Result<String> {
    let engines = peer.others.lock().unwrap();
    for (place, engine) in engines.iter().enumerate() {
        let next = engines.get(place + 1).or(engines.first()).unwrap();
        let segment = engine.open_segment(next.name(), true)?;
        engine
            .send_note(segment, Note { name: engine.name().to_owned(), message: next.name().to_owned() })?;
    }
    for engine in engines.iter() {
        let notes = engine.take_notes();
        assert!(notes.len() == 1 && notes.iter().all(|note| note.message == engine.name()), "{notes:?}");
    }
    Ok(String::new())
}
