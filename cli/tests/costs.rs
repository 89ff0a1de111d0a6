//! `mooncake costs`: the table can be printed, changed by what was printed, and the choice can be seen with its numbers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of a test fail as the test does")]

use std::process::{Command, Output};

fn costs(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mooncake"));
    command.arg("costs").args(arguments);
    for name in ["ASCEND_AGGREGATE_ENABLE", "MOONCAKE_TRANSFER_COST_TABLE", "MOONCAKE_TRANSFER_BOTH_ENDS"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

#[track_caller]
fn text(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = costs(arguments, variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_number_of_every_link_is_printed_with_where_it_is_from() {
    let printed = text(&[], &[]);
    for link in ["a2-hccs", "a2-roce", "a3-hccs", "a3-hccs-2node", "a3-roce"] {
        let of_link = printed.lines().filter(|line| line.split(' ').next() == Some(link)).count();
        assert_eq!(of_link, 15, "{link}");
    }
    assert!(printed.lines().all(|line| line.split(' ').count() > 3), "a number has no source:\n{printed}");
    let one = text(&["--link", "a3-roce"], &[]);
    assert_eq!(one.lines().count(), 15);
    assert!(one.lines().all(|line| line.starts_with("a3-roce ")), "{one}");
}

#[test]
fn what_was_printed_and_changed_is_what_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("costs");
    let file = [("MOONCAKE_TRANSFER_COST_TABLE", path.to_str().unwrap())];
    std::fs::write(&path, text(&[], &[])).unwrap();
    assert_eq!(text(&[], &file), text(&[], &[]));
    std::fs::write(&path, "a2-roce write.launch_us 99 measured here\n").unwrap();
    assert!(text(&["--link", "a2-roce"], &file).contains("a2-roce write.launch_us 99 measured here\n"));
    // 1000 descriptors at 99 us.
    let choice = text(&["1000x16384", "--link", "a2-roce"], &file);
    assert!(choice.lines().next().unwrap().contains("direct 99000.0 us"), "{choice}");
    // What is not right is named by file, line and reason, with what to do about it.
    std::fs::write(&path, "# ours\na2-roce write.launch_us ninety\n").unwrap();
    let output = costs(&[], &file);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = format!("{}: line 2: \"ninety\" is no number", path.display());
    assert!(said.contains(&reason) && said.contains("MOONCAKE_TRANSFER_COST_TABLE"), "{said}");
}

/// Exactly 1 lets small blocks be gathered for speed; memory that the link does not take is relayed in any case.
#[test]
fn the_choice_is_that_of_this_environment() {
    let blocks = ["256x65536", "--link", "a2-roce"];
    for value in ["", "0", "true", "01", "1 ", "yes"] {
        let choice = text(&blocks, &[("ASCEND_AGGREGATE_ENABLE", value)]);
        assert!(
            choice.contains("write direct on a2-roce: 256 extents, 16777216 bytes"),
            "{value:?}: {choice}"
        );
        assert!(choice.contains("staged not weighed"), "{value:?}: {choice}");
        let said = costs(&blocks, &[("ASCEND_AGGREGATE_ENABLE", value)]).stderr;
        assert!(String::from_utf8_lossy(&said).contains("ASCEND_AGGREGATE_ENABLE is not 1"), "{value:?}");
    }
    let on = ("ASCEND_AGGREGATE_ENABLE", "1");
    let choice = text(&blocks, &[on]);
    assert!(
        choice.contains("write both-ends on a2-roce") && choice.contains(", from both ends "),
        "{choice}"
    );
    let choice = text(&blocks, &[on, ("MOONCAKE_TRANSFER_BOTH_ENDS", "0")]);
    assert!(choice.contains("write staged on a2-roce") && !choice.contains("both ends"), "{choice}");
    assert!(choice.contains(", direct ") && choice.contains(" us, staged "), "{choice}");
    for side in ["--local-host", "--remote-host"] {
        let choice = text(&["256x65536", "--link", "a2-hccs", side], &[]);
        assert!(
            choice.contains("write staged on a2-hccs") && choice.contains("direct not possible"),
            "{choice}"
        );
    }
}

#[test]
fn a_group_of_mixed_lengths_is_one_choice() {
    let on = [("ASCEND_AGGREGATE_ENABLE", "1")];
    let choice = text(&["256x16384", "16x2097152", "--link", "a2-roce"], &on);
    assert!(choice.contains("272 extents, 37748736 bytes"), "{choice}");
    for wrong in ["16384", "0x16384", "1x0", "axb", "1x99999999999"] {
        assert_eq!(costs(&[wrong], &on).status.code(), Some(2), "{wrong}");
    }
    assert_eq!(costs(&["1x1", "--link", "a9"], &on).status.code(), Some(2));
}
