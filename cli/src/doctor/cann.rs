//! CANN: found or not, which functions and which release, the NPUs and their addresses.

use std::path::Path;

use cann_sys::{LoadOptions, Release, SymbolReport};
use mooncake::config::Config;
use mooncake::transport::ascend::{Runtime, rank};

use super::Finding;

const INSTALL: &str = "install CANN and source its set_env.sh, or set MOONCAKE_TRANSFER_CANN_PATH to the folder of its libraries";

/// The releases of CANN that are told apart, oldest first.
const RELEASES: [Release; 6] =
    [Release::V8_1, Release::V8_2, Release::V8_3, Release::V8_5, Release::V9_0, Release::V9_1];

pub(super) fn check(config: &Config, list_symbols: bool) -> Vec<Finding> {
    if config.force_tcp {
        return vec![Finding::pass("CANN", "not looked for: MC_FORCE_TCP is set, NPUs are not used")];
    }
    let options = LoadOptions {
        cann_path: config.cann_path.clone(),
        ascend_home_path: config.ascend_home.clone(),
        ascend_toolkit_home: config.ascend_toolkit_home.clone(),
        ..LoadOptions::default()
    };
    match Runtime::load(&options) {
        Ok(runtime) => found(&runtime, config, list_symbols),
        Err(error) => vec![absent(config, &error.record().message)],
    }
}

/// The text of a failed search: what is missing, then every path that was tried.
fn absent(config: &Config, message: &str) -> Finding {
    let mut lines = message.lines().map(|line| line.trim().to_owned());
    let first = lines.next().unwrap_or_default();
    let asked_for = config.require_npu || config.cann_path.is_some();
    let (found, fix) = (format!("{first}; host memory can be moved, NPU memory cannot"), INSTALL);
    let finding =
        if asked_for { Finding::fail("CANN", found, fix) } else { Finding::warn("CANN", found, fix) };
    finding.details(lines.collect())
}

fn found(runtime: &Runtime, config: &Config, list_symbols: bool) -> Vec<Finding> {
    let cann = runtime.cann();
    let places = cann.provenance().iter().map(ToString::to_string).collect();
    let mut findings = vec![Finding::pass("CANN", "found").details(places)];
    let report = cann.symbol_report();
    findings.push(symbols(&report, list_symbols));
    findings.push(release(&report));
    findings.extend(capabilities(runtime));
    findings.extend(devices(runtime, config));
    findings
}

fn symbols(report: &[SymbolReport], list_all: bool) -> Finding {
    let missing: Vec<&SymbolReport> = report.iter().filter(|line| line.found_in.is_none()).collect();
    let line = |line: &SymbolReport| match &line.found_in {
        Some(path) => format!("{}: {}", line.symbol.name, path.display()),
        None => format!(
            "{}: missing from {}, in {} and later",
            line.symbol.name, line.symbol.library, line.symbol.since
        ),
    };
    let found = format!("{} of {} found", report.len().saturating_sub(missing.len()), report.len());
    let shown: Vec<String> = if list_all {
        report.iter().map(line).collect()
    } else {
        missing.iter().map(|entry| line(entry)).collect()
    };
    if missing.iter().any(|entry| entry.symbol.is_required()) {
        let fix = "install the release of CANN that the lines name, or a newer one";
        return Finding::fail("functions", found, fix).details(shown);
    }
    Finding::pass("functions", found).details(shown)
}

/// The newest release all of whose functions are there.
fn release(report: &[SymbolReport]) -> Finding {
    let complete = |release: &Release| {
        report.iter().filter(|line| line.symbol.since.certain <= *release).all(|line| line.found_in.is_some())
    };
    match RELEASES.iter().rev().find(|release| complete(release)) {
        Some(release) => Finding::pass("release", format!("{release} or later, by its functions")),
        None => Finding::warn(
            "release",
            format!("older than {}, or incomplete", Release::V8_1),
            "see the functions that are missing",
        ),
    }
}

fn capabilities(runtime: &Runtime) -> Option<Finding> {
    let cann = runtime.cann();
    if let Err(missing) = cann.require_all() {
        return Some(Finding::fail("one-sided", missing.to_string(), "install a CANN that has it"));
    }
    Some(Finding::pass("one-sided", "every function that a transfer between NPUs needs is there"))
}

fn devices(runtime: &Runtime, config: &Config) -> Vec<Finding> {
    let visible = config.visible_devices.as_deref();
    let said = visible.map_or(String::new(), |list| format!(" (ASCEND_RT_VISIBLE_DEVICES={list})"));
    let count = match runtime.device_count() {
        Ok(0) => {
            return vec![Finding::fail(
                "NPUs",
                format!("none{said}"),
                "look at npu-smi info; in a container, give it /dev/davinci* and the driver's folders",
            )];
        }
        Ok(count) => count,
        Err(error) => return vec![Finding::fail("NPUs", error.to_string(), "see the vendor's text")],
    };
    let soc = runtime.soc_name().unwrap_or_else(|error| error.to_string());
    let hccn = std::fs::read_to_string(&config.hccn_conf);
    let mut without_address = Vec::new();
    let mut lines = Vec::new();
    for device in 0..i32::try_from(count).unwrap_or(i32::MAX) {
        match runtime.physical_device(device) {
            Ok(physical) => {
                let address = hccn.as_ref().ok().and_then(|text| rank::hccn_address(text, physical));
                if address.is_none() {
                    without_address.push(physical);
                }
                let address = address.unwrap_or_else(|| "none".to_owned());
                lines.push(format!("device {device} is NPU {physical}, network address {address}"));
            }
            Err(error) => lines.push(format!("device {device}: {error}")),
        }
    }
    vec![
        Finding::pass("NPUs", format!("{count} of {soc}{said}")).details(lines),
        addresses(&config.hccn_conf, hccn.is_ok(), &without_address),
    ]
}

/// RoCE between servers needs the address of each NPU; links inside a server do not.
fn addresses(path: &Path, readable: bool, without: &[u32]) -> Finding {
    let fix = "mount the host's file into the container, or configure the NPUs with hccn_tool; links inside one \
               server do not need it";
    if !readable {
        return Finding::warn("addresses", format!("{} cannot be read", path.display()), fix);
    }
    if without.is_empty() {
        return Finding::pass("addresses", format!("{} has one for each NPU", path.display()));
    }
    let listed: Vec<String> = without.iter().map(ToString::to_string).collect();
    Finding::warn("addresses", format!("{} has none for NPU {}", path.display(), listed.join(", ")), fix)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const MESSAGE: &str = "CANN was not found: no HCCL (libhcomm.so)\n  tried /a/libhcomm.so: no such file";

    #[test]
    fn a_machine_without_cann_is_a_warning_with_every_path() {
        let finding = absent(&Config::default(), MESSAGE);
        assert_eq!(finding.verdict, Verdict::Warn);
        assert!(finding.found.starts_with("CANN was not found: no HCCL"), "{}", finding.found);
        assert_eq!(finding.details, ["tried /a/libhcomm.so: no such file"]);
        assert!(finding.fix.contains("set_env.sh"));
    }

    #[test]
    fn where_an_npu_is_asked_for_it_is_a_failure() {
        let config = Config { require_npu: true, ..Config::default() };
        assert_eq!(absent(&config, MESSAGE).verdict, Verdict::Fail);
        let config = Config { cann_path: Some("/x".into()), ..Config::default() };
        assert_eq!(absent(&config, MESSAGE).verdict, Verdict::Fail);
    }

    #[test]
    fn addresses_of_npus() {
        let path = Path::new("/etc/hccn.conf");
        assert_eq!(addresses(path, true, &[]).verdict, Verdict::Pass);
        let some = addresses(path, true, &[3, 5]);
        assert_eq!(
            (some.verdict, some.found.as_str()),
            (Verdict::Warn, "/etc/hccn.conf has none for NPU 3, 5")
        );
        assert_eq!(addresses(path, false, &[0]).verdict, Verdict::Warn);
    }
}
