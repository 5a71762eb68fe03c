//! ELF executables.
//!
//! Answers for: which bytes of a file go where, and where it starts (System V ABI, "Program Loading"; ELF for the Arm
//! 64-bit Architecture, AAELF64). Does not answer for: dynamic linking. There is nobody here to do it.

use super::format::FormatError;
use alloc::vec::Vec;
use elf::{
    abi::{EM_AARCH64, ET_DYN, ET_EXEC, PT_INTERP, PT_LOAD},
    endian::AnyEndian,
    file::{Class, FileHeader, parse_ident},
    segment::{ProgramHeader, SegmentTable},
};

/// More segments than any linker script makes.
const MAX_SEGMENTS: usize = 64;
const IDENT: usize = 16;
const PROGRAM_HEADER: u16 = 56;

/// One `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where its bytes are in the file.
    pub(super) offset: u64,
    /// How many of them.
    pub(super) length: u64,
    /// Physical address.
    pub(super) address: u64,
    /// Bytes in memory: those of the file, then zeros.
    pub(super) memory: u64,
    virtual_address: u64,
}

/// An executable for this architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Executable {
    /// Never empty.
    pub(super) segments: Vec<Segment>,
    /// Physical address of the first instruction.
    pub(super) entry: u64,
    /// Linked to run anywhere.
    pub(super) relocatable: bool,
}

/// Whether the file says that it is ELF.
pub(super) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// Reads the headers of a file of `length` bytes, of which `head` is the beginning.
pub(super) fn parse(head: &[u8], length: u64) -> Result<Executable, FormatError> {
    let (ident, tail) = head.split_at_checked(IDENT).ok_or(FormatError::Truncated)?;
    let ident = parse_ident::<AnyEndian>(ident).map_err(|_| FormatError::Header)?;
    if ident.1 != Class::ELF64 || ident.0 != AnyEndian::Little {
        return Err(FormatError::NotAarch64);
    }
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| FormatError::Truncated)?;
    if header.e_machine != EM_AARCH64 {
        return Err(FormatError::NotAarch64);
    }
    if !matches!(header.e_type, ET_EXEC | ET_DYN) {
        return Err(FormatError::NotExecutable);
    }
    let segments = segments(head, length, &header)?;
    let entry = physical(&segments, header.e_entry).ok_or(FormatError::Entry)?;
    Ok(Executable { segments, entry, relocatable: header.e_type == ET_DYN })
}

fn segments(head: &[u8], length: u64, header: &FileHeader<AnyEndian>) -> Result<Vec<Segment>, FormatError> {
    if header.e_phentsize != PROGRAM_HEADER {
        return Err(FormatError::Header);
    }
    let start = usize::try_from(header.e_phoff).map_err(|_| FormatError::Header)?;
    let size = usize::from(header.e_phnum).saturating_mul(usize::from(PROGRAM_HEADER));
    let end = start.checked_add(size).ok_or(FormatError::Header)?;
    let table = head.get(start..end).ok_or(FormatError::Truncated)?;
    let mut segments = Vec::new();
    for entry in SegmentTable::new(AnyEndian::Little, Class::ELF64, table).iter() {
        match entry.p_type {
            PT_INTERP => return Err(FormatError::NotExecutable),
            PT_LOAD if entry.p_memsz != 0 => segments.push(segment(&entry, length)?),
            _ => {}
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(FormatError::Header);
        }
    }
    if segments.is_empty() { Err(FormatError::NotExecutable) } else { Ok(segments) }
}

fn segment(entry: &ProgramHeader, length: u64) -> Result<Segment, FormatError> {
    let end = entry.p_offset.checked_add(entry.p_filesz).ok_or(FormatError::Header)?;
    if end > length {
        return Err(FormatError::Truncated);
    }
    if entry.p_filesz > entry.p_memsz || entry.p_paddr.checked_add(entry.p_memsz).is_none() {
        return Err(FormatError::Header);
    }
    Ok(Segment {
        offset: entry.p_offset,
        length: entry.p_filesz,
        address: entry.p_paddr,
        memory: entry.p_memsz,
        virtual_address: entry.p_vaddr,
    })
}

/// The entry is a virtual address; some linker scripts make it a physical one.
fn physical(segments: &[Segment], entry: u64) -> Option<u64> {
    let within = |base: u64, segment: &Segment| {
        let into = entry.checked_sub(base).filter(|&into| into < segment.memory)?;
        segment.address.checked_add(into)
    };
    let by_virtual = segments.iter().find_map(|segment| within(segment.virtual_address, segment));
    by_virtual.or_else(|| segments.iter().find_map(|segment| within(segment.address, segment)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing::{Elf, elf};

    fn parsed(file: &[u8]) -> Result<Executable, FormatError> {
        parse(file, u64::try_from(file.len()).unwrap())
    }

    fn two() -> Elf {
        // Physical and virtual addresses differ, as in a kernel linked high.
        Elf::exec(0xffff_0000_0000_1004).segment(0xffff_0000_0000_1000, 0x8000_1000, b"code....", 0x800).segment(
            0xffff_0000_0000_4000,
            0x8000_4000,
            b"data",
            4,
        )
    }

    #[test]
    fn segments_go_to_their_physical_addresses_and_the_entry_is_translated() {
        let executable = parsed(&elf(&two())).unwrap();
        assert_eq!(executable.entry, 0x8000_1004);
        assert!(!executable.relocatable);
        let places: Vec<_> = executable.segments.iter().map(|s| (s.address, s.length, s.memory)).collect();
        assert_eq!(places, [(0x8000_1000, 8, 0x800), (0x8000_4000, 4, 4)]);
    }

    #[test]
    fn an_entry_that_is_physical_already_is_taken_as_it_is() {
        let mut file = two();
        file.entry = 0x8000_1000;
        assert_eq!(parsed(&elf(&file)).unwrap().entry, 0x8000_1000);
        file.entry = 0x1000;
        assert_eq!(parsed(&elf(&file)), Err(FormatError::Entry));
    }

    #[test]
    fn a_file_that_lacks_bytes_of_a_segment_is_truncated() {
        let file = elf(&two());
        for length in [0, 15, 40, 100, file.len() - 1] {
            assert_eq!(parsed(&file[..length]), Err(FormatError::Truncated), "{length} bytes");
        }
    }

    #[test]
    fn other_machines_and_other_kinds_of_file_are_refused() {
        let change = |at: usize, value: u8| {
            let mut file = elf(&two());
            file[at] = value;
            parsed(&file)
        };
        assert_eq!(change(4, 1), Err(FormatError::NotAarch64), "32 bits");
        assert_eq!(change(5, 2), Err(FormatError::NotAarch64), "big endian");
        assert_eq!(change(18, 62), Err(FormatError::NotAarch64), "x86-64");
        assert_eq!(change(16, 1), Err(FormatError::NotExecutable), "an object file");
        assert_eq!(change(64, 3), Err(FormatError::NotExecutable), "wants an interpreter");
        assert_eq!(change(6, 9), Err(FormatError::Header), "a version that there is not");
    }

    #[test]
    fn nothing_to_load_is_nothing_to_run() {
        assert_eq!(parsed(&elf(&Elf::exec(0))), Err(FormatError::NotExecutable));
        let empty = Elf::exec(0x1000).segment(0x1000, 0x1000, b"", 0);
        assert_eq!(parsed(&elf(&empty)), Err(FormatError::NotExecutable));
    }

    #[test]
    fn a_segment_with_more_in_the_file_than_in_memory_or_over_the_end_is_refused() {
        let larger = Elf::exec(0x1000).segment(0x1000, 0x1000, b"abcdefgh", 4);
        assert_eq!(parsed(&elf(&larger)), Err(FormatError::Header));
        let over = Elf::exec(0x1000).segment(0x1000, u64::MAX - 2, b"abcdefgh", 8);
        assert_eq!(parsed(&elf(&over)), Err(FormatError::Header));
    }
}
