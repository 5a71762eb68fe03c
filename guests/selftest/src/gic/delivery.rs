//! From pending to the CPU: enabling, masking, ending, levels of activity.
//!
//! IHI 0069, chapter 4 (physical interrupt handling and prioritization).

use guest_rt::gic::{self, Bank, GICD_ISPENDR, GICD_TYPER, Gic, SgiTarget};
use guest_rt::machine::Machine;
use guest_rt::registers::{affinity, wfi};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::timer::{self, Timer};
use guest_rt::{check, check_equal};

use super::{LONG, an_spi, drain, free_spis, next, silence};
use crate::{recorder, stage};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "gic: a pending SPI comes once", run: comes_once },
    Test { name: "gic: an SGI to ourselves comes once", run: sgi_to_self },
    Test { name: "gic: a message raises the SPI that it names, until it is taken back", run: by_message },
    Test { name: "gic: a disabled interrupt waits until it is enabled", run: disabled },
    Test { name: "gic: an interrupt disabled after it became pending does not come", run: disabled_late },
    Test { name: "gic: a pending interrupt can be taken back", run: taken_back },
    Test { name: "gic: an interrupt in hand reads as active, not pending", run: active_state },
    Test { name: "gic: pending again while active comes again after the end, once", run: pending_while_active },
    Test { name: "gic: an interrupt set active does not come until it is inactive", run: set_active },
    Test { name: "gic: with a split end, an interrupt stays active until it is deactivated", run: split_end },
    Test { name: "gic: a disabled group does not come", run: group_disabled },
    Test { name: "gic: group 0 is acknowledged by its own register", run: group0 },
    Test { name: "gic: the distributor's switch holds everything back", run: distributor_switch },
    Test { name: "gic: forty SPIs and sixteen SGIs at once all come once, most urgent first", run: more_than_fits },
    Test { name: "gic: all SPIs there are at once all come once", run: all_at_once },
    Test { name: "gic: more at once than list registers, time and again, and all come once", run: time_and_again },
    Test { name: "gic: a thousand SGIs to ourselves are a thousand interrupts", run: thousand },
    Test { name: "gic: WFI wakes on a masked interrupt, and does not sleep if one is pending", run: wake_up },
    Test { name: "gic: the special numbers say that there is nothing", run: spurious },
];

fn to_self(sgi: u32) {
    gic::send_sgi(sgi, SgiTarget::One(affinity()));
}

fn comes_once(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    gic.set(Bank::Pending, intid);
    check_equal!(next(), Some(intid), "acknowledged");
    gic::end(intid);
    silence()
}

fn sgi_to_self(machine: &'static Machine) -> Outcome {
    stage::clean_gic(machine);
    for sgi in 0..16 {
        to_self(sgi);
        check_equal!(next(), Some(sgi), "acknowledged");
        gic::end(sgi);
    }
    silence()
}

/// GICD_SETSPI_NSR and GICD_CLRSPI_NSR.
fn by_message(machine: &'static Machine) -> Outcome {
    const MBIS: u32 = 1 << 16;
    let gic = stage::clean_gic(machine);
    if gic.distributor.read(GICD_TYPER) & MBIS == 0 {
        return Err(Verdict::Skip("no message-based interrupts"));
    }
    let intid = an_spi(machine, gic)?;
    let (raise, take_back) = (|| gic.distributor.write(0x40, intid), || gic.distributor.write(0x48, intid));
    raise();
    check_equal!(next(), Some(intid), "acknowledged");
    gic::end(intid);
    silence()?;
    gic.disable(intid);
    raise();
    take_back();
    gic.enable(intid);
    silence()?;
    gic.set_edge(intid, false);
    raise();
    for _ in 0..2 {
        check_equal!(next(), Some(intid), "acknowledged, level-sensitive");
        gic::end(intid);
    }
    take_back();
    silence()
}

fn disabled(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    gic.disable(intid);
    gic.set(Bank::Pending, intid);
    silence()?;
    gic.enable(intid);
    check_equal!(next(), Some(intid), "acknowledged when enabled");
    gic::end(intid);
    Ok(())
}

fn disabled_late(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    gic.set(Bank::Pending, intid);
    gic.disable(intid);
    silence()?;
    check!(gic.is(Bank::Pending, intid), "it is not pending any more");
    gic.clear(Bank::Pending, intid);
    gic.enable(intid);
    silence()
}

fn taken_back(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    gic.set(Bank::Pending, intid);
    gic.clear(Bank::Pending, intid);
    check!(!gic.is(Bank::Pending, intid), "it is still pending");
    silence()
}

fn active_state(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    for intid in [intid, 5] {
        let state = || (gic.is(Bank::Pending, intid), gic.is(Bank::Active, intid));
        gic.set(Bank::Pending, intid);
        check_equal!(state(), (true, false), "pending, active before the acknowledge");
        check_equal!(next(), Some(intid), "acknowledged");
        let in_hand = state();
        gic::end(intid);
        check_equal!(in_hand, (false, true), "pending, active after the acknowledge");
        check_equal!(state(), (false, false), "pending, active after the end");
    }
    Ok(())
}

fn pending_while_active(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let spi = an_spi(machine, gic)?;
    for (intid, raise) in [(spi, set_pending as fn(Gic, u32)), (7, |_, sgi| to_self(sgi))] {
        raise(gic, intid);
        check_equal!(next(), Some(intid), "acknowledged");
        raise(gic, intid);
        raise(gic, intid);
        let nothing = gic::acknowledge();
        gic::end(intid);
        check_equal!(nothing, None, "acknowledged while active");
        check_equal!(next(), Some(intid), "acknowledged again");
        gic::end(intid);
        silence()?;
    }
    Ok(())
}

fn set_pending(gic: Gic, intid: u32) {
    gic.set(Bank::Pending, intid);
}

fn set_active(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    gic.set(Bank::Active, intid);
    gic.set(Bank::Pending, intid);
    silence()?;
    gic.clear(Bank::Active, intid);
    check_equal!(next(), Some(intid), "acknowledged when inactive");
    gic::end(intid);
    Ok(())
}

fn split_end(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    gic::set_split_end(true);
    gic.set(Bank::Pending, intid);
    let first = next();
    gic::end(intid);
    let (priority, is_active) = (gic::running_priority(), gic.is(Bank::Active, intid));
    gic.set(Bank::Pending, intid);
    let early = gic::acknowledge();
    gic::deactivate(intid);
    let second = next();
    gic::end(intid);
    gic::deactivate(intid);
    let remains = gic.is(Bank::Active, intid);
    gic::set_split_end(false);
    check_equal!(first, Some(intid), "acknowledged");
    check_equal!(priority, 0xff, "running priority after the end");
    check!(is_active, "the end deactivated it");
    check_equal!(early, None, "acknowledged before it was deactivated");
    check_equal!(second, Some(intid), "acknowledged after it was deactivated");
    check!(!remains, "it stays active");
    Ok(())
}

fn group_disabled(machine: &'static Machine) -> Outcome {
    stage::clean_gic(machine);
    gic::set_enabled(false);
    to_self(4);
    let quiet = silence();
    gic::set_enabled(true);
    quiet?;
    check_equal!(next(), Some(4), "acknowledged when the group is enabled");
    gic::end(4);
    Ok(())
}

fn group0(machine: &'static Machine) -> Outcome {
    stage::needs_gicv3(machine)?;
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    gic.set_group1(intid, false);
    gic.set(Bank::Pending, intid);
    let by_group1 = silence();
    let mut by_group0 = None;
    timer::wait_until(LONG, || {
        by_group0 = gic::acknowledge_group0();
        by_group0.is_some()
    });
    gic::end_group0(intid);
    gic.set_group1(intid, true);
    by_group1?;
    check_equal!(by_group0, Some(intid), "acknowledged by ICC_IAR0_EL1");
    silence()
}

fn distributor_switch(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    let control = gic.distributor.read(gic::GICD_CTLR);
    gic.distributor.write(gic::GICD_CTLR, control & !0b11);
    gic.wait_for_writes();
    gic.set(Bank::Pending, intid);
    let quiet = silence();
    gic.distributor.write(gic::GICD_CTLR, control);
    gic.wait_for_writes();
    quiet?;
    check_equal!(next(), Some(intid), "acknowledged when it is on");
    gic::end(intid);
    Ok(())
}

/// Raises `spis` and all SGIs behind a closed mask, opens it, and checks that each comes once and none before a more
/// urgent one.
fn flood(gic: Gic, spis: impl Iterator<Item = u32> + Clone) -> Outcome {
    const MOST: usize = 1024;
    gic::set_priority_mask(0);
    // 16 levels that every GIC has, less the one that no mask lets through.
    let priority_of = |intid: u32| ((intid.wrapping_mul(7) % 15) << 4) as u8;
    for intid in spis.clone() {
        gic.set_edge(intid, true);
        gic.set_priority(intid, priority_of(intid));
        gic.enable(intid);
        gic.set(Bank::Pending, intid);
    }
    for sgi in 0..16 {
        gic.set_priority(sgi, priority_of(sgi));
        to_self(sgi);
    }
    let early = gic::acknowledge();
    gic::set_priority_mask(0xff);
    let taken = drain::<MOST>(spis.clone().count() + 16);
    check_equal!(early, None, "acknowledged through a closed mask");
    for intid in spis.clone().chain(0..16) {
        let times = taken.iter().filter(|taken| **taken == intid).count();
        check!(times == 1, "{intid} came {times} times, {} interrupts in all", taken.len());
    }
    check_equal!(taken.len(), spis.count() + 16, "interrupts in all");
    for pair in taken.windows(2) {
        let [before, after] = [priority_of(pair[0]), priority_of(pair[1])];
        check!(before <= after, "{} (priority {before:#x}) came before {} ({after:#x})", pair[0], pair[1]);
    }
    Ok(())
}

fn more_than_fits(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let spis = free_spis(machine, gic).take(40);
    let result = flood(gic, spis.collect::<arrayvec::ArrayVec<u32, 40>>().into_iter());
    stage::clean_gic(machine);
    result
}

fn all_at_once(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let spis = free_spis(machine, gic).collect::<arrayvec::ArrayVec<u32, 1024>>();
    let result = flood(gic, spis.iter().copied());
    stage::clean_gic(machine);
    result
}

/// `interrupts=N` says how many in all.
fn time_and_again(machine: &'static Machine) -> Outcome {
    const TOGETHER: u32 = 32;
    const FIRST: u32 = 64;
    let gic = stage::clean_gic(machine);
    if free_spis(machine, gic).filter(|intid| (FIRST..FIRST + TOGETHER).contains(intid)).count() < TOGETHER as usize {
        return Err(Verdict::Skip("too few shared interrupts"));
    }
    let wanted = machine.numeric_argument("interrupts").unwrap_or(1000);
    for intid in FIRST..FIRST + TOGETHER {
        gic.set_edge(intid, true);
        gic.enable(intid);
    }
    let mut taken = 0;
    while taken < wanted {
        gic.distributor.write(GICD_ISPENDR + 4 * (FIRST as usize / 32), !0);
        let mut missing = u32::MAX;
        while missing != 0 {
            let Some(intid) = next() else {
                return Err(Verdict::fail(format_args!("{missing:#010x} are missing after {taken}")));
            };
            gic::end(intid);
            let bit = 1_u32.checked_shl(intid.wrapping_sub(FIRST)).unwrap_or(0);
            check!(missing & bit != 0, "{intid} came once more than it should, after {taken}");
            missing &= !bit;
            taken += 1;
        }
    }
    stage::clean_gic(machine);
    silence()
}

fn thousand(machine: &'static Machine) -> Outcome {
    stage::clean_gic(machine);
    for round in 0..1000 {
        let sgi = round % 16;
        to_self(sgi);
        let taken = next();
        check!(taken == Some(sgi), "round {round}: {taken:?} instead of {sgi}");
        gic::end(sgi);
    }
    silence()
}

fn wake_up(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    to_self(1);
    // Returns, or the test never ends.
    wfi();
    check_equal!(next(), Some(1), "acknowledged after WFI with one pending");
    gic::end(1);
    gic.enable(Timer::Virtual.intid());
    Timer::Virtual.arm(timer::now() + timer::ticks(1000));
    while !Timer::Virtual.is_due() {
        wfi();
    }
    Timer::Virtual.stop();
    check_equal!(recorder::total(0), 0, "interrupts taken while masked");
    Ok(())
}

fn spurious(machine: &'static Machine) -> Outcome {
    stage::clean_gic(machine);
    check_equal!(gic::acknowledge(), None, "acknowledged");
    check_equal!(gic::highest_pending(), 1023, "ICC_HPPIR1_EL1");
    check_equal!(gic::running_priority(), 0xff, "ICC_RPR_EL1");
    Ok(())
}
