//! Loads and stores outside memory by instructions of every kind: what a driver in another language, or a compiler with
//! an eye for pairs, makes of a plain access. A hypervisor has to read the instruction to know what it does.
//!
//! DDI 0487, section C3.2 ("Loads and stores"). The registers are those of the distributor, which keeps what is written.

use core::arch::asm;

use guest_rt::check_equal;
use guest_rt::exceptions::{catch, class};
use guest_rt::floating_point;
use guest_rt::gic::{ANY, GICD_IPRIORITYR, GICD_IROUTER, Gic};
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::tap::{Outcome, Test, Verdict};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "transfers: a pair is two accesses of a device", run: pairs },
    Test { name: "transfers: a device access moves its base register", run: write_back },
    Test { name: "transfers: the stack pointer can be the base register", run: stack_pointer },
    Test { name: "transfers: vector registers go to devices and come from them", run: vectors },
    Test { name: "transfers: a stray pair or vector reads ones", run: stray },
    Test { name: "transfers: an exclusive load outside memory is refused as the architecture says", run: exclusive },
];

/// The priorities of eight SPIs, 32 bits for four of them.
fn priorities(machine: &Machine) -> Mmio {
    let at = stage::clean_gic(machine).frame(32).address() + GICD_IPRIORITYR + 32;
    // SAFETY: within the distributor.
    unsafe { Mmio::new(at) }
}

const FIRST: u32 = 0xa080_6040;
const SECOND: u32 = 0x4060_80a0;
/// As a reset leaves them.
const NONE: u32 = 0;

fn pairs(machine: &'static Machine) -> Outcome {
    // The architecture leaves that open; QEMU's own pairs are one access.
    stage::needs_hypervisor(machine)?;
    let at = priorities(machine);
    // SAFETY: stores to the distributor.
    unsafe { asm!("stp {0:w}, {1:w}, [{2}]", in(reg) FIRST, in(reg) SECOND, in(reg) at.address(), options(nostack)) };
    check_equal!((at.read(0), at.read(4)), (FIRST, SECOND), "what a pair has stored");
    let (first, second): (u64, u64);
    // SAFETY: a load from it.
    unsafe {
        asm!("ldpsw {0}, {1}, [{2}, #-8]", out(reg) first, out(reg) second, in(reg) at.address() + 8, options(nostack));
    }
    check_equal!((first, second), (0xffff_ffff_a080_6040, SECOND.into()), "what a pair loads, with its sign");
    let mut base = at.address() + 8;
    // SAFETY: stores to the distributor; the base register is moved first.
    unsafe { asm!("stp wzr, wzr, [{0}, #-8]!", inout(reg) base, options(nostack)) };
    check_equal!(base, at.address(), "the base register");
    check_equal!((at.read(0), at.read(4)), (NONE, NONE), "after two zero registers");
    Ok(())
}

fn write_back(machine: &'static Machine) -> Outcome {
    let at = priorities(machine);
    let mut base = at.address();
    let (word, byte): (u64, u64);
    // SAFETY: stores to the distributor and loads from it.
    unsafe {
        asm!(
            "str {first:w}, [{base}], #4",
            "str {second:w}, [{base}]",
            "ldr {word:w}, [{base}, #-4]!",
            "ldrsb {byte:w}, [{base}, #3]!",
            "strb wzr, [{base}], #-3",
            first = in(reg) FIRST, second = in(reg) SECOND, base = inout(reg) base,
            word = out(reg) word, byte = out(reg) byte,
            options(nostack),
        );
    }
    check_equal!((word, byte), (FIRST.into(), 0xffff_ffa0), "what was loaded");
    check_equal!(base, at.address(), "the base register");
    check_equal!((at.read(0), at.read(4)), (FIRST & 0x00ff_ffff, SECOND), "what was stored");
    at.write(0, NONE);
    at.write(4, NONE);
    Ok(())
}

fn stack_pointer(machine: &'static Machine) -> Outcome {
    let at = priorities(machine);
    at.write(0, FIRST);
    let (moved, value): (usize, u64);
    // SAFETY: loads from the distributor, by SP_EL0, which compiled code does not use; no exception comes between.
    unsafe {
        asm!(
            "msr spsel, #0",
            "mov sp, {at}",
            "ldr {value:w}, [sp], #16",
            "mov {moved}, sp",
            "msr spsel, #1",
            at = in(reg) at.address(), value = out(reg) value, moved = lateout(reg) moved,
            options(nostack),
        );
    }
    at.write(0, NONE);
    check_equal!(value, FIRST.into(), "what was loaded");
    check_equal!(moved, at.address() + 16, "the stack pointer");
    Ok(())
}

fn vectors(machine: &'static Machine) -> Outcome {
    // No device of a GICv2's machine has registers of 64 bits that keep what is written.
    stage::needs_gicv3(machine)?;
    let at = priorities(machine);
    // SAFETY: within the distributor: where two SPIs go.
    let routers = unsafe { Mmio::new(Gic::of(machine).frame(32).address() + GICD_IROUTER + 8 * 32) };
    at.write(0, FIRST);
    at.write(4, SECOND);
    floating_point::switch(true);
    let (pair, quad): ([u64; 2], [u64; 2]);
    // SAFETY: loads and stores in the distributor, by vector registers, which compiled code does not use.
    unsafe {
        let (first, second, low, high): (u64, u64, u64, u64);
        asm!(
            ".arch_extension fp",
            ".arch_extension simd",
            "movi v1.2d, #0xffffffffffffffff",
            "ldp s0, s1, [{at}]",
            "fmov {first}, d0",
            "fmov {second}, d1",
            "stp s1, s0, [{at}]",
            "mov v2.d[0], {any}",
            "mov v2.d[1], xzr",
            "str q2, [{routers}]",
            "ldr q3, [{routers}], #16",
            "fmov {low}, d3",
            "mov {high}, v3.d[1]",
            at = in(reg) at.address(), routers = inout(reg) routers.address() => _, any = in(reg) ANY,
            first = out(reg) first, second = out(reg) second, low = out(reg) low, high = out(reg) high,
            options(nostack),
        );
        (pair, quad) = ([first, second], [low, high]);
    }
    floating_point::switch(false);
    check_equal!(pair, [FIRST.into(), SECOND.into()], "a pair of single registers, cleared above");
    check_equal!((at.read(0), at.read(4)), (SECOND, FIRST), "what the pair has stored");
    check_equal!((routers.read64(0), routers.read64(8)), (ANY, 0), "what a whole vector has stored");
    check_equal!(quad, [ANY, 0], "what it has loaded");
    routers.write64(0, 0);
    at.write(0, NONE);
    at.write(4, NONE);
    Ok(())
}

/// `unsupported reference ignore`, the default.
fn stray(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let nothing = stage::nowhere(machine);
    let (mut base, mut values) = (nothing, [0_u64; 4]);
    floating_point::switch(true);
    // SAFETY: loads from where nothing is, and stores there.
    unsafe {
        asm!(
            ".arch_extension fp",
            ".arch_extension simd",
            "stp {a}, {b}, [{base}], #16",
            "ldp {a}, {b}, [{base}, #-16]!",
            "movi v0.2d, #0",
            "ldr q0, [{base}], #32",
            "fmov {c}, d0",
            "mov {d}, v0.d[1]",
            base = inout(reg) base,
            a = inout(reg) values[0], b = inout(reg) values[1], c = out(reg) values[2], d = out(reg) values[3],
            options(nostack),
        );
    }
    floating_point::switch(false);
    check_equal!(values, [!0; 4], "what was loaded");
    check_equal!(base, nothing + 32, "the base register");
    Ok(())
}

fn exclusive(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let nothing = stage::nowhere(machine);
    // SAFETY: a load from where nothing is.
    let (_, trap) = catch(|| unsafe { asm!("ldxr {0}, [{1}]", out(reg) _, in(reg) nothing, options(nostack)) });
    let trap = trap.ok_or_else(|| Verdict::fail(format_args!("no exception")))?;
    check_equal!(trap.class(), class::DATA_ABORT, "class");
    check_equal!(trap.status(), 0b11_0101, "unsupported exclusive");
    check_equal!(trap.address, nothing, "fault address");
    Ok(())
}
