//! Generates the bindings and compiles the C side of DPDK's `static inline` functions.
//!
//! A failure is one `cargo::error` line: whoever builds this for the first time most likely lacks a
//! package, and the line names it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use libdpdk::Libdpdk;

#[path = "build/allow.rs"]
mod allow;
#[path = "build/libdpdk.rs"]
mod libdpdk;
#[path = "build/macros.rs"]
mod macros;

const HEADER: &str = "wrapper.h";

fn main() {
    // Cargo fails the build because of the line itself.
    if let Err(reason) = run() {
        println!("cargo::error={}", reason.replace('\n', " "));
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed={HEADER}");
    for variable in ["LIBCLANG_PATH", "BINDGEN_EXTRA_CLANG_ARGS"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }

    let dpdk = Libdpdk::find()?;
    clang_sys::load().map_err(|error| format!("no usable libclang ({error}); {}", libdpdk::INSTALL))?;

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let wrappers = out.join("wrappers.c");
    let bindings = generate(&dpdk, &wrappers)?;
    allow::check(&bindings)?;
    let path = out.join("bindings.rs");
    fs::write(&path, bindings).map_err(|error| format!("{}: {error}", path.display()))?;

    // The archive comes before the libraries it calls into: linkers read from left to right.
    let mut cc = cc::Build::new();
    cc.file(&wrappers).include(".").warnings(false);
    for flag in &dpdk.cflags {
        cc.flag(flag);
    }
    cc.try_compile("dpdk_sys_wrappers").map_err(|error| format!("the inline wrappers do not compile: {error}"))?;
    dpdk.link();
    Ok(())
}

fn generate(dpdk: &Libdpdk, wrappers: &Path) -> Result<String, String> {
    let mut builder = bindgen::Builder::default()
        .header(HEADER)
        .clang_args(&dpdk.cflags)
        .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|error| error.to_string())?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .use_core()
        .wrap_unsafe_ops(true)
        .prepend_enum_name(false)
        .generate_cstr(true)
        // In C these structs are cleared before they are filled in; zero is how DPDK spells "default".
        .derive_default(true)
        // Doxygen is not rustdoc, and DPDK's own reference is one search away.
        .generate_comments(false)
        .wrap_static_fns(true)
        .wrap_static_fns_path(wrappers)
        .parse_callbacks(Box::new(macros::Macros));
    // Packed, and with aligned fields: Rust has no such types.
    builder = builder.opaque_type("port_params");
    for name in allow::FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in allow::TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in allow::CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    // A header that is not found is DPDK's or, where only libclang's run-time half is installed, clang's
    // own.
    let bindings = builder.generate().map_err(|error| format!("bindgen: {error}; {}", libdpdk::INSTALL))?;
    Ok(bindings.to_string())
}
