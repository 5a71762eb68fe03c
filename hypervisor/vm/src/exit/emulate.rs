//! Loads and stores that only the instruction describes (`ISS.ISV` is 0).
//!
//! Answers for: fetching it through the guest's own stage 1, finding its operands, doing its accesses one after the other
//! as a described access would be done (`mmio`), and then, all at once, its effect on registers: a pair whose second
//! access fails leaves no trace but what the first one did to its device. Does not answer for: the encodings
//! (`instruction`), nor for what is refused (`unsupported`).
//!
//! Another vCPU may change code and tables meanwhile. If what is found cannot have caused this abort, the guest goes on
//! where it stands and meets what is there by then.

use super::instruction::{Address, Instruction, Transfer};
use super::syndrome::{DataAbort, fault};
use super::{mmio, unsupported};
use crate::partition::Vm;
use crate::vcpu::{Cpu, El1Register, Next, Vcpu};
use types::{AccessSize, Ipa, PAGE_SIZE, Pstate, Range, RawExit};
use vdev::Effects;

/// What caused an abort.
enum Found {
    /// This, at this virtual address; the pages of its first and of its last byte.
    Transfer(Transfer, u64, [Ipa; 2]),
    /// An instruction that is not emulated: its word, if there is one, and the status of its abort.
    Refused(Option<u32>, u64),
    /// Nothing that is there now.
    Changed,
}

/// A translation fault of a load or store.
#[cold]
pub(super) fn transfer<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    abort: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let (transfer, start, pages) = match find(vm, vcpu, exit, abort, cpu) {
        Found::Transfer(transfer, start, pages) => (transfer, start, pages),
        Found::Refused(word, status) => return unsupported::instruction(vm, vcpu, exit, (word, status), cpu, effects),
        Found::Changed => return Next::Resume,
    };
    let place = |at: u64| {
        let [first, last] = pages;
        let page = if at / PAGE_SIZE == start / PAGE_SIZE { first } else { last };
        Ipa(page.0 | at & PAGE_SIZE.wrapping_sub(1))
    };
    let mut at = start;
    let mut loaded = [0; 2];
    for (register, value) in registers(&transfer).zip(&mut loaded) {
        let stored = (!transfer.is_load).then(|| operand(vcpu, cpu, &transfer, register));
        match part(vm, vcpu, exit, (place(at), transfer.scale), stored, cpu, effects) {
            Ok(answer) => *value = answer,
            Err(next) => return next,
        }
        at = at.wrapping_add(bytes(&transfer));
    }
    if transfer.is_load {
        registers(&transfer).zip(loaded).for_each(|(register, value)| fill(vcpu, cpu, &transfer, register, value));
    }
    complete(vcpu, cpu, &transfer, start);
    mmio::after_device(vm, vcpu, place(start), effects)
}

/// A store to ROM that is ignored: what it does besides is done.
#[cold]
pub(super) fn ignored_store<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    abort: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    match find(vm, vcpu, exit, abort, cpu) {
        Found::Transfer(transfer, start, _) => complete(vcpu, cpu, &transfer, start),
        Found::Refused(word, status) => return unsupported::instruction(vm, vcpu, exit, (word, status), cpu, effects),
        Found::Changed => {}
    }
    Next::Resume
}

/// The instruction at the guest's PC, if it is what aborted.
fn find<C: Cpu>(vm: &Vm, vcpu: &Vcpu, exit: &RawExit, abort: DataAbort, cpu: &mut C) -> Found {
    /// `PSTATE.nRW`: AArch32.
    const NRW: u64 = 1 << 4;
    /// What of an address may be a tag (TBI), and is not FAR_EL2's to keep.
    const TAG_BITS: u32 = 8;
    if vcpu.context.pstate & NRW != 0 {
        return Found::Refused(None, fault::EXTERNAL);
    }
    let word = cpu.translate(vcpu.context.pc).and_then(|at| vm.memory().load(at, AccessSize::Word).ok());
    #[expect(clippy::cast_possible_truncation, reason = "a word was loaded")]
    let Some(word) = word.map(|word| word as u32) else { return Found::Changed };
    let transfer = match Instruction::decode(word) {
        Instruction::Transfer(transfer) => transfer,
        Instruction::Refused { status } => return Found::Refused(Some(word), status),
    };
    let start = address(vcpu, cpu, transfer.address);
    let length = registers(&transfer).fold(0_u64, |sum, _| sum.wrapping_add(bytes(&transfer)));
    let distance = exit.far.wrapping_sub(start) << TAG_BITS >> TAG_BITS;
    if transfer.is_load == abort.is_write() || distance >= length {
        return Found::Changed;
    }
    let known = abort.ipa(exit).align_down(PAGE_SIZE);
    if (start % PAGE_SIZE).wrapping_add(length) <= PAGE_SIZE {
        return Found::Transfer(transfer, start, [known; 2]);
    }
    match pages(vm, vcpu, (exit.far, known), &transfer, start, cpu) {
        Some(pages) => Found::Transfer(transfer, start, pages),
        None => Found::Refused(Some(word), fault::EXTERNAL),
    }
}

/// The pages of a pair that has one register's part in each, of which the one with `FAR_EL2` is known. The guest's tables say
/// what the other one is, and whether EL1 may load from it. `None` if EL0 loads, or somebody stores, or if that page is memory.
#[cold]
fn pages<C: Cpu>(
    vm: &Vm,
    vcpu: &Vcpu,
    (far, known): (u64, Ipa),
    transfer: &Transfer,
    start: u64,
    cpu: &mut C,
) -> Option<[Ipa; 2]> {
    let is_el1 = vcpu.context.pstate & Pstate::MODE != Pstate::EL0T;
    let parts_are_whole = start.is_multiple_of(bytes(transfer));
    if !(transfer.is_load && is_el1 && parts_are_whole) {
        return None;
    }
    let second = start.wrapping_add(bytes(transfer));
    let is_first = far % PAGE_SIZE >= start % PAGE_SIZE;
    let other = cpu.translate(if is_first { second } else { start })?.align_down(PAGE_SIZE);
    let page = Range::new(other, PAGE_SIZE)?;
    if vm.memory().contains(page) {
        return None;
    }
    Some(if is_first { [known, other] } else { [other, known] })
}

/// Its registers, in the order of their addresses.
fn registers(transfer: &Transfer) -> impl Iterator<Item = u8> + use<> {
    core::iter::once(transfer.first).chain(transfer.second)
}

/// Of one register's part.
const fn bytes(transfer: &Transfer) -> u64 {
    1_u64.wrapping_shl(transfer.scale)
}

/// The access of one register: of a whole vector register two of half its size. `Err` if it was given up.
fn part<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    (at, scale): (Ipa, u32),
    stored: Option<u128>,
    cpu: &mut C,
    effects: &mut Effects,
) -> Result<u128, Next> {
    const HALF: u32 = 64;
    let size = AccessSize::from_sas(scale.min(3).into());
    let mut answer = 0;
    for half in 0..if scale > 3 { 2 } else { 1 } {
        let shift = if half == 0 { 0 } else { HALF };
        let at = Ipa(at.0.wrapping_add(u64::from(shift / 8)));
        #[expect(clippy::cast_possible_truncation, reason = "one half at a time")]
        let stored = stored.map(|value| (value >> shift) as u64);
        let loaded = match mmio::access(vm, vcpu.id, (at, size), stored, cpu, effects) {
            Ok(value) => value,
            Err(fault) => mmio::refused(vm, vcpu, exit, (at, size), fault, cpu, effects)?,
        };
        answer |= u128::from(loaded & size.mask()) << shift;
    }
    Ok(answer)
}

/// What a store stores.
fn operand<C: Cpu>(vcpu: &Vcpu, cpu: &mut C, transfer: &Transfer, register: u8) -> u128 {
    if transfer.is_vector { cpu.vector(register) } else { vcpu.context.register(register).into() }
}

/// What a load has loaded goes into its register. Nothing of a vector register is left above it.
fn fill<C: Cpu>(vcpu: &mut Vcpu, cpu: &mut C, transfer: &Transfer, register: u8, value: u128) {
    if transfer.is_vector {
        cpu.set_vector(register, value);
    } else {
        let size = AccessSize::from_sas(transfer.scale.into());
        #[expect(clippy::cast_possible_truncation, reason = "a general register's part has at most 64 bits")]
        vcpu.context.set_register(register, transfer.extension.extend(size, value as u64));
    }
}

/// The virtual address of the first access.
fn address<C: Cpu>(vcpu: &Vcpu, cpu: &C, address: Address) -> u64 {
    match address {
        Address::Immediate { base, offset } => base_register(vcpu, cpu, base).wrapping_add_signed(offset),
        Address::Literal { offset } => vcpu.context.pc.wrapping_add_signed(offset),
        Address::Register { base, index, is_word, is_signed, shift } => {
            let index = vcpu.context.register(index);
            let index = match (is_word, is_signed) {
                (false, _) => index,
                (true, false) => index & AccessSize::Word.mask(),
                (true, true) => AccessSize::Word.sign_extend(index),
            };
            base_register(vcpu, cpu, base).wrapping_add(index.wrapping_shl(shift))
        }
    }
}

/// Register 31 as a base register: the stack pointer in use.
const STACK_POINTER: u8 = 31;

/// Which of the two that is: at EL0, and with `PSTATE.SP` 0, the stack pointer is EL0's.
const fn stack_pointer(vcpu: &Vcpu) -> El1Register {
    if vcpu.context.pstate & Pstate::MODE == Pstate::EL1H { El1Register::SpEl1 } else { El1Register::SpEl0 }
}

fn base_register<C: Cpu>(vcpu: &Vcpu, cpu: &C, base: u8) -> u64 {
    if base == STACK_POINTER { cpu.system_register(stack_pointer(vcpu)) } else { vcpu.context.register(base) }
}

/// The instruction is done: what it adds to its base register, and the step to the next one. A base register that was
/// loaded as well, which the architecture leaves open, has the sum.
fn complete<C: Cpu>(vcpu: &mut Vcpu, cpu: &mut C, transfer: &Transfer, start: u64) {
    vcpu.context.step(4);
    if let (Some(distance), Address::Immediate { base, offset }) = (transfer.write_back, transfer.address) {
        let sum = start.wrapping_add_signed(distance.wrapping_sub(offset));
        if base == STACK_POINTER {
            cpu.set_system_register(stack_pointer(vcpu), sum);
        } else {
            vcpu.context.set_register(base, sum);
        }
    }
}
