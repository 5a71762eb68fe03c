//! Who has which registers and which interrupts of the machine.
//!
//! Answers for: one owner for each page and each interrupt, and naming both where there would be two. Does not answer for: what is a
//! device (`vm::assemble`), nor for when a VM is no more (the kernel).

use alloc::{format, string::String, string::ToString, vec::Vec};
use machine::{Gic, Machine};
use types::{IntId, PAGE_SIZE, Pa, Range};
use vdev::Place;
use vm::assemble::PassedDevice;

/// Something that has one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Whole pages.
    Pages(Range<Pa>),
    Interrupt(IntId),
}

impl What {
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pages(one), Self::Pages(other)) => one.overlaps(other),
            (Self::Interrupt(one), Self::Interrupt(other)) => one == other,
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Pages(pages) => pages.to_string(),
            Self::Interrupt(intid) => format!("interrupt {}", intid.0),
        }
    }
}

/// What two want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Where the configuration of the one who came second says that it wants it.
    pub place: Option<Place>,
    /// Names both, and what they want.
    pub message: String,
}

#[derive(Debug)]
struct Claim<O> {
    /// `None` for the hypervisor.
    owner: Option<O>,
    name: String,
    what: What,
}

/// Everything that somebody has; `O` says who a VM is in the kernel's terms.
#[derive(Debug)]
pub struct Owners<O> {
    list: Vec<Claim<O>>,
}

impl<O: PartialEq + Copy> Owners<O> {
    /// What the hypervisor has of `machine`: RAM, interrupt controller, SMMUs, hosts of PCI, the console and all places for virtio devices.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        let mut owners = Self { list: Vec::new() };
        for bank in &machine.memory {
            owners.keep("the hypervisor, which gives it out as RAM,", *bank, None);
        }
        let frames: Vec<Range<Pa>> = match &machine.gic {
            Gic::V3 { distributor, redistributors, .. } => {
                core::iter::once(distributor).chain(redistributors).copied().collect()
            }
            Gic::V2 { distributor, cpu_interface, hypervisor_interface, virtual_cpu_interface, .. } => {
                [*distributor, *cpu_interface, *hypervisor_interface, *virtual_cpu_interface].into()
            }
        };
        frames.into_iter().for_each(|frame| owners.keep("the hypervisor's interrupt controller", frame, None));
        if let Some(console) = machine.consoles.first() {
            owners.keep("the hypervisor's console", console.registers, console.intid);
        }
        for window in &machine.virtio {
            owners.keep("the hypervisor, which drives virtio devices there,", window.registers, window.intid);
        }
        for smmu in &machine.smmus {
            for intid in [smmu.combined, smmu.eventq, smmu.gerror, smmu.cmdq_sync] {
                owners.keep("the hypervisor, which confines devices by this SMMU,", smmu.registers, intid);
            }
        }
        for host in &machine.pci {
            let windows = host.windows.iter().map(|window| window.cpu);
            for range in windows.chain([host.configuration]) {
                owners.keep("the hypervisor, which gives PCI functions out one by one,", range, None);
            }
        }
        owners
    }

    /// Something else that the hypervisor has; `name` says what it is to it.
    pub fn keep(&mut self, name: &str, registers: Range<Pa>, interrupt: Option<IntId>) {
        let start = registers.start().align_down(PAGE_SIZE);
        // A page at the end of the address space has no end of its own: what is there is nobody's.
        let pages = registers.end().align_up(PAGE_SIZE).map(|end| What::Pages(Range::between(start, end)));
        for what in pages.into_iter().chain(interrupt.map(What::Interrupt)) {
            self.list.push(Claim { owner: None, name: String::from(name), what });
        }
    }

    /// All `devices` are those of the VM `owner` from now on, or none is.
    ///
    /// # Errors
    /// Everything of them that somebody has.
    pub fn claim(&mut self, owner: O, vm: &str, devices: &[PassedDevice]) -> Result<(), Vec<Conflict>> {
        let mut conflicts = Vec::new();
        let mut claims = Vec::new();
        for (what, place) in devices.iter().flat_map(wanted) {
            match self.list.iter().find(|claim| claim.what.overlaps(&what)) {
                Some(Claim { name, what: theirs, .. }) => {
                    let (ours, theirs) = (what.shown(), theirs.shown());
                    let message = format!("VM `{vm}` cannot have {ours} of the machine: {name} has {theirs}");
                    conflicts.push(Conflict { place, message });
                }
                None => claims.push(Claim { owner: Some(owner), name: format!("VM `{vm}`"), what }),
            }
        }
        if conflicts.is_empty() {
            self.list.extend(claims);
            return Ok(());
        }
        Err(conflicts)
    }

    /// The interrupt is the VM's from now on, unless somebody else has it. Says whether it is.
    #[must_use]
    pub fn claim_interrupt(&mut self, owner: O, vm: &str, intid: IntId) -> bool {
        let what = What::Interrupt(intid);
        if let Some(claim) = self.list.iter().find(|claim| claim.what == what) {
            return claim.owner == Some(owner);
        }
        self.list.push(Claim { owner: Some(owner), name: format!("VM `{vm}`"), what });
        true
    }

    /// The VM is no more and has left this device running: nobody has it from now on, and nobody gets it.
    pub fn abandon(&mut self, owner: O, vm: &str, device: &PassedDevice) {
        let whats: Vec<What> = wanted(device).map(|(what, _)| what).collect();
        for claim in self.list.iter_mut().filter(|claim| claim.owner == Some(owner) && whats.contains(&claim.what)) {
            claim.owner = None;
            claim.name = format!("VM `{vm}`, which has ended without bringing it to rest,");
        }
    }

    /// The VM is no more, and has nothing.
    pub fn release(&mut self, owner: O) {
        self.list.retain(|claim| claim.owner != Some(owner));
    }
}

fn wanted(device: &PassedDevice) -> impl Iterator<Item = (What, Option<Place>)> {
    let pages = device.regions.iter().map(|region| (What::Pages(region.host), region.place));
    pages.chain(device.interrupts.iter().map(|interrupt| (What::Interrupt(interrupt.host), interrupt.place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Ipa;
    use vm::assemble::{PassedInterrupt, PassedRegion, Reach};

    const TREES: [&[u8]; 2] = [
        include_bytes!("../../machine/src/tests/trees/qemu-gicv3-2cpus.dtb"),
        include_bytes!("../../machine/src/tests/trees/qemu-gicv2-1cpu.dtb"),
    ];

    fn owners(tree: &[u8]) -> Owners<u16> {
        Owners::of(&Machine::from_device_tree(tree).unwrap())
    }

    fn device(host: u64, pages: u64, interrupt: u32) -> PassedDevice {
        let region = PassedRegion {
            guest: Range::new(Ipa(0x1c17_0000), pages * PAGE_SIZE).unwrap(),
            host: Range::new(Pa(host), pages * PAGE_SIZE).unwrap(),
            writable: true,
            place: None,
        };
        let interrupt = PassedInterrupt { guest: IntId(40), host: IntId(interrupt), edge: false, place: None };
        PassedDevice { place: None, reach: Reach::Nothing, regions: [region].into(), interrupts: [interrupt].into() }
    }

    fn refused(owners: &mut Owners<u16>, vm: u16, device: PassedDevice) -> Vec<String> {
        let conflicts = owners.claim(vm, &format!("vm{vm}"), &[device]).unwrap_err();
        conflicts.into_iter().map(|conflict| conflict.message).collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn what_the_hypervisor_has_no_vm_gets() {
        for tree in TREES {
            let mut owners = owners(tree);
            for (at, name) in [
                (0x4000_0000, "RAM"),
                (0x7fff_f000, "RAM"),
                (0x800_0000, "interrupt controller"),
                (0x900_0000, "console"),
                (0xa00_0000, "virtio"),
                (0xa00_3000, "virtio"),
                (0x1000_0000, "PCI functions"),
                (0x3eff_0000, "PCI functions"),
                (0x80_0000_0000, "PCI functions"),
                (0x40_1000_0000, "PCI functions"),
            ] {
                let said = refused(&mut owners, 1, device(at, 1, 34));
                assert!(said.len() == 1 && said[0].contains(name) && said[0].contains("VM `vm1`"), "{at:#x}: {said:?}");
            }
            let said = refused(&mut owners, 1, device(0x901_0000, 1, 33));
            assert_eq!(
                said,
                ["VM `vm1` cannot have interrupt 33 of the machine: the hypervisor's console has interrupt 33"]
            );
            owners.claim(1, "vm1", &[device(0x901_0000, 1, 34)]).unwrap();
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn what_was_left_running_nobody_gets() {
        let mut owners = owners(TREES[0]);
        let (clock, other) = (device(0x901_0000, 1, 34), device(0x903_0000, 1, 39));
        owners.claim(1, "one", &[clock.clone(), other.clone()]).unwrap();
        owners.abandon(2, "two", &clock);
        owners.abandon(1, "one", &clock);
        owners.release(1);
        for (vm, name) in [(1, "vm1"), (2, "vm2")] {
            let said = refused(&mut owners, vm, clock.clone());
            let why = "VM `one`, which has ended without bringing it to rest, has";
            assert_eq!(said.len(), 2, "registers and interrupt: {said:?}");
            assert!(said.iter().all(|said| said.contains(why) && said.contains(name)), "{said:?}");
        }
        owners.claim(2, "two", &[other]).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn of_two_vms_the_first_has_it_until_it_is_no_more() {
        let mut owners = owners(TREES[0]);
        owners.claim(1, "one", &[device(0x901_0000, 1, 34)]).unwrap();
        assert_eq!(
            refused(&mut owners, 2, device(0x900_f000 + 0x1000, 1, 35)),
            ["VM `vm2` cannot have 0x9010000-0x9010fff of the machine: VM `one` has 0x9010000-0x9010fff"]
        );
        assert_eq!(refused(&mut owners, 2, device(0x903_0000, 1, 34)).len(), 1);
        assert_eq!(refused(&mut owners, 1, device(0x901_0000, 1, 34)).len(), 2, "nor does it get it twice");
        owners.release(2);
        assert_eq!(refused(&mut owners, 2, device(0x901_0000, 1, 34)).len(), 2, "it had nothing");
        owners.release(1);
        owners.claim(2, "two", &[device(0x901_0000, 1, 34)]).unwrap();
    }

    #[test]
    fn an_interrupt_by_itself_is_the_first_ones_until_it_is_no_more() {
        let mut owners = owners(TREES[0]);
        assert!(owners.claim_interrupt(1, "one", IntId(36)), "a pin that two functions of a VM may have");
        assert!(owners.claim_interrupt(1, "one", IntId(36)));
        assert!(!owners.claim_interrupt(2, "two", IntId(36)) && !owners.claim_interrupt(2, "two", IntId(33)));
        assert!(owners.claim_interrupt(2, "two", IntId(37)));
        let said = refused(&mut owners, 2, device(0x903_0000, 1, 36));
        assert_eq!(said, ["VM `vm2` cannot have interrupt 36 of the machine: VM `one` has interrupt 36"]);
        owners.claim(2, "two", &[device(0x903_0000, 1, 39)]).unwrap();
        assert!(!owners.claim_interrupt(1, "one", IntId(39)), "a device's");
        owners.release(2);
        assert!(!owners.claim_interrupt(2, "two", IntId(36)));
        owners.release(1);
        assert!(owners.claim_interrupt(2, "two", IntId(36)) && owners.claim_interrupt(2, "two", IntId(39)));
    }

    #[test]
    fn who_cannot_have_all_has_nothing() {
        let mut owners = owners(TREES[0]);
        let both = [device(0x903_0000, 1, 39), device(0x900_0000, 1, 34)];
        assert_eq!(owners.claim(1, "one", &both).unwrap_err().len(), 1);
        owners.claim(2, "two", &both[..1]).unwrap();
    }

    #[test]
    fn half_a_page_is_a_page() {
        let mut owners = owners(TREES[0]);
        owners.keep("the board's generator of random numbers", Range::new(Pa(0xb00_0800), 4).unwrap(), None);
        let said = refused(&mut owners, 1, device(0xb00_0000, 1, 34));
        assert!(said[0].contains("the board's generator of random numbers has 0xb000000-0xb000fff"), "{said:?}");
    }
}
