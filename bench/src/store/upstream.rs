//! Upstream's released store client, by its Python module, at its released master.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Cell, Contender, LENT_BYTES, Measured};
use crate::host::processor_time_of;

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let input = child.stdin.take().context("a pipe")?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Self { child, input, output })
    }

    /// The next line that one of ours wrote; the libraries write there too.
    fn line(&mut self, start: &str) -> Result<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                bail!("upstream's process has ended");
            }
            if line.starts_with(start) {
                return Ok(line.trim().to_owned());
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Deserialize)]
struct Answer {
    calls_us: Vec<f64>,
    elapsed_s: f64,
    failed: u64,
}

/// Upstream's three processes.
pub struct Upstream {
    client: Process,
    owner: Process,
    master: Process,
    set_up: Duration,
}

impl Upstream {
    /// Starts them.
    ///
    /// # Errors
    /// When the wheel does not work here.
    pub fn start(peers: &Path, release: &str) -> Result<Self> {
        let home = peers.join(release);
        let python = || {
            let mut command = Command::new(home.join("bin/python"));
            command.env("LD_LIBRARY_PATH", peers.join("lib")).env("MC_LOG_LEVEL", "ERROR");
            command
        };
        let free =
            || Ok::<_, std::io::Error>(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let port = free()?;
        let master = Process::start(
            Command::new(home.join("bin/upstream_master"))
                .env("LD_LIBRARY_PATH", peers.join("lib"))
                .arg(format!("--rpc_port={port}"))
                .arg(format!("--metrics_port={}", free()?)),
        )?;
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("upstream's master does not start");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("store_upstream.py");
        let address = format!("127.0.0.1:{port}");
        let start = |role: &str, lent: u64| {
            Process::start(python().arg(&script).args([role, &address, &lent.to_string()]))
        };
        let mut owner = start("owner", LENT_BYTES)?;
        owner.line("ready ")?;
        let mut client = start("client", 0)?;
        let ready = client.line("ready ")?;
        let ms: f64 = ready.trim_start_matches("ready ").parse()?;
        Ok(Self { client, owner, master, set_up: Duration::from_secs_f64(ms / 1e3) })
    }

    fn ask(&mut self, command: &Value) -> Result<Answer> {
        writeln!(self.client.input, "{command}")?;
        let answer: Answer = serde_json::from_str(&self.client.line("{")?)?;
        if answer.failed > 0 {
            bail!("{} results of upstream failed in {command}", answer.failed);
        }
        Ok(answer)
    }

    fn processor(&self) -> Duration {
        let all = [&self.client, &self.owner, &self.master];
        all.iter().map(|process| processor_time_of(process.child.id())).sum()
    }
}

impl Contender for Upstream {
    fn name(&self) -> &'static str {
        "upstream"
    }

    fn run(&mut self, cell: &Cell, name: &str, limit: Duration) -> Result<Measured> {
        let command = json!({
            "operation": cell.operation.name(), "size": cell.size_bytes, "batch": cell.batch, "name": name,
            "keys": cell.keys(), "most_calls": cell.most_calls(), "seconds": limit.as_secs_f64(),
        });
        let before = self.processor();
        let answer = self.ask(&command)?;
        Ok(Measured {
            calls: answer.calls_us.iter().map(|us| Duration::from_secs_f64(us / 1e6)).collect(),
            elapsed: Duration::from_secs_f64(answer.elapsed_s),
            processor: self.processor().saturating_sub(before),
        })
    }

    fn clear(&mut self) -> Result<()> {
        self.ask(&json!({"operation": "remove_all"})).map(drop)
    }

    fn close(&mut self) -> Result<Option<(Duration, Duration)>> {
        let answer = self.ask(&json!({"operation": "close"}))?;
        Ok(Some((self.set_up, Duration::from_secs_f64(answer.elapsed_s))))
    }
}
