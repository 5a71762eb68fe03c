//! The redistributors' registers for LPIs: IHI 0069, "The GIC Redistributor register map", GICR_CTLR, GICR_PROPBASER,
//! GICR_PENDBASER, GICR_INVLPIR, GICR_INVALLR, GICR_SYNCR.
//!
//! Answers for: where the guest's tables are, and whose LPIs are enabled. Does not answer for: the rest of a redistributor
//! (`v3::redistributor`).
//!
//! All redistributors share one configuration table (`GICR_TYPER.CommonLPIAff` is 0), so there is one `GICR_PROPBASER`. LPIs that
//! have been enabled stay so (`GICR_CTLR.CES` is 0), until the VM begins anew.

use super::{CHUNK, Its, Progress, Surroundings, intid_of, number_of};
use crate::Vgic;
use crate::shared::FIRST_LPI;
use crate::word::{Ones, low, merge, part};
use alloc::{vec, vec::Vec};
use types::{AccessSize, Ipa, VcpuId, VcpuSet};
use vdev::GuestMemory;

const CTLR: u64 = 0x0000;
const PROPBASER: u64 = 0x0070;
const PENDBASER: u64 = 0x0078;
const INVLPIR: u64 = 0x00a0;
const INVALLR: u64 = 0x00b0;
const SYNCR: u64 = 0x00c0;

/// `GICR_CTLR.EnableLPIs`.
const ENABLE_LPIS: u64 = 1 << 0;
/// `GICR_CTLR.IR`: `GICR_INVLPIR` and `GICR_INVALLR` work.
const IR: u64 = 1 << 2;
/// Inner Write-Back, Read-allocate, Write-allocate; outer the same; Inner Shareable. Fixed, as the ITS's.
const ATTRIBUTES: u64 = 7 << 7 | 1 << 10;
/// `GICR_PROPBASER.Physical_Address`.
const PROPERTIES_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// `GICR_PROPBASER.IDbits`: bits of INTID, less one.
const PROPERTIES_ID_BITS: u64 = 0x1f;
/// `GICR_PENDBASER.Physical_Address`.
const PENDING_ADDRESS: u64 = 0x000f_ffff_ffff_0000;
/// `GICR_PENDBASER.PTZ`: the table is all zero. Reads as zero.
const PENDING_ZERO: u64 = 1 << 62;

/// That of one vCPU.
#[derive(Clone, Debug)]
struct Redistributor {
    pending: u64,
    enabled: bool,
    /// From where on its pending table is still to be read, if it is.
    load: Option<u16>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Redistributors {
    properties: u64,
    each: Vec<Redistributor>,
    /// Those whose pending tables are still to be read.
    loading: VcpuSet,
    /// From where on all configurations are still to be read, if they are.
    invalid: Option<u16>,
}

impl Redistributors {
    pub(super) fn new(vcpus: usize) -> Self {
        let redistributor = Redistributor { pending: ATTRIBUTES, enabled: false, load: None };
        Self { properties: ATTRIBUTES, each: vec![redistributor; vcpus], loading: VcpuSet::EMPTY, invalid: None }
    }

    pub(super) fn is_enabled(&self, vcpu: u8) -> bool {
        self.each.get(usize::from(vcpu)).is_some_and(|redistributor| redistributor.enabled)
    }

    pub(super) fn are_busy(&self) -> bool {
        self.invalid.is_some() || !self.loading.is_empty()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.each.len()
    }

    /// Where the configurations of the `count` LPIs from `first` on are, if the table has them.
    pub(super) fn configurations(&self, first: u16, count: usize) -> Option<Ipa> {
        let end = u64::from(FIRST_LPI).checked_add(first.into())?.checked_add(u64::try_from(count).ok()?)?;
        let bits = low(self.properties & PROPERTIES_ID_BITS).wrapping_add(1);
        // 32 bits at most.
        (end <= 1_u64.wrapping_shl(bits))
            .then_some(Ipa((self.properties & PROPERTIES_ADDRESS).wrapping_add(first.into())))
    }
}

impl Vgic {
    /// A read of a vCPU's register for LPIs, by its offset in the RD_base frame; of anything else it is zero.
    pub(crate) fn read_lpi_register(&self, vcpu: VcpuId, offset: u64, size: AccessSize) -> u64 {
        let Some(unit) = &self.unit else { return 0 };
        let its = unit.its.lock();
        let redistributors = &its.redistributors;
        let Some(redistributor) = redistributors.each.get(vcpu.index()) else { return 0 };
        let value = match offset & !7 {
            CTLR if size == AccessSize::Word => IR | if redistributor.enabled { ENABLE_LPIS } else { 0 },
            PROPBASER => redistributors.properties,
            PENDBASER => redistributor.pending,
            // GICR_SYNCR.Busy
            SYNCR => u64::from(redistributors.are_busy()),
            _ => 0,
        };
        part(value, offset, size)
    }

    /// A write in the redistributors' window, at `offset` below [`Vgic::REDISTRIBUTOR_SIZE`] times the number of vCPUs, if it is of a
    /// register for LPIs and there are any; else `None`, and nothing has happened. `memory` is the VM's.
    pub fn write_lpi_register(
        &self,
        offset: u64,
        size: AccessSize,
        value: u64,
        memory: &dyn GuestMemory,
    ) -> Option<Progress> {
        self.unit.as_ref()?;
        let (vcpu, _, offset) = self.frame(offset)?;
        let is_one = matches!(offset & !7, CTLR | PROPBASER | PENDBASER | INVLPIR | INVALLR);
        is_one.then(|| self.with_unit(memory, |its, around| its.write_redistributor(vcpu, offset, size, value, around)))
    }
}

impl Its {
    fn write_redistributor(
        &mut self,
        vcpu: VcpuId,
        offset: u64,
        size: AccessSize,
        value: u64,
        around: &mut Surroundings<'_>,
    ) {
        let redistributors = &mut self.redistributors;
        let any_enabled = redistributors.each.iter().any(|redistributor| redistributor.enabled);
        let Some(redistributor) = redistributors.each.get_mut(vcpu.index()) else { return };
        match offset & !7 {
            CTLR if offset == CTLR && size == AccessSize::Word && value & ENABLE_LPIS != 0 => {
                if redistributor.load.is_some() && !redistributor.enabled {
                    redistributors.loading.insert(vcpu);
                }
                if !redistributor.enabled {
                    redistributors.invalid = Some(0);
                }
                redistributor.enabled = true;
            }
            // Written while LPIs are enabled both have UNPREDICTABLE effects: none.
            PROPBASER if !any_enabled => {
                let new = merge(redistributors.properties, offset, size, value);
                redistributors.properties = new & (PROPERTIES_ADDRESS | PROPERTIES_ID_BITS) | ATTRIBUTES;
            }
            PENDBASER if !redistributor.enabled => {
                let new = merge(redistributor.pending, offset, size, value);
                redistributor.pending = new & PENDING_ADDRESS | ATTRIBUTES;
                redistributor.load = (new & PENDING_ZERO == 0).then_some(0);
            }
            INVLPIR if is_whole(offset, size) => {
                let lpi = low(value).checked_sub(FIRST_LPI).and_then(|lpi| u16::try_from(lpi).ok());
                if let Some(lpi) = lpi.filter(|lpi| *lpi < self.lpis) {
                    self.reload(lpi, around);
                }
            }
            INVALLR if is_whole(offset, size) => redistributors.invalid = Some(0),
            _ => {}
        }
    }

    /// Does a piece of what the redistributors have to read, if they have to. Says whether it did.
    pub(super) fn work_for_redistributors(&mut self, around: &mut Surroundings<'_>) -> bool {
        if let Some(first) = self.redistributors.invalid {
            self.redistributors.invalid = self.reload_some(first, around);
            return true;
        }
        let Some(vcpu) = self.redistributors.loading.iter().next() else { return false };
        let next = self.load_some(vcpu, around);
        if let Some(redistributor) = self.redistributors.each.get_mut(vcpu.index()) {
            redistributor.load = next;
        }
        if next.is_none() {
            self.redistributors.loading.remove(vcpu);
        }
        true
    }

    /// Reads a piece of a vCPU's pending table (IHI 0069, "LPI Pending tables": a bit for each INTID, from 0 on). Returns where the
    /// rest begins.
    fn load_some(&self, vcpu: VcpuId, around: &mut Surroundings<'_>) -> Option<u16> {
        let redistributor = self.redistributors.each.get(vcpu.index())?;
        let first = redistributor.load?;
        let (end, next) = self.chunk(first);
        let mut bytes = [0; CHUNK as usize / 8];
        let at = u64::from(intid_of(first).0 / 8).wrapping_add(redistributor.pending & PENDING_ADDRESS);
        if around.memory.read(Ipa(at), &mut bytes).is_err() {
            return None;
        }
        for (byte, lpi) in bytes.into_iter().zip((first..end).step_by(8)) {
            for index in Ones(byte.into()) {
                let intid = intid_of(lpi).0.wrapping_add(index);
                around.change(|lpis| lpis.trigger(intid, number_of(vcpu)));
            }
        }
        next
    }
}

/// Whether a write of a doubleword register is of its lower half, where the INTID is, or of all of it.
const fn is_whole(offset: u64, size: AccessSize) -> bool {
    offset & 7 == 0 && matches!(size, AccessSize::Word | AccessSize::Doubleword)
}
