//! The active side in each of its forms.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::arena::Verdict;
use crate::arguments::{self, Arguments, Form};
use crate::console::{result, tell};
use crate::layout::{self, QWEN};
use crate::library::{Library, Operation};
use crate::placement::Placement;
use crate::profile;
use crate::report::{self, Cell, LayoutReport, Report};
use crate::session::{Effort, Session, processor_time};
use crate::side::{Role, Side, blocks};
use crate::statistics::{Sample, gigabytes, gigabytes_per_second};
use crate::sweep;

/// Rounds of each block size of the iteration form; its line shows the median.
const ITERATION_EFFORT: Effort =
    Effort { min_rounds: 5, max_rounds: 5, time: Duration::ZERO, warms_up: true };

/// Runs the form that the flags ask for; tells whether every byte was right.
///
/// # Errors
/// If a transfer fails.
pub fn run(library: &Library, arguments: &Arguments) -> Result<bool> {
    if report::throughput(0.0, &arguments.report_unit, 0).is_none() {
        bail!("--report_unit {} is none of GB, GiB, Gb, MB, MiB, Mb, KB, KiB, Kb", arguments.report_unit);
    }
    let side = Side::new(library, arguments, Role::Initiator)?;
    let mut session = Session::open(&side, &arguments.metadata_server, &arguments.segment_id)?;
    let mut verdict = Verdict::default();
    let host_memcpy = host_memcpy();
    let mut layout = None;
    let mut layouts = Vec::new();
    let cells = match arguments.form() {
        Form::Suite => {
            let (cells, read) = suite(&mut session, arguments, host_memcpy, &mut verdict)?;
            layout = Some(read);
            cells
        }
        Form::Iterations => iterations(&mut session, arguments, &mut verdict)?,
        Form::Timed => vec![timed(&mut session, arguments, &mut verdict)?],
        Form::Profile => {
            let (cells, read) = profile::cells(&mut session, arguments, &mut verdict)?;
            layouts = read;
            cells
        }
    };
    drop(session);
    side.unregister()?;
    let report = Report {
        library_version: library.version(),
        library: library.path().display().to_string(),
        host_memcpy_gigabytes_per_second: host_memcpy,
        cells,
        layout,
        layouts,
        verified_bytes: verdict.verified_bytes,
        mismatched_bytes: verdict.mismatched_bytes,
    };
    if let Some(first) = &verdict.first {
        tell(first);
    }
    if arguments.json {
        result(serde_json::to_string_pretty(&report)?);
        tell(report::closing(&verdict));
    } else {
        result(report::closing(&verdict));
    }
    Ok(verdict.mismatched_bytes == 0 && verdict.verified_bytes > 0)
}

fn suite(
    session: &mut Session<'_>,
    arguments: &Arguments,
    host_memcpy: f64,
    verdict: &mut Verdict,
) -> Result<(Vec<Cell>, LayoutReport)> {
    let bar = progress(sweep::CELLS + layout::ROUNDS + 1);
    let show = |line: &str| {
        if !arguments.json {
            bar.suspend(|| result(line));
        }
    };
    if let Some(npu) = &session.side().npu {
        show(&format!("initiator on NPU {} ({}), target {}", npu.id(), npu.chip(), arguments.segment_id));
    }
    show(&format!("for comparison: one thread copies host memory at {host_memcpy:.2} GB/s (GB = 1e9 bytes)"));
    show("");
    show(&report::head());
    let cells = sweep::run(session, &bar, verdict, |cell| show(&report::line(cell)))?;
    let read = layout::run(session, &QWEN, 1, layout::ROUNDS, &bar, verdict)?;
    bar.finish_and_clear();
    show("");
    show(&format!(
        "{}: a request of {} tokens, {} tensors x {} scattered blocks, one batch",
        read.name, read.tokens, read.tensors, read.blocks_per_tensor
    ));
    show(&report::head());
    show(&report::line(&read.cell));
    show(&format!(
        "a request takes {:.2} ms in the median, {:.2} ms in the slowest tenth",
        read.cell.rate.median_us / 1e3,
        read.cell.rate.p90_us / 1e3
    ));
    Ok((cells, read))
}

/// As upstream's Ascend program: one batch of each of several block sizes, the blocks twice their size apart.
fn iterations(session: &mut Session<'_>, arguments: &Arguments, verdict: &mut Verdict) -> Result<Vec<Cell>> {
    let (first_bytes, batch) = blocks(arguments);
    let operation = operation(arguments, Operation::Write);
    let count = arguments.block_iteration.unwrap_or(10);
    let bar = progress(u64::from(count));
    let mut cells = Vec::new();
    for index in 0..count {
        let block_bytes = first_bytes << index;
        bar.set_message(report::size(block_bytes));
        let placement = Placement {
            // Buffer 0 is upstream's warm-up block.
            buffer: usize::try_from(index)? + 1,
            block_bytes,
            batch,
            stride_bytes: 2 * block_bytes,
            start_bytes: 0,
            scattered: false,
        };
        let measured = session.measure(operation, &placement, ITERATION_EFFORT)?;
        let rate = measured.sample.rate(placement.batch_bytes());
        let throughput = throughput(arguments, rate.gigabytes_per_second)?;
        let line = report::iteration_line(rate.median_us, block_bytes, placement.batch_bytes(), &throughput);
        bar.suspend(|| tell(line));
        let cpu = measured.cpu_seconds_per_gigabyte;
        cells.push(report::cell(operation, block_bytes, batch, rate, cpu, &measured.verdict));
        verdict.add(measured.verdict);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(cells)
}

/// As upstream's bench: some threads submit batch after batch for some seconds. The bytes of the last round of
/// each thread are what is verified.
fn timed(session: &mut Session<'_>, arguments: &Arguments, verdict: &mut Verdict) -> Result<Cell> {
    let (block_bytes, batch) = blocks(arguments);
    let operation = operation(arguments, Operation::Read);
    let threads = arguments.threads;
    let whole = Placement {
        buffer: 0,
        block_bytes,
        batch: batch * threads,
        stride_bytes: block_bytes,
        start_bytes: 0,
        scattered: false,
    };
    let mut batches = Vec::new();
    for thread in 0..threads {
        let own = Placement {
            batch,
            stride_bytes: block_bytes * threads,
            start_bytes: block_bytes * thread,
            ..whole
        };
        // The window of a thread's blocks ends behind the last block of the last thread.
        let blocks = own.blocks(0).map(|block| (block.local, block.remote));
        batches.push(session.requests_at(operation, own.buffer, block_bytes, blocks)?);
    }
    session.prepare(operation, &whole, 1)?;
    let side = session.side();
    if let Some(first) = batches.first_mut() {
        side.engine.run(first, side.limit)?;
    }
    let stop = AtomicBool::new(false);
    let bar = progress(arguments.duration);
    let cpu_before = processor_time();
    let start = Instant::now();
    let times = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        let workers: Vec<_> = batches
            .iter_mut()
            .enumerate()
            .map(|(number, requests)| {
                let stop = &stop;
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let mut times = Vec::new();
                    let outcome = loop {
                        match side.engine.run(requests, side.limit) {
                            Ok(time) => times.push(time),
                            Err(error) => break Err(error),
                        }
                        if stop.load(Ordering::Relaxed) {
                            break Ok(times);
                        }
                    };
                    // One worker's failure ends the run.
                    stop.store(true, Ordering::Relaxed);
                    tell(format!("Worker {number} stopped!"));
                    outcome
                })
            })
            .collect();
        for second in 0..arguments.duration {
            let end = start + Duration::from_secs(second + 1);
            while Instant::now() < end && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(
                    Duration::from_millis(10).min(end.saturating_duration_since(Instant::now())),
                );
            }
            bar.inc(1);
        }
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(times) => all.extend(times?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })?;
    let elapsed = start.elapsed();
    let cpu = processor_time().saturating_sub(cpu_before);
    bar.finish_and_clear();
    let count = times.len() as u64;
    let moved = count * whole.block_bytes * batch;
    let speed = gigabytes_per_second(moved, elapsed);
    tell(report::timed_line(elapsed.as_secs_f64(), count, &throughput(arguments, speed)?));
    let found = session.verify(operation, &whole, 1)?;
    let mut rate = Sample::new(times).rate(block_bytes * batch);
    rate.gigabytes_per_second = speed;
    let cell =
        report::cell(operation, block_bytes, batch, rate, cpu.as_secs_f64() / gigabytes(moved), &found);
    verdict.add(found);
    Ok(cell)
}

fn operation(arguments: &Arguments, default: Operation) -> Operation {
    arguments.operation.map_or(default, |operation| match operation {
        arguments::Operation::Read => Operation::Read,
        arguments::Operation::Write => Operation::Write,
    })
}

fn throughput(arguments: &Arguments, gigabytes_per_second: f64) -> Result<String> {
    report::throughput(gigabytes_per_second * 1e9, &arguments.report_unit, arguments.report_precision)
        .context("an unknown unit")
}

/// A bar on a terminal, nothing elsewhere.
fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// What one thread copies from host memory to host memory, in 1e9 bytes per second.
fn host_memcpy() -> f64 {
    const BYTES: usize = 64 << 20;
    let source = vec![1_u8; BYTES];
    let mut target = vec![2_u8; BYTES];
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        target.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&mut target);
        times.push(start.elapsed());
    }
    gigabytes_per_second(BYTES as u64, Sample::new(times).percentile(50))
}
