//! The machine's virtio devices: finding them.
//!
//! Answers for: looking into each window once, and who gets what is there; memory for such devices. Does not answer for: what disks and
//! cards do (`disk`, `uplink`), registers (`drivers::virtio`).

use crate::frames::{self, Owner};
use crate::{disk, start, uplink};
use alloc::vec::Vec;
use drivers::Mmio;
use drivers::virtio::{self, Found, Memory, MmioTransport};
use machine::{Machine, VirtioWindow};
use types::{AccessSize, PAGE_SIZE, Pa, Range};

/// Page frames, for good.
pub(crate) struct Pages;

// SAFETY: RAM that the frame allocator has given out and never gets back, mapped where it is.
unsafe impl Memory for Pages {
    fn take(pages: usize) -> Option<Pa> {
        frames::allocate(pages, 1, Owner::Kernel).map(|frames| frames.leak().start())
    }
}

/// A device, and where it is.
pub(crate) type Device<'m> = (MmioTransport<'static>, &'m VirtioWindow);

/// Finds them, lowest address first, once, before there are other threads.
pub(crate) fn find(machine: &Machine) {
    let (mut disks, mut cards): (Vec<Device<'_>>, Vec<Device<'_>>) = (Vec::new(), Vec::new());
    let mut mapped = Pa(0);
    for window in &machine.virtio {
        let (what, found) = match look(window, &mut mapped) {
            Some(Found::Disk(transport)) => ("disk", (&mut disks, transport)),
            Some(Found::Card(transport)) => ("network card", (&mut cards, transport)),
            None => continue,
        };
        let why = match window {
            VirtioWindow { is_coherent: false, .. } => "it goes past the caches",
            _ if is_behind_smmu(machine, window) => "an SMMU is in front of it, which refuses it",
            _ => {
                found.0.push((found.1, window));
                continue;
            }
        };
        log::warn!("the virtio {what} at {} is left alone: {why}", window.registers.start());
    }
    disk::keep(disks);
    uplink::keep(cards);
}

fn is_behind_smmu(machine: &Machine, window: &VirtioWindow) -> bool {
    let own = |registers: &Range<Pa>| registers.overlaps(&window.registers);
    machine.masters.iter().any(|master| !master.streams.is_empty() && master.registers.as_ref().is_some_and(own))
}

/// What is in a window. Everything below `mapped` is mapped: several windows share a page.
fn look(window: &VirtioWindow, mapped: &mut Pa) -> Option<Found> {
    let registers = &window.registers;
    let end = registers.end().align_up(PAGE_SIZE)?;
    let rest = Range::between(registers.start().align_down(PAGE_SIZE).max(*mapped), end);
    if !rest.is_empty() {
        if !start::try_map_device(rest) {
            log::warn!("the virtio device at {} cannot be mapped", registers.start());
            return None;
        }
        *mapped = end;
    }
    // SAFETY: by the device tree, and mapped.
    if unsafe { Mmio::of(registers) }.load(0, AccessSize::Word).is_none() {
        log::warn!("the virtio device at {} does not answer", registers.start());
        return None;
    }
    // SAFETY: by the device tree, mapped, and looked at once.
    unsafe { virtio::find(registers) }
}
