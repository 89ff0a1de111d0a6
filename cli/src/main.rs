//! `mooncake`: one command for what a user asks before, beside and after a transfer.
//!
//! Results go to standard output, remarks to standard error; colour only on a terminal. Exit codes: 0 all is well,
//! 1 something is wrong with what was asked about, 2 the command line is wrong.

mod console;
mod costs;
mod doctor;
mod peer;
mod pool;
mod programs;
mod variables;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Moves KV caches between Ascend NPUs: checks, settings, peers and benchmark of mooncake-transfer.
#[derive(Parser)]
#[command(name = "mooncake", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says what on this machine helps or hinders transfers, and what to do about it.
    Doctor {
        /// Prints the findings as JSON.
        #[arg(long)]
        json: bool,
        /// Lists every function of CANN with the file that has it.
        #[arg(long)]
        symbols: bool,
    },
    /// Lists every environment variable that is read: unit, default, range, value now, meaning.
    Env {
        /// Prints the table as JSON.
        #[arg(long)]
        json: bool,
        /// Lists also the variables that are accepted without an effect.
        #[arg(long)]
        all: bool,
        /// Prints the section of the README.
        #[arg(long, conflicts_with_all = ["json", "all"])]
        markdown: bool,
    },
    /// Prints what transfers between NPUs are taken to cost, by which small blocks are gathered or not; with blocks, which
    /// way they would go here, and by which numbers.
    Costs {
        #[command(flatten)]
        question: costs::Question,
    },
    /// Asks whether the engine of a name (host:port) answers.
    Probe {
        /// The session name, as get_rpc_port tells it: host:port.
        name: String,
    },
    /// Serves metadata over HTTP, for engines whose metadata server is http://HOST:PORT/metadata. It is the service that
    /// mooncake_master contains, which runs with it.
    MetadataServer {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1")]
        host: String,
        /// Port to listen on.
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// More flags of mooncake_master.
        #[arg(last = true)]
        flags: Vec<OsString>,
    },
    /// Shows a pool: fill, objects, clients, hits and evictions, as its master counts them.
    Stats {
        #[command(flatten)]
        master: pool::Master,
    },
    /// Lists the keys of a pool that can be read, one a line.
    Keys {
        #[command(flatten)]
        master: pool::Master,
        /// Only keys that contain this text.
        #[arg(default_value = "")]
        part: String,
    },
    /// Lists the segments of a pool: who lends what, and how full it is.
    Segments {
        #[command(flatten)]
        master: pool::Master,
    },
    /// Moves memory between two processes on two NPUs (the software NPU's, unless a CANN is configured).
    Demo,
    /// Runs transfer_engine_bench with its own flags.
    #[command(disable_help_flag = true)]
    Bench {
        /// Flags of transfer_engine_bench; --help lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Doctor { json, symbols } => doctor::run(json, symbols),
        Command::Env { markdown: true, .. } => variables::markdown(),
        Command::Env { json, all, .. } => variables::run(json, all),
        Command::Costs { question } => costs::run(&question),
        Command::Probe { name } => peer::probe(&name),
        Command::MetadataServer { host, port, flags } => {
            let mut all: Vec<OsString> = vec![
                "--enable_http_metadata_server=true".into(),
                format!("--http_metadata_server_host={host}").into(),
                format!("--http_metadata_server_port={port}").into(),
            ];
            all.extend(flags);
            programs::replace_by("mooncake_master", &all)
        }
        Command::Stats { master } => pool::run(&master, &pool::Question::Stats),
        Command::Keys { master, part } => pool::run(&master, &pool::Question::Keys { part }),
        Command::Segments { master } => pool::run(&master, &pool::Question::Segments),
        Command::Demo => programs::replace_by("transfer_engine_bench", &[]),
        Command::Bench { flags } => programs::replace_by("transfer_engine_bench", &flags),
    }
}
