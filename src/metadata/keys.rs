//! The keys and values that upstream keeps in a metadata service.

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::error::{Code, Error, Result, Stage};
use crate::segment::json;

/// Upstream's keys, with or without the identifier of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// Where the handshake listener of a name is.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    ip_or_host_name: String,
    rpc_port: u16,
}

impl Keys {
    pub(super) fn new(cluster: Option<&str>) -> Self {
        let cluster = cluster.map(|id| id.trim_end_matches('/')).filter(|id| !id.is_empty());
        Self { prefix: cluster.map_or_else(|| "mooncake/".to_owned(), |id| format!("mooncake/{id}/")) }
    }

    /// Key of a segment's descriptor. A name with a slash is a path of its own.
    pub(super) fn segment(&self, name: &str) -> String {
        if name.contains('/') {
            format!("{}{name}", self.prefix)
        } else {
            format!("{}ram/{name}", self.prefix)
        }
    }

    /// Key of the place of a name's handshake listener.
    pub(super) fn place(&self, name: &str) -> String {
        format!("{}rpc_meta/{name}", self.prefix)
    }
}

/// The value of a place.
pub(super) fn encode_place(host: &str, port: u16) -> Result<Vec<u8>> {
    serde_json::to_vec(&Place { ip_or_host_name: host.to_owned(), rpc_port: port }).map_err(|error| {
        Error::new(Code::Internal, Stage::Configure, format!("a place cannot be written: {error}"))
    })
}

/// Reads the value of a place.
pub(super) fn decode_place(bytes: &[u8], name: &str) -> Result<Endpoint> {
    let place: Place = json::parse(bytes, "the place of a handshake listener", Stage::Resolve)
        .map_err(|error| error.peer(name))?;
    Endpoint::new(&place.ip_or_host_name, Some(place.rpc_port)).map_err(|error| error.peer(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_upstreams() {
        let keys = Keys::new(None);
        assert_eq!(keys.segment("tgtname"), "mooncake/ram/tgtname");
        assert_eq!(keys.segment("a/b"), "mooncake/a/b");
        assert_eq!(keys.place("h:1"), "mooncake/rpc_meta/h:1");
        let keys = Keys::new(Some("blue"));
        assert_eq!(keys.segment("n"), "mooncake/blue/ram/n");
        assert_eq!(keys.place("n"), "mooncake/blue/rpc_meta/n");
        assert_eq!(Keys::new(Some("")).segment("n"), "mooncake/ram/n");
    }

    #[test]
    fn places_are_upstreams() {
        assert_eq!(
            encode_place("127.0.0.1", 21654).unwrap(),
            br#"{"ip_or_host_name":"127.0.0.1","rpc_port":21654}"#
        );
        let place = decode_place(b"{\"ip_or_host_name\":\"::1\",\"rpc_port\":5}\n", "n").unwrap();
        assert_eq!(place.session(), "[::1]:5");
        for bad in [&b"{}"[..], b"[]", b"{\"ip_or_host_name\":\"h\",\"rpc_port\":70000}", b""] {
            assert!(decode_place(bad, "n").is_err());
        }
    }
}
