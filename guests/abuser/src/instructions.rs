//! Instructions: random ones, and loads and stores of the kinds that leave no syndrome.
//!
//! DDI 0487, chapter C4 (encodings).

use core::cell::UnsafeCell;

use guest_rt::code::{self, RET};
use guest_rt::exceptions::catch;
use guest_rt::gic::Gic;
use guest_rt::mmu::{self, Kind};
use guest_rt::msr;
use guest_rt::registers::isb;
use guest_rt::sandbox::{self, Mode};
use guest_rt::timer::{self, Timer};

use crate::Abuse;
use crate::random::Random;

const WORDS: usize = 4096;
/// How long random code may run before a timer ends it, in microseconds.
const LEASH: u64 = 1000;

/// Memory that random stores may hit: no immediate offset leads out of it from its middle.
#[repr(C, align(4096))]
struct Scratch(UnsafeCell<[u8; 0x4_0000]>);

// SAFETY: nobody ever refers to its contents.
unsafe impl Sync for Scratch {}

static SCRATCH: Scratch = Scratch(UnsafeCell::new([0; 0x4_0000]));

fn scratch_middle() -> u64 {
    SCRATCH.0.get() as u64 + 0x2_0000
}

/// Lets a timer end what runs too long.
fn leash(abuse: &Abuse) {
    let gic = Gic::of(abuse.machine);
    gic.enable(Timer::Virtual.intid());
}

/// EL0 can reach nothing but the window that its code is in: any word will do, and whatever follows it.
pub(crate) fn garbage_at_el0(abuse: &mut Abuse) -> u64 {
    leash(abuse);
    let (mut random, deadline) = (Random::new(abuse.random.next()), abuse.deadline);
    let words = (0..WORDS).map(|_| abuse.random.next() as u32);
    code::with(words, |address| {
        let start = mmu::reach(address as u64, Kind::User);
        let mut done = 0;
        for number in (0..WORDS).take_while(|_| timer::now() < deadline) {
            let x = core::array::from_fn(|_| random.value());
            Timer::Virtual.arm(timer::now() + timer::ticks(LEASH));
            // SAFETY: EL0 may read and execute the window and write nowhere.
            let _ = unsafe { sandbox::run(Mode::El0t, start + 4 * number, random.next(), &x) };
            done += 1;
        }
        done
    })
}

/// Whether this word can do harm to ourselves that is no fault of the hypervisor: branches (into our own code), system
/// instructions (they have cases of their own), memory copies of any size.
fn harms_ourselves(word: u32) -> bool {
    [
        (0x7c00_0000, 0x1400_0000), // B, BL
        (0xfe00_0000, 0x5400_0000), // B.cond
        (0x7c00_0000, 0x3400_0000), // CBZ, CBNZ, TBZ, TBNZ; compare and branch
        (0xfe00_0000, 0xd600_0000), // BR, BLR, RET, ERET
        (0xff00_0000, 0xd500_0000), // system
        (0x3b20_0c00, 0x1900_0400), // CPY*, SET*
    ]
    .iter()
    .any(|(mask, value)| word & mask == *value)
}

/// At EL1 one word at a time, with the scratch memory in every register.
pub(crate) fn garbage_at_el1(abuse: &mut Abuse) -> u64 {
    leash(abuse);
    // An undefined instruction behind each word brings us back.
    let deadline = abuse.deadline;
    let harmless =
        (0..WORDS).map(|_| Some(abuse.random.next() as u32).filter(|word| !harms_ourselves(*word)).unwrap_or(0));
    let words = harmless.flat_map(|word| [word, 0]);
    // SAFETY: compiled code uses no floating-point registers.
    unsafe { msr!("cpacr_el1", 0b11 << 20) };
    isb();
    let done = code::with(words, |start| {
        let mut done = 0;
        for number in (0..WORDS).take_while(|_| timer::now() < deadline) {
            Timer::Virtual.arm(timer::now() + timer::ticks(LEASH));
            // SAFETY: `harms_ourselves` has been asked; stores hit the scratch memory, or nothing.
            let _ = unsafe { sandbox::run(Mode::El1t, start + 8 * number, scratch_middle(), &[scratch_middle(); 31]) };
            done += 1;
        }
        done
    });
    // SAFETY: as above.
    unsafe { msr!("cpacr_el1", 0) };
    isb();
    done
}

/// Loads and stores that no syndrome describes, or that no device answers: with x0 as base, x1 to x4 as data.
const ODD: &[u32] = &[
    0xa940_0801, // LDP X1, X2, [X0]
    0xa900_0801, // STP X1, X2, [X0]
    0xa8c1_0801, // LDP X1, X2, [X0], #16
    0xa9bf_0801, // STP X1, X2, [X0, #-16]!
    0x2940_0801, // LDP W1, W2, [X0]
    0x6940_0801, // LDPSW X1, X2, [X0]
    0xa840_0801, // LDNP X1, X2, [X0]
    0xf840_8401, // LDR X1, [X0], #8
    0xf840_8c01, // LDR X1, [X0, #8]!
    0xb800_4401, // STR W1, [X0], #4
    0xb81f_cc01, // STR W1, [X0, #-4]!
    0x3840_1401, // LDRB W1, [X0], #1
    0xf840_0801, // LDTR X1, [X0]
    0x3dc0_0000, // LDR Q0, [X0]
    0x3d80_0000, // STR Q0, [X0]
    0x4c40_7000, // LD1 {V0.16B}, [X0]
    0x4c00_2000, // ST1 {V0.16B-V3.16B}, [X0]
    0x4ddf_c000, // LD1R {V0.16B}, [X0], #1
    0xc85f_7c01, // LDXR X1, [X0]
    0xc803_7c01, // STXR W3, X1, [X0]
    0xc85f_fc01, // LDAXR X1, [X0]
    0xc87f_0801, // LDXP X1, X2, [X0]
    0xc823_0801, // STXP W3, X1, X2, [X0]
    0xc8df_fc01, // LDAR X1, [X0]
    0xc89f_fc01, // STLR X1, [X0]
    0xf821_0002, // LDADD X1, X2, [X0]
    0xb8a1_8002, // SWPA W1, W2, [X0]
    0xc8a1_7c02, // CAS X1, X2, [X0]
    0x4822_7c04, // CASP X2, X3, X4, X5, [X0]
    0xf8bf_c001, // LDAPR X1, [X0]
    0xf980_0000, // PRFM PLDL1KEEP, [X0]
    0xd50b_7420, // DC ZVA, X0
    0xd50b_7a20, // DC CVAC, X0
    0xd50b_7e20, // DC CIVAC, X0
    0xd508_7620, // DC IVAC, X0
    0xd50b_7520, // IC IVAU, X0
    0xf83f_d001, // LD64B X1, [X0] (or undefined)
];

/// Each of them on devices and on nothing, then a stack in a device.
pub(crate) fn odd_accesses(abuse: &mut Abuse) -> u64 {
    // SAFETY: compiled code uses no floating-point registers.
    unsafe { msr!("cpacr_el1", 0b11 << 20) };
    isb();
    let mut done = 0;
    let machine = abuse.machine;
    let uart = machine.uart.as_ref().map_or(0, |(registers, _)| registers.start);
    let ram = machine.memory[0].clone();
    let devices = [uart + 0xfe0, machine.distributor.start + 0xffe0, machine.redistributors.start + 0xffe0];
    for base in devices.into_iter().chain([ram.start - 0x1_0000, ram.end - 8, ram.end, 0]) {
        for word in ODD {
            code::with([*word, RET], |code| {
                // SAFETY: what these write, they write to read-only registers or to where nothing is; the last bytes of
                // RAM belong to nobody. x1 to x5 and v0 to v3 are free to change in a call.
                catch(|| unsafe { code::call(code, base) })
            });
            done += 1;
        }
        // STP X29, X30, [SP, #-16]!, and an undefined instruction to come back.
        code::with([0xa9bf_7bfd, 0], |code| {
            // SAFETY: as above.
            let _ = unsafe { sandbox::run(Mode::El1t, code, base & !15, &[0; 31]) };
        });
    }
    // SAFETY: as above.
    unsafe { msr!("cpacr_el1", 0) };
    isb();
    done
}
