//! Measures the store between two processes of this host, cell by cell, interleaved with upstream's. See
//! `mooncake_transfer_bench::store`.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use mooncake_transfer_bench::console::{result, tell};
use mooncake_transfer_bench::store::floor::{Floor, serve};
use mooncake_transfer_bench::store::ours::{Ours, store};
use mooncake_transfer_bench::store::upstream::Upstream;
use mooncake_transfer_bench::store::{Cell, Contender, LENT_BYTES, Measured, Operation};

/// Put, get and exist between two processes of this host, beside upstream's released store.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Sizes of a value in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [4 << 10, 64 << 10, 1 << 20, 4 << 20])]
    sizes: Vec<u64>,
    /// Keys of a call
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 128])]
    batches: Vec<u64>,
    /// Time of one contender in one cell and round
    #[arg(long, default_value_t = 250)]
    cell_ms: u64,
    /// Rounds; every contender has its turn in each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The master to measure with; the one beside this program by default
    #[arg(long)]
    master: Option<PathBuf>,
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
    /// Be the owner of the memory, at this master (started by the program itself)
    #[arg(long, hide = true)]
    owner: Option<String>,
}

/// A child that is ended with its value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts our master; gives its address.
fn start_master(arguments: &Arguments) -> Result<(Process, String)> {
    let beside = std::env::current_exe()?.with_file_name("mooncake_master");
    let program = arguments.master.clone().unwrap_or(beside);
    let mut child = Command::new(&program)
        .args(["--rpc_port=0", "--port=0", "--metrics_port=0", "--rpc_address=127.0.0.1"])
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}; build mooncake-master first", program.display()))?;
    let mut lines = BufReader::new(child.stderr.take().context("a pipe")?).lines();
    let process = Process(child);
    for line in &mut lines {
        let line = line?;
        if let Some(word) = line.split_whitespace().find_map(|word| word.strip_prefix("rpc="))
            && line.contains("Master service started")
        {
            let address = word.trim_end_matches(',').to_owned();
            // Its log goes on; nobody reads it, and it must not block on it.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((process, address));
        }
    }
    bail!("the master ended before it said where it listens")
}

/// Starts the owner; gives the port of the floor.
fn start_owner(master: &str) -> Result<(Process, u16)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--owner", master])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("a pipe")?;
    let process = Process(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok((process, line.trim().parse().context("the owner says its port")?))
}

fn be_owner(master: &str) -> Result<()> {
    let _store = store(master, LENT_BYTES)?;
    result(serve()?.to_string());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One turn: what the cell needs is put before and removed after.
fn turn(contender: &mut dyn Contender, cell: &Cell, name: &str, limit: Duration) -> Result<Measured> {
    if !cell.operation.stores() {
        contender.run(&cell.preparation(), name, Duration::ZERO)?;
    }
    let measured = contender.run(cell, name, limit)?;
    contender.clear()?;
    Ok(measured)
}

fn run(arguments: &Arguments) -> Result<()> {
    let (master, address) = start_master(arguments)?;
    let (owner, port) = start_owner(&address)?;
    let mut contenders: Vec<Box<dyn Contender>> =
        vec![Box::new(Ours::new(&address, [owner.0.id(), master.0.id()])?), Box::new(Floor::new(port)?)];
    if let Some(peers) = &arguments.peers {
        match Upstream::start(peers, &arguments.release) {
            Ok(upstream) => contenders.push(Box::new(upstream)),
            Err(error) => tell(format!("without upstream: {error:#}")),
        }
    }
    // All of the memory that is lent is touched once, so that no cell pays for it.
    let touch = Cell { operation: Operation::BatchPutFrom, size_bytes: 4 << 20, batch: 64 };
    for contender in contenders.iter_mut().filter(|contender| contender.takes(&touch)) {
        for part in 0..5 {
            contender.run(&touch, &format!("touch{part}"), Duration::ZERO)?;
        }
        contender.clear()?;
    }
    let mut lines = vec![
        format!(
            "# store_cells, commit {}, upstream {} by its Python module",
            arguments.commit, arguments.release
        ),
        "contender,operation,value_bytes,batch,keys_per_s,gb_per_s,p50_us,p99_us,cpu_us_per_key".to_owned(),
    ];
    let limit = Duration::from_millis(arguments.cell_ms);
    let cells = Cell::all(&arguments.sizes, &arguments.batches);
    for (number, cell) in cells.iter().enumerate() {
        tell(format!(
            "[{}/{}] {} {} x {}",
            number + 1,
            cells.len(),
            cell.operation.name(),
            cell.size_bytes,
            cell.batch
        ));
        let mut seen: Vec<Vec<Measured>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..arguments.rounds {
            for (contender, seen) in contenders.iter_mut().zip(&mut seen) {
                if contender.takes(cell) {
                    seen.push(turn(&mut **contender, cell, &format!("c{number}r{round}"), limit)?);
                }
            }
        }
        for (contender, seen) in contenders.iter().zip(&seen).filter(|(_, seen)| !seen.is_empty()) {
            let of =
                |value: &dyn Fn(&Measured) -> f64| median(&mut seen.iter().map(value).collect::<Vec<_>>());
            let us = |per_cent| of(&|measured| measured.sample().percentile(per_cent).as_secs_f64() * 1e6);
            let keys = of(&|measured| measured.keys_per_second(cell));
            let line = format!(
                "{},{},{},{},{keys:.1},{:.4},{:.1},{:.1},{:.2}",
                contender.name(),
                cell.operation.name(),
                cell.size_bytes,
                cell.batch,
                keys * cell.size_bytes as f64 / 1e9,
                us(50),
                us(99),
                of(&|measured| measured.processor_us_per_key(cell)),
            );
            result(&line);
            lines.push(line);
        }
    }
    for contender in &mut contenders {
        if let Some((set_up, close)) = contender.close()? {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let line =
                format!("# {}: setup {:.1} ms, close {:.1} ms", contender.name(), ms(set_up), ms(close));
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
    let outcome = match &arguments.owner {
        Some(master) => be_owner(master),
        None => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
