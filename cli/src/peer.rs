//! `mooncake probe`: is there an engine behind a name?

use std::process::ExitCode;
use std::time::Instant;

use mooncake::config::Config;
use mooncake::deadline::Deadline;
use mooncake::endpoint::Endpoint;
use mooncake::error::Result;
use mooncake::handshake;

use crate::console::{result, tell};

/// Asks once, within the time that MC_HANDSHAKE_CONNECT_TIMEOUT allows.
pub(crate) fn probe(name: &str) -> ExitCode {
    let started = Instant::now();
    match ask(name) {
        Ok(()) => {
            result(format!("{name} answers, after {:.1} ms", started.elapsed().as_secs_f64() * 1e3));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn ask(name: &str) -> Result<()> {
    let config = Config::from_env();
    let peer: Endpoint = name.parse()?;
    handshake::probe(&peer, &config, Deadline::after(config.handshake_connect_timeout))
}
