//! Dumps made here, with tables made here.

use std::io::Read;

use proptest::prelude::*;
use types::{Ipa, Range, VcpuContext, VcpuId};
use vdev::GuestMemory;
use vdev::testkit::Ram;
use vm::dump::{Dump, Presence, Registers, Sink};

use super::kallsyms::Symbol;
use super::*;

const RAM: u64 = 0x8000_0000;

struct Writer(File, u64);

impl Sink for Writer {
    type Error = std::io::Error;
    fn bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all_at(bytes, self.1)?;
        self.1 += bytes.len() as u64;
        Ok(())
    }
    fn zeroes(&mut self, count: u64) -> std::io::Result<()> {
        self.1 += count;
        self.0.set_len(self.1)
    }
}

/// A guest's memory in the making.
struct Guest {
    ram: Ram,
    size: u64,
    registers: Registers,
}

impl Guest {
    fn new(size: u64) -> Guest {
        let registers = Registers {
            general: VcpuContext { pstate: 5, ..VcpuContext::default() },
            system: SystemRegisters { sctlr_el1: 1, ..SystemRegisters::default() },
            vectors: [0; 32],
            fpsr: 0,
            fpcr: 0,
        };
        Guest { ram: Ram::new(Ipa(RAM), size as usize), size, registers }
    }

    fn put(&self, offset: u64, value: u64) {
        self.ram.write(Ipa(RAM + offset), &value.to_le_bytes()).unwrap();
    }

    /// Writes the dump, with virtual addresses.
    fn dump(&self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gcore");
        let file = File::create_new(&path).unwrap();
        let regions = [(Range::new(Ipa(RAM), self.size).unwrap(), true)];
        let vcpus = [(VcpuId(0), Presence::On(Box::new(self.registers.clone()))), (VcpuId(1), Presence::Off)];
        let dump = Dump { regions: &regions, memory: &self.ram, vcpus: &vcpus, status: "well\n" };
        dump.write(&mut Writer(file, 0)).unwrap();
        add_virtual_addresses(&path).unwrap();
        (folder, path)
    }

    fn runs(&self) -> Vec<(u64, u64, u64)> {
        let (_folder, path) = self.dump();
        let core = Core::open(&path).unwrap();
        core.runs.iter().map(|run| (run.address, run.physical, run.size)).collect()
    }
}

/// Tables of 4 KiB, 48 bits, for the upper half: 4 pages at the bottom, 2 MiB behind 1 GiB.
fn kernel() -> Guest {
    let mut guest = Guest::new(4 << 20);
    guest.registers.system.tcr_el1 = 16 << 16 | 0b10 << 30 | 1 << 7;
    guest.registers.system.ttbr1_el1 = (RAM + 0x1000) | 0x7 << 48 | 1;
    guest.put(0x1000, (RAM + 0x2000) | 3);
    guest.put(0x2000, (RAM + 0x3000) | 3);
    guest.put(0x2008, (RAM + 0x4000) | 3);
    guest.put(0x3000, (RAM + 0x5000) | 3);
    // Two pages in a row, one elsewhere, one that is no memory of the guest's.
    for (page, to) in [(0, 0x10_0000), (1, 0x10_1000), (2, 0x20_0000), (3, 0x4000_0000)] {
        guest.put(0x5000 + 8 * page, (RAM + to) | 0x703);
    }
    guest.put(0x4000, (RAM + 0x20_0000) | 0x701);
    guest
}

const KERNEL: u64 = 0xffff_0000_0000_0000;

#[test]
fn pages_and_blocks_are_found_and_what_follows_one_another_is_one_piece() {
    assert_eq!(
        kernel().runs(),
        [
            (KERNEL, RAM + 0x10_0000, 0x2000),
            (KERNEL + 0x2000, RAM + 0x20_0000, 0x1000),
            (KERNEL + 0x4000_0000, RAM + 0x20_0000, 0x20_0000),
        ]
    );
}

#[test]
fn every_granule_has_its_own_form() {
    // Bits of address, TG0, page; the descriptor of a table, and of a page behind as many tables as it takes.
    for (bits, granule, page) in
        [(48, 0, 12), (39, 0, 12), (47, 2, 14), (36, 2, 14), (48, 1, 16), (42, 1, 16), (52, 1, 16)]
    {
        let mut guest = Guest::new(1 << 20);
        guest.registers.system.tcr_el1 = (64 - bits) | granule << 14 | 1 << 23;
        let stride = page - 3;
        let levels = (bits - page).div_ceil(stride);
        guest.registers.system.ttbr0_el1 = RAM + 0x10000;
        // Each table in 64 KiB of its own; of each, entry 1, so that the address says something.
        let mut address = 0;
        for level in 0..levels {
            let next = if level + 1 == levels { RAM + 0xf0000 } else { RAM + 0x10000 * (level + 2) };
            guest.put(0x10000 * (level + 1) + 8, next | 3);
            address |= 1 << (page + stride * (levels - 1 - level));
        }
        assert_eq!(guest.runs(), [(address, RAM + 0xf0000, 1 << page)], "{bits} {page}");
    }
}

#[test]
fn addresses_of_52_bits_in_small_pages_are_understood() {
    let mut guest = Guest::new(1 << 20);
    guest.registers.system.tcr_el1 = 12 | 1 << 23 | 1 << 59;
    guest.registers.system.ttbr0_el1 = RAM + 0x1000;
    // Level -1 has 16 entries.
    for level in 1..=4 {
        guest.put(0x1000 * level + 8 * (level - 1), (RAM + 0x1000 * (level + 1)) | 3);
    }
    guest.put(0x5000 + 8 * 4, (RAM + 0x8_0000) | 3);
    assert_eq!(guest.runs(), [(1 << 39 | 2 << 30 | 3 << 21 | 4 << 12, RAM + 0x8_0000, 0x1000)]);
}

#[test]
fn without_a_table_there_are_physical_addresses_only() {
    let mut guest = kernel();
    guest.registers.system.sctlr_el1 = 0;
    assert_eq!(guest.runs(), []);
}

#[test]
fn physical_addresses_stay_and_doing_it_again_changes_nothing() {
    let guest = kernel();
    guest.put(0x10_0100, 0x1122_3344_5566_7788);
    let (_folder, path) = guest.dump();
    let mut first = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut first).unwrap();
    add_virtual_addresses(&path).unwrap();
    let mut second = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut second).unwrap();
    assert!(first == second);
    let elf = object::read::elf::ElfFile64::<object::LittleEndian>::parse(first.as_slice()).unwrap();
    let at = |address: u64| {
        use object::{Object, ObjectSegment};
        elf.segments().find_map(|segment| segment.data_range(address, 8).unwrap().map(<[u8]>::to_vec))
    };
    let expected = Some(0x1122_3344_5566_7788_u64.to_le_bytes().to_vec());
    assert_eq!((at(KERNEL + 0x100), at(RAM + 0x10_0100)), (expected.clone(), expected));
    assert_eq!(at(KERNEL + 0x3000), None);
}

#[test]
fn a_backtrace_follows_the_frame_records_and_ends() {
    let mut guest = kernel();
    guest.registers.general.pc = KERNEL + 0x10;
    guest.registers.general.x[29] = KERNEL + 0x1000;
    // Two records, then one that points back at itself.
    guest.put(0x10_1000, KERNEL + 0x1020);
    guest.put(0x10_1008, KERNEL + 0x20);
    guest.put(0x10_1020, KERNEL + 0x1040);
    guest.put(0x10_1028, KERNEL + 0x30);
    guest.put(0x10_1040, KERNEL + 0x1040);
    guest.put(0x10_1048, KERNEL + 0x40);
    let (_folder, path) = guest.dump();
    let core = Core::open(&path).unwrap();
    assert_eq!(core.backtrace(&core.vcpus[0]), [0x10, 0x20, 0x30, 0x40].map(|offset| KERNEL + offset));
    let symbols = Symbols(
        [("_text", 0), ("idle", 0x18), ("_end", 0x38)]
            .map(|(name, offset)| Symbol { address: KERNEL + offset, kind: 'T', name: name.into() })
            .to_vec(),
    );
    let text = core.describe(Some(&symbols));
    for line in ["status: well", "vcpu0: on", "vcpu1: off", "_text+0x10", "idle+0x8", "idle+0x18"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn tables_that_point_at_themselves_end_and_fill_no_more_headers_than_there_are() {
    // 16 KiB: a table has 2048 entries, every one of which leads to the table, and in the end to a page.
    let mut guest = Guest::new(1 << 20);
    guest.registers.system.tcr_el1 = 16 | 2 << 14 | 1 << 23;
    guest.registers.system.ttbr0_el1 = RAM + 0x4000;
    (0..2048).for_each(|entry| guest.put(0x4000 + 8 * entry, (RAM + 0x4000) | 3));
    let (_folder, path) = guest.dump();
    assert_eq!(Core::open(&path).unwrap().runs.len(), HEADERS);
    let content = std::fs::read(&path).unwrap();
    assert_eq!(u16::from_le_bytes([content[0x38], content[0x39]]), HEADERS as u16);
}

#[test]
fn another_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for content in [&b""[..], b"\x7fELF", &[0; 4096], &std::fs::read(std::env::current_exe().unwrap()).unwrap()] {
        let path = folder.path().join("x");
        std::fs::write(&path, content).unwrap();
        assert!(Core::open(&path).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Tables full of valid descriptors that point anywhere, each other included.
    #[test]
    fn rubbish_ends_and_stays_in_the_dump(
        tcr: u64, root: u64, words in proptest::collection::vec((0_u64..0x1_0000, any::<u64>(), 0_u64..4), 1..400)
    ) {
        let mut guest = Guest::new(1 << 16);
        guest.registers.system.tcr_el1 = tcr & !(1 << 7 | 1 << 23);
        guest.registers.system.ttbr0_el1 = RAM | root & 0xf000;
        guest.registers.system.ttbr1_el1 = RAM | root >> 16 & 0xf000;
        for (place, value, kind) in words {
            guest.put(place & 0xfff8, if kind == 0 { value } else { RAM | value & 0xf000 | 3 });
        }
        let runs = guest.runs();
        prop_assert!(runs.len() <= HEADERS);
        for (address, physical, size) in runs {
            prop_assert!(size > 0 && address.checked_add(size - 1).is_some());
            prop_assert!(physical >= RAM && physical + size <= RAM + (1 << 16));
        }
    }

    #[test]
    fn a_dump_that_was_changed_is_read_or_refused(place in 0_usize..2000, value: u8, length in 0_u64..0x2_0000) {
        let guest = Guest::new(1 << 16);
        let (_folder, path) = guest.dump();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[value], place as u64).unwrap();
        file.set_len(length).unwrap();
        if let Ok(core) = Core::open(&path) {
            core.describe(kallsyms::find(&core).as_ref());
        }
    }
}

/// The tables of a kernel with so many symbols, as `scripts/kallsyms.c` writes them: in the old order or the new one.
fn kallsyms(count: usize, base: u64, new: bool) -> Vec<u8> {
    let mut out: Vec<u8> = vec![0xee; 0x1238];
    fn align(out: &mut Vec<u8>) {
        out.resize(out.len().next_multiple_of(8), 0);
    }
    let offsets = |out: &mut Vec<u8>| {
        align(out);
        (0..count as u32).for_each(|number| out.extend((number * 16).to_le_bytes()));
        align(out);
        out.extend(base.to_le_bytes());
    };
    if !new {
        offsets(&mut out);
    }
    align(&mut out);
    out.extend((count as u32).to_le_bytes());
    align(&mut out);
    let (names, mut markers) = (out.len(), Vec::new());
    for number in 0..count {
        if number % 256 == 0 {
            markers.push((out.len() - names) as u32);
        }
        // Token 200 is "Tfunction_". One name is long.
        let digits = if number == 300 { "7".repeat(150) } else { number.to_string() };
        let length = digits.len() + 1;
        if length < 128 {
            out.push(length as u8);
        } else {
            out.extend([length as u8 | 0x80, (length >> 7) as u8]);
        }
        out.push(200);
        out.extend(digits.bytes());
    }
    align(&mut out);
    markers.iter().for_each(|marker| out.extend(marker.to_le_bytes()));
    align(&mut out);
    let (table, mut places) = (out.len(), Vec::new());
    for token in 0..256 {
        places.push((out.len() - table) as u16);
        match token {
            200 => out.extend(b"Tfunction_"),
            48..58 => out.push(token as u8),
            _ => out.extend(b"xy"),
        }
        out.push(0);
    }
    align(&mut out);
    places.iter().for_each(|place| out.extend(place.to_le_bytes()));
    if new {
        offsets(&mut out);
    }
    out.extend([0xdd; 100]);
    out
}

#[test]
fn the_symbols_of_a_kernel_are_found_in_its_memory() {
    for new in [false, true] {
        let guest = Guest::new(1 << 20);
        // A text that looks like the digits of the table, before it.
        guest.ram.write(Ipa(RAM + 0x100), b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00").unwrap();
        guest.ram.write(Ipa(RAM + 0x2_0000), &kallsyms(1000, KERNEL, new)).unwrap();
        let (_folder, path) = guest.dump();
        let symbols = kallsyms::find(&Core::open(&path).unwrap()).expect("they are there");
        assert_eq!(symbols.len(), 1000);
        let expected = Symbol { address: KERNEL + 999 * 16, kind: 'T', name: "function_999".into() };
        assert_eq!(symbols.0.last(), Some(&expected));
        assert_eq!(symbols.name(KERNEL + 300 * 16 + 3), Some(format!("function_{}+0x3", "7".repeat(150))));
    }
}

#[test]
fn symbols_come_from_text_as_well_and_are_not_believed_to_be_at_0() {
    let text = "ffff800008000000 T _text\nffff800008000010 t idle\nffff800001000000 t there\t[module]\n";
    let symbols = Symbols::from_text(text).unwrap();
    assert_eq!((symbols.len(), symbols.address("idle")), (2, Some(0xffff_8000_0800_0010)));
    assert!(Symbols::from_text("0000000000000000 T _text\n").is_err());
    assert!(Symbols::from_text("zz T _text\n").is_err());
}

#[test]
fn a_debugger_reads_the_symbols() {
    use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
    let symbols = [
        ("_text", 'T', 0),
        ("idle", 't', 0x10),
        ("_etext", 'T', 0x1000),
        ("banner", 'D', 0x1010),
        ("_end", 'B', 0x2000),
    ];
    let symbols = symbols.map(|(name, kind, offset)| Symbol { address: KERNEL + offset, kind, name: name.into() });
    let elf = Symbols(symbols.to_vec()).to_elf().unwrap();
    let file = object::File::parse(elf.as_slice()).unwrap();
    let text = file.section_by_name(".text").unwrap();
    assert_eq!((text.address(), text.size()), (KERNEL, 0x1000));
    let found = |name: &str| file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
    assert_eq!(
        (found("idle").address(), found("idle").size(), found("idle").kind()),
        (KERNEL + 0x10, 0xff0, SymbolKind::Text)
    );
    assert!(found("_text").is_global() && !found("idle").is_global());
    assert_eq!((found("banner").address(), found("banner").kind()), (KERNEL + 0x1010, SymbolKind::Data));
}
