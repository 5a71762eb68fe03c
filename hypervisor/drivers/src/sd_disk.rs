//! An SD card as a disk of the machine.
//!
//! Answers for: requests, one after the other in the order in which they were sent; going on with one whenever the controller has told
//! something; errors. Does not answer for: the slots that requests are in ([`crate::disk`]), registers ([`crate::sdhci`]), what the card is
//! ([`crate::sd_card`]), who waits and for how long (the kernel).
//!
//! Each call of [`Driver::take_answers`] moves a block at most, 512 bytes, through the controller's buffer: with interrupts masked, as it
//! is called, nobody waits for longer. A write has been done when the card says by its status that it waits for commands again.
//!
//! An error ends a request: lines are reset, the card is told to stop (SDHC 3.10.1), and the next request is tried as if nothing had been. A card
//! that has been taken out answers none; another one put in in its place neither, as it has no address: nothing is written to it.

#[cfg(test)]
mod tests;

use crate::disk::{Driver, Failed, Host, MOST, Operation, SECTOR, Slot, Slots, State, Ticket, is_possible};
use crate::sd_card::{self, Card};
use crate::sdhci::{Controller, Events, Registers, STOP, SdError, Transfer};
use core::fmt;
use core::ptr::NonNull;
use types::{PAGE_SIZE, VmId};

/// Pages of a slot's memory.
const PAGES: usize = MOST / PAGE_SIZE as usize;
/// How often a card is asked for its status after a write before it is taken to hang: it has ended its busy signal before.
const MOST_ASKED: u32 = 10_000;

/// A request that waits for its turn, or has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    turn: u64,
    operation: Operation,
    sector: u64,
    /// Blocks of 512 bytes.
    blocks: usize,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The answer to its command.
    Command,
    /// Room for a block, or a block; so many have been.
    Data(usize),
    /// The end of all data.
    End,
    /// The card's status after a write; so many times asked before.
    Status(u32),
    /// The answer to a command to stop. Then it has failed.
    Stop,
}

/// The request whose turn it is.
#[derive(Clone, Copy, Debug)]
struct Current {
    request: Request,
    step: Step,
    /// Where its data is: [`MOST`] bytes.
    memory: NonNull<u8>,
    /// What the controller has told that no step has taken yet.
    events: Events,
}

// SAFETY: the memory is the slot's, and the slots are the disk's.
unsafe impl Send for Current {}

/// A card.
pub struct Disk<R> {
    controller: Controller<R>,
    card: Card,
    slots: Slots<Request>,
    current: Option<Current>,
    /// The next request's.
    turn: u64,
    /// Why nothing is asked of it any more.
    broken: Option<SdError>,
}

impl<R> fmt::Debug for Disk<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("card", &self.card).field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl<R: Registers> Disk<R> {
    /// Begins with the card behind a controller. `base`: megahertz of the controller's clock if it does not say. Takes a second at most
    /// that a card takes to power up, and some milliseconds; or a few seconds if it hangs.
    ///
    /// # Errors
    /// If there is no card, or either is of no use. The controller is left reset then.
    pub fn new(registers: R, base: u32, host: &Host) -> Result<Self, SdError> {
        let mut controller = Controller::new(registers, base)?;
        let card = sd_card::identify(&mut controller);
        let slots = card.and_then(|card| Ok((card, Slots::new(0, || (host.pages)(PAGES)).ok_or(SdError::Memory)?)));
        let (card, slots) = match slots {
            Ok(both) => both,
            Err(error) => {
                controller.stop();
                return Err(error);
            }
        };
        controller.enable_interrupt();
        Ok(Self { controller, card, slots, current: None, turn: 0, broken: None })
    }

    /// Begins with the request that has waited longest, if there is one, unless another has its turn. Says whether some have failed.
    fn start(&mut self) -> bool {
        let mut failed = false;
        // Each turn has one request less.
        while self.current.is_none() && self.broken.is_none() {
            let next = self.slots.sent().filter_map(Slot::request).min_by_key(|(request, _)| request.turn);
            let Some((request, memory)) = next else { break };
            self.current = Some(Current { request, step: Step::Command, memory, events: Events::empty() });
            let is_read = request.operation == Operation::Read;
            let command = match (is_read, request.blocks > 1) {
                (true, false) => sd_card::READ_SINGLE_BLOCK,
                (true, true) => sd_card::READ_MULTIPLE_BLOCK,
                (false, false) => sd_card::WRITE_BLOCK,
                (false, true) => sd_card::WRITE_MULTIPLE_BLOCK,
            };
            let transfer = Transfer { reads: is_read, size: SECTOR as u32, blocks: request.blocks as u32 };
            let started = self.controller.start(command, self.card.place(request.sector), Some(transfer));
            if started.is_err() {
                failed |= self.fail();
            }
        }
        failed
    }

    /// Goes on with the request whose turn it is, as far as the controller has told something. Says whether it is answered.
    fn advance(&mut self) -> bool {
        let Some(current) = &mut self.current else { return false };
        current.events |= self.controller.take_events();
        if current.events.intersects(Events::ERRORS) {
            return self.fail();
        }
        if matches!(current.step, Step::Command | Step::Status(_)) && current.takes(Events::COMMAND) {
            let status = self.controller.answer();
            if !sd_card::is_good(status) {
                return self.fail();
            }
            match current.step {
                Step::Status(_) if sd_card::is_ready(status) => return self.answer(Ok(())),
                Step::Status(asked) => return self.ask_status(asked + 1),
                _ => current.step = Step::Data(0),
            }
        }
        if let Step::Data(done) = current.step {
            let is_read = current.request.operation == Operation::Read;
            if current.takes(if is_read { Events::CAN_READ } else { Events::CAN_WRITE }) {
                if is_read {
                    self.controller.read_block(current.block(done));
                } else {
                    self.controller.write_block(current.block(done));
                }
                current.step = if done + 1 == current.request.blocks { Step::End } else { Step::Data(done + 1) };
            }
        }
        if !matches!(current.step, Step::End | Step::Stop) || !current.takes(Events::TRANSFER) {
            return false;
        }
        match (current.step, current.request.operation) {
            (Step::Stop, _) => self.answer(Err(Failed)),
            (_, Operation::Write) => self.ask_status(0),
            _ => self.answer(Ok(())),
        }
    }

    /// Asks the card whether it has written.
    fn ask_status(&mut self, asked: u32) -> bool {
        let Some(current) = self.current.as_mut().filter(|_| asked < MOST_ASKED) else { return self.fail() };
        current.step = Step::Status(asked);
        match self.controller.start(sd_card::SEND_STATUS, self.card.address, None) {
            Ok(()) => false,
            Err(_) => self.fail(),
        }
    }

    /// Something has gone wrong with the request whose turn it is. Says whether it is answered.
    fn fail(&mut self) -> bool {
        if self.controller.reset_lines().is_err() {
            self.give_up(SdError::Silent);
            return true;
        }
        let Some(current) = &mut self.current else { return false };
        current.events = Events::empty();
        if current.step == Step::Stop {
            return self.answer(Err(Failed));
        }
        current.step = Step::Stop;
        match self.controller.start(STOP, 0, None) {
            Ok(()) => false,
            Err(_) => self.answer(Err(Failed)),
        }
    }

    /// The request whose turn it is has been done, or not.
    fn answer(&mut self, result: Result<(), Failed>) -> bool {
        let Some(Current { request, .. }) = self.current.take() else { return false };
        let is_it = |slot: &&mut Slot<Request>| slot.state == State::Sent(request);
        if let Some(slot) = self.slots.sent().find(is_it) {
            slot.answer(result);
        }
        true
    }

    /// Never uses the controller again. All that it has been asked for has failed.
    fn give_up(&mut self, why: SdError) {
        if self.broken.is_none() {
            self.broken = Some(why);
            self.controller.stop();
            self.current = None;
            self.slots.fail();
        }
    }
}

impl<R: Registers> Driver for Disk<R> {
    fn sectors(&self) -> u64 {
        self.card.sectors
    }

    fn block_size(&self) -> u32 {
        SECTOR as u32
    }

    fn is_read_only(&self) -> bool {
        self.card.is_read_only
    }

    fn why_broken(&self) -> Option<&'static str> {
        self.broken.map(SdError::why)
    }

    fn acknowledge(&mut self) -> bool {
        self.controller.has_events()
    }

    fn take_answers(&mut self) -> bool {
        if self.current.is_none() {
            // Nobody has asked for it.
            self.controller.take_events();
            return false;
        }
        self.advance() | self.start()
    }

    fn take(&mut self, owner: Option<VmId>) -> Option<Ticket> {
        self.slots.take(owner)
    }

    fn data(&self, ticket: Ticket) -> Option<NonNull<u8>> {
        self.slots.data(ticket)
    }

    fn send(&mut self, ticket: Ticket, operation: Operation, sector: u64, length: usize) -> Result<(), Failed> {
        let is_possible = self.broken.is_none() && is_possible(self, operation, sector, length);
        let Some(slot) = self.slots.held(ticket).filter(|_| is_possible) else { return Err(Failed) };
        if operation == Operation::Flush {
            // What has been answered has been programmed; caches of cards (SD 6.00) are off.
            slot.state = State::Done(Ok(()));
            return Ok(());
        }
        self.turn += 1;
        let blocks = length / SECTOR as usize;
        slot.state = State::Sent(Request { turn: self.turn, operation, sector, blocks });
        // If it cannot be begun with it is answered.
        self.start();
        Ok(())
    }

    fn result(&self, ticket: Ticket) -> Option<Result<(), Failed>> {
        self.slots.result(ticket)
    }

    fn release(&mut self, ticket: Ticket) {
        self.slots.release(ticket);
    }

    fn release_all(&mut self, owner: VmId) {
        self.slots.release_all(owner);
    }

    fn abandon(&mut self) {
        self.give_up(SdError::Silent);
    }
}

impl Slot<Request> {
    /// What it is that waits in it, and where its data is.
    fn request(&mut self) -> Option<(Request, NonNull<u8>)> {
        match self.state {
            State::Sent(request) => Some((request, self.memory)),
            _ => None,
        }
    }
}

impl Current {
    /// Whether these have been told; they are not any more then.
    fn takes(&mut self, events: Events) -> bool {
        let found = self.events.contains(events);
        if found {
            self.events.remove(events);
        }
        found
    }

    /// A block of its data.
    fn block(&mut self, number: usize) -> &mut [u8] {
        let start = self.memory.as_ptr().wrapping_add(number * SECTOR as usize);
        // SAFETY: the slot's memory, which is nobody's but the driver's while it is sent; there are no more blocks than that has
        // room for (`is_possible`).
        unsafe { core::slice::from_raw_parts_mut(start, SECTOR as usize) }
    }
}
