//! Dumps of guests on the PC, and `cargo xtask core`.
//!
//! Answers for: what a dump says (vCPUs, status, backtraces), giving it program headers for the guest's virtual addresses,
//! so that debuggers find what the guest's pointers point to, and an ELF file with the symbols of a Linux kernel. Does not
//! answer for: how a dump comes here (`receive`), what is in it (`vm::dump`, whose documentation is the format's).
//!
//! The physical addresses stay: their headers come last. The new headers are at the end of the file; the memory of the dump
//! is not copied. Nothing in a dump is to be trusted: a guest decides what is in its registers and its tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use vm::dump::{NT_PRSTATUS, NT_STATUS, NT_VCPU, OWNER, SystemRegisters};

use crate::workspace::shown;

mod kallsyms;
mod symbols;
mod walk;

use kallsyms::Symbols;
use walk::Run;

const EHDR: u64 = 64;
const PHDR: u64 = 56;
/// Most program headers: `e_phnum` has 16 bits, and the last value means something else (`PN_XNUM`).
const HEADERS: usize = 0xfffe;
/// Most bytes of notes: 64 vCPUs and a long status.
const NOTES: u64 = 16 << 20;
/// Frames of a backtrace.
const FRAMES: usize = 32;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Whatever the guest may do there: a debugger may look.
const FLAGS: u32 = 7;

/// Options of `cargo xtask core`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A dump
    #[arg(value_name = "CORE")]
    core: PathBuf,
    /// Take symbols from this copy of a guest's /proc/kallsyms, not from the dumped memory
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let path = &arguments.core;
    add_virtual_addresses(path)?;
    let core = Core::open(path)?;
    let symbols = match &arguments.symbols {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Some(Symbols::from_text(&text)?)
        }
        None => kallsyms::find(&core),
    };
    print!("{}", core.describe(symbols.as_ref()));
    let mut debugger = String::from("gdb-multiarch");
    match symbols {
        Some(symbols) => {
            let elf = path.with_extension("symbols.elf");
            std::fs::write(&elf, symbols.to_elf()?).with_context(|| format!("cannot write {}", elf.display()))?;
            println!("symbols: {}, from the guest's kernel: {}", symbols.len(), shown(&elf));
            let _infallible = write!(debugger, " {}", shown(&elf));
        }
        None => println!("symbols: none found; give the debugger an ELF file of the guest's"),
    }
    println!("{debugger} {} -- or any other gdb that knows AArch64", shown(path));
    Ok(0)
}

/// A piece of the guest's physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) size: u64,
    /// Where in the file.
    offset: u64,
}

/// A vCPU as it was dumped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vcpu {
    pub(crate) number: u32,
    /// 0 on, 1 off, 2 on and not to be stopped.
    presence: u32,
    /// X0 to X30, SP, PC, PSTATE.
    general: Vec<u64>,
    /// By encoding.
    system: BTreeMap<u64, u64>,
}

impl Vcpu {
    /// A system register by its name.
    pub(crate) fn system(&self, name: &str) -> u64 {
        let place = SystemRegisters::NAMES.iter().position(|known| *known == name);
        let encoding = place.and_then(|place| SystemRegisters::ENCODINGS.get(place));
        encoding.and_then(|encoding| self.system.get(&u64::from(*encoding))).copied().unwrap_or(0)
    }

    /// A general register: 31 is SP, 32 PC, 33 PSTATE.
    fn general(&self, number: usize) -> u64 {
        self.general.get(number).copied().unwrap_or(0)
    }

    /// Whether it was in EL0.
    pub(crate) fn in_user_space(&self) -> bool {
        self.general(33) & 0xf == 0
    }
}

/// A dump.
pub(crate) struct Core {
    file: File,
    /// How many program headers it came with, behind the file header.
    headers: u64,
    notes: Segment,
    pub(crate) segments: Vec<Segment>,
    pub(crate) vcpus: Vec<Vcpu>,
    status: String,
    /// Virtual memory, if it has been found.
    runs: Vec<Run>,
}

/// Adds program headers for what the guest's tables map, unless they are there.
pub(crate) fn add_virtual_addresses(path: &Path) -> Result<()> {
    let core = Core::open(path)?;
    let room = HEADERS.saturating_sub(core.segments.len() + 1);
    let (runs, complete) = walk::walk(&core, room);
    if !complete {
        eprintln!("warning: {}: the guest maps more than a core file can say", path.display());
    }
    let mut headers = header(PT_NOTE, 0, core.notes.offset, 0, 0, core.notes.size);
    for run in &runs {
        headers.extend(header(PT_LOAD, FLAGS, run.offset, run.address, run.physical, run.size));
    }
    for segment in &core.segments {
        headers.extend(header(PT_LOAD, FLAGS, segment.offset, segment.address, segment.address, segment.size));
    }
    let count = u16::try_from(headers.len() as u64 / PHDR)?;
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    // Behind everything else; what was added before makes way.
    let end = core.segments.iter().map(|segment| segment.offset + segment.size).max().unwrap_or(0);
    let end = end.max(core.notes.offset + core.notes.size).next_multiple_of(8);
    file.set_len(end)?;
    file.write_all_at(&headers, end)?;
    file.write_all_at(&count.to_le_bytes(), 0x38)?;
    file.write_all_at(&end.to_le_bytes(), 0x20)?;
    Ok(())
}

fn header(kind: u32, flags: u32, offset: u64, virtual_address: u64, physical: u64, size: u64) -> Vec<u8> {
    let in_memory = if kind == PT_LOAD { size } else { 0 };
    let words = [offset, virtual_address, physical, size, in_memory, 1];
    let front = [kind, flags].into_iter().flat_map(u32::to_le_bytes);
    front.chain(words.into_iter().flat_map(u64::to_le_bytes)).collect()
}

impl Core {
    /// Opens a dump of ours.
    pub(crate) fn open(path: &Path) -> Result<Core> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Core::read(file).with_context(|| format!("{} is no dump of a guest", path.display()))
    }

    pub(crate) fn read(file: File) -> Result<Core> {
        let length = file.metadata()?.len();
        let mut ehdr = [0; EHDR as usize];
        file.read_exact_at(&mut ehdr, 0)?;
        ensure!(ehdr.starts_with(b"\x7fELF\x02\x01\x01") && ehdr[16..20] == [4, 0, 183, 0], "no ELF core for AArch64");
        // The headers that it came with stay where they were; the notes begin right behind them.
        let notes = read_header(&file, EHDR)?;
        ensure!(notes.0 == PT_NOTE && notes.2.offset >= EHDR + PHDR && notes.2.size <= NOTES, "no notes");
        let mut core = Core {
            headers: (notes.2.offset - EHDR) / PHDR,
            file,
            notes: notes.2,
            segments: Vec::new(),
            vcpus: Vec::new(),
            status: String::new(),
            runs: Vec::new(),
        };
        ensure!(core.headers <= HEADERS as u64, "too many program headers");
        for number in 1..core.headers {
            let (kind, _, segment) = read_header(&core.file, EHDR + number * PHDR)?;
            let ends = [segment.offset.checked_add(segment.size), segment.address.checked_add(segment.size)];
            let [Some(end), Some(_)] = ends else { bail!("a segment without end") };
            ensure!(kind == PT_LOAD && end <= length, "a segment is not in the file");
            core.segments.push(segment);
        }
        let mut notes = vec![0; usize::try_from(core.notes.size)?];
        core.file.read_exact_at(&mut notes, core.notes.offset)?;
        core.read_notes(&notes);
        (core.runs, _) = walk::walk(&core, HEADERS);
        Ok(core)
    }

    fn read_notes(&mut self, mut notes: &[u8]) {
        let mut general = Vec::new();
        while let Some((name, kind, content, rest)) = note(notes) {
            notes = rest;
            match (name, kind) {
                // Registers begin at 112, and are of the vCPU that comes next.
                (b"CORE", NT_PRSTATUS) => general = longs(content.get(112..384).unwrap_or_default()).collect(),
                (name, NT_VCPU) if name == OWNER.as_bytes() => {
                    let mut words = longs(content);
                    let first = words.next().unwrap_or(0);
                    let values: Vec<u64> = words.collect();
                    let system = values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                    let [number, presence] = [first as u32, (first >> 32) as u32];
                    self.vcpus.push(Vcpu { number, presence, general: std::mem::take(&mut general), system });
                }
                (name, NT_STATUS) if name == OWNER.as_bytes() => {
                    self.status = String::from_utf8_lossy(content).into_owned();
                }
                _ => {}
            }
        }
    }

    /// Reads physical memory; all of it or nothing.
    pub(crate) fn physical(&self, address: u64, into: &mut [u8]) -> Option<()> {
        let offset = self.offset(address, into.len() as u64)?;
        self.file.read_exact_at(into, offset).ok()
    }

    /// Where in the file `size` bytes at a physical address are, if all of them are there.
    pub(crate) fn offset(&self, address: u64, size: u64) -> Option<u64> {
        let holds = |segment: &&Segment| {
            address >= segment.address
                && address.checked_add(size).is_some_and(|end| end <= segment.address + segment.size)
        };
        self.segments.iter().find(holds).map(|segment| segment.offset + (address - segment.address))
    }

    /// Reads a word of 64 bits at a virtual address.
    fn long(&self, address: u64) -> Option<u64> {
        let place = self.runs.partition_point(|run| run.address <= address).checked_sub(1)?;
        let run = self.runs.get(place)?;
        let at = address - run.address;
        if at.checked_add(8)? > run.size {
            return None;
        }
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, run.offset + at).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// What there is to say of it, in lines.
    fn describe(&self, symbols: Option<&Symbols>) -> String {
        let mut out = String::new();
        for segment in &self.segments {
            let end = segment.address + segment.size;
            let _infallible = writeln!(out, "memory: {:#x}..{end:#x} ({} KiB)", segment.address, segment.size >> 10);
        }
        let mapped = self.runs.iter().map(|run| run.size).sum::<u64>();
        let _infallible = writeln!(out, "mapped: {} KiB in {} pieces", mapped >> 10, self.runs.len());
        for line in self.status.lines() {
            let _infallible = writeln!(out, "status: {}", line.escape_default());
        }
        for vcpu in &self.vcpus {
            let state = ["on", "off", "running: no registers"].get(vcpu.presence as usize).unwrap_or(&"?");
            let _infallible = writeln!(out, "vcpu{}: {state}", vcpu.number);
            if vcpu.presence == 0 {
                for (number, pc) in self.backtrace(vcpu).into_iter().enumerate() {
                    let name = symbols.and_then(|symbols| symbols.name(pc)).unwrap_or_default();
                    let _infallible = writeln!(out, "  #{number:<2} {pc:#018x} {name}");
                }
            }
        }
        out
    }

    /// The PC and what the chain of frame records says (AAPCS64, "The Frame Pointer"). A chain goes up the stack.
    fn backtrace(&self, vcpu: &Vcpu) -> Vec<u64> {
        let mut frames = vec![vcpu.general(32)];
        let mut pointer = vcpu.general(29);
        while frames.len() < FRAMES
            && let (Some(next), Some(address)) = (self.long(pointer), self.long(pointer.wrapping_add(8)))
            && address != 0
        {
            // A return address may be signed (FEAT_PAuth): bit 55 says which half it is in.
            let bits = 64 - (vcpu.system("tcr_el1") >> 16 & 0x3f).clamp(12, 48);
            frames.push(if address >> 55 & 1 == 1 { address | u64::MAX << bits } else { address & !(u64::MAX << 48) });
            if next <= pointer {
                break;
            }
            pointer = next;
        }
        frames
    }
}

/// Type, flags, and what it covers, of the program header at `offset`.
fn read_header(file: &File, offset: u64) -> Result<(u32, u32, Segment)> {
    let mut bytes = [0; PHDR as usize];
    file.read_exact_at(&mut bytes, offset)?;
    let words: Vec<u64> = longs(&bytes).collect();
    let [kind, offset, address, _, size, ..] = words[..] else { bail!("no program header") };
    Ok((kind as u32, (kind >> 32) as u32, Segment { address, size, offset }))
}

/// Little-endian words.
fn longs(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|chunk| chunk.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Owner, type, content, and what is behind it.
type Note<'a> = (&'a [u8], u32, &'a [u8], &'a [u8]);

/// The first note: its owner without the zero, type, content, and what is behind it.
fn note(bytes: &[u8]) -> Option<Note<'_>> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (name, content) = (word(0)? as usize, word(4)? as usize);
    let content_at = 12 + name.next_multiple_of(4);
    let owner = bytes.get(12..12 + name)?;
    let next = (content_at + content).next_multiple_of(4).min(bytes.len());
    let owner = owner.strip_suffix(b"\0").unwrap_or(owner);
    Some((owner, word(8)?, bytes.get(content_at..content_at + content)?, bytes.get(next..)?))
}

#[cfg(test)]
mod tests;
