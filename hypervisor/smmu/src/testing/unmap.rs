//! Pages that are taken from a VM while its devices write to them: when they may be somebody else's.

use super::world::{PAGES, STREAMS, Timing, World};
use std::string::{String, ToString};
use std::sync::atomic::Ordering;
use types::Ticks;

/// A VM whose devices write all the time, and which is given pages and loses them again: what is wrong with that.
fn history(seed: u64, timing: Timing) -> Result<(), String> {
    let mut world = World::new(seed, |_| {}, None);
    world.machine.borrow_mut().timing = timing;
    for stream in &STREAMS[..2] {
        assert_eq!(world.attach(0, *stream), Ok(()));
    }
    for _ in 0..40 {
        let (page, gives, ticks) = {
            let model = &mut world.machine.borrow_mut().model;
            (PAGES[model.below(PAGES.len())], model.below(2) == 0, model.below(30))
        };
        if gives {
            world.map(0, page);
        } else {
            world.unmap(0, page);
        }
        let machine = &mut *world.machine.borrow_mut();
        (0..ticks).for_each(|_| machine.model.tick());
        if let Some(trouble) = machine.trouble {
            return Err(trouble.to_string());
        }
    }
    let model = &mut world.machine.borrow_mut().model;
    model.land_all();
    model.violation.clone().map_or(Ok(()), Err)
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn no_page_is_anybody_elses_while_a_device_can_write_it() {
    let wrong = (0..400).find_map(|seed| history(seed, Timing::InTime).err());
    assert_eq!(wrong, None);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn telling_the_smmu_not_at_all_or_too_late_is_noticed() {
    for timing in [Timing::Never, Timing::Late] {
        let noticed = (0..400).filter(|seed| history(*seed, timing).is_err()).count();
        assert!(noticed > 20, "{timing:?}: {noticed} of 400 histories");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn what_an_smmu_that_does_not_answer_may_have_kept_is_nobody_elses() {
    for seed in 0..40 {
        let mut world = World::new(seed, |_| {}, None);
        assert_eq!(world.attach(0, STREAMS[0]), Ok(()));
        PAGES.into_iter().for_each(|page| world.map(0, page));
        {
            let model = &mut world.machine.borrow_mut().model;
            PAGES.into_iter().for_each(|page| _ = model.transact(STREAMS[0], page));
            model.is_stuck = true;
        }
        PAGES.into_iter().for_each(|page| world.unmap(0, page));
        assert!(world.vms[0].lost.load(Ordering::Relaxed));
        let machine = &mut *world.machine.borrow_mut();
        assert!(machine.trouble.is_some() && Ticks(machine.now) > super::world::PATIENCE);
        // The device goes on by what the SMMU has kept, tables among it.
        for _ in 0..300 {
            machine.model.tick();
        }
        machine.model.land_all();
        assert_eq!(machine.model.violation, None);
    }
}
