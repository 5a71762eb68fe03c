//! The file as another party's reader finds it.

use super::*;
use elf::ElfBytes;
use elf::abi::{ET_CORE, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::note::Note;
use vdev::testkit::Ram;

const START: Ipa = Ipa(0x8000_0000);

/// A file in memory, which remembers how much of it came as zeroes.
#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    zeroes: u64,
    limit: Option<usize>,
}

impl Sink for File {
    type Error = ();
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes.extend_from_slice(bytes);
        if self.limit.is_some_and(|limit| self.bytes.len() > limit) { Err(()) } else { Ok(()) }
    }
    fn zeroes(&mut self, count: u64) -> Result<(), ()> {
        self.bytes.resize(self.bytes.len() + count as usize, 0);
        self.zeroes += count;
        Ok(())
    }
}

fn registers() -> Registers {
    let mut general = VcpuContext { pc: 0xffff_8000_0812_3456, pstate: 0x6000_0005, ..VcpuContext::default() };
    (0..31).for_each(|n| general.x[n] = 0x1000 + n as u64);
    let mut vectors = [0; 32];
    vectors[31] = 7 << 100;
    let system = SystemRegisters { sp_el0: 0xe10, sp_el1: 0xe11, ttbr1_el1: 0x4012_3000, ..SystemRegisters::default() };
    Registers { general, system, vectors, fpsr: 0x1234, fpcr: 0x5678 }
}

fn memory() -> Ram {
    let ram = Ram::new(START, 8 * 4096);
    ram.write(Ipa(START.0 + 2 * 4096 + 5), b"here").unwrap();
    ram.write(Ipa(START.0 + 7 * 4096 + 4095), b"x").unwrap();
    ram
}

fn file(vcpus: &[(VcpuId, Presence)], regions: &[(Range<Ipa>, bool)]) -> File {
    let memory = memory();
    let mut file = File::default();
    Dump { regions, memory: &memory, vcpus, status: "all is well\n" }.write(&mut file).unwrap();
    file
}

fn regions() -> [(Range<Ipa>, bool); 2] {
    let region = |page: u64, pages: u64| Range::new(Ipa(START.0 + page * 4096), pages * 4096).unwrap();
    [(region(0, 4), true), (region(6, 2), false)]
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn memory_is_where_the_program_headers_say_and_nothing_else_is_in_the_file() {
    let file = file(&[], &regions());
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&file.bytes).unwrap();
    assert_eq!((elf.ehdr.e_type, elf.ehdr.e_machine), (ET_CORE, 183));
    let segments: Vec<_> = elf.segments().unwrap().iter().collect();
    assert_eq!(segments.iter().map(|segment| segment.p_type).collect::<Vec<_>>(), [PT_NOTE, PT_LOAD, PT_LOAD]);
    let memory = memory();
    for (segment, (range, writable)) in segments[1..].iter().zip(regions()) {
        assert_eq!((segment.p_vaddr, segment.p_paddr), (range.start().0, range.start().0));
        assert_eq!((segment.p_filesz, segment.p_memsz), (range.length(), range.length()));
        assert_eq!(segment.p_flags & 2 != 0, writable);
        assert_eq!(segment.p_offset % 4096, 0);
        let mut expected = vec![0; range.length() as usize];
        memory.read(range.start(), &mut expected).unwrap();
        assert_eq!(elf.segment_data(segment).unwrap(), expected);
    }
    let last = &segments[2];
    assert_eq!(last.p_offset + last.p_filesz, file.bytes.len() as u64);
    assert!(file.zeroes >= 4 * 4096, "four of six pages are empty");
}

#[test]
fn a_debugger_finds_each_vcpu_that_is_on() {
    let vcpus = [
        (VcpuId(0), Presence::On(Box::new(registers()))),
        (VcpuId(1), Presence::Off),
        (VcpuId(2), Presence::Running),
        (VcpuId(3), Presence::On(Box::new(registers()))),
    ];
    let file = file(&vcpus, &regions());
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&file.bytes).unwrap();
    let segment = elf.segments().unwrap().iter().next().unwrap();
    let notes: Vec<_> = elf.segment_data_as_notes(&segment).unwrap().collect();
    let mut found = Vec::new();
    for note in notes {
        let Note::Unknown(note) = note else { panic!("a note of GNU's") };
        found.push((note.name, note.n_type, note.desc));
    }
    let order: Vec<_> = found.iter().map(|(name, kind, _)| (name.strip_suffix(b"\0").unwrap_or(name), *kind)).collect();
    let on = [
        (b"CORE".as_slice(), u64::from(NT_PRSTATUS)),
        (b"CORE".as_slice(), u64::from(NT_FPREGSET)),
        (OWNER.as_bytes(), u64::from(NT_VCPU)),
    ];
    let alone = [(OWNER.as_bytes(), u64::from(NT_VCPU))];
    assert_eq!(order, [&on[..], &alone, &alone, &on, &[(OWNER.as_bytes(), u64::from(NT_STATUS))]].concat());

    let prstatus = found[5].2;
    assert_eq!(prstatus.len(), 392);
    assert_eq!(long(prstatus, 32) & 0xffff_ffff, 4, "the thread's number");
    assert_eq!((long(prstatus, 112), long(prstatus, 112 + 30 * 8)), (0x1000, 0x101e));
    assert_eq!(long(prstatus, 112 + 31 * 8), 0xe11, "SP_EL1 in EL1h");
    assert_eq!(long(prstatus, 112 + 32 * 8), 0xffff_8000_0812_3456);
    assert_eq!(long(prstatus, 112 + 33 * 8), 0x6000_0005);
    let vectors = found[6].2;
    assert_eq!((vectors.len(), long(vectors, 31 * 16 + 8)), (528, 7 << 36));
    assert_eq!(long(vectors, 512), 0x5678_0000_1234);

    let own = found[7].2;
    assert_eq!(long(own, 0), 3, "number 3, presence 0");
    let pairs: Vec<(u64, u64)> = own[8..].chunks(16).map(|pair| (long(pair, 0), long(pair, 8))).collect();
    assert_eq!(pairs.len(), SystemRegisters::ENCODINGS.len());
    // TTBR1_EL1 is op0 3, op1 0, CRn 2, CRm 0, op2 1 (DDI 0487, D24).
    assert!(pairs.contains(&(0xc101, 0x4012_3000)));
    assert_eq!((long(found[3].2, 0), long(found[4].2, 0)), (1 | 1 << 32, 2 | 2 << 32));
    assert_eq!(found[8].2, b"all is well\n");
}

#[test]
fn a_vcpu_in_el0_shows_the_stack_of_el0() {
    let mut registers = registers();
    assert_eq!(registers.stack_pointer(), 0xe11);
    registers.general.pstate = Pstate::EL0T;
    assert_eq!(registers.stack_pointer(), 0xe10);
    registers.general.pstate = Pstate::EL1T;
    assert_eq!(registers.stack_pointer(), 0xe10);
}

#[test]
fn who_wants_no_more_gets_no_more() {
    let memory = memory();
    let mut file = File { limit: Some(4096), ..File::default() };
    let dump = Dump { regions: &regions(), memory: &memory, vcpus: &[], status: "" };
    assert_eq!(dump.write(&mut file), Err(()));
    assert_eq!(&file.bytes[file.bytes.len() - 4096 + 5..][..4], b"here");
}

#[test]
fn what_is_not_there_is_zero() {
    let beyond = [(Range::new(Ipa(0x4000_0000), 4096).unwrap(), true)];
    let file = file(&[], &beyond);
    assert!(file.bytes[file.bytes.len() - 4096..].iter().all(|byte| *byte == 0));
}
