//! Where devices' messages go, and which interrupts they are.
//!
//! Answers for: one message for one device: by the ITS of a GICv3 as an LPI, else as an SPI by a GICv2's frame or by the distributor.
//! Does not answer for: more of them, LPIs of other CPUs than this one, what is tested about an ITS (`guest-selftest`).
//!
//! IHI 0069, "LPIs", "The Interrupt Translation Service", "ITS commands", `GICD_SETSPI_NSR`; Arm Server Base System Architecture 3.0,
//! appendix E (GICv2m).

use core::sync::atomic::{AtomicU8, Ordering};

use crate::gic::{DEFAULT_PRIORITY, Gic};
use crate::machine::Machine;
use crate::mmio::Mmio;
use crate::registers::dsb;
use crate::timer;
use crate::tree::Tree;

const GITS_CTLR: usize = 0x0000;
const GITS_CBASER: usize = 0x0080;
const GITS_CWRITER: usize = 0x0088;
const GITS_CREADR: usize = 0x0090;
const GITS_BASER: usize = 0x0100;
const GITS_TRANSLATER: u64 = 0x1_0040;
const GICR_CTLR: usize = 0x0000;
const GICR_PROPBASER: usize = 0x0070;
const GICR_PENDBASER: usize = 0x0078;
/// Of a GICv2's frame: which SPIs it makes, and where a message's number goes; the latter of a distributor, too.
const MSI_TYPER: usize = 0x008;
const SETSPI: u64 = 0x040;

/// Tables of 64 KiB, at multiples of that; of the first the lower half is that of properties.
const TABLE: usize = 0x1_0000;
const QUEUE: usize = 0x4000;
const TRANSLATIONS: usize = 0x8000;
const COLLECTIONS: usize = TABLE;
const DEVICES: usize = 2 * TABLE;
const PENDING: usize = 3 * TABLE;
const TABLES: usize = 5 * TABLE;
const QUEUE_SIZE: u64 = 0x1000;
const FIRST_LPI: u32 = 8192;
/// An ITS answers within this many microseconds.
const LONG: u64 = 1_000_000;

/// Wherever the image is loaded, there are four tables with their alignment in it.
static MEMORY: [AtomicU8; TABLES] = [const { AtomicU8::new(0) }; TABLES];

/// What a device has to write where, and the interrupt that comes of it.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Where.
    pub address: u64,
    /// What.
    pub data: u32,
    /// The interrupt, enabled for this CPU.
    pub intid: u32,
}

/// A message for the device that an ITS knows by this number; none if nobody takes messages.
#[must_use]
pub fn open(machine: &'static Machine, tree: Tree, device: u32) -> Option<Message> {
    let gic = Gic::of(machine);
    if let Some(at) = machine.its {
        // SAFETY: the tree says that it is there; all that is not RAM is mapped as device memory.
        let its = unsafe { Mmio::new(at as usize) };
        return start(its, gic, device).then_some(Message { address: at + GITS_TRANSLATER, data: 0, intid: FIRST_LPI });
    }
    let (address, intid) = if let Some(frame) = machine.message_frame {
        // SAFETY: as above.
        let kinds = unsafe { Mmio::new(frame as usize) }.read(MSI_TYPER);
        (frame + SETSPI, kinds >> 16 & 0x3ff)
    } else {
        let node = tree.nodes().find(|node| node.is_compatible("arm,gic-v3"))?;
        let first = node.property("mbi-ranges")?.first_chunk()?;
        (machine.distributor.start + SETSPI, u32::from_be_bytes(*first))
    };
    gic.set_edge(intid, true);
    gic.set_priority(intid, DEFAULT_PRIORITY);
    gic.enable(intid);
    Some(Message { address, data: intid, intid })
}

/// Where the table at `offset` is.
fn table(offset: usize) -> u64 {
    ((&raw const MEMORY).addr().next_multiple_of(TABLE) + offset) as u64
}

fn set_byte(at: u64, value: u8) {
    if let Some(byte) = (at as usize).checked_sub((&raw const MEMORY).addr()).and_then(|offset| MEMORY.get(offset)) {
        byte.store(value, Ordering::Relaxed);
    }
}

/// Has event 0 of the device be the first LPI, for this CPU; false if the ITS does not answer.
fn start(its: Mmio, gic: Gic, device: u32) -> bool {
    let redistributor = gic.redistributor;
    set_byte(table(0), DEFAULT_PRIORITY | 1);
    if redistributor.read(GICR_CTLR) & 1 == 0 {
        // Inner shareable, write-back; IDs of 14 bits; the pending table is zero.
        redistributor.write64(GICR_PROPBASER, table(0) | 1 << 10 | 7 << 7 | 13);
        redistributor.write64(GICR_PENDBASER, 1 << 62 | table(PENDING) | 1 << 10 | 7 << 7);
        dsb();
        redistributor.write(GICR_CTLR, 1);
    }
    if its.read(GITS_CTLR) & 1 == 0 {
        for index in 0..8 {
            let offset = GITS_BASER + 8 * index;
            let place = match its.read64(offset) >> 56 & 7 {
                1 => DEVICES,
                4 => COLLECTIONS,
                _ => continue,
            };
            // One page of 64 KiB.
            its.write64(offset, 1 << 63 | 7 << 59 | table(place) | 1 << 10 | 2 << 8);
        }
        its.write64(GITS_CBASER, 1 << 63 | 7 << 59 | table(QUEUE) | 1 << 10);
        its.write64(GITS_CWRITER, 0);
        its.write(GITS_CTLR, 1);
    }
    let (device, cpu) = (u64::from(device) << 32, 0);
    let commands = [
        // MAPD with one bit of events, MAPC, MAPTI, INV.
        [0x08 | device, 0, 1 << 63 | table(TRANSLATIONS), 0],
        [0x09, 0, 1 << 63 | cpu << 16, 0],
        [0x0a | device, u64::from(FIRST_LPI) << 32, 0, 0],
        [0x0c | device, 0, 0, 0],
    ];
    let mut write = its.read64(GITS_CWRITER);
    for command in commands {
        for (at, byte) in (table(QUEUE) + write..).zip(command.iter().flat_map(|word| word.to_le_bytes())) {
            set_byte(at, byte);
        }
        write = (write + 32) % QUEUE_SIZE;
    }
    dsb();
    its.write64(GITS_CWRITER, write);
    timer::wait_until(LONG, || its.read64(GITS_CREADR) == write)
}
