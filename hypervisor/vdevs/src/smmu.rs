//! `vdev smmu`: an SMMUv3 for a guest that confines its own drivers.
//!
//! Answers for: the plug around [`vsmmu::Smmu`]: its window, one interrupt line for all it has to say, its node in the guest's device
//! tree (Linux `iommu/arm,smmu-v3.yaml`), and a worker that does what takes long. Does not answer for: what it is (`vsmmu`).
//!
//! Behind it are devices of the machine that the VM has and an SMMU of the machine's confines. Virtual devices are not: what they do in the
//! VM's memory the hypervisor does for them, at the guest's addresses, and no table of the guest's is asked.

use crate::plug::Plug;
use alloc::{boxed::Box, string::ToString};
use types::{AccessSize, Ipa};
use vdev::{
    AccessFault, AccessSizes, Bell, Context, Control, ControlError, Factory, FactoryFlags, Node, OptionError, Options,
    Setup, Shared, Step, Trigger, Vdev, Wake, Work, Worker,
};
use vsmmu::{Behind, Host, NoStreams, Shape, Smmu};

/// The SMMU's window is a multiple of this (IHI 0070, 6.1).
const ALIGNMENT: u64 = 0x1_0000;
/// Batches of a step: enough for a few commands and the `CMD_SYNC` behind them.
const BATCHES: u32 = 4;
/// Events of a step.
const EVENTS: u32 = 16;

/// `vdev smmu`.
pub(crate) static FACTORY: Factory = Factory {
    name: "smmu",
    flags: FactoryFlags::LOC_MEM
        .union(FactoryFlags::ASSIGN)
        .union(FactoryFlags::INTR_REQUIRED)
        .union(FactoryFlags::SMMU),
    // Registers answer all of them.
    access_sizes: AccessSizes::all(),
    region_size: Smmu::SIZE,
    help: "Arm SMMUv3, stage 1: the guest's own confinement of its devices",
    about: "Stage 1 before the stage 2 that confines the VM, for functions of the machine\n\
        that the VM has on its PCI bus (`pass loc pci:`) and an SMMU confines. Virtual\n\
        devices are not behind it. `loc` is a multiple of 64K, `intr` an edge. One for\n\
        each VM.\n\n    \
        vdev smmu loc 0x1d000000 intr gic:64",
    ..Factory::new(create)
};

struct Plugged {
    plug: Plug,
    smmu: Shared<Smmu>,
    bell: Bell,
}

/// Does in batches what the guest's writes ask for.
struct Engine {
    smmu: Shared<Smmu>,
    host: Box<dyn Host>,
}

fn create(_: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    if setup.location.is_some_and(|Ipa(at)| !at.is_multiple_of(ALIGNMENT)) {
        return Err(OptionError::general("`loc` has to be a multiple of 64K".to_string()));
    }
    let plug = Plug::new(setup)?;
    let streams = setup.streams();
    let asid16 = streams.as_ref().is_none_or(|streams| streams.has_asid16());
    let shape = Shape { stream_bits: 16, address_bits: setup.address_bits, asid16 };
    let smmu = Shared::new(Smmu::new(shape, streams.as_ref().map_or(&[], |streams| streams.streams())));
    let host: Box<dyn Host> = match streams {
        Some(streams) => Box::new(Behind::new(streams)),
        None => Box::new(NoStreams),
    };
    let bell = setup.worker(Box::new(Engine { smmu: smmu.clone(), host }))?;
    Ok(Box::new(Plugged { plug, smmu, bell }))
}

impl Engine {
    /// Tells the guest of events. Whether there may be more.
    fn report(&mut self, work: &Work<'_>) -> bool {
        for _ in 0..EVENTS {
            let Some(event) = self.host.event() else { return false };
            work.with(&self.smmu, |smmu, context| {
                if smmu.report(&event, work.memory()).any() {
                    context.pulse_line();
                }
            });
        }
        true
    }
}

impl Worker for Engine {
    fn step(&mut self, work: &mut Work<'_>) -> Step {
        // A driver polls for its CMD_SYNC: the vCPU whose access it was does the next step as well.
        work.count_request();
        let has_events = self.report(work);
        for _ in 0..BATCHES {
            let batch = work.with(&self.smmu, |smmu, _| smmu.begin(work.memory()));
            batch.carry_out(&mut *self.host);
            let is_more = work.with(&self.smmu, |smmu, context| {
                if smmu.finish().any() {
                    context.pulse_line();
                }
                smmu.has_work()
            });
            if !is_more {
                return if has_events { Step::Again } else { Step::Wait };
            }
        }
        Step::Again
    }
}

impl Vdev for Plugged {
    fn read(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(self.smmu.with(context, |smmu, _| smmu.read(offset, size)))
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        if self.smmu.with(context, |smmu, _| smmu.write(offset, size, value)) {
            context.ring(&self.bell);
        }
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Status(report) => {
                let status = self.smmu.with(context, |smmu, _| smmu.status());
                return self.plug.report(report, format_args!("{status}"));
            }
            Control::Reset => {
                self.smmu.with(context, |smmu, _| smmu.reset());
                context.ring(&self.bell);
            }
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}

    fn describe(&self, parent: &mut Node) {
        let node = self.plug.node("iommu", &["arm,smmu-v3"], Smmu::SIZE, Trigger::Edge);
        parent.add(
            node.text("interrupt-names", "combined")
                .number("#iommu-cells", 1)
                .flag("dma-coherent")
                .number("phandle", Node::SMMU),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{sync::Arc, vec::Vec};
    use vdev::GuestMemory;
    use vdev::testkit::{Crew, Rig, Wires};

    const CR0: u64 = 0x20;
    const CR0ACK: u64 = 0x24;
    const IRQ_CTRL: u64 = 0x50;
    const GERROR: u64 = 0x60;
    const CMDQ_BASE: u64 = 0x90;
    const CMDQ_PROD: u64 = 0x98;
    const CMDQ_CONS: u64 = 0x9c;
    const QUEUE: u64 = 0x8000_1000;

    /// With its command queue on.
    fn plugged() -> (Rig, Crew) {
        let mut wires = Wires::default();
        let mut rig = Rig::new(&FACTORY, &[], &mut wires).unwrap();
        let crew = wires.crew;
        rig.try_write(CMDQ_BASE, AccessSize::Doubleword, QUEUE | 8).unwrap();
        rig.write(IRQ_CTRL, 0b101);
        rig.write(CR0, 1 << 3);
        rig.work(&crew);
        assert_eq!(rig.read(CR0ACK), 1 << 3);
        (rig, crew)
    }

    fn command(rig: &Rig, number: u64, words: [u64; 2]) {
        for (word, at) in words.into_iter().zip([0, 8]) {
            rig.ram.store(Ipa(QUEUE + number * 16 + at), AccessSize::Doubleword, word).unwrap();
        }
    }

    #[test]
    fn commands_are_taken_by_the_worker_and_interrupts_are_edges() {
        let (mut rig, crew) = plugged();
        // CMD_TLBI_NSNH_ALL, CMD_SYNC; CMD_SYNC with an interrupt.
        command(&rig, 0, [0x30, 0]);
        command(&rig, 1, [0x46, 0]);
        command(&rig, 2, [0x46 | 1 << 12, 0]);
        rig.write(CMDQ_PROD, 2);
        assert_eq!(rig.work(&crew), 1, "a step");
        assert_eq!((rig.read(CMDQ_CONS), rig.lines.take_events().len()), (2, 0));
        rig.write(CMDQ_PROD, 3);
        rig.work(&crew);
        assert_eq!(rig.read(CMDQ_CONS), 3);
        assert_eq!(rig.lines.take_events(), [(Rig::LINE, true), (Rig::LINE, false)]);
    }

    /// One stream, for which events come.
    #[derive(Default)]
    struct Disk {
        events: types::Lock<Vec<[u64; 4]>>,
        set: types::Lock<Vec<(u32, [u64; 2])>>,
    }

    impl vdev::HostStreams for Disk {
        fn streams(&self) -> &[u32] {
            &[0]
        }
        fn has_asid16(&self) -> bool {
            false
        }
        fn set(&self, stream: u32, entry: [u64; 2]) {
            self.set.lock().push((stream, entry));
        }
        fn forget(&self, _: &[[u64; 2]]) {}
        fn event(&self) -> Option<[u64; 4]> {
            self.events.lock().pop()
        }
    }

    #[test]
    fn devices_of_the_machine_are_behind_it_and_their_faults_the_guests() {
        let disk = Arc::new(Disk::default());
        let mut wires = Wires::default();
        wires.streams = Some(disk.clone());
        let mut rig = Rig::new(&FACTORY, &[], &mut wires).unwrap();
        assert_eq!(rig.read(0) & 1 << 12, 0, "IDR0.ASID16, which the machine has not");
        // A linear stream table of one entry, which is none; an event queue of two records.
        rig.try_write(0x80, AccessSize::Doubleword, QUEUE + 0x1000).unwrap();
        rig.try_write(0xa0, AccessSize::Doubleword, (QUEUE + 0x2000) | 1).unwrap();
        rig.write(IRQ_CTRL, 0b101);
        rig.write(CR0, 0b101);
        rig.work(&wires.crew);
        assert_eq!((rig.read(CR0ACK), disk.set.lock().clone()), (0b101, [(0, [0, 0])].to_vec()));
        // C_BAD_STE, and the host rings.
        disk.events.lock().push([4, 0, 0, 0]);
        rig.write(CR0, 0b100);
        rig.write(CR0, 0b101);
        rig.work(&wires.crew);
        assert_eq!(rig.ram.load(Ipa(QUEUE + 0x2000), AccessSize::Doubleword), Ok(4));
        assert_eq!(rig.lines.take_events(), [(Rig::LINE, true), (Rig::LINE, false)]);
        assert!(rig.status().contains("0 of 1 streams translated"), "{}", rig.status());
        assert!(rig.status().contains("1 events, 0 lost"), "{}", rig.status());
    }

    #[test]
    fn a_command_that_is_none_is_an_error_and_an_edge() {
        let (mut rig, crew) = plugged();
        command(&rig, 0, [0xff, 0]);
        rig.write(CMDQ_PROD, 1);
        rig.work(&crew);
        assert_eq!((rig.read(CMDQ_CONS), rig.read(GERROR)), (1 << 24, 1));
        assert_eq!(rig.lines.take_events(), [(Rig::LINE, true), (Rig::LINE, false)]);
        assert!(
            rig.status().contains("device: off; 0 of 0 streams translated; 0 commands, 1 refused"),
            "{}",
            rig.status()
        );
        rig.control(Control::Reset).unwrap();
        rig.work(&crew);
        assert_eq!((rig.read(CMDQ_CONS), rig.read(GERROR), rig.read(CR0ACK)), (0, 0, 0));
    }

    #[test]
    fn without_a_device_behind_it_asids_have_16_bits() {
        let (mut rig, _) = plugged();
        assert_ne!(rig.read(0) & 1 << 12, 0);
    }

    #[test]
    fn what_asks_for_nothing_wakes_nobody() {
        let (mut rig, crew) = plugged();
        rig.write(IRQ_CTRL, 0);
        rig.write(CMDQ_PROD, 0);
        assert_eq!(rig.work(&crew), 0);
    }

    #[test]
    fn all_sizes_are_answered() {
        let (mut rig, _) = plugged();
        assert_eq!(rig.try_read(0, AccessSize::Byte), Ok(0));
        assert_eq!(rig.try_read(CMDQ_BASE, AccessSize::Doubleword), Ok(QUEUE | 8));
        assert_eq!(rig.try_write(0x1_fff8, AccessSize::Doubleword, 1), Ok(()));
        // The testkit's VM has addresses of 40 bits.
        assert_eq!(rig.read(0x14), 0x12);
    }

    #[test]
    fn its_node_is_that_of_the_binding() {
        let (rig, _) = plugged();
        for line in [
            "iommu@1c090000 {",
            r#"compatible = "arm,smmu-v3";"#,
            "reg = <0x00 0x1c090000 0x00 0x20000>;",
            "interrupts = <0x00 0x05 0x01>;",
            r#"interrupt-names = "combined";"#,
            "#iommu-cells = <0x01>;",
            "dma-coherent;",
            "phandle = <0x8005>;",
        ] {
            assert!(rig.describe().contains(line), "{line} is not in {}", rig.describe());
        }
    }
}
