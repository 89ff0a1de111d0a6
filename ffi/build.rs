//! Gives the shared library its SONAME, so that programs linked against it ask for it by that name.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmooncake_transfer.so");
}
