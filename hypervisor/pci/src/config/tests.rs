use super::*;
use crate::function::Identity;
use alloc::vec;
use vdev::AccessSizes;

const BYTE: AccessSize = AccessSize::Byte;
const HALFWORD: AccessSize = AccessSize::Halfword;
const WORD: AccessSize = AccessSize::Word;

const IDENTITY: Identity = Identity {
    vendor: 0x1c05,
    device: 0x0042,
    class: 0x01_8001,
    revision: 3,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

fn space() -> ConfigSpace {
    ConfigSpace::new(&IDENTITY, 2, false)
}

fn bar(index: u8, size: u64, width: Width) -> Bar {
    Bar { index, size, width, sizes: AccessSizes::all() }
}

fn capability(id: u8, body: &[u8]) -> Capability {
    Capability { id, body: body.to_vec(), writable: vec![], is_watched: false }
}

#[test]
fn the_header_says_who_it_is_in_every_size() {
    let space = space();
    let words = [(0x00, 0x0042_1c05), (0x04, 0), (0x08, 0x0180_0103), (0x0c, 0), (0x2c, 0x1100_1af4), (0x3c, 0x0200)];
    for (at, value) in words {
        assert_eq!(space.read(at, WORD), value, "{at:#x}");
        assert_eq!((space.read(at, HALFWORD), space.read(at + 3, BYTE)), (value & 0xffff, value >> 24));
    }
    assert_eq!(ConfigSpace::new(&IDENTITY, 0, true).read(0x0c, WORD), 0x80_0000, "one of several functions");
    assert_eq!((space.read(0x100, WORD), space.read(0xffc, WORD)), (0, 0), "no extended capabilities");
    assert_eq!(space.read(0x30, WORD), 0, "no expansion ROM");
}

/// PCI, 6.2.2 and 6.2.3: what a function does not have is hardwired to zero.
#[test]
fn only_what_means_something_can_be_written() {
    let mut bare = ConfigSpace::new(&IDENTITY, 0, false);
    let mut full = space();
    full.add_bar(&bar(0, 0x1000, Width::Bits32)).unwrap();
    for at in (0..0x1000).step_by(4) {
        bare.write(at, WORD, 0xffff_ffff);
        full.write(at, WORD, 0xffff_ffff);
    }
    assert_eq!((bare.read(4, WORD), full.read(4, WORD)), (0x4, 0x406));
    assert_eq!(full.command(), Command::all());
    assert_eq!((bare.read(0, WORD), bare.read(8, WORD)), (0x0042_1c05, 0x0180_0103));
    assert_eq!((bare.read(0xc, WORD), bare.read(0x3c, WORD)), (0xff, 0xff), "cache line size, interrupt line");
    assert_eq!((full.read(0x10, WORD), full.read(0x14, WORD), full.read(0x30, WORD)), (0xffff_f000, 0, 0));
    full.reset();
    assert_eq!((full.command(), full.read(0x10, WORD), full.read(0x3c, WORD)), (Command::empty(), 0, 0x200));
}

/// PCI, 6.2.5.1, "implementation note: sizing a 32-bit base address register example".
#[test]
fn software_learns_the_size_of_a_region_by_writing_ones() {
    let mut space = space();
    space.add_bar(&bar(0, 16, Width::Bits32)).unwrap();
    space.add_bar(&bar(2, 8 << 30, Width::Bits64)).unwrap();
    space.add_bar(&bar(4, 0x4000, Width::Bits64)).unwrap();
    let mut sized = |at| {
        assert_eq!(space.read(at, WORD) & !0xf, 0, "nowhere at first");
        space.write(at, WORD, 0xffff_ffff);
        space.read(at, WORD)
    };
    assert_eq!(
        [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24].map(&mut sized),
        [!0xf, 0, 4, !1, 0xffff_c004, !0].map(|word: u32| word.into())
    );
}

#[test]
fn a_region_is_placed_while_memory_space_is_enabled() {
    let mut space = space();
    space.add_bar(&bar(0, 0x1000, Width::Bits32)).unwrap();
    space.add_bar(&bar(1, 0x2000, Width::Bits64)).unwrap();
    space.write(0x10, WORD, 0x1000_1abc);
    space.write(0x14, WORD, 0x3000);
    space.write(0x18, WORD, 4);
    assert_eq!((space.placed(0), space.placed(1)), (None, None));
    space.write(4, HALFWORD, 2);
    assert_eq!(space.placed(0), Range::new(Ipa(0x1000_1000), 0x1000));
    assert_eq!(space.placed(1), Range::new(Ipa(0x4_0000_2000), 0x2000));
    assert_eq!((space.placed(2), space.placed(9)), (None, None), "no such regions");
    // A byte at a time is as good.
    space.write(0x13, BYTE, 0x20);
    assert_eq!(space.placed(0), Range::new(Ipa(0x2000_1000), 0x1000));
    space.write(0x14, WORD, 0xffff_ffff);
    space.write(0x18, WORD, 0xffff_ffff);
    assert_eq!(space.placed(1), None, "it would run over the end of all addresses");
}

#[test]
fn what_cannot_be_a_region_is_refused() {
    for (index, size, width) in [
        (6, 0x1000, Width::Bits32),
        (5, 0x1000, Width::Bits64),
        (0, 8, Width::Bits32),
        (0, 0, Width::Bits32),
        (0, 0x1800, Width::Bits32),
        (0, 4 << 30, Width::Bits32),
        (0, 1 << 52, Width::Bits64),
    ] {
        assert_eq!(space().add_bar(&bar(index, size, width)), Err(Flaw::Bar(index)), "{size:#x}");
    }
    let mut space = space();
    space.add_bar(&bar(2, 8 << 30, Width::Bits64)).unwrap();
    for (index, width) in [(2, Width::Bits32), (3, Width::Bits32), (1, Width::Bits64)] {
        assert_eq!(space.add_bar(&bar(index, 0x1000, width)), Err(Flaw::Bar(index)), "taken");
    }
}

/// PCI, 6.7: the pointer in the header, then each one's; the last one's is zero.
#[test]
fn capabilities_are_a_list() {
    let mut space = space();
    assert_eq!((space.read(6, HALFWORD), space.read(0x34, BYTE)), (0, 0), "none");
    let watched = Capability { writable: vec![0, 0xf0], is_watched: true, ..capability(9, &[1, 0, 3, 4, 5]) };
    assert_eq!(space.add_capability(&capability(0x11, &[7; 10])), Ok(0x40));
    assert_eq!(space.add_capability(&watched), Ok(0x4c));
    assert_eq!(space.add_capability(&capability(5, &[])), Ok(0x54));
    assert_eq!((space.read(6, HALFWORD), space.read(0x34, BYTE)), (0x10, 0x40));
    assert_eq!((space.read(0x40, WORD), space.read(0x4c, WORD), space.read(0x54, WORD)), (0x0707_4c11, 0x0001_5409, 5));
    space.write(0x4c, WORD, 0xffff_ffff);
    assert_eq!((space.read(0x4c, WORD), space.read(0x50, WORD)), (0xf001_5409, 0x05_0403), "as its mask says");
    let watched = |at| space.watched(at);
    assert_eq!([0x48, 0x4c, 0x53, 0x54, 0x14c].map(watched), [None, Some(0x4c), Some(0x4c), None, None]);
    let most = capability(9, &[0; 0xa6]);
    assert_eq!(space.clone().add_capability(&most), Ok(0x58), "up to the end");
    assert_eq!(space.add_capability(&capability(9, &[0; 0xa7])), Err(Flaw::Capability(9)));
    assert_eq!(space.add_capability(&capability(9, &[0; 70000])), Err(Flaw::Capability(9)));
}

#[test]
fn the_status_shows_the_interrupt() {
    let mut space = space();
    space.set_interrupt_status(true);
    assert_eq!(space.read(4, WORD), 0x0008_0000);
    space.set_interrupt_status(false);
    assert_eq!(space.read(4, WORD), 0);
}
