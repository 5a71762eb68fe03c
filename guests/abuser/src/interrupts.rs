//! Interrupts: more of them than anybody can take.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::gic::{self, Bank, Gic, SgiTarget};
use guest_rt::registers::{affinity, with_irq};
use guest_rt::timer::{self, ENABLE, Timer};
use guest_rt::{cpus, exceptions};

use crate::Abuse;

static TAKEN: AtomicU64 = AtomicU64::new(0);

fn count(_intid: u32) {
    TAKEN.fetch_add(1, Ordering::Relaxed);
}

fn count_from_now() {
    TAKEN.store(0, Ordering::Relaxed);
    // SAFETY: interrupts are masked here, and no other CPU runs.
    unsafe { exceptions::on_interrupt(count) };
}

/// SGIs to ourselves, to others, to all and to nobody, from all CPUs, taken and not taken.
pub(crate) fn sgi_flood(abuse: &mut Abuse) -> u64 {
    const SENT: u64 = 10_000;
    count_from_now();
    let others = 1..abuse.machine.cpus.len();
    for index in others.clone() {
        let _ = cpus::start(index, |_| flood(SENT));
    }
    flood(SENT);
    for index in others {
        let _ = cpus::wait_off(index);
    }
    with_irq(|| timer::delay(1000));
    TAKEN.load(Ordering::Relaxed)
}

fn flood(times: u64) {
    let end = timer::now() + timer::ticks(500_000);
    for round in (0..times).take_while(|_| timer::now() < end) {
        let sgi = round as u32 % 16;
        match round % 4 {
            0 => gic::send_sgi(sgi, SgiTarget::One(affinity())),
            1 | 2 => gic::send_sgi(sgi, SgiTarget::Others),
            _ => gic::send_sgi(sgi, SgiTarget::One(round << 8 & 0xff_00ff_ffff)),
        }
        // Every now and then they are let in.
        if round % 64 == 0 {
            with_irq(|| ());
        }
    }
}

/// All SPIs pending, active, level, edge, enabled and not, again and again.
pub(crate) fn spi_flood(abuse: &mut Abuse) -> u64 {
    count_from_now();
    let gic = Gic::of(abuse.machine);
    let words = gic.words();
    let mut rounds = 0;
    while rounds < 50 && !abuse.is_over() {
        for word in 1..words {
            for bank in [gic::GICD_ICFGR, gic::GICD_ISENABLER, gic::GICD_ISPENDR, gic::GICD_ICPENDR] {
                gic.distributor.write(bank + 4 * word, abuse.random.value() as u32);
            }
            gic.distributor.write(gic::GICD_ISPENDR + 4 * word, !0);
            gic.distributor.write(gic::GICD_ISENABLER + 4 * word, !0);
        }
        let intid = 32 + abuse.random.below(u64::from(gic.intids()) - 32) as u32;
        gic.set_priority(intid, abuse.random.next() as u8);
        gic.set(Bank::Active, intid);
        with_irq(|| timer::delay(200));
        gic.clear(Bank::Active, intid);
        rounds += 1;
    }
    TAKEN.load(Ordering::Relaxed)
}

/// How many times a timer may still come back.
static LEFT: AtomicU64 = AtomicU64::new(0);

fn come_back(_intid: u32) {
    TAKEN.fetch_add(1, Ordering::Relaxed);
    if LEFT.fetch_sub(1, Ordering::Relaxed) <= 1 {
        Timer::Virtual.stop();
        Timer::Physical.stop();
    }
}

/// Both timers long due, and never silenced: each end of an interrupt is the beginning of the next.
pub(crate) fn timer_storm(abuse: &mut Abuse) -> u64 {
    const TIMES: u64 = 20_000;
    TAKEN.store(0, Ordering::Relaxed);
    LEFT.store(TIMES, Ordering::Relaxed);
    // SAFETY: interrupts are masked here, and no other CPU runs.
    unsafe { exceptions::on_interrupt(come_back) };
    let gic = Gic::of(abuse.machine);
    for timer in [Timer::Virtual, Timer::Physical] {
        gic.enable(timer.intid());
        timer.set_compare(0);
        timer.set_control(ENABLE);
    }
    let deadline = abuse.deadline;
    with_irq(|| {
        // A timer that is always due leaves no time for anything else; if it does, we look at the clock.
        while LEFT.load(Ordering::Relaxed) > 0 && LEFT.load(Ordering::Relaxed) <= TIMES && timer::now() < deadline {
            Timer::Virtual.set_compare(1);
        }
    });
    TAKEN.load(Ordering::Relaxed)
}
