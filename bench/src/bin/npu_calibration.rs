//! Replays the published sweep of HIXL on each cost profile of the software NPU, with bare vendor calls, and prints
//! measured against published with the error of each cell. It fails when a cell that the model claims is off by more
//! than 15 %.
//!
//! Each profile runs in a process of its own, because CANN reads its environment once.
//! `bench/calibration_plot.py` draws a record.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use mooncake_transfer_bench::calibration::{self, COLUMNS, Cell};
use mooncake_transfer_bench::console::{result, tell};
use mooncake_transfer_bench::software_npu;

/// Compares the software NPU's cost profiles with the published measurements.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Only this profile (more than once for several)
    #[arg(long)]
    profile: Vec<String>,
    /// Only blocks of so many bytes (more than once for several)
    #[arg(long)]
    block_bytes: Vec<u64>,
    /// Bytes of a run; the published ones are of 128 MiB
    #[arg(long, default_value_t = 128 << 20)]
    run_bytes: u64,
    /// Runs of each cell
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many times slower than hardware; else what lets a usual machine move the bytes in the time
    #[arg(long)]
    slowdown: Option<u32>,
    /// Directory of the software NPU's libraries; else beside this program
    #[arg(long)]
    software_npu: Option<PathBuf>,
    /// Write the lines to this file, with the machine, the commit and the command
    #[arg(long)]
    record: Option<PathBuf>,
    /// The commit to name in the record
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Measure here, on the profile that the environment names
    #[arg(long, hide = true)]
    here: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.here { measure_here(&arguments) } else { run(&arguments) };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The cells asked for, of one profile.
fn cells_of(arguments: &Arguments, profile: &str) -> Result<Vec<Cell>> {
    let mut cells = calibration::cells()?;
    cells.retain(|cell| {
        cell.profile == profile
            && (arguments.block_bytes.is_empty() || arguments.block_bytes.contains(&cell.block_bytes))
    });
    Ok(cells)
}

fn measure_here(arguments: &Arguments) -> Result<bool> {
    let [profile] = arguments.profile.as_slice() else { bail!("one profile is measured at a time") };
    let cells = cells_of(arguments, profile)?;
    calibration::replay(&cells, arguments.run_bytes, arguments.rounds, |cell, measured| {
        result(calibration::line(cell, measured));
    })?;
    Ok(true)
}

fn run(arguments: &Arguments) -> Result<bool> {
    let mut profiles = arguments.profile.clone();
    if profiles.is_empty() {
        profiles = calibration::cells()?.into_iter().map(|cell| cell.profile).collect();
        profiles.dedup();
    }
    let directory = arguments.software_npu.clone().or_else(software_npu::find);
    let directory =
        directory.context("there is no software NPU beside this program: name its --software-npu")?;
    let mut lines = Vec::new();
    result(COLUMNS);
    for profile in &profiles {
        let cells = cells_of(arguments, profile)?;
        ensure!(!cells.is_empty(), "nothing was published for the profile {profile} and these blocks");
        let output =
            child(arguments, profile, &directory)?.output().context("cannot start this program again")?;
        ensure!(output.status.success(), "the measurement of {profile} failed");
        let text = String::from_utf8(output.stdout)?;
        ensure!(
            text.lines().count() == cells.len(),
            "{profile}: {} of {} cells",
            text.lines().count(),
            cells.len()
        );
        for line in text.lines() {
            result(line);
            lines.push(line.to_owned());
        }
    }
    if let Some(path) = &arguments.record {
        fs::write(path, record(arguments, &lines)).with_context(|| path.display().to_string())?;
    }
    let off: Vec<_> = lines.iter().filter(|line| calibration::is_off(line)).collect();
    for line in &off {
        tell(format!("off by more than {} %: {line}", calibration::LIMIT_PERCENT));
    }
    Ok(off.is_empty())
}

fn child(arguments: &Arguments, profile: &str, directory: &std::path::Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    software_npu::give(&mut command, directory);
    // Links of over 100 GB/s want more time than a machine's memory takes.
    let usual = if profile.starts_with("a3-hccs") { 100 } else { 20 };
    let slowdown = arguments.slowdown.unwrap_or(usual);
    command
        .args(["--here", "--profile", profile, "--rounds", &arguments.rounds.to_string()])
        .args(["--run-bytes", &arguments.run_bytes.to_string()])
        .args(arguments.block_bytes.iter().flat_map(|block| ["--block-bytes".to_owned(), block.to_string()]))
        .env("CANN_SIM_PROFILE", profile)
        .env("CANN_SIM_SLOWDOWN", slowdown.to_string())
        .env_remove("CANN_SIM_SOC")
        .env_remove("HCCL_INTRA_ROCE_ENABLE")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    Ok(command)
}

fn record(arguments: &Arguments, lines: &[String]) -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.rsplit(": ").next().unwrap_or_default().trim().to_owned()
    };
    let command: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('/')).collect();
    format!(
        "# machine: {}, {} cores; load average: {}\n# commit: {}\n# command: npu_calibration {}\n\
# model time on the software NPU against the published sweep; nothing here was measured on an NPU\n{COLUMNS}\n{}\n",
        first("/proc/cpuinfo", "model name"),
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        first("/proc/loadavg", ""),
        arguments.commit,
        command.join(" "),
        lines.join("\n")
    )
}
