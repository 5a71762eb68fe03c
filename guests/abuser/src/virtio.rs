//! Drivers that break the rules of virtio 1.3, one rule at a time.
//!
//! Answers for: which cases there are, the devices that they abuse, and judging each: what the device does about it is what the case
//! wants; nothing is written where nothing was offered; and after a reset an ordinary request works. Does not answer for: whether
//! neighbours notice, which is their business, nor for which sentence a case is about: `hypervisor/docs/virtio-abuse.md`.
//!
//! `virtio` among the arguments runs these cases and no others; names behind it choose among them.

mod arena;
mod basics;
mod blk;
mod console;
mod driver;
mod entropy;
mod function;
mod messages;
mod mmio;
mod net;
mod packed;
mod pci;
mod registers;
mod ring;
mod split;
mod transport;

use arrayvec::ArrayVec;
use guest_rt::machine::Machine;
use guest_rt::mmu::{self, Kind as Mapping};
use guest_rt::println;
use guest_rt::tree::Tree;

use driver::{Bench, Kind};
use function::{Bus, OnPci};
use transport::{OnMmio, Transport};

/// What is not as it should be, and what it is instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Complaint {
    what: &'static str,
    found: u64,
}

type Verdict = Result<(), Complaint>;

fn ensure(holds: bool, what: &'static str, found: impl Into<u64>) -> Verdict {
    if holds { Ok(()) } else { Err(Complaint { what, found: found.into() }) }
}

struct Case {
    name: &'static str,
    /// The device that is abused.
    device: Kind,
    run: fn(&mut Bench<'_>) -> Verdict,
}

impl Case {
    const fn new(name: &'static str, device: Kind, run: fn(&mut Bench<'_>) -> Verdict) -> Self {
        Self { name, device, run }
    }
}

/// All of them, by chapters.
const CASES: [&[Case]; 10] = [
    basics::CASES,
    split::CASES,
    packed::CASES,
    mmio::CASES,
    pci::CASES,
    messages::CASES,
    blk::CASES,
    net::CASES,
    console::CASES,
    entropy::CASES,
];

/// The devices that there are.
struct Devices {
    on_mmio: ArrayVec<OnMmio, 8>,
    on_pci: ArrayVec<OnPci, 8>,
}

/// What a device is.
fn kind(device: &dyn Transport) -> Option<Kind> {
    Some(match device.device_id() {
        1 => Kind::Net,
        2 if device.offered(0) & blk::RO != 0 => Kind::ReadOnlyDisk,
        2 => Kind::Disk,
        3 => Kind::Console,
        4 => Kind::Entropy,
        _ => return None,
    })
}

impl Devices {
    fn find(machine: &Machine) -> Option<Self> {
        // SAFETY: where the boot protocol has put the tree, which nobody writes.
        let tree = unsafe { Tree::at(machine.tree.start as usize) }.ok()?;
        let on_mmio = tree.nodes().filter(|node| node.is_compatible("virtio,mmio")).filter_map(|node| {
            let at = mmu::reach(node.reg(0)?.start, Mapping::Device);
            // SAFETY: the tree says that a device is there, and it is mapped just now.
            Some(unsafe { OnMmio::new(at, node.interrupt(0)) })
        });
        let on_mmio = on_mmio.take(8).collect();
        Some(Self { on_mmio, on_pci: Bus::find(tree).map(|mut bus| bus.functions()).unwrap_or_default() })
    }

    fn all(&self) -> impl Iterator<Item = &dyn Transport> {
        let on_pci = self.on_pci.iter().map(|device| device as &dyn Transport);
        self.on_mmio.iter().map(|device| device as &dyn Transport).chain(on_pci)
    }

    /// Whether a case is for where the devices are.
    fn have(&self, case: &Case) -> bool {
        let (of_mmio, of_pci) = (case.name.starts_with("mmio-"), case.name.starts_with("pci-"));
        if self.on_pci.is_empty() { !of_pci } else { !of_mmio }
    }

    /// A new bench for abusing the first device of this kind.
    fn bench(&self, machine: &'static Machine, kind: Kind) -> Option<Bench<'_>> {
        let mut of_kind = self.all().filter(|device| self::kind(*device) == Some(kind));
        let device = of_kind.next()?;
        Some(Bench::new(machine, (kind, device), of_kind.next()))
    }

    /// Runs a case, and what every case has to stand.
    fn judge(&self, machine: &'static Machine, case: &Case) -> Verdict {
        let no_device = Complaint { what: "there is no such device", found: 0 };
        let mut bench = self.bench(machine, case.device).ok_or(no_device)?;
        let verdict = (case.run)(&mut bench);
        let untouched = arena::check();
        // Whatever came of it: the next case wants devices in order.
        self.on_pci.iter().for_each(OnPci::restore);
        bench.stop()?;
        let mut bench = self.bench(machine, case.device).ok_or(no_device)?;
        bench.start(0)?;
        bench.works()?;
        let still_untouched = arena::check();
        bench.stop()?;
        verdict.and(untouched).and(still_untouched)
    }
}

/// Runs the cases that are chosen, and says of each what came of it.
pub(crate) fn run(machine: &'static Machine) {
    let Some(devices) = Devices::find(machine) else { return };
    println!("abuser: {} virtio devices", devices.all().count());
    let is_chosen = |case: &&Case| {
        let mut names = machine.selection().filter(|word| *word != "virtio").peekable();
        names.peek().is_none() || names.any(|name| name == case.name)
    };
    let mut count = 0;
    for case in CASES.into_iter().flatten().filter(is_chosen).filter(|case| devices.have(case)) {
        count += 1;
        match devices.judge(machine, case) {
            Ok(()) => println!("virtio: {}: ok", case.name),
            Err(Complaint { what, found }) => println!("virtio: {}: FAILED: {what} {found:#x}", case.name),
        }
        crate::restore(machine);
    }
    println!("abuser: survived {count} cases of virtio");
}
