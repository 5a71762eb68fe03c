//! A guest's memory and registers as an ELF core file.
//!
//! Answers for: what stands in the file and in which order, as a stream of bytes and runs of zeroes. Does not answer for:
//! keeping the vCPUs out of their guests meanwhile, where the file goes, when it is written (the kernel's), how it is packed
//! (`host::file`). What is in registers and memory is copied, never interpreted.
//!
//! ELF-64 as in the System V ABI, "Object Files" and "Core Files"; the notes that debuggers know have the layouts of Linux
//! for AArch64 (`struct elf_prstatus`, `struct user_fpsimd_state`).
//!
//! One `PT_NOTE`, then one `PT_LOAD` for each RAM and ROM with `p_vaddr` and `p_paddr` both the guest-physical address. The
//! notes are, for each vCPU, `CORE`/[`NT_PRSTATUS`] and `CORE`/[`NT_FPREGSET`] if its registers are known, and always
//! [`OWNER`]/[`NT_VCPU`]; at the end [`OWNER`]/[`NT_STATUS`], text.

use alloc::{boxed::Box, vec, vec::Vec};
use types::{Ipa, PAGE_SIZE, Pstate, Range, VcpuContext, VcpuId};
use vdev::GuestMemory;

/// Whose the notes are that only we have.
pub const OWNER: &str = "BULKHEAD";
/// Note of `CORE`: the general registers of a vCPU, its number plus one as the process identifier (`struct elf_prstatus`).
pub const NT_PRSTATUS: u32 = 1;
/// Note of `CORE`: its vector registers (`struct user_fpsimd_state`).
pub const NT_FPREGSET: u32 = 2;
/// Note of [`OWNER`]: a vCPU. Two words of 32 bits, its number and its [`Presence`]; then, if its registers are known, pairs
/// of 64 bits: a system register's encoding (op0, op1, CRn, CRm, op2, in 2, 3, 4, 4 and 3 bits, as in `MRS`), its value.
pub const NT_VCPU: u32 = 1;
/// Note of [`OWNER`]: the status of the VM and its devices, in UTF-8.
pub const NT_STATUS: u32 = 2;

/// Sizes of the file header, a program header, and a note's header.
const EHDR: usize = 64;
const PHDR: usize = 56;
const PRSTATUS: usize = 392;
/// Where the registers are in `struct elf_prstatus`, and the process identifier.
const PRSTATUS_REGISTERS: usize = 112;
const PRSTATUS_PID: usize = 32;

const ET_CORE: u16 = 4;
const EM_AARCH64: u16 = 183;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const READ_EXECUTE: u32 = 5;
const WRITE: u32 = 2;

macro_rules! system_registers {
    ($($(#[$doc:meta])* $name:ident = ($op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal);)*) => {
        /// The system registers of EL1 and EL0 that a dump has.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct SystemRegisters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl SystemRegisters {
            /// What they are called, in the order of the fields.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
            /// Their encodings, in the same order.
            pub const ENCODINGS: &'static [u16] = &[$($op0 << 14 | $op1 << 11 | $crn << 7 | $crm << 3 | $op2),*];

            fn values(&self) -> impl Iterator<Item = u64> {
                [$(self.$name),*].into_iter()
            }
        }
    };
}

system_registers! {
    /// `SCTLR_EL1`
    sctlr_el1 = (3, 0, 1, 0, 0);
    /// `CPACR_EL1`
    cpacr_el1 = (3, 0, 1, 0, 2);
    /// `TTBR0_EL1`
    ttbr0_el1 = (3, 0, 2, 0, 0);
    /// `TTBR1_EL1`
    ttbr1_el1 = (3, 0, 2, 0, 1);
    /// `TCR_EL1`
    tcr_el1 = (3, 0, 2, 0, 2);
    /// `SPSR_EL1`
    spsr_el1 = (3, 0, 4, 0, 0);
    /// `ELR_EL1`
    elr_el1 = (3, 0, 4, 0, 1);
    /// `SP_EL0`
    sp_el0 = (3, 0, 4, 1, 0);
    /// `SP_EL1`
    sp_el1 = (3, 4, 4, 1, 0);
    /// `ESR_EL1`
    esr_el1 = (3, 0, 5, 2, 0);
    /// `FAR_EL1`
    far_el1 = (3, 0, 6, 0, 0);
    /// `PAR_EL1`
    par_el1 = (3, 0, 7, 4, 0);
    /// `MAIR_EL1`
    mair_el1 = (3, 0, 10, 2, 0);
    /// `VBAR_EL1`
    vbar_el1 = (3, 0, 12, 0, 0);
    /// `CONTEXTIDR_EL1`
    contextidr_el1 = (3, 0, 13, 0, 1);
    /// `TPIDR_EL1`
    tpidr_el1 = (3, 0, 13, 0, 4);
    /// `TPIDR_EL0`
    tpidr_el0 = (3, 3, 13, 0, 2);
    /// `TPIDRRO_EL0`
    tpidrro_el0 = (3, 3, 13, 0, 3);
}

/// The registers of a vCPU that is out of its guest.
#[derive(Clone, Debug)]
pub struct Registers {
    /// General registers, PC, processor state.
    pub general: VcpuContext,
    /// System registers.
    pub system: SystemRegisters,
    /// V0 to V31.
    pub vectors: [u128; 32],
    /// FPSR
    pub fpsr: u64,
    /// FPCR
    pub fpcr: u64,
}

impl Registers {
    /// The stack pointer that the vCPU uses: EL0's, or EL1's with `PSTATE.SPSel`.
    #[must_use]
    pub const fn stack_pointer(&self) -> u64 {
        if self.general.pstate & 1 == 1 { self.system.sp_el1 } else { self.system.sp_el0 }
    }
}

/// What is known of a vCPU.
#[derive(Clone, Debug)]
pub enum Presence {
    /// It is on, and this is where it stands.
    On(Box<Registers>),
    /// It is off.
    Off,
    /// It is on and could not be stopped in time.
    Running,
}

impl Presence {
    const fn number(&self) -> u32 {
        match self {
            Self::On(_) => 0,
            Self::Off => 1,
            Self::Running => 2,
        }
    }
}

/// Where the file goes, in order.
pub trait Sink {
    /// Why it goes no further.
    type Error;
    /// Takes the next bytes.
    ///
    /// # Errors
    /// If nothing more is to come.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    /// The next `count` bytes are zero.
    ///
    /// # Errors
    /// If nothing more is to come.
    fn zeroes(&mut self, count: u64) -> Result<(), Self::Error>;
}

/// What goes into a dump.
pub struct Dump<'a> {
    /// RAM and ROM, whole pages, and whether the guest can write there.
    pub regions: &'a [(Range<Ipa>, bool)],
    /// What is there.
    pub memory: &'a dyn GuestMemory,
    /// The vCPUs.
    pub vcpus: &'a [(VcpuId, Presence)],
    /// What VM and devices say of themselves.
    pub status: &'a str,
}

impl core::fmt::Debug for Dump<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Dump").field("regions", &self.regions).field("vcpus", &self.vcpus).finish_non_exhaustive()
    }
}

impl Dump<'_> {
    /// Writes the file. Memory is read page by page, once.
    ///
    /// # Errors
    /// That of the sink; then the rest is not written.
    pub fn write<S: Sink>(&self, sink: &mut S) -> Result<(), S::Error> {
        let head = self.head();
        sink.bytes(&head)?;
        sink.zeroes(padding(head.len()))?;
        let mut page = vec![0; to_usize(PAGE_SIZE)];
        for (range, _) in self.regions {
            let mut at = range.start();
            while at < range.end() {
                // What the VM has not got, were there such a thing, is zero as well.
                let read = self.memory.read(at, &mut page);
                if read.is_err() || is_zero(&page) {
                    sink.zeroes(PAGE_SIZE)?;
                } else {
                    sink.bytes(&page)?;
                }
                at = Ipa(at.0.saturating_add(PAGE_SIZE));
            }
        }
        Ok(())
    }

    /// Everything in front of the memory.
    fn head(&self) -> Vec<u8> {
        let notes = self.notes();
        let headers = self.regions.len().saturating_add(1);
        let notes_at = EHDR.saturating_add(PHDR.saturating_mul(headers));
        let mut out = Words(Vec::new());
        // e_ident: class 64, little-endian, version 1.
        out.bytes(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.half(ET_CORE).half(EM_AARCH64).word(1);
        // e_entry, e_phoff, e_shoff, e_flags.
        out.long(0).long(EHDR as u64).long(0).word(0);
        // e_ehsize, e_phentsize, e_phnum, and no sections. A VM has few regions.
        out.half(64).half(56).half(u16::try_from(headers).unwrap_or(u16::MAX)).half(0).half(0).half(0);
        out.header(PT_NOTE, 0, notes_at as u64, 0, notes.len() as u64, 4);
        let end = notes_at.saturating_add(notes.len());
        let mut offset = (end as u64).saturating_add(padding(end));
        for (range, writable) in self.regions {
            let flags = READ_EXECUTE | if *writable { WRITE } else { 0 };
            out.header(PT_LOAD, flags, offset, range.start().0, range.length(), PAGE_SIZE);
            offset = offset.saturating_add(range.length());
        }
        out.bytes(&notes);
        out.0
    }

    fn notes(&self) -> Vec<u8> {
        let mut notes = Words(Vec::new());
        for (id, presence) in self.vcpus {
            if let Presence::On(registers) = presence {
                notes.note("CORE", NT_PRSTATUS, &|out| prstatus(*id, registers, out));
                notes.note("CORE", NT_FPREGSET, &|out| {
                    registers.vectors.iter().for_each(|vector| out.bytes(&vector.to_le_bytes()));
                    out.long(registers.fpsr & 0xffff_ffff | registers.fpcr << 32).long(0);
                });
            }
            notes.note(OWNER, NT_VCPU, &|out| {
                out.word(u32::from(id.0)).word(presence.number());
                if let Presence::On(registers) = presence {
                    for (encoding, value) in SystemRegisters::ENCODINGS.iter().zip(registers.system.values()) {
                        out.long(u64::from(*encoding)).long(value);
                    }
                }
            });
        }
        notes.note(OWNER, NT_STATUS, &|out| out.bytes(self.status.as_bytes()));
        notes.0
    }
}

/// `struct elf_prstatus`: nothing but the registers and a number to tell threads apart by; debuggers take 0 for none.
fn prstatus(id: VcpuId, registers: &Registers, out: &mut Words) {
    let begin = out.0.len();
    let place = |offset: usize| begin.saturating_add(offset);
    out.0.resize(place(PRSTATUS_PID), 0);
    out.word(u32::from(id.0).saturating_add(1));
    out.0.resize(place(PRSTATUS_REGISTERS), 0);
    registers.general.x.iter().for_each(|value| out.bytes(&value.to_le_bytes()));
    // PSTATE as EL1 would see it: what is EL2's own in SPSR_EL2 is not there.
    out.long(registers.stack_pointer()).long(registers.general.pc).long(registers.general.pstate & !Pstate::SS);
    // pr_fpvalid
    out.word(1);
    out.0.resize(place(PRSTATUS), 0);
}

/// Little-endian words in a row.
struct Words(Vec<u8>);

impl Words {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn half(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes());
        self
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes());
        self
    }

    fn long(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes());
        self
    }

    fn header(&mut self, kind: u32, flags: u32, offset: u64, address: u64, size: u64, alignment: u64) {
        let in_memory = if kind == PT_LOAD { size } else { 0 };
        self.word(kind).word(flags).long(offset).long(address).long(address);
        self.long(size).long(in_memory).long(alignment);
    }

    /// A note: sizes, type, the owner's name with its zero, the content; both padded to four bytes.
    fn note(&mut self, owner: &str, kind: u32, content: &dyn Fn(&mut Self)) {
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        self.word(size(owner.len().saturating_add(1)));
        let size_at = self.0.len();
        self.word(0).word(kind).bytes(owner.as_bytes());
        self.bytes(&[0]);
        self.pad();
        let begin = self.0.len();
        content(self);
        let length = size(self.0.len().saturating_sub(begin));
        self.0.iter_mut().skip(size_at).zip(length.to_le_bytes()).for_each(|(byte, value)| *byte = value);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Most of a guest's memory is looked at for this alone: 16 bytes at a time.
fn is_zero(page: &[u8]) -> bool {
    page.as_chunks().0.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0)
}

/// What is missing to whole pages.
fn padding(length: usize) -> u64 {
    (length as u64).wrapping_neg() & PAGE_SIZE.wrapping_sub(1)
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
