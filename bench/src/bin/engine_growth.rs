//! Shows that nothing in the engine grows faster than what it is given: buffers, peers, and requests of a batch.
//!
//! Each line is a number of things and the time one of them takes. Where the cost is linear the time stays the same
//! from the first line of a kind to the last; the program fails when it has grown by more than [`TOLERANCE`], which
//! is far less than the factor that a quadratic cost would show. No NPU is needed: the blocks are of host memory, and
//! both engines are of this process.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use mooncake::config::Config;
use mooncake::engine::{Direction, Engine, EngineOptions, Request};
use mooncake_transfer_bench::console::{result, tell};

/// Sizes of each series: eight times as many in the end as at the beginning.
const STEPS: u64 = 4;
/// How much more one thing may cost at eight times the number. A quadratic cost shows 8.
const TOLERANCE: f64 = 5.0;
/// How often each size is measured; the least time counts, since a machine only ever adds.
const REPEATS: u32 = 5;
/// How often a size that seems too dear is measured once more, on a machine that others use.
const SECOND_LOOKS: u32 = 20;
const BUFFER_BYTES: u64 = 256;
const COLUMNS: &str = "series,count,nanoseconds_each";

/// Measures how the engine's cost grows with buffers, peers and requests.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Append the lines to this file, with the commit
    #[arg(long)]
    record: Option<PathBuf>,
    /// The commit to name in the record
    #[arg(long, default_value = "unknown")]
    commit: String,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

type Measure = fn(u64) -> Result<Duration>;

fn run(arguments: &Arguments) -> Result<bool> {
    result(COLUMNS);
    let series: [(&str, u64, Measure); 4] = [
        ("register one by one", 10_000, registering),
        ("refresh of a peer's buffers", 10_000, refreshing),
        ("requests of a batch over 10000 buffers", 100_000, requesting),
        ("peers opened and used", 1000, peers),
    ];
    let mut lines = Vec::new();
    let mut linear = true;
    for (name, most, measure) in series {
        let mut first = None;
        for step in (0..STEPS).rev() {
            let count = most >> step;
            let mut best = Duration::MAX;
            for _ in 0..REPEATS {
                best = best.min(measure(count)?);
            }
            let each = best.as_secs_f64() * 1e9 / f64::from(u32::try_from(count)?);
            let line = format!("{name},{count},{each:.0}");
            result(&line);
            lines.push(line);
            let mut growth = each / *first.get_or_insert(each);
            for _ in 0..SECOND_LOOKS {
                if step > 0 || growth <= TOLERANCE {
                    break;
                }
                best = best.min(measure(count)?);
                growth = best.as_secs_f64() * 1e9 / f64::from(u32::try_from(count)?) / first.unwrap_or(each);
            }
            if step == 0 && growth > TOLERANCE {
                tell(format!("{name}: one costs {growth:.1} times as much at {count}"));
                linear = false;
            }
        }
    }
    if let Some(path) = &arguments.record {
        let fresh = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if fresh {
            writeln!(file, "commit,{COLUMNS}")?;
        }
        for line in &lines {
            writeln!(file, "{},{line}", arguments.commit)?;
        }
    }
    Ok(linear)
}

fn engine() -> Result<Arc<Engine>> {
    Ok(Engine::new(EngineOptions {
        metadata: "P2PHANDSHAKE".to_owned(),
        local_name: "127.0.0.1".to_owned(),
        device: None,
        auto_discover: false,
        // As many buffers as are published here make a descriptor longer than the default takes.
        config: Config { handshake_max_length_bytes: 128 << 20, ..Config::default() },
    })?)
}

/// Memory in buffers with gaps, so that no two of them touch.
struct Buffers {
    _memory: Vec<u8>,
    start: u64,
    count: u64,
}

impl Buffers {
    fn new(count: u64) -> Result<Self> {
        let memory = vec![0_u8; usize::try_from(count * 2 * BUFFER_BYTES)?];
        let start = u64::try_from(memory.as_ptr().expose_provenance())?;
        Ok(Self { _memory: memory, start, count })
    }

    fn at(&self, place: u64) -> u64 {
        self.start + place % self.count * 2 * BUFFER_BYTES
    }

    fn register(&self, engine: &Engine) -> Result<()> {
        let ranges: Vec<_> = (0..self.count).map(|place| (self.at(place), BUFFER_BYTES)).collect();
        Ok(engine.register_batch(&ranges, "cpu:0")?)
    }
}

fn registering(count: u64) -> Result<Duration> {
    let (engine, buffers) = (engine()?, Buffers::new(count)?);
    let start = Instant::now();
    for place in 0..count {
        engine.register(buffers.at(place), BUFFER_BYTES, "cpu:0")?;
    }
    for place in 0..count {
        engine.unregister(buffers.at(place))?;
    }
    Ok(start.elapsed())
}

fn refreshing(count: u64) -> Result<Duration> {
    let (near, far, buffers) = (engine()?, engine()?, Buffers::new(count)?);
    buffers.register(&far)?;
    near.open_segment(far.name(), true)?;
    let start = Instant::now();
    near.open_segment(far.name(), false)?;
    Ok(start.elapsed())
}

fn requesting(count: u64) -> Result<Duration> {
    let (engine, from, into) = (engine()?, Buffers::new(10_000)?, Buffers::new(10_000)?);
    from.register(&engine)?;
    into.register(&engine)?;
    // A stride without a common divisor: neighbours in the batch are no neighbours in memory.
    let requests: Vec<Request> = (0..count)
        .map(|place| Request {
            direction: Direction::Write,
            local: from.at(place * 7919),
            segment: 0,
            remote: into.at(place * 104_729),
            length_bytes: 64,
        })
        .collect();
    let batch = engine.allocate_batch(requests.len())?;
    let start = Instant::now();
    engine.submit(batch, &requests, None, None)?;
    engine.wait(batch, Duration::from_secs(60))?;
    let took = start.elapsed();
    engine.free_batch(batch)?;
    Ok(took)
}

/// Every address of the loopback network is this machine, so that one listener has as many names as are needed.
fn peers(count: u64) -> Result<Duration> {
    let (near, far, from, into) = (engine()?, engine()?, Buffers::new(1)?, Buffers::new(1)?);
    from.register(&near)?;
    into.register(&far)?;
    let port = far.rpc_port();
    let start = Instant::now();
    let mut requests = Vec::new();
    for place in 0..count {
        let name = format!("127.{}.{}.1:{port}", 1 + place / 250, 1 + place % 250);
        let segment = near.open_segment(&name, true).with_context(|| name)?;
        requests.push(Request {
            direction: Direction::Write,
            local: from.at(0),
            segment,
            remote: into.at(0),
            length_bytes: 64,
        });
    }
    near.transfer(&requests, None, None).map_err(|failure| anyhow!("{}", failure.error))?;
    Ok(start.elapsed())
}
