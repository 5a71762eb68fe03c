//! What the guest writes to the registers of distributor and redistributors, in the controller and in the model.

use super::*;

impl Machine {
    // ---- registers

    fn write(&mut self, vcpu: usize, intid: usize, offset: u64, size: AccessSize, value: u64) -> VcpuSet {
        if intid < 32 {
            let frame = vcpu as u64 * Vgic::REDISTRIBUTOR_SIZE + 0x1_0000;
            self.vgic.write_redistributor(frame + offset, size, value)
        } else {
            self.vgic.write_distributor(VcpuId(0), offset, size, value)
        }
    }

    pub(super) fn set_bit(&mut self, vcpu: usize, intid: usize, offset: u64, _set: bool) {
        let word = if intid < 32 { 0 } else { intid as u64 / 32 * 4 };
        let source = self.model.source(vcpu, intid);
        if offset == 0x100 && !source.enabled && (source.pending() || source.line) && is_reported(intid) {
            self.ended.insert(intid);
        }
        self.write(vcpu, intid, offset + word, AccessSize::Word, 1 << (intid % 32));
        if self.vgic.has_ended() {
            self.tell();
        }
    }

    pub(super) fn set_priority(&mut self, vcpu: usize, intid: usize, priority: u8) {
        let mask = 0xff_u8 << (8 - self.shape.priority_bits);
        self.write(vcpu, intid, 0x400 + intid as u64, AccessSize::Byte, u64::from(priority));
        self.model.source(vcpu, intid).priority = priority & mask;
    }

    pub(super) fn set_group(&mut self, vcpu: usize, intid: usize, group: usize) {
        self.model.source(vcpu, intid).group = group;
        let first = intid / 32 * 32;
        let word = (first..first + 32)
            .fold(0, |word, intid| word | (self.model.source(vcpu, intid).group as u64) << (intid - first));
        let offset = 0x80 + if intid < 32 { 0 } else { intid as u64 / 32 * 4 };
        self.write(vcpu, intid, offset, AccessSize::Word, word);
    }

    pub(super) fn configure(&mut self, vcpu: usize, intid: usize, edge: bool) {
        self.model.source(vcpu, intid).edge = edge;
        let first = intid / 16 * 16;
        let word = (first..first + 16)
            .fold(0, |word, intid| word | u64::from(self.model.source(vcpu, intid).edge) << (2 * (intid - first) + 1));
        self.write(vcpu, intid, 0xc00 + intid as u64 / 16 * 4, AccessSize::Word, word);
    }

    pub(super) fn route(&mut self, intid: usize, vcpu: usize) {
        let affinity = types::Mpidr::of_vcpu(Self::id(vcpu)).0;
        self.write(0, intid, 0x6000 + intid as u64 * 8, AccessSize::Doubleword, affinity);
        self.model.source(0, intid).route = vcpu;
    }

    pub(super) fn write_control(&mut self, groups: [bool; 2]) {
        let value = u64::from(groups[0]) | u64::from(groups[1]) << 1;
        self.vgic.write_distributor(VcpuId(0), 0, AccessSize::Word, value);
        self.model.groups = groups;
    }

    /// A guest changes the configuration of something.
    pub(super) fn reconfigure(&mut self) {
        let (vcpu, intid) = (self.some_vcpu(), self.below(INTIDS));
        let source = *self.model.source(vcpu, intid);
        match self.below(12) {
            0..=3 => {
                let enable = !source.enabled;
                self.set_bit(vcpu, intid, if enable { 0x100 } else { 0x180 }, true);
                self.model.source(vcpu, intid).enabled = enable;
            }
            4 if intid != TIMER => {
                self.set_bit(vcpu, intid, 0x200, true);
                self.model.source(vcpu, intid).latch = true;
            }
            5 => {
                self.set_bit(vcpu, intid, 0x280, true);
                // A hardware-linked level that is asserted cannot be cleared.
                self.model.source(vcpu, intid).latch &= intid == TIMER;
            }
            6 if intid >= 32 => {
                let route = self.some_vcpu();
                self.route(intid, route);
            }
            7 if !source.pending() && source.active.is_none() => {
                let priority = self.below(256) as u8;
                self.set_priority(vcpu, intid, priority);
            }
            8 if source.active.is_none() => {
                let group = usize::from(!self.chance(4));
                self.set_group(vcpu, intid, group);
            }
            9 if intid >= 16 && intid != TIMER && source.active.is_none() => {
                let edge = self.chance(2);
                self.configure(vcpu, intid, edge);
            }
            10 if self.chance(4) => {
                let groups = [!self.chance(4), !self.chance(4)];
                self.write_control(groups);
            }
            11 => self.change_interface(),
            _ => {}
        }
    }
}
