//! Who the two ranks of a channel are, which link joins them, and the rank table the vendor wants to see.
//!
//! Everything here is a pure function of what both sides know, because both must come to the same answer: the
//! vendor compares nothing, a difference shows up as a prepare that times out.
//!
//! Sources: the rank table's rules and the choice of the link are HCCL's own (`topoinfo_ranktableConcise`), the
//! conventions for `server_id` are ours.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::control::RankDevice;
use crate::error::{Code, Error, Result, Stage};

/// Rank tables of flat systems (A2) and of super pods (A3).
pub const VERSION_FLAT: &str = "1.0";
/// See [`VERSION_FLAT`].
pub const VERSION_SUPER_POD: &str = "1.2";

/// Longest `server_id` the vendor takes.
pub const SERVER_ID_LIMIT_BYTES: usize = 64;

/// A generation of chips, as far as links differ between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// Ascend 910B: HCCS inside a server, RoCE between servers.
    A2,
    /// Ascend 910_93xx: HCCS inside a super pod, also between servers.
    A3,
    /// Anything else: always RoCE.
    Other,
}

impl Chip {
    /// From what `aclrtGetSocName` answers.
    #[must_use]
    pub fn of(soc: &str) -> Self {
        const SUPER_POD: [&str; 6] = ["9391", "9381", "9392", "9382", "9372", "9362"];
        match soc.strip_prefix("Ascend910") {
            Some(rest) if rest.starts_with('B') => Self::A2,
            Some(rest) if rest.strip_prefix('_').is_some_and(|number| SUPER_POD.contains(&number)) => {
                Self::A3
            }
            _ => Self::Other,
        }
    }

    /// The version of rank table this chip needs.
    #[must_use]
    pub const fn table_version(self) -> &'static str {
        match self {
            Self::A3 => VERSION_SUPER_POD,
            Self::A2 | Self::Other => VERSION_FLAT,
        }
    }
}

/// What joins two devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// The bus between NPUs: device memory only, in whole 2 MiB pages.
    Hccs,
    /// The network port of each NPU: device and host memory.
    Roce,
}

impl Link {
    /// As printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hccs => "HCCS",
            Self::Roce => "RoCE",
        }
    }
}

/// The link HCCL will take between two devices.
///
/// # Errors
/// [`Code::Unsupported`] when both are one device, or when the link is RoCE and a side has no address for it.
pub fn choose_link(chip: Chip, intra_roce: bool, local: &RankDevice, remote: &RankDevice) -> Result<Link> {
    if local.server_id == remote.server_id && local.device_id == remote.device_id {
        return Err(Error::new(
            Code::Unsupported,
            Stage::Connect,
            format!(
                "both sides use NPU {} of the same server; HCCL does not connect a device to itself",
                local.device_id
            ),
        )
        .advice("give the two processes different devices"));
    }
    let roce = match chip {
        Chip::A2 => intra_roce || local.server_id != remote.server_id,
        Chip::A3 => {
            intra_roce || local.super_pod_id != remote.super_pod_id || remote.version != VERSION_SUPER_POD
        }
        Chip::Other => true,
    };
    if !roce {
        return Ok(Link::Hccs);
    }
    for (side, rank) in [("local", local), ("remote", remote)] {
        if rank.device_ip.is_none() {
            return Err(Error::new(
                Code::Unsupported,
                Stage::Connect,
                format!(
                    "the link to this peer is RoCE, but the {side} NPU {} has no address for it",
                    rank.device_id
                ),
            )
            .advice(format!(
                "give it one (hccn_tool -i {0} -ip -s ...), so that address_{0}= stands in /etc/hccn.conf",
                rank.device_id
            )));
        }
    }
    Ok(Link::Roce)
}

/// The rank table both sides hand to the vendor, rank 0 first. All values are strings, as its parser demands.
#[must_use]
pub fn rank_table(ranks: [&RankDevice; 2], link: Link) -> String {
    let mut servers: Vec<(&str, Vec<Value>)> = Vec::with_capacity(2);
    for (rank_id, rank) in ranks.into_iter().enumerate() {
        let device = device_entry(rank, rank_id, link);
        match servers.iter_mut().find(|(server, _)| *server == rank.server_id) {
            Some((_, devices)) => devices.push(device),
            None => servers.push((&rank.server_id, vec![device])),
        }
    }
    let super_pods = ranks.iter().all(|rank| rank.version == VERSION_SUPER_POD);
    let mut table = Map::new();
    table.insert("version".into(), json!(if super_pods { VERSION_SUPER_POD } else { VERSION_FLAT }));
    table.insert("status".into(), json!("completed"));
    table.insert("server_count".into(), json!(servers.len().to_string()));
    let list: Vec<Value> = servers
        .into_iter()
        .map(|(server, devices)| json!({"server_id": server, "device": devices}))
        .collect();
    table.insert("server_list".into(), Value::Array(list));
    if super_pods {
        table.insert("super_pod_list".into(), super_pod_list(ranks));
    }
    Value::Object(table).to_string()
}

fn device_entry(rank: &RankDevice, rank_id: usize, link: Link) -> Value {
    let mut entry = Map::new();
    entry.insert("device_id".into(), json!(rank.device_id.to_string()));
    if let Some(ip) = &rank.device_ip {
        entry.insert("device_ip".into(), json!(ip));
    }
    if let (Link::Roce, Some(port)) = (link, rank.device_port) {
        entry.insert("device_port".into(), json!(port.to_string()));
    }
    if let Some(id) = rank.super_device_id.as_ref().filter(|_| rank.version == VERSION_SUPER_POD) {
        entry.insert("super_device_id".into(), json!(id.to_string()));
    }
    entry.insert("rank_id".into(), json!(rank_id.to_string()));
    Value::Object(entry)
}

fn super_pod_list(ranks: [&RankDevice; 2]) -> Value {
    let mut pods: Vec<(String, Vec<&str>)> = Vec::with_capacity(2);
    for rank in ranks {
        let pod = rank.super_pod_id.as_ref().map_or_else(|| "0".to_owned(), ToString::to_string);
        match pods.iter_mut().find(|(known, _)| *known == pod) {
            Some((_, servers)) if servers.contains(&rank.server_id.as_str()) => {}
            Some((_, servers)) => servers.push(&rank.server_id),
            None => pods.push((pod, vec![&rank.server_id])),
        }
    }
    pods.into_iter()
        .map(|(pod, servers)| {
            let servers: Vec<Value> =
                servers.into_iter().map(|server| json!({"server_id": server})).collect();
            json!({"super_pod_id": pod, "server_list": servers})
        })
        .collect()
}

/// Whether what a peer says about its device can stand in a rank table.
///
/// # Errors
/// [`Code::RejectHandshake`] naming the field.
pub fn check_rank(rank: &RankDevice) -> Result<()> {
    let refused = |what: &str| {
        Err(Error::new(Code::RejectHandshake, Stage::Connect, format!("the peer's rank: {what}")))
    };
    if rank.server_id.is_empty() || rank.server_id.len() > SERVER_ID_LIMIT_BYTES {
        return refused("server_id is empty or longer than 64 bytes");
    }
    if rank.version != VERSION_FLAT && rank.version != VERSION_SUPER_POD {
        return refused("version is neither 1.0 nor 1.2");
    }
    if let Some(ip) = &rank.device_ip
        && ip.parse::<IpAddr>().is_err()
    {
        return refused("device_ip is no address");
    }
    if rank.device_port == Some(0) {
        return refused("device_port is 0");
    }
    Ok(())
}

/// The network address of NPU `physical` in the text of `/etc/hccn.conf`: its IPv4 address, else its IPv6 one.
#[must_use]
pub fn hccn_address(text: &str, physical: u32) -> Option<String> {
    let value = |key: String| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            let value = value.trim();
            (name.trim() == key && value.parse::<IpAddr>().is_ok()).then(|| value.to_owned())
        })
    };
    value(format!("address_{physical}")).or_else(|| value(format!("IPv6address_{physical}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(server: &str, device: u32, ip: Option<&str>) -> RankDevice {
        RankDevice {
            server_id: server.into(),
            device_id: device,
            device_ip: ip.map(Into::into),
            super_device_id: None,
            super_pod_id: None,
            device_port: None,
            version: VERSION_FLAT.into(),
            families: Vec::new(),
        }
    }

    #[test]
    fn chips_by_name() {
        assert_eq!(Chip::of("Ascend910B3"), Chip::A2);
        assert_eq!(Chip::of("Ascend910_9392"), Chip::A3);
        assert_eq!(Chip::of("Ascend910A"), Chip::Other);
        assert_eq!(Chip::of("Ascend310P3"), Chip::Other);
        assert_eq!(Chip::of(""), Chip::Other);
    }

    #[test]
    fn a2_uses_hccs_inside_and_roce_between_servers() {
        let (a, b) = (flat("s1", 0, None), flat("s1", 5, None));
        assert_eq!(choose_link(Chip::A2, false, &a, &b).unwrap(), Link::Hccs);
        let missing = choose_link(Chip::A2, true, &a, &b).unwrap_err();
        assert!(missing.to_string().contains("hccn.conf"), "{missing}");
        let (a, b) = (flat("s1", 2, Some("29.1.0.12")), flat("s2", 2, Some("29.1.0.22")));
        assert_eq!(choose_link(Chip::A2, false, &a, &b).unwrap(), Link::Roce);
    }

    #[test]
    fn one_device_does_not_connect_to_itself() {
        let a = flat("s1", 0, None);
        assert_eq!(choose_link(Chip::A2, false, &a, &a).unwrap_err().code(), Code::Unsupported);
    }

    #[test]
    fn tables_are_those_of_the_examples() {
        let table = rank_table([&flat("10.0.0.7", 0, None), &flat("10.0.0.7", 5, None)], Link::Hccs);
        assert_eq!(
            table,
            r#"{"version":"1.0","status":"completed","server_count":"1","server_list":[{"server_id":"10.0.0.7","device":[{"device_id":"0","rank_id":"0"},{"device_id":"5","rank_id":"1"}]}]}"#
        );
        let mut near = flat("10.0.0.7", 2, Some("29.1.0.12"));
        near.device_port = Some(17001);
        let table = rank_table([&near, &flat("10.0.0.8", 2, Some("29.1.0.22"))], Link::Roce);
        assert_eq!(
            table,
            r#"{"version":"1.0","status":"completed","server_count":"2","server_list":[{"server_id":"10.0.0.7","device":[{"device_id":"2","device_ip":"29.1.0.12","device_port":"17001","rank_id":"0"}]},{"server_id":"10.0.0.8","device":[{"device_id":"2","device_ip":"29.1.0.22","rank_id":"1"}]}]}"#
        );
    }

    #[test]
    fn addresses_come_from_hccn_conf() {
        let text = "address_0=29.1.0.10\nnetmask_0=255.255.0.0\naddress_10=29.1.0.20\nIPv6address_1=fe80::1\n address_2 = 29.1.0.12 \naddress_2=9.9.9.9\naddress_3=rubbish\n";
        assert_eq!(hccn_address(text, 0).as_deref(), Some("29.1.0.10"));
        assert_eq!(hccn_address(text, 1).as_deref(), Some("fe80::1"));
        assert_eq!(hccn_address(text, 2).as_deref(), Some("29.1.0.12"));
        assert_eq!(hccn_address(text, 3), None);
        assert_eq!(hccn_address(text, 10).as_deref(), Some("29.1.0.20"));
        assert_eq!(hccn_address("", 0), None);
    }

    #[test]
    fn a_peer_cannot_smuggle_rubbish_into_the_table() {
        assert!(check_rank(&flat("s", 1, Some("29.1.0.1"))).is_ok());
        assert!(check_rank(&flat("", 1, None)).is_err());
        assert!(check_rank(&flat(&"x".repeat(65), 1, None)).is_err());
        assert!(check_rank(&flat("s", 1, Some("29.1.0.1\",\"x\":\""))).is_err());
        let mut odd = flat("s", 1, None);
        odd.version = "9".into();
        assert!(check_rank(&odd).is_err());
    }
}
