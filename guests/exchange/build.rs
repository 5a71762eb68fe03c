//! Links the guest as `guests/rt/guest.ld` lays it out.

fn main() {
    println!("cargo::rustc-link-arg-bins=-T{}/../rt/guest.ld", env!("CARGO_MANIFEST_DIR"));
    // Nothing write-protects relocated data here, so the layout need not group it.
    println!("cargo::rustc-link-arg-bins=-znorelro");
    println!("cargo::rerun-if-changed=../rt/guest.ld");
}
