//! `cann-sim-control`: runs programs on the software NPU, and speaks to those that run.

use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use cann_sim::config_file::Variables;
use cann_sim::fault::control;
use cann_sim::{board, boot_id, settings};
use clap::{Parser, Subcommand};

/// Runs programs on the software NPU, and speaks to those that run.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The processes that share this set of NPUs (default: CANN_SIM_NAMESPACE, else the user id).
    #[arg(long, global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Runs a program on the software NPU; it can be disturbed with `fault` and watched with `calls`.
    Run {
        /// Topology file (else CANN_SIM_CONFIG).
        #[arg(long)]
        config: Option<PathBuf>,
        /// SERVER or SERVER/CONTAINER of the topology file that the program is in (else CANN_SIM_PLACE).
        #[arg(long)]
        place: Option<String>,
        /// Faults from the start, as `fault` takes them.
        #[arg(long, default_value = "")]
        faults: String,
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
    /// Lists the processes that can be spoken to (they run with CANN_SIM_FAULT_SOCKET=1).
    Processes,
    /// Changes the faults of running processes.
    Fault {
        #[command(subcommand)]
        change: Change,
    },
    /// What the processes called: process, function/device and count.
    Calls {
        /// Only this process.
        #[arg(long)]
        process: Option<u32>,
    },
    /// The latest calls: process, microseconds, function/device and answer.
    Log {
        /// Only this process.
        #[arg(long)]
        process: Option<u32>,
        /// How many of each process.
        #[arg(long, default_value_t = 100)]
        latest: usize,
    },
    /// Forgets the calls so far.
    Reset {
        /// Only this process.
        #[arg(long)]
        process: Option<u32>,
    },
    /// Device memory in use: process, server, physical NPU and bytes.
    Memory,
    /// Resources of the cost model that were used: kind, physical NPU (and the other one of a pair), and microseconds of
    /// this machine for which they were reserved (divide by CANN_SIM_SLOWDOWN for model time).
    Cost,
    /// The variables of the software NPU.
    Settings,
}

#[derive(Subcommand)]
enum Change {
    /// Puts these rules in the place of all others.
    Set {
        /// `NAME[/WHERE]=ACTION[@[all:]N[+]]`, joined by ';' (see the crate's module `fault`).
        rules: String,
        /// Only this process; else all of the namespace.
        #[arg(long)]
        process: Option<u32>,
    },
    /// Adds rules.
    Add {
        /// As for `set`.
        rules: String,
        /// Only this process; else all of the namespace.
        #[arg(long)]
        process: Option<u32>,
    },
    /// Removes all rules.
    Clear {
        /// Only this process; else all of the namespace.
        #[arg(long)]
        process: Option<u32>,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(text) => {
            // A reader that has seen enough and closed the pipe is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cann-sim-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String> {
    let arguments = Arguments::parse();
    let namespace = arguments.namespace.unwrap_or_else(|| settings::settings().namespace.clone());
    let mut text = String::new();
    match arguments.action {
        Action::Run { config, place, faults, program } => {
            let mut variables = settings::environment();
            let config =
                config.map(|path| std::path::absolute(path).context("the topology file")).transpose()?;
            let config = config.map(|path| path.display().to_string());
            let given = [
                ("CONFIG", config),
                ("PLACE", place),
                ("FAULTS", Some(faults)),
                ("NAMESPACE", Some(namespace)),
            ];
            for (name, value) in given {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    variables.insert(format!("CANN_SIM_{name}"), value);
                }
            }
            variables.insert("CANN_SIM_FAULT_SOCKET".to_owned(), "1".to_owned());
            if let Some(complaint) = settings::add_config_file(&mut variables).first() {
                bail!("{complaint}");
            }
            return Err(replace_self(variables, &program));
        }
        Action::Processes => {
            for process in control::processes(&namespace)? {
                writeln!(text, "{process}")?;
            }
        }
        Action::Fault { change } => {
            let (process, line) = match change {
                Change::Set { rules, process } => (process, format!("set {rules}")),
                Change::Add { rules, process } => (process, format!("add {rules}")),
                Change::Clear { process } => (process, "clear".to_owned()),
            };
            order(&namespace, process, &line, &mut text)?;
        }
        Action::Reset { process } => order(&namespace, process, "reset", &mut text)?,
        Action::Calls { process } => report(&namespace, process, "calls", &mut text)?,
        Action::Log { process, latest } => report(&namespace, process, &format!("log {latest}"), &mut text)?,
        Action::Memory => {
            for usage in board::usage(&namespace)? {
                let (process, npu, bytes) = (usage.process, usage.npu, usage.bytes);
                writeln!(text, "{process} {} {} {bytes}", npu.server, npu.physical_id)?;
            }
        }
        Action::Cost => {
            for usage in board::resources(&namespace)? {
                let other = usage.other.map_or(String::new(), |other| format!("-{other}"));
                writeln!(text, "{} {}{other} {}", usage.kind, usage.device, usage.busy_ns / 1000)?;
            }
        }
        Action::Settings => {
            for variable in settings::TABLE {
                let default = if variable.default.is_empty() { "nothing" } else { variable.default };
                writeln!(text, "{}\n    {}\n    default: {default}", variable.name, variable.meaning)?;
            }
        }
    }
    Ok(text)
}

/// The process asked for, or all that listen.
fn addressed(namespace: &str, process: Option<u32>) -> Result<Vec<u32>> {
    let all = control::processes(namespace)?;
    match process {
        Some(process) if all.contains(&process) => Ok(vec![process]),
        Some(process) => bail!("process {process} does not listen in the namespace {namespace}"),
        None if all.is_empty() => bail!("no process listens in the namespace {namespace}"),
        None => Ok(all),
    }
}

/// Tells a line to processes; each one must agree.
fn order(namespace: &str, process: Option<u32>, line: &str, text: &mut String) -> Result<()> {
    for process in addressed(namespace, process)? {
        let answer = control::ask(namespace, process, line).with_context(|| format!("process {process}"))?;
        if answer != "ok" {
            bail!("process {process}: {answer}");
        }
        writeln!(text, "{process} ok")?;
    }
    Ok(())
}

/// Prints what processes answer, one item a line.
fn report(namespace: &str, process: Option<u32>, line: &str, text: &mut String) -> Result<()> {
    for process in addressed(namespace, process)? {
        let answer = control::ask(namespace, process, line).with_context(|| format!("process {process}"))?;
        for item in answer.split(';').filter(|item| !item.is_empty()) {
            writeln!(text, "{process} {item}")?;
        }
    }
    Ok(())
}

/// Becomes the program; only a failure comes back.
fn replace_self(variables: Variables, program: &[String]) -> anyhow::Error {
    let Some((name, arguments)) = program.split_first() else {
        return anyhow::anyhow!("no program is given");
    };
    let libraries = match libraries() {
        Ok(path) => path,
        Err(error) => return error,
    };
    let mut paths = vec![libraries];
    paths.extend(variables.get("LD_LIBRARY_PATH").iter().flat_map(env::split_paths));
    let joined = match env::join_paths(paths) {
        Ok(joined) => joined,
        Err(error) => return error.into(),
    };
    if let Some(boot_id) = variables.get("CANN_SIM_BOOT_ID").filter(|text| !text.is_empty())
        && let Err(error) = boot_id::show(boot_id)
    {
        return anyhow::Error::from(error).context("another boot id needs the right to mount");
    }
    let mut command = Command::new(name);
    command.args(arguments).envs(variables).env("LD_LIBRARY_PATH", joined);
    anyhow::Error::from(command.exec()).context(format!("cannot run {name}"))
}

/// The libraries under the vendor's names, beside this program.
fn libraries() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let place = own.parent().context("this program has no directory")?.join("cann-sim");
    if !place.join("libascendcl.so").exists() {
        bail!("{} does not hold the libraries; build the package cann-sim", place.display());
    }
    Ok(place)
}
