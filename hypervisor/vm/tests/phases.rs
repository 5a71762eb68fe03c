//! In which order a device is called, and what it may not do when: what hypervisor/docs/vdev-guide.md says.

#![expect(clippy::unwrap_used, reason = "what surrounds the tests fails them too")]

use std::sync::Mutex;
use types::{AccessSize, Frequency, Ipa, Ticks};
use vdev::testkit::{Ram, Wires};
use vdev::{
    AccessFault, Cause, Context, Control, ControlError, DeviceId, Effects, Factory, Node, OptionError, OptionKind,
    OptionSpec, Options, Setup, Vdev, Wake,
};
use vm::assemble::{Description, VdevDescription};
use vm::id_registers::IdRegisters;
use vm::policy::Unsupported;
use vm::smccc::Mitigations;
use vm::{Assembled, Files, Host};

/// What devices were called for. Tests that use it run one after the other.
static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn note(call: impl Into<String>) {
    CALLS.lock().unwrap().push(call.into());
}

fn take() -> Vec<String> {
    std::mem::take(&mut CALLS.lock().unwrap())
}

/// Notes its calls, and in one of them ends the VM or fails.
struct Witness {
    name: String,
    ends_on: String,
    fails_on: String,
}

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("ends", OptionKind::Text, "the event on which it ends the VM").default("never"),
    OptionSpec::new("fails", OptionKind::Text, "the event on which it fails").default("never"),
];

static FACTORY: Factory = Factory { name: "witness", options: OPTIONS, ..Factory::new(create) };

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    note(format!("{} create", setup.name));
    let text = |name| options.text(name).unwrap_or_default().to_string();
    Ok(Box::new(Witness { name: setup.name.into(), ends_on: text("ends"), fails_on: text("fails") }))
}

impl Vdev for Witness {
    fn read(&mut self, _: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        note(format!("{} read", self.name));
        Ok(0)
    }
    fn write(&mut self, _: u64, _: AccessSize, _: u64, _: &mut Context<'_>) -> Result<(), AccessFault> {
        note(format!("{} write", self.name));
        Ok(())
    }
    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        let name = format!("{event:?}");
        note(format!("{} {name}", self.name));
        if name == self.ends_on {
            context.terminate(Cause::Custom(40));
        }
        if name == self.fails_on {
            return Err(ControlError("it cannot".into()));
        }
        if let Control::Button { handled } = event {
            *handled = self.name == "last";
        }
        Ok(())
    }
    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        note(format!("{} {wake:?}", self.name));
        if self.ends_on == "wake" {
            context.terminate(Cause::Custom(40));
        }
    }
    fn describe(&self, _: &mut Node) {
        note(format!("{} describe", self.name));
    }
}

struct NoFiles;

impl Files for NoFiles {
    fn file(&self, path: &str) -> Option<&[u8]> {
        (path == "guest").then_some(&[0, 0, 0, 0x14])
    }
}

fn vdev(name: &str, location: u64, words: &[(&str, &str)]) -> VdevDescription {
    let given = words.iter().map(|(name, argument)| vdev::Given {
        name,
        argument: Some(argument),
        place: vdev::Place::default(),
    });
    VdevDescription {
        factory: &FACTORY,
        name: name.into(),
        location: Some(Ipa(location)),
        slot: None,
        interrupt: None,
        schedule: None,
        reports: true,
        options: Options::parse(OPTIONS, given, &vdev::testkit::PlainNumbers).unwrap(),
    }
}

fn assembled(first: &[(&str, &str)]) -> Assembled {
    let ram = types::Range::new(Ipa(0x8000_0000), 1 << 20).unwrap();
    let load = vm::load::Load { kind: vm::load::BlobKind::Data, address: Some(ram.start()), path: "guest".into() };
    let description = Description {
        name: "vm".into(),
        ram: vec![ram],
        rom: vec![],
        reserved: vec![],
        reserved_interrupts: vec![],
        vcpus: 1,
        loads: vec![load],
        cmdline: None,
        entry: Some(ram.start()),
        controller: vm::controller::Controller::DEFAULT,
        tree_at: None,
        vdevs: vec![vdev("first", 0x1c00_0000, first), vdev("last", 0x1c01_0000, &[])],
        passed: Vec::new(),
        functions: Vec::new(),
        rests: Vec::new(),
        pci: None,
        policy: Unsupported::default(),
        monitors: false,
        counter_offset: None,
    };
    let mut id = [0; IdRegisters::COUNT];
    id[24] = 0x2222; // ID_AA64PFR0_EL1
    id[48] = 0x1124; // ID_AA64MMFR0_EL1
    let host = Host {
        id: IdRegisters::new(id),
        frequency: Frequency::new(62_500_000).unwrap(),
        epoch: 0,
        gic: vgic::Version::V3,
        list_registers: 4,
        priority_bits: 5,
        mitigations: Mitigations::default(),
        monitors: false,
        entropy: None,
        tree: None,
        seed: &[],
    };
    vm::assemble(&description, &NoFiles, &host, &mut Wires::default()).unwrap()
}

/// Takes it as far as it goes; the error is what the operator reads.
fn started(first: &[(&str, &str)]) -> Result<vm::Vm, String> {
    let Assembled { mut vm, load, .. } = assembled(first);
    vm.configure(Box::new(Ram::new(Ipa(0x8000_0000), 1 << 20)), Ticks(1)).map_err(|error| error.to_string())?;
    vm.start(load.entry, 0, Ticks(2)).map_err(|error| error.to_string())?;
    Ok(vm)
}

#[test]
fn each_call_has_its_place() {
    let _alone = ONE_AT_A_TIME.lock();
    take();
    let vm = started(&[]).unwrap();
    let (services, mut effects) = (vm.services(Ticks(3)), Effects::default());
    vm.bus.read(Ipa(0x1c00_0000), AccessSize::Word, &services, &mut effects).unwrap();
    vm.wake(DeviceId(1), Wake::Backend, Ticks(4), &mut effects);
    assert!(vm.press_button(Ticks(5), &mut effects));
    vm.status(DeviceId(0), Ticks(6), &mut String::new());
    assert!(vm.bus.devices().all(|id| vm.terminate(id, Ticks(7))));
    let expected = [
        "first create",
        "last create",
        "first describe",
        "last describe",
        "first GuestConfigured",
        "last GuestConfigured",
        "first GuestStarting",
        "last GuestStarting",
        "first read",
        "last Backend",
        "first Button",
        "last Button",
        "first Status",
        "first Terminate",
        "last Terminate",
    ];
    assert_eq!(take(), expected);
}

#[test]
fn before_the_guest_has_started_there_are_errors_and_nothing_to_end() {
    let _alone = ONE_AT_A_TIME.lock();
    for event in ["GuestConfigured", "GuestStarting"] {
        take();
        let refused = started(&[("ends", event)]).err().unwrap();
        assert_eq!(refused, format!("vdev `first`: it ends the VM on {event}, before the guest has started"));
        assert_eq!(take().last().unwrap(), &format!("first {event}"), "nobody else is called after that");
        assert_eq!(started(&[("fails", event)]).err().unwrap(), "vdev `first`: it cannot");
    }
}

#[test]
fn afterwards_a_device_ends_the_vm_and_is_named() {
    let _alone = ONE_AT_A_TIME.lock();
    let vm = started(&[("ends", "wake")]).unwrap();
    let mut effects = Effects::default();
    vm.wake(DeviceId(0), Wake::Pulse(3), Ticks(3), &mut effects);
    assert_eq!(effects.stop(), Some(Cause::Custom(40)));
    assert_eq!(vm.lifecycle.end().unwrap().to_string(), "ended by vdev `first`");
    // An error is a vdev's fault by then.
    let vm = started(&[("fails", "Button")]).unwrap();
    let mut effects = Effects::default();
    assert!(vm.press_button(Ticks(3), &mut effects), "whoever pressed it need not end it");
    assert_eq!(effects.stop(), Some(Cause::Vdev));
    assert_eq!(vm.lifecycle.end().unwrap().to_string(), "vdev `first`: it cannot");
    take();
}
