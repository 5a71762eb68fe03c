//! From the first instruction to the start-up script.
//!
//! Answers for: the order in which the hypervisor comes up, and a clear refusal when the machine lacks what it needs. The
//! early console is there before anything that can fail. Does not answer for: what runs afterwards (`startup`).

use crate::address_space::{self, FirstTables, Image};
use crate::board::{self, Board, FirstConsole};
use crate::controller;
use crate::cpu::{self, PerCpu};
use crate::{
    compartment, console, frames, groups, heap, interrupt, messages, pcie, shell, silicon, smmuman, startup, thread,
    virtio,
};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;
use drivers::Mmio;
use el2::thread::SecondaryBoot;
use machine::{Conduit, Console, Early, EnableMethod, Machine, Tree};
use pagetable::El2Attributes;
use spin::Once;
use types::{CpuId, MAX_CPUS, Mpidr, PAGE_SIZE, Pa, Range, Ticks};

/// The machine, read once.
pub(crate) static MACHINE: Once<Machine> = Once::new();

/// When the first instruction of ours ran, as far as we know.
pub(crate) static STARTED_AT: Once<Ticks> = Once::new();

/// The boot CPU's block; its number is corrected when the device tree has been read, by making another one.
static FIRST_CPU: PerCpu = PerCpu::new(CpuId(0), Mpidr(0));

/// The boot CPU's stack for faults while there is no heap.
static mut EMERGENCY: [u128; 512] = [0; 512];

/// Size of the others'.
const EMERGENCY_SIZE: usize = 8192;

/// A device tree is no larger than this (Linux's booting.rst).
const LARGEST_TREE: u64 = 2 << 20;

/// How long a secondary CPU may take to report, in microseconds.
const CPU_PATIENCE: u64 = 500_000;

/// Says why this machine cannot be used, and stops.
fn refuse(why: fmt::Arguments<'_>) -> ! {
    console::print_now(format_args!("\r\nbulkhead: cannot run here: {why}\r\n"));
    board::power_off()
}

/// The entry of the boot CPU, from `boot.S`: MMU and caches off, on the boot stack.
pub fn start(board: &'static Board, tree: u64, _slide: u64) -> ! {
    let started = el2::cpu::counter();
    FIRST_CPU.set_emergency_stack((&raw const EMERGENCY as usize) + size_of::<[u128; 512]>());
    if !el2::cpu::is_el2() {
        // Without EL2 the register that leads to the CPU's block is not ours either: print and stop, nothing else.
        refuse_this_cpu(
            board,
            tree,
            "entered at EL1, and a hypervisor needs EL2. On QEMU add `virtualization=on` to -M; on a board let the boot \
             loader start us at EL2",
        );
    }
    if el2::mmu::is_on() {
        refuse_this_cpu(
            board,
            tree,
            "entered with the MMU on (SCTLR_EL2.M), whose tables are somebody else's. The boot loader has to switch it off \
             first and to clean the image out of the data cache, as for Linux",
        );
    }
    if el2::cpu::is_el2_of_vhe_only() {
        refuse_this_cpu(board, tree, "this CPU's EL2 has only the layout of FEAT_VHE (HCR_EL2.E2H cannot be 0)");
    }
    cpu::enter(&FIRST_CPU);
    board::install(board);
    el2::traps::initialise();

    let blob = first_look(tree);
    let early = blob.and_then(Early::of);
    let console = early_console(board, early);
    board::set_psci(early.is_some_and(Early::has_psci));
    let Some((blob, early)) = blob.zip(early) else {
        refuse(format_args!(
            "X0 was {tree:#x}, which is not the address of a sound device tree; the boot loader has to pass one, as to Linux"
        ))
    };
    let image = Image::here();
    let Some(bank) = early.memory_at(image.whole().start()) else {
        refuse(format_args!("the device tree names no RAM at {}, where this image is", image.whole().start()))
    };
    let translation = first_tables(&image, bank, blob, console.map(|console| console.registers));
    STARTED_AT.call_once(|| started);
    heap::initialise();
    translation.adopt();
    types::Waiting::set(compartment::wait);
    // SAFETY: the vectors are installed (boot.S).
    unsafe { el2::cpu::unmask_serror() };
    with_heap(blob, early, bank, &image)
}

/// The bytes of the device tree, if there is one.
fn first_look(tree: u64) -> Option<&'static [u8]> {
    if tree == 0 || tree & 7 != 0 {
        return None;
    }
    // SAFETY: firmware's pointer to a device tree (boot protocol); the first 40 bytes are its header.
    let header = unsafe { core::slice::from_raw_parts(tree as *const u8, 40) };
    let size = u64::from(machine::total_size(header)?).min(LARGEST_TREE);
    // SAFETY: as many bytes as the header says, which stay untouched from now on.
    Some(unsafe { core::slice::from_raw_parts(tree as *const u8, size as usize) })
}

/// Before anything of ours is set up.
fn refuse_this_cpu(board: &Board, tree: u64, why: &str) -> ! {
    early_console(board, first_look(tree).and_then(Early::of));
    console::print_now(format_args!("\r\nbulkhead: cannot run here: {why}.\r\n"));
    el2::cpu::park()
}

/// Finds something to print on: what the device tree says, or without one what the board says.
fn early_console(board: &Board, tree: Option<Early<'_>>) -> Option<Console> {
    let console = tree.and_then(Early::console);
    let named = console.map(|console| FirstConsole { kind: console.kind, registers: console.registers.start() });
    if let Some(first) = named.or(board.console.filter(|_| tree.is_none())) {
        console::set_first(first);
    }
    console
}

/// Turns the MMU on.
fn first_tables(image: &Image, bank: Range<Pa>, blob: &[u8], console: Option<Range<Pa>>) -> FirstTables {
    let mut tables = match FirstTables::build(image, bank, place_of(blob)) {
        Ok(tables) => tables,
        Err(failed) => refuse(format_args!("no room in the early tables to map {}", failed.0)),
    };
    if let Some(registers) = console.and_then(|registers| whole_pages(&registers)) {
        // Without a console nobody would see a refusal: go on.
        let _ = tables.map(registers, El2Attributes::Device);
    }
    // Everything written so far, relocated constants among it, went past the caches: drop what they may still hold of it from
    // before.
    for written in [image.rodata, image.data, image.boot_stack] {
        // SAFETY: our own constants and data.
        unsafe { el2::cache::clean_and_invalidate(written.start().0 as usize, written.length() as usize) };
    }
    // SAFETY: the tables map the image, its stack and the device tree where they are.
    unsafe { el2::mmu::enable(&tables.translation()) };
    tables
}

fn whole_pages(range: &Range<Pa>) -> Option<Range<Pa>> {
    Some(Range::between(range.start().align_down(PAGE_SIZE), range.end().align_up(PAGE_SIZE)?))
}

/// The MMU is on and there is a heap: the rest of the machine.
fn with_heap(blob: &'static [u8], early: Early<'static>, bank: Range<Pa>, image: &Image) -> ! {
    let tree = Tree::of(early).unwrap_or_else(|error| refuse(format_args!("{error}")));
    let machine = tree.machine().unwrap_or_else(|error| refuse(format_args!("{error}")));
    let machine = MACHINE.call_once(|| machine);
    let Some(frequency) = el2::cpu::counter_frequency() else {
        refuse(format_args!("CNTFRQ_EL0 is zero: firmware must set it to the frequency of the system counter"))
    };
    board::set_psci(machine.psci == Some(Conduit::Smc));
    claim_memory(machine, blob, bank, image);
    board::attach(&tree);
    startup::keep_tree(&tree);
    drop(tree);
    give_back_tree(machine, blob, bank, image);
    for window in controller::windows(machine) {
        map_device(window);
    }
    let affinity = el2::cpu::mpidr();
    let Some(number) = machine.cpus.iter().position(|cpu| cpu.mpidr == affinity).filter(|n| *n < MAX_CPUS) else {
        refuse(format_args!("the device tree has no CPU with the affinity of this one, {:#x}", affinity.0))
    };
    // From here on every CPU's block is on the heap, the boot CPU's too.
    let this = cpu::create(CpuId(number as u16), affinity);
    this.set_emergency_stack(emergency_stack());
    cpu::enter(this);
    if let Err(error) = interrupt::initialise(machine).and_then(|()| interrupt::initialise_cpu(machine, this)) {
        refuse(format_args!("{error}"));
    }
    thread::initialise(machine.cpus.len().min(MAX_CPUS), frequency);
    groups::initialise(machine);
    this.online.store(true, Ordering::Release);
    console::initialise(machine);
    startup::read_calendar(machine, frequency);
    smmuman::initialise(machine);
    pcie::initialise(machine);
    virtio::find(machine);
    banner(machine, frequency);
    silicon::initialise_cpu(this);
    start_others(machine, this, frequency);
    messages::initialise(machine);
    smmuman::start_thread();
    let parameters = startup::host_parameters(startup::PRIORITY);
    if let Err(error) = thread::spawn("shell".into(), parameters, shell::run) {
        refuse(format_args!("no memory for the first thread ({error:?})"));
    }
    thread::idle_loop()
}

/// Hands all RAM that is nobody's to the frame allocator.
fn claim_memory(machine: &Machine, blob: &[u8], bank: Range<Pa>, image: &Image) {
    let mut reserved = reserved_for_good(machine, image);
    reserved.push(place_of(blob));
    for memory in machine.memory.iter().filter_map(whole_pages) {
        // The bank that the image is in is mapped; banks that touch it are one range with it here.
        let below = Range::between(memory.start(), memory.end().min(bank.start()));
        let above = Range::between(memory.start().max(bank.end()), memory.end());
        for pages in [below, above].into_iter().filter(|pages| !pages.is_empty()) {
            if address_space::map(pages, El2Attributes::Data).is_err() {
                refuse(format_args!("no room in the early tables to map RAM at {pages}"));
            }
        }
    }
    // SAFETY: RAM by the device tree, mapped just now or with the first tables; what is in use is reserved.
    unsafe { frames::initialise(&machine.memory, &reserved) };
}

/// What is never anybody's.
fn reserved_for_good(machine: &Machine, image: &Image) -> Vec<Range<Pa>> {
    let mut reserved: Vec<Range<Pa>> = machine.reserved.clone();
    let (lower, upper) = (image.text.start(), image.boot_stack.end());
    reserved.extend([Range::between(lower, image.spare.start()), Range::between(image.spare.end(), upper)]);
    // The first page: nothing may begin at an address that stands for nothing.
    reserved.push(Range::between(Pa(0), Pa(PAGE_SIZE)));
    reserved.extend(machine.initrd);
    reserved
}

fn place_of(blob: &[u8]) -> Range<Pa> {
    Range::between(Pa(blob.as_ptr() as u64), Pa(blob.as_ptr() as u64 + blob.len() as u64))
}

/// The device tree has been read: its memory, with QEMU a megabyte, is free. Not if firmware has something there, or if it is
/// in another bank than the image, where it is mapped for reading.
fn give_back_tree(machine: &Machine, blob: &'static [u8], bank: Range<Pa>, image: &Image) {
    let tree = place_of(blob);
    if bank.contains_range(&tree) && reserved_for_good(machine, image).iter().all(|taken| !taken.overlaps(&tree)) {
        // SAFETY: RAM, mapped with the first tables. The boot CPU is alone, reads no tree after this, and `Machine` and the
        // board's devices have copies of what they took from it.
        unsafe { frames::take_over(tree) };
    }
}

/// Maps a device's registers.
pub(crate) fn map_device(window: Range<Pa>) {
    if !try_map_device(window) {
        refuse(format_args!("the device registers at {window} overlap something else"));
    }
}

/// The same for a device that can be done without. Says whether it is mapped.
pub(crate) fn try_map_device(window: Range<Pa>) -> bool {
    whole_pages(&window).is_some_and(|pages| address_space::map(pages, El2Attributes::Device).is_ok())
}

fn banner(machine: &Machine, frequency: types::Frequency) {
    let (free, total) = frames::statistics();
    let megabytes = |pages: usize| (pages as u64 * PAGE_SIZE) >> 20;
    log::info!(
        "Bulkhead {} on {} ({}): {} CPU{}, {} MiB RAM of which {} MiB free, counter {} Hz",
        env!("CARGO_PKG_VERSION"),
        machine.model.as_deref().unwrap_or("an unnamed machine"),
        board::name(),
        machine.cpus.len(),
        if machine.cpus.len() == 1 { "" } else { "s" },
        megabytes(total),
        megabytes(free),
        frequency.hertz()
    );
}

fn emergency_stack() -> usize {
    let stack = Vec::leak(alloc::vec![0u128; EMERGENCY_SIZE / 16]);
    stack.as_ptr_range().end as usize
}

/// Starts all other CPUs, then waits for them: those that do not come are told together.
fn start_others(machine: &'static Machine, this: &PerCpu, frequency: types::Frequency) {
    let Some(translation) = address_space::translation() else { return };
    for (number, description) in machine.cpus.iter().enumerate().take(MAX_CPUS) {
        let id = CpuId(number as u16);
        if id == this.id {
            continue;
        }
        let block = cpu::create(id, description.mpidr);
        block.set_emergency_stack(emergency_stack());
        let started = address_space::Stack::new().ok_or_else(|| "no memory for its stack".into()).and_then(|stack| {
            let boot =
                SecondaryBoot::new(&translation, stack.end(), core::ptr::from_ref(block) as u64, description.mpidr);
            core::mem::forget(stack);
            start_cpu(machine, description, alloc::boxed::Box::leak(alloc::boxed::Box::new(boot)))
        });
        if let Err(why) = started {
            log::error!("{id} stays off: {why}");
            block.refused.set(true);
        }
    }
    let deadline = el2::cpu::counter().saturating_add(frequency.microseconds(CPU_PATIENCE));
    let others = (0..machine.cpus.len() as u16).filter_map(|number| cpu::of(CpuId(number)));
    for block in others.filter(|block| !block.refused.get()) {
        while !block.online.load(Ordering::Acquire) {
            if el2::cpu::counter() > deadline {
                log::error!("{} was started and does not report", block.id);
                break;
            }
            el2::cpu::relax();
        }
    }
}

/// Has a CPU come to our entry.
fn start_cpu(machine: &Machine, description: &machine::Cpu, boot: &'static mut SecondaryBoot) -> Result<(), String> {
    match description.enable {
        EnableMethod::Psci if machine.psci == Some(Conduit::Smc) => {
            let context = boot.publish();
            el2::firmware::cpu_on(description.mpidr.0, el2::thread::secondary_entry(), context)
                .map_err(|error| format!("PSCI CPU_ON: {error}"))
        }
        EnableMethod::Psci => Err("its enable-method is `psci`, and there is no PSCI firmware to call by `smc`".into()),
        EnableMethod::SpinTable(at) => {
            let length = size_of::<u64>() as u64;
            let word =
                Range::new(at, length).filter(|word| at.is_aligned(length) && !Image::here().whole().overlaps(word));
            let word = word.ok_or_else(|| format!("its cpu-release-addr, {at}, cannot be one"))?;
            // In RAM as a rule, which is mapped, and reserved (`Machine::reserved`).
            if !machine.memory.iter().any(|bank| bank.contains_range(&word)) {
                try_map_device(word);
            }
            boot.publish();
            // SAFETY: firmware's, mapped.
            unsafe { Mmio::of(&word) }.write_u64(0, el2::thread::spin_table_entry());
            // SAFETY: as above. The CPU looks there with its caches off.
            unsafe { el2::cache::clean_and_invalidate(at.0 as usize, length as usize) };
            el2::cpu::send_event();
            Ok(())
        }
        EnableMethod::None => Err("the device tree has no enable-method".into()),
    }
}

/// Where the other CPUs arrive, from `boot.S`: MMU on, on their own stack.
#[unsafe(no_mangle)]
extern "C" fn kernel_secondary() -> ! {
    el2::traps::initialise();
    // SAFETY: the vectors are installed (boot.S).
    unsafe { el2::cpu::unmask_serror() };
    let this = cpu::this();
    if let Some(machine) = MACHINE.get() {
        match interrupt::initialise_cpu(machine, this) {
            Ok(()) => {
                silicon::initialise_cpu(this);
                this.online.store(true, Ordering::Release);
                thread::idle_loop();
            }
            Err(error) => log::error!("{} stays off: {error}", this.id),
        }
    }
    el2::cpu::park()
}
