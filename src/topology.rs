//! What memory this machine has and which network cards lie near it, in upstream's JSON form.
//!
//! The form is an object: key = location (`cpu:N`, `npu:N`), value = `[preferred cards, other cards]`, each a
//! list of names (upstream `topology.h`; the same text is `priority_matrix` in descriptors and the first
//! argument of `installTransport`). Without RDMA cards both lists are empty. NPU links are not cards of the
//! host and are reported by [`Links`] instead.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Code, Error, Result, Stage};

/// Preferred and other card names of one location.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cards {
    /// Cards on the same node.
    pub preferred: Vec<String>,
    /// All other cards.
    pub other: Vec<String>,
}

/// Locations of this machine and the cards near them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    locations: BTreeMap<String, Cards>,
}

impl Topology {
    /// Reads the NUMA nodes under `node_root` (normally `/sys/devices/system/node`); a machine without any is
    /// one node, as upstream reports it.
    #[must_use]
    pub fn discover(node_root: &Path) -> Self {
        let mut locations = BTreeMap::new();
        if let Ok(entries) = std::fs::read_dir(node_root) {
            for entry in entries.flatten() {
                let name = entry.file_name();
                let node = name.to_str().and_then(|name| name.strip_prefix("node"));
                if let Some(Ok(node)) = node.map(str::parse::<u32>) {
                    locations.insert(format!("cpu:{node}"), Cards::default());
                }
            }
        }
        if locations.is_empty() {
            locations.insert("cpu:0".to_owned(), Cards::default());
        }
        Self { locations }
    }

    /// Adds a location without cards (an NPU).
    pub fn add_location(&mut self, location: String) {
        self.locations.entry(location).or_default();
    }

    /// Parses upstream's JSON text.
    ///
    /// # Errors
    /// [`Code::MalformedJson`] when the text is no JSON, or a value is not a pair of lists of names.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = |what: String| Error::new(Code::MalformedJson, Stage::Configure, what);
        let value: Value = serde_json::from_str(text)
            .map_err(|error| malformed(format!("priority matrix is not JSON: {error}")))?;
        let object =
            value.as_object().ok_or_else(|| malformed("priority matrix is not a JSON object".to_owned()))?;
        let mut locations = BTreeMap::new();
        for (location, pair) in object {
            let lists = match pair.as_array().map(Vec::as_slice) {
                Some([preferred, other]) => names(preferred).zip(names(other)),
                _ => None,
            };
            let (preferred, other) = lists.ok_or_else(|| {
                malformed(format!(
                    "priority matrix: the value of \"{location}\" is not a pair of lists of card names"
                ))
            })?;
            locations.insert(location.clone(), Cards { preferred, other });
        }
        Ok(Self { locations })
    }

    /// Upstream's JSON value.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.locations
            .iter()
            .map(|(location, cards)| (location.clone(), json!([cards.preferred, cards.other])))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

fn names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// One NPU as the links report shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpuLink {
    /// The id `aclrtSetDevice` takes.
    pub device: i32,
    /// The id of the host.
    pub physical: i32,
    /// The chip's name.
    pub soc: String,
    /// The NPU's network address, when `/etc/hccn.conf` names one.
    pub address: Option<String>,
}

/// The report of `showLinks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The machine's locations.
    pub topology: Topology,
    /// The NPUs of this engine.
    pub npus: Vec<NpuLink>,
}

impl Links {
    /// Upstream's JSON (`local_nics`, `topology`) and, beside it, `local_npus`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let npus: Vec<Value> = self
            .npus
            .iter()
            .map(|npu| {
                json!({
                    "device": npu.device,
                    "physical": npu.physical,
                    "soc": npu.soc,
                    "address": npu.address,
                })
            })
            .collect();
        json!({"local_nics": [], "local_npus": npus, "topology": self.topology.to_json()})
    }

    /// The same for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from("network cards: none used\n");
        for npu in &self.npus {
            let address = npu.address.as_deref().unwrap_or("none in hccn.conf");
            text.push_str(&format!(
                "npu {}: physical {}, {}, address {address}\n",
                npu.device, npu.physical, npu.soc
            ));
        }
        if self.npus.is_empty() {
            text.push_str("npus: none opened by this engine\n");
        }
        for location in self.topology.locations.keys() {
            text.push_str(&format!("location {location}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_nodes_is_one_node() {
        let topology = Topology::discover(Path::new("/nonexistent"));
        assert_eq!(topology.to_json().to_string(), r#"{"cpu:0":[[],[]]}"#);
    }

    #[test]
    fn the_matrix_survives_a_round_trip() {
        let text = r#"{"cpu:0":[["mlx5_0"],["mlx5_1"]],"npu:0":[[],[]]}"#;
        let topology = Topology::parse(text).unwrap();
        assert_eq!(topology.to_json().to_string(), text);
    }

    #[test]
    fn wrong_shapes_are_malformed_json() {
        for text in ["", "[]", r#"{"cpu:0":[[]]}"#, r#"{"cpu:0":[[],[],[]]}"#, r#"{"cpu:0":[[1],[]]}"#] {
            let error = Topology::parse(text).unwrap_err();
            assert_eq!(error.code(), Code::MalformedJson, "{text}");
        }
    }

    #[test]
    fn links_show_upstreams_keys_and_the_npus() {
        let links = Links {
            topology: Topology::discover(Path::new("/nonexistent")),
            npus: vec![NpuLink { device: 0, physical: 4, soc: "Ascend910B3".into(), address: None }],
        };
        let json = links.to_json();
        assert!(json.get("local_nics").is_some_and(Value::is_array));
        assert!(json.get("topology").and_then(|topology| topology.get("cpu:0")).is_some());
        assert!(links.to_text().contains("npu 0: physical 4"));
    }
}
