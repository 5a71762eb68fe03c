//! Bringing a function to rest.
//!
//! Answers for: the steps after which a function does nothing, and nothing that it has begun is still under way; and those after which it
//! is as it was found. Each step is short, and each wait has an end, however the function behaves. Does not answer for: waiting (who calls
//! [`Rest::advance`] does), whether others may be reset along with it ([`Rest::touches`] says whom), its streams and interrupts.
//!
//! PCI Express Base Specification, 6.6.1 (conventional reset), 6.6.2 (FLR), 2.3.1.1 (a function that is not ready yet), 7.5.1.3.13 (Secondary
//! Bus Reset); ECN Advanced Capabilities for Conventional PCI (AF FLR).

use crate::{
    Configuration, Function, Reset, Space, bar,
    registers::{self, advanced, command, express, message},
    virtual_functions,
};
use alloc::vec::Vec;
use core::fmt;
use pci_types::PciAddress;
use types::{Frequency, Ticks};

/// For so long transactions may be pending, in microseconds: more than any Completion Timeout in use (2.8: 50 µs to 50 ms by default).
pub(crate) const PENDING_LIMIT: u64 = 200_000;
/// A function that has been reset by itself is left alone for so long (6.6.2).
pub(crate) const FLR_DELAY: u64 = 100_000;
/// A secondary bus is held in reset for so long: T_rst is 1 ms (6.6.1; PCI Local Bus 3.0, 4.3.2).
pub(crate) const BUS_HOLD: u64 = 2_000;
/// And then left alone for so long (6.6.1).
pub(crate) const BUS_DELAY: u64 = 100_000;
/// By then a function has to answer, counted from the end of the reset (6.6.1: 1 s).
pub const READY_LIMIT: u64 = 1_000_000;
/// How often one looks.
const LOOK: u64 = 1_000;

/// Why a function is not at rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unrest {
    /// It does not answer any more.
    Gone,
    /// It is not known.
    Unknown,
    /// Bus Master cannot be switched off.
    StaysMaster,
    /// It cannot be reset, and still waits for something that it has asked for.
    Pending,
    /// It does not answer after its reset.
    NotReady,
    /// Another answers after its reset.
    Another,
    /// It does not take back what it had before its reset.
    NotRestored,
}

impl fmt::Display for Unrest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "it does not answer any more",
            Self::Unknown => "there is no such function",
            Self::StaysMaster => "Bus Master cannot be switched off",
            Self::Pending => "transactions of it stay pending, and it cannot be reset",
            Self::NotReady => "it does not answer within a second after its reset",
            Self::Another => "another function answers after its reset",
            Self::NotRestored => "it does not keep its addresses after its reset",
        })
    }
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum RestProgress {
    /// It is at rest, and as it was found.
    Done,
    /// Ask again then, not before.
    Waiting(Ticks),
    /// It is not at rest, and what is wrong is final: this one is the reason.
    Failed(PciAddress, Unrest),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Begin,
    /// It does not answer, and has to by then: somebody else may have begun a reset.
    Away(Ticks),
    /// Until what has been begun is complete; at last then.
    Pending(Ticks),
    /// The bus behind this bridge is in reset.
    Held(PciAddress, Ticks),
    /// Nobody looks until then.
    Settling(Ticks),
    /// The n-th one has to answer by then.
    Ready(usize, Ticks),
    /// Its virtual functions are being made again.
    Virtual(Ticks),
    Over(Option<(PciAddress, Unrest)>),
}

/// The state that follows, or none: the same, later.
type Next = Result<Option<State>, (PciAddress, Unrest)>;

/// A function on its way to rest.
#[derive(Clone, Debug)]
#[must_use = "nothing happens unless it is advanced"]
pub struct Rest {
    /// All that is reset, bridges before what is behind them.
    touched: Vec<Function>,
    method: Reset,
    /// The virtual functions that these have made: each behind its physical one's address. They are reset, too, and are to be made again.
    made: Vec<(PciAddress, PciAddress)>,
    /// What is to come to rest.
    address: PciAddress,
    frequency: Frequency,
    state: State,
}

impl Rest {
    /// The function at `address` of `functions`, reset in the best way that it has.
    pub fn of(functions: &[Function], address: PciAddress, frequency: Frequency) -> Self {
        let own = functions.iter().find(|function| function.address == address);
        let method = own.map_or(Reset::None, Function::reset);
        let touched = match (own, method) {
            (None, _) => Vec::new(),
            (Some(_), Reset::Bus(bridge)) => behind(functions, bridge).cloned().collect(),
            (Some(own), _) => Vec::from([own.clone()]),
        };
        let is_touched = |physical: &PciAddress| touched.iter().any(|function| function.address == *physical);
        let made = functions.iter().filter_map(|it| Some((it.physical.filter(is_touched)?, it.address))).collect();
        let state = if own.is_some() { State::Begin } else { State::Over(Some((address, Unrest::Unknown))) };
        Self { touched, method, made, address, frequency, state }
    }

    /// How it is reset.
    #[must_use]
    pub const fn method(&self) -> Reset {
        self.method
    }

    /// All functions that are reset by it, but the virtual ones of the function itself: who has that one decides over these.
    pub fn touches(&self) -> impl Iterator<Item = PciAddress> {
        let made = self.made.iter().filter(|(physical, _)| *physical != self.address).map(|(_, made)| *made);
        self.touched.iter().map(|function| function.address).chain(made)
    }

    /// Whether it may be left as it is, for good. It may not as long as a bus is in reset, or nobody may look at what has been reset: a third
    /// of a second at most. The function is not at rest then, and whoever wants it to be begins anew.
    #[must_use]
    pub const fn may_be_left(&self) -> bool {
        !matches!(self.state, State::Held(..) | State::Settling(_) | State::Virtual(_))
    }

    /// Goes on as far as it can at `now`, without waiting.
    pub fn advance(&mut self, access: &dyn Configuration, now: Ticks) -> RestProgress {
        // Each turn is a state further.
        loop {
            let next = match self.state {
                State::Over(None) => return RestProgress::Done,
                State::Over(Some((address, unrest))) => return RestProgress::Failed(address, unrest),
                State::Settling(until) | State::Held(_, until) | State::Virtual(until) if now < until => {
                    return RestProgress::Waiting(until);
                }
                State::Begin => self.begin(access, now, None),
                State::Away(until) => self.begin(access, now, Some(until)),
                State::Pending(until) => self.pending(access, now, until),
                State::Held(bridge, _) => {
                    Space::new(access, bridge).change(registers::BRIDGE_CONTROL, registers::SECONDARY_BUS_RESET, 0);
                    Ok(Some(State::Settling(self.after(now, BUS_DELAY))))
                }
                State::Settling(_) => Ok(Some(State::Ready(0, self.after(now, READY_LIMIT)))),
                State::Ready(n, until) => self.ready(access, now, n, until),
                State::Virtual(_) => Ok(Some(State::Over(None))),
            };
            match next {
                Ok(Some(state)) => self.state = state,
                Ok(None) => return RestProgress::Waiting(self.after(now, LOOK)),
                Err(why) => self.state = State::Over(Some(why)),
            }
        }
    }

    fn after(&self, now: Ticks, microseconds: u64) -> Ticks {
        now.saturating_add(self.frequency.microseconds(microseconds))
    }

    /// Nothing new begins. One that does not answer has until `until`, if it has been known for a while.
    fn begin(&self, access: &dyn Configuration, now: Ticks, until: Option<Ticks>) -> Next {
        for function in &self.touched {
            let space = Space::new(access, function.address);
            if !space.answers() {
                // The bus's reset may bring it back.
                if matches!(self.method, Reset::Bus(_)) {
                    continue;
                }
                // A virtual one, while its physical one is reset; or one whose reset has been left.
                return match until {
                    None => Ok(Some(State::Away(self.after(now, READY_LIMIT)))),
                    Some(until) if now < until => Ok(None),
                    Some(_) => Err((function.address, Unrest::Gone)),
                };
            }
            quiet(space, function);
            // One that stays master is reset all the same, if it can be.
            if self.method == Reset::None && is_master(space, function) {
                return Err((function.address, Unrest::StaysMaster));
            }
        }
        Ok(Some(State::Pending(self.after(now, PENDING_LIMIT))))
    }

    /// What has been begun is complete, or it has been waited for.
    fn pending(&self, access: &dyn Configuration, now: Ticks, until: Ticks) -> Next {
        let is_pending = |function: &&Function| {
            let space = Space::new(access, function.address);
            space.answers() && is_pending(space, function)
        };
        match self.touched.iter().find(is_pending) {
            Some(_) if now < until => Ok(None),
            Some(function) if self.method == Reset::None => Err((function.address, Unrest::Pending)),
            _ => Ok(Some(self.reset(access, now))),
        }
    }

    fn reset(&self, access: &dyn Configuration, now: Ticks) -> State {
        let own = self.touched.first();
        match (self.method, own) {
            (Reset::Bus(bridge), _) => {
                Space::new(access, bridge).change(registers::BRIDGE_CONTROL, 0, registers::SECONDARY_BUS_RESET);
                State::Held(bridge, self.after(now, BUS_HOLD))
            }
            (
                Reset::Function,
                Some(Function { address, capabilities: crate::Capabilities { express: Some(express), .. }, .. }),
            ) => {
                let control = express.offset.saturating_add(express::DEVICE_CONTROL);
                Space::new(access, *address).change(control, 0, express::INITIATE_FLR);
                State::Settling(self.after(now, FLR_DELAY))
            }
            (
                Reset::AdvancedFeatures,
                Some(Function { address, capabilities: crate::Capabilities { advanced: Some(features), .. }, .. }),
            ) => {
                let control = features.offset.saturating_add(advanced::CONTROL);
                Space::new(access, *address).set_byte(control, advanced::INITIATE_FLR);
                State::Settling(self.after(now, FLR_DELAY))
            }
            _ => State::Ready(0, self.after(now, READY_LIMIT)),
        }
    }

    /// The n-th one answers, and is again what it was.
    fn ready(&self, access: &dyn Configuration, now: Ticks, n: usize, until: Ticks) -> Next {
        let Some(function) = self.touched.get(n) else { return Ok(Some(self.virtual_again(access, now))) };
        let space = Space::new(access, function.address);
        let failed = |unrest| Err((function.address, unrest));
        if !space.answers() {
            return if now < until { Ok(None) } else { failed(Unrest::NotReady) };
        }
        if !virtual_functions::is_same(space, function) {
            return failed(Unrest::Another);
        }
        if !restore(space, function) {
            return failed(Unrest::NotRestored);
        }
        if is_master(space, function) {
            return failed(Unrest::StaysMaster);
        }
        Ok(Some(State::Ready(n.saturating_add(1), until)))
    }

    /// A reset has taken virtual functions away. They come back at rest; without them, their owners have lost them.
    fn virtual_again(&self, access: &dyn Configuration, now: Ticks) -> State {
        let again = |function: &&Function| {
            let count = self.made.iter().filter(|(physical, _)| *physical == function.address).count();
            let count = u16::try_from(count).unwrap_or(u16::MAX);
            count > 0 && virtual_functions::make(access, &[], function, count).is_ok()
        };
        match self.touched.iter().filter(again).count() {
            0 => State::Over(None),
            _ => State::Virtual(self.after(now, virtual_functions::VIRTUAL_DELAY)),
        }
    }
}

/// All functions behind a bridge, bridges before what is behind them.
fn behind(functions: &[Function], bridge: PciAddress) -> impl Iterator<Item = &Function> {
    let buses = functions.iter().find(|function| function.address == bridge).and_then(|function| function.bridge);
    functions.iter().filter(move |function| {
        // Virtual ones come and go with their physical function.
        function.physical.is_none() && buses.is_some_and(|buses| buses.leads_to(function.address.bus()))
    })
}

/// It begins nothing more: no DMA, no interrupt of any kind.
fn quiet(space: Space<'_>, function: &Function) {
    if function.bridge.is_none() {
        space.change(registers::COMMAND, command::BUS_MASTER, command::INTERRUPT_DISABLE);
    }
    if let Some(msi) = &function.capabilities.msi {
        space.change(msi.offset.saturating_add(message::CONTROL), message::MSI_ENABLE, 0);
    }
    if let Some(msix) = &function.capabilities.msix {
        let control = msix.offset.saturating_add(message::CONTROL);
        space.change(control, message::MSIX_ENABLE, message::MSIX_FUNCTION_MASK);
    }
}

/// The function at `address` begins nothing more, and nothing else is done to it: for when it cannot be reset because of others.
pub fn quiet_only(access: &dyn Configuration, functions: &[Function], address: PciAddress) {
    let space = Space::new(access, address);
    if let Some(function) = functions.iter().find(|function| function.address == address)
        && space.answers()
    {
        quiet(space, function);
    }
}

/// Switches Bus Master off of whatever answers on `bus`, bridges included, through which nothing asks for memory then. Says how many had it on.
/// For when nothing is known any more of what there is: there are 256 function numbers, and each costs three accesses at most.
pub fn switch_masters_off(access: &dyn Configuration, segment: u16, bus: u8) -> usize {
    let functions = (0..=u8::MAX).map(|number| PciAddress::new(segment, bus, number >> 3, number & 7));
    let masters = functions.map(|address| Space::new(access, address)).filter(Space::is_master);
    masters.map(|space| space.change(registers::COMMAND, command::BUS_MASTER, 0)).count()
}

fn is_master(space: Space<'_>, function: &Function) -> bool {
    function.bridge.is_none() && space.half(registers::COMMAND) & command::BUS_MASTER != 0
}

/// Whether it waits for something that it has asked for (7.5.3.5, Transactions Pending; AF Status).
fn is_pending(space: Space<'_>, function: &Function) -> bool {
    let express = function.capabilities.express.filter(|_| function.bridge.is_none());
    let advanced = function.capabilities.advanced.filter(|features| features.has_flr);
    express.is_some_and(|express| {
        space.half(express.offset.saturating_add(express::DEVICE_STATUS)) & express::TRANSACTIONS_PENDING != 0
    }) || advanced.is_some_and(|features| {
        space.byte(features.offset.saturating_add(advanced::STATUS)) & advanced::TRANSACTIONS_PENDING != 0
    })
}

/// Its header is as at the end of the scan; whether it takes that.
fn restore(space: Space<'_>, function: &Function) -> bool {
    space.set_half(registers::COMMAND, command::INTERRUPT_DISABLE);
    quiet(space, function);
    if let Some(express) = &function.capabilities.express {
        express.restore(space);
    }
    if let Some(access) = &function.capabilities.access_control {
        access.restore(space);
    }
    // Which bits of BARs there are depends on it.
    let mut keeps = function.capabilities.resizable.restore(space);
    keeps &= virtual_functions::restore(space, function);
    if let Some(bridge) = &function.bridge {
        keeps &= bridge.write_numbers(space);
        bridge.write_windows(space);
    }
    // Those of a virtual function are its physical one's.
    if function.physical.is_none() {
        keeps &= bar::write_all(space, registers::BAR0, &function.bars).is_ok();
    }
    let command = if function.physical.is_some() { 0 } else { function.command_at_rest() };
    // It would answer where others are.
    let command = if keeps { command } else { command & !command::MEMORY };
    space.set_half(registers::COMMAND, command);
    keeps
}
