//! A look at a pool from the command line, over the master's admin HTTP: `stats`, `keys`, `segments`.
//!
//! `mooncake stats|keys|segments` is this command.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command prints

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::Value;

/// Longest answer that is read: the keys of some ten million objects.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// Looks at a pool over the admin HTTP of its master.
#[derive(Parser)]
#[command(version, name = "mooncake_pool")]
struct Command {
    /// Host and port of the master's admin HTTP server.
    #[arg(long, global = true, default_value = "127.0.0.1:9003")]
    admin: String,
    /// How long the master may take, in seconds.
    #[arg(long, global = true, default_value_t = 10)]
    timeout_seconds: u64,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Fill, objects, clients, hits and evictions.
    Stats,
    /// The keys that can be read, one a line.
    Keys {
        /// Only keys that contain this text.
        #[arg(default_value = "")]
        part: String,
    },
    /// Who lends what, and how full it is.
    Segments,
}

fn main() -> ExitCode {
    let command = Command::parse();
    match run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mooncake_pool: {}: {error}", command.admin);
            ExitCode::FAILURE
        }
    }
}

fn get(command: &Command, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let limit = Duration::from_secs(command.timeout_seconds.max(1));
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address").into();
    for address in command.admin.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => return request(stream, &command.admin, path, limit),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn request(
    mut stream: TcpStream,
    host: &str,
    path: &str,
    limit: Duration,
) -> Result<String, Box<dyn std::error::Error>> {
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("not an HTTP server")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(format!("{path}: status {}", status.unwrap_or("none")).into()),
    }
}

fn run(command: &Command) -> Result<(), Box<dyn std::error::Error>> {
    match &command.what {
        What::Stats => stats(command),
        What::Keys { part } => {
            let body = get(command, "/get_all_keys")?;
            let keys: Vec<&str> = body.lines().filter(|key| key.contains(part.as_str())).collect();
            if command.json {
                println!("{}", Value::from(keys));
            } else {
                keys.iter().for_each(|key| println!("{key}"));
            }
            Ok(())
        }
        What::Segments => segments(command),
    }
}

fn stats(command: &Command) -> Result<(), Box<dyn std::error::Error>> {
    let page = get(command, "/metrics")?;
    let value = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    let rows = [
        ("used_bytes", value("master_allocated_bytes")),
        ("capacity_bytes", value("master_total_capacity_bytes")),
        ("keys", value("master_key_count")),
        ("soft_pinned_keys", value("master_soft_pin_key_count")),
        ("clients", value("master_active_clients")),
        ("suspect_clients_so_far", value("master_clients_suspected_total")),
        ("expired_clients_so_far", value("master_clients_expired_total")),
        ("reads", value("total_get_nums_")),
        ("hits", value("valid_get_nums_")),
        ("hit_bytes", value("mem_cache_hit_bytes_total")),
        ("evicted_keys", value("master_evicted_key_count")),
        ("evicted_bytes", value("master_evicted_size_bytes")),
        ("puts_without_space", value("master_put_start_alloc_failures_total")),
        ("metadata_bytes", value("master_metadata_bytes")),
        ("release_mismatches", value("master_release_mismatches_total")),
    ];
    if command.json {
        let map: serde_json::Map<String, Value> =
            rows.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        println!("{}", Value::Object(map));
    } else {
        rows.iter().for_each(|(name, value)| println!("{name:24} {value}"));
    }
    Ok(())
}

fn segments(command: &Command) -> Result<(), Box<dyn std::error::Error>> {
    let body = get(command, "/get_segments_detail")?;
    if command.json {
        println!("{body}");
        return Ok(());
    }
    let detail: Value = serde_json::from_str(&body)?;
    println!(
        "{:32} {:24} {:>16} {:>16} {:>7}  status",
        "name", "endpoint", "used_bytes", "size_bytes", "used"
    );
    for segment in detail.get("segments").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| segment.get(name).and_then(Value::as_str).unwrap_or("?");
        let number = |name: &str| segment.get(name).and_then(Value::as_u64).unwrap_or(0);
        let percent = segment.get("allocator_usage_percent").and_then(Value::as_f64).unwrap_or(0.0);
        let suspect = segment.get("suspect").and_then(Value::as_bool).unwrap_or(false);
        println!(
            "{:32} {:24} {:>16} {:>16} {percent:>6.1}%  {}{}",
            text("segment_name"),
            text("te_endpoint"),
            number("allocator_used_bytes"),
            number("size_bytes"),
            text("status"),
            if suspect { " (suspect)" } else { "" }
        );
    }
    Ok(())
}
