//! What the loader's tests share: stand-in libraries made by the C compiler, and a process of its own for
//! each test, because what a process has loaded stays loaded.

use mooncake_test_support::skip;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const CHILD: &str = "CANN_SYS_TEST_CHILD";

/// The C compiler, if there is one.
pub fn compiler() -> Option<&'static OsString> {
    static COMPILER: OnceLock<Option<OsString>> = OnceLock::new();
    COMPILER
        .get_or_init(|| {
            let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
            let works =
                Command::new(&compiler).arg("--version").output().is_ok_and(|output| output.status.success());
            works.then_some(compiler)
        })
        .as_ref()
}

/// A machine: a directory that ends with the test, with libraries in it.
pub struct Machine(tempfile::TempDir);

impl Machine {
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A library at `file` (relative) that is known to the linker as its file name.
    pub fn library(&self, file: &str) -> LibraryMaker {
        let path = self.path(file);
        let soname = path.file_name().unwrap().to_str().unwrap().to_owned();
        LibraryMaker { path, soname: Some(soname), source: String::new(), needed: Vec::new() }
    }
}

/// A library about to be compiled.
pub struct LibraryMaker {
    path: PathBuf,
    soname: Option<String>,
    source: String,
    needed: Vec<PathBuf>,
}

impl LibraryMaker {
    /// Functions that answer `value`, whatever they are given.
    pub fn functions(mut self, names: &[&str], value: i32) -> Self {
        for name in names {
            self.source.push_str(&format!("int {name}(void) {{ return {value}; }}\n"));
        }
        self
    }

    pub fn without_soname(mut self) -> Self {
        self.soname = None;
        self
    }

    /// A library that the linker has to find when this one is opened.
    pub fn needs(mut self, library: &Path) -> Self {
        self.needed.push(library.to_owned());
        self
    }

    pub fn make(self) -> PathBuf {
        std::fs::create_dir_all(self.path.parent().unwrap()).unwrap();
        let source = self.path.with_extension("c");
        std::fs::write(&source, format!("{}\ntypedef int not_empty;\n", self.source)).unwrap();
        let mut command = Command::new(compiler().unwrap());
        command.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(&self.path).arg(&source);
        if let Some(soname) = &self.soname {
            command.arg(format!("-Wl,-soname,{soname}"));
        }
        command.args(&self.needed);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.path
    }
}

/// Runs `prepare` here, then `body` in a new process that sees the same machine, with `LD_LIBRARY_PATH`
/// set to the machine's directory `loader`. `test` is the full name of the calling test.
pub fn in_process_of_its_own(test: &str, prepare: impl FnOnce(&Machine), body: impl FnOnce(&Path)) {
    if let Some(directory) = std::env::var_os(CHILD) {
        body(Path::new(&directory));
        return;
    }
    if compiler().is_none() {
        skip("no C compiler");
        return;
    }
    let machine = Machine(tempfile::tempdir().unwrap());
    prepare(&machine);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, machine.path(""))
        .env("LD_LIBRARY_PATH", machine.path("loader"))
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {text}", output.status);
    assert!(text.contains("1 passed"), "the child ran no test of the name {test}: {text}");
}
