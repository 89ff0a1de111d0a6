//! Other projects' released engines, by their Python modules at both ends: upstream's, and NIXL.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::contender::Contender;
use super::{Cell, Measured, processor_time_of};

/// One of the two processes.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(python: &Path, script: &str, libraries: &Path, role: &str) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let mut child = Command::new(python)
            .arg(script)
            .arg(role)
            .env("LD_LIBRARY_PATH", libraries)
            .env("MC_LOG_LEVEL", "ERROR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take().context("a pipe")?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Self { child, input, output })
    }

    fn line(&mut self) -> Result<String> {
        // Their logs come by the same pipe.
        let mut line = String::new();
        while !line.starts_with("@ ") {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                bail!("its process has ended");
            }
        }
        Ok(line.trim_start_matches("@ ").trim().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pair of processes.
pub struct Pair {
    contender: &'static str,
    most_threads: u64,
    initiator: Process,
    target: Process,
    name: String,
    remote: u64,
}

#[derive(Deserialize)]
struct Answer {
    calls_us: Vec<f64>,
    elapsed_s: f64,
    failed: bool,
}

impl Pair {
    /// Upstream's engine of a release.
    ///
    /// # Errors
    /// When the wheel does not work here.
    pub fn upstream(peers: &Path, release: &str) -> Result<Self> {
        Self::start("upstream", u64::MAX, peers, release, "upstream_cells.py")
    }

    /// NIXL. Its agents are for one thread each.
    ///
    /// # Errors
    /// When the wheel does not work here.
    pub fn nixl(peers: &Path) -> Result<Self> {
        Self::start("nixl", 1, peers, "nixl", "nixl_cells.py")
    }

    fn start(
        contender: &'static str,
        most_threads: u64,
        peers: &Path,
        environment: &str,
        script: &str,
    ) -> Result<Self> {
        let python = peers.join(environment).join("bin/python");
        let libraries = peers.join("lib");
        let mut target = Process::start(&python, script, &libraries, "target")?;
        let line = target.line()?;
        let (name, remote) = line.split_once(' ').context("a name and an address")?;
        let (name, remote) = (name.to_owned(), remote.parse()?);
        let mut initiator = Process::start(&python, script, &libraries, "initiator")?;
        initiator.line()?;
        Ok(Self { contender, most_threads, initiator, target, name, remote })
    }
}

impl Contender for Pair {
    fn name(&self) -> &'static str {
        self.contender
    }

    fn takes(&self, cell: &Cell) -> bool {
        cell.threads <= self.most_threads
    }

    fn run(&mut self, cell: &Cell, limit: Duration) -> Result<Measured> {
        let pids = [self.initiator.child.id(), self.target.child.id()];
        let command = json!({
            "target": self.name, "remote": self.remote, "write": cell.write, "block": cell.block_bytes,
            "batch": cell.batch, "threads": cell.threads, "seconds": limit.as_secs_f64(),
        });
        let before: Duration = pids.iter().map(|pid| processor_time_of(*pid)).sum();
        writeln!(self.initiator.input, "{command}")?;
        let answer: Answer = serde_json::from_str(&self.initiator.line()?)?;
        let after: Duration = pids.iter().map(|pid| processor_time_of(*pid)).sum();
        if answer.failed {
            bail!("a transfer of {} failed", self.contender);
        }
        Ok(Measured {
            calls: answer.calls_us.iter().map(|us| Duration::from_secs_f64(us / 1e6)).collect(),
            elapsed: Duration::from_secs_f64(answer.elapsed_s),
            processor: after.saturating_sub(before),
        })
    }
}
