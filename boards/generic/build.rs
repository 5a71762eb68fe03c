//! Hands the linker the layout: the common script, and this board's address.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-T{here}/../../linker/hypervisor.ld");
    println!("cargo:rustc-link-arg-bins=-L{here}");
    // Functions that are the same are there once.
    println!("cargo:rustc-link-arg-bins=--icf=all");
    // What boot.S relocates, in a 64th of the space.
    println!("cargo:rustc-link-arg-bins=-zpack-relative-relocs");
    println!("cargo:rerun-if-changed={here}/memory.ld");
    println!("cargo:rerun-if-changed={here}/../../linker/hypervisor.ld");
}
