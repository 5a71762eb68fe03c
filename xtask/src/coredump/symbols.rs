//! Symbols as an ELF file that a debugger reads.
//!
//! Answers for: a file with two sections that say where code and data are, without their contents (those are in the dump),
//! a symbol table, and frame information that is the same everywhere: Linux keeps frame records (AAPCS64, "The Frame
//! Pointer"), and a debugger without it has to guess from the code. ELF-64 as in the System V ABI; DWARF 5, section 6.4.

use std::ops::Range;

use anyhow::{Context, Result};

use super::kallsyms::Symbols;

const SECTIONS: u64 = 7;
const SHDR: u64 = 64;
const SYMBOL: u64 = 24;

const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_NOBITS: u32 = 8;
const WRITE_ALLOCATE: u64 = 3;
const ALLOCATE_EXECUTE: u64 = 6;

const NAMES: &[u8] = b"\0.text\0.data\0.symtab\0.strtab\0.shstrtab\0.debug_frame\0";

/// A common information entry: version 1, data in units of -8 bytes, X30 is the return address; the frame begins 16 bytes
/// above X29, where the caller's X29 and X30 are. Padded to 8 bytes.
const COMMON: &[u8] = b"\x14\0\0\0\xff\xff\xff\xff\x01\0\x01\x78\x1e\x0c\x1d\x10\x9d\x02\x9e\x01\0\0\0\0";

impl Symbols {
    /// The file.
    pub(super) fn to_elf(&self) -> Result<Vec<u8>> {
        let first = self.address("_text").or_else(|| self.address("_stext")).context("no symbol `_text`")?;
        // A kernel without KALLSYMS_ALL knows functions only, and not where they end.
        let behind = self.0.last().map_or(first, |symbol| symbol.address | 0xfff) + 1;
        let code_end = self.address("_etext").unwrap_or(behind);
        let last = self.address("_end").unwrap_or(behind);
        let Table { names, table, local } = self.table(first..code_end, last)?;
        let mut out = vec![0; 64];
        let table_at = out.len() as u64;
        out.extend(&table);
        let names_at = out.len() as u64;
        out.extend(&names);
        out.resize(out.len().next_multiple_of(8), 0);
        let frames_at = out.len() as u64;
        let mut frames = COMMON.to_vec();
        // All of the code, with what is behind the data and runs only once: length, where the common entry is, start, size.
        frames.extend([20_u32, 0].into_iter().flat_map(u32::to_le_bytes));
        frames.extend([first, last.saturating_sub(first)].into_iter().flat_map(u64::to_le_bytes));
        out.extend(&frames);
        let section_names_at = out.len() as u64;
        out.extend(NAMES);
        out.resize(out.len().next_multiple_of(8), 0);
        let sections_at = out.len() as u64;
        out.extend([0; SHDR as usize]);
        let (code, data) = (code_end.saturating_sub(first), last.saturating_sub(code_end));
        section(&mut out, ".text", SHT_NOBITS, ALLOCATE_EXECUTE, first, 64, code, [0, 0, 4096, 0]);
        section(&mut out, ".data", SHT_NOBITS, WRITE_ALLOCATE, code_end, 64, data, [0, 0, 1, 0]);
        section(&mut out, ".symtab", SHT_SYMTAB, 0, 0, table_at, table.len() as u64, [4, local, 8, SYMBOL]);
        section(&mut out, ".strtab", SHT_STRTAB, 0, 0, names_at, names.len() as u64, [0, 0, 1, 0]);
        section(&mut out, ".shstrtab", SHT_STRTAB, 0, 0, section_names_at, NAMES.len() as u64, [0, 0, 1, 0]);
        section(&mut out, ".debug_frame", SHT_PROGBITS, 0, 0, frames_at, frames.len() as u64, [0, 0, 8, 0]);
        // ET_EXEC, EM_AARCH64, version 1; entry; no program headers.
        let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0\x01\0\0\0".to_vec();
        header.extend([first, 0, sections_at].into_iter().flat_map(u64::to_le_bytes));
        header.extend(0_u32.to_le_bytes());
        header.extend([64, 56, 0, SHDR as u16, SECTIONS as u16, 5].into_iter().flat_map(u16::to_le_bytes));
        out.splice(..64, header);
        Ok(out)
    }

    /// Those in the code, and those behind it up to `last`.
    fn table(&self, code: Range<u64>, last: u64) -> Result<Table> {
        let (mut names, mut table) = (vec![0], vec![0; SYMBOL as usize]);
        let mut globals = Vec::new();
        let mut local = 1;
        for (place, symbol) in self.0.iter().enumerate() {
            let size = self.0.get(place + 1).map_or(0, |next| next.address - symbol.address);
            let section: u16 = match symbol.address {
                address if code.contains(&address) => 1,
                address if (code.end..=last).contains(&address) => 2,
                _ => continue,
            };
            let global = symbol.kind.is_uppercase();
            let kind = if matches!(symbol.kind, 'T' | 't' | 'W' | 'w') { 2 } else { 1 };
            let mut entry = u32::try_from(names.len())?.to_le_bytes().to_vec();
            entry.extend([u8::from(global) << 4 | kind, 0]);
            entry.extend(section.to_le_bytes());
            entry.extend(symbol.address.to_le_bytes());
            entry.extend(size.to_le_bytes());
            names.extend(symbol.name.bytes().chain([0]));
            // Local ones come first.
            if global {
                globals.extend(entry);
            } else {
                table.extend(entry);
                local += 1;
            }
        }
        table.extend(globals);
        Ok(Table { names, table, local })
    }
}

/// A symbol table.
struct Table {
    /// The string table.
    names: Vec<u8>,
    table: Vec<u8>,
    /// How many of them are local; those come first.
    local: u64,
}

/// A section header; `last` are link, info, alignment and size of an entry.
#[expect(clippy::too_many_arguments, reason = "the fields of a section header")]
fn section(out: &mut Vec<u8>, name: &str, kind: u32, flags: u64, address: u64, at: u64, size: u64, last: [u64; 4]) {
    let [link, info, alignment, entry] = last;
    let name = NAMES.windows(name.len() + 1).position(|window| window == [name.as_bytes(), b"\0"].concat());
    out.extend((name.unwrap_or(0) as u32).to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend([flags, address, at, size].into_iter().flat_map(u64::to_le_bytes));
    out.extend([link as u32, info as u32].into_iter().flat_map(u32::to_le_bytes));
    out.extend([alignment, entry].into_iter().flat_map(u64::to_le_bytes));
}
