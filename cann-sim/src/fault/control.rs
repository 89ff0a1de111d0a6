//! The control socket: one line a connection, one line as the answer.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use super::{calls, rule, rules};
use crate::settings::settings;

/// Longest line the control socket takes.
const LINE_LIMIT_BYTES: u64 = 64 << 10;
/// How long either side waits for the other.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

fn prefix(namespace: &str) -> String {
    format!("cann-sim-fault/{namespace}/")
}

/// Listens, in a thread that lives as long as the process.
pub fn listen() -> io::Result<()> {
    let name = format!("{}{}", prefix(&settings().namespace), std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    std::thread::Builder::new().name("cann-sim-fault".to_owned()).spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that goes away or says nothing has no answer to get.
            let _ = serve(&client);
        }
    })?;
    Ok(())
}

fn serve(client: &UnixStream) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_LIMIT))?;
    client.set_write_timeout(Some(CLIENT_LIMIT))?;
    let mut line = String::new();
    BufReader::new(Read::take(client, LINE_LIMIT_BYTES)).read_line(&mut line)?;
    let mut client = client;
    writeln!(client, "{}", answer(line.trim()))
}

fn answer(line: &str) -> String {
    let (verb, text) = line.split_once(' ').unwrap_or((line, ""));
    let change = |apply: fn(Vec<rule::Rule>)| match rule::parse(text) {
        Ok(new) => {
            apply(new);
            "ok".to_owned()
        }
        Err(why) => format!("error {why}"),
    };
    match verb {
        "set" => change(rules::replace),
        "add" => change(rules::add),
        "clear" => change(|_| rules::replace(Vec::new())),
        "calls" => calls::counts(),
        "log" if text.is_empty() => calls::log(usize::MAX),
        "log" => text.parse().map_or_else(|_| format!("error {text} is no number"), calls::log),
        "reset" => {
            calls::reset();
            "ok".to_owned()
        }
        _ => format!("error \"{verb}\" is not set, add, clear, calls, log or reset"),
    }
}

/// The processes of a namespace that listen, in the order of their ids.
pub fn processes(namespace: &str) -> io::Result<Vec<u32>> {
    let wanted = format!("@{}", prefix(namespace));
    let text = std::fs::read_to_string("/proc/net/unix")?;
    let mut found: Vec<u32> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix(&wanted)?.parse().ok())
        .collect();
    // A forked child keeps the socket of a parent that has ended.
    found.retain(|process| Path::new(&format!("/proc/{process}")).exists());
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Sends one line to a process and answers what it says.
pub fn ask(namespace: &str, process: u32, line: &str) -> io::Result<String> {
    let name = format!("{}{process}", prefix(namespace));
    let mut socket = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    socket.set_read_timeout(Some(CLIENT_LIMIT))?;
    socket.set_write_timeout(Some(CLIENT_LIMIT))?;
    writeln!(socket, "{line}")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_answered_with_an_error() {
        assert!(answer("what").starts_with("error"));
        assert!(answer("set x").starts_with("error"));
        assert!(answer("add x=fail:0").starts_with("error"));
        assert!(answer("log many").starts_with("error"));
    }
}
