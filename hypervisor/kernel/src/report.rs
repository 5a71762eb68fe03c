//! What `pidin` and `top` report on.
//!
//! Answers for: collecting what is known of VMs, threads, memory, disks, networks, SMMUs and PCI. Does not answer for: what it looks like
//! (`host::shell::report`).

use crate::frames::{self, Owner};
use crate::qvm::{self, Qvm};
use crate::{disk, groups, heap, messages, pcie, smmuman, thread, uplink};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use host::console::VmNumber;
use host::shell::Pidin;
use host::shell::report::{self, MemoryInfo, REASONS, ThreadInfo, VmInfo};
use sched::{Policy, ShareId, State, Status};
use types::{MAX_VCPUS, PAGE_SIZE, Ticks, VcpuId};
use vm::Reason;
use vm::assemble::Reach;
use vm::config::{Groups, SYSTEM_PARTITION};

/// All VMs at a moment.
pub(crate) struct Snapshot {
    /// Each with what is counted of it, but for its name.
    vms: Vec<(Arc<Qvm>, VmInfo<'static>)>,
    pub(crate) at: u64,
}

fn nanoseconds(ticks: Ticks) -> u64 {
    el2::cpu::counter_frequency().map_or(0, |frequency| frequency.to_nanoseconds(ticks))
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        let mut vms: Vec<_> = qvm::all().into_iter().map(|qvm| (Arc::clone(&qvm), info(&qvm))).collect();
        thread::for_each(|thread, status| {
            if let Some((_, info)) = vms.iter_mut().find(|(qvm, _)| Some(qvm.number) == thread.vm) {
                info.cpu_time += nanoseconds(status.run_time);
            }
        });
        Self { vms, at: nanoseconds(el2::cpu::counter()) }
    }

    pub(crate) fn infos(&self) -> Vec<VmInfo<'_>> {
        self.vms.iter().map(|(qvm, info)| VmInfo { name: &qvm.name, ..*info }).collect()
    }
}

fn info(qvm: &Qvm) -> VmInfo<'static> {
    let mut exits = [0; REASONS.len()];
    let state = qvm.look(|compartment| {
        let vm = &compartment.partition()?.vm;
        for vcpu in (0..vm.gic.vcpus().min(MAX_VCPUS)).map(|number| VcpuId(number as u16)) {
            let Some(counters) = vm.exits(vcpu) else { continue };
            for (place, reason) in Reason::ALL.into_iter().enumerate() {
                // What is rare is one sum.
                exits[place.min(REASONS.len() - 1)] += counters.get(reason);
            }
        }
        Some(vm.lifecycle.state())
    });
    let description = &qvm.configuration.description;
    let bytes: u64 = description.ram.iter().chain(&description.rom).map(types::Range::length).sum();
    VmInfo {
        number: qvm.number.get(),
        name: "",
        state: state.flatten().unwrap_or(vm::lifecycle::State::Described),
        vcpus: description.vcpus,
        memory: bytes >> 10,
        restarts: qvm.restarts(),
        uptime: nanoseconds(el2::cpu::counter().saturating_sub(qvm.begun())),
        cpu_time: 0,
        is_uncontained: description.has_device(Reach::Everything),
        exits,
    }
}

/// Answers `pidin`. `false` if there is no such VM.
pub(crate) fn pidin(what: Pidin<'_>, out: &mut dyn fmt::Write) -> Result<bool, fmt::Error> {
    let snapshot = Snapshot::take();
    let infos = snapshot.infos();
    match what {
        Pidin::All => report::vms(&infos, out)?,
        Pidin::Memory => report::memory_map(&memory(), &infos, out)?,
        Pidin::Threads => threads(out)?,
        Pidin::Disks => report::disks(&disk::report(), out)?,
        Pidin::Net => report::net(&uplink::report(), out)?,
        Pidin::Smmu => report::smmus(&smmuman::report(), out)?,
        Pidin::Its => {
            let (units, dropped) = messages::report();
            report::its(&units, dropped, out)?;
        }
        Pidin::Pci => report::pci(&pcie::report(), out)?,
        Pidin::Vm(name) => {
            let mut found = false;
            for vm in infos.iter().filter(|vm| vm.name == name) {
                found = true;
                report::vm(vm, out)?;
            }
            return Ok(found);
        }
    }
    Ok(true)
}

fn memory() -> MemoryInfo {
    let kibibytes = |pages: usize| pages as u64 * (PAGE_SIZE >> 10);
    let ((free, total), (used, size)) = (frames::statistics(), heap::statistics());
    MemoryInfo {
        total: kibibytes(total),
        free: kibibytes(free),
        promised: kibibytes(frames::promised()),
        hypervisor: kibibytes(Owner::Kernel.pages()),
        heap: (size >> 10) as u64,
        heap_used: (used >> 10) as u64,
        files: kibibytes(Owner::Files.pages()),
        shared: kibibytes(Owner::Shared.pages()),
    }
}

fn threads(out: &mut dyn fmt::Write) -> fmt::Result {
    let mut rows: Vec<(String, Option<VmNumber>, Status)> = Vec::new();
    thread::for_each(|thread, status| rows.push((thread.name.clone(), thread.vm, *status)));
    let infos: Vec<ThreadInfo<'_>> = rows.iter().map(|(name, vm, status)| row(name, *vm, status)).collect();
    report::threads(&infos, out)?;
    let groups = groups::all();
    let names = groups.iter().flat_map(Groups::partitions);
    for (place, name) in names.enumerate().skip(SYSTEM_PARTITION + 1) {
        if let Some((percent, used, whole)) = thread::share(ShareId::from_index(place as u8)) {
            let used = used.0 * 100 / whole.0.max(1);
            writeln!(out, "partition {name}: {percent} % guaranteed, {used} % used of late")?;
        }
    }
    Ok(())
}

fn row<'a>(name: &'a str, vm: Option<VmNumber>, status: &Status) -> ThreadInfo<'a> {
    let (state, cpu) = match status.state {
        State::Running(cpu) => ("running", cpu),
        State::Ready => ("ready", status.last),
        State::Blocked => ("waits", status.last),
    };
    let policy = match status.parameters.policy {
        Policy::RoundRobin => 'r',
        Policy::Fifo => 'f',
        Policy::Sporadic(_) => 's',
    };
    let (vm, priority) = (vm.map(VmNumber::get), status.priority.get());
    ThreadInfo { name, vm, priority, policy, state, cpu: cpu.0, cpu_time: nanoseconds(status.run_time) }
}
