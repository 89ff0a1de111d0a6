//! Measures masters side by side, in one run: ours, upstream's released one, and a bare ping-pong server as the floor.
//!
//! `cargo run --release -p mooncake-master --example master_bench -- --upstream PATH --rounds 5 --record FILE`
//!
//! Each cell is measured in turns, one short slice for each server and round, so that a busy machine disturbs all
//! alike; reported are medians over the rounds and the spread. Keys have 97 bytes, as those of vLLM have. CPU is the
//! server's own, from the kernel's account of the process.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a tool that reports
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // statistics

mod cells;
mod client;
mod floor;
mod server;

use std::io::Write;
use std::time::Duration;

use cells::{CELLS, Slice};
use server::{Kind, Server};

struct Arguments {
    upstream: Option<String>,
    rounds: usize,
    slice: Duration,
    objects: usize,
    /// Measure this cell alone, and neither memory nor the process.
    only: Option<String>,
    record: Option<String>,
    commit: String,
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        upstream: None,
        rounds: 5,
        slice: Duration::from_millis(500),
        objects: 1_000_000,
        only: None,
        record: None,
        commit: "unknown".into(),
    };
    let mut rest = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (rest.next(), rest.next()) {
        match name.as_str() {
            "--upstream" => arguments.upstream = Some(value),
            "--rounds" => arguments.rounds = value.parse().expect("number"),
            "--slice-ms" => arguments.slice = Duration::from_millis(value.parse().expect("number")),
            "--objects" => arguments.objects = value.parse().expect("number"),
            "--only" => arguments.only = Some(value),
            "--record" => arguments.record = Some(value),
            "--commit" => arguments.commit = value,
            other => panic!("unknown argument {other}"),
        }
    }
    arguments
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("floor") {
        floor::run();
        return;
    }
    let arguments = arguments();
    let mut lines = vec!["server,cell,clients,what,unit,median,low,high".to_owned()];
    let mut report =
        |server: &str, cell: &str, clients: usize, what: &str, unit: &str, values: &mut [f64]| {
            let middle = median(values);
            let (low, high) = (values[0], values[values.len() - 1]);
            println!("{server:9} {cell:16} {clients:3} {what:12} {middle:12.2} [{low:.2}-{high:.2}] {unit}");
            lines.push(format!("{server},{cell},{clients},{what},{unit},{middle:.3},{low:.3},{high:.3}"));
        };

    let mut kinds = vec![Kind::Ours, Kind::Floor];
    kinds.extend(arguments.upstream.clone().map(Kind::Upstream));
    let servers: Vec<Server> = kinds.iter().map(Server::start).collect();
    for server in &servers {
        server.fill();
    }
    let wanted = |cell: &&cells::Cell| arguments.only.as_deref().is_none_or(|only| only == cell.name);
    for cell in CELLS.iter().filter(wanted) {
        for clients in [1, 4, 16] {
            let mut slices: Vec<Vec<Slice>> = servers.iter().map(|_| Vec::new()).collect();
            for round in 0..arguments.rounds {
                for (server, slices) in servers.iter().zip(&mut slices) {
                    if server.is_floor() && cell.floor_bytes().is_none() {
                        continue;
                    }
                    slices.push(cell.run(server, clients, arguments.slice, round));
                }
            }
            for (server, slices) in servers.iter().zip(slices).filter(|(_, slices)| !slices.is_empty()) {
                let mut of = |what, unit, value: fn(&Slice) -> f64| {
                    let mut values: Vec<f64> = slices.iter().map(value).collect();
                    report(server.name(), cell.name, clients, what, unit, &mut values);
                };
                of("rate", "keys/s", |slice| slice.keys as f64 / slice.seconds);
                of("p50", "us", |slice| slice.p50_us);
                of("p99", "us", |slice| slice.p99_us);
                of("cpu", "us/key", |slice| slice.cpu_us / slice.keys as f64);
            }
        }
    }
    drop(servers);

    let whole = arguments.only.is_none();
    for kind in kinds.iter().filter(|kind| whole && !matches!(kind, Kind::Floor)) {
        let server = Server::start(kind);
        let memory = server.memory(arguments.objects);
        let name = server.name();
        report(name, "memory", 1, "idle", "MiB", &mut [memory.idle_mib]);
        report(name, "memory", 1, "full", "MiB", &mut [memory.full_mib]);
        report(name, "memory", 1, "per_object", "bytes", &mut [memory.bytes_per_object]);
        report(name, "memory", 1, "removed", "MiB", &mut [memory.removed_mib]);
        drop(server);
        let (latencies, failed) = Server::full_pool(kind, arguments.objects / 5, 20_000);
        let at = |part: f64| {
            latencies.get((latencies.len().max(1) - 1) * (part * 1000.0) as usize / 1000).copied()
        };
        for (what, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            report(name, "put_full_pool", 1, what, "us", &mut [at(part).unwrap_or(f64::NAN)]);
        }
        report(name, "put_full_pool", 1, "no_space", "%", &mut [failed]);
        let (mut starts, mut stops): (Vec<f64>, Vec<f64>) =
            (0..arguments.rounds.max(3)).map(|_| Server::start_and_stop_ms(kind)).unzip();
        report(name, "process", 1, "start", "ms", &mut starts);
        report(name, "process", 1, "stop", "ms", &mut stops);
    }
    if let Some(path) = &arguments.record {
        let mut file = std::fs::File::create(path).expect("record");
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .unwrap_or("unknown")
            .replace([':', '\t'], "");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        writeln!(file, "# machine:{model}, {cores} cores; commit: {}", arguments.commit).expect("record");
        writeln!(
            file,
            "# command: master_bench --upstream <mooncake_master of the 0.3.13.post1 wheel> --rounds {} --slice-ms {} --objects {}",
            arguments.rounds,
            arguments.slice.as_millis(),
            arguments.objects
        )
        .expect("record");
        for line in lines {
            writeln!(file, "{line}").expect("record");
        }
    }
}
