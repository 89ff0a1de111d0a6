//! A store in the process: `store COMMAND ARGUMENTS`. Values are COUNT stretches of BYTES from ADDRESS on, each cut
//! into PIECES; their keys are `PREFIX/0`, `PREFIX/1` and so on. The answer has one number a key.

use std::sync::{Arc, Mutex};

use mooncake::config::Config;
use mooncake::engine::TransferFailure;
use mooncake::store::{Failure, Outcome, ReplicateConfig, Store, StoreOptions};

use crate::Peer;

static STORE: Mutex<Option<Arc<Store>>> = Mutex::new(None);

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("\"{word}\" is no number of the right kind"))
}

fn store() -> Arc<Store> {
    STORE.lock().unwrap().clone().expect("store setup comes first")
}

fn failed(failure: Failure) -> TransferFailure {
    failure.to_error().into()
}

/// Keys and pieces of a command's values.
struct Values {
    names: Vec<String>,
    pieces: Vec<Vec<(u64, u64)>>,
}

impl Values {
    fn of(words: &[&str]) -> Self {
        let [prefix, count, address, bytes, pieces] = words else {
            panic!("values are PREFIX COUNT ADDRESS BYTES PIECES, not {words:?}")
        };
        let (count, address, bytes, pieces): (u64, u64, u64, u64) =
            (number(count), number(address), number(bytes), number(pieces));
        let names = (0..count).map(|index| format!("{prefix}/{index}")).collect();
        let length = bytes.div_ceil(pieces);
        let cut = |start: u64| {
            (0..pieces)
                .map(|piece| (start + piece * length, length.min(bytes - (piece * length).min(bytes))))
                .filter(|(_, length)| *length > 0)
                .collect()
        };
        Self { names, pieces: (0..count).map(|index| cut(address + index * bytes)).collect() }
    }

    fn keys(&self) -> Vec<&[u8]> {
        self.names.iter().map(|name| name.as_bytes()).collect()
    }

    fn pieces(&self) -> Vec<&[(u64, u64)]> {
        self.pieces.iter().map(Vec::as_slice).collect()
    }
}

fn numbers<T>(results: Vec<Outcome<T>>, good: impl Fn(T) -> i64) -> String {
    let words: Vec<String> = results
        .into_iter()
        .map(|result| match result {
            Ok(value) => good(value).to_string(),
            Err(failure) => {
                log::warn!("{failure}");
                failure.code().0.to_string()
            }
        })
        .collect();
    words.join(" ")
}

/// Runs one command; the values of the answer.
pub fn run(peer: &Peer, words: &[&str]) -> Result<String, TransferFailure> {
    Ok(match words {
        ["setup", name, segment, protocol, engine, master] => {
            let options = StoreOptions {
                local_hostname: (*name).to_owned(),
                global_segment_size_bytes: number(segment),
                protocol: (*protocol).to_owned(),
                master_server_address: (*master).to_owned(),
                engine: (*engine == "shared").then(|| Arc::clone(&peer.engine)),
                config: Config::from_env(),
                ..StoreOptions::default()
            };
            let made = Store::setup(options).map_err(failed)?;
            let name = made.hostname().to_owned();
            *STORE.lock().unwrap() = Some(made);
            name
        }
        ["put", replicas, rest @ ..] => {
            let values = Values::of(rest);
            let config = ReplicateConfig { replica_num: number(replicas), ..ReplicateConfig::default() };
            let results = store().batch_put_from_multi_buffers(&values.keys(), &values.pieces(), &config);
            numbers(results, |()| 0)
        }
        ["get", rest @ ..] => {
            let values = Values::of(rest);
            let results = store().batch_get_into_multi_buffers(&values.keys(), &values.pieces());
            numbers(results, |bytes| i64::try_from(bytes).unwrap())
        }
        ["exist", prefix, count] => {
            let values = Values::of(&[*prefix, *count, "0", "1", "1"]);
            numbers(store().batch_is_exist(&values.keys()), i64::from)
        }
        ["register", address, bytes] => {
            store().register_buffer(number(address), number(bytes)).map_err(failed)?;
            String::new()
        }
        ["health"] => store().health().code().to_string(),
        ["close"] => {
            store().close();
            String::new()
        }
        other => panic!("no such command of the store: {other:?}"),
    })
}
