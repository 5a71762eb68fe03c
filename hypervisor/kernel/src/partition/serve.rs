//! The VM's own thread.
//!
//! Answers for: having the VM put together, and then what comes from outside: something was typed, there is room for output, the
//! power button, a question for its status, other VMs' ends, the end. Does not answer for: who asks for it and when
//! (`compartment`), nor for what its vCPUs do (`vcpu`).

use super::{Partition, build};
use crate::compartment::{Compartment, Phase, Requests};
use crate::passed::UNCONTAINED;
use crate::sync::masked;
use crate::{dump, messages, qvm, thread, trace};
use alloc::format;
use core::fmt;
use types::VcpuId;
use vdev::{Cause, DeviceId, Wake};
use vm::Vm;
use vm::assemble::Reach;
use vm::lifecycle::EndRecord;

/// The life of the VM's own thread.
pub(crate) fn work(compartment: &'static Compartment, _: usize) {
    match build::build(compartment) {
        Ok(partition) => {
            compartment.set_partition(partition);
            trace::choose(&compartment.qvm.name, compartment.partition());
            compartment.set_phase(Phase::Ready);
            thread::set_priority(thread::current(), compartment.qvm.priority());
            serve(compartment);
        }
        Err((cause, why)) => {
            compartment.record(EndRecord::new(cause, None, None, format_args!("{why}")));
            compartment.set_phase(Phase::Refused);
        }
    }
}

/// The life of a thread that takes over from one that hangs in a device, or has died there.
pub(crate) fn quiet(compartment: &'static Compartment, _: usize) {
    if let Some(partition) = compartment.partition() {
        compartment.quiet_devices(&partition.vm);
    }
}

impl Partition {
    /// A device's back end has something for it.
    fn wake_for_backend(&self, device: DeviceId) {
        match self.services.served(device) {
            Some(inbox) => inbox.put_backend(),
            None => self.wake(device, Wake::Backend),
        }
    }

    /// Tells the devices that watch other VMs what has become of those since `seen`, and returns up to where they know.
    fn report_ends(&self, seen: u64) -> u64 {
        let mut last = seen;
        for (device, vm) in &*self.watches {
            let mut place = seen;
            while let Some((at, code)) = qvm::next_end(vm, place) {
                self.wake(*device, Wake::VmEnded { code });
                (place, last) = (at, last.max(at));
            }
            if qvm::exists(vm) {
                self.wake(*device, Wake::VmLives);
            }
        }
        last
    }
}

/// Does what is wanted of the VM from outside, until it is wanted no more.
fn serve(compartment: &'static Compartment) {
    let Some(partition) = compartment.partition() else { return };
    let mut seen = partition.report_ends(qvm::last_sequence());
    loop {
        let requests = compartment.take_requests();
        if requests.contains(Requests::TERMINATE) {
            return compartment.quiet_devices(&partition.vm);
        }
        if requests.contains(Requests::INPUT)
            && let Some(device) = partition.terminal.reader()
        {
            partition.wake_for_backend(device);
        }
        if requests.contains(Requests::ROOM) {
            let writers = partition.terminal.writers();
            writers.into_iter().for_each(|device| partition.wake_for_backend(device));
        }
        if requests.contains(Requests::NEWS) {
            seen = partition.report_ends(seen);
        }
        if requests.contains(Requests::BUTTON) && !partition.with_effects(None, Vm::press_button).0 {
            compartment.record(EndRecord::new(Cause::Terminated, None, None, format_args!("")));
        }
        if requests.contains(Requests::STATUS) {
            let origin = partition.vm.origin();
            status(compartment, partition, |line| log::info!(target: origin, "{line}"));
        }
        if requests.contains(Requests::BALLOON)
            && let Some(device) = partition.balloon
        {
            partition.wake_for_backend(device);
        }
        if requests.contains(Requests::LATER) {
            partition.do_later(None, &mut || !partition.is_stopping());
        }
        if requests.contains(Requests::DUMP) {
            dump::take(compartment, partition);
            if partition.vm.end_after_dump() {
                partition.stop();
            }
        }
        partition.services.deliver(partition);
        let deadline = partition.expire_timers().min(messages::release(compartment.id));
        if requests.is_empty() {
            thread::sleep_until(deadline);
        }
    }
}

/// The status of the VM and of every device, line by line.
pub(crate) fn status(compartment: &Compartment, partition: &Partition, mut info: impl FnMut(fmt::Arguments<'_>)) {
    let vm = &*partition.vm;
    let (used, size) = compartment.heap_statistics();
    info(format_args!("{}; heap {} of {} KiB in use", vm.lifecycle.state(), used >> 10, size >> 10));
    for number in 0..vm.gic.vcpus() {
        let id = VcpuId(number as u16);
        let mut line = format!("{id}: exits");
        for reason in vm::Reason::ALL {
            let count = vm.exits(id).map_or(0, |exits| exits.get(reason));
            line.push_str(&format!(" {}={count}", reason.name()));
        }
        info(format_args!("{line}"));
    }
    if let Some(its) = masked(|| vm.gic.its_status()) {
        info(format_args!("{its}"));
    }
    if partition.description.has_device(Reach::Everything) {
        info(format_args!("{UNCONTAINED}"));
    }
    for (handle, function) in partition.functions.iter().zip(&partition.description.functions) {
        let slot = partition.description.vdevs.get(function.vdev).and_then(|vdev| vdev.slot).unwrap_or_default();
        info(format_args!("passed: PCI function {} of the machine as pci:{slot}", handle.address));
    }
    for (number, device) in partition.description.passed.iter().enumerate() {
        for region in &device.regions {
            info(format_args!("passed: {} of the machine at {}", region.host, region.guest));
        }
        for interrupt in &device.interrupts {
            let (host, guest) = (interrupt.host.0, interrupt.guest.0);
            info(format_args!("passed: interrupt {host} of the machine as {guest}"));
        }
        let described = partition.description;
        let mut rests = described.rests.iter().filter(|rest| rest.device == number).peekable();
        if rests.peek().is_none() {
            info(format_args!("passed: nothing brings it to rest at the end"));
        }
        for rest in rests {
            let (at, by) = (rest.region.guest.start(), described.vdevs.get(usize::from(rest.vdev.0)));
            info(format_args!("passed: {at} is brought to rest by vdev `{}`", by.map_or("", |vdev| &vdev.name)));
        }
    }
    let described = &compartment.qvm.configuration.description.vdevs;
    for (device, vdev) in vm.bus.devices().zip(described).filter(|(_, vdev)| vdev.reports) {
        let mut text = format!("{}: vdev {}", vdev.name, vdev.factory.name);
        if let Some(at) = vdev.location {
            text.push_str(&format!(" at {at}"));
        }
        if let Some(intid) = vdev.interrupt {
            text.push_str(&format!(", interrupt {}", intid.0));
        }
        text.push('\n');
        masked(|| vm.status(device, el2::cpu::counter(), &mut text));
        text.lines().for_each(|line| info(format_args!("{line}")));
    }
}
