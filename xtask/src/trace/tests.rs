//! Small captures, made by hand, and what becomes of them.

use super::*;
use ::trace::{Event, HOST, Header, What, bytes, name_part};
use proptest::prelude::*;
use types::{Frequency, RawExitKind, Ticks, VcpuId};

/// ESR_ELx of an HVC, of a store of a word to a device, and of WFI.
const HVC: u32 = 0x5a00_0000;
const STORE: u32 = 0x9380_0046;
const WFI: u32 = 0x0600_0000;

/// A capture of a machine with two CPUs whose counter ticks each 10 ns, from tick 1000 on.
struct Tape(Vec<u8>);

impl Tape {
    fn new() -> Tape {
        let frequency = Frequency::new(100_000_000).unwrap();
        Tape(Header { frequency, start: Ticks(1000), cpus: 2 }.encode().to_vec())
    }

    fn put(&mut self, at: u64, cpu: u8, vm: u8, what: What) -> &mut Tape {
        self.0.extend(bytes(&Event { at: Ticks(at), cpu, vm, vcpu: VcpuId(0), what }.encode()));
        self
    }

    /// VM 1 is `hello`, its vCPU is thread 5, and runs on CPU 0 from the beginning.
    fn introduced() -> Tape {
        let mut tape = Tape::new();
        for (part, text) in parts("hello") {
            tape.put(1000, 1, 1, What::VmName { part, text });
        }
        for (part, text) in parts("a longer name/vcpu0") {
            tape.put(1000, 1, 1, What::ThreadName { thread: 5, part, text });
        }
        tape.put(1000, 1, 1, What::VcpuCreated { thread: 5 }).put(1000, 0, HOST, What::Running(Some(5)));
        tape
    }

    fn timeline(&self) -> Timeline {
        read(&self.0).unwrap()
    }
}

fn parts(name: &str) -> impl Iterator<Item = (u16, [u8; 16])> {
    (0..).map_while(|part| Some((part, name_part(name, part)?)))
}

fn exit(kind: RawExitKind, syndrome: u32, payload: u64) -> What {
    What::Exit { kind, syndrome, pc: 0x8000_0008, payload }
}

const ENTRY: What = What::Entry { pc: 0x8000_0000 };

/// A call, a wait for an interrupt with another thread in between, and the interrupt.
fn sample() -> Tape {
    let mut tape = Tape::introduced();
    tape.put(1100, 0, 1, ENTRY).put(1200, 0, 1, exit(RawExitKind::Synchronous, HVC, 0x8400_0000));
    tape.put(1210, 0, 1, What::TimerArmed { timer: 27, at: Ticks(2000) });
    tape.put(1220, 0, 1, ENTRY).put(1300, 0, 1, exit(RawExitKind::Synchronous, WFI, 0));
    tape.put(1310, 0, HOST, What::Running(Some(6))).put(1500, 0, HOST, What::Running(None));
    tape.put(2000, 0, HOST, What::Interrupt(27)).put(2005, 0, HOST, What::Ready(5));
    tape.put(2010, 0, HOST, What::Running(Some(5))).put(2020, 0, 1, What::TimerFired { timer: 27 });
    tape.put(2020, 0, 1, What::Asserted(27)).put(2030, 0, 1, ENTRY);
    tape.put(2100, 0, 1, exit(RawExitKind::Synchronous, STORE, 0x1c09_0000)).put(2100, 0, 1, What::Deasserted(27));
    tape.put(2105, 0, 1, What::User { number: 2, value: 255, thread: 5 }).put(2130, 0, 1, ENTRY);
    tape.put(2200, 0, HOST, What::Lost(0));
    tape
}

#[test]
fn a_small_capture_becomes_this_timeline() {
    let text = String::from_utf8(json(&sample().timeline()).unwrap()).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
    assert_eq!(text, include_str!("tests/sample.json"));
}

#[test]
fn a_small_capture_comes_to_these_numbers() {
    let timeline = sample().timeline();
    assert_eq!((timeline.events, timeline.lost, timeline.out_of_turn), (23, 0, 0));
    let vm = &timeline.vms[&1];
    assert_eq!(vm.in_guest, Ticks(100 + 80 + 70));
    let costs = |reason| (vm.exits[reason].count, vm.exits[reason].total, vm.exits[reason].worst);
    assert_eq!(costs("call"), (1, Ticks(20), Ticks(20)));
    // What the other thread took, and the time in which there was nothing to do, are not the exit's.
    assert_eq!(costs("wait"), (1, Ticks(10 + 20), Ticks(30)));
    assert_eq!(costs("mmio"), (1, Ticks(30), Ticks(30)));
    let table = summary::table(&timeline);
    assert!(table.contains("VM 1: hello, 0.003 ms in the guest, 20.8 % of a CPU"), "{table}");
    assert!(
        table.lines().any(|line| line.split_whitespace().eq(["call", "1", "0.2", "200", "200", "20.0"])),
        "{table}"
    );
}

#[test]
fn the_order_in_the_file_does_not_matter_between_cpus() {
    let mut tape = Tape::introduced();
    tape.put(1300, 0, 1, exit(RawExitKind::Irq, 0, 0));
    let mut other = Tape::introduced();
    other.put(1300, 0, 1, exit(RawExitKind::Irq, 0, 0));
    tape.put(1200, 1, HOST, What::Interrupt(1)).put(1400, 1, HOST, What::Lost(0));
    assert_eq!(tape.timeline().instants[0].at, Ticks(1200));
    assert_eq!(tape.timeline().vms[&1].exits["irq"].count, 1);
}

#[test]
fn nothing_is_made_up_where_something_is_lost() {
    let mut tape = Tape::introduced();
    tape.put(1100, 0, 1, ENTRY).put(1200, 0, HOST, What::Lost(7));
    tape.put(1300, 0, 1, exit(RawExitKind::Irq, 0, 0)).put(1310, 0, 1, ENTRY);
    let timeline = tape.timeline();
    assert_eq!((timeline.lost, timeline.out_of_turn), (7, 0));
    let vm = &timeline.vms[&1];
    assert_eq!(vm.in_guest, Ticks(0), "it may have been left and entered any number of times");
    assert_eq!((vm.exits["irq"].count, vm.exits["irq"].total), (1, Ticks(10)));
    assert!(timeline.instants.iter().any(|instant| instant.name == "7 events lost"));
}

#[test]
fn entries_and_exits_that_do_not_come_in_turn_are_counted() {
    let mut tape = Tape::introduced();
    tape.put(1100, 0, 1, ENTRY).put(1110, 0, 1, ENTRY);
    tape.put(1120, 0, 1, exit(RawExitKind::Irq, 0, 0)).put(1130, 0, 1, exit(RawExitKind::Irq, 0, 0));
    assert_eq!(tape.timeline().out_of_turn, 2);
}

#[test]
fn a_thread_is_called_what_it_was_called_then() {
    let mut tape = Tape::new();
    for (at, name) in [(1100, "first"), (1300, "second, longer than one part")] {
        for (part, text) in parts(name) {
            tape.put(at, 0, HOST, What::ThreadName { thread: 3, part, text });
        }
    }
    let timeline = tape.timeline();
    let names = [1000, 1100, 1299, 1300].map(|at| timeline.thread_name(3, Ticks(at)));
    assert_eq!(names, ["first", "first", "first", "second, longer than one part"]);
    assert_eq!(timeline.thread_name(4, Ticks(1000)), "thread 4");
}

#[test]
fn exits_are_called_as_they_are_counted() {
    let mut tape = Tape::introduced();
    let synchronous = |syndrome| exit(RawExitKind::Synchronous, syndrome, 0);
    // A data abort without a complete syndrome, SVE, a vector register, MRS.
    for (place, what) in [
        synchronous(0x9200_0006),
        synchronous(0x6600_0000),
        synchronous(0x1fe0_0000),
        synchronous(0x6230_0001),
        exit(RawExitKind::SError, 0, 0),
        exit(RawExitKind::Fiq, 0, 0),
    ]
    .into_iter()
    .enumerate()
    {
        tape.put(1100 + place as u64, 0, 1, what);
    }
    let timeline = tape.timeline();
    let names: Vec<&str> = timeline.vms[&1].exits.keys().copied().collect();
    assert_eq!(names, ["abort", "fp", "irq", "other", "serror", "sysreg"]);
}

#[test]
fn a_file_that_is_no_capture_is_the_datas_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, [7; 100]).unwrap();
    let arguments = Arguments { files: vec![path.clone()], output: None, qemu: false, seconds: None, icount: false };
    let error = run(&arguments).unwrap_err();
    assert_eq!(failure::status(&error), failure::DATA);
    assert!(error.to_string().contains("it does not begin as a capture does"), "{error}");
    fs::write(&path, &sample().0).unwrap();
    assert_eq!(run(&arguments).unwrap(), 0);
    assert!(folder.path().join("x.json").is_file());
}

proptest! {
    /// A file says what it likes: there is a timeline of it, which is JSON, and a table.
    #[test]
    fn any_records_come_to_something(records in proptest::collection::vec(any::<[u64; 4]>(), 0..60), known: Vec<u8>) {
        const IDS: [u64; 14] = [
            0x420, 0xc01, 0x1001, 0x1002, 0x10c0, 0x1140, 0x1800, 0x2800, 0x2801, 0x2802, 0x2803, 0x2804, 0x2805, 0x2806,
        ];
        let mut tape = Tape::introduced();
        for (place, mut record) in records.into_iter().enumerate() {
            // Most are to be understood, about few CPUs and VMs.
            if let Some(id) = known.get(place).and_then(|id| IDS.get(usize::from(*id) % 16)) {
                record[0] &= 0x0100_0000_0000_0fff;
                record[1] = record[1] & 0xffff_ffff_0101_0000 | id;
            }
            tape.0.extend(bytes(&record));
        }
        let timeline = tape.timeline();
        serde_json::from_slice::<serde_json::Value>(&json(&timeline).unwrap()).unwrap();
        prop_assert!(!summary::table(&timeline).is_empty());
    }
}
