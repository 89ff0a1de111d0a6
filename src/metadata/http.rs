//! A store behind plain HTTP, as upstream's metadata servers offer it: `GET`, `PUT` and `DELETE` of `?key=`.

use std::time::Duration;

use ureq::Agent;

use super::service::Store;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::error::{Code, Error, Result, Stage};

/// Upstream's time limit for a connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// Upstream's time limit for a whole exchange.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(3);
/// Port of an address that has none.
const DEFAULT_PORT: u16 = 80;

/// A client that stays connected.
pub(super) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        // A proxy for web pages is no way to a service of the cluster.
        .proxy(None)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_LIMIT))
        .timeout_global(Some(EXCHANGE_LIMIT))
        .build()
        .into()
}

/// An answer: its status and its body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// What to do with a body.
pub(super) enum Method<'a> {
    Get,
    Put(&'a [u8]),
    Post(&'a [u8]),
    Delete,
}

/// One exchange by the deadline; an answer of any status is an answer.
pub(super) fn exchange(
    agent: &Agent,
    url: &str,
    method: &Method<'_>,
    limit_bytes: u64,
    deadline: Deadline,
) -> Result<Answer> {
    let limit = EXCHANGE_LIMIT.min(deadline.remaining());
    if limit.is_zero() {
        return Err(Error::new(Code::Timeout, Stage::Resolve, "no time left for the metadata service"));
    }
    const JSON: (&str, &str) = ("Content-Type", "application/json");
    let timed = Some(limit);
    let sent = match method {
        Method::Get => agent.get(url).config().timeout_global(timed).build().call(),
        Method::Delete => agent.delete(url).config().timeout_global(timed).build().call(),
        Method::Put(body) => {
            agent.put(url).config().timeout_global(timed).build().header(JSON.0, JSON.1).send(*body)
        }
        Method::Post(body) => {
            agent.post(url).config().timeout_global(timed).build().header(JSON.0, JSON.1).send(*body)
        }
    };
    let failed = |error: &ureq::Error| {
        let code = if matches!(error, ureq::Error::Timeout(_)) { Code::Timeout } else { Code::Metadata };
        Error::new(code, Stage::Resolve, format!("the metadata service at {url} does not answer: {error}"))
            .advice("check the address of the metadata service and that it runs")
    };
    let mut response = sent.map_err(|error| failed(&error))?;
    let status = response.status().as_u16();
    let body =
        response.body_mut().with_config().limit(limit_bytes).read_to_vec().map_err(|error| failed(&error))?;
    Ok(Answer { status, body })
}

/// The store behind one URL.
pub(super) struct Http {
    agent: Agent,
    base: String,
    address: Endpoint,
    limit_bytes: u64,
}

impl Http {
    /// The store at `http://host[:port]/path`.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for an address that cannot be read.
    pub(super) fn new(uri: &str, config: &Config) -> Result<Self> {
        let rest = uri.strip_prefix("http://").unwrap_or(uri);
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let address: Endpoint = authority.parse()?;
        let port = address.port.unwrap_or(DEFAULT_PORT);
        Ok(Self {
            agent: agent(),
            base: uri.trim_end_matches('/').to_owned(),
            address: address.with_port(port),
            limit_bytes: u64::try_from(config.handshake_max_length_bytes).unwrap_or(u64::MAX),
        })
    }

    fn ask(&self, key: &str, method: &Method<'_>, deadline: Deadline) -> Result<Answer> {
        let url = format!("{}?key={}", self.base, percent_encoded(key));
        exchange(&self.agent, &url, method, self.limit_bytes, deadline)
    }

    fn refused(&self, what: &str, answer: &Answer) -> Error {
        let text: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
        Error::new(
            Code::Metadata,
            Stage::Resolve,
            format!(
                "the metadata service at {} answers {} to {what}: {}",
                self.base,
                answer.status,
                text.trim()
            ),
        )
    }
}

impl Store for Http {
    fn get(&self, key: &str, deadline: Deadline) -> Result<Option<Vec<u8>>> {
        let answer = self.ask(key, &Method::Get, deadline)?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            _ => Err(self.refused(&format!("a look at {key}"), &answer)),
        }
    }

    fn put(&self, key: &str, value: &[u8], deadline: Deadline) -> Result<()> {
        // Upstream writes compact JSON without the line feed of its other stores.
        let answer = self.ask(key, &Method::Put(value.trim_ascii_end()), deadline)?;
        if answer.status == 200 { Ok(()) } else { Err(self.refused(&format!("a value for {key}"), &answer)) }
    }

    fn delete(&self, key: &str, deadline: Deadline) -> Result<()> {
        let answer = self.ask(key, &Method::Delete, deadline)?;
        match answer.status {
            200 | 404 => Ok(()),
            _ => Err(self.refused(&format!("the removal of {key}"), &answer)),
        }
    }

    fn address(&self) -> Endpoint {
        self.address.clone()
    }
}

/// Everything but letters, digits and `-_.~` as `%XX`, as curl writes keys.
fn percent_encoded(key: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_in_the_recorded_session() {
        assert_eq!(
            percent_encoded("mooncake/rpc_meta/ininame:17777"),
            "mooncake%2Frpc_meta%2Fininame%3A17777"
        );
        assert_eq!(percent_encoded("a b\u{e9}"), "a%20b%C3%A9");
    }

    #[test]
    fn addresses_are_found_in_urls() {
        let address = |uri: &str| Http::new(uri, &Config::default()).unwrap().address.session();
        assert_eq!(address("http://127.0.0.1:8080/metadata"), "127.0.0.1:8080");
        assert_eq!(address("http://[::1]:81/metadata"), "[::1]:81");
        assert_eq!(address("http://meta/"), "meta:80");
        assert!(Http::new("http://", &Config::default()).is_err());
    }
}
