//! The build script of every guest: has it linked as `guest.ld` beside this lays it out.

fn main() {
    println!("cargo::rustc-link-arg-bins=-T{}/../rt/guest.ld", std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    // Nothing write-protects relocated data here, so the layout need not group it.
    println!("cargo::rustc-link-arg-bins=-znorelro");
    println!("cargo::rerun-if-changed=../rt/guest.ld");
}
