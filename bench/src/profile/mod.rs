//! What transfers take on hardware, by the cost profiles of the software NPU: direct, staged and chosen, side by side.
//!
//! For each profile four measurements of the same blocks run one after another, each in processes of its own: a bare
//! loop of vendor calls, the engine with a descriptor for each block, the engine with everything staged (its table of
//! costs says so), and the engine as it chooses. Every byte of the engine's is verified.
//!
//! Times are model time: the machine's clock divided by the slow-down, and for the bare loop, which runs on one thread,
//! the model's own clock, which leaves out what this machine adds. What the vendor's calls cost is charged by the
//! profile, and each message between the two engines is held back for as long as it says. What this machine's processor
//! takes is counted at a fraction of itself; that is what `engine_overhead` measures.

mod outcome;
mod plot;
mod scope;
mod setting;

use std::io::Read as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;

use self::outcome::{Outcome, Row, Way, key};
use self::scope::{ROUNDS, Scope};
use self::setting::Setting;
use crate::arena::Verdict;
use crate::arguments::{Aggregate, Arguments, Launch};
use crate::bare::{Pair, Shape};
use crate::console::{result, tell};
use crate::demo::{Guard, wait_for_name};
use crate::device::Npu;
use crate::layout::{self, Layout};
use crate::library::Operation;
use crate::model_clock::{ModelClock, message_ns};
use crate::report::{self, Cell, LayoutReport, Report};
use crate::session::{Effort, Session};
use crate::software_npu;
use crate::statistics::Sample;

/// The bare pair's region: the longer of the layouts.
const REGION_BYTES: u64 = 512 << 20;
/// How long a batch may take on the machine's clock.
const LIMIT_MS: u64 = 300_000;

/// The lengths of the buffers of either side.
#[must_use]
pub fn buffers(arguments: &Arguments) -> Vec<u64> {
    let scope = Scope::of(arguments);
    std::iter::once(scope.buffer_bytes()).chain(scope.layouts.iter().flat_map(Layout::buffers)).collect()
}

/// Measures the cells and the layouts as an initiator.
///
/// # Errors
/// If a transfer fails.
pub fn cells(
    session: &mut Session<'_>,
    arguments: &Arguments,
    verdict: &mut Verdict,
) -> Result<(Vec<Cell>, Vec<LayoutReport>)> {
    let scope = Scope::of(arguments);
    let effort = |cell: &scope::Cell| -> Result<Effort> {
        let rounds = usize::try_from(cell.rounds)?;
        // Everything is warm before a long batch, and its beginning counts little.
        let warms_up = !scope::is_long(cell.batch_bytes);
        Ok(Effort { min_rounds: rounds, max_rounds: rounds, time: Duration::ZERO, warms_up })
    };
    let warm_up = scope::Cell { block_bytes: 128 << 10, batch_bytes: 4 << 20, rounds: 1 };
    let hidden = ProgressBar::hidden();
    // The first transfer makes the channel, the second may make what staging needs.
    for _ in 0..2 {
        session.measure(Operation::Write, &warm_up.placement(), effort(&warm_up)?)?;
    }
    let mut cells = Vec::new();
    for operation in [Operation::Write, Operation::Read] {
        for wanted in &scope.cells {
            let block_bytes = wanted.block_bytes;
            tell(format!(
                "  {} of {} blocks of {block_bytes} bytes",
                operation.name(),
                wanted.placement().batch
            ));
            let placement = wanted.placement();
            let measured = session.measure(operation, &placement, effort(wanted)?)?;
            let rate = measured.sample.rate(placement.batch_bytes());
            let cpu = measured.cpu_seconds_per_gigabyte;
            cells.push(report::cell(operation, block_bytes, placement.batch, rate, cpu, &measured.verdict));
            verdict.add(measured.verdict);
        }
    }
    let mut layouts = Vec::new();
    let mut first = 1;
    for layout in scope.layouts {
        tell(format!("  {}", layout.name));
        layouts.push(layout::run(session, layout, first, u64::from(ROUNDS), &hidden, verdict)?);
        first += usize::try_from(layout.tensors)?;
    }
    Ok((cells, layouts))
}

/// Measures the same with the vendor's functions alone, and prints a report of the same form.
///
/// # Errors
/// If the vendor refuses anything.
pub fn bare(arguments: &Arguments) -> Result<()> {
    let scope = Scope::of(arguments);
    let options = software_npu::load_options();
    let (active, passive) = (Npu::open(&options, 0)?, Npu::open(&options, 1)?);
    let pair = Pair::connect(&active, &passive, Shape::default(), REGION_BYTES)?;
    let clock = ModelClock::find()?;
    let slowdown = u32::try_from(clock.slowdown())?;
    let measure =
        |operation: Operation, blocks: &[(u64, u64)], block_bytes: u64, rounds: u32| -> Result<Cell> {
            let way = match operation {
                Operation::Read => crate::bare::Way::Get,
                Operation::Write => crate::bare::Way::Put,
            };
            // By the model's own clock, which knows nothing of this machine; the engine's rates are by the machine's.
            let run = || {
                let time =
                    pair.timed(way, blocks, block_bytes, || clock.now(), |start| clock.now() - start)?;
                anyhow::Ok(time * slowdown)
            };
            let times = (0..rounds).map(|_| run()).collect::<Result<Vec<_>>>()?;
            let count = blocks.len() as u64;
            let rate = Sample::new(times).rate(count * block_bytes);
            Ok(report::cell(operation, block_bytes, count, rate, 0.0, &Verdict::default()))
        };
    let mut cells = Vec::new();
    for operation in [Operation::Write, Operation::Read] {
        // A long batch is a short one's calls more often.
        let is_short =
            |cell: &&scope::Cell| arguments.batch_bytes.is_some() || !scope::is_long(cell.batch_bytes);
        for wanted in scope.cells.iter().filter(is_short) {
            let blocks: Vec<_> =
                wanted.placement().blocks(0).map(|block| (block.local, block.remote)).collect();
            cells.push(measure(operation, &blocks, wanted.block_bytes, wanted.rounds)?);
        }
    }
    let mut layouts = Vec::new();
    for layout in scope.layouts {
        let tensor_bytes = layout.pool_blocks * layout.block_bytes;
        let place = |tensor: u64, block: u64| tensor * tensor_bytes + block * layout.block_bytes;
        let blocks: Vec<_> = (0..layout.tensors)
            .flat_map(|tensor| {
                layout
                    .block_table(1)
                    .map(move |(local, remote)| (place(tensor, local), place(tensor, remote)))
            })
            .collect();
        layouts.push(LayoutReport {
            name: layout.name.to_owned(),
            tensors: layout.tensors,
            blocks_per_tensor: layout.request_blocks(),
            tokens: layout.tokens,
            cell: measure(Operation::Read, &blocks, layout.block_bytes, ROUNDS)?,
        });
    }
    pair.end()?;
    let report = Report {
        library_version: String::new(),
        library: String::new(),
        host_memcpy_gigabytes_per_second: 0.0,
        cells,
        layout: None,
        layouts,
        verified_bytes: 0,
        mismatched_bytes: 0,
    };
    ensure!(arguments.json, "the bare loop is a part of --profile");
    result(serde_json::to_string(&report)?);
    Ok(())
}

/// Runs the profiles of this name and prints the table.
///
/// # Errors
/// If a process cannot be started or a transfer fails.
pub fn run(arguments: &Arguments, name: &str) -> Result<ExitCode> {
    let settings = Setting::named(name)?;
    Scope::of(arguments).check()?;
    let directory = software_npu::find()
        .context("the software NPU (cann-sim) is not beside this program, and cost profiles are its")?;
    let ways: &[Way] = match arguments.aggregate {
        None => &[Way::Bare, Way::Direct, Way::Staged, Way::Chosen],
        Some(Aggregate::Never) => &[Way::Bare, Way::Direct],
        Some(Aggregate::Always) => &[Way::Bare, Way::Staged],
        Some(Aggregate::Auto) => &[Way::Bare, Way::Chosen],
    };
    let scratch = Scratch::new()?;
    let mut outcomes = Vec::new();
    let mut right = true;
    let launches: &[&str] = match arguments.launch {
        Launch::Device => &["device"],
        Launch::Thread => &["thread"],
        Launch::Both => &["device", "thread"],
    };
    for (setting, launch) in
        settings.iter().flat_map(|setting| launches.iter().map(move |launch| (setting, *launch)))
    {
        let slowdown = arguments.slowdown.unwrap_or(setting.slowdown);
        let began = Instant::now();
        result(format!(
            "{}: {}; model time, {slowdown} times slower than hardware, launches in a row for each {launch}",
            setting.name, setting.text
        ));
        result(outcome::head(ways));
        let mut rows: Vec<Row> = Vec::new();
        for way in ways {
            tell(format!("{}: {}", setting.name, way.name()));
            let report = measure(arguments, setting, slowdown, launch, *way, &directory, &scratch)?;
            right &= report.mismatched_bytes == 0;
            for (key, cell) in report.cells.iter().map(|cell| (key(cell, None), cell)).chain(
                report.layouts.iter().map(|layout| (key(&layout.cell, Some(&layout.name)), &layout.cell)),
            ) {
                let rate = cell.gigabytes_per_second * f64::from(slowdown);
                match rows.iter_mut().find(|row| row.key == key) {
                    Some(row) => row.set(*way, rate),
                    None => {
                        let operation = if key.is_layout { "read" } else { &key.what };
                        let limit =
                            setting::limit(setting.name, operation, key.block_bytes, launch == "device");
                        let mut row = Row::new(key, limit);
                        row.set(*way, rate);
                        rows.push(row);
                    }
                }
            }
        }
        for row in &rows {
            result(outcome::line(row, ways));
        }
        let outcome = Outcome { profile: setting.name, launch, slowdown, rows };
        outcome.summary(ways).into_iter().for_each(result);
        tell(format!(
            "{}, launches of a {launch}: {:.0} seconds",
            setting.name,
            began.elapsed().as_secs_f64()
        ));
        result("");
        outcomes.push(outcome);
    }
    if let Some(prefix) = &arguments.record {
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        std::fs::write(prefix.with_extension("csv"), outcome::csv(&outcomes, ways, &command))?;
        let is_of =
            |chip: &str| outcomes.iter().filter(|outcome| outcome.profile.starts_with(chip)).collect();
        let of_chips: Vec<(&str, Vec<&Outcome>)> = ["a2", "a3"].map(|chip| (chip, is_of(chip))).into();
        let is_one = of_chips.iter().any(|(_, of_chip)| of_chip.len() == outcomes.len());
        for (chip, of_chip) in of_chips.into_iter().filter(|(_, of_chip)| !of_chip.is_empty()) {
            let mut path = prefix.clone().into_os_string();
            path.push(if is_one { ".svg".to_owned() } else { format!("-{chip}.svg") });
            std::fs::write(path, plot::draw(&of_chip, ways))?;
        }
    }
    result(if right { "every byte is right" } else { "BYTES DIFFER" });
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Files of one run.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("mooncake-profile-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    fn write(&self, name: &str, text: &str) -> Result<std::path::PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left in the folder for temporary files does no harm.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// One report, as far as it is looked at.
#[derive(serde::Deserialize)]
struct Seen {
    cells: Vec<SeenCell>,
    #[serde(default)]
    layouts: Vec<SeenLayout>,
    mismatched_bytes: u64,
}

/// A layout of it.
#[derive(serde::Deserialize)]
struct SeenLayout {
    name: String,
    #[serde(flatten)]
    cell: SeenCell,
}

/// A cell of it.
#[derive(serde::Deserialize)]
pub(crate) struct SeenCell {
    operation: String,
    block_bytes: u64,
    batch: u64,
    gigabytes_per_second: f64,
}

fn measure(
    arguments: &Arguments,
    setting: &Setting,
    slowdown: u32,
    launch: &str,
    way: Way,
    directory: &std::path::Path,
    scratch: &Scratch,
) -> Result<Seen> {
    let addresses = scratch.write("hccn.conf", "address_0=29.1.0.10\naddress_1=29.1.0.11\n")?;
    let costs = setting::costs(way == Way::Staged, launch == "device");
    let costs = scratch.write("costs", &costs)?;
    let side = |mode: &str, device: u32| -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--profile_cells", "--json", "--mode", mode, "--local_server_name", "127.0.0.1"]);
        command.args(["--device_logicid", &device.to_string(), "--timeout_ms", &LIMIT_MS.to_string()]);
        for (flag, bytes) in
            [("--block_size", arguments.block_size), ("--batch_bytes", arguments.batch_bytes)]
        {
            if let Some(bytes) = bytes {
                command.args([flag, &bytes.to_string()]);
            }
        }
        // What is long is measured once where both kinds of launches are.
        if arguments.short || (arguments.launch == Launch::Both && launch == "thread") {
            command.arg("--short");
        }
        if let Some(library) = &arguments.library {
            command.arg("--library").arg(library);
        }
        software_npu::give(&mut command, directory);
        command
            .env(
                "CANN_SIM_NAMESPACE",
                format!("profile-{}-{}-{}", std::process::id(), setting.name, way.name()),
            )
            .env("CANN_SIM_PROFILE", setting.name)
            .env("CANN_SIM_SLOWDOWN", slowdown.to_string())
            .env("CANN_SIM_LAUNCH", launch)
            // Messages of the engines cost what the profile says, at the same slow-down.
            .env(
                "MOONCAKE_TRANSFER_CONTROL_LATENCY_US",
                (message_ns(setting.name)? * u64::from(slowdown) / 1000).to_string(),
            )
            .env("MOONCAKE_TRANSFER_HCCN_CONF", &addresses)
            // What takes seconds here takes milliseconds there.
            .env("ASCEND_TRANSFER_TIMEOUT", LIMIT_MS.to_string())
            .env("MC_TRANSFER_TIMEOUT", (LIMIT_MS / 1000).to_string());
        if std::env::var_os("MC_LOG_LEVEL").is_none() {
            command.env("MC_LOG_LEVEL", "WARNING");
        }
        if setting.is_roce {
            command.env("HCCL_INTRA_ROCE_ENABLE", "1");
        }
        if setting.is_two_servers {
            command.env("MOONCAKE_TRANSFER_SERVER_ID", format!("bench-{device}"));
        }
        match way {
            Way::Bare | Way::Direct => command.env("ASCEND_AGGREGATE_ENABLE", "0"),
            Way::Staged | Way::Chosen => command.env("ASCEND_AGGREGATE_ENABLE", "1"),
        }
        .env("MOONCAKE_TRANSFER_COST_TABLE", &costs);
        Ok(command)
    };
    let text = if way == Way::Bare {
        capture(&mut side("bare", 0)?)?
    } else {
        let mut command = side("target", 0)?;
        command.arg("--end_with_input").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut target = Guard(command.spawn().context("cannot start the target")?);
        let name = wait_for_name(&mut target)?;
        let mut initiator = side("initiator", 1)?;
        initiator.args(["--segment_id", &name]);
        if !arguments.use_vram {
            initiator.arg("--nouse_vram");
        }
        let text = capture(&mut initiator)?;
        ensure!(target.stop()?, "the target failed");
        text
    };
    serde_json::from_str(&text).with_context(|| format!("not a report: {text}"))
}

/// The standard output of a program that ends well.
fn capture(command: &mut Command) -> Result<String> {
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start a process")?;
    let mut child = Guard(child);
    let mut text = String::new();
    child.0.stdout.take().context("the output is a pipe")?.read_to_string(&mut text)?;
    let status = child.0.wait()?;
    if !status.success() {
        bail!("a process of the measurement failed: {status}");
    }
    Ok(text)
}
