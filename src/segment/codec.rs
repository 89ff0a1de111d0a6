//! Upstream's JSON form of a segment descriptor, read strictly and written byte for byte as upstream writes it.
//!
//! Invariants: decoding never panics and allocates in proportion to its input; what upstream's decoder refuses
//! is refused here (unknown protocol, buffer without name, address or length, wrong JSON type); beyond that,
//! ranges that wrap around the address space are refused. Keys we do not know are ignored.

use serde_json::{Map, Value, json};

use super::descriptor::{BufferDescriptor, OURS_VERSION, Ours, RankInfo, SegmentDescriptor};
use super::json;
use crate::error::{Code, Error, Result, Stage};

/// Longest descriptor that is decoded: the largest handshake message that can be set.
pub const MAX_DESCRIPTOR_BYTES: usize = 128 << 20;

/// Longest name of a segment or buffer.
pub const MAX_NAME_BYTES: usize = 4096;

/// Most buffers of one segment.
pub const MAX_BUFFERS: usize = 1 << 20;

/// Our one key at the top level.
pub const OURS_KEY: &str = "mooncake_transfer";

/// Protocols whose buffers have an address and a length, and those whose buffers are something else.
const ADDRESSED: &[&str] = &[
    "tcp",
    "ascend",
    "rdma",
    "barex",
    "efa",
    "cxi",
    "nvlink",
    "nvlink_intra",
    "hip",
    "maca",
    "musa",
    "ubshmem",
    "sunrise_link",
    "ub",
    "nccl",
];
const UNADDRESSED: &[&str] = &["cxl", "nvmeof"];

/// Protocols whose buffers carry one key for each device.
const KEYED: &[&str] = &["rdma", "barex", "efa", "cxi"];

impl SegmentDescriptor {
    /// Reads a descriptor.
    ///
    /// # Errors
    /// [`Code::MalformedJson`] when the text is no descriptor, [`Code::Metadata`] when the peer says `null` (it
    /// has no segment yet, or keeps it in a metadata service), [`Code::Unsupported`] when it is an engine of
    /// this library in another version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_DESCRIPTOR_BYTES {
            return Err(malformed(format!("{} bytes are more than {MAX_DESCRIPTOR_BYTES}", bytes.len())));
        }
        let value: Value = json::parse(bytes, "the segment descriptor", Stage::Resolve)?;
        let top = match value {
            Value::Object(top) => top,
            Value::Null => {
                return Err(Error::new(Code::Metadata, Stage::Resolve, "the peer has published no segment")
                    .advice("it may still be starting, or it keeps its segment in a metadata service"));
            }
            _ => return Err(malformed("it is no object".into())),
        };
        let protocol = name(&top, "protocol")?;
        let addressed = ADDRESSED.contains(&protocol.as_str());
        if !addressed && !UNADDRESSED.contains(&protocol.as_str()) {
            return Err(malformed(format!("protocol {} is not known", shortened(&protocol))));
        }
        let buffers = if addressed { buffers(&top, &protocol)? } else { Vec::new() };
        Ok(Self {
            name: name(&top, "name")?,
            buffers,
            tcp_data_port: number(&top, "tcp_data_port")?.unwrap_or_default(),
            tcp_proto_version: number(&top, "tcp_proto_version")?.unwrap_or(1),
            tcp_data_host: text(&top, "tcp_data_host")?,
            rdma_server_name: text(&top, "rdma_server_name")?,
            rank_info: top.get("rank_info").map(|value| part::<RankInfo>(value, "rank_info")).transpose()?,
            timestamp: text(&top, "timestamp")?,
            ours: top.get(OURS_KEY).map(ours).transpose()?,
            protocol,
        })
    }

    /// Writes the descriptor: compact, keys in alphabetical order, a line feed at the end.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut top = Map::new();
        let mut put = |key: &str, value: Value| top.insert(key.to_owned(), value);
        put("buffers", Value::Array(self.buffers.iter().map(buffer_value).collect()));
        if self.protocol == "ascend" {
            put("devices", json!([]));
        }
        if let Some(ours) = &self.ours {
            put(OURS_KEY, sorted(json!(ours)));
        }
        put("name", json!(self.name));
        put("protocol", json!(self.protocol));
        if let Some(rank_info) = &self.rank_info {
            put("rank_info", sorted(json!(rank_info)));
        }
        for (key, value) in
            [("rdma_server_name", &self.rdma_server_name), ("tcp_data_host", &self.tcp_data_host)]
        {
            if let Some(value) = value {
                put(key, json!(value));
            }
        }
        put("tcp_data_port", json!(self.tcp_data_port));
        put("tcp_proto_version", json!(self.tcp_proto_version));
        if let Some(timestamp) = &self.timestamp {
            put("timestamp", json!(timestamp));
        }
        let mut bytes = Value::Object(top).to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }
}

fn buffer_value(buffer: &BufferDescriptor) -> Value {
    let mut map = Map::new();
    map.insert("addr".into(), json!(buffer.address));
    if let Some(device_id) = buffer.device_id {
        map.insert("device_id".into(), json!(device_id));
    }
    map.insert("length".into(), json!(buffer.length_bytes));
    map.insert("name".into(), json!(buffer.name));
    Value::Object(map)
}

/// The value with the keys of all its objects in alphabetical order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn malformed(why: String) -> Error {
    Error::new(Code::MalformedJson, Stage::Resolve, format!("the segment descriptor cannot be used: {why}"))
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn text(map: &Map<String, Value>, key: &str) -> Result<Option<String>> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= MAX_NAME_BYTES => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err(malformed(format!("{key} is longer than {MAX_NAME_BYTES} bytes"))),
        Some(_) => Err(malformed(format!("{key} is no string"))),
    }
}

fn name(map: &Map<String, Value>, key: &str) -> Result<String> {
    match text(map, key)? {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(malformed(format!("{key} is missing or empty"))),
    }
}

fn number<T: TryFrom<i128>>(map: &Map<String, Value>, key: &str) -> Result<Option<T>> {
    let Some(value) = map.get(key) else { return Ok(None) };
    let whole = value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from));
    match whole.and_then(|whole| T::try_from(whole).ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(malformed(format!("{key} is no whole number in its range"))),
    }
}

fn part<T: serde::de::DeserializeOwned>(value: &Value, key: &str) -> Result<T> {
    serde::Deserialize::deserialize(value).map_err(|error| malformed(format!("{key}: {error}")))
}

fn list<'a>(map: &'a Map<String, Value>, key: &str) -> Result<&'a [Value]> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(_) => Err(malformed(format!("{key} is no array"))),
    }
}

fn buffers(top: &Map<String, Value>, protocol: &str) -> Result<Vec<BufferDescriptor>> {
    let values = list(top, "buffers")?;
    if values.len() > MAX_BUFFERS {
        return Err(malformed(format!("{} buffers are more than {MAX_BUFFERS}", values.len())));
    }
    let devices = list(top, "devices")?.len();
    let mut buffers = Vec::with_capacity(values.len());
    for value in values {
        let Value::Object(map) = value else { return Err(malformed("a buffer is no object".into())) };
        let buffer = BufferDescriptor {
            name: name(map, "name")?,
            address: number(map, "addr")?.unwrap_or_default(),
            length_bytes: number(map, "length")?.unwrap_or_default(),
            device_id: number(map, "device_id")?,
        };
        if buffer.address == 0 || buffer.length_bytes == 0 {
            return Err(malformed(format!("a buffer {} has no address or length", shortened(&buffer.name))));
        }
        if buffer.address.checked_add(buffer.length_bytes).is_none() {
            return Err(malformed(format!("the buffer at {:#x} wraps around", buffer.address)));
        }
        if KEYED.contains(&protocol) {
            for key in ["rkey", "lkey"] {
                if list(map, key)?.len() != devices {
                    return Err(malformed(format!("a buffer has not one {key} for each device")));
                }
            }
        }
        buffers.push(buffer);
    }
    Ok(buffers)
}

fn ours(value: &Value) -> Result<Ours> {
    let version = value.get("version").and_then(Value::as_u64);
    if let Some(version) = version.filter(|version| *version != u64::from(OURS_VERSION)) {
        log::error!("a peer publishes version {version} of {OURS_KEY}, this library knows {OURS_VERSION}");
        return Err(Error::new(
            Code::Unsupported,
            Stage::Resolve,
            format!("the peer publishes version {version} of {OURS_KEY}, this library knows {OURS_VERSION}"),
        )
        .advice("run the same release of mooncake-transfer at both ends"));
    }
    let ours: Ours = part(value, OURS_KEY)?;
    if ours.memory.len() > MAX_BUFFERS {
        return Err(malformed(format!(
            "{} ranges of devices are more than {MAX_BUFFERS}",
            ours.memory.len()
        )));
    }
    if let Some(range) = ours.memory.iter().find(|range| {
        range.address == 0
            || range.length_bytes == 0
            || range.address.checked_add(range.length_bytes).is_none()
    }) {
        return Err(malformed(format!("the device memory at {:#x} is no range", range.address)));
    }
    Ok(ours)
}
