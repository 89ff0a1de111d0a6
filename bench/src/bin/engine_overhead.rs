//! Measures what the engine adds to the vendor's calls, for each request, on the software NPU, and writes a
//! record of it. See `mooncake_transfer_bench::overhead`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use mooncake_transfer_bench::allocations::Counting;
use mooncake_transfer_bench::console::{result, tell};
use mooncake_transfer_bench::demo;
use mooncake_transfer_bench::overhead::{BATCHES, BUFFER_BYTES, Line, measure};
use mooncake_transfer_bench::software_npu;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Measures the engine's overhead for each request on the software NPU, beside a bare loop of the vendor's
/// calls and a memory copy of the same blocks.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Append the result to this file, with the machine, the commit and the command
    #[arg(long)]
    record: Option<PathBuf>,
    /// The commit to name in the record
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Measure only batches of this size
    #[arg(long)]
    batch: Option<u64>,
    /// The target to measure against; started by this program itself when not given
    #[arg(long, hide = true)]
    target: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            tell(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Some(target) = &arguments.target else { return start() };
    result(Line::COLUMNS);
    let batches = arguments.batch.map_or_else(|| BATCHES.to_vec(), |batch| vec![batch]);
    let lines = measure(target, &batches, |line| result(line.csv()))?;
    if let Some(path) = &arguments.record {
        record(path, &arguments.commit, &lines)?;
        tell(format!("recorded in {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a target, and this program again with the software NPU in its environment.
fn start() -> Result<ExitCode> {
    // The log of two engines would stand between the lines.
    let log = std::env::var("MC_LOG_LEVEL").unwrap_or_else(|_| "ERROR".to_owned());
    let software = software_npu::find().context("the software NPU (cann-sim) is not beside this program")?;
    let program = std::env::current_exe()?;
    let mut target = Command::new(program.with_file_name("transfer_engine_bench"));
    target.args(["--mode", "target", "--local_server_name", "127.0.0.1", "--gpu_id", "0"]);
    target.args(["--threads", "1", "--buffer_size", &BUFFER_BYTES.to_string()]);
    software_npu::give(&mut target, &software);
    target.env("MC_LOG_LEVEL", &log);
    demo::with_target(&mut target, |name| {
        let mut measuring = Command::new(&program);
        measuring.args(std::env::args_os().skip(1)).args(["--target", name]);
        software_npu::give(&mut measuring, &software);
        measuring.env("MC_LOG_LEVEL", &log);
        measuring
    })
}

fn record(path: &PathBuf, commit: &str, lines: &[Line]) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let processor = std::fs::read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    writeln!(file, "# machine: {processor}, {cores} cores, Linux {kernel}, {}", std::env::consts::ARCH)?;
    // What else ran on the machine at that time, in the kernel's words: 1, 5 and 15 minutes.
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<_> = load.split_whitespace().take(3).collect();
    writeln!(file, "# load average: {}", load.join(" "))?;
    writeln!(file, "# commit: {commit}")?;
    writeln!(file, "# command: engine_overhead (software NPU, null profile; nanoseconds for each request)")?;
    writeln!(file, "{}", Line::COLUMNS)?;
    for line in lines {
        writeln!(file, "{}", line.csv())?;
    }
    Ok(())
}
