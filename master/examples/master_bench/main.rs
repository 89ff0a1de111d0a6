//! Measures masters side by side, in one run: ours, upstream's released one, and a bare ping-pong server as the floor.
//!
//! `cargo run --release -p mooncake-master --example master_bench -- --upstream PATH --rounds 5 --record FILE`
//!
//! `make record-master` builds it, fetches upstream's master, and writes record and plot.
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
use indicatif::{ProgressBar, ProgressStyle};
use server::{Kind, Server};

/// Clients at a time.
const CLIENTS: [usize; 3] = [1, 4, 16];

struct Arguments {
    upstream: Option<String>,
    rounds: usize,
    slice: Duration,
    objects: usize,
    /// Measure this cell alone; `memory` and `process` are names, too.
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

/// What was measured: lines for people, and for the record.
struct Report {
    lines: Vec<String>,
    goals: Vec<String>,
}

impl Report {
    fn add(
        &mut self,
        server: &str,
        cell: &str,
        clients: usize,
        what: &str,
        unit: &str,
        values: &mut [f64],
    ) -> f64 {
        let middle = median(values);
        let (low, high) = (values[0], values[values.len() - 1]);
        println!("{server:9} {cell:16} {clients:3} {what:12} {middle:12.2} [{low:.2}-{high:.2}] {unit}");
        self.lines.push(format!("{server},{cell},{clients},{what},{unit},{middle:.3},{low:.3},{high:.3}"));
        middle
    }

    fn goal(&mut self, text: &str, value: f64, met: bool) {
        self.goals.push(format!("{} {text}: {value:.2}", if met { "met   " } else { "MISSED" }));
    }

    /// The ratios that the goals are about, of slices that were measured one after the other.
    fn ratios(&mut self, cell: &cells::Cell, clients: usize, ours: &[Slice], other: &[Slice], floor: bool) {
        let of = |value: fn(&Slice) -> f64| -> Vec<f64> {
            let pairs = ours.iter().zip(other);
            pairs
                .map(
                    |(ours, other)| {
                        if floor { value(ours) / value(other) } else { value(other) / value(ours) }
                    },
                )
                .collect()
        };
        let (server, unit) = if floor { ("floor", "ours/floor") } else { ("upstream", "upstream/ours") };
        let cpu = self.add(server, cell.name, clients, "cpu_ratio", unit, &mut of(Slice::cpu_us_per_key));
        let p50 = self.add(server, cell.name, clients, "p50_ratio", unit, &mut of(|slice| slice.p50_us));
        let name = format!("{}, {clients} clients", cell.name);
        if floor && !cell.is_batch() {
            self.goal(&format!("{name}: processor time at most 1.3 of the floor's"), cpu, cpu <= 1.3);
            self.goal(&format!("{name}: latency at most 1.3 of the floor's"), p50, p50 <= 1.3);
        }
        if !floor && cell.is_batch() {
            self.goal(
                &format!("{name}: at least 4 times upstream's keys a processor second"),
                cpu,
                cpu >= 4.0,
            );
        }
    }
}

/// What is measured of a server by itself.
fn alone(kind: &Kind, arguments: &Arguments, report: &mut Report) {
    let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    let ours = matches!(kind, Kind::Ours);
    if wanted("memory") {
        let server = Server::start(kind);
        let memory = server.memory(arguments.objects);
        let name = server.name();
        report.add(name, "memory", 1, "idle", "MiB", &mut [memory.idle_mib]);
        report.add(name, "memory", 1, "full", "MiB", &mut [memory.full_mib]);
        report.add(name, "memory", 1, "per_object", "bytes", &mut [memory.bytes_per_object]);
        report.add(name, "memory", 1, "removed", "MiB", &mut [memory.removed_mib]);
        if ours {
            let each = memory.bytes_per_object;
            report.goal("memory: at most 400 bytes an object", each, each <= 400.0);
            let left = (memory.removed_mib - memory.idle_mib) / (memory.full_mib - memory.idle_mib);
            report.goal("memory: at most a tenth is left after removal", left, left <= 0.1);
        }
    }
    if wanted("process") {
        let name = kind.name();
        let (latencies, failed) = Server::full_pool(kind, arguments.objects / 5, 20_000);
        let at = |part: f64| {
            latencies.get((latencies.len().max(1) - 1) * (part * 1000.0) as usize / 1000).copied()
        };
        for (what, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            report.add(name, "put_full_pool", 1, what, "us", &mut [at(part).unwrap_or(f64::NAN)]);
        }
        report.add(name, "put_full_pool", 1, "no_space", "%", &mut [failed]);
        let (mut starts, mut stops): (Vec<f64>, Vec<f64>) =
            (0..arguments.rounds.max(3)).map(|_| Server::start_and_stop_ms(kind)).unzip();
        report.add(name, "process", 1, "start", "ms", &mut starts);
        report.add(name, "process", 1, "stop", "ms", &mut stops);
    }
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("floor") {
        floor::run();
        return;
    }
    let arguments = arguments();
    let mut report =
        Report { lines: vec!["server,cell,clients,what,unit,median,low,high".to_owned()], goals: Vec::new() };
    let mut kinds = vec![Kind::Ours, Kind::Floor];
    kinds.extend(arguments.upstream.clone().map(Kind::Upstream));
    let wanted = |cell: &&cells::Cell| arguments.only.as_deref().is_none_or(|only| only == cell.name);
    let wanted: Vec<&cells::Cell> = CELLS.iter().filter(wanted).collect();
    let steps = wanted.len() * CLIENTS.len() + kinds.len();
    let progress = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_secs(1));
    let servers: Vec<Server> =
        if wanted.is_empty() { Vec::new() } else { kinds.iter().map(Server::start).collect() };
    for server in &servers {
        server.fill();
    }
    progress.inc(1);
    for cell in wanted {
        for clients in CLIENTS {
            progress.set_message(format!("{}, {clients} clients", cell.name));
            let mut slices: Vec<Vec<Slice>> = servers.iter().map(|_| Vec::new()).collect();
            for round in 0..arguments.rounds {
                for (server, slices) in servers.iter().zip(&mut slices) {
                    if server.is_floor() && cell.floor_bytes().is_none() {
                        continue;
                    }
                    slices.push(cell.run(server, clients, arguments.slice, round));
                }
            }
            progress.suspend(|| {
                for (server, slices) in servers.iter().zip(&slices).filter(|(_, slices)| !slices.is_empty()) {
                    let mut of = |what, unit, value: fn(&Slice) -> f64| {
                        let mut values: Vec<f64> = slices.iter().map(value).collect();
                        report.add(server.name(), cell.name, clients, what, unit, &mut values);
                    };
                    of("rate", "keys/s", |slice| slice.keys as f64 / slice.seconds);
                    of("p50", "us", |slice| slice.p50_us);
                    of("p99", "us", |slice| slice.p99_us);
                    of("cpu", "us/key", Slice::cpu_us_per_key);
                }
                for (server, others) in
                    servers.iter().zip(&slices).skip(1).filter(|(_, slices)| !slices.is_empty())
                {
                    report.ratios(cell, clients, &slices[0], others, server.is_floor());
                }
            });
            progress.inc(1);
        }
    }
    drop(servers);
    for kind in kinds.iter().filter(|kind| !matches!(kind, Kind::Floor)) {
        progress.set_message(format!("memory and process of {}", kind.name()));
        progress.suspend(|| alone(kind, &arguments, &mut report));
        progress.inc(1);
    }
    progress.finish_and_clear();
    for goal in &report.goals {
        println!("{goal}");
    }
    if let Some(path) = &arguments.record {
        write(path, &arguments, &report).expect("record");
    }
}

fn write(path: &str, arguments: &Arguments, report: &Report) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let model = model.replace([':', '\t'], "");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    let (rounds, slice_ms) = (arguments.rounds, arguments.slice.as_millis());
    writeln!(file, "# machine:{model}, {cores} cores; commit: {}", arguments.commit)?;
    writeln!(
        file,
        "# command: make record-master (rounds {rounds}, slices of {slice_ms} ms, {} objects); load average at the end {load}",
        arguments.objects
    )?;
    writeln!(file, "# *_ratio: medians of the ratios of slices that were measured one after the other")?;
    for line in &report.lines {
        writeln!(file, "{line}")?;
    }
    Ok(())
}
