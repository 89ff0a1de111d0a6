//! `ASCEND_TRANSPORT_PRINT=1` logs one line for what went to one peer: numbers that are those of the transfer.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod promise;

use mooncake_test_support::wait_until;
use promise::{LIMIT, PAGE, Peer, moving, software_npu};

/// The printed lines that a process has written by now.
fn lines(peer: &Peer) -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    peer.child.output().lines().filter(|line| line.contains(" route ")).map(words).collect()
}

/// The word behind `name`.
fn word<'a>(line: &'a [String], name: &str) -> &'a str {
    let at = line.iter().position(|word| word == name).unwrap_or_else(|| panic!("no {name} in {line:?}"));
    &line[at + 1]
}

#[test]
fn one_line_for_each_batch_with_its_numbers() {
    let npu = software_npu(2);
    let variables = [("ASCEND_TRANSPORT_PRINT", "1"), ("MC_LOG_LEVEL", "INFO")];
    let (mut a, mut b) = (Peer::start_with(&npu, Some(0), &variables), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, 2 * PAGE, 1), b.buffer(1, 2 * PAGE, 2));
    // Contiguous on both sides: many blocks, one extent.
    a.must(&format!("transfer {}", moving("write", near, &b.name(), far, PAGE, 16384, 0)));
    a.must(&format!("transfer {}", moving("read", near, &b.name(), far, 2 * PAGE, 2 * PAGE, 0)));
    assert!(wait_until(LIMIT, || lines(&a).len() >= 2), "{}", a.child.output());
    let printed = lines(&a);
    assert_eq!(printed.len(), 2, "{printed:?}");
    for (line, direction, bytes, blocks) in
        [(&printed[0], "write", PAGE, PAGE / 16384), (&printed[1], "read", 2 * PAGE, 1)]
    {
        assert_eq!(word(line, "peer"), b.name());
        assert_eq!(word(line, &b.name()), direction);
        assert_eq!(word(line, "bytes"), bytes.to_string());
        assert_eq!(word(line, "blocks"), blocks.to_string());
        assert_eq!(word(line, "extents"), "1");
        assert_eq!((word(line, "route"), word(line, "link")), ("direct", "HCCS"));
        let [planning, submitting, executing, modelled] =
            ["plan", "submit", "execute", "modelled"].map(|name| word(line, name).parse::<u64>().unwrap());
        assert!(submitting <= executing && modelled > 0, "{planning} {line:?}");
        assert!(
            line.windows(2)
                .any(|pair| pair[1] == "GB/s" && pair[0].parse::<f64>().is_ok_and(|rate| rate > 0.0))
        );
    }
    // Without the variable nothing is printed.
    b.must(&format!("transfer {}", moving("write", far, &a.name(), near, PAGE, PAGE, 0)));
    assert!(lines(&b).is_empty());
    a.quit();
    b.quit();
}

#[test]
fn a_staged_transfer_has_a_line_of_the_same_form() {
    let npu = software_npu(2).variable("MOONCAKE_TRANSFER_SAME_HOST", "0");
    let variables = [("ASCEND_TRANSPORT_PRINT", "1"), ("MC_LOG_LEVEL", "INFO")];
    let (mut a, mut b) = (Peer::start_with(&npu, Some(0), &variables), Peer::start(&npu, Some(1)));
    a.must("install ascend");
    let near: u64 = a.must(&format!("host {PAGE}")).parse().unwrap();
    a.must(&format!("register {near} {PAGE} cpu:0"));
    let far = b.buffer(1, PAGE, 2);
    a.must(&format!("transfer {}", moving("read", near, &b.name(), far, PAGE, PAGE, 0)));
    assert!(a.holds(near, PAGE, 2));
    assert!(wait_until(LIMIT, || !lines(&a).is_empty()), "{}", a.child.output());
    let printed = lines(&a);
    assert_eq!(printed.len(), 1, "{printed:?}");
    let line = &printed[0];
    assert_eq!((word(line, "route"), word(line, "link"), word(line, "submit")), ("staged", "HCCS", "-"));
    assert_eq!((word(line, "bytes"), word(line, "blocks")), (PAGE.to_string().as_str(), "1"));
    assert!(word(line, "execute").parse::<u64>().unwrap() > 0, "{line:?}");
    a.quit();
    b.quit();
}

#[test]
fn a_copy_inside_one_process_has_a_line_of_the_same_form() {
    let npu = software_npu(1);
    let variables = [("ASCEND_TRANSPORT_PRINT", "1"), ("MC_LOG_LEVEL", "INFO")];
    let mut a = Peer::start_with(&npu, Some(0), &variables);
    let (near, far, name) = (a.buffer(0, PAGE, 1), a.buffer(0, PAGE, 2), a.name());
    a.must(&format!("transfer {}", moving("write", near, &name, far, PAGE, 65536, 0)));
    assert!(a.holds(far, PAGE, 1));
    assert!(wait_until(LIMIT, || !lines(&a).is_empty()), "{}", a.child.output());
    let printed = lines(&a);
    assert_eq!(printed.len(), 1, "{printed:?}");
    let line = &printed[0];
    assert_eq!((word(line, "peer"), word(line, &name)), (name.as_str(), "write"));
    assert_eq!((word(line, "route"), word(line, "link"), word(line, "submit")), ("local", "-", "-"));
    let blocks = (PAGE / 65536).to_string();
    assert_eq!((word(line, "bytes"), word(line, "blocks")), (PAGE.to_string().as_str(), blocks.as_str()));
    assert!(word(line, "execute").parse::<u64>().unwrap() > 0, "{line:?}");
    // What failed is no line of what was moved.
    a.fault("set copy=fail:507013@1");
    a.must_fail(&format!("transfer {}", moving("write", near, &name, far, PAGE, 65536, 0)));
    a.must(&format!("transfer {}", moving("read", near, &name, far, PAGE, PAGE, 0)));
    assert!(wait_until(LIMIT, || lines(&a).len() >= 2), "{}", a.child.output());
    assert_eq!(word(&lines(&a)[1], &name), "read");
    a.quit();
}

#[test]
fn a_variable_that_cannot_have_its_effect_is_refused_by_name() {
    let npu = software_npu(1);
    let variables = [("ASCEND_BUFFER_POOL", "4:8"), ("ASCEND_USE_SHORT_CONNECTION", "0")];
    let a = Peer::start_with(&npu, Some(0), &variables);
    let told = |name: &str| {
        a.child.output().lines().any(|line| line.contains(name) && line.contains("has no effect: "))
    };
    assert!(wait_until(LIMIT, || told("ASCEND_BUFFER_POOL")), "{}", a.child.output());
    assert!(!told("ASCEND_USE_SHORT_CONNECTION"));
    a.quit();
}
