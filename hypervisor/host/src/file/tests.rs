//! Packed and unpacked, sent and received.

use super::transfer::{Checksum, LINE, Line, begin, data, end, read};
use super::*;

/// A store with so much room.
struct Room(Vec<u8>, usize);

impl Store for &mut Room {
    type Error = usize;
    fn append(&mut self, bytes: &[u8]) -> Result<(), usize> {
        if self.0.len() + bytes.len() > self.1 {
            return Err(self.0.len());
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A file of text, noise and gaps of all sizes, in calls of all sizes.
fn content(seed: u64) -> Vec<(Vec<u8>, u64)> {
    let mut random = Random(seed);
    let mut parts = Vec::new();
    for _ in 0..30 {
        let length = (random.next() % 30_000) as usize;
        let bytes = match random.next() % 3 {
            0 => (0..length).map(|_| random.next() as u8).collect(),
            1 => (0..length).map(|index| (index / 50) as u8).collect(),
            _ => Vec::new(),
        };
        parts.push((bytes, random.next() % 3 * (random.next() % 40_000)));
    }
    parts
}

fn pack(parts: &[(Vec<u8>, u64)]) -> (Vec<u8>, u64, Vec<u8>) {
    let mut room = Room(Vec::new(), usize::MAX);
    let mut packer = Packer::new(&mut room);
    let mut plain = Vec::new();
    for (bytes, zeroes) in parts {
        packer.bytes(bytes).unwrap();
        packer.zeroes(*zeroes).unwrap();
        plain.extend_from_slice(bytes);
        plain.resize(plain.len() + *zeroes as usize, 0);
    }
    let size = packer.finish().unwrap();
    (plain, size, room.0)
}

fn unpacked(mut packed: &[u8], size: u64) -> Vec<u8> {
    let mut file = vec![0; size as usize];
    let mut behind = 0;
    while let Some((offset, bytes, rest)) = unpack(packed, size).unwrap() {
        assert!(offset >= behind, "in order");
        behind = offset + bytes.len() as u64;
        file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        packed = rest;
    }
    file
}

#[test]
#[cfg_attr(miri, ignore = "packing takes Miri minutes, and the packer has no unsafe code")]
fn what_was_packed_is_unpacked() {
    for seed in 1..30 {
        let (plain, size, packed) = pack(&content(seed));
        assert_eq!(size, plain.len() as u64);
        assert!(unpacked(&packed, size) == plain, "seed {seed}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "packing takes Miri minutes, and the packer has no unsafe code")]
fn zeroes_cost_nothing_and_little_text_costs_little() {
    let mut room = Room(Vec::new(), 0);
    let mut packer = Packer::new(&mut room);
    packer.zeroes(1 << 40).unwrap();
    assert_eq!(packer.finish(), Ok(1 << 40));
    let page = vec![b'a'; 4096];
    let pages: Vec<_> = (0..16).map(|_| (page.clone(), 4096)).collect();
    let (plain, size, packed) = pack(&pages);
    assert!(packed.len() < 1000, "{} bytes", packed.len());
    assert!(unpacked(&packed, size) == plain);
}

#[test]
#[cfg_attr(miri, ignore = "packing takes Miri minutes, and the packer has no unsafe code")]
fn what_has_no_room_is_an_error() {
    let mut room = Room(Vec::new(), 1000);
    let mut packer = Packer::new(&mut room);
    let mut random = Random(1);
    let noise: Vec<u8> = (0..2 * CHUNK + 1).map(|_| random.next() as u8).collect();
    assert_eq!(packer.bytes(&noise), Err(0));
}

#[test]
#[cfg_attr(miri, ignore = "packing takes Miri minutes, and the packer has no unsafe code")]
fn rubbish_is_found_out_and_takes_no_memory() {
    let (_, size, packed) = pack(&content(3));
    let mut random = Random(7);
    for _ in 0..500 {
        let mut damaged = packed.clone();
        let place = random.next() as usize % damaged.len();
        damaged[place] = random.next() as u8;
        damaged.truncate(random.next() as usize % damaged.len() + 1);
        let mut rest = &damaged[..];
        // It ends, whatever it comes to, and no record is larger than it may be.
        while let Ok(Some((offset, bytes, behind))) = unpack(rest, size) {
            assert!(bytes.len() <= CHUNK && offset + bytes.len() as u64 <= size);
            rest = behind;
        }
    }
    let huge = [&0_u64.to_le_bytes()[..], &u32::MAX.to_le_bytes(), &0_u32.to_le_bytes()].concat();
    assert_eq!(unpack(&huge, u64::MAX), Err(Damaged));
    let beyond = [&u64::MAX.to_le_bytes()[..], &1_u32.to_le_bytes(), &1_u32.to_le_bytes(), b"x"].concat();
    assert_eq!(unpack(&beyond, u64::MAX), Err(Damaged));
}

#[test]
fn names_are_harmless_and_numbered() {
    let tried: Vec<_> = names("/dumps/", "linux", "gcore").collect();
    assert_eq!((tried.len(), &*tried[0], &*tried[1]), (10, "dumps/linux.gcore", "dumps/linux-1.gcore"));
    assert_eq!(names("", "a b", "gcore").next().unwrap(), "a_b.gcore");
    assert_eq!(harmless("//x\n@file y"), "x__file_y");
    assert!(names(&"x".repeat(200), "y", "gcore").all(|name| name.len() <= NAME));
}

#[test]
fn the_checksum_is_that_of_zip() {
    // "check" of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
    assert_eq!(Checksum::default().with(b"12345").with(b"6789").value(), 0xcbf4_3926);
}

#[test]
fn base64_is_that_of_rfc_4648() {
    // Section 10.
    for (plain, encoded) in
        [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
    {
        let line = data(0, plain.as_bytes());
        assert_eq!(line.split(' ').nth(2), Some(encoded));
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn every_line_is_read_as_it_was_written() {
    let mut random = Random(5);
    for number in 0..if cfg!(miri) { 2 } else { 200_u32 } {
        let bytes: Vec<u8> = (0..random.next() as usize % (LINE + 1)).map(|_| random.next() as u8).collect();
        if bytes.is_empty() {
            continue;
        }
        let line = data(number, &bytes);
        let expected = Line::Data { number, bytes };
        assert_eq!(read(&line), Some(expected.clone()));
        // One character changed anywhere is noticed, or hides the whole line, or changes nothing (a digit's case).
        let mut characters: Vec<char> = line.chars().collect();
        let place = random.next() as usize % characters.len();
        characters[place] = if characters[place] == 'A' { 'B' } else { 'A' };
        let changed = characters.into_iter().collect::<String>();
        let found = read(&changed);
        assert!(matches!(found, None | Some(Line::Damaged)) || found == Some(expected), "{changed}");
    }
    let first = begin("dumps/linux.gcore", 10, 7, 0xabc);
    assert_eq!(first, "@file begin dumps/linux.gcore 10 7 00000abc");
    assert_eq!(read(&first), Some(Line::Begin { name: "dumps/linux.gcore", size: 10, packed: 7, checksum: 0xabc }));
    assert_eq!(read(&end("x")), Some(Line::End { name: "x" }));
    for line in ["linux| @file end x", "", "@file", " @file end x"] {
        assert_eq!(read(line), None);
    }
    for line in ["@file ", "@file end", "@file begin x 1 2", "@file 1 Zg== 0", "@file end x y", "@file end a\tb"] {
        assert_eq!(read(line), Some(Line::Damaged), "{line}");
    }
    assert_eq!(read("@file 1 "), Some(Line::Damaged));
}
