//! The declarations of this project against the vendor's own headers.
//!
//! The released `torch-npu` wheel carries headers of CANN. They are fetched into the target directory by this
//! test, never committed, and compared by a C++ compiler with three independent readings of the facts:
//! `cann-sys`'s header, this crate's exported functions, and its struct layouts. One-sided HCCL is in no
//! public header; there the readings are compared with each other. Where the wheel cannot be had the
//! comparison is a counted skip.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests")]

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use cann_sim::abi;

/// The wheel whose headers are compared.
const WHEEL: &str = "torch-npu==2.7.1";

/// Whether two function types pass the same bits.
const ALIKE: &str = include_str!("c/alike.hpp");

fn our_header() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cann-sys/include/cann.h")).unwrap()
}

/// Headers of the vendor's, unpacked; `None` after a counted skip.
fn vendor() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("torch-npu-2.7.1");
    let include = place.join("torch_npu/include/third_party");
    let is_complete =
        || ["acl/inc/acl/acl_rt.h", "hccl/inc/hccl/hccl.h"].iter().all(|file| include.join(file).exists());
    if is_complete() {
        return Some(include);
    }
    let lock = std::fs::File::create(place.with_extension("lock")).unwrap();
    // Tests may run in a process each; one of them fetches. The lock goes with the file.
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(&lock), libc::LOCK_EX) }, 0);
    if is_complete() {
        return Some(include);
    }
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // The headers are the same for every machine; naming one wheel makes the test run on any.
    let fetched = Command::new("python3")
        .args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.11"])
        .args(["--implementation", "cp", "--platform", "manylinux_2_28_x86_64", WHEEL, "-d"])
        .arg(scratch.path())
        .output();
    let unpacked = fetched.and_then(|output| {
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(std::io::Error::other(text.lines().last().unwrap_or("pip failed").to_owned()));
        }
        let program = "import glob,sys,zipfile\na=zipfile.ZipFile(glob.glob(sys.argv[1]+'/*.whl')[0])\n\
                       a.extractall(sys.argv[1],[n for n in a.namelist() if 'third_party/' in n])";
        Command::new("python3").args(["-c", program]).arg(scratch.path()).status()
    });
    match unpacked {
        Ok(status) if status.success() => {
            std::fs::remove_dir_all(&place).ok(); // what an interrupted run may have left
            std::fs::rename(scratch.keep(), &place).unwrap();
            Some(include)
        }
        Ok(status) => skip(&format!("the wheel cannot be unpacked: {status}")),
        Err(error) => skip(&format!("{WHEEL} cannot be had: {error}")),
    }
}

fn skip(reason: &str) -> Option<PathBuf> {
    use std::io::Write as _;
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("MOONCAKE_TRANSFER_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(log, "cann-sim conformance with the vendor's headers: {reason}").unwrap();
    }
    None
}

/// The text of the vendor's headers that are included.
fn vendor_text(include: &Path) -> String {
    let files = ["acl/inc/acl/acl_base.h", "acl/inc/acl/acl_rt.h", "acl/inc/acl/acl.h"];
    let more =
        ["acl/inc/acl/error_codes/rt_error_codes.h", "hccl/inc/hccl/hccl.h", "hccl/inc/hccl/hccl_types.h"];
    files
        .iter()
        .chain(&more)
        .map(|file| std::fs::read_to_string(include.join(file)).unwrap_or_default())
        .collect()
}

/// Whether `name` stands in `text` as a word.
fn names(text: &str, name: &str) -> bool {
    text.split(|character: char| !(character.is_alphanumeric() || character == '_')).any(|word| word == name)
}

/// Whether `text` declares a function `name`.
fn declares(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(start, _)| {
        let before = text[..start].chars().next_back().unwrap_or(' ');
        !(before.is_alphanumeric() || before == '_') && text[start + name.len()..].starts_with('(')
    })
}

/// Compiles a text that must compile.
fn compile(text: &str, name: &str, include: Option<&Path>) {
    if let Err(error) = try_compile(text, name, include) {
        panic!("{error}");
    }
}

/// Compiles a text; the error names the assertions that do not hold.
fn try_compile(text: &str, name: &str, include: Option<&Path>) -> Result<(), String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.cpp", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut command = Command::new(compiler);
    command.args(["-std=c++17", "-fsyntax-only", "-fmax-errors=40", "-w"]).arg(&path);
    command.arg("-I").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cann-sys/include"));
    if let Some(include) = include {
        // The wheel's headers include each other by several roots.
        for place in ["acl/inc", "hccl/inc", ".."] {
            command.arg("-isystem").arg(include.join(place));
        }
    }
    let output = command.output().unwrap();
    std::fs::remove_file(path).unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Our header first, inside a namespace; its constants under names that no macro of the vendor's can change.
fn begin(header: &str, constants: &[&str]) -> String {
    let mut text =
        format!("{ALIKE}\n#define CANN_FUNCTION_TYPES\nnamespace ours {{\n#include \"cann.h\"\n}}\n");
    for name in constants {
        let _ = writeln!(text, "constexpr long long our_{name} = (long long)ours::{name};");
    }
    assert!(header.contains("CANN_FUNCTION_TYPES"), "cann.h must be able to declare types only");
    text
}

const VENDOR: &str = "#include <acl/acl.h>\n#include <hccl/hccl.h>\n";

fn functions(header: &str) -> Vec<&str> {
    header
        .lines()
        .filter(|line| line.starts_with("CANN_FUNCTION("))
        .map(|line| line.split(',').nth(1).unwrap().trim())
        .collect()
}

fn constants(header: &str) -> Vec<&str> {
    header
        .lines()
        .filter_map(|line| {
            let (left, _) = line.split_once(" = ")?;
            let name = left.split_whitespace().last()?;
            let is_constant =
                line.starts_with("static const ") || (line.starts_with("    ") && name == left.trim());
            (is_constant
                && name
                    .chars()
                    .all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'))
            .then_some(name)
        })
        .collect()
}

/// Structs of our header with their fields.
fn structs(header: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    for part in header.split("typedef struct {").skip(1) {
        let (body, rest) = part.split_once("\n} ").unwrap();
        let name = rest.split(';').next().unwrap();
        let fields = body
            .lines()
            .filter_map(|line| line.trim().strip_suffix(';'))
            .map(|field| field.split_whitespace().last().unwrap())
            .map(|field| field.trim_start_matches('*').split('[').next().unwrap())
            .collect();
        found.push((name, fields));
    }
    found
}

#[test]
fn the_loaders_header_is_the_vendors() {
    let Some(include) = vendor() else { return };
    let header = our_header();
    let theirs = vendor_text(&include);
    // The end of an enumeration is where its release ends: HCCL_DATA_TYPE_RESERVED was 12 before it was 255.
    let is_meant = |name: &&str| names(&theirs, name) && !name.ends_with("_TYPE_RESERVED");
    let constants: Vec<&str> = constants(&header).into_iter().filter(is_meant).collect();
    let functions: Vec<&str> =
        functions(&header).into_iter().filter(|name| declares(&theirs, name)).collect();
    let mut text = begin(&header, &constants);
    text.push_str(VENDOR);
    for name in &constants {
        let _ = writeln!(text, "static_assert((long long)({name}) == our_{name}, \"{name}\");");
    }
    for name in &functions {
        let _ = writeln!(text, "static_assert(call<decltype(&::{name}), ours::{name}>::same(), \"{name}\");");
    }
    let mut compared = 0;
    for (name, fields) in structs(&header) {
        // The vendor hides the head of the communicator's configuration; its fields are compared below.
        if !names(&theirs, name) || name == "HcclCommConfig" {
            continue;
        }
        let _ = writeln!(text, "static_assert(sizeof(::{name}) == sizeof(ours::{name}), \"{name}\");");
        for field in fields {
            let _ = writeln!(
                text,
                "static_assert(offsetof({name}, {field}) == offsetof(ours::{name}, {field}), \"{field}\");"
            );
        }
        compared += 1;
    }
    let config = "HcclCommConfig";
    for (ours, theirs) in [
        ("size", "reserved"),
        ("bufferSize", "hcclBufferSize"),
        ("deterministic", "hcclDeterministic"),
        ("commName", "hcclCommName"),
        ("udi", "hcclUdi"),
    ] {
        let _ = writeln!(
            text,
            "static_assert(offsetof(ours::{config}, {ours}) == offsetof({config}, {theirs}), \"{ours}\");"
        );
    }
    eprintln!(
        "compared {} functions, {} constants, {compared} structs; in no header of the wheel: {:?}",
        functions.len(),
        constants.len(),
        self::functions(&header).into_iter().filter(|name| !declares(&theirs, name)).collect::<Vec<_>>()
    );
    compile(&text, "loader-header", Some(&include));
    assert!(
        functions.len() >= 50 && constants.len() >= 100 && compared >= 2,
        "the comparison lost its matter"
    );
}

/// `cann_sim_*` of the sources as C++ function types, by the vendor's name.
fn exports() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for part in text.split("fn cann_sim_").skip(1) {
            let (name, rest) = part.split_once('(').unwrap();
            let name = name.strip_prefix("unsupported").map_or(name, |_| "");
            if name.is_empty() {
                continue;
            }
            let mut depth = 1_i32;
            let length = rest
                .find(|character| {
                    depth += i32::from(character == '(') - i32::from(character == ')');
                    depth == 0
                })
                .unwrap();
            let result = if rest[length..].starts_with(") -> *const") { "void *" } else { "int32_t" };
            found.push((name.to_owned(), format!("{result} (*)({})", parameters(&rest[..length]))));
        }
    }
    found
}

fn parameters(text: &str) -> String {
    let mut depth = 0_i32;
    let fields = text.split(|character| {
        depth += i32::from("(<[".contains(character)) - i32::from(")>]".contains(character));
        character == ',' && depth == 0
    });
    let kinds: Vec<&str> = fields
        .map(str::trim)
        .filter(|field| !field.is_empty())
        .map(|field| match field.split_once(':').unwrap().1.trim() {
            "i32" | "c_int" => "int32_t",
            "u32" => "uint32_t",
            "i64" => "int64_t",
            "u64" => "uint64_t",
            "usize" => "size_t",
            "f32" => "float",
            pointer => {
                let is_pointer = pointer.starts_with('*') || pointer.starts_with("Option<");
                assert!(is_pointer, "the test does not know the type {pointer}");
                "void *"
            }
        })
        .collect();
    kinds.join(", ")
}

fn compare_exports(prefix: &str, has: impl Fn(&str) -> bool, text: &mut String) -> usize {
    let mut compared = 0;
    for (name, kind) in exports() {
        if has(&name) {
            let theirs =
                if prefix == "::" { format!("decltype(&::{name})") } else { format!("ours::{name}") };
            let _ = writeln!(text, "static_assert(call<{theirs}, {kind}>::same(), \"{name}\");");
            compared += 1;
        }
    }
    compared
}

#[test]
fn the_exported_functions_are_the_vendors() {
    let Some(include) = vendor() else { return };
    let theirs = vendor_text(&include);
    let mut text = format!("{ALIKE}\n{VENDOR}");
    let compared = compare_exports("::", |name| declares(&theirs, name), &mut text);
    compile(&text, "exports-vendor", Some(&include));
    eprintln!("compared {compared} exported functions");
    assert!(compared >= 50, "{compared} functions compared");
}

/// Also where the vendor's headers are silent: two readings of the facts that know nothing of each other.
#[test]
fn the_exported_functions_are_those_of_the_loaders_header() {
    let header = our_header();
    let known = functions(&header);
    let mut text = begin(&header, &[]);
    let compared = compare_exports("ours", |name| known.contains(&name), &mut text);
    compile(&text, "exports-header", None);
    let symbols = include_str!("../symbols.txt");
    let missing: Vec<&&str> = known.iter().filter(|name| !names(symbols, name)).collect();
    assert!(missing.is_empty(), "the loader knows functions that the software NPU has not: {missing:?}");
    assert!(compared >= 100, "{compared} functions compared");
}

/// One line per field: this crate's offset against the header's.
macro_rules! layouts {
    ($($ours:ident = $theirs:literal { $($field:ident = $name:literal),* $(,)? })+) => {
        [$(($theirs, size_of::<abi::$ours>(), vec![$(($name, offset_of!(abi::$ours, $field))),*])),+]
    };
}

/// A struct of the vendor's: its size here, its fields with their offsets here.
type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

fn layouts() -> Vec<Layout> {
    layouts! {
        MemoryLocation = "aclrtMemLocation" { id = "id", kind = "type" }
        PointerAttributes = "aclrtPtrAttributes" {
            location = "location", page_size = "pageSize", reserved = "rsv",
        }
        MemcpyBatchAttribute = "aclrtMemcpyBatchAttr" {
            target = "dstLoc", source = "srcLoc", reserved = "rsv",
        }
        PhysicalMemoryProperties = "aclrtPhysicalMemProp" {
            handle_kind = "handleType", allocation_kind = "allocationType", attribute = "memAttr",
            location = "location", reserved = "reserve",
        }
        MemoryAccess = "aclrtMemAccessDesc" { flags = "flags", location = "location", reserved = "rsv" }
        CommMemory = "CommMem" { kind = "type", address = "addr", size = "size" }
        OneSideDescriptor = "HcclOneSideOpDesc" {
            local = "localAddr", remote = "remoteAddr", count = "count", data_type = "dataType",
        }
        MemoryDescription = "HcclMemDesc" {}
        MemoryDescriptions = "HcclMemDescs" { array = "array", length = "arrayLength" }
    }
    .into()
}

#[test]
fn the_structs_are_those_of_both_headers() {
    let header = our_header();
    let mut text = begin(&header, &[]);
    for (name, size, fields) in layouts() {
        let _ = writeln!(text, "static_assert(sizeof(ours::{name}) == {size}, \"{name}\");");
        for (field, offset) in fields {
            let _ = writeln!(
                text,
                "static_assert(offsetof(ours::{name}, {field}) == {offset}, \"{name}.{field}\");"
            );
        }
    }
    compile(&text, "structs-header", None);
    let Some(include) = vendor() else { return };
    let theirs = vendor_text(&include);
    let mut text = format!("{ALIKE}\n{VENDOR}");
    let mut compared = 0;
    for (name, size, fields) in layouts().into_iter().filter(|(name, ..)| names(&theirs, name)) {
        let _ = writeln!(text, "static_assert(sizeof(::{name}) == {size}, \"{name}\");");
        for (field, offset) in fields {
            let _ =
                writeln!(text, "static_assert(offsetof(::{name}, {field}) == {offset}, \"{name}.{field}\");");
        }
        compared += 1;
    }
    compile(&text, "structs-vendor", Some(&include));
    assert!(compared >= 2, "{compared} structs compared");
}

/// The comparison can fail: a parameter too wide, a parameter too few, and a wrong result are told apart.
#[test]
fn a_difference_does_not_compile() {
    let right = "extern \"C\" int32_t f(void *, uint32_t, size_t);\n";
    let compiles = |kind: &str| {
        let text = format!("{ALIKE}{right}static_assert(call<decltype(&f), {kind}>::same());\n");
        try_compile(&text, "difference", None).is_ok()
    };
    assert!(compiles("int32_t (*)(void *, uint32_t, size_t)"));
    for wrong in [
        "int32_t (*)(void *, uint64_t, size_t)",
        "int32_t (*)(void *, int32_t, size_t)",
        "int32_t (*)(void *, uint32_t)",
        "void *(*)(void *, uint32_t, size_t)",
    ] {
        assert!(!compiles(wrong), "{wrong}");
    }
}
