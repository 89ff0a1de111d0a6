//! Rank tables of two ranks on this machine (facts 3).
//!
//! Two server ids (on A3 two super pods) make the library choose RoCE although both NPUs are here; RoCE then
//! needs the addresses of the NPUs' ports, from the command line, `/etc/hccn.conf` or the vendor's tool.

use std::process::Command;

use crate::case::{Answer, Stop};
use crate::probe::{Probe, step};

/// Which link the table leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// One server: HCCS.
    Near,
    /// Two servers: RoCE.
    Far,
}

/// The physical id behind a user id.
pub fn physical_id(probe: &Probe, device: i32) -> Answer<i32> {
    let mut physical = -1;
    if probe.cann.acl.aclrtGetPhyDevIdByLogicDevId.is_some() {
        step!(probe, acl aclrtGetPhyDevIdByLogicDevId(device, &raw mut physical));
        return Ok(physical);
    }
    let function = probe
        .cann
        .runtime
        .rtGetDevicePhyIdByIndex
        .ok_or_else(|| Stop::Cannot("this CANN translates no device ids".to_owned()))?;
    let mut number = 0;
    let index = u32::try_from(device).unwrap_or(0);
    // SAFETY: the prototype is the vendor's; the number outlives the call.
    let code = unsafe { function(index, &raw mut number) };
    crate::probe::need("rtGetDevicePhyIdByIndex", code)?;
    i32::try_from(number).map_err(|_| Stop::Cannot(format!("the physical id {number}")))
}

/// A device attribute, where the CANN has the function.
fn attribute(probe: &Probe, device: i32, attribute: u32) -> Answer<i64> {
    let mut value = 0;
    let device = u32::try_from(device).unwrap_or(0);
    step!(probe, acl aclrtGetDeviceInfo(device, attribute, &raw mut value));
    Ok(value)
}

/// The table of the two NPUs to use.
pub fn of_two(probe: &Probe, reach: Reach) -> Answer<String> {
    let devices = [probe.device(0)?, probe.device(1)?];
    let is_a3 = probe.is_a3()?;
    let mut servers = Vec::new();
    let mut entries = Vec::new();
    for (rank, device) in devices.into_iter().enumerate() {
        let physical = physical_id(probe, device)?;
        let mut entry = format!("\"device_id\":\"{physical}\",\"rank_id\":\"{rank}\"");
        if reach == Reach::Far {
            entry = format!("{entry},\"device_ip\":\"{}\"", address(probe, rank, physical)?);
        }
        if is_a3 {
            let id = attribute(probe, device, cann_sys::ACL_DEV_ATTR_SUPER_POD_DEVICE_ID)?;
            entry = format!("{entry},\"super_device_id\":\"{id}\"");
        }
        entries.push(format!("{{{entry}}}"));
        servers.push(format!("10.0.0.{}", if reach == Reach::Far { 7 + rank } else { 7 }));
    }
    servers.dedup();
    let lists: Vec<String> = match reach {
        Reach::Near => vec![entries.join(",")],
        Reach::Far => entries,
    };
    let server_list: Vec<String> = servers
        .iter()
        .zip(&lists)
        .map(|(server, list)| format!("{{\"server_id\":\"{server}\",\"device\":[{list}]}}"))
        .collect();
    let mut table = format!(
        "\"version\":\"{}\",\"status\":\"completed\",\"server_count\":\"{}\",\"server_list\":[{}]",
        if is_a3 { "1.2" } else { "1.0" },
        servers.len(),
        server_list.join(",")
    );
    if is_a3 {
        let pods: Vec<String> = servers
            .iter()
            .enumerate()
            .map(|(pod, server)| {
                format!("{{\"super_pod_id\":\"{pod}\",\"server_list\":[{{\"server_id\":\"{server}\"}}]}}")
            })
            .collect();
        table = format!("{table},\"super_pod_list\":[{}]", pods.join(","));
    }
    Ok(format!("{{{table}}}"))
}

/// The address of an NPU's port: the command line, else `/etc/hccn.conf`, else what the vendor's tool says.
fn address(probe: &Probe, index: usize, physical: i32) -> Answer<String> {
    if let Some(address) = probe.choice.addresses.get(index) {
        return Ok(address.clone());
    }
    if let Some(address) =
        std::fs::read_to_string("/etc/hccn.conf").ok().and_then(|text| find(&text, physical))
    {
        return Ok(address);
    }
    let output = Command::new("/usr/local/Ascend/driver/tools/hccn_tool")
        .args(["-i", &physical.to_string(), "-ip", "-g"])
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines()
        .find_map(|line| line.trim().strip_prefix("ipaddr:"))
        .map(|address| address.trim().to_owned())
        .ok_or_else(|| {
            Stop::Cannot(format!(
                "no address is known for NPU {physical}: not in /etc/hccn.conf, no hccn_tool, no --addresses"
            ))
        })
}

/// The address of a physical id in the text of `hccn.conf`: the first that matches, version 4 before version
/// 6.
fn find(text: &str, physical: i32) -> Option<String> {
    let value = |key: String| {
        text.lines().find_map(|line| line.trim().strip_prefix(&key)?.trim().strip_prefix('=').map(str::trim))
    };
    value(format!("address_{physical}"))
        .or_else(|| value(format!("IPv6address_{physical}")))
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_file_is_read_as_the_vendor_does() {
        let text = "address_1=29.0.0.1\nnetmask_1=255.255.0.0\naddress_10=29.0.0.10\naddress_1=29.9.9.9\n\
                    IPv6address_3=fe80::3\n";
        assert_eq!(find(text, 1).as_deref(), Some("29.0.0.1"));
        assert_eq!(find(text, 10).as_deref(), Some("29.0.0.10"));
        assert_eq!(find(text, 3).as_deref(), Some("fe80::3"));
        assert_eq!(find(text, 2), None);
    }
}
