//! Nothing stale, whatever happens in whatever order; and every step is needed.

use super::Outcome;
use super::world::{Mutation, PAGES, Purpose, STREAMS, World};
use crate::Features;
use proptest::prelude::*;
use std::string::{String, ToString};
use std::{format, vec::Vec};

/// What every transaction must come to just now.
fn check(world: &World) -> Result<(), String> {
    let model = &mut world.machine.borrow_mut().model;
    for stream in STREAMS {
        let owner = model.stream_owner.get(&stream).copied();
        let vm = owner.and_then(|vmid| world.vms.iter().find(|vm| vm.owner.vmid == vmid));
        for page in PAGES {
            let outcome = model.transact(stream, page);
            let mapped = vm.map(|vm| vm.mapped.iter().find(|mapped| mapped.0 == page));
            let is_right = match (mapped, outcome) {
                (Some(Some(mapped)), Outcome::Translated(to)) => mapped.1 == to,
                // Not mapped; and muted, refused, or without leaf.
                (Some(None), outcome) => outcome == Outcome::Aborted(0x10),
                (None, outcome) => matches!(outcome, Outcome::Aborted(0x00 | 0x02 | 0x04)),
                _ => false,
            };
            if !is_right {
                return Err(format!("stream {stream:#x} of {owner:?}, page {page:#x}: {mapped:?} and {outcome:?}"));
            }
        }
    }
    model.land_all();
    model.violation.clone().map_or(Ok(()), Err)
}

/// A history: what is wrong with it.
fn history(seed: u64, change: fn(&mut Features), without: Option<Mutation>) -> Result<(), String> {
    let mut world = World::new(seed, change, without);
    if !world.machine.borrow().model.is_set_up() {
        return Err("not started".to_string());
    }
    check(&world)?;
    let below = |world: &World, end| world.machine.borrow_mut().model.below(end);
    // One VM with one stream that gets other tables again and again, where that is what is in question.
    let exchanges = without.is_some_and(|(purpose, _)| purpose == Purpose::Exchange);
    if exchanges {
        assert_eq!(world.attach(0, STREAMS[0]), Ok(()));
    }
    for _ in 0..24 {
        let (vm, stream, page) = (below(&world, 2), below(&world, STREAMS.len()), below(&world, PAGES.len()));
        let (vm, first) = if exchanges { (0, 3) } else { (vm, 0) };
        let (stream, page) = (STREAMS[stream], PAGES[page]);
        let vmid = world.vms[vm].owner.vmid;
        let owner = world.machine.borrow().model.stream_owner.get(&stream).copied();
        match first + below(&world, 8 - first) {
            0 | 1 if owner != Some(vmid) => {
                let given = world.attach(vm, stream);
                if given.is_ok() != owner.is_none() {
                    return Err(format!("VM {vmid} and stream {stream:#x} of {owner:?}: {given:?}"));
                }
            }
            2 => {
                let quietly = below(&world, 2) == 0;
                let given_back = world.detach(vm, stream, quietly);
                if given_back.is_ok() != (owner == Some(vmid)) {
                    return Err(format!("VM {vmid} gives stream {stream:#x} of {owner:?}: {given_back:?}"));
                }
            }
            3 | 4 => world.map(vm, page),
            5 if !exchanges && below(&world, 2) == 0 => world.restart(vm),
            6 => world.rebuild(vm),
            _ => world.unmap(vm, page),
        }
        if let Some(trouble) = world.machine.borrow().trouble {
            return Err(trouble.to_string());
        }
        if below(&world, 2) == 0 {
            check(&world)?;
        }
        for _ in 0..below(&world, 40) {
            world.machine.borrow_mut().model.tick();
        }
    }
    check(&world)
}

fn as_it_is(_: &mut Features) {}

fn one_level(features: &mut Features) {
    features.two_level = false;
    features.range_invalidation = false;
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn no_device_reaches_what_its_vm_does_not_have(seed: u64) {
        prop_assert_eq!(history(seed, as_it_is, None), Ok(()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn neither_with_a_table_in_one_level_and_without_ranges(seed: u64) {
        prop_assert_eq!(history(seed, one_level, None), Ok(()));
    }
}

/// Leaves out each of the `steps` of procedures of this kind, but for those in `but`: some history is then not sound.
fn every_step_is_needed(purpose: Purpose, steps: usize, but: &[usize]) {
    let is_sound = |index: usize| (0..6000).all(|seed| history(seed, as_it_is, Some((purpose, index))).is_ok());
    let not_missed: Vec<_> = (0..steps).filter(|index| !but.contains(index) && is_sound(*index)).collect();
    assert_eq!(not_missed, [0; 0], "these steps of {purpose:?} are missed by nobody");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn every_step_of_an_attachment_is_needed() {
    // The entry was refused or aborted before, and its last owner's translations are gone (0 to 3); what is in word 1 (4) is of no
    // consequence to this SMMU.
    every_step_is_needed(Purpose::Attach, 13, &[0, 1, 2, 3, 4]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn every_step_of_a_detachment_is_needed() {
    every_step_is_needed(Purpose::Detach, 5, &[]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn every_step_of_an_exchange_is_needed() {
    // Words 1 and 2 and the leaf stay as they are.
    every_step_is_needed(Purpose::Exchange, 13, &[4, 5, 7]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn every_step_of_an_invalidation_is_needed() {
    every_step_is_needed(Purpose::Invalidate, 2, &[]);
    every_step_is_needed(Purpose::InvalidateNested, 4, &[]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn every_step_of_the_start_is_needed() {
    // CMD_SYNC waits as well until commands are consumed (26); and every attachment forgets its VM's translations (28).
    every_step_is_needed(Purpose::Start, 36, &[26, 28]);
}
