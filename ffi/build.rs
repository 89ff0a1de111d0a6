//! Link arguments of the shared library: its SONAME, so that programs linked against it ask for it by that
//! name, and "no delete", since `dlclose` must not unmap code that threads, fork and exit handlers still run.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmooncake_transfer.so");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
