//! VMs' own SMMUs, before their stage 2 (`vdev smmu`).
//!
//! Answers for: having the machine's SMMUs do what a VM's wants of its streams, and which events are the VM's to know. Does not answer for:
//! what a guest may want (`vsmmu`), whose streams are (`passed`), what an entry is (`smmu`). See docs/design/044-vsmmu.md.
//!
//! A VM's threads come here with no lock held and wait for the SMMU; what is written for a guest is stage 1 before its own stage 2, with
//! its own VMID, whatever it says. Once a stream is being taken from its VM nothing more is done for that one.

use super::unit::{Unit, Wish};
use super::units;
use crate::compartment::{Compartment, kernel_work};
use crate::stage2;
use crate::sync::{Lock, Rank};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use machine::Stream;
use smmu::{Command, Event, Owner, Stage2};
use types::VmId;
use vdev::{DeviceId, HostStreams, STREAM_COMMANDS, StreamCommand, StreamEntry, StreamEvent};

/// Events that wait for a guest, at most; what is more is lost to it, as with a full queue.
const EVENTS: usize = 64;

/// A VM with an SMMU of its own, and something behind it.
struct Guest {
    id: VmId,
    compartment: &'static Compartment,
    device: DeviceId,
    behind: Behind,
    events: VecDeque<Event>,
}

/// What is behind a VM's own SMMU.
#[derive(Clone)]
struct Behind {
    owner: Owner,
    stage2: Stage2,
    /// The guest's number of each, and what it is on the machine.
    streams: Vec<(u32, Stream)>,
}

static GUESTS: Lock<Vec<Guest>> = Lock::new(Rank::Streams, Vec::new());

/// What the device `vdev smmu` of a VM has of the host. In the VM's heap: nothing of it is the kernel's.
pub(crate) struct Handle {
    compartment: &'static Compartment,
    numbers: Vec<u32>,
}

/// Has the VM's own SMMU in front of `streams`, which the guest calls `number`, and which have been given to it.
///
/// # Errors
/// Why that cannot be; names the device and the VM.
pub(crate) fn put_behind(
    compartment: &'static Compartment,
    (device, what): (DeviceId, &str),
    number: u32,
    streams: &[Stream],
) -> Result<(), String> {
    let vm = &compartment.qvm.name;
    let cannot = |why: &str| format!("VM `{vm}` cannot have {what} behind its `vdev smmu`: {why}");
    let space = compartment.memory.lock().space.clone();
    let described = space.as_ref().and_then(|space| space.describe());
    let (space, (vmid, vtcr, root)) = space.zip(described).ok_or_else(|| cannot("its memory is not for devices"))?;
    space.nest();
    for stream in streams {
        let unit = units().get(stream.smmu).ok_or_else(|| cannot("no SMMU confines it"))?;
        if !unit.nest(stream.id) {
            return Err(cannot(&format!(
                "smmu{} has no stage 1 for guests, or does not walk tables through caches (IDR0.S1P, COHACC)",
                stream.smmu
            )));
        }
    }
    let streams = streams.iter().map(|stream| (number, *stream));
    let mut guests = GUESTS.lock();
    if let Some(guest) = guests.iter_mut().find(|guest| guest.id == compartment.id) {
        guest.behind.streams.extend(streams);
        return Ok(());
    }
    guests.push(Guest {
        id: compartment.id,
        compartment,
        device,
        behind: Behind {
            owner: Owner { name: vm.clone(), vmid },
            stage2: Stage2 { vtcr, root },
            streams: streams.collect(),
        },
        events: VecDeque::with_capacity(EVENTS),
    });
    Ok(())
}

/// The VM ends: its SMMU is not asked any more, and hears of nothing.
pub(super) fn end(compartment: &Compartment) {
    let mut own = Vec::new();
    {
        let mut guests = GUESTS.lock();
        while let Some(at) = guests.iter().position(|guest| guest.id == compartment.id) {
            own.push(guests.swap_remove(at));
        }
    }
    for (_, stream) in own.iter().flat_map(|guest| &guest.behind.streams) {
        if let Some(unit) = units().get(stream.smmu) {
            unit.unnest(stream.id);
        }
    }
}

/// An event has to do with the own tables of the guest of `owner`, which has had the stream then: the guest is told.
pub(super) fn report(smmu: usize, event: &Event, owner: &Owner) {
    let stream = Stream { smmu, id: event.stream };
    let mut guests = GUESTS.lock();
    let found = guests.iter_mut().filter(|guest| guest.behind.owner == *owner).find_map(|guest| {
        let number = guest.behind.streams.iter().find(|(_, own)| *own == stream).map(|(number, _)| *number)?;
        Some((guest, number))
    });
    let Some((guest, number)) = found else { return };
    if guest.events.len() < EVENTS {
        guest.events.push_back(Event { stream: number, ..*event });
    }
    // It is there until the streams have been taken back, and the list has been asked before that.
    if let Some(partition) = guest.compartment.partition() {
        partition.services.ring_first(guest.device);
    }
}

impl Handle {
    /// Of a VM that has something behind its SMMU; `None` if it has not.
    pub(crate) fn new(compartment: &'static Compartment) -> Option<Self> {
        let translated = compartment.description().translated();
        let numbers: Vec<u32> = translated.filter_map(|(_, slot)| Some(slot?.number().into())).collect();
        (!numbers.is_empty()).then_some(Self { compartment, numbers })
    }

    /// The machine's streams of which this is said of their numbers.
    fn find(&self, which: impl Fn(u32) -> bool) -> Option<Behind> {
        let guests = GUESTS.lock();
        let mut behind = guests.iter().find(|guest| guest.id == self.compartment.id)?.behind.clone();
        behind.streams.retain(|(number, _)| which(*number));
        Some(behind)
    }

    fn complain(&self, stream: Stream, owner: &Owner, why: &str) {
        let smmu = stream.smmu;
        log::error!(target: &self.compartment.qvm.origin(), "smmu{smmu}: what the guest's SMMU wants cannot be done: {why}");
        if let Some(unit) = units().get(smmu) {
            unit.cut_off(stream.id, owner);
        }
    }

    fn set_each(&self, stream: u32, entry: StreamEntry) {
        let Some(Behind { owner, stage2, streams }) = self.find(|number| number == stream) else { return };
        for (_, stream) in streams {
            let Some(unit) = units().get(stream.smmu) else { continue };
            let wish = Wish { entry, ipa_bits: stage2::layout().ipa_bits() as u8 };
            if let Err(why) = unit.wish(stream.id, &owner, &stage2, wish) {
                self.complain(stream, &owner, &why);
            }
        }
    }

    fn forget_each(&self, commands: &[StreamCommand]) {
        let Some(Behind { owner, streams, .. }) = self.find(|_| true) else { return };
        for (number, unit) in units().iter().enumerate() {
            let here = || streams.iter().filter(|(_, stream)| stream.smmu == number);
            if here().next().is_none() {
                continue;
            }
            let mut asked: ArrayVec<Command, STREAM_COMMANDS> = ArrayVec::new();
            for command in commands.iter().take(STREAM_COMMANDS) {
                asked.extend(match Command::decode(*command) {
                    // One function has one stream, or none there.
                    Ok(Command::CfgiCdAll { stream }) => {
                        let own = here().find(|(number, _)| *number == stream);
                        own.map(|(_, stream)| Command::CfgiCdAll { stream: stream.id })
                    }
                    Ok(command) => Some(command),
                    Err(_) => None,
                });
            }
            if let Err(why) = unit.forget_stage1(owner.vmid, &asked) {
                here().for_each(|(_, stream)| self.complain(*stream, &owner, &why));
            }
        }
    }
}

impl HostStreams for Handle {
    fn streams(&self) -> &[u32] {
        &self.numbers
    }

    fn has_asid16(&self) -> bool {
        // Which of them it will be is not known while the guest's is made.
        units().iter().all(Unit::has_asid16)
    }

    fn set(&self, stream: u32, entry: StreamEntry) {
        kernel_work(|| self.set_each(stream, entry));
    }

    fn forget(&self, commands: &[StreamCommand]) {
        kernel_work(|| self.forget_each(commands));
    }

    fn event(&self) -> Option<StreamEvent> {
        let mut guests = GUESTS.lock();
        let guest = guests.iter_mut().find(|guest| guest.id == self.compartment.id)?;
        guest.events.pop_front().map(|event| event.encode())
    }
}
