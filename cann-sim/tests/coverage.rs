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

/// The tests of the crate by file and name, with their documentation and whether they are a case of a C program.
fn tests() -> BTreeMap<(String, String), (String, bool)> {
    let mut found = BTreeMap::new();
    for (path, text) in folder("tests") {
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut documentation = String::new();
        let mut cases_from: Option<usize> = None; // the column of a list of cases
        for line in text.lines() {
            let word = line.trim();
            let column = line.len() - line.trim_start().len();
            if word.starts_with("cases!") {
                cases_from = Some(column);
            } else if word == "}" && cases_from == Some(column) {
                cases_from = None;
            } else if let Some(text) = word.strip_prefix("///") {
                documentation.push_str(text);
            } else if !word.starts_with("#[") {
                // A case's settings may go on in further lines, which stand deeper.
                let is_case = cases_from.is_some_and(|from| column == from + 4) && !word.starts_with(')');
                let name = word.strip_prefix("fn ").unwrap_or(if is_case { word } else { "" });
                let is_letter = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
                let name: String = name.chars().take_while(is_letter).collect();
                let documentation = std::mem::take(&mut documentation);
                if !name.is_empty() {
                    found.insert((file.clone(), name), (documentation, is_case));
                }
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

/// A case of a C program says where its rule stands, or that it goes on from the one above.
#[test]
fn every_case_says_what_it_shows() {
    let cases: Vec<_> = tests().into_iter().filter(|(_, (_, is_case))| *is_case).collect();
    for ((file, name), (documentation, _)) in &cases {
        assert!(!documentation.is_empty(), "{file}:{name} does not say which section of the facts it shows");
    }
    assert!(cases.len() >= 100, "{} cases", cases.len());
}
