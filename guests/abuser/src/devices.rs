//! Devices: any value to any register in any width.

use guest_rt::exceptions::catch;
use guest_rt::mmio::{Mmio, Width};

use crate::Abuse;

const ACCESSES: u64 = 20_000;

/// Random accesses to `size` bytes of registers from `address`, at offsets that `may_write` lets be written.
fn bombard(abuse: &mut Abuse, address: u64, size: u64, may_write: fn(u64) -> bool) -> u64 {
    // SAFETY: a device of the tree; nothing of ours depends on its state until the case is over.
    let device = unsafe { Mmio::new(address as usize) };
    let mut done = 0;
    while done < ACCESSES && !abuse.is_over() {
        // Half of them where registers are dense, and mostly aligned: else little would come to pass.
        let limit = if abuse.random.below(2) == 0 { size.min(0x1000) } else { size };
        let width = abuse.random.choose(&Width::ALL).unwrap_or(Width::Word);
        let mask = if abuse.random.below(16) == 0 { 0 } else { width.bytes() as u64 - 1 };
        let offset = abuse.random.below(limit - 8) & !mask;
        if abuse.random.below(2) == 0 || !may_write(offset) {
            catch(|| device.read_width(offset as usize, width));
        } else {
            let value = abuse.random.value();
            catch(|| device.write_width(offset as usize, width, value));
        }
        done += 1;
    }
    done
}

/// The distributor and everybody's redistributor.
pub(crate) fn gic(abuse: &mut Abuse) -> u64 {
    let machine = abuse.machine;
    let distributor = bombard(abuse, machine.distributor.start, 0x1_0000, |_| true);
    let redistributors = 0x2_0000 * machine.cpus.len() as u64;
    // On a bare machine, GICR_CTLR, GICR_PROPBASER and GICR_PENDBASER would make it write LPI tables into our memory.
    let may_write: fn(u64) -> bool = if machine.is_bulkhead { |_| true } else { |offset| offset % 0x2_0000 >= 0x100 };
    distributor + bombard(abuse, machine.redistributors.start, redistributors, may_write)
}

/// The console, but for its data register: what would be garbage on the screen.
pub(crate) fn uart(abuse: &mut Abuse) -> u64 {
    let Some((registers, _)) = &abuse.machine.uart else { return 0 };
    bombard(abuse, registers.start, 0x1000, |offset| offset >= 8)
}
