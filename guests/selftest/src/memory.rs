//! RAM: all there, all zero, and not a byte more.

use core::ops::Range;

use guest_rt::exceptions::catch;
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "memory: is zero wherever nothing was loaded", run: is_zero },
    Test { name: "memory: every page can be written", run: every_page_is_writable },
    Test { name: "memory: the last byte is memory, the next is not", run: ends_where_it_says },
    Test { name: "memory: what lies below its start is not memory", run: starts_where_it_says },
    Test { name: "memory: a stray read gives ones and a stray write nothing", run: stray_accesses },
    Test { name: "memory: ROM can be read and not written", run: rom },
];

const PAGE: u64 = 0x1000;

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

/// Everything that somebody put into RAM, ourselves included.
fn occupied(machine: &Machine) -> [Range<u64>; 4] {
    let image = (&raw const __image_start) as u64..(&raw const __image_end) as u64;
    // On a bare emulator its boot stub fills the first page.
    let stub = if machine.is_bulkhead { 0..0 } else { machine.memory[0].start..machine.memory[0].start + PAGE };
    [image, machine.tree.clone(), machine.initrd.clone().unwrap_or(0..0), stub]
}

/// The pages of RAM that nobody occupies.
fn free_pages(machine: &Machine) -> impl Iterator<Item = Mmio> {
    let occupied = occupied(machine);
    machine
        .memory
        .iter()
        .flat_map(|range| (range.start.next_multiple_of(PAGE)..range.end & !(PAGE - 1)).step_by(PAGE as usize))
        .filter(move |page| !occupied.iter().any(|range| *page < range.end && range.start < page + PAGE))
        // SAFETY: RAM that neither our image nor anything we use lies in.
        .map(|page| unsafe { Mmio::new(page as usize) })
}

fn is_zero(machine: &'static Machine) -> Outcome {
    for page in free_pages(machine) {
        let all = (0..PAGE as usize).step_by(8).fold(0, |all, offset| all | page.read64(offset));
        check!(all == 0, "page {:#x} is not zero", page.address());
    }
    Ok(())
}

fn every_page_is_writable(machine: &'static Machine) -> Outcome {
    let mark = |page: Mmio, offset: usize| (page.address() + offset) as u64 ^ 0x5aa5_0ff0_a55a_f00f;
    for page in free_pages(machine) {
        for offset in [0, PAGE as usize - 8] {
            page.write64(offset, mark(page, offset));
        }
    }
    // Only now, so that two addresses of one byte would show.
    for page in free_pages(machine) {
        for offset in [0, PAGE as usize - 8] {
            check!(
                page.read64(offset) == mark(page, offset),
                "page {:#x} does not keep what is written",
                page.address()
            );
            page.write64(offset, 0);
        }
    }
    Ok(())
}

/// Whether a byte at `address` keeps two different values. Not for an address in use.
fn is_memory(address: u64) -> bool {
    // SAFETY: an address outside of RAM, which nobody relies on, or a free page.
    let byte = unsafe { Mmio::new(address as usize) };
    let keeps = |value: u64| {
        byte.write_width(0, guest_rt::mmio::Width::Byte, value);
        byte.read_width(0, guest_rt::mmio::Width::Byte) == value
    };
    catch(|| keeps(0x5a) && keeps(0xa5) && keeps(0)) == (true, None)
}

fn ends_where_it_says(machine: &'static Machine) -> Outcome {
    for range in &machine.memory {
        let in_use = occupied(machine).iter().any(|used| used.contains(&(range.end - 1)));
        check!(in_use || is_memory(range.end - 1), "the last byte before {:#x} is not memory", range.end);
        check!(machine.is_memory(range.end) || !is_memory(range.end), "there is memory at {:#x}", range.end);
    }
    Ok(())
}

fn starts_where_it_says(machine: &'static Machine) -> Outcome {
    for range in &machine.memory {
        let below = range.start - 1;
        check!(machine.is_memory(below) || !is_memory(below), "there is memory at {below:#x}");
    }
    Ok(())
}

/// `unsupported reference ignore`, the default: reads give all ones, writes vanish, the guest goes on.
fn stray_accesses(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    // SAFETY: nothing is there.
    let nothing = unsafe { Mmio::new(stage::nowhere(machine) as usize) };
    for width in guest_rt::mmio::Width::ALL {
        let ones = !0 >> (64 - 8 * width.bytes());
        check_equal!(catch(|| nothing.read_width(8, width)), (ones, None), "a read");
        check_equal!(catch(|| nothing.write_width(8, width, 0)).1, None, "a write");
        check_equal!(catch(|| nothing.read_width(8, width)), (ones, None), "a read after a write");
    }
    // Sign extension is the hypervisor's work, too.
    let signed: u64;
    // SAFETY: as above: a load from where nothing is.
    unsafe { core::arch::asm!("ldrsb {0}, [{1}]", out(reg) signed, in(reg) nothing.address(), options(nostack)) };
    check_equal!(signed, !0, "a sign-extended read");
    // SAFETY: as above.
    unsafe { core::arch::asm!("ldrsh {0:w}, [{1}]", out(reg) _, in(reg) nothing.address(), options(nostack)) };
    // SAFETY: as above. A load to the zero register.
    unsafe { core::arch::asm!("ldr xzr, [{0}]", in(reg) nothing.address(), options(nostack)) };
    Ok(())
}

fn rom(machine: &'static Machine) -> Outcome {
    let Some(address) = machine.numeric_argument("rom") else {
        return Err(Verdict::Skip("no rom=ADDRESS among the arguments"));
    };
    // SAFETY: the user says that ROM is there.
    let rom = unsafe { Mmio::new(address as usize) };
    let (before, trap) = catch(|| rom.read64(0));
    check_equal!(trap, None, "a read");
    let _ = catch(|| rom.write64(0, !before));
    check_equal!(catch(|| rom.read64(0)), (before, None), "its contents after a write");
    check!(!machine.is_memory(address), "the tree calls it memory");
    Ok(())
}
