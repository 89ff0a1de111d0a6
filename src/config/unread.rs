//! Finds variables that somebody set and nobody reads.
//!
//! A name with one of upstream's prefixes must stand in the table; a name of the vendor is only reported when
//! it is nearly one that is read here, because the vendor's own libraries read many.

use std::sync::Once;

use super::refused::{is_refused, refused};
use super::table::{APPLIED, SILENT};

/// A variable that is set and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Its name.
    pub name: String,
    /// The name that was probably meant.
    pub suggestion: Option<&'static str>,
}

/// Prefixes under which every name must be known.
const OWN_PREFIXES: [&str; 2] = ["MC_", "MOONCAKE_"];

/// Prefixes under which a near miss is reported.
const SHARED_PREFIXES: [&str; 2] = ["ASCEND_", "HCCL_"];

/// Names of the vendor that are close to one of ours and right as they are.
const VENDOR_NAMES: &[&str] = &[
    "ASCEND_AICPU_PATH",
    "ASCEND_OPP_PATH",
    "ASCEND_CUSTOM_OPP_PATH",
    "ASCEND_WORK_PATH",
    "ASCEND_HOME",
    "ASCEND_DRIVER_PATH",
    "ASCEND_VISIBLE_DEVICES",
    "HCCL_IF_BASE_PORT",
    "HCCL_RDMA_TIMEOUT",
    "HCCL_INTRA_PCIE_ENABLE",
    "HCCL_RDMA_RETRY_CNT",
];

/// Most edits between a name and the one that was meant.
const MAX_EDITS: usize = 2;

/// Longest name that is compared; longer ones are no slips of the finger.
const MAX_NAME_BYTES: usize = 64;

/// Those of `names` that no one reads, in their order.
#[must_use]
pub fn unread<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Unread> {
    names.into_iter().filter_map(judge).collect()
}

/// Logs what [`unread`] and [`refused`] find in the environment, once for the process.
pub fn report_unread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        for warning in refused(&variables) {
            log::warn!("{warning}");
        }
        for Unread { name, suggestion } in unread(variables.iter().map(|(name, _)| name.as_str())) {
            match suggestion {
                Some(meant) => log::warn!("{name} is set but not used; did you mean {meant}?"),
                None => log::warn!("{name} is set but not used"),
            }
        }
    });
}

fn judge(name: &str) -> Option<Unread> {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let (own, shared) = (begins(&OWN_PREFIXES), begins(&SHARED_PREFIXES));
    if !(own || shared) || is_known(name) {
        return None;
    }
    let suggestion = nearest(name);
    if shared && (suggestion.is_none() || VENDOR_NAMES.contains(&name)) {
        return None;
    }
    Some(Unread { name: name.to_owned(), suggestion })
}

fn is_known(name: &str) -> bool {
    applied_names().any(|known| known == name)
        || is_refused(name)
        || SILENT.iter().flat_map(|(_, names)| names.iter()).any(|known| match known.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *known == name,
        })
}

fn applied_names() -> impl Iterator<Item = &'static str> {
    APPLIED.iter().flat_map(|row| std::iter::once(row.name).chain(row.aliases.iter().copied()))
}

fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    applied_names()
        .map(|known| (edits(name.as_bytes(), known.as_bytes()), known))
        .filter(|(count, _)| *count <= MAX_EDITS)
        .min()
        .map(|(_, known)| known)
}

/// Insertions, deletions and replacements that turn one name into the other.
fn edits(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = i.saturating_add(1);
        next.push(left);
        for (pair, b) in row.windows(2).zip(to) {
            let &[diagonal, above] = pair else { continue };
            let replaced = diagonal.saturating_add(usize::from(a != b));
            left = replaced.min(above.saturating_add(1)).min(left.saturating_add(1));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Option<Option<&'static str>> {
        unread([name]).pop().map(|unread| unread.suggestion)
    }

    #[test]
    fn known_names_are_quiet() {
        for name in [
            "MC_FORCE_TCP",
            "MC_MIN_PRC_PORT",
            "MC_GID_INDEX",
            "MC_HIP_ANYTHING",
            "MOONCAKE_MASTER",
            "ASCEND_OPP_PATH",
            "ASCEND_GLOBAL_LOG_LEVEL",
            "HCCL_RDMA_TIMEOUT",
            "PATH",
            "CANN_SIM_RELEASE",
            "MC_SID",
        ] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn unknown_names_of_ours_are_reported_with_what_was_meant() {
        assert_eq!(found("MC_FORCE_TPC"), Some(Some("MC_FORCE_TCP")));
        assert_eq!(found("MC_MIN_RPC_PROT"), Some(Some("MC_MIN_RPC_PORT")));
        assert_eq!(found("MOONCAKE_TRANSFER_DRAIN_GRACE"), Some(None));
        assert_eq!(found("MC_NOBODY_READS_THIS"), Some(None));
    }

    #[test]
    fn near_misses_of_the_vendors_names_are_reported() {
        assert_eq!(found("ASCEND_CONNECT_TIMEOUTS"), Some(Some("ASCEND_CONNECT_TIMEOUT")));
        assert_eq!(found("HCCL_INTRA_ROCE_ENABLED"), Some(Some("HCCL_INTRA_ROCE_ENABLE")));
    }

    #[test]
    fn a_very_long_name_is_no_work() {
        let name = format!("MC_{}", "A".repeat(1 << 20));
        assert_eq!(found(&name), Some(None));
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits(b"kitten", b"sitting"), 3);
        assert_eq!(edits(b"", b"abc"), 3);
        assert_eq!(edits(b"abc", b"abc"), 0);
    }
}
