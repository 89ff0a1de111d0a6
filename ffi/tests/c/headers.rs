//! The headers compile everywhere they are promised to, with every warning an error.

use std::process::Command;

use crate::build::{include, source, succeed};

fn compile(compiler: &str, arguments: &[&str]) {
    succeed(
        Command::new(compiler)
            .args(arguments)
            .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
            .arg(include())
            .arg(source("layout.c")),
    );
}

#[test]
fn both_headers_and_their_layouts_are_c99() {
    compile("cc", &["-std=c99"]);
}

#[test]
fn both_headers_and_their_layouts_are_cpp17() {
    compile("c++", &["-std=c++17", "-x", "c++"]);
}

#[test]
fn both_headers_and_their_layouts_are_c23_or_the_newest_the_compiler_has() {
    compile("cc", &["-std=c2x"]);
}
