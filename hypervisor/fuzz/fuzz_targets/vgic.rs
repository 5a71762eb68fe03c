//! Everything that guests, devices and the kernel can do to an interrupt controller, in any order: it neither panics, nor
//! leaves a maintenance interrupt asserted, nor has one interrupt in two list registers (which the simulated interface
//! checks), what it reads fits the access, and no end is told of that nobody wants to hear of.

#![no_main]

use libfuzzer_sys::fuzz_target;
use types::{AccessSize, IntId, Ipa, VcpuId, VcpuSet};
use vdev::InterruptController;
use vgic::testkit::{CpuInterface, Deactivation};
use vgic::{SgiRegister, Vgic, Version, VgicConfig};

/// One more than there are, so that strangers come too.
const VCPUS: u16 = 4;
/// Where devices send messages.
const DISTRIBUTOR: u64 = 0x800_0000;

struct Machine {
    vgic: Vgic,
    cpus: Vec<CpuInterface>,
    loaded: Vec<Option<VcpuId>>,
}

impl Machine {
    fn new(shape: u8) -> Self {
        let list_registers = usize::from(shape & 3) + 1;
        let priority_bits = 5 + (shape >> 2) % 3;
        let intids = if shape & 0x80 == 0 { 96 } else { 1024 };
        let config = VgicConfig { version: Version::V3, vcpus: usize::from(VCPUS) - 1, intids, list_registers, priority_bits };
        let vgic = Vgic::new(config).unwrap().with_messages_at(Ipa(DISTRIBUTOR));
        if shape & 0x40 != 0 {
            (0..1100).filter(|intid| is_reported(*intid)).for_each(|intid| vgic.report_ends(IntId(intid)));
        }
        Self { vgic, cpus: vec![CpuInterface::new(list_registers, u32::from(priority_bits)); 2], loaded: vec![None; 2] }
    }

    /// What the kernel does before each entry.
    fn settle(&mut self) {
        for (cpu, vcpu) in self.cpus.iter_mut().zip(&self.loaded) {
            let Some(vcpu) = *vcpu else { continue };
            for round in 0.. {
                assert!(round < 4, "the maintenance interrupt does not go away: {cpu:?}");
                if cpu.maintenance() != 0 {
                    heed(&self.vgic, self.vgic.refill(vcpu, cpu), vcpu);
                } else if self.vgic.needs_refill(vcpu) {
                    heed(&self.vgic, self.vgic.refill(vcpu, cpu), vcpu);
                } else {
                    break;
                }
            }
        }
    }

    fn access(&mut self, who: usize, window: u8, offset: u64, value: u64) {
        let size = AccessSize::from_sas(u64::from(window >> 1));
        let by = self.loaded[who].unwrap_or(VcpuId(0));
        let cpu = &self.cpus[who];
        let (read, write) = if window & 1 == 0 {
            let offset = offset % Vgic::DISTRIBUTOR_SIZE;
            (self.vgic.observe_distributor(by, cpu, offset, size).0, self.vgic.write_distributor(by, offset, size, value))
        } else {
            let offset = offset % (u64::from(VCPUS) * Vgic::REDISTRIBUTOR_SIZE);
            (
                self.vgic.observe_redistributor(by, cpu, offset, size).0,
                self.vgic.write_redistributor(offset, size, value),
            )
        };
        assert_eq!(read & !size.mask(), 0);
        assert!(write.iter().all(|vcpu| vcpu.0 < VCPUS - 1));
        if self.vgic.has_ended() {
            tell(&self.vgic);
        }
    }

    fn switch(&mut self, who: usize, to: VcpuId) {
        if let Some(from) = self.loaded[who].take() {
            heed(&self.vgic, self.vgic.save(from, &mut self.cpus[who]).kick, from);
            if to == from {
                self.vgic.power_off(from);
            }
        }
        if to.0 < VCPUS - 1 && !self.loaded.contains(&Some(to)) {
            self.vgic.load(to, &mut self.cpus[who]);
            self.loaded[who] = Some(to);
        }
    }

    fn guest(&mut self, who: usize, what: u8, intid: u32) {
        let cpu = &mut self.cpus[who];
        let group = usize::from(what & 1);
        match what >> 1 & 7 {
            0 | 1 => {
                cpu.acknowledge(group);
            }
            2 => cpu.end(group, intid),
            3 => {
                if let (Deactivation::Trapped, Some(vcpu)) = (cpu.deactivate_interrupt(intid), self.loaded[who]) {
                    heed(&self.vgic, self.vgic.deactivate(vcpu, IntId(intid), cpu), vcpu);
                }
            }
            4 => cpu.enable_group(group, intid & 1 != 0),
            5 => cpu.set_mask((intid & 0xff) as u8),
            6 => cpu.set_split(intid & 1 != 0),
            _ => {
                if let Some(vcpu) = self.loaded[who] {
                    self.vgic.retract_hardware(vcpu, IntId(intid % 32), cpu);
                }
            }
        }
    }

    fn act(&mut self, action: [u8; 8]) {
        let [what, detail, rest @ ..] = action;
        let value = u64::from_le_bytes([0, 0, rest[0], rest[1], rest[2], rest[3], rest[4], rest[5]]);
        let number = u32::from(u16::from_le_bytes([rest[0], rest[1]]));
        let (who, vcpu) = (usize::from(detail & 1), VcpuId(u16::from(detail >> 1) % VCPUS));
        match what & 15 {
            // Offsets are mostly those of registers; values mostly single bits and the low word.
            0..=4 => {
                self.access(who, detail >> 1 & 7, u64::from(number) << (detail >> 4 & 3), value.rotate_left(16) >> 32)
            }
            5 => self.access(who, detail >> 1 & 7, u64::from(number & 0x7ff) | 0x1_0000, 1 << (rest[2] & 31)),
            6 => self.access(who, detail >> 1 & 6 | 4, u64::from(number & 0x7ff), 1 << (rest[2] & 31)),
            7 | 8 => {
                self.vgic.set_level(IntId(number % 1100), detail & 2 != 0);
            }
            9 => {
                self.vgic.set_private_level(vcpu, IntId(number % 40), rest[2] & 1 != 0);
            }
            10 => {
                let register = [SgiRegister::Sgi0r, SgiRegister::Sgi1r, SgiRegister::Asgi1r][usize::from(rest[5] % 3)];
                self.vgic.send_sgi(vcpu, register, value >> 16);
            }
            11 => {
                self.vgic.inject_hardware(vcpu, IntId(number % 40), IntId(u32::from(rest[2]) * 8));
            }
            12 => self.switch(who, vcpu),
            13 => {
                let offset = u64::from(detail >> 1) << if rest[2] & 1 == 0 { 3 } else { 0 };
                self.vgic.message(None, Ipa(DISTRIBUTOR.wrapping_add(offset)), number % 1100);
            }
            _ => self.guest(who, detail >> 1, number % 1024),
        }
    }
}

/// Whether somebody may want to hear of its ends.
fn is_reported(intid: u32) -> bool {
    intid.is_multiple_of(3)
}

/// A vCPU that is to kick itself has devices told.
fn heed(vgic: &Vgic, kick: VcpuSet, own: VcpuId) {
    if kick.contains(own) {
        tell(vgic);
    }
}

fn tell(vgic: &Vgic) {
    assert!(vgic.has_ended());
    let ended = vgic.take_ended();
    assert!(!vgic.has_ended());
    let all = (0..1100).filter(|intid| ended.contains(IntId(*intid)));
    assert!(all.map(is_reported).reduce(|all, one| all && one) == Some(true), "{ended:?}");
}

fuzz_target!(|data: &[u8]| {
    let Some((&shape, data)) = data.split_first() else { return };
    let mut machine = Machine::new(shape);
    machine.vgic.write_distributor(VcpuId(0), 0, AccessSize::Word, 3);
    for action in data.chunks_exact(8) {
        let Ok(action) = action.try_into() else { return };
        machine.act(action);
        // Kicks arrive at once, or later.
        if action[0] & 0x80 == 0 {
            machine.settle();
        }
        for (cpu, vcpu) in machine.cpus.iter().zip(&machine.loaded) {
            if let Some(vcpu) = *vcpu {
                machine.vgic.wants_attention(vcpu, cpu);
            }
        }
    }
    machine.settle();
});
