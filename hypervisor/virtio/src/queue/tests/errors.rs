//! Each mistake that a driver can make is found, and named.

use super::*;

/// Writes a split descriptor.
pub(super) fn descriptor(ram: &Ram, at: u64, address: u64, length: u32, flags: u16, next: u16) {
    let word = u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48;
    ram.write(Ipa(at), &address.to_le_bytes()).unwrap();
    ram.write(Ipa(at + 8), &word.to_le_bytes()).unwrap();
}

/// Overwrites the flags of a split queue's descriptor.
pub(super) fn set_flags(ram: &Ram, index: u64, flags: u16) {
    ram.write(Ipa(BASE + 16 * index + 12), &flags.to_le_bytes()).unwrap();
}

/// A split queue of eight whose first chain begins at descriptor 0, which the test has written.
fn split(features: Features, prepare: impl FnOnce(&Ram)) -> Result<bool, RingError> {
    let mut both = Both::new(features, 8);
    prepare(&both.ram);
    both.ram.write(Ipa(BASE + 0x80), &[0, 0, 1, 0, 0, 0]).unwrap();
    both.pop()
}

fn chain(descriptors: &[(u64, u32, u16, u16)]) -> Result<bool, RingError> {
    split(Features::INDIRECT_DESC, |ram| {
        for (place, (address, length, flags, next)) in (0..).zip(descriptors) {
            descriptor(ram, BASE + 16 * place, *address, *length, *flags, *next);
        }
    })
}

fn table(descriptors: &[(u64, u32, u16, u16)]) -> Result<bool, RingError> {
    split(Features::INDIRECT_DESC, |ram| {
        descriptor(ram, BASE, TABLES, 16 * descriptors.len() as u32, 4, 0);
        for (place, (address, length, flags, next)) in (0..).zip(descriptors) {
            descriptor(ram, TABLES + 16 * place, *address, *length, *flags, *next);
        }
    })
}

#[test]
fn chains_that_cannot_be() {
    assert_eq!(chain(&[(DATA, 4, 0, 0)]), Ok(true), "as it should be");
    assert_eq!(chain(&[(DATA, 0, 0, 0)]), Ok(true), "an empty buffer is none");
    assert_eq!(chain(&[(DATA, 4, 1, 0)]), Err(RingError::TooLong), "a loop");
    assert_eq!(chain(&[(DATA, 4, 1, 1), (DATA, 0, 1, 0)]), Err(RingError::TooLong), "a longer loop");
    assert_eq!(chain(&[(DATA, 4, 1, 8)]), Err(RingError::Next(8)));
    assert_eq!(chain(&[(DATA, 4, 3, 1), (DATA, 4, 0, 0)]), Err(RingError::Order));
    assert_eq!(chain(&[(DATA, 0, 3, 1), (DATA, 4, 0, 0)]), Err(RingError::Order), "though it is empty");
    assert_eq!(chain(&[(u64::MAX - 3, 4, 0, 0)]), Err(RingError::Wraps(Ipa(u64::MAX - 3))));
    assert_eq!(chain(&[(0, 1 << 31, 1, 1), (0, 1 << 31, 2, 0)]), Ok(true), "2^32 bytes");
    assert_eq!(chain(&[(0, 1 << 31, 1, 1), (0, 1 << 31, 3, 2), (0, 1, 2, 0)]), Err(RingError::TooLarge));
}

#[test]
fn tables_that_cannot_be() {
    assert_eq!(table(&[(DATA, 4, 1, 1), (DATA, 4, 0, 0)]), Ok(true));
    assert_eq!(table(&[(DATA, 4, 1, 2), (DATA, 4, 0, 0)]), Err(RingError::Next(2)));
    assert_eq!(table(&[(DATA, 4, 1, 0)]), Err(RingError::TooLong), "a loop");
    assert_eq!(table(&[(DATA, 4, 4, 0)]), Err(RingError::IndirectNested));
    assert_eq!(table(&[]), Err(RingError::IndirectLength(0)));
    let mut nine = [(DATA, 4, 1, 0); 9];
    (1..).zip(&mut nine).for_each(|(next, descriptor)| descriptor.3 = next);
    nine[8].2 = 0;
    assert_eq!(table(&nine), Err(RingError::TooLong), "longer than the queue");
    assert_eq!(chain(&[(TABLES, 16, 5, 0)]), Err(RingError::IndirectLinked));
    assert_eq!(chain(&[(TABLES, 15, 4, 0)]), Err(RingError::IndirectLength(15)));
    assert_eq!(chain(&[(TABLES, 0xffff_fff0, 4, 0)]), Err(RingError::IndirectLength(0xffff_fff0)));
    assert_eq!(chain(&[(u64::MAX - 15, 16, 4, 0)]), Err(RingError::Wraps(Ipa(u64::MAX - 15))));
    assert_eq!(chain(&[(0x1000, 16, 4, 0)]), Err(RingError::Memory(Ipa(0x1000))));
    let unwanted = split(Features::empty(), |ram| descriptor(ram, BASE, TABLES, 16, 4, 0));
    assert_eq!(unwanted, Err(RingError::IndirectUnwanted));
}

#[test]
fn available_rings_that_cannot_be() {
    let mut both = Both::new(Features::empty(), 8);
    let set = |ram: &Ram, index: u16, head: u16| {
        ram.write(Ipa(BASE + 0x84), &head.to_le_bytes()).unwrap();
        ram.write(Ipa(BASE + 0x82), &index.to_le_bytes()).unwrap();
    };
    set(&both.ram, 9, 0);
    assert_eq!(both.pop(), Err(RingError::AvailableIndex(9)));
    set(&both.ram, 0xffff, 0);
    assert_eq!(both.pop(), Err(RingError::AvailableIndex(0xffff)), "it goes back");
    set(&both.ram, 1, 8);
    assert_eq!(both.pop(), Err(RingError::Head(8)));
    set(&both.ram, 8, 0);
    (0..8).for_each(|_| assert_eq!(both.pop(), Ok(true)));
    set(&both.ram, 9, 0);
    assert_eq!(both.pop(), Err(RingError::AvailableIndex(9)), "the device has all of them");
    set(&both.ram, 7, 0);
    assert_eq!(both.pop(), Err(RingError::AvailableIndex(7)), "it goes back");
}

/// Writes a packed descriptor with these flags besides the available one, in the first lap.
fn packed(ram: &Ram, index: u64, length: u32, flags: u16) {
    let word = u64::from(length) | u64::from(flags | 1 << 7) << 48;
    ram.write(Ipa(BASE + 16 * index), &DATA.to_le_bytes()).unwrap();
    ram.write(Ipa(BASE + 16 * index + 8), &word.to_le_bytes()).unwrap();
}

#[test]
fn packed_lists_that_cannot_be() {
    let list = |features: Features, descriptors: &[(u32, u16)]| {
        let mut both = Both::new(features | Features::RING_PACKED, 4);
        (0..).zip(descriptors).for_each(|(index, (length, flags))| packed(&both.ram, index, *length, *flags));
        both.pop()
    };
    let all = Features::INDIRECT_DESC;
    assert_eq!(list(all, &[(4, 1), (4, 0)]), Ok(true));
    assert_eq!(list(all, &[(4, 1), (4, 1), (4, 1), (4, 1)]), Err(RingError::TooLong));
    assert_eq!(list(all, &[(4, 3), (4, 0)]), Err(RingError::Order));
    assert_eq!(list(all, &[(16, 4 | 1), (4, 0)]), Err(RingError::IndirectLinked));
    assert_eq!(list(all, &[(4, 1), (16, 4)]), Err(RingError::IndirectLinked));
    assert_eq!(list(all, &[(5 * 16, 4)]), Err(RingError::TooLong));
    assert_eq!(list(all, &[(24, 4)]), Err(RingError::IndirectLength(24)));
    assert_eq!(list(Features::empty(), &[(16, 4)]), Err(RingError::IndirectUnwanted));
}

#[test]
fn a_packed_ring_cannot_have_more_available_than_it_has() {
    let mut both = Both::new(Features::RING_PACKED, 2);
    both.offer(&[readable(DATA, 4)]);
    both.offer(&[readable(DATA, 4)]);
    assert_eq!((both.pop(), both.pop()), (Ok(true), Ok(true)));
    // The second lap, with nothing given back.
    both.ram.write(Ipa(BASE + 14), &(1_u16 << 15).to_le_bytes()).unwrap();
    assert_eq!(both.pop(), Err(RingError::Overrun));
}

#[test]
fn places_and_sizes_that_cannot_be() {
    let (good, _) = Driver::place(BASE, 8);
    let try_with = |features, layout: Layout| Queue::new(features, &layout).map(drop);
    for size in [0, 3, 0x8001, 0xffff] {
        assert_eq!(try_with(KINDS[0], Layout { size, ..good }), Err(RingError::Size(size)));
    }
    for size in [0, 0x8001, 0xffff] {
        assert_eq!(try_with(KINDS[1], Layout { size, ..good }), Err(RingError::Size(size)));
    }
    assert_eq!(try_with(KINDS[1], Layout { size: 3, ..good }), Ok(()));
    for kind in KINDS {
        assert_eq!(try_with(kind, good), Ok(()));
        let aligned = if kind.is_empty() { [8, 1, 2] } else { [8, 2, 2] };
        for (place, offset) in aligned.into_iter().enumerate() {
            for at in [Some(offset), None] {
                let mut layout = good;
                let (field, area) = match place {
                    0 => (&mut layout.descriptor_area, Area::Descriptor),
                    1 => (&mut layout.driver_area, Area::Driver),
                    _ => (&mut layout.device_area, Area::Device),
                };
                *field = at.map_or(Ipa(!(offset * 2 - 1)), |offset| Ipa(field.0 + offset));
                let expected = Err(RingError::Place(area, *field));
                assert_eq!(try_with(kind, layout), expected);
            }
        }
    }
}

#[test]
fn areas_and_buffers_outside_memory_are_found_when_they_are_used() {
    let nowhere = 0x1000;
    for kind in KINDS {
        let (layout, _) = Driver::place(nowhere, 8);
        let mut queue = Queue::new(kind, &layout).unwrap();
        let (ram, mut chain) = (ram(), Chain::new(8));
        assert!(matches!(queue.pop(&ram, &mut chain), Err(RingError::Memory(_))));
        assert!(matches!(queue.push(&ram, &chain, 0), Err(RingError::Memory(_))));
        assert!(matches!(queue.expect_notification(&ram, true), Err(RingError::Memory(_))));
        let mut both = Both::new(kind, 8);
        both.offer(&[readable(nowhere, 4), writable(BASE + 0xfffe, 4)]);
        assert_eq!(both.pop(), Ok(true));
        assert_eq!(both.chain.reader().read(&both.ram, &mut [0; 4]), Err(RingError::Memory(Ipa(nowhere))));
        assert!(matches!(both.chain.writer().write(&both.ram, &[0; 4]), Err(RingError::Memory(_))));
    }
}

#[test]
fn a_chain_is_no_longer_than_its_storage() {
    let mut both = Both::new(Features::empty(), 8);
    both.chain = Chain::new(2);
    let storage = both.chain.capacity();
    both.offer(&[readable(DATA, 1); 8]);
    assert_eq!(both.pop(), if storage < 8 { Err(RingError::TooLong) } else { Ok(true) });
    assert_eq!(both.chain.capacity(), storage, "nothing is allocated for a request");
}
