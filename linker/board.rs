//! The build script of every board: hands the linker the common layout and the board's address. That is in the board's
//! `memory.ld`; a board without one is linked for where `qemu-virt` is.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let has_address = std::path::Path::new(&here).join("memory.ld").exists();
    let address = if has_address { here.clone() } else { format!("{here}/../qemu-virt") };
    println!("cargo:rustc-link-arg-bins=-T{here}/../../linker/hypervisor.ld");
    println!("cargo:rustc-link-arg-bins=-L{address}");
    // Functions that are the same are there once.
    println!("cargo:rustc-link-arg-bins=--icf=all");
    // What boot.S relocates, in a 64th of the space.
    println!("cargo:rustc-link-arg-bins=-zpack-relative-relocs");
    println!("cargo:rerun-if-changed={address}/memory.ld");
    println!("cargo:rerun-if-changed={here}/../../linker/hypervisor.ld");
}
