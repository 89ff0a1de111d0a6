//! The tests against the facts: every function is called by a test, every behaviour of chapters 2.4 to 2.6 and 7.1
//! names the tests that show it, and every test names its section.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn folder(name: &str) -> Vec<(PathBuf, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// Facts 7.1 (a), the functions by name.
const REQUIRED: &str = "aclInit aclFinalize aclrtGetVersion aclGetRecentErrMsg aclrtGetSocName aclrtSetDevice
    aclrtResetDevice aclrtGetDevice aclrtGetDeviceCount aclrtGetRunMode aclrtCreateContext aclrtDestroyContext
    aclrtSetCurrentContext aclrtGetCurrentContext aclrtCtxGetCurrentDefaultStream aclrtGetPhyDevIdByLogicDevId
    rtGetDevicePhyIdByIndex aclrtGetLogicDevIdByUserDevId aclrtGetDeviceInfo aclrtCreateStream
    aclrtCreateStreamWithConfig aclrtDestroyStream aclrtSynchronizeStream aclrtSynchronizeStreamWithTimeout
    aclrtStreamQuery aclrtStreamAbort aclrtSetStreamFailureMode aclrtStreamWaitEvent aclrtCreateEvent
    aclrtCreateEventExWithFlag aclrtDestroyEvent aclrtRecordEvent aclrtQueryEventStatus aclrtSynchronizeEvent
    aclrtSynchronizeEventWithTimeout aclrtEventElapsedTime aclrtMalloc aclrtMallocAlign32 aclrtFree aclrtMallocHost
    aclrtFreeHost aclrtHostRegister aclrtHostUnregister aclrtMemset aclrtMemcpy aclrtMemcpyAsync aclrtMemcpyBatch
    aclrtMemcpyBatchAsync aclrtPointerGetAttributes aclrtGetMemInfo aclrtDeviceCanAccessPeer
    aclrtDeviceEnablePeerAccess aclrtLaunchHostFunc aclrtSubscribeReport aclrtProcessReport aclrtUnSubscribeReport
    aclrtLaunchCallback aclrtDeviceGetBareTgid HcclCommInitClusterInfoMemConfig HcclCommDestroy
    HcclRegisterGlobalMem HcclDeregisterGlobalMem HcclCommBindMem HcclCommUnbindMem HcclCommPrepare HcclBatchPut
    HcclBatchGet HcclRemapRegistedMemory HcclExchangeMemDesc HcclGetErrorString HcclGetCommName";

/// Functions with an implementation of their own: name and since when.
fn implemented() -> Vec<&'static str> {
    include_str!("../symbols.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() == 3)
        .filter_map(|words| words.get(2).copied())
        .collect()
}

/// Whether a C text calls `name`: a declaration at the start of a line is no call.
fn calls(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        line.match_indices(name).any(|(start, _)| {
            let before = line[..start].chars().next_back();
            let is_word = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
            let is_declaration = !line.starts_with(char::is_whitespace)
                && ["aclError ", "HcclResult ", "const char *", "int "]
                    .iter()
                    .any(|kind| line.starts_with(kind))
                && !line.contains('{');
            !is_word && !is_declaration && line[start + name.len()..].starts_with('(')
        })
    })
}

#[test]
fn every_function_is_called_by_a_test() {
    let sources = folder("tests/c");
    let implemented = implemented();
    for name in REQUIRED.split_whitespace() {
        assert!(implemented.contains(&name), "facts 7.1 demand {name}, which is not implemented");
    }
    let uncalled: Vec<&&str> =
        implemented.iter().filter(|name| !sources.iter().any(|(_, text)| calls(text, name))).collect();
    assert!(uncalled.is_empty(), "no C test calls {uncalled:?}");
    assert!(implemented.len() > 120, "{} functions", implemented.len());
}

/// The tests of the crate by file and case, with their documentation.
fn tests() -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for (path, text) in folder("tests") {
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut documentation = String::new();
        let mut in_cases = false;
        for line in text.lines() {
            let word = line.trim();
            if word.starts_with("cases!") {
                in_cases = true;
            } else if line == "}" {
                in_cases = false;
            } else if let Some(text) = word.strip_prefix("///") {
                documentation.push_str(text);
            } else if word.starts_with("#[") {
                // between documentation and function
            } else {
                let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                let name = word.strip_prefix("fn ").unwrap_or(if in_cases { word } else { "" });
                let name: String = name.chars().take_while(|letter| letters(*letter)).collect();
                // A case's settings may go on in further lines; those do not begin with a name alone.
                let is_case = in_cases && line.starts_with("    ") && !line.starts_with("     ");
                if !name.is_empty() && (is_case || word.starts_with("fn ")) {
                    found.insert((file.clone(), name), std::mem::take(&mut documentation));
                }
                documentation.clear();
            }
        }
    }
    found
}

/// Each line of `coverage.txt` is `section | behaviour | file:test, file:test`.
#[test]
fn every_behaviour_names_its_tests() {
    let tests = tests();
    let mut sections = BTreeSet::new();
    let mut lines = 0;
    for line in include_str!("coverage.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [section, behaviour, shown_by] = fields.as_slice() else {
            panic!("three fields are wanted: {line}")
        };
        assert!(!behaviour.is_empty());
        for test in shown_by.split(',').map(str::trim) {
            let (file, name) = test.split_once(':').unwrap_or_else(|| panic!("file:test is wanted: {line}"));
            assert!(
                tests.contains_key(&(file.to_owned(), name.to_owned())),
                "there is no test {test}, which should show: {behaviour}"
            );
        }
        sections.insert(*section);
        lines += 1;
    }
    for section in
        ["2.4.1", "2.4.2", "2.4.3", "2.4.4", "2.4.5", "2.4.6", "2.4.7", "2.4.8", "2.5", "2.6", "7.1"]
    {
        assert!(sections.contains(section), "no line of section {section}");
    }
    assert!(lines >= 60, "{lines} lines");
}

/// A test of a rule says where the rule stands, or that it goes on from the one above.
#[test]
fn every_rules_test_names_its_section() {
    for ((file, name), documentation) in tests() {
        let is_of_a_rule = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/c/{file}.c")).exists();
        let is_case = is_of_a_rule && !documentation.is_empty();
        if is_case {
            continue;
        }
        let text =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{file}.rs")))
                .unwrap();
        let is_in_cases = !text.contains(&format!("fn {name}("));
        assert!(!is_in_cases, "{file}:{name} does not say which section of the facts it shows");
    }
}
