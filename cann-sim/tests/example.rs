//! The C++ program that stands in the documentation builds without warnings and does what it says.

#[expect(dead_code, reason = "this test builds and runs its own program")]
mod support;

use std::path::Path;
use std::process::Command;

#[test]
fn the_documented_program_puts_and_gets_between_two_processes() {
    let libraries = support::libraries();
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("one_sided");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(compiler)
        .args(["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/one_sided.cpp"))
        .arg(format!("-L{}", libraries.display()))
        .args(["-lascendcl", "-lacl_rt", "-lhcomm"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = |soc: &str, physical: &str| {
        let output = Command::new(&program)
            .env("LD_LIBRARY_PATH", &libraries)
            .env("CANN_SIM_NAMESPACE", format!("example-{}-{soc}", std::process::id()))
            .env("CANN_SIM_SOC", soc)
            .env("CANN_SIM_PHYSICAL_IDS", physical)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text == "put and get verified\n",
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run("Ascend910B3", "0,1,2,3,4,5,6,7");
    run("Ascend910B1", "5,2"); // as a container sees two NPUs of its host
}
