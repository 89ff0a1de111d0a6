//! Rank tables: the JSON text that names the members of a communicator (facts 3), and the link between two of them.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::settings::Settings;
use crate::status::{Fail, Outcome, hccl};

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rank {
    /// Physical id of its NPU.
    pub device_id: u32,
    /// The server it is in.
    pub server_id: String,
    /// Addresses of its NIC.
    pub device_ips: Vec<IpAddr>,
    /// Port of its NIC.
    pub device_port: Option<u16>,
    /// Id in the super pod.
    pub super_device_id: Option<String>,
    /// The super pod its server is in.
    pub super_pod_id: Option<String>,
}

/// All members, by rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankTable {
    /// By rank.
    pub ranks: Vec<Rank>,
}

/// How two members reach each other (facts 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// Copies over the chip interconnect.
    Hccs,
    /// Remote direct memory access over Ethernet.
    Roce,
}

fn wrong(text: impl Into<String>) -> Fail {
    Fail::new(hccl::E_PARA, format!("rank table: {}", text.into()))
}

/// The string under `key`; every value of a rank table is a string.
fn string<'a>(object: &'a Value, key: &str) -> Outcome<Option<&'a str>> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(format!("\"{key}\" must be a string, not {other}"))),
    }
}

fn required<'a>(object: &'a Value, key: &str) -> Outcome<&'a str> {
    string(object, key)?
        .filter(|text| !text.is_empty())
        .ok_or_else(|| wrong(format!("\"{key}\" is missing or empty")))
}

fn list<'a>(object: &'a Value, key: &str) -> Outcome<&'a [Value]> {
    match object.get(key) {
        Some(Value::Array(items)) if !items.is_empty() => Ok(items),
        _ => Err(wrong(format!("\"{key}\" must be a list with at least one item"))),
    }
}

fn number(text: &str, key: &str) -> Outcome<u32> {
    text.parse().map_err(|_| wrong(format!("\"{key}\" is \"{text}\", not a decimal number")))
}

fn port(object: &Value, key: &str) -> Outcome<Option<u16>> {
    string(object, key)?
        .map(|text| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(wrong(format!("\"{key}\" is \"{text}\", not a port"))),
        })
        .transpose()
}

/// Reads and checks a rank table.
pub fn parse(text: &str, settings: &Settings) -> Outcome<RankTable> {
    let root: Value = serde_json::from_str(text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    let status = required(&root, "status")?;
    if status != "completed" {
        return Err(wrong(format!("status is \"{status}\", not \"completed\"")));
    }
    let version = required(&root, "version")?;
    if version != "1.0" && version != "1.2" {
        return Err(wrong(format!("version \"{version}\" is neither \"1.0\" nor \"1.2\"")));
    }
    let servers = list(&root, "server_list")?;
    if let Some(count) = string(&root, "server_count")?
        && usize::try_from(number(count, "server_count")?) != Ok(servers.len())
    {
        return Err(wrong(format!("server_count is {count}, server_list has {}", servers.len())));
    }
    let mut server_ids = HashSet::new();
    let mut places = HashSet::new();
    let mut addresses = HashSet::new();
    let mut ranked: Vec<(u32, Rank)> = Vec::new();
    for server in servers {
        let server_id = required(server, "server_id")?;
        if server_id.len() > 64 || !server_ids.insert(server_id) {
            return Err(wrong(format!("server_id \"{server_id}\" is longer than 64 or appears twice")));
        }
        if let Some(host_ip) = string(server, "host_ip")?
            && host_ip.parse::<IpAddr>().is_err()
        {
            return Err(wrong(format!("host_ip \"{host_ip}\" is not an address")));
        }
        for device in list(server, "device")? {
            let (rank, member) = parse_device(device, server_id, &mut addresses)?;
            if !places.insert((server_id, member.device_id)) {
                return Err(wrong(format!(
                    "device {} of server {server_id} appears twice",
                    member.device_id
                )));
            }
            ranked.push((rank, member));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    for (expected, (rank, _)) in ranked.iter().enumerate() {
        if usize::try_from(*rank) != Ok(expected) {
            return Err(wrong(format!("rank ids are not 0 to {} once each", ranked.len() - 1)));
        }
    }
    let mut table = RankTable { ranks: ranked.into_iter().map(|(_, member)| member).collect() };
    let pods = if version == "1.2" { parse_super_pods(&root, &server_ids, &mut table)? } else { 0 };
    if settings.is_a3 && version == "1.2" && pods == 0 {
        return Err(wrong("super_pod_list is missing"));
    }
    let one_pod = settings.is_a3 && pods == 1 && !settings.intra_roce;
    if (servers.len() > 1 || settings.intra_roce)
        && !one_pod
        && let Some(missing) = table.ranks.iter().position(|rank| rank.device_ips.is_empty())
    {
        return Err(wrong(format!("rank {missing} has no device_ip, which a RoCE link needs")));
    }
    Ok(table)
}

fn parse_device(device: &Value, server_id: &str, addresses: &mut HashSet<IpAddr>) -> Outcome<(u32, Rank)> {
    let device_id = number(required(device, "device_id")?, "device_id")?;
    if device_id > 15 {
        return Err(wrong(format!("device_id {device_id} is above 15")));
    }
    let rank = number(required(device, "rank_id")?, "rank_id")?;
    let mut device_ips = Vec::new();
    for word in
        string(device, "device_ip")?.unwrap_or("").split(',').map(str::trim).filter(|word| !word.is_empty())
    {
        let address: IpAddr =
            word.parse().map_err(|_| wrong(format!("device_ip \"{word}\" is not an address")))?;
        if !addresses.insert(address) {
            return Err(wrong(format!("device_ip {address} appears twice")));
        }
        device_ips.push(address);
    }
    if let Some(word) = string(device, "backup_device_ip")?
        && !word.is_empty()
        && word.parse::<IpAddr>().is_err()
    {
        return Err(wrong(format!("backup_device_ip \"{word}\" is not an address")));
    }
    for key in ["device_vnic_port", "host_port", "backup_device_port"] {
        port(device, key)?;
    }
    let member = Rank {
        device_id,
        server_id: server_id.to_owned(),
        device_ips,
        device_port: port(device, "device_port")?,
        super_device_id: string(device, "super_device_id")?
            .filter(|text| !text.is_empty())
            .map(str::to_owned),
        super_pod_id: None,
    };
    Ok((rank, member))
}

/// Reads `super_pod_list` into the ranks and answers the number of super pods.
fn parse_super_pods(root: &Value, server_ids: &HashSet<&str>, table: &mut RankTable) -> Outcome<usize> {
    if root.get("super_pod_list").is_none() {
        return Ok(0);
    }
    let pods = list(root, "super_pod_list")?;
    let mut pod_ids = HashSet::new();
    for pod in pods {
        let pod_id = required(pod, "super_pod_id")?;
        if !pod_ids.insert(pod_id) {
            return Err(wrong(format!("super_pod_id \"{pod_id}\" appears twice")));
        }
        for server in list(pod, "server_list")? {
            let server_id = required(server, "server_id")?;
            if !server_ids.contains(server_id) {
                return Err(wrong(format!("super pod {pod_id} names the unknown server {server_id}")));
            }
            for rank in table.ranks.iter_mut().filter(|rank| rank.server_id == server_id) {
                rank.super_pod_id = Some(pod_id.to_owned());
            }
        }
    }
    if let Some(missing) = table.ranks.iter().position(|rank| rank.super_pod_id.is_none()) {
        return Err(wrong(format!("rank {missing} is in no super pod")));
    }
    Ok(pods.len())
}

/// The link between two members (facts 2.5). On A2 two chips of a server that HCCS does not join have none.
pub fn choose_link(one: &Rank, other: &Rank, settings: &Settings) -> Outcome<LinkKind> {
    let soc = settings.soc_name.to_bytes();
    let near = if settings.is_a3 {
        match (&one.super_pod_id, &other.super_pod_id) {
            (Some(one), Some(other)) => one == other,
            _ => one.server_id == other.server_id,
        }
    } else {
        soc.starts_with(b"Ascend910B") && one.server_id == other.server_id
    };
    if !near || settings.intra_roce {
        return Ok(LinkKind::Roce);
    }
    let pair = (one.device_id.min(other.device_id), one.device_id.max(other.device_id));
    if !settings.is_a3 && settings.pcie_pairs.contains(&pair) {
        return Err(Fail::new(
            hccl::E_NOT_SUPPORT,
            format!("PCIe joins the NPUs {} and {}, not HCCS: set HCCL_INTRA_ROCE_ENABLE=1", pair.0, pair.1),
        ));
    }
    Ok(LinkKind::Hccs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let map: BTreeMap<_, _> = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        crate::settings::read(&map).0
    }

    const NEAR: &str = r#"{"version":"1.0","status":"completed","server_count":"1","server_list":[{"server_id":
        "10.0.0.7","device":[{"device_id":"0","rank_id":"0"},{"device_id":"5","rank_id":"1"}]}]}"#;
    const FAR: &str = r#"{"version":"1.0","status":"completed","server_count":"2","server_list":[
        {"server_id":"10.0.0.7","device":[{"device_id":"2","device_ip":"29.1.0.12","rank_id":"0"}]},
        {"server_id":"10.0.0.8","device":[{"device_id":"2","device_ip":"29.1.0.22","rank_id":"1"}]}]}"#;
    const ALIKE: &str = r#"{"version":"1.0","status":"completed","server_count":"2","server_list":[
        {"server_id":"10.0.0.7","host_ip":"10.0.0.7","device":[{"device_id":"2","device_ip":"29.1.0.12,2001:db8::1",
        "device_port":"17000","device_vnic_port":"17001","host_port":"17002","backup_device_ip":"29.1.0.99",
        "backup_device_port":"17003","rank_id":"0"}]},
        {"server_id":"10.0.0.8","device":[{"device_id":"2","device_ip":"29.1.0.22","rank_id":"1"}]}]}"#;
    const POD: &str = r#"{"version":"1.2","status":"completed","server_count":"2","server_list":[
        {"server_id":"a","device":[{"device_id":"3","super_device_id":"196611","rank_id":"0"}]},
        {"server_id":"b","device":[{"device_id":"9","super_device_id":"4390921","rank_id":"1"}]}],
        "super_pod_list":[{"super_pod_id":"0","server_list":[{"server_id":"a"},{"server_id":"b"}]}]}"#;

    fn link(text: &str, settings: &Settings) -> LinkKind {
        let table = parse(text, settings).unwrap();
        choose_link(&table.ranks[0], &table.ranks[1], settings).unwrap()
    }

    #[test]
    fn links_follow_chip_servers_and_super_pods() {
        let a2 = settings(&[]);
        let a3 = settings(&[("CANN_SIM_SOC", "Ascend910_9392")]);
        assert_eq!(link(NEAR, &a2), LinkKind::Hccs);
        assert_eq!(link(FAR, &a2), LinkKind::Roce);
        assert_eq!(link(POD, &a3), LinkKind::Hccs);
        let old = settings(&[("CANN_SIM_SOC", "Ascend910A")]);
        assert_eq!(link(NEAR, &old), LinkKind::Roce);
    }

    #[test]
    fn intra_roce_turns_a_near_link_and_needs_addresses() {
        let roce = settings(&[("HCCL_INTRA_ROCE_ENABLE", "1")]);
        assert!(parse(NEAR, &roce).unwrap_err().text.contains("device_ip"));
        let off = settings(&[("HCCL_INTRA_ROCE_ENABLE", "0")]);
        assert_eq!(link(NEAR, &off), LinkKind::Hccs);
    }

    #[test]
    fn broken_super_pods_are_refused() {
        let settings = settings(&[("CANN_SIM_SOC", "Ascend910_9392")]);
        let pods =
            r#""super_pod_list":[{"super_pod_id":"0","server_list":[{"server_id":"a"},{"server_id":"b"}]}]"#;
        for (part, why) in [
            (r#""unknown":[]"#, "super_pod_list is missing"),
            (r#""super_pod_list":[]"#, "at least one item"),
            (
                r#""super_pod_list":[{"super_pod_id":"","server_list":[{"server_id":"a"}]}]"#,
                "missing or empty",
            ),
            (
                r#""super_pod_list":[{"super_pod_id":"0","server_list":[{"server_id":"c"}]}]"#,
                "unknown server c",
            ),
            (
                r#""super_pod_list":[{"super_pod_id":"0","server_list":[{"server_id":"a"}]}]"#,
                "in no super pod",
            ),
            (
                r#""super_pod_list":[{"super_pod_id":"0","server_list":[{"server_id":"a"}]},
                    {"super_pod_id":"0","server_list":[{"server_id":"b"}]}]"#,
                "appears twice",
            ),
            (
                r#""super_pod_list":[{"super_pod_id":"0","server_list":[{"server_id":"a"}]},
                    {"super_pod_id":"1","server_list":[{"server_id":"b"}]}]"#,
                "has no device_ip",
            ),
        ] {
            let text = POD.replace(pods, part);
            assert_ne!(text, POD);
            let fail = parse(&text, &settings).unwrap_err();
            assert!(fail.code == hccl::E_PARA && fail.text.contains(why), "{text}: {}", fail.text);
        }
    }

    /// Facts 3: limits and forms of what may stand in a table of version 1.0.
    #[test]
    fn names_addresses_and_ports_are_checked() {
        let settings = settings(&[]);
        let table = parse(ALIKE, &settings).unwrap();
        assert_eq!(table.ranks[0].device_ips.len(), 2);
        assert_eq!(table.ranks[0].device_port, Some(17000));
        let longest = "s".repeat(64);
        assert_eq!(
            parse(&ALIKE.replace("10.0.0.8", &longest), &settings).unwrap().ranks[1].server_id,
            longest
        );
        let too_long = "s".repeat(65);
        for (from, to, why) in [
            ("\"10.0.0.8\"", format!("\"{too_long}\""), "longer than 64"),
            ("10.0.0.8", "10.0.0.7".to_owned(), "appears twice"),
            ("29.1.0.22", "29.1.0.12".to_owned(), "device_ip 29.1.0.12 appears twice"),
            ("29.1.0.22", "2001:db8:0::1".to_owned(), "device_ip 2001:db8::1 appears twice"),
            ("29.1.0.22", "29.1.0.300".to_owned(), "not an address"),
            ("\"host_ip\":\"10.0.0.7\"", "\"host_ip\":\"seven\"".to_owned(), "host_ip \"seven\""),
            ("29.1.0.99", "99".to_owned(), "backup_device_ip \"99\""),
            ("17000", "0".to_owned(), "\"device_port\" is \"0\""),
            ("17001", "65536".to_owned(), "\"device_vnic_port\" is \"65536\""),
            ("17002", "-1".to_owned(), "\"host_port\" is \"-1\""),
            ("17003", "x".to_owned(), "\"backup_device_port\" is \"x\""),
            ("\"server_count\":\"2\"", "\"server_count\":\"two\"".to_owned(), "not a decimal number"),
        ] {
            let text = ALIKE.replace(from, &to);
            assert_ne!(text, ALIKE);
            let fail = parse(&text, &settings).unwrap_err();
            assert!(fail.code == hccl::E_PARA && fail.text.contains(why), "{text}: {}", fail.text);
        }
    }

    /// Facts 2.5: pairs that only PCIe joins.
    #[test]
    fn pairs_without_hccs_have_no_link() {
        let pairs = ("CANN_SIM_PCIE_PAIRS", "0-5");
        let a2 = settings(&[pairs]);
        let table = parse(NEAR, &a2).unwrap();
        let fail = choose_link(&table.ranks[1], &table.ranks[0], &a2).unwrap_err();
        assert_eq!(fail.code, hccl::E_NOT_SUPPORT, "{}", fail.text);
        assert_eq!(link(FAR, &settings(&[("CANN_SIM_PCIE_PAIRS", "2-3")])), LinkKind::Roce);
        let a3 = settings(&[pairs, ("CANN_SIM_SOC", "Ascend910_9392")]);
        let table = parse(&POD.replace("\"3\"", "\"0\"").replace("\"9\"", "\"5\""), &a3).unwrap();
        assert_eq!(choose_link(&table.ranks[0], &table.ranks[1], &a3).unwrap(), LinkKind::Hccs);
    }

    #[test]
    fn broken_tables_are_refused() {
        let settings = settings(&[]);
        for (from, to) in [
            ("completed", "initializing"),
            ("\"1.0\"", "\"2.0\""),
            ("server_count\":\"1\"", "server_count\":\"2\""),
            ("\"rank_id\":\"1\"", "\"rank_id\":\"2\""),
            ("\"rank_id\":\"1\"", "\"rank_id\":1"),
            ("\"device_id\":\"5\"", "\"device_id\":\"0\""),
            ("\"device_id\":\"5\"", "\"device_id\":\"16\""),
            ("\"device_id\":\"5\"", "\"device_ip\":\"x\",\"device_id\":\"5\""),
            ("\"device_id\":\"5\"", "\"device_port\":\"70000\",\"device_id\":\"5\""),
            ("10.0.0.7", ""),
            ("}]}]}", "}]}]"),
        ] {
            let text = NEAR.replace(from, to);
            assert_ne!(text, NEAR);
            assert_eq!(parse(&text, &settings).unwrap_err().code, hccl::E_PARA, "{text}");
        }
    }
}
