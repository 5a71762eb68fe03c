//! SD host controllers.
//!
//! Answers for: the registers of a controller: reset, power, clock, commands and what they answer, data by blocks, errors. Does not answer
//! for: what commands mean to a card ([`crate::sd_card`]), which requests there are ([`crate::sd_disk`]).
//!
//! Follows the SD Host Controller Simplified Specification, version 3.00 ("SDHC"). Data goes through the buffer data port (SDHC 1.7.2), by
//! the CPU: there is no DMA, so there is no memory to keep it from.
//!
//! Registers are read and written by whole words only, as the BCM2711 wants it. So registers that share a word are always written
//! together: transfer mode with the command, block size with the count of blocks, the clock with the timeout and the resets.
//! Below 400 kHz a write takes that controller four clocks of the card; it is given them (Linux, `drivers/mmc/host/sdhci-iproc.c`).
//!
//! Nothing here waits for longer than is said where it waits.

use core::fmt;

/// The way to a controller's registers, and to a clock.
pub trait Registers: Send {
    /// Reads the word at `offset`.
    fn read(&self, offset: usize) -> u32;
    /// Writes it.
    fn write(&mut self, offset: usize, value: u32);
    /// Microseconds since some moment.
    fn now(&self) -> u64;
}

/// Block Size (SDHC 2.2.2), Block Count (2.2.3)
pub(crate) const BLOCKS: usize = 0x04;
/// Argument (2.2.4)
pub(crate) const ARGUMENT: usize = 0x08;
/// Transfer Mode (2.2.5), Command (2.2.6)
pub(crate) const COMMAND: usize = 0x0c;
/// Response (2.2.7): four words.
pub(crate) const RESPONSE: usize = 0x10;
/// Buffer Data Port (2.2.8)
pub(crate) const DATA: usize = 0x20;
/// Present State (2.2.9)
pub(crate) const PRESENT: usize = 0x24;
/// Host Control 1 (2.2.10), Power Control (2.2.11), Block Gap Control (2.2.12), Wakeup Control (2.2.13)
pub(crate) const CONTROL: usize = 0x28;
/// Clock Control (2.2.14), Timeout Control (2.2.15), Software Reset (2.2.16)
pub(crate) const CLOCK: usize = 0x2c;
/// Normal and Error Interrupt Status (2.2.17, 2.2.18)
pub(crate) const STATUS: usize = 0x30;
/// What of it is noted (2.2.19, 2.2.20)
pub(crate) const STATUS_ENABLE: usize = 0x34;
/// What of it raises the interrupt (2.2.21, 2.2.22)
pub(crate) const SIGNAL_ENABLE: usize = 0x38;
/// Capabilities (2.2.25), the lower word
pub(crate) const CAPABILITIES: usize = 0x40;
/// Slot Interrupt Status (2.2.31), Host Controller Version (2.2.32)
pub(crate) const VERSION: usize = 0xfc;

/// PRESENT: Command Inhibit (CMD), (DAT).
pub(crate) const INHIBIT: u32 = 0b11;
/// PRESENT: Write Protect Switch Pin Level: 1 is "can be written".
pub(crate) const WRITABLE: u32 = 1 << 19;
/// CONTROL: Data Transfer Width: 4 bits.
pub(crate) const FOUR_BITS: u32 = 1 << 1;
/// CONTROL: SD Bus Voltage Select 3.3 V, SD Bus Power.
const POWER: u32 = 0b1111 << 8;
/// CLOCK: Internal Clock Enable, Internal Clock Stable, SD Clock Enable.
const INTERNAL: u32 = 1;
const STABLE: u32 = 1 << 1;
const TO_CARD: u32 = 1 << 2;
/// CLOCK: Data Timeout Counter Value: the longest, 2^27 clocks.
const LONGEST: u32 = 0xe << 16;
/// CLOCK: Software Reset For All, CMD Line, DAT Line.
pub(crate) const RESET_ALL: u32 = 1 << 24;
pub(crate) const RESET_COMMAND: u32 = 1 << 25;
pub(crate) const RESET_DATA: u32 = 1 << 26;
/// The first version with a clock divided by any even number, as Host Controller Version says it: 3.00.
const VERSION_3: u32 = 2;

bitflags::bitflags! {
    /// What a controller tells (SDHC 2.2.17, 2.2.18).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Events: u32 {
        /// Command Complete
        const COMMAND = 1;
        /// Transfer Complete: of data, or the card is not busy any more.
        const TRANSFER = 1 << 1;
        /// Buffer Write Ready
        const CAN_WRITE = 1 << 4;
        /// Buffer Read Ready
        const CAN_READ = 1 << 5;
        /// Command Timeout Error: no answer.
        const NO_ANSWER = 1 << 16;
        /// All errors that the specification has.
        const ERRORS = 0x3ff << 16;
    }
}

/// What a card answers to a command (SDHC 2.2.6, table 2-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    None,
    /// R1, R6, R7.
    Short,
    /// R1b: the card may be busy afterwards.
    Busy,
    /// R2.
    Long,
    /// R3: without a checksum.
    Unchecked,
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) index: u8,
    pub(crate) answer: Answer,
}

/// Data that goes with a command. Several blocks end with a CMD12 that the controller sends (Auto CMD12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) reads: bool,
    /// Bytes in a block.
    pub(crate) size: u32,
    /// At least one.
    pub(crate) blocks: u32,
}

/// CMD12 stops what goes on, whatever that is: Command Type "abort".
pub(crate) const STOP: Command = Command { index: 12, answer: Answer::Busy };

impl Command {
    fn word(self, transfer: Option<Transfer>) -> u32 {
        // Response Type Select, Command CRC Check Enable, Command Index Check Enable
        let answer = match self.answer {
            Answer::None => 0,
            Answer::Long => 0b0_1001,
            Answer::Unchecked => 0b0_0010,
            Answer::Short => 0b1_1010,
            Answer::Busy => 0b1_1011,
        };
        let kind = if self == STOP { 0b11 << 6 } else { 0 };
        let mode = transfer.map_or(0, |transfer| {
            let direction = u32::from(transfer.reads) << 4;
            // Block Count Enable, Auto CMD12 Enable, Multi Block Select
            let several = if transfer.blocks > 1 { 1 << 1 | 1 << 2 | 1 << 5 } else { 0 };
            1 << 21 | direction | several
        });
        u32::from(self.index) << 24 | (kind | answer) << 16 | mode
    }
}

/// What has become of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The card has not answered.
    NoAnswer,
    /// It has not been understood, or has sent or got garbage.
    Garbled,
    /// The controller does not say what has become of it.
    Silent,
}

/// Why there is no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdError {
    /// There is no card.
    NoCard,
    /// It is none for this voltage, or of a kind that there was not when this was written, or does not do what its kind does.
    Card,
    /// The controller is not of version 3.00 or later.
    Version,
    /// The controller does not do what it is told, or has not answered in time.
    Silent,
    /// There is no memory for requests.
    Memory,
}

impl SdError {
    /// The same in words.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::NoCard => "there is no card",
            Self::Card => "its card is of no use",
            Self::Version => "its controller is older than version 3.00",
            Self::Silent => "it has not answered in time",
            Self::Memory => "there is no memory for its requests",
        }
    }
}

/// A controller.
pub(crate) struct Controller<R> {
    registers: R,
    /// Megahertz that the card's clock is divided from.
    base: u32,
    /// What is written to [`CLOCK`] when nothing is to change there.
    clock: u32,
    /// Whether each write has to be given time.
    is_slow: bool,
}

impl<R> fmt::Debug for Controller<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl<R: Registers> Controller<R> {
    /// Resets a controller and gives the card power, and a clock of 400 kHz. `base`: the megahertz that this is divided from if the
    /// controller does not say (SDHC 2.2.25, "Get information via another method").
    pub(crate) fn new(registers: R, base: u32) -> Result<Self, SdError> {
        let mut this = Self { registers, base, clock: LONGEST, is_slow: true };
        if this.registers.read(VERSION) >> 16 & 0xff < VERSION_3 {
            return Err(SdError::Version);
        }
        // SDHC 2.2.16 has no time; 100 ms are Linux'.
        this.reset(RESET_ALL, 100_000).map_err(|_| SdError::Silent)?;
        match this.registers.read(CAPABILITIES) >> 8 & 0xff {
            0 => {}
            megahertz => this.base = megahertz,
        }
        this.write(CONTROL, POWER);
        this.write(SIGNAL_ENABLE, 0);
        this.write(STATUS_ENABLE, Events::all().bits());
        this.set_clock(400)?;
        // 1 ms, and 74 clocks (SD Physical Layer 6.4.1).
        this.pause(2000);
        Ok(this)
    }

    /// Gives the card a clock of so many kilohertz at most (SDHC 3.2.3).
    pub(crate) fn set_clock(&mut self, kilohertz: u32) -> Result<(), SdError> {
        self.write(CLOCK, LONGEST);
        // Divided by twice this; 0 is undivided. Ten bits, the upper two below the lower eight.
        let base = self.base.saturating_mul(1000);
        let half = if base <= kilohertz { 0 } else { base.div_ceil(2 * kilohertz).min(0x3ff) };
        self.clock = LONGEST | (half & 0xff) << 8 | half >> 8 << 6 | INTERNAL;
        self.write(CLOCK, self.clock);
        // SDHC 2.2.14: 150 ms.
        self.wait_for(CLOCK, STABLE, STABLE, 150_000).map_err(|_| SdError::Silent)?;
        self.clock |= TO_CARD;
        self.write(CLOCK, self.clock);
        self.is_slow = kilohertz <= 400;
        Ok(())
    }

    /// From now on data goes over four lines.
    pub(crate) fn set_four_bits(&mut self) {
        self.write(CONTROL, POWER | FOUR_BITS);
    }

    /// Whether a switch on the card says that it is not to be written.
    pub(crate) fn is_write_protected(&self) -> bool {
        self.registers.read(PRESENT) & WRITABLE == 0
    }

    /// From now on what it tells raises its interrupt.
    pub(crate) fn enable_interrupt(&mut self) {
        self.write(STATUS, u32::MAX);
        self.write(SIGNAL_ENABLE, Events::all().bits());
    }

    /// Never does anything any more.
    pub(crate) fn stop(&mut self) {
        self.write(SIGNAL_ENABLE, 0);
        self.write(CLOCK, RESET_ALL);
    }

    /// Whether there is something to take.
    pub(crate) fn has_events(&self) -> bool {
        self.registers.read(STATUS) & Events::all().bits() != 0
    }

    /// Takes what it has told.
    pub(crate) fn take_events(&mut self) -> Events {
        let events = self.registers.read(STATUS);
        self.write(STATUS, events);
        Events::from_bits_truncate(events)
    }

    /// Sends a command. It is answered when there is [`Events::COMMAND`].
    ///
    /// # Errors
    /// If the lines do not become free within a millisecond: they will not without a reset.
    pub(crate) fn start(&mut self, command: Command, argument: u32, transfer: Option<Transfer>) -> Result<(), Fault> {
        // An abort is sent while data goes on (SDHC 3.10).
        let inhibit = if command == STOP { 1 } else { INHIBIT };
        self.wait_for(PRESENT, inhibit, 0, 1000)?;
        self.write(STATUS, u32::MAX);
        if let Some(Transfer { size, blocks, .. }) = transfer {
            self.write(BLOCKS, blocks << 16 | size);
        }
        self.write(ARGUMENT, argument);
        self.write(COMMAND, command.word(transfer));
        Ok(())
    }

    /// What the card has answered, but for a long answer.
    pub(crate) fn answer(&self) -> u32 {
        self.registers.read(RESPONSE)
    }

    /// R2 without its checksum: bits 127 to 8 of the register of the card, where they are there.
    pub(crate) fn long_answer(&self) -> u128 {
        let word = |n: usize| u128::from(self.registers.read(RESPONSE + 4 * n)) << (32 * n);
        (word(0) | word(1) | word(2) | word(3)) << 8
    }

    /// Reads a block, or what there is of one, when there is [`Events::CAN_READ`].
    pub(crate) fn read_block(&mut self, to: &mut [u8]) {
        for word in to.chunks_exact_mut(4) {
            word.copy_from_slice(&self.registers.read(DATA).to_le_bytes());
        }
    }

    /// Writes one when there is [`Events::CAN_WRITE`].
    pub(crate) fn write_block(&mut self, from: &[u8]) {
        for word in from.chunks_exact(4) {
            let value = word.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            self.registers.write(DATA, value);
        }
    }

    /// Sends a command and waits for the end of it: 100 ms for the answer, a second for a card that is busy.
    pub(crate) fn ask(&mut self, command: Command, argument: u32) -> Result<u32, Fault> {
        let ends = if command.answer == Answer::Busy { Events::TRANSFER } else { Events::COMMAND };
        self.complete(command, argument, None, |controller| controller.expect(ends, 1_000_000))
    }

    /// Sends a command and reads what it brings, at most a block, within a second.
    pub(crate) fn ask_for(&mut self, command: Command, argument: u32, to: &mut [u8]) -> Result<u32, Fault> {
        let transfer = Transfer { reads: true, size: to.len() as u32, blocks: 1 };
        self.complete(command, argument, Some(transfer), |controller| {
            controller.expect(Events::CAN_READ, 500_000)?;
            controller.read_block(to);
            controller.expect(Events::TRANSFER, 500_000)
        })
    }

    fn complete(
        &mut self,
        command: Command,
        argument: u32,
        transfer: Option<Transfer>,
        rest: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<u32, Fault> {
        let started = self.start(command, argument, transfer);
        let done = started.and_then(|()| self.expect(Events::COMMAND, 100_000)).and_then(|()| {
            let answer = self.answer();
            rest(self).map(|()| answer)
        });
        match done {
            Ok(answer) => Ok(answer),
            Err(fault) => self.reset_lines().and(Err(fault)),
        }
    }

    /// Waits until these have been told, and leaves them where they are.
    fn expect(&mut self, wanted: Events, microseconds: u64) -> Result<(), Fault> {
        let deadline = self.registers.now().saturating_add(microseconds);
        loop {
            let events = Events::from_bits_truncate(self.registers.read(STATUS));
            if events.contains(Events::NO_ANSWER) {
                return Err(Fault::NoAnswer);
            }
            if events.intersects(Events::ERRORS) {
                return Err(Fault::Garbled);
            }
            if events.contains(wanted) {
                return Ok(());
            }
            if self.registers.now() >= deadline {
                return Err(Fault::Silent);
            }
        }
    }

    /// Makes it ready for another command after an error (SDHC 3.10.1), within two milliseconds.
    pub(crate) fn reset_lines(&mut self) -> Result<(), Fault> {
        self.reset(RESET_COMMAND, 1000).and(self.reset(RESET_DATA, 1000))
    }

    fn reset(&mut self, what: u32, microseconds: u64) -> Result<(), Fault> {
        let clock = if what == RESET_ALL { 0 } else { self.clock };
        self.write(CLOCK, clock | what);
        self.wait_for(CLOCK, what, 0, microseconds)
    }

    fn wait_for(&self, register: usize, mask: u32, value: u32, microseconds: u64) -> Result<(), Fault> {
        let deadline = self.registers.now().saturating_add(microseconds);
        while self.registers.read(register) & mask != value {
            if self.registers.now() >= deadline {
                return Err(Fault::Silent);
            }
        }
        Ok(())
    }

    /// Lets time pass.
    pub(crate) fn pause(&self, microseconds: u64) {
        let deadline = self.registers.now().saturating_add(microseconds);
        while self.registers.now() < deadline {
            core::hint::spin_loop();
        }
    }

    /// Microseconds since some moment.
    pub(crate) fn now(&self) -> u64 {
        self.registers.now()
    }

    fn write(&mut self, offset: usize, value: u32) {
        self.registers.write(offset, value);
        if self.is_slow {
            self.pause(10);
        }
    }
}
