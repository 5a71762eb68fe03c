//! Tables as tools write them, and as they never should.

use super::table::Form;
use super::*;
use crate::disk::tests::Ram;
use alloc::{vec, vec::Vec};
use proptest::prelude::*;

const SECTORS: u32 = 1000;

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Writes an MBR, or a table of an extended partition, into a sector.
fn write_master(disk: &mut [u8], sector: u32, partitions: &[(u8, u32, u32)]) {
    let start = sector as usize * 512;
    for (number, (kind, first, count)) in partitions.iter().enumerate() {
        let at = start + 446 + 16 * number;
        disk[at + 4] = *kind;
        put(disk, at + 8, &first.to_le_bytes());
        put(disk, at + 12, &count.to_le_bytes());
    }
    put(disk, start + 510, &[0x55, 0xaa]);
}

/// A disk with an MBR of these partitions: type, first sector, count.
fn master(partitions: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut disk = vec![0; SECTORS as usize * 512];
    write_master(&mut disk, 0, partitions);
    disk
}

/// Computes both checksums of the header in this block anew.
fn seal(disk: &mut [u8], at: usize, block: usize) {
    let header = at * block;
    let word = |disk: &[u8], at| u32::from_le_bytes(disk[at..at + 4].try_into().unwrap()) as usize;
    let (entries, count, size) = (word(disk, header + 72) * block, word(disk, header + 80), word(disk, header + 84));
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    if let Some(array) = disk.get(entries..entries + count * size) {
        let sum = crc.checksum(array);
        put(disk, header + 88, &sum.to_le_bytes());
    }
    put(disk, header + 16, &[0; 4]);
    let length = word(disk, header + 12).min(512);
    let sum = crc.checksum(&disk[header..header + length]);
    put(disk, header + 16, &sum.to_le_bytes());
}

/// A disk of so many blocks with a GUID partition table of these partitions, first and last block, and its copy.
fn guids_in_blocks(block: usize, blocks: usize, partitions: &[(u64, u64)]) -> Vec<u8> {
    let mut disk = vec![0; blocks * block];
    write_master(&mut disk, 0, &[(0xee, 1, u32::MAX)]);
    let array = 128 * 128 / block;
    for (at, entries) in [(1, 2), (blocks - 1, blocks - 1 - array)] {
        let header = at * block;
        put(&mut disk, header, b"EFI PART");
        put(&mut disk, header + 12, &92_u32.to_le_bytes());
        put(&mut disk, header + 24, &(at as u64).to_le_bytes());
        put(&mut disk, header + 40, &(2 + array as u64).to_le_bytes());
        put(&mut disk, header + 48, &((blocks - 2 - array) as u64).to_le_bytes());
        put(&mut disk, header + 72, &(entries as u64).to_le_bytes());
        put(&mut disk, header + 80, &128_u32.to_le_bytes());
        put(&mut disk, header + 84, &128_u32.to_le_bytes());
        for (number, (first, last)) in partitions.iter().enumerate() {
            let entry = entries * block + 128 * number;
            disk[entry] = u8::from((*first, *last) != (0, 0));
            put(&mut disk, entry + 32, &first.to_le_bytes());
            put(&mut disk, entry + 40, &last.to_le_bytes());
        }
        seal(&mut disk, at, block);
    }
    disk
}

fn guids(partitions: &[(u64, u64)]) -> Vec<u8> {
    guids_in_blocks(512, SECTORS as usize, partitions)
}

fn find(disk: &[u8], name: &str) -> Result<(u64, u64), String> {
    find_in(&mut Ram::new(disk.to_vec()), name)
}

fn find_in(disk: &mut Ram, name: &str) -> Result<(u64, u64), String> {
    let which = RealName::parse(name).unwrap().which;
    partition(disk, which).map(|extent| (extent.first, extent.count)).map_err(|PartitionError(why)| why)
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn names_are_read_and_written_alike() {
    for name in ["hd0", "hd12", "hd0p2", "hd1t178", "hd1t178.1"] {
        assert_eq!(format!("{}", RealName::parse(name).unwrap()), name);
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
        "hd00",
        "hd0p01",
        "hd0p+1",
        "hd0t1.+1",
        "hd0t01",
    ] {
        assert_eq!(RealName::parse(name), None, "{name}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_partition_is_found_by_its_type_and_by_its_number() {
    let disk = master(&[(11, 1, 99), (178, 100, 200), (0, 0, 0), (178, 300, 700)]);
    assert_eq!(find(&disk, "hd0"), Ok((0, 1000)));
    assert_eq!((find(&disk, "hd0t178"), find(&disk, "hd0t178.1")), (Ok((100, 200)), Ok((300, 700))));
    assert_eq!((find(&disk, "hd0p1"), find(&disk, "hd0p4")), (Ok((1, 99)), Ok((300, 700))));
    for name in ["hd0t178.2", "hd0t12", "hd0p3", "hd0p5"] {
        let wanted = "it has no such partition; there is p1 (type 11), p2 (type 178), p4 (type 178)";
        assert_eq!(find(&disk, name).unwrap_err(), wanted, "{name}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn logical_partitions_have_numbers_from_five_on_and_are_found_by_type_last() {
    let mut disk = master(&[(131, 1, 99), (5, 100, 400), (131, 500, 100)]);
    write_master(&mut disk, 100, &[(131, 10, 40), (5, 100, 150)]);
    write_master(&mut disk, 200, &[(178, 10, 90)]);
    assert_eq!((find(&disk, "hd0p5"), find(&disk, "hd0p6")), (Ok((110, 40)), Ok((210, 90))));
    assert_eq!((find(&disk, "hd0t178"), find(&disk, "hd0t131.2")), (Ok((210, 90)), Ok((110, 40))));
    assert_eq!(find(&disk, "hd0p2"), Ok((100, 400)), "all of them together");
    assert!(find(&disk, "hd0p7").is_err());
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_chain_of_tables_ends() {
    let mut disk = master(&[(15, 100, 400)]);
    // Back to the first; beyond the extended partition; a partition beyond it, and one over its own table.
    for (own, next) in [
        ((131, 10, 40), (5, 0, 10)),
        ((131, 10, 40), (5, 400, 10)),
        ((131, 10, 391), (0, 0, 0)),
        ((131, 0, 40), (0, 0, 0)),
        ((131, 10, u32::MAX), (5, u32::MAX, 1)),
    ] {
        write_master(&mut disk, 100, &[own, next]);
        let found = table::read(&mut Ram::new(disk.clone())).unwrap();
        let expected = if own == (131, 10, 40) { 2 } else { 1 };
        assert_eq!(found.entries.len(), expected, "{own:?} {next:?}");
    }
    // Each table is one further on: as many as anybody has.
    for sector in 100..400 {
        write_master(&mut disk, sector, &[(131, 1, 1), (5, sector + 1 - 100, 1)]);
    }
    assert_eq!(table::read(&mut Ram::new(disk)).unwrap().entries.len(), 61);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_guid_partition_table_goes_by_numbers() {
    let disk = guids(&[(34, 133), (0, 0), (200, 966), (300, 299)]);
    assert_eq!((find(&disk, "hd0p1"), find(&disk, "hd0p3")), (Ok((34, 100)), Ok((200, 767))));
    for name in ["hd0p2", "hd0p6", "hd0p129", "hd0t178", "hd0t1"] {
        assert_eq!(find(&disk, name).unwrap_err(), "it has no such partition; there is p1, p3, p4", "{name}");
    }
    assert_eq!(find(&disk, "hd0p4").unwrap_err(), "that partition is empty");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_partition_over_a_table_or_the_end_is_none() {
    for place in [(33, 133), (1, 2), (900, 967), (900, 1000), (0, 999), (34, u64::MAX), (u64::MAX - 1, u64::MAX)] {
        assert!(find(&guids(&[place]), "hd0p1").unwrap_err().contains("is not where one can be"), "{place:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn with_large_blocks_the_table_counts_in_those() {
    let disk = guids_in_blocks(4096, 100, &[(6, 15)]);
    let found = find_in(&mut Ram::with_blocks(disk.clone(), 4096), "hd0p1");
    assert_eq!(found, Ok((48, 80)));
    assert!(find(&disk, "hd0p1").is_err(), "with small ones it is not there");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn the_copy_is_taken_if_the_first_table_is_no_good() {
    let good = guids(&[(34, 133)]);
    for at in [512, 512 + 16, 512 + 40, 512 + 88, 1024 + 32, 1024 + 5 * 128] {
        let mut disk = good.clone();
        disk[at] ^= 1;
        assert_eq!(find(&disk, "hd0p1"), Ok((34, 100)), "{at}");
        assert_eq!(table::read(&mut Ram::new(disk.clone())).unwrap().form, Form::Copy);
        disk[999 * 512 + 16] ^= 1;
        assert!(find(&disk, "hd0p1").unwrap_err().contains("is no good"), "{at}");
    }
    assert_eq!(table::read(&mut Ram::new(good)).unwrap().form, Form::Guids);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn what_is_no_table_is_said_to_be_none() {
    assert_eq!(find(&[0; 51200], "hd0t1").unwrap_err(), "it has no partition table");
    assert!(find(&[], "hd0t1").unwrap_err().contains("cannot be read"));
    assert!(find(&master(&[(178, 999, 2)]), "hd0t178").unwrap_err().contains("2 sectors from 999 on, is not where"));
    assert!(find(&master(&[(178, 0, 2)]), "hd0t178").unwrap_err().contains("is not where"));
    assert_eq!(find(&master(&[(178, 1, 0)]), "hd0t178").unwrap_err(), "that partition is empty");
    assert!(find(&master(&[(0xee, 1, 99)]), "hd0p1").unwrap_err().contains("there is no header"));
    for (at, bytes, why) in [
        (84, [1, 0, 0, 0], "128 entries of 1 bytes"),
        (84, [0, 0, 1, 0], "128 entries of 65536 bytes"),
        (80, [0xff; 4], "entries of 128 bytes"),
        (80, [0; 4], "0 entries"),
        (76, [0xff; 4], "cannot be read"),
        (12, [0; 4], "another length"),
        (12, [0xff; 4], "another length"),
        (24, [2, 0, 0, 0], "elsewhere"),
    ] {
        let mut disk = guids(&[(34, 133)]);
        put(&mut disk, 512 + at, &bytes);
        seal(&mut disk, 1, 512);
        put(&mut disk, 999 * 512, &[0; 8]);
        let error = find(&disk, "hd0p1").unwrap_err();
        assert!(error.contains(why), "{at}: {error}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn what_a_partition_is_called_leads_to_it() {
    let mut disk = master(&[(131, 1, 99), (5, 100, 400), (131, 500, 100)]);
    write_master(&mut disk, 100, &[(131, 10, 40)]);
    for disk in [disk, guids(&[(34, 133), (0, 0), (200, 299)])] {
        let table = table::read(&mut Ram::new(disk)).unwrap();
        for entry in &table.entries {
            assert_eq!(table.find(table.which(entry)), Some(entry));
            assert_eq!(table.find(Which::Number(entry.number)), Some(entry));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn whatever_is_written_there_a_partition_is_on_the_disk(
        is_guid in any::<bool>(),
        seals in any::<bool>(),
        changes in prop::collection::vec((0_usize..34 * 512, any::<u8>()), 0..12),
        number in 1_u32..140,
    ) {
        let mut disk = if is_guid { guids(&[(34, 133), (200, 300)]) } else { master(&[(5, 1, 33), (178, 40, 100)]) };
        changes.iter().for_each(|(at, byte)| disk[*at] = *byte);
        if is_guid && seals {
            seal(&mut disk, 1, 512);
        }
        if let Ok(extent) = partition(&mut Ram::new(disk), Which::Number(number)) {
            prop_assert!(extent.first > 0 && extent.count > 0 && extent.first + extent.count <= u64::from(SECTORS));
        }
    }
}
