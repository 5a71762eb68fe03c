//! A guest that does whatever it likes with an ITS: tables, commands and registers of any content, memory that changes, messages of
//! devices, vCPUs that come and go. It neither panics nor works without end, has no interrupt in two list registers (which the
//! simulated interface checks), leaves no maintenance interrupt asserted, and gives no vCPU an LPI that there is not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use types::{AccessSize, Ipa, RequesterId, VcpuId};
use vdev::{GuestMemory, InterruptController};
use vgic::testkit::CpuInterface;
use vgic::testkit::its::{DEVICES, Driver, ITS, MEMORY, PENDING, PROPERTIES, QUEUE, TRANSLATER, command, rd_base};
use vgic::{Progress, Version, Vgic, VgicConfig};

const VCPUS: usize = 2;
/// Of the guest's memory for tables.
const SIZE: u64 = 0x40_0000;

struct Machine {
    vgic: Vgic,
    driver: Driver,
    cpus: Vec<CpuInterface>,
    loaded: [bool; VCPUS],
    lpis: u32,
}

impl Machine {
    fn new(shape: u8) -> Self {
        let list_registers = usize::from(shape & 3) + 1;
        let lpis = [32, 64, 256, 8192][usize::from(shape >> 2 & 3)];
        let config = VgicConfig { version: Version::V3, vcpus: VCPUS, intids: 64, list_registers, priority_bits: 5 };
        let vgic = Vgic::new(config).and_then(|vgic| vgic.with_its(ITS, lpis)).unwrap();
        vgic.write_distributor(VcpuId(0), 0, AccessSize::Word, 3);
        // Some guests have set everything up, others have nothing.
        let mut driver = if shape & 0x10 == 0 { Driver::new(&vgic, VCPUS) } else { Driver::default() };
        if shape & 0x30 == 0 {
            driver.send(&vgic, &[command::mapd(3, Some(5))]);
            for event in 0..32 {
                driver.configure(8192 + event, (event * 8) as u8 | 1);
                driver.send(&vgic, &[command::mapti(3, event, 8192 + event, event % 2)]);
            }
        }
        let mut cpu = CpuInterface::new(list_registers, 5);
        cpu.lpis_are_active = shape & 0x40 != 0;
        let mut machine = Self { vgic, driver, cpus: vec![cpu; VCPUS], loaded: [false; VCPUS], lpis };
        for vcpu in 0..VCPUS {
            machine.switch(vcpu);
            machine.cpus[vcpu].enable_group(1, true);
            machine.cpus[vcpu].set_mask(0xff);
        }
        machine
    }

    fn switch(&mut self, vcpu: usize) {
        let id = VcpuId(vcpu as u16);
        if self.loaded[vcpu] {
            let _ = self.vgic.save(id, &mut self.cpus[vcpu]);
        } else {
            self.vgic.load(id, &mut self.cpus[vcpu]);
        }
        self.loaded[vcpu] ^= true;
    }

    /// What the kernel does before each entry.
    fn settle(&mut self) {
        for (vcpu, cpu) in self.cpus.iter_mut().enumerate().filter(|(vcpu, _)| self.loaded[*vcpu]) {
            let id = VcpuId(vcpu as u16);
            for round in 0.. {
                assert!(round < 4, "the maintenance interrupt does not go away: {cpu:?}");
                if cpu.maintenance() != 0 {
                    let _ = self.vgic.refill(id, cpu);
                } else if self.vgic.needs_refill(id) {
                    let _ = self.vgic.refill(id, cpu);
                } else {
                    break;
                }
            }
            self.vgic.wants_attention(id, cpu);
        }
    }

    fn finish(&self, progress: Progress, at_once: bool) {
        assert!(progress.kick.iter().all(|vcpu| vcpu.index() < VCPUS));
        if at_once {
            self.driver.finish(&self.vgic, progress);
        }
    }

    fn act(&mut self, action: [u8; 12]) {
        let [what, detail, rest @ ..] = action;
        let vcpu = usize::from(detail & 1);
        let at_once = detail & 2 == 0;
        let number = u64::from(u16::from_le_bytes([rest[0], rest[1]]));
        let value = u64::from_le_bytes([rest[2], rest[3], rest[4], rest[5], rest[6], rest[7], rest[8], rest[9]]);
        match what % 10 {
            0 => {
                let size = AccessSize::from_sas(u64::from(detail >> 2 & 3));
                let offset = number & if detail & 0x80 == 0 { 0x1ff } else { 0xffff } | u64::from(detail >> 6 & 1) << 16;
                assert_eq!(self.vgic.read_its(offset, size) & !size.mask(), 0);
                self.finish(self.vgic.write_its(offset, size, value & size.mask(), &self.driver.memory), at_once);
            }
            1 => {
                let offset = rd_base(vcpu) + (number & 0xff);
                let size = if detail & 4 == 0 { AccessSize::Doubleword } else { AccessSize::Word };
                assert_eq!(self.vgic.read_redistributor(offset, size) & !size.mask(), 0);
                // Mostly where there is memory.
                let value = if detail & 8 == 0 { PENDING + (value & 0x3_ffff) } else { value };
                if let Some(progress) = self.vgic.write_lpi_register(offset, size, value & size.mask(), &self.driver.memory) {
                    self.finish(progress, at_once);
                }
            }
            // A command of any content, or with small numbers in its fields.
            2..=4 => {
                let small = |byte: u8| u64::from(byte & 0x1f);
                let command = if detail & 4 == 0 {
                    let (number, device) = (u64::from(rest[0] & 0xf), 3 + u64::from(rest[1] & 1));
                    let valid = u64::from(rest[3] >> 7) << 63;
                    let lpi = 8192 + small(rest[4]);
                    let table = if number == 8 { DEVICES } else { 0 };
                    let target = u64::from(rest[3] & 1);
                    [number | device << 32, small(rest[2]) | lpi << 32, valid | table | target, u64::from(rest[5] & 1) << 16]
                } else {
                    [number, value, value.rotate_left(17), value.rotate_right(9)]
                };
                let write = self.driver.queue(&[command]);
                self.finish(self.vgic.write_its(0x88, AccessSize::Doubleword, write, &self.driver.memory), at_once);
            }
            5 => {
                let place = [PROPERTIES, QUEUE, PENDING, MEMORY.0][usize::from(detail >> 2 & 3)];
                let at = (place + number) % (MEMORY.0 + SIZE - 8);
                let _ = self.driver.memory.write(Ipa(at.max(MEMORY.0)), &value.to_le_bytes());
            }
            6 | 7 => {
                let from = (detail & 0x40 == 0).then_some(RequesterId(3 + u16::from(detail >> 2 & 1)));
                let kick = self.vgic.message(from, TRANSLATER, (number & 0x3f) as u32);
                assert!(kick.iter().all(|vcpu| vcpu.index() < VCPUS));
            }
            8 => self.switch(vcpu),
            _ if self.loaded[vcpu] => {
                let intid = self.cpus[vcpu].acknowledge(1);
                assert!(intid == 1023 || (8192..8192 + self.lpis).contains(&intid), "there is no {intid}");
                if intid != 1023 && detail & 4 == 0 {
                    self.cpus[vcpu].end(1, intid);
                }
            }
            _ => self.finish(self.vgic.go_on(&self.driver.memory), at_once),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&shape, data)) = data.split_first() else { return };
    let mut machine = Machine::new(shape);
    for action in data.chunks_exact(12) {
        let Ok(action) = action.try_into() else { return };
        machine.act(action);
        // Kicks arrive at once, or later.
        if action[0] & 0x80 == 0 {
            machine.settle();
        }
    }
    machine.settle();
    let status = machine.vgic.its_status().unwrap();
    assert!(status.events <= status.lpis && status.devices <= status.lpis);
});
