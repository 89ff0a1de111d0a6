//! Environment variables: unusable values, names nobody reads, settings that contradict each other.

use mooncake::config::{Config, Unread, Warning, unread};

use super::Finding;

pub(super) fn check(config: &Config, warnings: &[Warning], names: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !warnings.is_empty() {
        let lines = warnings.iter().map(ToString::to_string).collect();
        findings.push(
            Finding::fail("variables", "some values are unusable", "see `mooncake env`").details(lines),
        );
    }
    let unknown = unread(names.iter().map(String::as_str));
    if !unknown.is_empty() {
        let lines = unknown
            .iter()
            .map(|Unread { name, suggestion }| match suggestion {
                Some(meant) => format!("{name}: did you mean {meant}?"),
                None => format!("{name}: nobody reads it"),
            })
            .collect();
        let fix = "unset them, or see `mooncake env` for the names that are read";
        findings.push(Finding::warn("unread", "variables that have no effect", fix).details(lines));
    }
    let against = contradictions(config, names);
    if !against.is_empty() {
        let fix = "unset one of each pair";
        findings
            .push(Finding::fail("contradiction", "settings that exclude each other", fix).details(against));
    }
    if findings.is_empty() {
        findings.push(Finding::pass("variables", "all that are set are read and usable"));
    }
    findings
}

fn contradictions(config: &Config, names: &[String]) -> Vec<String> {
    let set = |name: &str| names.iter().any(|other| other == name);
    let mut found = Vec::new();
    if config.force_tcp && config.require_npu {
        found.push("MC_FORCE_TCP forbids NPUs, MOONCAKE_TRANSFER_REQUIRE_NPU=1 asks for them".to_owned());
    }
    for (ours, vendors) in [("ASCEND_RDMA_TC", "HCCL_RDMA_TC"), ("ASCEND_RDMA_SL", "HCCL_RDMA_SL")] {
        if set(ours) && set(vendors) && std::env::var_os(ours) != std::env::var_os(vendors) {
            found.push(format!("{ours} and {vendors} differ; {ours} holds for transfers"));
        }
    }
    if config.control_silence_limit <= config.control_ping_interval {
        found.push("a control connection counts as lost before the first ping".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clean_environment_passes() {
        let names = ["PATH".to_owned(), "MC_LOG_LEVEL".to_owned()];
        let findings = check(&Config::default(), &[], &names);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].verdict, Verdict::Pass);
    }

    #[test]
    fn a_slip_in_a_name_is_told_with_the_name_that_was_meant() {
        let findings = check(&Config::default(), &[], &["MC_TRANSFER_TIMEOT".to_owned()]);
        assert_eq!(findings[0].verdict, Verdict::Warn);
        assert!(findings[0].details[0].contains("did you mean MC_TRANSFER_TIMEOUT"), "{findings:?}");
    }

    #[test]
    fn an_unusable_value_fails() {
        let (config, warnings) =
            Config::from_lookup(&|name| (name == "MC_TRANSFER_TIMEOUT").then(|| "soon".to_owned()));
        let findings = check(&config, &warnings, &[]);
        assert_eq!(findings[0].verdict, Verdict::Fail);
        assert!(findings[0].details[0].contains("soon"), "{findings:?}");
    }

    #[test]
    fn contradictions_fail_by_name() {
        let config = Config { force_tcp: true, require_npu: true, ..Config::default() };
        let findings = check(&config, &[], &[]);
        assert_eq!(findings[0].verdict, Verdict::Fail);
        assert!(findings[0].details[0].contains("MC_FORCE_TCP"), "{findings:?}");
    }
}
