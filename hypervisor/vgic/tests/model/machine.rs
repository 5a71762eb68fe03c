//! A machine around the interrupt controller, and what it does at random.

use crate::architecture::{Architecture, FIRST_LPI, Source};
use std::collections::BTreeSet;
use types::{AccessSize, IntId, Ipa, RequesterId, VcpuId, VcpuSet};
use vdev::InterruptController;
use vgic::testkit::its::{Driver, ITS, TRANSLATER, command};
use vgic::testkit::{CpuInterface, Deactivation};
use vgic::{SgiRegister, Version, Vgic, VgicConfig};

mod checks;
mod lpis;
mod registers;

/// INTIDs of the machine: three banks, the last SPIs cross a boundary.
const INTIDS: usize = 96;
/// The virtual timer's, hardware-linked.
const TIMER: usize = 27;

/// How many LPIs it uses: more than there are list registers. Event `n` of the device is the LPI `n`.
const LPIS: usize = 40;
/// The device that sends messages to the ITS.
const DEVICE: u16 = 0x1234;

/// Where the distributor is for devices that send messages.
const DISTRIBUTOR: Ipa = Ipa(0x800_0000);

/// Whether a device wants to hear of the ends of an interrupt: of every third SPI.
const fn is_reported(intid: usize) -> bool {
    intid >= 32 && intid < FIRST_LPI && intid.is_multiple_of(3)
}

/// How big a machine is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) list_registers: usize,
    pub(crate) vcpus: usize,
    pub(crate) cpus: usize,
    pub(crate) priority_bits: u8,
}

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Kicks arrive at once, and everything a guest may do happens. After each step the signals are compared.
    Exact,
    /// Kicks arrive late. Nothing is taken back once it is pending, so what is taken still has to be pending in the model.
    Late,
}

/// What the machine knows of a guest's vCPU.
#[derive(Clone, Debug)]
struct Guest {
    groups: [bool; 2],
    mask: u8,
    split: bool,
    /// Acknowledged and not ended: group, INTID, group priority.
    running: Vec<(usize, usize, u32)>,
    /// Ended but not deactivated.
    dropped: Vec<usize>,
    /// The timer's output.
    timer: bool,
    /// The host's timer interrupt is active on behalf of this vCPU.
    timer_active: bool,
}

pub(crate) struct Machine {
    shape: Shape,
    mode: Mode,
    vgic: Vgic,
    model: Architecture,
    driver: Driver,
    /// The vCPU to which each LPI is mapped.
    mapped: Vec<usize>,
    last_lpi: usize,
    cpus: Vec<CpuInterface>,
    /// Which vCPU is on which CPU.
    loaded: Vec<Option<usize>>,
    guests: Vec<Guest>,
    /// Reported interrupts that have ended, and whose devices have not heard of it.
    ended: BTreeSet<usize>,
    random: u64,
    steps: u64,
    taken: u64,
    draining: bool,
}

impl Machine {
    pub(crate) fn new(shape: Shape, mode: Mode, seed: u64) -> Self {
        let vgic = Vgic::new(VgicConfig {
            version: Version::V3,
            vcpus: shape.vcpus,
            intids: INTIDS as u32,
            list_registers: shape.list_registers,
            priority_bits: shape.priority_bits,
        })
        .expect("the shapes are possible")
        .with_messages_at(DISTRIBUTOR)
        .with_its(ITS, LPIS as u32)
        .expect("there can be so many");
        (0..INTIDS).filter(|intid| is_reported(*intid)).for_each(|intid| vgic.report_ends(IntId(intid as u32)));
        let split = |vcpu: usize| (vcpu as u64 + seed).is_multiple_of(3);
        let guest = |vcpu| Guest {
            groups: [true; 2],
            mask: 0xff,
            split: split(vcpu),
            running: Vec::new(),
            dropped: Vec::new(),
            timer: false,
            timer_active: false,
        };
        let mut cpu = CpuInterface::new(shape.list_registers, u32::from(shape.priority_bits));
        cpu.lpis_are_active = seed.is_multiple_of(2);
        let mut machine = Self {
            shape,
            mode,
            driver: Driver::new(&vgic, shape.vcpus),
            mapped: vec![0; LPIS],
            last_lpi: 0,
            model: Architecture::new(shape.vcpus, INTIDS, LPIS),
            vgic,
            cpus: vec![cpu; shape.cpus],
            loaded: vec![None; shape.cpus],
            guests: (0..shape.vcpus).map(guest).collect(),
            ended: BTreeSet::new(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            steps: 0,
            taken: 0,
            draining: false,
        };
        machine.boot();
        machine
    }

    /// Interrupts acknowledged so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % bound
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// Every vCPU has been on a CPU and set its interface up; everything is enabled, with random priorities.
    fn boot(&mut self) {
        self.write_control([true, true]);
        for vcpu in 0..self.shape.vcpus {
            let cpu = vcpu % self.shape.cpus;
            self.switch(cpu, Some(vcpu));
            let guest = self.guests[vcpu].clone();
            let interface = &mut self.cpus[cpu];
            interface.enable_group(0, true);
            interface.enable_group(1, true);
            interface.set_mask(guest.mask);
            interface.set_split(guest.split);
        }
        self.boot_lpis();
        for vcpu in 0..self.shape.vcpus {
            for intid in 0..INTIDS {
                if intid < 32 || vcpu == 0 {
                    if intid >= 16 && intid != TIMER {
                        let edge = self.chance(2);
                        self.configure(vcpu, intid, edge);
                    }
                    let priority = self.below(256) as u8;
                    self.set_priority(vcpu, intid, priority);
                    self.set_bit(vcpu, intid, 0x100, true);
                    self.model.source(vcpu, intid).enabled = true;
                    let group = usize::from(!self.chance(4));
                    self.set_group(vcpu, intid, group);
                }
                if intid >= 32 && vcpu == 0 {
                    let route = self.below(self.shape.vcpus);
                    self.route(intid, route);
                }
            }
        }
    }

    // ---- what the kernel does

    fn id(vcpu: usize) -> VcpuId {
        VcpuId(vcpu as u16)
    }

    fn cpu_of(&self, vcpu: usize) -> Option<usize> {
        self.loaded.iter().position(|loaded| *loaded == Some(vcpu))
    }

    fn switch(&mut self, cpu: usize, to: Option<usize>) {
        let interface = &mut self.cpus[cpu];
        if let Some(from) = self.loaded[cpu].take() {
            let saved = self.vgic.save(Self::id(from), interface);
            assert!(interface.list.iter().all(|value| value >> 62 == 0), "a list register is left over");
            assert_eq!(interface.hcr, 0);
            self.heed(saved.kick, from);
            self.note_deactivations(cpu, from);
            let in_flight = saved.is_in_flight(IntId(TIMER as u32));
            assert_eq!(in_flight, self.guests[from].timer_active, "{}: timer of {from}", self.context());
        }
        if let Some(to) = to {
            self.vgic.load(Self::id(to), &mut self.cpus[cpu]);
            self.loaded[cpu] = Some(to);
        }
    }

    /// A vCPU that is to kick itself has devices told what has ended.
    fn heed(&mut self, kick: VcpuSet, own: usize) {
        if kick.contains(Self::id(own)) {
            assert!(self.vgic.has_ended(), "{}: {own} kicks itself for nothing", self.context());
            self.tell();
        }
    }

    /// Devices hear of ends: of no other than there have been, and once.
    fn tell(&mut self) {
        let ended = self.vgic.take_ended();
        for intid in (0..INTIDS).filter(|intid| ended.contains(IntId(*intid as u32))) {
            assert!(self.ended.remove(&intid), "{}: {intid} has not ended", self.context());
        }
    }

    /// An interrupt becomes inactive.
    fn note_end(&mut self, vcpu: usize, intid: usize) {
        self.model.source(vcpu, intid).active = None;
        if is_reported(intid) {
            self.ended.insert(intid);
        }
    }

    /// The host's interrupts that were deactivated on `cpu`, for the vCPU there.
    fn note_deactivations(&mut self, cpu: usize, vcpu: usize) {
        for physical in std::mem::take(&mut self.cpus[cpu].deactivated) {
            assert_eq!(physical, IntId(TIMER as u32));
            assert!(self.guests[vcpu].timer_active, "{}: deactivated twice", self.context());
            self.guests[vcpu].timer_active = false;
        }
    }

    /// The host's timer interrupt, if it is asserted and not active, is taken by the host and handed on.
    fn fire_timer(&mut self, cpu: usize) {
        let Some(vcpu) = self.loaded[cpu] else { return };
        if self.guests[vcpu].timer && !self.guests[vcpu].timer_active {
            self.guests[vcpu].timer_active = true;
            let timer = IntId(TIMER as u32);
            assert!(self.vgic.inject_hardware(Self::id(vcpu), timer, timer));
            self.model.private[vcpu][TIMER].latch = true;
        }
    }

    /// Before an entry: what the kernel does when the vCPU on `cpu` is out of the guest.
    fn exit(&mut self, cpu: usize) {
        let Some(vcpu) = self.loaded[cpu] else { return };
        for round in 0.. {
            assert!(round < 4, "{}: the maintenance interrupt does not go away", self.context());
            if self.cpus[cpu].maintenance() == 0 && !self.vgic.needs_refill(Self::id(vcpu)) {
                break;
            }
            let kick = self.vgic.refill(Self::id(vcpu), &mut self.cpus[cpu]);
            self.heed(kick, vcpu);
        }
        self.note_deactivations(cpu, vcpu);
    }

    fn settle(&mut self) {
        match self.mode {
            Mode::Exact => (0..self.shape.cpus).for_each(|cpu| self.exit(cpu)),
            Mode::Late => {
                // A maintenance interrupt is taken at once; a kick, some time.
                for cpu in 0..self.shape.cpus {
                    if self.cpus[cpu].maintenance() != 0 || self.draining || self.chance(8) {
                        self.exit(cpu);
                    }
                }
            }
        }
    }

    // ---- what happens

    /// Something happens.
    pub(crate) fn step(&mut self) {
        self.steps += 1;
        match self.below(16) {
            0 => self.raise_lpi(),
            1..=2 => self.device(),
            3..=4 => self.send(),
            5..=11 => self.guest(),
            12 => self.timer(),
            13 => self.reschedule(),
            14 if self.mode == Mode::Exact => self.reconfigure_lpi(),
            _ if self.mode == Mode::Exact => self.reconfigure(),
            _ => {}
        }
        self.settle();
        if self.mode == Mode::Exact {
            self.compare_signals();
            assert!(self.ended.is_empty(), "{}: nobody was told of {:?}", self.context(), self.ended);
            if self.steps.is_multiple_of(16) {
                self.compare_registers();
            }
        }
    }

    fn some_vcpu(&mut self) -> usize {
        self.below(self.shape.vcpus)
    }

    /// A device moves its line.
    fn device(&mut self) {
        let (vcpu, mut intid) = (self.some_vcpu(), 16 + self.below(INTIDS - 16));
        if intid == TIMER {
            intid += 1;
        }
        let source = *self.model.source(vcpu, intid);
        // Late kicks would make the loss of a level a matter of taste.
        let may_fall = source.edge || self.mode == Mode::Exact || source.active.is_some();
        if intid >= 32 && self.chance(3) {
            let raise = self.chance(2) || !may_fall || self.mode == Mode::Late;
            self.send_message(intid, raise);
        } else {
            self.set_line(vcpu, intid, !source.line || !may_fall);
        }
    }

    /// A device sends a message, or a guest writes the register.
    fn send_message(&mut self, intid: usize, raise: bool) {
        let offset = if raise { 0x40 } else { 0x48 };
        let kick = if self.chance(2) {
            self.vgic.message(None, Ipa(DISTRIBUTOR.0 + offset), intid as u32)
        } else {
            self.vgic.write_distributor(VcpuId(0), offset, AccessSize::Word, intid as u64)
        };
        let source = &mut self.model.shared[intid - 32];
        match (source.edge, raise) {
            (false, _) => source.line = raise,
            (true, true) => source.set_latch(),
            (true, false) => source.latch = false,
        }
        if kick.is_empty() && self.mode == Mode::Exact {
            self.compare_signals();
        }
    }

    fn set_line(&mut self, vcpu: usize, intid: usize, asserted: bool) {
        let target = if intid < 32 {
            self.vgic.set_private_level(Self::id(vcpu), IntId(intid as u32), asserted)
        } else {
            self.vgic.set_level(IntId(intid as u32), asserted)
        };
        self.model.source(vcpu, intid).set_line(asserted);
        if target.is_empty() && self.mode == Mode::Exact {
            // Nobody was told, so nobody has anything new.
            self.compare_signals();
        }
    }

    /// A guest sends an SGI.
    fn send(&mut self) {
        let (from, sgi) = (self.some_vcpu(), self.below(16));
        let register = if self.chance(4) { SgiRegister::Sgi0r } else { SgiRegister::Sgi1r };
        let group = usize::from(register == SgiRegister::Sgi1r);
        let cluster = self.below(self.shape.vcpus.div_ceil(16));
        let list = self.below(1 << 16);
        let broadcast = self.chance(4);
        let value = if broadcast { 1 << 40 } else { list as u64 | (cluster as u64) << 16 } | (sgi as u64) << 24;
        self.vgic.send_sgi(Self::id(from), register, value);
        for vcpu in 0..self.shape.vcpus {
            let named = if broadcast { vcpu != from } else { vcpu / 16 == cluster && list >> (vcpu % 16) & 1 != 0 };
            let source = &mut self.model.private[vcpu][sgi];
            if named && source.group == group {
                source.set_latch();
            }
        }
    }

    /// The guest's timer output changes, without an exit.
    fn timer(&mut self) {
        let vcpu = self.some_vcpu();
        let taken = self.model.private[vcpu][TIMER].active.is_some();
        if taken || !self.guests[vcpu].timer {
            self.guests[vcpu].timer ^= true;
        } else if let (true, Some(cpu)) = (self.mode == Mode::Exact, self.cpu_of(vcpu)) {
            // Set anew while its interrupt is still pending: the kernel sees that at some exit.
            self.guests[vcpu].timer = false;
            let retracted = self.vgic.retract_hardware(Self::id(vcpu), IntId(TIMER as u32), &mut self.cpus[cpu]);
            assert_eq!(retracted, self.model.private[vcpu][TIMER].latch, "{}", self.context());
            self.model.private[vcpu][TIMER].latch = false;
            self.note_deactivations(cpu, vcpu);
        }
        for cpu in 0..self.shape.cpus {
            self.fire_timer(cpu);
        }
    }

    /// A CPU takes up another vCPU, or none.
    fn reschedule(&mut self) {
        let cpu = self.below(self.shape.cpus);
        let vcpu = self.some_vcpu();
        if self.cpu_of(vcpu).is_none() {
            self.switch(cpu, Some(vcpu));
        } else if self.cpu_of(vcpu) == Some(cpu) && self.chance(4) {
            self.switch(cpu, None);
        }
        self.fire_timer(cpu);
    }

    /// A guest that runs acknowledges, ends or deactivates an interrupt.
    fn guest(&mut self) {
        let cpu = self.below(self.shape.cpus);
        let Some(vcpu) = self.loaded[cpu] else { return };
        match self.below(4) {
            0..=1 if self.acknowledge(cpu, vcpu) => {}
            3 if !self.guests[vcpu].dropped.is_empty() => self.deactivate(cpu, vcpu),
            _ => self.end(cpu, vcpu),
        }
        self.note_deactivations(cpu, vcpu);
        self.fire_timer(cpu);
    }

    fn acknowledge(&mut self, cpu: usize, vcpu: usize) -> bool {
        let Some((group, intid)) = self.cpus[cpu].signalled() else { return false };
        let context = self.context();
        assert_eq!(self.cpus[cpu].acknowledge(group), intid, "{context}");
        let intid = intid as usize;
        if intid < 32 || self.mode == Mode::Exact {
            assert_eq!(self.model.source(vcpu, intid).group, group, "{context}");
        }
        if intid >= 32 {
            assert_eq!(self.model.source(vcpu, intid).route, vcpu, "{context}");
        }
        let late = self.mode == Mode::Late;
        self.model.source(vcpu, intid).acknowledge(vcpu, late);
        self.last_lpi = intid.checked_sub(FIRST_LPI).unwrap_or(self.last_lpi);
        let priority = self.cpus[cpu].running_priority();
        self.guests[vcpu].running.push((group, intid, priority));
        self.taken += 1;
        true
    }

    fn end(&mut self, cpu: usize, vcpu: usize) {
        let Some((group, intid, _)) = self.guests[vcpu].running.last().copied() else { return };
        if self.chance(2) {
            // The usual handler has quietened its device.
            if intid == TIMER {
                self.guests[vcpu].timer = false;
            } else if (16..INTIDS).contains(&intid) {
                self.set_line(vcpu, intid, false);
                self.settle();
            }
        }
        self.cpus[cpu].end(group, intid as u32);
        self.guests[vcpu].running.pop();
        if intid >= FIRST_LPI {
            // There is nothing to deactivate.
        } else if self.guests[vcpu].split {
            self.guests[vcpu].dropped.push(intid);
        } else {
            self.note_end(vcpu, intid);
        }
    }

    fn deactivate(&mut self, cpu: usize, vcpu: usize) {
        let which = self.below(self.guests[vcpu].dropped.len());
        let intid = self.guests[vcpu].dropped.swap_remove(which);
        self.note_end(vcpu, intid);
        if intid >= 32 && self.mode == Mode::Exact && self.chance(4) {
            // By GICD_ICACTIVER<n>, from whichever vCPU.
            return self.set_bit(vcpu, intid, 0x380, true);
        }
        if self.cpus[cpu].deactivate_interrupt(intid as u32) == Deactivation::Trapped {
            let kick = self.vgic.deactivate(Self::id(vcpu), IntId(intid as u32), &mut self.cpus[cpu]);
            self.heed(kick, vcpu);
        }
    }

    /// A guest that runs changes its CPU interface, without an exit.
    fn change_interface(&mut self) {
        let cpu = self.below(self.shape.cpus);
        let Some(vcpu) = self.loaded[cpu] else { return };
        let group = self.below(2);
        let enable = !self.chance(3);
        self.cpus[cpu].enable_group(group, enable);
        self.guests[vcpu].groups[group] = enable;
        let mask = if self.chance(4) { self.below(256) as u8 } else { 0xff };
        let mask = mask & (0xff_u8 << (8 - self.shape.priority_bits));
        self.cpus[cpu].set_mask(mask);
        self.guests[vcpu].mask = mask;
    }
}
