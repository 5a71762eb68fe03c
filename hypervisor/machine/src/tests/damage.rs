//! Trees that are cut off, overwritten, too large or wrong: refused with a reason, or read, but never a panic.

use super::*;

#[test]
fn the_total_size_needs_eight_bytes_and_the_magic() {
    let size = u32::try_from(GICV3_2.len()).unwrap();
    assert_eq!(total_size(&GICV3_2[..8]), Some(size));
    assert_eq!(total_size(&GICV3_2[..7]), None);
    assert_eq!(total_size(&[0; 8]), None);
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of trees take Miri minutes")]
fn bytes_behind_the_tree_do_not_matter() {
    let mut padded = GICV3_2.to_vec();
    padded.resize(padded.len() + 1000, 0xa5);
    assert_eq!(Machine::from_device_tree(&padded), Machine::from_device_tree(GICV3_2));
}

#[test]
fn a_tree_that_is_cut_off_is_refused() {
    for length in [0, 8, 39, 400, GICV3_2.len() - 1] {
        let error = Machine::from_device_tree(&GICV3_2[..length]).unwrap_err();
        assert!(matches!(error, MachineError::Malformed(_)), "{length}: {error}");
        assert_eq!(console_of(&GICV3_2[..length]), None);
    }
}

#[test]
fn nodes_and_properties_overwritten_with_nops_are_skipped() {
    let whole = blob(pi_with("/chosen", "bootargs", Some(text("abcdefg"))));
    let value = whole.windows(8).position(|window| window == b"abcdefg\0").unwrap();
    // The property's token, length, name and value (DTSpec 5.4.1) become FDT_NOP.
    let mut blob = whole.clone();
    for word in blob[value - 12..value + 8].chunks_exact_mut(4) {
        word.copy_from_slice(&4_u32.to_be_bytes());
    }
    let (before, after) = (Machine::from_device_tree(&whole).unwrap(), Machine::from_device_tree(&blob).unwrap());
    assert_eq!(before.bootargs.as_deref(), Some("abcdefg"));
    assert_eq!(after, Machine { bootargs: None, ..before });
    // The room that a boot loader leaves behind the tree is not copied with it.
    let used = blob.len();
    blob.resize(1 << 20, 0);
    blob[4..8].copy_from_slice(&(1_u32 << 20).to_be_bytes());
    assert!(crate::blob::Sound::check(&blob).unwrap().bytes().len() <= used);
    assert_eq!(Machine::from_device_tree(&blob).unwrap(), after);
    // And a whole node, the first of the root's.
    let start = whole.windows(8).position(|window| window == b"aliases\0").unwrap() - 4;
    let end = whole.windows(7).position(|window| window == b"chosen\0").unwrap() - 4;
    let mut blob = whole;
    for word in blob[start..end].chunks_exact_mut(4) {
        word.copy_from_slice(&4_u32.to_be_bytes());
    }
    let without = Machine::from_device_tree(&blob).unwrap();
    assert_ne!(without.consoles, after.consoles, "`stdout-path` is the name of an alias");
    assert_eq!(Machine { consoles: after.consoles.clone(), bootargs: None, ..without }, after);
}

#[test]
fn a_tree_of_towers_is_too_large() {
    let mut tower = node("top", &[], vec![]);
    for _ in 0..MAX_DEPTH {
        tower = node("floor", &[], vec![tower]);
    }
    let mut root = pi();
    root.add_child(tower);
    assert_eq!(read(root), Err(MachineError::TooLarge));
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of trees take Miri minutes")]
fn an_error_names_node_and_property() {
    let cases = [
        ("/memory@0", "reg", Some(cells(&[0, 0])), "/memory@0: `reg` has the wrong length"),
        (
            "/memory@0",
            "reg",
            Some(cells(&[u32::MAX, u32::MAX, 16])),
            "/memory@0: `reg` runs over the end of the address space",
        ),
        ("/cpus/cpu@2", "cpu-release-addr", None, "/cpus/cpu@2: `cpu-release-addr` missing"),
        ("/cpus/cpu@1", "reg", None, "/cpus/cpu@1: `reg` missing"),
        ("/timer", "interrupts", Some(cells(&[1, 13, 0xf08])), "/timer: `interrupts` has too few entries"),
        (
            "/soc/interrupt-controller@40041000",
            "reg",
            Some(cells(&[0x4004_1000, 0x1000, 0x4004_2000, 0x2000])),
            "no usable virtual interface of the GICv2: GICH and GICV, the third and fourth entry of its `reg`. Only a GICv2 \
             with the Virtualization Extensions has them, and guests need it",
        ),
        (
            "/soc",
            "ranges",
            None,
            "/soc/interrupt-controller@40041000: `reg` holds an address that the `ranges` above it do not map",
        ),
        ("/chosen", "linux,initrd-end", None, "/chosen: `linux,initrd-end` missing"),
    ];
    for (path, property, value, message) in cases {
        let error = read(pi_with(path, property, value)).unwrap_err();
        assert_eq!(error.to_string(), format!("device tree: {message}"));
    }
    let error = read(pi_with("/timer", "compatible", None)).unwrap_err();
    assert_eq!(error, MachineError::NoNode("timer"));
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of trees take Miri minutes")]
fn damaged_trees_are_refused_or_read_but_never_panic() {
    // Every byte of a tree in turn gets some other values: what dtoolkit lets through must not upset the reader.
    for original in [GICV2_1.to_vec(), blob(pi())] {
        for offset in (0..original.len()).step_by(if cfg!(miri) { 4999 } else { 1 }) {
            for flip in [0x01, 0x04, 0x80, 0xff] {
                let mut damaged = original.clone();
                damaged[offset] ^= flip;
                let _ = Machine::from_device_tree(&damaged);
                let _ = console_of(&damaged);
            }
        }
    }
}
