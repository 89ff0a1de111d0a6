//! Measures host memory between two processes of this host, cell by cell, interleaved with upstream's engine,
//! plain sockets and the kernel's copy. See `mooncake_transfer_bench::host`.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use mooncake_transfer_bench::console::{result, tell};
use mooncake_transfer_bench::host::contender::Contender;
use mooncake_transfer_bench::host::kernel::Kernel;
use mooncake_transfer_bench::host::ours::{Ours, engine};
use mooncake_transfer_bench::host::raw::{Raw, serve};
use mooncake_transfer_bench::host::upstream::Upstream;
use mooncake_transfer_bench::host::{BUFFER_BYTES, Cell, Measured};

/// Bandwidth, latency and processor time of host memory between two processes, beside upstream, plain sockets
/// and the kernel's copy.
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
    #[arg(long, default_value_t = 200)]
    cell_ms: u64,
    /// Rounds; every contender has its turn in each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Upstream's wheels, as tests/interop/make_peers.sh makes them
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Upstream's release
    #[arg(long, default_value = "0.3.13.post1")]
    release: String,
    /// Append the result to this file
    #[arg(long)]
    record: Option<PathBuf>,
    /// The commit to name in the record
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Be the target (started by the program itself)
    #[arg(long, hide = true)]
    target: bool,
}

/// A process of this program that is a target; ends with its value.
struct Target {
    child: Child,
    segment: String,
    address: u64,
    raw_port: u16,
}

impl Target {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--target")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().context("the target says where it is");
        let (segment, address, raw_port) = (word()?.to_owned(), word()?.parse()?, word()?.parse()?);
        Ok(Self { child, segment, address, raw_port })
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

fn be_target() -> Result<()> {
    let memory = buffer()?;
    let engine = engine(false)?;
    engine.register(address_of(&memory), BUFFER_BYTES, "cpu:0")?;
    result(format!("{} {} {}", engine.name(), address_of(&memory), serve()?));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn run(arguments: &Arguments) -> Result<()> {
    let target = Target::start()?;
    let memory = buffer()?;
    let (local, pid) = (address_of(&memory), target.child.id());
    let most = arguments.threads.iter().copied().max().unwrap_or(1);
    let ours = |name, force_tcp| Ours::new(name, force_tcp, &target.segment, target.address, pid, local);
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(ours("ours_same_host", false)?),
        Box::new(Kernel::new(pid, target.address, most)?),
        Box::new(ours("ours_tcp", true)?),
        Box::new(Raw::new("sockets_1", target.raw_port, pid, most, 1)?),
        Box::new(Raw::new("sockets_4", target.raw_port, pid, most, 4)?),
    ];
    if let Some(peers) = &arguments.peers {
        match Upstream::start(peers, &arguments.release) {
            Ok(upstream) => contenders.push(Box::new(upstream)),
            Err(error) => tell(format!("without upstream: {error:#}")),
        }
    }
    let congestion = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    let mut lines =
        vec![format!("# host_cells, commit {}, congestion control {}", arguments.commit, congestion.trim())];
    lines
        .push("contender,direction,block_bytes,batch,threads,gb_per_s,p50_us,p99_us,cpu_s_per_gb".to_owned());
    let limit = Duration::from_millis(arguments.cell_ms);
    for cell in Cell::all(&arguments.sizes, &arguments.batches, &arguments.threads) {
        let mut seen: Vec<Vec<Measured>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..arguments.rounds {
            for (contender, seen) in contenders.iter_mut().zip(&mut seen) {
                // The first touch of a cell makes connections and threads.
                contender.run(&cell, Duration::from_millis(20))?;
                seen.push(contender.run(&cell, limit)?);
            }
        }
        for (contender, seen) in contenders.iter().zip(&seen) {
            let of =
                |value: &dyn Fn(&Measured) -> f64| median(&mut seen.iter().map(value).collect::<Vec<_>>());
            let us = |per_cent| of(&|measured| measured.sample().percentile(per_cent).as_secs_f64() * 1e6);
            let line = format!(
                "{},{},{},{},{},{:.4},{:.1},{:.1},{:.3}",
                contender.name(),
                if cell.write { "write" } else { "read" },
                cell.block_bytes,
                cell.batch,
                cell.threads,
                of(&|measured| measured.gigabytes_per_second(&cell)),
                us(50),
                us(99),
                of(&|measured| measured.processor_per_gigabyte(&cell)),
            );
            result(&line);
            lines.push(line);
        }
    }
    if let Some(path) = &arguments.record {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{}", lines.join("\n"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.target { be_target() } else { run(&arguments) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
