//! Addresses: everywhere, in every way.

use core::ops::Range;

use guest_rt::exceptions::catch;
use guest_rt::machine::Machine;
use guest_rt::mmio::{Mmio, Width};
use guest_rt::mmu::{self, Kind};
use guest_rt::registers::affinity;
use guest_rt::sandbox::{self, Mode};

use crate::Abuse;

/// Reads and writes once in each width, unless it is RAM.
fn touch(abuse: &mut Abuse, physical: u64, writes: bool) -> u64 {
    let mut done = 0;
    for width in Width::ALL {
        if abuse.machine.is_memory(physical) || abuse.machine.is_memory(physical + width.bytes() as u64 - 1) {
            continue;
        }
        // SAFETY: not RAM; devices are put in order again after the case.
        let place = unsafe { Mmio::new(mmu::reach(physical, Kind::Device)) };
        catch(|| place.read_width(0, width));
        if writes {
            let value = abuse.random.value();
            catch(|| place.write_width(0, width, value));
        }
        done += 1;
    }
    done
}

/// Around every power of two of the 48-bit space, to both sides.
pub(crate) fn powers_of_two(abuse: &mut Abuse) -> u64 {
    let mut done = 0;
    for address in
        (12..48).flat_map(|power| [-8_i64, 0, 8, 0x1000].map(|more| (1_u64 << power).wrapping_add_signed(more)))
    {
        if !abuse.is_over() && !is_precious(abuse.machine, address) {
            done += touch(abuse, address, true);
        }
    }
    done
}

/// Registers of the bare emulator that end the test, such as its power switch, all lie in its first gigabyte.
fn is_precious(machine: &Machine, address: u64) -> bool {
    !machine.is_bulkhead && address < 0x4000_0000
}

/// A page at a time, around all that is there and a bit beyond. Writes only in a VM, where what we may not break is not
/// there.
pub(crate) fn pages_around_devices(abuse: &mut Abuse) -> u64 {
    let machine = abuse.machine;
    let around = |range: &Range<u64>, bytes: u64| range.start.saturating_sub(bytes)..range.end + bytes;
    let uart = machine.uart.as_ref().map_or(0..0, |(registers, _)| registers.clone());
    let mut done = 0;
    for range in [&machine.distributor, &machine.redistributors, &uart, &machine.memory[0]] {
        let (before, after) = (around(range, 0x10_0000).start..range.start, range.end..around(range, 0x10_0000).end);
        for page in before.step_by(0x1000).chain(after.step_by(0x1000)) {
            if !abuse.is_over() {
                done += touch(abuse, page, machine.is_bulkhead);
            }
        }
    }
    done
}

/// Fetches instructions from where there are none, devices included.
pub(crate) fn fetches(abuse: &mut Abuse) -> u64 {
    let machine = abuse.machine;
    let uart = machine.uart.as_ref().map_or(0, |(registers, _)| registers.start);
    let ram = machine.memory[0].clone();
    let devices = [uart + 0xfe0, machine.distributor.start, machine.redistributors.start];
    let edges = [ram.start - 4, ram.end, ram.end + 0xffc, ram.start - 0x1_0000];
    let mut done = 0;
    for address in devices.into_iter().chain(edges).chain((31..44).map(|power| 1 << power)) {
        if machine.is_memory(address) {
            continue;
        }
        let pc = mmu::reach(address, Kind::Memory);
        // SAFETY: nothing there is an instruction, and if it were, it would raise an exception before long: what devices
        // read as is zero or small, undefined as an instruction.
        let _ = unsafe { sandbox::run(Mode::El1t, pc, 0, &[0; 31]) };
        done += 1;
    }
    done
}

/// Has the table walker read descriptors from where no memory is, or from devices.
pub(crate) fn walks(abuse: &mut Abuse) -> u64 {
    const TABLE: u64 = 0b11;
    let machine = abuse.machine;
    let ram = machine.memory[0].clone();
    let far = (34..48).map(|power| 1 << power);
    let near = [ram.start - 0x1_0000, ram.end, machine.distributor.start, machine.redistributors.start, 0];
    let mut done = 0;
    for table in near.into_iter().chain(far).filter(|table| !machine.is_memory(*table)) {
        // SAFETY: nothing uses the window meanwhile.
        unsafe { mmu::set_window_descriptor((table & 0x0000_ffff_ffff_f000) | TABLE) };
        // SAFETY: a load through it changes nothing.
        let place = unsafe { Mmio::new(mmu::window()) };
        catch(|| place.read(0));
        // SAFETY: nothing can be fetched.
        let _ = unsafe { sandbox::run(Mode::El1t, mmu::window(), 0, &[0; 31]) };
        done += 2;
    }
    // SAFETY: as above.
    unsafe { mmu::set_window_descriptor(0) };
    done
}

/// Every misalignment of every width, on devices and across their ends.
pub(crate) fn unaligned(abuse: &mut Abuse) -> u64 {
    let machine = abuse.machine;
    let uart = machine.uart.as_ref().map_or(0..0, |(registers, _)| registers.clone());
    let places = [uart.start + 0xfe0, uart.end - 8, machine.distributor.start + 0xffe0, machine.distributor.end - 8];
    let mut done = 0;
    for (place, offset, width) in places
        .into_iter()
        .flat_map(|place| (0..8).flat_map(move |offset| Width::ALL.map(move |width| (place, offset, width))))
    {
        // SAFETY: identification registers: read-only, as is what follows them in a VM.
        let device = unsafe { Mmio::new(place as usize) };
        catch(|| device.read_width(offset, width));
        if machine.is_bulkhead {
            catch(|| device.write_width(offset, width, affinity()));
        }
        done += 1;
    }
    // The same as normal memory: not the first level's fault then, but the second's.
    for (place, offset) in places.into_iter().flat_map(|place| (0..8).map(move |offset| (place, offset))) {
        // SAFETY: as above.
        let device = unsafe { Mmio::new(mmu::reach(place, Kind::Memory)) };
        if machine.is_bulkhead {
            catch(|| device.read_width(offset, Width::Doubleword));
            done += 1;
        }
    }
    done
}
