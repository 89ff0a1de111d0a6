//! The cells: what one client does again and again.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use mooncake_wire::Method;
use mooncake_wire::frame;
use mooncake_wire::method::*;
use mooncake_wire::model::{ObjectMeta, ReplicateConfig, Tenant};

use crate::client::{Client, PROFILE};
use crate::server::{OWNER, READABLE, Server, key};

const BATCH: usize = 128;
/// Requests of a reading client, written before the clock runs; more than one, so that the caches see many keys.
const PREPARED: usize = 256;

pub struct Cell {
    pub name: &'static str,
    work: Work,
}

#[derive(Clone, Copy)]
enum Work {
    Exist,
    Get,
    BatchExist,
    BatchGet,
    Put,
    BatchPut,
}

pub const CELLS: &[Cell] = &[
    Cell { name: "exist", work: Work::Exist },
    Cell { name: "get", work: Work::Get },
    Cell { name: "put", work: Work::Put },
    Cell { name: "batch_exist_128", work: Work::BatchExist },
    Cell { name: "batch_get_128", work: Work::BatchGet },
    Cell { name: "batch_put_128", work: Work::BatchPut },
];

/// One slice of one cell on one server.
pub struct Slice {
    pub keys: usize,
    pub seconds: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub cpu_us: f64,
}

impl Slice {
    pub fn cpu_us_per_key(&self) -> f64 {
        self.cpu_us / self.keys as f64
    }
}

fn written<'a, M: Method<'a>>(function_id: u32, method: &M) -> Vec<u8> {
    let mut out = Vec::new();
    frame::request(&mut out, 1, function_id, |body| PROFILE.encode_request(method, body)).expect("request");
    out
}

impl Cell {
    /// Length of an answer's body, if the floor is measured with this cell.
    pub fn floor_bytes(&self) -> Option<u32> {
        match self.work {
            Work::Exist => Some(6),
            Work::Get => Some(71),
            Work::BatchExist => Some(5 + 2 * BATCH as u32),
            Work::Put | Work::BatchGet | Work::BatchPut => None,
        }
    }

    pub fn is_batch(&self) -> bool {
        self.keys_per_call() > 1
    }

    fn keys_per_call(&self) -> usize {
        match self.work {
            Work::Exist | Work::Get | Work::Put => 1,
            Work::BatchExist | Work::BatchGet | Work::BatchPut => BATCH,
        }
    }

    /// The requests a reading client sends in turn.
    fn requests(&self, server: &Server, client: usize) -> Vec<Vec<u8>> {
        let names: Vec<String> =
            (0..PREPARED + BATCH).map(|index| key("read", (client * 7919 + index * 31) % READABLE)).collect();
        let id = |function_id: u32| self.floor_bytes().filter(|_| server.is_floor()).unwrap_or(function_id);
        let tenant = Tenant::default();
        (0..PREPARED)
            .map(|index| {
                let one = names[index].as_bytes();
                let many = || names[index..index + BATCH].iter().map(String::as_bytes).collect();
                match self.work {
                    Work::Exist => written(id(ExistKey::FUNCTION.id()), &ExistKey { key: one, tenant }),
                    Work::Get => {
                        written(id(GetReplicaList::FUNCTION.id()), &GetReplicaList { key: one, tenant })
                    }
                    Work::BatchExist => {
                        written(id(BatchExistKey::FUNCTION.id()), &BatchExistKey { keys: many(), tenant })
                    }
                    _ => written(
                        id(BatchGetReplicaList::FUNCTION.id()),
                        &BatchGetReplicaList { keys: many(), tenant },
                    ),
                }
            })
            .collect()
    }

    pub fn run(&self, server: &Server, clients: usize, length: Duration, round: usize) -> Slice {
        let barrier = Barrier::new(clients + 1);
        let mut results: Vec<(usize, Vec<f64>)> = Vec::new();
        let (mut seconds, mut cpu_us) = (0.0, 0.0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..clients)
                .map(|client| {
                    let barrier = &barrier;
                    scope.spawn(move || self.work(server, client, length, round, barrier))
                })
                .collect();
            barrier.wait();
            let (begin, before) = (Instant::now(), server.cpu_us());
            results.extend(threads.into_iter().map(|thread| thread.join().expect("client")));
            (seconds, cpu_us) = (begin.elapsed().as_secs_f64(), server.cpu_us() - before);
        });
        if !server.is_floor() && matches!(self.work, Work::Put | Work::BatchPut) {
            let pattern = format!("^put{}", self.name);
            let remove =
                RemoveByRegex { pattern: pattern.as_bytes(), force: true, ..RemoveByRegex::default() };
            server.client().call(&remove).expect("removed");
        }
        let mut latencies: Vec<f64> = results.iter().flat_map(|(_, latencies)| latencies).copied().collect();
        latencies.sort_by(f64::total_cmp);
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        let keys = results.iter().map(|(calls, _)| calls * self.keys_per_call()).sum();
        Slice { keys, seconds, p50_us: at(0.5), p99_us: at(0.99), cpu_us }
    }

    fn work(
        &self,
        server: &Server,
        number: usize,
        length: Duration,
        round: usize,
        barrier: &Barrier,
    ) -> (usize, Vec<f64>) {
        let mut client = server.client();
        let mut latencies = Vec::with_capacity(1 << 16);
        let reading = !matches!(self.work, Work::Put | Work::BatchPut);
        let requests = if reading { self.requests(server, number) } else { Vec::new() };
        barrier.wait();
        let end = Instant::now() + length;
        let mut calls = 0;
        loop {
            let begin = Instant::now();
            if begin >= end {
                return (calls, latencies);
            }
            match self.work {
                Work::Put => put(&mut client, &[key(&format!("put{}{round}-{number}", self.name), calls)]),
                Work::BatchPut => {
                    let space = format!("put{}{round}-{number}", self.name);
                    let keys: Vec<String> =
                        (0..BATCH).map(|index| key(&space, calls * BATCH + index)).collect();
                    put(&mut client, &keys);
                }
                _ => drop(client.exchange(&requests[calls % PREPARED]).len()),
            }
            latencies.push(begin.elapsed().as_secs_f64() * 1e6);
            calls += 1;
        }
    }
}

/// Start and end of a put: one key by the single calls, several by the batch calls.
fn put(client: &mut Client, keys: &[String]) {
    let config = ReplicateConfig::default();
    if let [key] = keys {
        let key = key.as_bytes();
        let start = PutStart { client: OWNER, key, length: 4096, config, tenant: Tenant::default() };
        client.call(&start).expect("space");
        let end = PutEnd { client: OWNER, object: ObjectMeta { key, checksum: None }, ..PutEnd::default() };
        client.call(&end).expect("end");
        return;
    }
    let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let objects = keys.iter().map(|key| ObjectMeta { key, checksum: None }).collect();
    let lengths = vec![4096; keys.len()];
    let start = BatchPutStart { client: OWNER, keys, lengths, config, tenant: Tenant::default() };
    assert!(client.call(&start).iter().all(Result::is_ok));
    let end = BatchPutEnd { client: OWNER, objects, ..BatchPutEnd::default() };
    assert!(client.call(&end).iter().all(Result::is_ok));
}
