//! A store in etcd, by the JSON gateway that every etcd of version 3 has on its client port.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use ureq::Agent;

use super::http::{Method, agent, exchange};
use super::service::Store;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::error::{Code, Error, Result, Stage};
use crate::segment::json as text;

/// Port of an address that has none.
const DEFAULT_PORT: u16 = 2379;

/// The members of a cluster, asked in order.
pub(super) struct Etcd {
    agent: Agent,
    members: Vec<Endpoint>,
    limit_bytes: u64,
}

/// What a range answers, as far as it is of use.
#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    #[serde(default)]
    value: String,
}

impl Etcd {
    /// The cluster at `host:port`, several separated by `;` or `,`.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for an address that cannot be read.
    pub(super) fn new(uri: &str, config: &Config) -> Result<Self> {
        let rest = uri.strip_prefix("etcd://").unwrap_or(uri);
        let members = rest
            .split([';', ','])
            .map(|member| {
                let member: Endpoint = member.trim().trim_end_matches('/').parse()?;
                let port = member.port.unwrap_or(DEFAULT_PORT);
                Ok(member.with_port(port))
            })
            .collect::<Result<Vec<_>>>()?;
        // Values travel in base64, a third longer, with some JSON around.
        let value_bytes = u64::try_from(config.handshake_max_length_bytes).unwrap_or(u64::MAX / 2);
        Ok(Self { agent: agent(), members, limit_bytes: value_bytes.saturating_mul(2) })
    }

    /// Asks the first member that answers.
    fn ask(&self, call: &str, body: &serde_json::Value, deadline: Deadline) -> Result<Vec<u8>> {
        let body = body.to_string().into_bytes();
        let mut last = Error::new(Code::Metadata, Stage::Resolve, "no member of the etcd cluster is known");
        for member in &self.members {
            let url = format!("http://{}/v3/kv/{call}", member.session());
            match exchange(&self.agent, &url, &Method::Post(&body), self.limit_bytes, deadline) {
                Ok(answer) if answer.status == 200 => return Ok(answer.body),
                Ok(answer) => {
                    let said: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
                    last = Error::new(
                        Code::Metadata,
                        Stage::Resolve,
                        format!("etcd at {} answers {}: {}", member.session(), answer.status, said.trim()),
                    );
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Store for Etcd {
    fn get(&self, key: &str, deadline: Deadline) -> Result<Option<Vec<u8>>> {
        let answer = self.ask("range", &json!({ "key": STANDARD.encode(key) }), deadline)?;
        let range: Range = text::parse(&answer, "etcd's answer", Stage::Resolve)?;
        let Some(pair) = range.kvs.into_iter().next() else { return Ok(None) };
        STANDARD.decode(pair.value).map(Some).map_err(|error| {
            Error::new(
                Code::MalformedJson,
                Stage::Resolve,
                format!("etcd's value of {key} is no base64: {error}"),
            )
        })
    }

    fn put(&self, key: &str, value: &[u8], deadline: Deadline) -> Result<()> {
        // Upstream ends values with a line feed here, unlike over HTTP.
        let value = [value.trim_ascii_end(), b"\n"].concat();
        let body = json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) });
        self.ask("put", &body, deadline).map(drop)
    }

    fn delete(&self, key: &str, deadline: Deadline) -> Result<()> {
        self.ask("deleterange", &json!({ "key": STANDARD.encode(key) }), deadline).map(drop)
    }

    fn address(&self) -> Endpoint {
        self.members.first().cloned().unwrap_or_else(|| Endpoint {
            host: "localhost".to_owned(),
            port: Some(DEFAULT_PORT),
            npu: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_separated_as_upstream_has_it() {
        let members = |uri: &str| -> Vec<String> {
            Etcd::new(uri, &Config::default()).unwrap().members.iter().map(Endpoint::session).collect()
        };
        assert_eq!(members("etcd://a:1;b:2,[::1]:3"), ["a:1", "b:2", "[::1]:3"]);
        assert_eq!(members("a"), ["a:2379"]);
        assert!(Etcd::new("etcd://", &Config::default()).is_err());
        assert!(Etcd::new("etcd://a:1;;b:2", &Config::default()).is_err());
    }
}
