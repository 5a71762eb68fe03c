//! The machine's network cards, and the switches that lead out of the machine by them.
//!
//! Answers for: which cards there are, beginning with one when the shell says so, and the thread that moves frames between a card and its
//! port of a switch. Does not answer for: which frames those are (`host::switch`), the card's queues (`drivers::virtio_net`), ports
//! (`net`).
//!
//! A card that nobody has named is not begun with: it has no memory and receives nothing. One that is in use is served by one thread
//! with the priority that was said, which does all there is to do for it; an interrupt wakes that thread and does nothing else, and
//! there is none while it works. So a flood has what that thread has of the CPUs, and what its switch lets in (`rate`). Nobody
//! waits for a card: frames that it does not take are lost where they wait, at its port.

use crate::interrupt;
use crate::net::{self, Table};
use crate::startup;
use crate::sync::{Lock, Rank};
use crate::thread::{self, Thread};
use crate::virtio::{Device, Pages};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use drivers::virtio::{MmioTransport, VirtioError};
use drivers::virtio_net::{self, Received};
use host::shell::Uplink;
use host::shell::report::NetInfo;
use host::switch::{self, MOST_ON_WIRE, Next, Outbox, PortId, derive_address};
use spin::Once;
use types::{IntId, Ticks};
use vdev::{Mac, NetWish, Sent, Unfinished};
use vm::config::{CpuConfig, SYSTEM_PARTITION};

/// Frames of one direction that are moved before the other has its turn.
const BATCH: usize = 32;
/// How long the thread sleeps if nobody wakes it, in microseconds; and if the card has no interrupt.
const LOOK: u64 = 1_000_000;
const LOOK_OFTEN: u64 = 1000;
/// After how long without sending what it was given a card is said to be silent, in microseconds.
const PATIENCE: u64 = 10_000_000;

const _: () = assert!(MOST_ON_WIRE <= virtio_net::MOST);

type Driver = virtio_net::Card<Pages, MmioTransport<'static>>;

/// What a card is doing.
enum Stage {
    /// Nothing: it has been found, and no more.
    Found(MmioTransport<'static>),
    /// It is in use.
    Used(Box<Driver>),
    /// It is never used again.
    Useless(VirtioError),
}

/// A card of the machine.
struct Card {
    number: u32,
    intid: Option<IntId>,
    mac: Mac,
    stage: Lock<Stage>,
    /// Once it has been named.
    thread: Once<Arc<Thread>>,
}

/// In the order of their addresses. There from before the first VM on.
static CARDS: Once<Vec<Card>> = Once::new();

fn cards() -> &'static [Card] {
    CARDS.get().map_or(&[], Vec::as_slice)
}

fn card(number: u32) -> Option<&'static Card> {
    cards().get(number as usize)
}

/// These are the machine's cards, lowest address first. Once, before there are other threads.
pub(crate) fn keep(found: Vec<Device<'_>>) {
    let all = found.into_iter().zip(0..).map(|((mut transport, window), number)| {
        let named = virtio_net::address(&mut transport).map(Mac).filter(|mac| mac.is_station());
        let mac = named.unwrap_or_else(|| derive_address("", &format!("net{number}")));
        log::info!("net{number}: {mac}, virtio at {}", window.registers.start());
        let stage = Lock::new(Rank::Cards, Stage::Found(transport));
        Card { number, intid: window.intid, mac, stage, thread: Once::new() }
    });
    let all = all.collect();
    CARDS.call_once(|| all);
}

/// There are frames at a card's port, and there were none.
pub(crate) fn ring(number: u32) {
    if let Some(thread) = card(number).and_then(|card| card.thread.get()) {
        thread::notify(thread);
    }
}

/// A card has raised its interrupt. Says whether this is one of a card's.
pub(crate) fn interrupt(intid: IntId) -> bool {
    let own = || cards().iter().filter(|card| card.intid == Some(intid));
    for card in own() {
        if let Stage::Used(driver) = &mut *card.stage.lock()
            && driver.acknowledge()
        {
            // Until the thread has looked.
            driver.listen(false, false);
        }
        ring(card.number);
    }
    own().next().is_some()
}

/// Connects a card with a switch, for good.
///
/// # Errors
/// Why that cannot be.
pub(crate) fn connect(uplink: &Uplink<'_>) -> Result<(), String> {
    let Some(card) = card(uplink.card) else { return Err(format!("there is no such card: {}", choice())) };
    if let Stage::Useless(why) = &*card.stage.lock() {
        return Err(format!("it is not used any more: {why}"));
    }
    let wish = NetWish {
        name: format!("net{}", card.number),
        mac: Some(card.mac),
        peer: Some(uplink.switch.into()),
        group: uplink.group,
        rate: uplink.rate,
        ..NetWish::default()
    };
    let port = net::attach_card(card.number, card.mac, &wish)?;
    let begun = card.begin(port, uplink);
    if begun.is_err() {
        net::end_card(card.number);
    }
    begun
}

/// What there is, for whoever has named something else.
fn choice() -> String {
    match cards() {
        [] => "this machine has none that there is a driver for".into(),
        all => {
            let names: Vec<String> = all.iter().map(|card| format!("/dev/net{}", card.number)).collect();
            format!("there is {}", names.join(", "))
        }
    }
}

fn after(microseconds: u64) -> Ticks {
    let ticks = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(microseconds));
    el2::cpu::counter().saturating_add(ticks)
}

impl Card {
    /// Begins with the card, and with its thread.
    fn begin(&'static self, port: PortId, uplink: &Uplink<'_>) -> Result<(), String> {
        let no_memory = || String::from("there is no memory for its thread");
        let mover = Mover {
            card: self,
            port,
            outbox: Outbox::new().ok_or_else(no_memory)?,
            incoming: Box::new([0; MOST_ON_WIRE]),
            outgoing: Box::new([0; MOST_ON_WIRE]),
            waiting: None,
            given: Ticks::NEVER,
            is_silent: false,
        };
        // All this takes a while, and is done without the lock.
        let found = core::mem::replace(&mut *self.stage.lock(), Stage::Useless(VirtioError::Memory));
        let transport = match found {
            Stage::Found(transport) => transport,
            other => {
                *self.stage.lock() = other;
                return Err("it is in use".into());
            }
        };
        let driver = Driver::new(transport).map_err(|why| {
            *self.stage.lock() = Stage::Useless(why);
            format!("{why}")
        })?;
        *self.stage.lock() = Stage::Used(Box::new(driver));
        let scheduling = uplink.scheduling;
        let parameters = startup::parameters(&CpuConfig {
            priority: scheduling.priority,
            policy: scheduling.policy.into(),
            runmask: None,
            partition: SYSTEM_PARTITION,
        });
        let spawned = thread::spawn(format!("net{}", self.number), parameters, move || mover.run());
        let Ok(thread) = spawned else {
            self.with(|driver| driver.give_up(VirtioError::Memory));
            *self.stage.lock() = Stage::Useless(VirtioError::Memory);
            return Err(no_memory());
        };
        self.thread.call_once(|| thread);
        if let Some(intid) = self.intid {
            interrupt::enable(intid);
        }
        // What came before there was anybody to ring.
        ring(self.number);
        Ok(())
    }

    /// Does something with the driver, if there is one.
    fn with<R>(&self, work: impl FnOnce(&mut Driver) -> R) -> Option<R> {
        match &mut *self.stage.lock() {
            Stage::Used(driver) => Some(work(driver)),
            _ => None,
        }
    }
}

/// What the thread has to do next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// There may be more.
    More,
    /// Nothing, until somebody says so.
    Nothing,
    /// Nothing until then.
    Until(Ticks),
    /// The card has no room.
    Full,
}

/// Moves frames between a card and its port.
struct Mover {
    card: &'static Card,
    port: PortId,
    outbox: Outbox,
    incoming: Box<[u8; MOST_ON_WIRE]>,
    outgoing: Box<[u8; MOST_ON_WIRE]>,
    /// Bytes of the frame in `incoming`, if it may not be sent yet.
    waiting: Option<usize>,
    /// When the card was first given something that it has not sent since.
    given: Ticks,
    is_silent: bool,
}

impl Mover {
    fn run(mut self) {
        loop {
            let (inward, outward) = (self.bring_in(), self.take_out());
            if let Some(why) = self.card.with(|driver| driver.broken()).flatten() {
                log::error!("net{}: {why}: it is not used any more", self.card.number);
                *self.card.stage.lock() = Stage::Useless(why);
                return net::end_card(self.card.number);
            }
            if inward == Then::More || outward == Then::More {
                continue;
            }
            let is_full = outward == Then::Full;
            self.watch(is_full);
            // Interrupts only for what there is to do then.
            let wants_frames = inward == Then::Nothing;
            if self.card.with(|driver| driver.listen(wants_frames, is_full)) == Some(true) {
                continue;
            }
            let look = after(if self.card.intid.is_some() { LOOK } else { LOOK_OFTEN });
            let until = if let Then::Until(when) = inward { look.min(when) } else { look };
            thread::sleep_until(until);
        }
    }

    /// From the card to the switch.
    fn bring_in(&mut self) -> Then {
        let (mut then, mut is_new) = (Then::More, false);
        for _ in 0..BATCH {
            let received = match self.waiting.take() {
                Some(length) => Received::Frame(length),
                None => self.card.with(|driver| driver.receive(&mut self.incoming[..])).unwrap_or(Received::None),
            };
            let length = match received {
                Received::Frame(length) => length,
                Received::Void => {
                    is_new = true;
                    continue;
                }
                Received::None => {
                    then = Then::Nothing;
                    break;
                }
            };
            is_new = true;
            if let Sent::Wait(when) = self.send(length) {
                self.waiting = Some(length);
                then = Then::Until(when);
                break;
            }
        }
        self.card.with(|driver| driver.notify_all(is_new, false));
        then
    }

    /// Sends a frame into the switch.
    fn send(&self, length: usize) -> Sent {
        let mut rest = &self.incoming[..length];
        switch::send(&Table, self.port, el2::cpu::counter(), Unfinished::default(), length, &mut |part| {
            let Some((now, behind)) = rest.split_at_checked(part.len()) else { return false };
            part.copy_from_slice(now);
            rest = behind;
            true
        })
    }

    /// From the switch to the card.
    fn take_out(&mut self) -> Then {
        let (mut then, mut is_new) = (Then::More, false);
        for _ in 0..BATCH {
            if self.card.with(Driver::has_room) != Some(true) {
                then = Then::Full;
                break;
            }
            match self.outbox.next(&Table, self.port, &mut self.outgoing[..]) {
                Next::Frame(length) => {
                    self.card.with(|driver| driver.send(&self.outgoing[..length]));
                    is_new = true;
                }
                Next::Lost => {}
                Next::None => {
                    then = Then::Nothing;
                    break;
                }
            }
        }
        self.card.with(|driver| driver.notify_all(false, is_new));
        then
    }

    /// Says so when a card has not sent for long, and when it has again.
    fn watch(&mut self, is_full: bool) {
        if !is_full {
            if self.is_silent {
                log::info!("net{}: it sends again", self.card.number);
            }
            (self.given, self.is_silent) = (Ticks::NEVER, false);
        } else if self.given == Ticks::NEVER {
            self.given = after(PATIENCE);
        } else if el2::cpu::counter() >= self.given && !self.is_silent {
            self.is_silent = true;
            log::warn!("net{}: it has not sent anything for 10 s: what is to leave by it is lost", self.card.number);
        }
    }
}

/// All cards and ports.
pub(crate) fn report() -> Vec<NetInfo> {
    let ports = net::report();
    let mut all = Vec::new();
    for card in cards() {
        let end = switch::End::Card(card.number);
        let port = ports.iter().find(|port| port.end == end);
        let stage = match &*card.stage.lock() {
            Stage::Found(_) => Ok(None),
            Stage::Used(driver) => Ok(Some(driver.is_up())),
            Stage::Useless(why) => Err(*why),
        };
        let about = match (stage, port) {
            (Err(why), _) => format!("{end}, not used any more: {why}"),
            (Ok(_), Some(port)) => format!("{end}, uplink of {}", port.place),
            (Ok(_), None) => format!("{end}, not in use"),
        };
        let counts = port.map_or_else(Default::default, |port| port.counts);
        all.push(NetInfo { mac: card.mac, is_up: stage == Ok(Some(true)), counts, about });
    }
    let devices = ports.iter().filter(|port| !matches!(port.end, switch::End::Card(_)));
    all.extend(devices.map(|port| NetInfo {
        mac: port.mac,
        is_up: port.is_up,
        counts: port.counts,
        about: format!("{} at {}", port.end, port.place),
    }));
    all
}
