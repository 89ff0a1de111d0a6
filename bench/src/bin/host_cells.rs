//! Measures host memory between two processes of this host, cell by cell, interleaved with upstream's engine, NIXL,
//! plain sockets, the kernel's copy and plain copies into mapped memory. See `mooncake_transfer_bench::host`.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use mooncake::memory::{HugePages, SharedMemory};
use mooncake_transfer_bench::console::{result, tell};
use mooncake_transfer_bench::host::contender::Contender;
use mooncake_transfer_bench::host::kernel::Kernel;
use mooncake_transfer_bench::host::mapped::Mapped;
use mooncake_transfer_bench::host::ours::{Ours, engine};
use mooncake_transfer_bench::host::python::Pair;
use mooncake_transfer_bench::host::raw::{Raw, serve};
use mooncake_transfer_bench::host::record::{HEADER, Row, judge};
use mooncake_transfer_bench::host::{BUFFER_BYTES, Cell, Measured};

/// Bandwidth, latency and processor time of host memory between two processes, beside upstream, NIXL, plain sockets,
/// the kernel's copy and plain copies into mapped memory.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Block sizes in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20])]
    sizes: Vec<u64>,
    /// Blocks of a call
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 128])]
    batches: Vec<u64>,
    /// Calling threads
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    threads: Vec<u64>,
    /// Time of one contender in one cell and round
    #[arg(long, default_value_t = 40)]
    cell_ms: u64,
    /// Rounds; every contender has its turn in each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Upstream's and NIXL's wheels, as tests/interop/make_peers.sh and bench/make_nixl.sh make them
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Only these contenders, by their names in the record
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Upstream's release
    #[arg(long, default_value = "0.3.13.post1")]
    release: String,
    /// Write the result to this file
    #[arg(long)]
    record: Option<PathBuf>,
    /// The commit to name in the record
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Leave the pages of this engine's memory as they are, instead of huge ones
    #[arg(long)]
    usual_pages: bool,
    /// Be the target (started by the program itself)
    #[arg(long, hide = true)]
    target: bool,
}

/// A process of this program that is a target; ends with its value.
struct Target {
    child: Child,
    segment: String,
    /// Of memory that the kernel has to copy.
    address: u64,
    /// Of memory that is mapped.
    shared_address: u64,
    raw_port: u16,
}

impl Target {
    fn start(usual_pages: bool) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--target")
            .args(usual_pages.then_some("--usual-pages"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().context("the target says where it is");
        let segment = word()?.to_owned();
        let (address, shared_address, raw_port) = (word()?.parse()?, word()?.parse()?, word()?.parse()?);
        Ok(Self { child, segment, address, shared_address, raw_port })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn buffer() -> Result<Vec<u8>> {
    Ok(vec![1; usize::try_from(BUFFER_BYTES)?])
}

fn address_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.as_ptr().expose_provenance()).unwrap_or_default()
}

fn be_target(usual_pages: bool) -> Result<()> {
    let memory = buffer()?;
    let engine = engine(false, !usual_pages)?;
    engine.register(address_of(&memory), BUFFER_BYTES, "cpu:0")?;
    let shared = SharedMemory::allocate(BUFFER_BYTES, HugePages::No)?;
    shared.write(0, &memory)?;
    engine.register(shared.address(), BUFFER_BYTES, "cpu:0")?;
    result(format!("{} {} {} {}", engine.name(), address_of(&memory), shared.address(), serve()?));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Those who take part, and why others do not.
type Field = (Vec<Box<dyn Contender>>, Vec<String>);

/// Who takes part; who cannot be had is told and named in the record.
fn contenders(arguments: &Arguments, target: &Target, memory: &[u8]) -> Result<Field> {
    let (local, pid) = (address_of(memory), target.child.id());
    let most = arguments.threads.iter().copied().max().unwrap_or(1);
    let ours = |name, force_tcp, remote| {
        let engine = engine(force_tcp, !arguments.usual_pages)?;
        Ours::new(name, engine, &target.segment, remote, pid, local)
    };
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(ours("ours_mapped", false, target.shared_address)?),
        Box::new(Mapped::new(most)?),
        Box::new(ours("ours_same_host", false, target.address)?),
        Box::new(Kernel::new(pid, target.address, most)?),
        Box::new(ours("ours_tcp", true, target.address)?),
        Box::new(Raw::new("sockets_1", target.raw_port, pid, most, 1)?),
        Box::new(Raw::new("sockets_4", target.raw_port, pid, most, 4)?),
    ];
    let mut missing = Vec::new();
    if let Some(peers) = &arguments.peers {
        for (name, pair) in
            [("upstream", Pair::upstream(peers, &arguments.release)), ("NIXL", Pair::nixl(peers))]
        {
            match pair {
                Ok(pair) => contenders.push(Box::new(pair)),
                Err(error) => missing.push(format!("without {name}: {error:#}")),
            }
        }
    } else {
        missing.push("without upstream and NIXL: --peers was not given".to_owned());
    }
    missing.iter().for_each(tell);
    let asked = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    contenders.retain(|contender| asked(contender.name()));
    Ok((contenders, missing))
}

/// The command line, without the paths of this machine.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let mut line = "command: host_cells".to_owned();
    let mut is_path = false;
    for argument in arguments {
        line.push(' ');
        line.push_str(if is_path { "PATH" } else { &argument });
        is_path = ["--peers", "--record"].contains(&argument.as_str());
    }
    line
}

/// Medians over the rounds of one contender.
fn row(contender: &'static str, cell: Cell, seen: &[Measured]) -> Row {
    let of = |value: &dyn Fn(&Measured) -> f64| median(&mut seen.iter().map(value).collect::<Vec<_>>());
    let us = |per_cent| of(&|measured| measured.sample().percentile(per_cent).as_secs_f64() * 1e6);
    Row {
        contender,
        cell,
        gigabytes_per_second: of(&|measured| measured.gigabytes_per_second(&cell)),
        p50_us: us(50),
        p99_us: us(99),
        processor_per_gigabyte: of(&|measured| measured.processor_per_gigabyte(&cell)),
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let target = Target::start(arguments.usual_pages)?;
    let memory = buffer()?;
    let (mut contenders, missing) = contenders(arguments, &target, &memory)?;
    let setting = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let load = setting("/proc/loadavg");
    let cells = Cell::all(&arguments.sizes, &arguments.batches, &arguments.threads);
    let progress = ProgressBar::new(u64::try_from(cells.len() * arguments.rounds)?);
    progress.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {elapsed} of about {duration}  {msg}",
    )?);
    let limit = Duration::from_millis(arguments.cell_ms);
    // Both buffers are touched from end to end, as they are in use: what is mapped is mapped page by page.
    let whole = Cell { write: true, block_bytes: 1 << 20, batch: BUFFER_BYTES >> 20, threads: 1 };
    for contender in &mut contenders {
        contender.run(&whole, Duration::ZERO)?;
    }
    let mut rows = Vec::new();
    for cell in cells {
        let mut seen: Vec<Vec<Measured>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..arguments.rounds {
            for (contender, seen) in contenders.iter_mut().zip(&mut seen).filter(|(who, _)| who.takes(&cell))
            {
                progress.set_message(format!(
                    "{} B x {}: {}",
                    cell.block_bytes,
                    cell.batch,
                    contender.name()
                ));
                // The first touch of a cell makes connections and threads.
                contender.run(&cell, Duration::from_millis(5))?;
                seen.push(contender.run(&cell, limit)?);
            }
            progress.inc(1);
        }
        for (contender, seen) in contenders.iter().zip(&seen).filter(|(_, seen)| !seen.is_empty()) {
            let row = row(contender.name(), cell, seen);
            progress.suspend(|| result(row.line()));
            rows.push(row);
        }
    }
    progress.finish_and_clear();
    let judged = judge(&rows);
    judged.iter().for_each(tell);
    if let Some(path) = &arguments.record {
        let mut head = vec![
            format!(
                "host_cells, commit {}, congestion control {}, kernel {}",
                arguments.commit,
                setting("/proc/sys/net/ipv4/tcp_congestion_control"),
                setting("/proc/sys/kernel/osrelease"),
            ),
            command(std::env::args().skip(1)),
            format!("load when it began {load}, when it ended {}", setting("/proc/loadavg")),
        ];
        head.extend(missing);
        head.extend(judged);
        let lines = head.iter().map(|line| format!("# {line}"));
        let lines = lines.chain([HEADER.to_owned()]).chain(rows.iter().map(Row::line));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
        writeln!(file, "{}", lines.collect::<Vec<_>>().join("\n"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.target { be_target(arguments.usual_pages) } else { run(&arguments) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
