use super::*;
use crate::controller::{Controller, Its};
use crate::load::{BlobKind, Load};
use crate::policy::Unsupported;
use crate::smccc::Mitigations;
use crate::testing::{FakeCpu, PROBE, host_id};
use crate::vcpu::Next;
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec;
use dtoolkit::{Node as _, Property as _, fdt::Fdt};
use std::collections::HashMap;
use types::{AccessSize, Frequency, IntId, RequesterId, Ticks, VcpuId};
use vdev::testkit::{PlainNumbers, Ram, Wires};
use vdev::{Effects, GuestMemory as _, Options};

const START: Ipa = Ipa(0x8000_0000);
const SIZE: u64 = 16 << 20;

#[derive(Default)]
struct Archive(HashMap<&'static str, Vec<u8>>);

impl Files for Archive {
    fn file(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }
}

fn archive() -> Archive {
    // A raw image: one branch to itself.
    Archive(HashMap::from([("guest.bin", 0x1400_0000_u32.to_le_bytes().to_vec())]))
}

fn host() -> Host<'static> {
    Host {
        id: host_id(&[(4, 0, 0x11), (7, 0, 0x1124)]),
        frequency: Frequency::new(62_500_000).unwrap(),
        epoch: 0,
        gic: vgic::Version::V3,
        list_registers: 4,
        priority_bits: 5,
        mitigations: Mitigations::default(),
        monitors: true,
        entropy: None,
        tree: None,
        seed: &[],
    }
}

fn load(path: &str) -> Load {
    Load { kind: BlobKind::Detect, address: Some(START), path: path.to_string() }
}

fn probe(name: &str, location: u64, interrupt: u32) -> VdevDescription {
    VdevDescription {
        schedule: None,
        reports: true,
        factory: &PROBE,
        name: name.to_string(),
        location: Some(Ipa(location)),
        slot: None,
        interrupt: Some(IntId(interrupt)),
        options: Options::parse(PROBE.options, [], &PlainNumbers).unwrap(),
    }
}

fn description() -> Description {
    Description {
        name: "guest".to_string(),
        ram: vec![Range::new(START, SIZE).unwrap()],
        rom: vec![],
        reserved: vec![],
        reserved_interrupts: vec![IntId(300)],
        vcpus: 2,
        loads: vec![load("guest.bin")],
        cmdline: Some("quiet".to_string()),
        entry: None,
        controller: Controller::DEFAULT,
        tree_at: None,
        vdevs: vec![probe("first", 0x1c09_0000, 37), probe("second", 0x1c0a_0000, 200)],
        passed: vec![],
        functions: vec![],
        rests: vec![],
        pci: None,
        policy: Unsupported::default(),
        monitors: true,
        counter_offset: None,
    }
}

fn errors(description: &Description) -> Vec<AssembleError> {
    assemble(description, &archive(), &host(), &mut Wires::default()).unwrap_err()
}

#[test]
fn a_description_becomes_a_vm_that_runs() {
    let files = archive();
    let mut assembled = assemble(&description(), &files, &host(), &mut Wires::default()).unwrap();
    let vm = &mut assembled.vm;
    assert_eq!(assembled.load.entry, START);
    let ram = Ram::new(START, usize::try_from(SIZE).unwrap());
    assembled.load.execute(&files, &assembled.tree, &ram, &mut |_| {}).unwrap();
    assert_eq!(ram.load(START, AccessSize::Word), Ok(0x1400_0000));
    assert_eq!(ram.load(assembled.load.device_tree_at, AccessSize::Word), Ok(0xedfe_0dd0), "the magic, big endian");
    vm.configure(Box::new(ram), Ticks(10)).unwrap();
    vm.start(assembled.load.entry, assembled.load.device_tree_at.0, Ticks(20)).unwrap();
    let (entry, argument) = vm.take_power_on(VcpuId(0)).unwrap();
    assert_eq!((entry, argument), (START.0, assembled.load.device_tree_at.0));
    assert_eq!(vm.take_power_on(VcpuId(1)), None, "the others wait for CPU_ON");
    let mut vcpu = vm.vcpu(VcpuId(0)).unwrap();
    vcpu.reset(vm, entry, argument);
    let mut effects = Effects::default();
    let exit = crate::testing::load(Ipa(0x1c0a_0008), AccessSize::Word, 1);
    assert_eq!(crate::handle(vm, &mut vcpu, &exit, &mut FakeCpu::default(), &mut effects), Next::Resume);
    assert_eq!(vcpu.context.x[1], 0xffff_ffff);
    // GICD_TYPER: INTIDs up to 223 for the device at 200.
    let exit = crate::testing::load(Ipa(0x0800_0004), AccessSize::Word, 1);
    let _ = crate::handle(vm, &mut vcpu, &exit, &mut FakeCpu::default(), &mut effects);
    assert_eq!(vcpu.context.x[1] & 0x1f, 224 / 32 - 1);
}

#[test]
fn the_tree_tells_the_guest_what_was_put_together() {
    let assembled = assemble(&description(), &archive(), &host(), &mut Wires::default()).unwrap();
    let tree = Fdt::new(&assembled.tree).unwrap();
    let root = tree.root();
    let chosen = root.child("chosen").unwrap();
    assert_eq!(chosen.property("bootargs").unwrap().value(), b"quiet\0");
    assert_eq!(root.child("cpus").unwrap().children().filter(|node| node.name().starts_with("cpu@")).count(), 2);
    assert!(root.child("memory@80000000").is_some());
}

/// The tree's `mbi-ranges`, and how many INTIDs there are.
fn messages(interrupts: impl IntoIterator<Item = u32>) -> (Option<(u32, u32)>, u32) {
    let vdevs = (0_u64..).zip(interrupts).map(|(n, intid)| probe(&n.to_string(), 0x1c09_0000 + n * 0x1000, intid));
    let description = Description { vdevs: vdevs.collect(), ..description() };
    let assembled = assemble(&description, &archive(), &host(), &mut Wires::default()).unwrap();
    let tree = Fdt::new(&assembled.tree).unwrap();
    let gic = tree.root().child("interrupt-controller@8000000").unwrap();
    let ranges = gic.property("mbi-ranges").map(|ranges| {
        let cell = |index: usize| u32::from_be_bytes(ranges.value()[4 * index..][..4].try_into().unwrap());
        (cell(0), cell(1))
    });
    assert_eq!(ranges.is_some(), gic.property("msi-controller").is_some(), "the binding wants both or none");
    let intids = assembled.vm.gic.read_distributor(4, AccessSize::Word) & 0x1f;
    (ranges, 32 * (u32::try_from(intids).unwrap() + 1))
}

#[test]
fn messages_get_interrupts_that_no_device_has() {
    assert_eq!(messages([]), (Some((32, 32)), 128));
    assert_eq!(messages([37, 200]), (Some((64, 32)), 224));
    assert_eq!(messages([32, 95, 127]), (Some((128, 32)), 160), "a bank more than the devices need");
    assert_eq!(messages((1..9).map(|bank| 32 * bank)), (Some((320, 32)), 352), "300 is reserved");
    assert_eq!(messages((1..30).map(|bank| 32 * bank)), (Some((960, 32)), 992));
    assert_eq!(messages((1..31).map(|bank| 32 * bank)), (None, 992), "of the last bank not all are interrupts");
}

#[test]
fn a_device_hears_of_the_ends_of_its_interrupt_if_it_wants_to() {
    static LISTENER: Factory = Factory {
        name: "listener",
        ..Factory::new(|_, setup| {
            setup.hear_ends();
            Ok(Box::<crate::testing::Probe>::default())
        })
    };
    let listener = VdevDescription { factory: &LISTENER, ..probe("listener", 0x1c0b_0000, 39) };
    let deaf = VdevDescription { factory: &LISTENER, interrupt: None, ..probe("deaf", 0x1c0c_0000, 39) };
    let vdevs = vec![deaf, probe("first", 0x1c09_0000, 38), listener];
    let description = Description { vdevs, ..description() };
    let Assembled { vm, .. } = assemble(&description, &archive(), &host(), &mut Wires::default()).unwrap();
    assert_eq!(vm.bus.listeners(), [(DeviceId(2), IntId(39))]);
    // All but one are enabled while they are pending.
    let _ = vm.gic.write_distributor(VcpuId(0), 0x204, AccessSize::Word, 0xffff_ffff);
    let _ = vm.gic.write_distributor(VcpuId(0), 0x104, AccessSize::Word, !1);
    let ended = vm.gic.take_ended();
    assert!((0..128).all(|intid| ended.contains(IntId(intid)) == (intid == 39)));
}

#[test]
fn a_devices_message_goes_to_where_the_distributor_is() {
    let Assembled { vm, .. } = assemble(&description(), &archive(), &host(), &mut Wires::default()).unwrap();
    let pending = || vm.gic.read_distributor(0x208, AccessSize::Word);
    let _ = vdev::InterruptController::message(&vm.gic, None, Ipa(0x0801_0040), 65);
    assert_eq!(pending(), 0);
    let _ = vdev::InterruptController::message(&vm.gic, None, Ipa(0x0800_0040), 65);
    assert_eq!(pending(), 1 << 1);
}

#[test]
fn an_its_translates_the_messages_of_devices_and_takes_the_guests_commands() {
    const ITS: u64 = 0x0808_0000;
    const RD_BASE: u64 = 0x080a_0000;
    let (properties, queue, table) = (START.0 + 0x10_0000, START.0 + 0x11_0000, START.0 + 0x12_0000);
    let description = Description {
        controller: Controller { its: Some(Its { at: Ipa(ITS), lpis: 200 }), ..Controller::DEFAULT },
        ..description()
    };
    let Assembled { mut vm, tree, .. } = assemble(&description, &archive(), &host(), &mut Wires::default()).unwrap();
    let tree = Fdt::new(&tree).unwrap();
    let node = tree.root().child("interrupt-controller@8000000").unwrap();
    assert!(node.child("msi-controller@8080000").is_some());
    vm.configure(Box::new(Ram::new(START, usize::try_from(SIZE).unwrap())), Ticks(10)).unwrap();
    let mut vcpu = vm.vcpu(VcpuId(0)).unwrap();
    let mut cpu = FakeCpu::default();
    let mut access = |exit, value| {
        let mut effects = Effects::default();
        vcpu.context.x[1] = value;
        assert_eq!(crate::handle(&vm, &mut vcpu, &exit, &mut cpu, &mut effects), Next::Resume);
        let asked = effects.has_later();
        while effects.has_later() && vm.go_on(&mut effects) {}
        (vcpu.context.x[1], asked, effects.kicked())
    };
    let mut write = |at: u64, size, value| access(crate::testing::store(Ipa(at), size, 1), value);
    let (word, doubleword) = (AccessSize::Word, AccessSize::Doubleword);
    let bytes = [[0x81; 64].as_slice(), &[0; 64]].concat();
    vm.memory().write(Ipa(properties), &bytes).unwrap();
    write(RD_BASE + 0x70, doubleword, properties | 13);
    write(RD_BASE, word, 1);
    write(ITS + 0x100, doubleword, 1 << 63 | table);
    write(ITS + 0x108, doubleword, 1 << 63 | table);
    write(ITS + 0x80, doubleword, 1 << 63 | queue);
    write(ITS, word, 1);
    // MAPC, MAPD, MAPTI, INT, INVALL; and one that there is not, which is skipped.
    let commands: [[u64; 4]; 6] = [
        [0x09, 0, 1 << 63, 0],
        [0x08 | 7 << 32, 1, 1 << 63 | table, 0],
        [0x0a | 7 << 32, 2 | 8193 << 32, 0, 0],
        [0x77, 0, 0, 0],
        [0x03 | 7 << 32, 2, 0, 0],
        [0x0d, 0, 0, 0],
    ];
    vm.memory()
        .write(
            Ipa(queue),
            commands.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>().as_slice(),
        )
        .unwrap();
    let (_, asked, kicked) = write(ITS + 0x88, doubleword, 6 * 32);
    assert!(asked, "INVALL takes long");
    assert_eq!(kicked.iter().next(), Some(VcpuId(0)));
    let mut read = |at: u64, size| access(crate::testing::load(Ipa(at), size, 1), 0).0;
    assert_eq!((read(ITS + 0x90, doubleword), read(ITS, word), read(RD_BASE, word)), (6 * 32, 1, 5));
    assert_eq!(read(ITS + 0x1_0040, word), 0);
    let status = vm.gic.its_status().unwrap();
    assert_eq!((status.devices, status.events, status.lpis, status.refused), (1, 1, 256, 1));
    let message = |from| vdev::InterruptController::message(&vm.gic, Some(from), Ipa(ITS + 0x1_0040), 2);
    assert!(message(RequesterId(6)).is_empty());
    assert_eq!(message(RequesterId(7)).iter().next(), None, "it is pending already");
}

#[test]
fn there_is_no_its_where_a_gicv2_is() {
    let its = Some(Its { at: Ipa(0x0808_0000), lpis: 64 });
    let controller = Controller { version: Some(Version::V3), its, ..Controller::DEFAULT };
    let host = Host { gic: Version::V2, ..host() };
    let description = Description { controller, ..description() };
    let errors = assemble(&description, &archive(), &host, &mut Wires::default()).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, "a GICv3 for the guest takes one of the host's, which has a GICv2");
    let its = Some(Its { at: Ipa(1 << 44), lpis: 64 });
    let beyond = self::errors(&Description { controller: Controller { its, ..Controller::DEFAULT }, ..description });
    assert!(beyond.iter().all(|error| error.subject == Subject::InterruptController), "{beyond:?}");
    assert!(beyond[0].message.contains("goes beyond"), "{beyond:?}");
}

#[test]
fn the_same_description_can_be_put_together_again() {
    let description = description();
    let once = assemble(&description, &archive(), &host(), &mut Wires::default()).unwrap();
    let again = assemble(&description, &archive(), &host(), &mut Wires::default()).unwrap();
    assert_eq!((once.load, once.tree), (again.load, again.tree));
}

#[test]
fn all_that_is_wrong_is_told_in_one_go() {
    let mut wrong = description();
    wrong.loads = vec![load("nobody.bin")];
    wrong.ram.push(Range::new(Ipa(0xfff_c000_0000), 0x8000_0000).unwrap());
    wrong.controller.redistributors = Ipa(u64::MAX - 0xffff);
    let subjects: Vec<Subject> = errors(&wrong).into_iter().map(|error| error.subject).collect();
    assert_eq!(
        subjects,
        [Subject::Ram(1), Subject::InterruptController, Subject::InterruptController, Subject::Load(0)]
    );
}

#[test]
fn an_address_beyond_the_hosts_names_the_limit() {
    let mut wrong = description();
    wrong.vdevs.push(probe("far", 1 << 44, 40));
    let error = errors(&wrong).remove(0);
    assert_eq!(error.subject, Subject::Vdev(2));
    assert_eq!(error.message, "`vdev probe` goes beyond 0x100000000000: the host's addresses have 44 bits");
}

#[test]
fn two_devices_in_one_place_are_named_both() {
    let mut wrong = description();
    wrong.vdevs.push(probe("third", 0x1c09_0020, 40));
    assert_eq!(errors(&wrong).remove(0).message, "`first` and `third` are both at 0x1c090020");
}

#[test]
fn a_device_that_cannot_be_made_says_why() {
    static REFUSING: Factory = Factory { create: |_, _| Err(vdev::OptionError::general("no".to_string())), ..PROBE };
    let mut wrong = description();
    wrong.vdevs.push(VdevDescription { factory: &REFUSING, ..probe("refusing", 0x1c0b_0000, 41) });
    let error = errors(&wrong).remove(0);
    assert_eq!((error.subject, error.message.as_str()), (Subject::Vdev(2), "`vdev probe`: no"));
}

#[test]
fn a_damaged_user_tree_is_named() {
    let mut wrong = description();
    wrong.loads.push(Load { kind: BlobKind::Fdt, address: None, path: "bad.dtb".to_string() });
    let mut files = archive();
    files.0.insert("bad.dtb", vec![0xd0, 0x0d, 0xfe, 0xed, 0, 0, 0, 40]);
    let failed = assemble(&wrong, &files, &host(), &mut Wires::default()).unwrap_err();
    assert_eq!(failed[0].subject, Subject::Load(1));
    assert!(failed[0].message.contains("bad.dtb"), "{}", failed[0]);
}

#[test]
fn a_host_whose_interface_makes_no_sense_is_an_error() {
    let strange = Host { gic: vgic::Version::V3, list_registers: 0, ..host() };
    let failed = assemble(&description(), &archive(), &strange, &mut Wires::default()).unwrap_err();
    assert_eq!(failed[0].subject, Subject::InterruptController);
}

mod passed;
mod pci;
mod reach;

/// Asks for a page of its own.
static READ_WITHOUT_EXIT: Factory = Factory {
    name: "readable",
    region_size: 0x200,
    ..Factory::new(|_, setup| {
        let _ = setup.shadow_page();
        Ok(Box::<crate::testing::Probe>::default())
    })
};

#[test]
fn a_device_has_its_page_read_without_an_exit_if_nothing_else_is_there() {
    const AT: u64 = 0x1c0d_0000;
    let is_granted = |at: u64, change: &dyn Fn(&mut Description)| {
        let mut description = description();
        description.vdevs.push(VdevDescription { factory: &READ_WITHOUT_EXIT, ..probe("readable", at, 41) });
        change(&mut description);
        let assembled = assemble(&description, &archive(), &host(), &mut Wires::default()).unwrap();
        assembled.vm.is_shadowed(Ipa(at | 0xff8)) && !assembled.vm.is_shadowed(Ipa(at + 0x1000))
    };
    assert!(is_granted(AT, &|_| {}));
    assert!(!is_granted(AT + 0x200, &|_| {}), "it does not begin the page");
    let ends = [(AT + 0x200, false), (AT + 0xff8, false), (AT + 0x1000, true), (AT - 0x38, true), (AT - 0x1000, true)];
    for (at, expected) in ends {
        assert_eq!(is_granted(AT, &|all| all.vdevs.push(probe("other", at, 42))), expected, "{at:#x}");
    }
    let range = |at, length| Range::new(Ipa(at), length).unwrap();
    assert!(!is_granted(AT, &|all| all.reserved.push(range(AT + 0x400, 0x100))), "who knows what is there");
    assert!(is_granted(AT, &|all| all.rom.push(range(AT + 0x1000, 0x1000))));
    // Nobody is given what others ask for.
    let assembled = assemble(&description(), &archive(), &host(), &mut Wires::default()).unwrap();
    assert!(!assembled.vm.is_shadowed(Ipa(0x1c09_0000)));
}
