//! VMs with tables, streams and an SMMU: what a kernel would do, and who may reach what meanwhile.

use super::Model;
use crate::{
    Features, Geometry, Layout, Memory, Owner, Procedure, Progress, Refusal, Smmu, Stage1, Stage2, Streams, Trouble,
    Walks,
};
use pagetable::{
    DeviceView, DeviceWalkers, Maintenance, Mirrored, PaRange, Stage2Attributes, Stage2Layout, Stale, TablePool,
    VmidSize, Walkers,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{format, vec, vec::Vec};
use types::{Ipa, Pa, Range, Ticks};

pub(crate) const PATIENCE: Ticks = Ticks(2_000);
const TABLE: u64 = 0x1000_0000;
const COMMANDS: u64 = 0x2000_0000;
const EVENTS: u64 = 0x3000_0000;
const LEAVES: u64 = 0x4000_0000;
const TABLES: u64 = 0x5000_0000;

/// A procedure is for this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Start,
    Attach,
    Exchange,
    Detach,
    Invalidate,
    InvalidateNested,
}

/// A step that is left out of every procedure of a kind: which kind, and which step.
pub(crate) type Mutation = (Purpose, usize);

/// What carries out procedures, with the model behind it.
pub(crate) struct Machine {
    pub(crate) model: Model,
    pub(crate) smmu: Smmu,
    pub(crate) now: u64,
    pub(crate) without: Option<Mutation>,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) timing: Timing,
    /// What it is told too late.
    untold: Vec<(u16, Range<Ipa>, Walks)>,
    free_tables: Vec<u64>,
    next_table: u64,
}

/// When an SMMU is told of what was taken from a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timing {
    InTime,
    Never,
    /// When pages and tables are somebody else's already.
    Late,
}

impl Machine {
    /// Carries out `procedure` to its end.
    pub(crate) fn run(&mut self, procedure: &mut Procedure, purpose: Purpose) -> Progress {
        if let Some((mutated, index)) = self.without
            && mutated == purpose
            && index < procedure.steps.len()
        {
            procedure.steps.remove(index);
        }
        loop {
            self.now += 1;
            match self.smmu.advance(procedure, Ticks(self.now), &mut self.model) {
                Progress::Waiting => self.model.tick(),
                Progress::Failed(trouble) => {
                    self.trouble.get_or_insert(trouble);
                    return Progress::Failed(trouble);
                }
                done => return done,
            }
        }
    }
}

impl Machine {
    /// It forgets what was taken from a VM. Says whether it has.
    fn forget(&mut self, vmid: u16, range: Range<Ipa>, walks: Walks) -> bool {
        let purpose = if walks.nested { Purpose::InvalidateNested } else { Purpose::Invalidate };
        let mut procedure = self.smmu.invalidate(vmid, range, walks);
        self.run(&mut procedure, purpose) == Progress::Done
    }
}

impl Vm {
    /// Changes its tables, and tells who walks them.
    fn change<R>(
        &mut self,
        machine: &Rc<RefCell<Machine>>,
        pool: &mut Pool,
        work: impl FnOnce(&mut pagetable::Stage2, &mut Mirrored<'_, Pool>, &mut Walkers<'_, Cpus, Telling>) -> R,
    ) -> R {
        let devices = Telling { machine: machine.clone(), vmid: self.owner.vmid };
        let mut walkers = Walkers { cpus: Cpus(machine.clone()), devices, lost: &self.lost };
        let mut pool = Mirrored { pool, view: Some(&self.view), lost: &self.lost };
        work(&mut self.stage2, &mut pool, &mut walkers)
    }
}

/// Where tables come from. A page that was given back is given out again soon.
pub(crate) struct Pool(Rc<RefCell<Machine>>);

impl TablePool for Pool {
    fn allocate(&mut self, pages: usize) -> Option<Pa> {
        let mut machine = self.0.borrow_mut();
        let table = match machine.free_tables.pop() {
            Some(table) if pages == 1 => table,
            _ => {
                let size = 4096 * pages as u64;
                let start = machine.next_table.next_multiple_of(size);
                machine.next_table = start + size;
                start
            }
        };
        machine.model.clear(table, pages);
        machine.model.freed.remove(&table);
        Some(Pa(table))
    }

    fn free(&mut self, table: Pa, pages: usize) {
        let mut machine = self.0.borrow_mut();
        // Somebody else writes into it at once.
        machine.model.freed.extend((0..pages as u64).map(|page| table.0 + 4096 * page));
        if pages == 1 {
            machine.free_tables.push(table.0);
        }
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.0.borrow_mut().model.load(Pa(table.0 + 8 * index as u64))
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        self.0.borrow_mut().model.store(Pa(table.0 + 8 * index as u64), descriptor);
    }
}

/// CPUs, which are told by what makes stores seen.
struct Cpus(Rc<RefCell<Machine>>);

impl Maintenance<Ipa> for Cpus {
    fn publish(&mut self) {
        self.0.borrow_mut().model.publish();
    }

    fn invalidate(&mut self, _: Range<Ipa>, _: Stale) {
        self.0.borrow_mut().model.publish();
    }
}

/// The moments at which an SMMU has to be told.
struct Telling {
    machine: Rc<RefCell<Machine>>,
    vmid: u16,
}

impl DeviceWalkers for Telling {
    fn forget(&mut self, range: Range<Ipa>, stale: Stale) -> bool {
        let mut machine = self.machine.borrow_mut();
        let walks = Walks { tables: stale == Stale::Tables, nested: self.vmid == NESTED };
        match machine.timing {
            Timing::InTime => machine.forget(self.vmid, range, walks),
            Timing::Never => true,
            Timing::Late => {
                machine.untold.push((self.vmid, range, walks));
                true
            }
        }
    }
}

/// A VM.
pub(crate) struct Vm {
    pub(crate) owner: Owner,
    pub(crate) stage2: pagetable::Stage2,
    /// What its devices walk.
    view: DeviceView,
    /// A device may have kept what was taken from it.
    pub(crate) lost: AtomicBool,
    /// Its pages that are mapped, and to which.
    pub(crate) mapped: Vec<(u64, u64)>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) machine: Rc<RefCell<Machine>>,
    pub(crate) streams: Streams,
    pub(crate) vms: Vec<Vm>,
    pool: Pool,
    next_page: u64,
    next_leaf: u64,
}

/// The VM that has a stage 1 of its own.
const NESTED: u16 = 2;

/// With streams in two leaves.
pub(crate) const STREAMS: [u32; 4] = [0x08, 0x09, 0x48, 0x4f];
/// Pages of a VM's, in two tables of the last level.
pub(crate) const PAGES: [u64; 6] = [0x10, 0x11, 0x12, 0x13, 0x210, 0x211];

impl World {
    /// An SMMU that is being taken over, and two VMs.
    pub(crate) fn new(seed: u64, change: fn(&mut Features), without: Option<Mutation>) -> Self {
        let mut model = Model::new(seed);
        let mut features = Features::of(&mut model).unwrap();
        change(&mut features);
        model.streams.extend(STREAMS);
        model.pages.extend(PAGES);
        let geometry = Geometry::with_bits(8, &features);
        let layout = Layout {
            geometry,
            table: Pa(TABLE),
            command_queue: Pa(COMMANDS),
            // Short, so that it goes round and is full now and then.
            command_bits: 2,
            event_queue: Pa(EVENTS),
            event_bits: 2,
            patience: PATIENCE,
        };
        let smmu = Smmu::new(features, layout);
        let machine = Machine {
            model,
            smmu,
            now: 0,
            without,
            trouble: None,
            timing: Timing::InTime,
            untold: vec![],
            free_tables: vec![],
            next_table: TABLES,
        };
        let machine = Rc::new(RefCell::new(machine));
        let mut world = Self {
            pool: Pool(machine.clone()),
            machine,
            streams: Streams::new(),
            vms: vec![],
            next_page: 0x10_0000,
            next_leaf: LEAVES,
        };
        let mut start = world.machine.borrow().smmu.start();
        let _ = world.machine.borrow_mut().run(&mut start, Purpose::Start);
        for (n, stream) in STREAMS.into_iter().enumerate() {
            world.streams.declare(&format!("device{n}"), stream, stream, n == 3, geometry).unwrap();
        }
        for vmid in [1, 2] {
            let (stage2, view) = world.tables();
            let owner = Owner { name: format!("vm{vmid}"), vmid };
            world.vms.push(Vm { owner, stage2, view, lost: AtomicBool::new(false), mapped: vec![] });
        }
        world
    }

    /// Gives a stream to a VM that does not have it.
    pub(crate) fn attach(&mut self, vm: usize, stream: u32) -> Result<(), Refusal> {
        self.connect(vm, stream, Purpose::Attach)
    }

    fn connect(&mut self, vm: usize, stream: u32, purpose: Purpose) -> Result<(), Refusal> {
        let mut machine = self.machine.borrow_mut();
        let vm = &self.vms[vm];
        let stage2 = Stage2 { vtcr: vm.stage2.layout().vtcr(VmidSize::Bits16), root: vm.view.root() };
        let context = Ipa(0x1_0000);
        let stage1 = Stage1 { context, format: 0, cd_max: 0, default_substream: 0, attributes: 0 };
        let stage1 = (vm.owner.vmid == NESTED).then_some(stage1);
        if machine.smmu.lacks_leaf(stream) {
            machine.smmu.give_leaf(stream, Pa(self.next_leaf));
            self.next_leaf += 4096;
        }
        machine.model.publish();
        let mut procedure = self.streams.attach(stream, &vm.owner, &stage2, stage1.as_ref(), &machine.smmu)?;
        machine.model.stream_owner.insert(stream, vm.owner.vmid);
        let _ = machine.run(&mut procedure, purpose);
        Ok(())
    }

    /// Takes a stream from a VM.
    pub(crate) fn detach(&mut self, vm: usize, stream: u32, quietly: bool) -> Result<(), Refusal> {
        let owner = &self.vms[vm].owner;
        let mut machine = self.machine.borrow_mut();
        let mut procedure = self.streams.detach(stream, owner, quietly, &machine.smmu)?;
        let _ = machine.run(&mut procedure, Purpose::Detach);
        if self.streams.released(stream, &procedure) {
            machine.model.stream_owner.remove(&stream);
        }
        Ok(())
    }

    /// Ends a VM, which is made anew at once, with the same VMID. Its tables and pages go as they are.
    pub(crate) fn restart(&mut self, vm: usize) {
        let of_vm: Vec<u32> = self.streams.of(&self.vms[vm].owner).collect();
        for stream in of_vm {
            assert_eq!(self.detach(vm, stream, false), Ok(()));
        }
        self.new_tables(vm);
    }

    /// Gives a VM with one stream other tables and no pages.
    pub(crate) fn rebuild(&mut self, vm: usize) {
        let of_vm: Vec<u32> = self.streams.of(&self.vms[vm].owner).collect();
        let [stream] = of_vm[..] else { return };
        let old = self.exchange(vm);
        assert_eq!(self.connect(vm, stream, Purpose::Exchange), Ok(()));
        self.give_up(vm, old);
    }

    fn new_tables(&mut self, vm: usize) {
        let old = self.exchange(vm);
        self.give_up(vm, old);
    }

    fn exchange(&mut self, vm: usize) -> (pagetable::Stage2, DeviceView) {
        let (stage2, view) = self.tables();
        let vm = &mut self.vms[vm];
        (core::mem::replace(&mut vm.stage2, stage2), core::mem::replace(&mut vm.view, view))
    }

    fn give_up(&mut self, vm: usize, (tables, view): (pagetable::Stage2, DeviceView)) {
        for (_, page) in core::mem::take(&mut self.vms[vm].mapped) {
            self.machine.borrow_mut().model.page_owner.remove(&page);
        }
        tables.destroy(&mut self.pool);
        view.destroy(&mut self.pool);
    }

    fn tables(&mut self) -> (pagetable::Stage2, DeviceView) {
        let layout = Stage2Layout::new(PaRange::from_id_aa64mmfr0(0b0100), 40).unwrap();
        let stage2 = pagetable::Stage2::new(layout, &mut self.pool).unwrap();
        let view = DeviceView::new(&stage2, &mut self.pool).unwrap();
        (stage2, view)
    }

    /// Gives a VM a new page.
    pub(crate) fn map(&mut self, vm: usize, page: u64) {
        let vm = &mut self.vms[vm];
        if vm.mapped.iter().any(|mapped| mapped.0 == page) {
            return;
        }
        let to = self.next_page;
        self.next_page += 1;
        self.machine.borrow_mut().model.page_owner.insert(to, vm.owner.vmid);
        let range = Range::new(Ipa(page << 12), 4096).unwrap();
        let mapped = vm.change(&self.machine, &mut self.pool, |stage2, pool, walkers| {
            stage2.map(range, Pa(to << 12), Stage2Attributes::RAM, 64, pool, walkers).is_ok()
        });
        assert!(mapped);
        vm.mapped.push((page, to));
    }

    /// Takes a page from a VM; then it is somebody else's, unless a device may still reach it.
    pub(crate) fn unmap(&mut self, vm: usize, page: u64) {
        let vm = &mut self.vms[vm];
        let Some(index) = vm.mapped.iter().position(|mapped| mapped.0 == page) else { return };
        let (_, to) = vm.mapped.swap_remove(index);
        let range = Range::new(Ipa(page << 12), 4096).unwrap();
        let unmapped = vm.change(&self.machine, &mut self.pool, |stage2, pool, walkers| {
            stage2.unmap(range, 64, pool, walkers).is_ok()
        });
        assert!(unmapped);
        if vm.lost.load(Ordering::Relaxed) {
            return;
        }
        let mut machine = self.machine.borrow_mut();
        machine.model.page_owner.remove(&to);
        for (vmid, range, walks) in core::mem::take(&mut machine.untold) {
            for _ in 0..8 {
                machine.model.tick();
            }
            machine.forget(vmid, range, walks);
        }
    }
}
