//! Tables as tools write them, and as they never should.

use super::*;
use crate::disk::{Base, Overlay, PAGE, PageStore};
use alloc::{vec, vec::Vec};

/// Nothing is written.
struct Nowhere;

impl PageStore for Nowhere {
    fn add(&mut self) -> Option<u32> {
        None
    }
    fn page(&mut self, _: u32) -> Option<&mut [u8; PAGE]> {
        None
    }
    fn free(&mut self, _: u32) {}
}

const SECTORS: u32 = 1000;

/// A disk with an MBR of these partitions: type, first sector, count.
fn master(partitions: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut disk = vec![0; SECTORS as usize * 512];
    for (number, (kind, first, count)) in partitions.iter().enumerate() {
        let entry = &mut disk[446 + 16 * number..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&count.to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// A disk with a GUID partition table of these partitions: first and last sector.
fn guids(partitions: &[(u64, u64)]) -> Vec<u8> {
    let mut disk = master(&[(0xee, 1, SECTORS - 1)]);
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[512 + 72..512 + 80].copy_from_slice(&2_u64.to_le_bytes());
    disk[512 + 80..512 + 84].copy_from_slice(&128_u32.to_le_bytes());
    disk[512 + 84..512 + 88].copy_from_slice(&128_u32.to_le_bytes());
    for (number, (first, last)) in partitions.iter().enumerate() {
        let entry = &mut disk[1024 + 128 * number..][..128];
        entry[0] = 1;
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    disk
}

fn find(disk: &[u8], name: &str) -> Result<(u64, u64), String> {
    let which = RealName::parse(name).unwrap().which;
    let mut disk = Overlay::new("test".into(), Base::Bytes(disk), true, Nowhere).unwrap();
    partition(&mut disk, which).map(|extent| (extent.first, extent.count)).map_err(|PartitionError(why)| why)
}

#[test]
fn names_are_read_and_written_alike() {
    for name in ["hd0", "hd12", "hd0p2", "hd1t178", "hd1t178.1"] {
        assert_eq!(alloc::format!("{}", RealName::parse(name).unwrap()), name);
    }
    for name in [
        "",
        "hd",
        "hd0t",
        "hd0t0",
        "hd0t256",
        "hd0p0",
        "hd0p",
        "hd0x1",
        "hd0t1.",
        "sd0",
        "hdt1",
        "hd99999999999",
        "hd0é",
    ] {
        assert_eq!(RealName::parse(name), None, "{name}");
    }
}

#[test]
fn a_partition_is_found_by_its_type_and_by_its_number() {
    let disk = master(&[(11, 1, 99), (178, 100, 200), (0, 0, 0), (178, 300, 700)]);
    assert_eq!(find(&disk, "hd0"), Ok((0, 1000)));
    assert_eq!((find(&disk, "hd0t178"), find(&disk, "hd0t178.1")), (Ok((100, 200)), Ok((300, 700))));
    assert_eq!((find(&disk, "hd0p1"), find(&disk, "hd0p4")), (Ok((1, 99)), Ok((300, 700))));
    for name in ["hd0t178.2", "hd0t12", "hd0p3", "hd0p5"] {
        assert_eq!(find(&disk, name).unwrap_err(), "it has no such partition", "{name}");
    }
}

#[test]
fn a_guid_partition_table_goes_by_numbers() {
    let disk = guids(&[(34, 133), (0, 0), (200, 999), (900, 1000), (300, 299)]);
    assert_eq!((find(&disk, "hd0p1"), find(&disk, "hd0p3")), (Ok((34, 100)), Ok((200, 800))));
    assert_eq!(find(&disk, "hd0p6").unwrap_err(), "it has no such partition");
    assert_eq!(find(&disk, "hd0p129").unwrap_err(), "it has no such partition");
    for name in ["hd0p4", "hd0p5", "hd0p2"] {
        assert!(find(&disk, name).unwrap_err().contains("is not on it"), "{name}");
    }
}

#[test]
fn what_is_no_table_is_said_to_be_none() {
    assert_eq!(find(&[0; 51200], "hd0t1").unwrap_err(), "it has no partition table");
    assert!(find(&[], "hd0t1").unwrap_err().contains("cannot be read"));
    assert!(find(&master(&[(178, 999, 2)]), "hd0t178").unwrap_err().contains("2 sectors from 999 on, is not on it"));
    assert!(find(&master(&[(178, 0, 2)]), "hd0t178").unwrap_err().contains("is not on it"));
    assert!(find(&master(&[(0xee, 1, 99)]), "hd0p1").unwrap_err().contains("no GUID partition table"));
    for (at, bytes) in [(84, [1, 0, 0, 0]), (84, [0, 0, 1, 0]), (72, [0xff; 4]), (76, [0xff; 4])] {
        let mut disk = guids(&[(34, 133)]);
        disk[512 + at..][..4].copy_from_slice(&bytes);
        assert!(find(&disk, "hd0p1").is_err(), "{at}");
    }
}
