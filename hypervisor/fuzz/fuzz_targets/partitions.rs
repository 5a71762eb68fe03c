//! Partition tables: whatever a guest has written to a disk, reading it ends, and a partition is on the disk or none.

#![no_main]

use host::disk::{Base, Overlay, PageStore, Which, partition, table};
use libfuzzer_sys::fuzz_target;

const SECTOR: usize = 512;
const SECTORS: usize = 96;

/// Nothing is written.
struct Nowhere;

impl PageStore for Nowhere {
    fn add(&mut self) -> Option<u32> {
        None
    }
    fn pages(&mut self, _: u32) -> Option<&mut [u8]> {
        None
    }
    fn free(&mut self, _: u32) {}
}

fuzz_target!(|data: &[u8]| {
    let mut disk = vec![0; SECTORS * SECTOR];
    // Each piece is a place and what is there; the rest are zeroes, but for what makes it a table at all.
    for piece in data.chunks(10) {
        let [high, low, bytes @ ..] = piece else { continue };
        let at = usize::from(u16::from_be_bytes([*high, *low])) % (disk.len() - 8);
        disk[at..at + bytes.len()].copy_from_slice(bytes);
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    check(&disk);
    // What lies behind the checksums is to be reached as well.
    disk[450] = 0xee;
    for (header, entries) in [(1, 2), (SECTORS - 1, SECTORS - 33)] {
        seal(&mut disk, header, entries);
    }
    check(&disk);
});

/// Makes a header of what is there.
fn seal(disk: &mut [u8], header: usize, entries: usize) {
    let array = crc32(&disk[entries * SECTOR..(entries + 32) * SECTOR]);
    let at = header * SECTOR;
    disk[at..at + 8].copy_from_slice(b"EFI PART");
    for (offset, value) in [(12, 92), (16, 0), (80, 128), (84, 128), (88, array)] {
        disk[at + offset..at + offset + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    for (offset, value) in [(24, header), (72, entries)] {
        disk[at + offset..at + offset + 8].copy_from_slice(&(value as u64).to_le_bytes());
    }
    let sum = crc32(&disk[at..at + 92]);
    disk[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn check(disk: &[u8]) {
    let open = || Overlay::new(String::new(), Base::Bytes(disk), true, Nowhere).expect("it is small");
    let Ok(table) = table::read(&mut open()) else { return };
    for entry in &table.entries {
        assert_eq!(table.find(table.which(entry)), Some(entry));
        if let Ok(extent) = partition(&mut open(), Which::Number(entry.number)) {
            assert_eq!(extent, entry.extent);
            assert!(extent.first > 0 && extent.count > 0 && extent.first + extent.count <= SECTORS as u64);
        }
    }
}
