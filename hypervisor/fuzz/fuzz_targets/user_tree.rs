//! Trees that a configuration lays over the generated one: merging ends with a sound tree or an error.

#![no_main]

use fuzz::changed;
use libfuzzer_sys::fuzz_target;
use types::{Ipa, Range};
use vdev::Node;
use vgic::Version;
use vm::controller::Frames;
use vm::tree::{TreeInput, generate};

const TREES: [&[u8]; 2] =
    [include_bytes!("../seeds/overlay.dtbo"), include_bytes!("../../machine/src/tests/trees/qemu-gicv2-1cpu.dtb")];

fuzz_target!(|data: &[u8]| {
    let range = |start| Range::new(Ipa(start), 0x1_0000).unwrap();
    let (first, second) = data.split_at(data.len() / 2);
    let (first, second) = (changed(&TREES, first), changed(&TREES, second));
    let merged = generate(&TreeInput {
        name: "fuzz",
        ram: &[range(0x8000_0000)],
        vcpus: 2,
        gic: Frames { version: Version::V3, distributor: range(0x800_0000), interface: range(0x80a_0000), messages: None, its: None },
        messages: None,
        devices: Node::new(""),
        passed: &[],
        cmdline: Some("quiet"),
        initrd: None,
        monitors: true,
        seed: &[],
        user: &[&first, &second],
    });
    if let Ok(tree) = merged {
        machine::validate(&tree).expect("what was merged is a sound tree");
    }
});
