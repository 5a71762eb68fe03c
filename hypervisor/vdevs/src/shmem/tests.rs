use super::*;
use crate::shmem::registers::SIGNATURE;
use vdev::testkit::{Rig, Shared, Wires};

/// A device, and what is behind it.
fn shmem(words: &[(&str, Option<&str>)]) -> (Rig, Shared) {
    let mut wires = Wires::default();
    let rig = Rig::new(&FACTORY, words, &mut wires).unwrap();
    (rig, wires.shared)
}

fn complaint(words: &[(&str, Option<&str>)]) -> String {
    Rig::new(&FACTORY, words, &mut Wires::default()).unwrap_err()[0].message.clone()
}

/// As the original's guests do: the name, then the size, then the status.
fn attach(rig: &mut Rig, shared: &Shared, name: &str, pages: u64) -> u64 {
    for (byte, at) in name.bytes().chain([0]).zip(0x1c..) {
        rig.try_write(at, AccessSize::Byte, byte.into()).unwrap();
    }
    rig.write(0x18, pages);
    if rig.take_effects().has_later() {
        shared.work(Ok(()));
        rig.wake();
    }
    rig.read(0x14)
}

/// Offset of the control page of the region that was attached last.
fn control(rig: &mut Rig) -> u64 {
    let at = rig.try_read(8, AccessSize::Doubleword).unwrap();
    at - Rig::WINDOW.0 + REGION_SIZE
}

const PRESENT: u64 = 1 << (16 + Shared::CLIENT);

#[test]
fn a_guest_finds_the_factory_and_attaches() {
    let (mut rig, shared) = shmem(&[]);
    assert_eq!(rig.try_read(0, AccessSize::Doubleword), Ok(SIGNATURE));
    assert_eq!(rig.read(0x10), u64::from(Rig::LINE.0));
    assert_eq!(attach(&mut rig, &shared, "frames", 4), 0);
    assert_eq!((rig.read(0x18), rig.try_read(8, AccessSize::Doubleword)), (4, Ok(Rig::WINDOW.0)));
    let page = control(&mut rig);
    assert_eq!(rig.try_read_at_window(page, AccessSize::Word), Ok(PRESENT));
    assert_eq!(rig.try_read_at_window(page + 4, AccessSize::Word), Ok(Shared::CLIENT.into()));
    // A second one, that somebody else has made: the size is the maker's.
    shared.add("audio", 100);
    assert_eq!((attach(&mut rig, &shared, "audio", 1), rig.read(0x18)), (0, 100));
    assert_eq!(control(&mut rig), page + Shared::SPACING);
}

#[test]
fn who_is_notified_is_told_until_the_status_is_read() {
    let (mut rig, shared) = shmem(&[]);
    attach(&mut rig, &shared, "a", 1);
    let a = control(&mut rig);
    attach(&mut rig, &shared, "b", 1);
    let b = control(&mut rig);
    rig.try_write_at_window(b + 8, AccessSize::Word, 0x10005).unwrap();
    assert!(rig.take_effects().tells());
    assert_eq!(shared.take_notified(), [(1, 5)], "there are 16 clients");
    rig.try_write_at_window(b + 8, AccessSize::Word, 0).unwrap();
    assert!(shared.take_notified().is_empty() && rig.take_effects().none());

    shared.ring(0, 1 << 5);
    shared.ring(1, 1 << 6);
    rig.wake();
    assert!(rig.line());
    assert_eq!(rig.try_read_at_window(a, AccessSize::Word), Ok(PRESENT | 1 << 5));
    assert!(rig.line(), "the other one has not been read");
    assert_eq!(rig.try_read_at_window(b + 4, AccessSize::Word), Ok(3));
    assert!(rig.line(), "that is not its status");
    assert_eq!(rig.try_read_at_window(b, AccessSize::Doubleword), Ok(3 << 32 | PRESENT | 1 << 6));
    assert!(!rig.line());
    rig.wake();
    assert_eq!(rig.lines.take_events().len(), 2, "up and down once");
}

#[test]
fn a_region_that_is_left_has_no_registers() {
    let (mut rig, shared) = shmem(&[]);
    attach(&mut rig, &shared, "a", 1);
    let page = control(&mut rig);
    shared.ring(0, 1);
    rig.wake();
    rig.try_write_at_window(page + 12, AccessSize::Byte, 0).unwrap();
    assert!(!shared.is_attached(0) && rig.take_effects().has_later() && !rig.line());
    assert_eq!(rig.try_read_at_window(page, AccessSize::Word), Err(AccessFault::Unsupported));
    assert_eq!(rig.try_write_at_window(page + 12, AccessSize::Word, 0), Err(AccessFault::Unsupported));
    // With one store of eight bytes: notify and detach.
    attach(&mut rig, &shared, "b", 1);
    rig.try_write_at_window(page + 8, AccessSize::Doubleword, 2).unwrap();
    assert_eq!((shared.take_notified(), shared.is_attached(0)), (alloc::vec![(0, 2)], false));
    attach(&mut rig, &shared, "c", 1);
    rig.control(Control::Reset).unwrap();
    assert!(!shared.is_attached(0) && rig.read(0x18) == 0);
}

#[test]
fn what_goes_wrong_is_in_the_status() {
    let (mut rig, shared) = shmem(&[("allow", Some("cam*")), ("allow", Some("v[01]"))]);
    assert_eq!(attach(&mut rig, &shared, "", 1), 4);
    assert_eq!(attach(&mut rig, &shared, "a b", 1), 4);
    assert_eq!(attach(&mut rig, &shared, "v2", 1), 5);
    assert_eq!(attach(&mut rig, &shared, "v1", 1), 0);
    for (error, status) in [
        (RegionError::NoMemory, 2),
        (RegionError::TooManyClients, 3),
        (RegionError::Missing, 6),
        (RegionError::Failed, 1),
    ] {
        rig.write(0x18, 1);
        assert!(shared.work(Err(error)).is_some());
        rig.wake();
        assert_eq!(rig.read(0x14), status);
    }
    // Two vCPUs at a time.
    rig.write(0x18, 1);
    rig.write(0x18, 2);
    assert_eq!(rig.read(0x14), 1);
    assert_eq!(shared.work(Ok(())).map(|(_, pages)| pages), Some(1));
    rig.wake();
    assert_eq!(rig.read(0x14), 0);
}

#[test]
fn regions_are_found_by_number_as_far_as_they_are_allowed() {
    let (mut rig, shared) = shmem(&[("deny", Some("secret*"))]);
    shared.add("secret-1", 1);
    shared.add("frames", 7);
    rig.write(0x3c, 0);
    assert_eq!((rig.read(0x14), rig.read(0x18), rig.read(0x1c)), (0, 7, u64::from(u32::from_le_bytes(*b"fram"))));
    rig.write(0x3c, 1);
    assert_eq!(rig.read(0x14), 6);
    assert_eq!(attach(&mut rig, &shared, "secret-1", 1), 5);
}

#[test]
fn any_access_size_does() {
    let (mut rig, shared) = shmem(&[]);
    rig.try_write(0x38, AccessSize::Doubleword, 9 << 32).unwrap();
    assert_eq!((rig.read(0x14), rig.read(0x3c)), (6, 9), "the end of the name, and `find`");
    rig.try_write(0x20, AccessSize::Doubleword, 0).unwrap();
    // The size and the first four bytes of the name.
    let name = u64::from(u32::from_le_bytes(*b"ab\0\0"));
    rig.try_write(0x18, AccessSize::Doubleword, name << 32 | 2).unwrap();
    let (name, pages) = shared.work(Ok(())).unwrap();
    assert_eq!((name.as_str(), pages), ("ab", 2));
    assert_eq!(rig.try_read(1, AccessSize::Byte), Ok(u64::from(b'V')));
    assert_eq!(rig.try_read(0x44, AccessSize::Word), Ok(0));
    assert_eq!(rig.try_read(0xffc, AccessSize::Word), Ok(0));
}

#[test]
fn wrong_options_are_named() {
    assert!(complaint(&[("allow", Some("a")), ("deny", Some("b"))]).contains("either `allow` or `deny`"));
    assert!(complaint(&[("allow", Some("a["))]).contains("`allow a[`"));
    assert!(complaint(&[("create", Some("a"))]).contains("expected NAME,SIZE"));
    assert!(complaint(&[("create", Some("a b,4096"))]).contains("`a b` cannot name a region"));
    assert!(complaint(&[("create", Some("a,0"))]).contains("cannot have 0 bytes"));
    let (_, shared) = shmem(&[("create", Some("a,4097")), ("create", Some("b,0x1000")), ("limit", Some("8192"))]);
    let wishes = shared.wishes();
    assert_eq!(wishes.limit, 2);
    assert_eq!(
        wishes.create.iter().map(|(name, pages)| (name.as_str(), *pages)).collect::<Vec<_>>(),
        [("a", 2), ("b", 1)]
    );
}

#[test]
fn it_says_what_it_has() {
    let (mut rig, shared) = shmem(&[]);
    assert_eq!(rig.status(), "device: attached to 0 regions\n");
    attach(&mut rig, &shared, "a", 3);
    assert!(rig.status().contains("`a`: client 3, 3 pages"), "{}", rig.status());
    let tree = rig.describe();
    assert!(tree.contains("bulkhead,shmem") && tree.contains("reg = <"), "{tree}");
}
