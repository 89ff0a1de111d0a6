//! Builds the stub libraries under the vendor's names into `<target>/<profile>/cann-sim/`.
//!
//! Each stub holds one jump per function of `symbols.txt` into `libcann_sim.so` and a constructor
//! (`stub/visibility.c`) that hides what the posed release does not have. The stubs are linked against an
//! empty stand-in for `libcann_sim.so`, because the real one does not exist yet when this script runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

/// One line of `symbols.txt`.
struct Symbol {
    group: String,
    since: String,
    name: String,
    private_name: String,
}

/// One stub library: file name, groups it carries, and the vendor libraries it needs.
struct Library {
    file: &'static str,
    groups: &'static [&'static str],
    needs: &'static [&'static str],
}

/// In the order in which they can be linked.
const LIBRARIES: [Library; 5] = [
    Library { file: "libruntime.so", groups: &["rt"], needs: &[] },
    Library { file: "libacl_rt.so", groups: &["acl"], needs: &["libruntime.so"] },
    Library { file: "libascendcl.so", groups: &["acl"], needs: &["libacl_rt.so", "libruntime.so"] },
    Library { file: "libhcomm.so", groups: &["hccl"], needs: &[] },
    Library { file: "libhccl.so", groups: &["hccl", "collective"], needs: &["libhcomm.so"] },
];

fn main() {
    if let Err(message) = run() {
        println!("cargo:warning={message}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=symbols.txt");
    println!("cargo:rerun-if-changed=stub/visibility.c");
    println!("cargo:rerun-if-env-changed=CC");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcann_sim.so");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let profile = out.ancestors().nth(3).ok_or("OUT_DIR has no profile directory above it")?;
    let place = profile.join("cann-sim");
    fs::create_dir_all(&place).map_err(|error| format!("create {}: {error}", place.display()))?;

    let symbols = read_symbols(Path::new("symbols.txt"))?;
    build_stand_in(&out, &symbols)?;
    for library in &LIBRARIES {
        build_library(&out, &place, &architecture, &symbols, library)?;
        println!("cargo:rerun-if-changed={}", place.join(library.file).display());
    }
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}

fn read_symbols(path: &Path) -> Result<Vec<Symbol>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let mut symbols = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (group, since, name, private_name) = match words.as_slice() {
            [group, since, name] => (group, since, name, name),
            [group, since, name, "=", private_name] => (group, since, name, private_name),
            _ => return Err(format!("symbols.txt: cannot read the line {line:?}")),
        };
        symbols.push(Symbol {
            group: (*group).to_owned(),
            since: (*since).to_owned(),
            name: (*name).to_owned(),
            private_name: format!("cann_sim_{private_name}"),
        });
    }
    Ok(symbols)
}

/// A release "8.5" as the number 805, the form in which `visibility.c` compares releases.
fn release_number(text: &str) -> Result<u32, String> {
    let (major, minor) = text.split_once('.').ok_or_else(|| format!("release {text:?} has no dot"))?;
    let parse = |word: &str| word.parse::<u32>().map_err(|error| format!("release {text:?}: {error}"));
    Ok(parse(major)? * 100 + parse(minor)?)
}

fn build_stand_in(out: &Path, symbols: &[Symbol]) -> Result<(), String> {
    let mut names: Vec<&str> = symbols.iter().map(|symbol| symbol.private_name.as_str()).collect();
    names.extend(["cann_sim_posed_release", "cann_sim_hidden_names"]);
    names.sort_unstable();
    names.dedup();
    let mut text = String::from("\t.text\n");
    for name in names {
        let _ = writeln!(text, "\t.globl {name}\n\t.type {name},%function\n{name}:\n\t.byte 0");
    }
    text.push_str("\t.section .note.GNU-stack,\"\",%progbits\n");
    let source = out.join("stand_in.s");
    write(&source, &text)?;
    let target = out.join("libcann_sim.so");
    compile(
        Command::new(compiler())
            .args(["-shared", "-nostdlib", "-Wl,-soname,libcann_sim.so", "-o"])
            .arg(target)
            .arg(source),
    )
}

fn build_library(
    out: &Path,
    place: &Path,
    architecture: &str,
    symbols: &[Symbol],
    library: &Library,
) -> Result<(), String> {
    let jump = match architecture {
        "x86_64" => |name: &str| format!("\tendbr64\n\tjmp {name}@PLT"),
        "aarch64" => |name: &str| format!("\thint 34\n\tb {name}"),
        other => return Err(format!("no jump instruction known for architecture {other}")),
    };
    let mut assembly = String::from("\t.text\n");
    let mut table = String::new();
    for symbol in symbols.iter().filter(|symbol| library.groups.contains(&symbol.group.as_str())) {
        let name = &symbol.name;
        let _ = writeln!(assembly, "\t.p2align 4\n\t.globl {name}\n\t.type {name},%function\n{name}:");
        let _ = writeln!(assembly, "{}\n\t.size {name}, . - {name}", jump(&symbol.private_name));
        let since = release_number(&symbol.since)?;
        // From 8.5 on the implementation moved: the older library keeps the file, not the functions.
        let (since, until) = match (library.file, symbol.group.as_str()) {
            ("libascendcl.so", _) | ("libhccl.so", "hccl") => (since, 804),
            ("libacl_rt.so" | "libhcomm.so", _) => (since.max(805), u32::MAX),
            _ => (since, u32::MAX),
        };
        let _ = writeln!(table, "    {{\"{name}\", {since}u, {until}u}},");
    }
    assembly.push_str("\t.section .note.GNU-stack,\"\",%progbits\n");
    let stem = library.file.trim_end_matches(".so");
    let assembly_path = out.join(format!("{stem}.s"));
    let table_path = out.join(format!("{stem}_table.h"));
    write(&assembly_path, &assembly)?;
    write(&table_path, &table)?;

    let scratch = place.join(format!(".{}.{}", library.file, process::id()));
    let mut command = Command::new(compiler());
    command.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"]);
    command.arg(format!("-DTABLE=\"{}\"", table_path.display()));
    command.arg(format!("-Wl,-soname,{}", library.file));
    command.args(["-Wl,--hash-style=both", "-Wl,--no-as-needed", "-Wl,--enable-new-dtags", "-Wl,-z,lazy"]);
    command.arg("-Wl,-rpath,$ORIGIN:$ORIGIN/../deps:$ORIGIN/..");
    command.arg("-o").arg(&scratch).arg("stub/visibility.c").arg(&assembly_path);
    command.arg(out.join("libcann_sim.so"));
    for need in library.needs {
        command.arg(place.join(need));
    }
    command.arg(format!("-Wl,-rpath-link,{}", place.display()));
    compile(&mut command)?;
    // A rename is atomic: a process that is loading the old file keeps it whole.
    let target = place.join(library.file);
    fs::rename(&scratch, &target).map_err(|error| format!("rename to {}: {error}", target.display()))
}

fn compiler() -> String {
    env::var("CC").unwrap_or_else(|_| "cc".to_owned())
}

fn compile(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).replace('\n', " | ")))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("write {}: {error}", path.display()))
}
