//! Streams of VMs' devices.
//!
//! Answers for: letting a VM's devices walk its tables, taking that away again, and ending a VM whose device reaches too far, if that
//! is wanted. Does not answer for: which device sends by which stream (`machine`), bringing a device to rest, which comes before its
//! stream is taken back (`compartment`).

use super::{nested, units};
use crate::compartment::{Compartment, kernel_work};
use crate::stage2;
use crate::sync::{Lock, Rank};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use machine::Stream;
use smmu::{Event, Owner, Stage2};
use types::{Ipa, Pa, Range, VmId};
use vdev::Cause;
use vm::lifecycle::EndRecord;

/// SMMUs that VMs' tables can be told for: bits of `GuestSpace`'s set.
const MOST: usize = 32;

struct Given {
    stream: Stream,
    id: VmId,
    owner: Owner,
    device: String,
    /// Until [`take_back`] has taken the stream away.
    compartment: &'static Compartment,
}

static GIVEN: Lock<Vec<Given>> = Lock::new(Rank::Streams, Vec::new());

/// Lets the device behind `streams` reach the memory of a VM, and nothing else. Streams of one `group` have one owner, whatever device
/// they are of. The VM has its memory, and is for devices ([`crate::stage2::GuestSpace::describe`]). What has been given before an
/// error stays until [`take_back`].
///
/// # Errors
/// Why it cannot have them: who has them, or what the SMMU lacks; names the device and the VM.
pub(crate) fn give(
    compartment: &'static Compartment,
    device: &str,
    streams: &[Stream],
    group: u32,
) -> Result<(), String> {
    kernel_work(|| give_each(compartment, device, streams, group))
}

fn give_each(compartment: &'static Compartment, device: &str, streams: &[Stream], group: u32) -> Result<(), String> {
    let vm = &compartment.qvm.name;
    let cannot = |why: String| format!("VM `{vm}` cannot have {device}: {why}");
    let space = compartment.memory.lock().space.clone();
    let space = space.ok_or_else(|| cannot("the VM has no memory yet".into()))?;
    let described = space.describe().ok_or_else(|| cannot("the VM's memory is not for devices".into()))?;
    let (vmid, vtcr, root) = described;
    let owner = Owner { name: vm.clone(), vmid };
    for stream in streams {
        let Stream { smmu, id } = *stream;
        let unit = units().get(smmu).filter(|_| smmu < MOST);
        let unit = unit.ok_or_else(|| cannot(format!("there is no smmu{smmu} that could confine it")))?;
        if let Some(flaw) = unit.flaw(id) {
            return Err(cannot(flaw));
        }
        space.tell(smmu);
        let given =
            Given { stream: *stream, id: compartment.id, owner: owner.clone(), device: device.into(), compartment };
        GIVEN.lock().push(given);
        if let Err(why) = unit.pass((device, id, group), &owner, &Stage2 { vtcr, root }) {
            return Err(cannot(why));
        }
    }
    Ok(())
}

/// Lets all devices of a VM write `page` of the machine's registers, where messages go that are to become interrupts, and says at which
/// address they have it. Its CPUs do not have it: what a message says is who sends it. Once for each life of a VM. One with an SMMU of
/// its own has it where its guest expects it: the guest's tables are to lead there.
///
/// # Errors
/// Why that is not possible; names the VM.
pub(crate) fn open_doorbell(compartment: &Compartment, page: Pa) -> Result<Ipa, String> {
    let space = compartment.memory.lock().space.clone();
    let description = compartment.description();
    let vm = &compartment.qvm.name;
    if description.translated().next().is_some() {
        let at = description.message_page();
        let memory = || description.ram.iter().chain(&description.rom);
        let is_free = |part: Range<Ipa>| !memory().any(|other| other.overlaps(&part));
        let is_open = space.is_some_and(|space| space.open_doorbell_at(page, at, is_free));
        return is_open.then_some(at).ok_or_else(|| {
            format!("VM `{vm}` has memory in the same gigabyte as what takes messages of its devices ({at}), which `vdev smmu` does not let it")
        });
    }
    let taken = description.everything(Ipa(1 << stage2::layout().ipa_bits()));
    let is_free = |part: Range<Ipa>| taken.iter().all(|other| !other.overlaps(&part));
    let opened = space.and_then(|space| space.open_doorbell(page, is_free));
    opened.ok_or_else(|| format!("VM `{vm}` leaves no gigabyte of its addresses free for messages of its devices"))
}

/// Takes all streams from a VM. When this returns without an error none of its devices reaches its memory any more, nor anything else.
/// Its devices have been brought to rest, as far as that was possible.
///
/// # Errors
/// Which devices may go on reaching the VM's memory, and why: then it must not become anybody else's.
pub(crate) fn take_back(compartment: &Compartment) -> Result<(), String> {
    nested::end(compartment);
    let mut own = Vec::new();
    {
        let mut given = GIVEN.lock();
        let mut index = 0;
        while let Some(entry) = given.get(index) {
            if entry.id == compartment.id {
                own.push(given.swap_remove(index));
            } else {
                index += 1;
            }
        }
    }
    let mut wrong = String::new();
    for Given { stream, owner, device, .. } in own {
        let Some(unit) = units().get(stream.smmu) else { continue };
        // One that it was refused is not its own.
        if unit.is_owner(stream.id, &owner)
            && let Err(why) = unit.take_back(stream.id, &owner)
        {
            wrong.push_str(&format!("; {device} may go on reaching it (smmu{}: {why})", stream.smmu));
        }
    }
    if wrong.is_empty() {
        if let Some(space) = &compartment.memory.lock().space {
            space.tell_nobody();
        }
        return Ok(());
    }
    Err(format!("nothing of the VM's memory is given back{wrong}"))
}

/// A device of `owner`'s has reached too far: its VM ends, if it is a VM's. Says whether it is.
pub(super) fn terminate(smmu: usize, event: &Event, owner: &Owner) -> bool {
    let given = GIVEN.lock();
    // Somebody else may be about to be told that it cannot have the stream.
    let stream = Stream { smmu, id: event.stream };
    let is_it = |given: &&Given| given.stream == stream && given.owner == *owner;
    let Some(Given { compartment, device, .. }) = given.iter().find(is_it) else { return false };
    let what = format_args!("{device}: smmu{smmu}: {event}");
    compartment.record(EndRecord::new(Cause::Unsupported, None, None, what));
    true
}
