//! The `CANN_SIM_*` environment variables: one table, read once per process.
//!
//! The vendor's own variables (`ASCEND_RT_VISIBLE_DEVICES`, `HCCL_INTRA_ROCE_ENABLE`, `HCCL_CONNECT_TIMEOUT`,
//! `HCCL_EXEC_TIMEOUT`) are
//! read here too, once, as CANN reads them. A `CANN_SIM_*` variable that the table does not have is reported once
//! on the standard error output: a misspelt setting must not pass as the default.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use crate::{card, config_file, cost};

/// 8.5.
const DEFAULT_RELEASE: u32 = 805;

/// One documented variable.
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// What holds when it is unset.
    pub default: &'static str,
    /// Meaning, with unit and range.
    pub meaning: &'static str,
}

/// Every variable the software NPU reads under its own prefix.
pub const TABLE: &[Variable] = &[
    Variable {
        name: "CANN_SIM_DEVICE_COUNT",
        default: "8",
        meaning: "number of NPUs this process can see, 1 to 64, before ASCEND_RT_VISIBLE_DEVICES narrows them",
    },
    Variable {
        name: "CANN_SIM_PHYSICAL_IDS",
        default: "0,1,2,... up to the device count",
        meaning: "physical ids of the visible NPUs in logical order, comma separated, as in a container that was \
                  given some NPUs of its host; sets the device count too",
    },
    Variable {
        name: "CANN_SIM_SOC",
        default: "Ascend910B3, or Ascend910_9392 with a profile of A3",
        meaning: "name of the chip: Ascend910B* is A2, Ascend910_93* is A3",
    },
    Variable {
        name: "CANN_SIM_HBM_SIZE",
        default: "64G",
        meaning: "device memory of one NPU in bytes, with suffix K, M or G (powers of 1024); pages are committed \
                  when first written",
    },
    Variable {
        name: "CANN_SIM_RELEASE",
        default: "8.5",
        meaning: "CANN release to pose as, 8.1 to 9.2: decides the version number and which library has which symbol",
    },
    Variable {
        name: "CANN_SIM_HIDE",
        default: "",
        meaning: "names of functions, comma separated, that the vendor's libraries shall not have (a fault)",
    },
    Variable {
        name: "CANN_SIM_NAMESPACE",
        default: "the user id",
        meaning: "processes with the same text share one set of NPUs and can build communicators with each other",
    },
    Variable {
        name: "CANN_SIM_SERVER_INDEX",
        default: "0",
        meaning: "number of this server in its super pod, 0 to 1023; part of the ids that aclrtGetDeviceInfo answers",
    },
    Variable {
        name: "CANN_SIM_SUPER_POD_ID",
        default: "0",
        meaning: "super pod id that aclrtGetDeviceInfo answers",
    },
    Variable {
        name: "CANN_SIM_PCIE_PAIRS",
        default: "",
        meaning: "pairs of physical ids such as 0-4,1-5 that only PCIe joins: on A2 no one-sided link inside a \
                  server can be had between them (5), except by HCCL_INTRA_ROCE_ENABLE",
    },
    Variable {
        name: "CANN_SIM_OLD_DRIVER",
        default: "0",
        meaning: "1: a driver that does not know memory of the program: aclrtPointerGetAttributes fails for it, and \
                  asynchronous copies of it do not block and are not protected",
    },
    Variable {
        name: "CANN_SIM_HOST_REGISTRATION_LIMIT",
        default: "none",
        meaning: "host memory in bytes that one communicator can register with the network card, with suffix K, M or \
                  G; above it prepare answers 19, as old drivers do at 20G to 32G",
    },
    Variable {
        name: "CANN_SIM_INIT_EXCLUSIVE_MS",
        default: "0",
        meaning: "milliseconds an initialisation of a communicator takes, 0 to 60000; another process of the server \
                  that begins one meanwhile is answered 7",
    },
    Variable {
        name: "CANN_SIM_CONFIG",
        default: "",
        meaning: "topology file in TOML that gives the other variables; see the module config_file",
    },
    Variable {
        name: "CANN_SIM_PLACE",
        default: "the first server",
        meaning: "SERVER or SERVER/CONTAINER of the topology file that this process is in",
    },
    Variable {
        name: "CANN_SIM_HCCN_CONF",
        default: "",
        meaning: "hccn.conf of this server: cards have its addresses only, and those it does not name have none; \
                  unset, a card has what the rank table says",
    },
    Variable {
        name: "CANN_SIM_BOOT_ID",
        default: "the kernel's",
        meaning: "boot id that a program started by cann-sim-control run sees, as in a container",
    },
    Variable {
        name: "CANN_SIM_PROFILE",
        default: "null",
        meaning: "cost profile: null, a2-hccs, a2-roce, a3-hccs, a3-hccs-2node or a3-roce; see the module cost",
    },
    Variable {
        name: "CANN_SIM_SLOWDOWN",
        default: "1",
        meaning: "how many times slower than hardware a profile runs, 1 to 1000000; 20 to 50 lets this machine move \
                  the bytes in time",
    },
    Variable {
        name: "CANN_SIM_LAUNCH",
        default: "device",
        meaning: "device: the launches of a device are in a row, whichever thread or process makes them; thread: each \
                  thread launches for itself",
    },
    Variable {
        name: "CANN_SIM_PROFILE_FILE",
        default: "the crate's own",
        meaning: "data file with other profiles, as cann-sim/cost/profiles.toml",
    },
    Variable {
        name: "CANN_SIM_FAULTS",
        default: "",
        meaning: "scripted faults, NAME[/WHERE]=ACTION[@[all:]N[+]] joined by ';'; see the module fault",
    },
    Variable {
        name: "CANN_SIM_FAULT_SOCKET",
        default: "0",
        meaning: "1: listen on the abstract socket cann-sim-fault/NAMESPACE/PID for faults, and count calls",
    },
];

/// The settings of this process.
#[derive(Debug)]
pub struct Settings {
    /// Physical ids in logical order.
    pub physical_ids: Vec<u32>,
    /// Logical ids in the order of user ids (narrowed by `ASCEND_RT_VISIBLE_DEVICES`).
    pub visible: Vec<u32>,
    /// Name of the chip, with the trailing NUL that C callers need.
    pub soc_name: std::ffi::CString,
    /// Whether the chip is an A3 (super pod links).
    pub is_a3: bool,
    /// Whether the chip can abort a stream: A2, A3 and 950 (facts 1.6).
    pub aborts_streams: bool,
    /// Pairs of physical ids, the lower first, that PCIe joins and HCCS does not (A2, facts 2.5).
    pub pcie_pairs: HashSet<(u32, u32)>,
    /// The driver does not know memory of the program (facts 8.11).
    pub has_old_driver: bool,
    /// Device memory of one NPU.
    pub hbm_size_bytes: usize,
    /// Posed release as major * 100 + minor.
    pub release: u32,
    /// Name shared by processes that see the same NPUs.
    pub namespace: String,
    /// Number of this server in its super pod.
    pub server_index: u32,
    /// Host memory that one communicator can register with the network card.
    pub host_registration_limit_bytes: Option<usize>,
    /// How long an initialisation of a communicator keeps other processes of the server out.
    pub init_exclusive_ms: u32,
    /// `HCCL_NPU_SOCKET_PORT_RANGE` is set: cards take a free port.
    pub card_chooses_port: bool,
    /// Super pod of this server.
    pub super_pod_id: u32,
    /// `HCCL_INTRA_ROCE_ENABLE` is set and not zero.
    pub intra_roce: bool,
    /// `HCCL_CONNECT_TIMEOUT` in seconds, or the refused text.
    pub connect_timeout_seconds: Result<u64, String>,
    /// `HCCL_EXEC_TIMEOUT`: how long a task on a RoCE link waits for a peer that does not answer (facts 2.4,
    /// point 5).
    pub execution_timeout_seconds: u64,
    /// Addresses of the network cards, where an `hccn.conf` is given.
    pub card_addresses: Option<card::Addresses>,
    /// Scripted faults, unparsed.
    pub faults: String,
    /// Listen for more of them.
    pub fault_socket: bool,
    /// Cost profile; "null" charges nothing.
    pub profile: String,
    /// Data file of the profiles; empty for the crate's own.
    pub profile_file: String,
    /// Machine time of one unit of model time.
    pub slowdown: u32,
    /// Launches are in a row for each thread, not for each device.
    pub launches_per_thread: bool,
}

/// The environment, as far as it is text.
pub fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// What the libraries under the vendor's names ask when they are loaded.
///
/// It is read apart from the settings, because a program may still change its environment between loading a library
/// and its first call, as it may with CANN.
#[derive(Debug)]
pub struct Visibility {
    /// Posed release as major * 100 + minor.
    pub release: u32,
    /// Functions that shall be missing, comma separated.
    pub hidden: std::ffi::CString,
}

/// The release and the hidden functions, read when the first library is loaded.
pub fn visibility() -> &'static Visibility {
    static VISIBILITY: OnceLock<Visibility> = OnceLock::new();
    VISIBILITY.get_or_init(|| {
        let mut variables = environment();
        // A mistake is reported when the settings are read.
        let _ = add_config_file(&mut variables);
        let text = |name: &str| variables.get(name).filter(|text| !text.is_empty());
        Visibility {
            release: text("CANN_SIM_RELEASE")
                .and_then(|word| release_number(word))
                .unwrap_or(DEFAULT_RELEASE),
            hidden: text("CANN_SIM_HIDE")
                .and_then(|names| std::ffi::CString::new(names.as_str()).ok())
                .unwrap_or_default(),
        }
    })
}

/// The settings, read from the environment at the first call.
pub fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let mut variables = environment();
        let mut complaints = add_config_file(&mut variables);
        let (settings, more) = read(&variables);
        complaints.extend(more);
        for complaint in complaints {
            // The library has no logger of its own; a settings mistake must be seen by whoever runs the process.
            let _ = writeln!(std::io::stderr(), "cann-sim: {complaint}");
        }
        settings
    })
}

/// Adds what the topology file says and the environment does not.
pub fn add_config_file(variables: &mut BTreeMap<String, String>) -> Vec<String> {
    let Some(path) = variables.get("CANN_SIM_CONFIG").filter(|path| !path.is_empty()) else {
        return Vec::new();
    };
    let place = variables.get("CANN_SIM_PLACE").map(String::as_str).filter(|place| !place.is_empty());
    match config_file::load(Path::new(path), place) {
        Ok(from_file) => {
            for (name, value) in from_file {
                variables.entry(name).or_insert(value);
            }
            Vec::new()
        }
        Err(why) => vec![format!("CANN_SIM_CONFIG: {why}")],
    }
}

/// Reads settings from `variables`; mistakes are answered as sentences and replaced by the defaults.
pub fn read(variables: &BTreeMap<String, String>) -> (Settings, Vec<String>) {
    let mut complaints = Vec::new();
    for name in variables.keys().filter(|name| name.starts_with("CANN_SIM_")) {
        if !TABLE.iter().any(|variable| variable.name == name) {
            complaints
                .push(format!("unknown variable {name}; the known ones stand in the table of cann-sim"));
        }
    }
    let text = |name: &str| variables.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let mut number = |name: &str, default: u32, least: u32, most: u32| match text(name) {
        None => default,
        Some(word) => match word.parse::<u32>() {
            Ok(value) if (least..=most).contains(&value) => value,
            _ => {
                complaints
                    .push(format!("{name}={word} is not a number from {least} to {most}; using {default}"));
                default
            }
        },
    };
    let device_count = number("CANN_SIM_DEVICE_COUNT", 8, 1, 64);
    let fault_socket = number("CANN_SIM_FAULT_SOCKET", 0, 0, 1) == 1;
    let server_index = number("CANN_SIM_SERVER_INDEX", 0, 0, 1023);
    let init_exclusive_ms = number("CANN_SIM_INIT_EXCLUSIVE_MS", 0, 0, 60_000);
    let super_pod_id = number("CANN_SIM_SUPER_POD_ID", 0, 0, u32::MAX);
    let slowdown = number("CANN_SIM_SLOWDOWN", 1, 1, 1_000_000);
    let has_old_driver = number("CANN_SIM_OLD_DRIVER", 0, 0, 1) == 1;
    let pcie_pairs =
        text("CANN_SIM_PCIE_PAIRS").map_or_else(|| Some(HashSet::new()), pairs).unwrap_or_else(|| {
            complaints
                .push("CANN_SIM_PCIE_PAIRS is no list such as 0-4,1-5 of physical ids; ignored".to_owned());
            HashSet::new()
        });
    let physical_ids = match text("CANN_SIM_PHYSICAL_IDS") {
        None => (0..device_count).collect(),
        Some(list) => {
            match list.split(',').map(|word| word.trim().parse::<u32>()).collect::<Result<Vec<_>, _>>() {
                Ok(ids) => ids,
                Err(_) => {
                    complaints.push(format!(
                        "CANN_SIM_PHYSICAL_IDS={list} is not a comma list of numbers; ignored"
                    ));
                    (0..device_count).collect()
                }
            }
        }
    };
    let launches_per_thread = match text("CANN_SIM_LAUNCH") {
        None | Some("device") => false,
        Some("thread") => true,
        Some(word) => {
            complaints.push(format!("CANN_SIM_LAUNCH={word} is neither device nor thread; using device"));
            false
        }
    };
    let profile = text("CANN_SIM_PROFILE").unwrap_or(cost::NULL_PROFILE);
    // The chip follows the profile.
    let usual_soc = if profile.starts_with("a3") { "Ascend910_9392" } else { "Ascend910B3" };
    let soc = text("CANN_SIM_SOC").unwrap_or(usual_soc);
    let hbm_size_bytes = match text("CANN_SIM_HBM_SIZE").map(|word| (word, size(word))) {
        Some((_, Some(bytes))) => bytes,
        Some((word, None)) => {
            complaints.push(format!("CANN_SIM_HBM_SIZE={word} is not a size; using 64G"));
            64 << 30
        }
        None => 64 << 30,
    };
    let host_registration_limit_bytes = text("CANN_SIM_HOST_REGISTRATION_LIMIT").and_then(|word| {
        let limit = size(word);
        if limit.is_none() {
            complaints
                .push(format!("CANN_SIM_HOST_REGISTRATION_LIMIT={word} is not a size; there is no limit"));
        }
        limit
    });
    let release_text = text("CANN_SIM_RELEASE").unwrap_or("8.5");
    let release = release_number(release_text).unwrap_or_else(|| {
        complaints.push(format!("CANN_SIM_RELEASE={release_text} is not a release such as 8.5; using 8.5"));
        DEFAULT_RELEASE
    });
    let visible = match variables.get("ASCEND_RT_VISIBLE_DEVICES") {
        None => (0..u32::try_from(physical_ids.len()).unwrap_or(0)).collect(),
        Some(list) => visible_devices(list, physical_ids.len()),
    };
    let connect_timeout_seconds = match text("HCCL_CONNECT_TIMEOUT") {
        None => Ok(120),
        Some(word) => match word.parse::<u64>() {
            Ok(seconds) if (120..=7200).contains(&seconds) => Ok(seconds),
            _ => Err(word.to_owned()),
        },
    };
    // SAFETY: getuid has no preconditions and cannot fail.
    let user = unsafe { libc::getuid() };
    let settings = Settings {
        physical_ids,
        visible,
        is_a3: soc.starts_with("Ascend910_93"),
        aborts_streams: ["Ascend910B", "Ascend910_93", "Ascend950"].iter().any(|chip| soc.starts_with(chip)),
        pcie_pairs,
        has_old_driver,
        soc_name: std::ffi::CString::new(soc).unwrap_or_default(),
        hbm_size_bytes,
        release,
        namespace: text("CANN_SIM_NAMESPACE").map_or_else(|| user.to_string(), str::to_owned),
        server_index,
        host_registration_limit_bytes,
        init_exclusive_ms,
        card_chooses_port: text("HCCL_NPU_SOCKET_PORT_RANGE").is_some(),
        super_pod_id,
        intra_roce: text("HCCL_INTRA_ROCE_ENABLE").is_some_and(|word| word.parse::<i64>() != Ok(0)),
        connect_timeout_seconds,
        // What the vendor does with other words and with 0 is not known: they are no timeout of their own here.
        execution_timeout_seconds: text("HCCL_EXEC_TIMEOUT")
            .and_then(|word| word.parse().ok())
            .filter(|seconds| *seconds > 0)
            .unwrap_or(1836),
        // A file that is not there names no address.
        card_addresses: text("CANN_SIM_HCCN_CONF")
            .map(|path| card::parse(&std::fs::read_to_string(path).unwrap_or_default())),
        faults: text("CANN_SIM_FAULTS").unwrap_or_default().to_owned(),
        fault_socket,
        profile: profile.to_owned(),
        profile_file: text("CANN_SIM_PROFILE_FILE").unwrap_or_default().to_owned(),
        slowdown,
        launches_per_thread,
    };
    (settings, complaints)
}

/// `ASCEND_RT_VISIBLE_DEVICES`: an ascending comma list; reading stops at the first invalid item (facts 1.6).
fn visible_devices(list: &str, count: usize) -> Vec<u32> {
    let mut visible: Vec<u32> = Vec::new();
    for word in list.split(',') {
        match word.trim().parse::<u32>() {
            Ok(id)
                if usize::try_from(id).is_ok_and(|id| id < count)
                    && visible.last().is_none_or(|last| *last < id) =>
            {
                visible.push(id);
            }
            _ => break,
        }
    }
    visible
}

/// Pairs such as `0-4,1-5`, the lower number first.
fn pairs(list: &str) -> Option<HashSet<(u32, u32)>> {
    let pair = |word: &str| {
        let (one, other) = word.trim().split_once('-')?;
        let (one, other) = (one.parse::<u32>().ok()?, other.parse::<u32>().ok()?);
        (one != other).then(|| (one.min(other), one.max(other)))
    };
    list.split(',').map(pair).collect()
}

/// A number of bytes with an optional suffix K, M or G.
pub fn size(word: &str) -> Option<usize> {
    let (digits, shift) = match word.chars().last()? {
        'K' | 'k' => (word.get(..word.len() - 1)?, 10),
        'M' | 'm' => (word.get(..word.len() - 1)?, 20),
        'G' | 'g' => (word.get(..word.len() - 1)?, 30),
        _ => (word, 0),
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

/// "8.5" or "8.5.0" as 805.
fn release_number(word: &str) -> Option<u32> {
    let mut parts = word.split('.');
    let major = parts.next()?.parse::<u32>().ok()?;
    let minor = parts.next().unwrap_or("0").parse::<u32>().ok()?;
    (major < 1000 && minor < 100).then_some(major * 100 + minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> (Settings, Vec<String>) {
        read(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn defaults_need_no_variable() {
        let (settings, complaints) = with(&[]);
        assert_eq!(settings.visible.len(), 8);
        assert_eq!(settings.hbm_size_bytes, 64 << 30);
        assert_eq!(settings.release, 805);
        assert!(!settings.is_a3 && !settings.intra_roce);
        assert!(complaints.is_empty());
    }

    #[test]
    fn unknown_and_wrong_variables_are_reported() {
        let (settings, complaints) = with(&[("CANN_SIM_DEVICES", "3"), ("CANN_SIM_DEVICE_COUNT", "0")]);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert_eq!(settings.visible.len(), 8);
    }

    #[test]
    fn pairs_have_the_lower_number_first() {
        let (settings, complaints) = with(&[("CANN_SIM_PCIE_PAIRS", "4-0, 1-5")]);
        assert_eq!(settings.pcie_pairs, HashSet::from([(0, 4), (1, 5)]));
        assert!(complaints.is_empty(), "{complaints:?}");
        for wrong in ["3", "0-0", "0-x"] {
            let (settings, complaints) = with(&[("CANN_SIM_PCIE_PAIRS", wrong)]);
            assert!(settings.pcie_pairs.is_empty() && complaints.len() == 1, "{wrong}: {complaints:?}");
        }
    }

    #[test]
    fn visible_devices_stop_at_the_first_invalid_item() {
        assert_eq!(visible_devices("1,3,2,5", 8), [1, 3]);
        assert_eq!(visible_devices("0,x,2", 8), [0]);
        assert_eq!(visible_devices("6,8", 8), [6]);
        assert!(visible_devices("", 8).is_empty());
    }

    #[test]
    fn sizes_and_releases() {
        assert_eq!(size("3M"), Some(3 << 20));
        assert_eq!(size("12"), Some(12));
        assert_eq!(size("0"), None);
        assert_eq!(release_number("9.0.1"), Some(900));
        assert_eq!(release_number("x"), None);
    }
}
