//! temporary
use crate::partition::{self, Plan};
use alloc::boxed::Box;
use alloc::sync::Arc;
use types::*;
pub(crate) const PRIORITY: u8 = 20;
struct B(Arc<host::console::Stream>);
impl vdev::Backends for B {
    fn character(
        &mut self,
        id: vdev::DeviceId,
        device: &vdev::HostDevice,
    ) -> Result<Box<dyn vdev::CharDevice>, vdev::BackendError> {
        self.0.open(id, device)
    }
}
struct N;
impl vdev::Numbers for N {
    fn number(&self, _: &str) -> Result<u64, alloc::string::String> {
        Ok(3)
    }
    fn size(&self, _: &str) -> Result<u64, alloc::string::String> {
        Ok(3)
    }
}
pub(crate) fn run() {
    crate::console::start_thread().unwrap();
    let (number, stream) = crate::console::with(|m| m.attach("hello")).unwrap().unwrap();
    let f = crate::board::factories().iter().find(|f| f.name == "pl011").unwrap();
    let options = vdev::Options::parse(f.options, [], &N).unwrap();
    let mut b = B(stream.clone());
    let dev = f
        .build(
            &options,
            &mut vdev::Setup {
                id: vdev::DeviceId(0),
                name: "uart",
                location: Some(Ipa(0x1c090000)),
                interrupt: Some(IntId(37)),
                vcpus: 1,
                backends: &mut b,
            },
        )
        .unwrap();
    let mut devices = vdev::Node::new("devices");
    dev.describe(&mut devices);
    let bus = vdev::Bus::new(
        "hello",
        alloc::vec![vdev::Device {
            name: "uart".into(),
            factory: f,
            location: Some(Ipa(0x1c090000)),
            interrupt: Some(IntId(37)),
            vdev: dev
        }],
    )
    .unwrap();
    let vtr = el2::interface::vtr();
    let gic = Arc::new(
        vgic::Vgic::new(vgic::VgicConfig {
            vcpus: 1,
            intids: 96,
            list_registers: (vtr & 31) as usize + 1,
            priority_bits: ((vtr >> 29) & 7) as u8 + 1,
        })
        .unwrap(),
    );
    let ram = Range::new(Ipa(0x8000_0000), 128 << 20).unwrap();
    let vm = vm::Vm::new(vm::Parts {
        name: "hello".into(),
        memory: alloc::vec![ram],
        distributor: Ipa(0x800_0000),
        redistributors: Ipa(0x80a_0000),
        policy: Default::default(),
        counter_offset: None,
        bus,
        gic,
        host_id: vm::id_registers::IdRegisters::new(el2::cpu::identification()),
        frequency: el2::cpu::counter_frequency().unwrap(),
        mitigations: Default::default(),
    });
    let tree = vm::tree::generate(&vm::tree::TreeInput {
        name: "hello",
        ram: &[ram],
        vcpus: 1,
        gic: Some(vm::tree::GicFrames {
            distributor: Range::new(Ipa(0x800_0000), 0x10000).unwrap(),
            redistributors: Range::new(Ipa(0x80a_0000), 0x20000).unwrap(),
        }),
        devices,
        cmdline: None,
        initrd: None,
        seed: &[],
        user: &[],
    })
    .unwrap();
    let image = crate::start::MACHINE.get().unwrap().initrd.unwrap();
    let image = unsafe { core::slice::from_raw_parts(image.start().0 as *const u8, image.length() as usize) };
    let plan = Plan {
        vm,
        id: VmId(0),
        memory: alloc::vec![(ram, false)],
        vcpus: alloc::vec![sched::Parameters {
            priority: sched::Priority::new(10).unwrap(),
            policy: sched::Policy::RoundRobin,
            affinity: CpuSet::first(16)
        }],
        exit_on_halt: true,
        number,
        stream,
    };
    let end = partition::live(plan, &mut |m| {
        m.write(Ipa(0x8008_0000), image).unwrap();
        m.write(Ipa(0x8780_0000), &tree).unwrap();
        Ok((Ipa(0x8008_0000), Ipa(0x8780_0000)))
    });
    log::info!("{end:?} frames {:?} heap {:?}", crate::frames::statistics(), crate::heap::statistics());
    crate::thread::sleep_until(Ticks(el2::cpu::counter().0 + 62_500_00));
    crate::board::power_off();
}
