//! The run without flags: a target and an initiator process on two NPUs, the software one unless a CANN is
//! configured.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::console::{result, tell};
use crate::software_npu;

/// How long the target may take to come up.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to end when asked.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// What a target's line ends with before its name.
const LISTENING: &str = "listening on ";
/// What the initiator's last line begins with.
const CLOSING: &str = "verified ";
/// The engine's log, of which a table wants only what is amiss.
const LOG_LEVEL: &str = "MC_LOG_LEVEL";

/// A child process that does not outlive this one's interest in it.
pub(crate) struct Guard(pub(crate) Child);

impl Guard {
    /// Ends the input, which a target takes as a wish to end, and waits a bounded time.
    pub(crate) fn stop(&mut self) -> Result<bool> {
        drop(self.0.stdin.take());
        let end = Instant::now() + STOP_LIMIT;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the target did not end in {STOP_LIMIT:?}")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Either it has ended, then both do nothing, or it has to be ended.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Runs both processes; the initiator's output is this program's.
///
/// # Errors
/// If a process cannot be started, or the target does not come up.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let simulated = arguments.software_npu || !software_npu::is_cann_configured();
    let software = if simulated {
        let missing = "neither a CANN is configured nor is the software NPU (cann-sim) beside this program";
        Some(software_npu::find().context(missing)?)
    } else {
        None
    };
    let side = |mode: &str, device: i32| -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--suite", "--mode", mode, "--local_server_name", "127.0.0.1"]);
        command.args(["--device_logicid", &device.to_string()]);
        command.args(["--timeout_ms", &arguments.timeout_ms.to_string()]);
        if let Some(library) = &arguments.library {
            command.arg("--library").arg(library);
        }
        if std::env::var_os(LOG_LEVEL).is_none() {
            command.env(LOG_LEVEL, "WARNING");
        }
        if let Some(directory) = &software {
            software_npu::give(&mut command, directory);
        }
        Ok(command)
    };
    let mut initiator = side("initiator", 1)?;
    if arguments.json {
        initiator.arg("--json");
    }
    with_target(&mut side("target", 0)?, |name| {
        initiator.args(["--segment_id", name]);
        initiator
    })
}

/// Starts a target, then the program that `make` makes of its name, and ends the target after that one;
/// success is that of both.
///
/// # Errors
/// If a process cannot be started, or the target does not come up.
pub fn with_target(target: &mut Command, make: impl FnOnce(&str) -> Command) -> Result<ExitCode> {
    let target = target.arg("--end_with_input").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut target = Guard(target.stderr(Stdio::piped()).spawn().context("cannot start the target")?);
    let name = wait_for_name(&mut target)?;
    let mut command = make(&name);
    let initiator = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut initiator = Guard(initiator.context("cannot start the initiator")?);
    let output = initiator.0.stdout.take().context("the initiator's output is a pipe")?;
    // The closing line is kept for the end, so that nothing either process has to say comes behind it.
    let mut closing = None;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line.starts_with(CLOSING) { closing = Some(line) } else { result(line) }
    }
    let status = initiator.0.wait()?;
    let target_ended_well = target.stop()?;
    if !target_ended_well {
        tell("the target failed");
    }
    if let Some(line) = closing {
        result(line);
    }
    Ok(if status.success() && target_ended_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The name the target says it listens on; all else it says is passed on.
pub(crate) fn wait_for_name(target: &mut Guard) -> Result<String> {
    let output = target.0.stderr.take().context("the target's output is a pipe")?;
    let (sender, names) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match line.split_once(LISTENING) {
                // Nobody waits any more for a second name.
                Some((_, name)) => drop(sender.send(name.trim().to_owned())),
                None => tell(format!("target: {line}")),
            }
        }
    });
    match names.recv_timeout(START_LIMIT) {
        Ok(name) => Ok(name),
        Err(mpsc::RecvTimeoutError::Timeout) => bail!("the target did not come up in {START_LIMIT:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the target ended before it listened"),
    }
}
