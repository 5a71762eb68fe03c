//! SD memory cards.
//!
//! Answers for: what commands mean to a card and what it says of itself, and making a card that has just got power one that can be read.
//! Does not answer for: registers of controllers ([`crate::sdhci`]), requests ([`crate::sd_disk`]).
//!
//! Follows the SD Physical Layer Simplified Specification, version 3.01 ("SD"). Cards of standard capacity, of either version, and of
//! high and extended capacity are known (SDSC, SDHC, SDXC); at default speed and 3.3 V: no other voltage is asked for.

use crate::sdhci::{Answer, Command, Controller, Fault, Registers, SdError};
use core::ops::RangeInclusive;

const fn command(index: u8, answer: Answer) -> Command {
    Command { index, answer }
}

const GO_IDLE_STATE: Command = command(0, Answer::None);
const ALL_SEND_CID: Command = command(2, Answer::Long);
const SEND_RELATIVE_ADDR: Command = command(3, Answer::Short);
const SELECT_CARD: Command = command(7, Answer::Busy);
const SEND_IF_COND: Command = command(8, Answer::Short);
const SEND_CSD: Command = command(9, Answer::Long);
pub(crate) const SEND_STATUS: Command = command(13, Answer::Short);
const SET_BLOCKLEN: Command = command(16, Answer::Short);
pub(crate) const READ_SINGLE_BLOCK: Command = command(17, Answer::Short);
pub(crate) const READ_MULTIPLE_BLOCK: Command = command(18, Answer::Short);
pub(crate) const WRITE_BLOCK: Command = command(24, Answer::Short);
pub(crate) const WRITE_MULTIPLE_BLOCK: Command = command(25, Answer::Short);
const APP_CMD: Command = command(55, Answer::Short);
/// Behind [`APP_CMD`].
const SET_BUS_WIDTH: Command = command(6, Answer::Short);
const SD_SEND_OP_COND: Command = command(41, Answer::Unchecked);
const SEND_SCR: Command = command(51, Answer::Short);

/// SEND_IF_COND (SD 4.3.13): 2.7 to 3.6 V, and a pattern that comes back.
const CONDITION: u32 = 0x1aa;
/// OCR (SD 5.1): 2.7 to 3.6 V; Host Capacity Support, and Card Capacity Status; the card has finished powering up.
const VOLTAGES: u32 = 0x00ff_8000;
const HIGH_CAPACITY: u32 = 1 << 30;
const IS_UP: u32 = 1 << 31;
/// What powering up may take (SD 4.2.3), in microseconds, and how often it is looked.
const POWER_UP: u64 = 1_000_000;
const LOOK: u64 = 10_000;

/// Card Status (SD 4.10.1): everything of type "error" that the command itself, or one before it, has met.
const ERRORS: u32 = 0xfdf9_8008;
const APP: u32 = 1 << 5;
const READY_FOR_DATA: u32 = 1 << 8;
/// CURRENT_STATE `tran`: waiting for commands.
const TRANSFER_STATE: u32 = 4;

/// What a card's state is between requests, by its status.
pub(crate) const fn is_ready(status: u32) -> bool {
    status & READY_FOR_DATA != 0 && status >> 9 & 0xf == TRANSFER_STATE
}

/// Whether its status is that of one that does what it was told.
pub(crate) const fn is_good(status: u32) -> bool {
    status & ERRORS == 0
}

/// A card that can be read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// Its relative address, as commands want it.
    pub(crate) address: u32,
    /// How many sectors of 512 bytes it has.
    pub(crate) sectors: u64,
    /// Whether it counts bytes, and not sectors.
    pub(crate) counts_bytes: bool,
    /// Whether nothing can be written to it.
    pub(crate) is_read_only: bool,
}

impl Card {
    /// A sector as commands want it; there is such a one.
    pub(crate) const fn place(&self, sector: u64) -> u32 {
        (if self.counts_bytes { sector * 512 } else { sector }) as u32
    }
}

/// What the register CSD says (SD 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Csd {
    sectors: u64,
    is_write_protected: bool,
}

impl Csd {
    /// `None` if it makes no sense, or is of a version that there was not.
    fn of(register: u128) -> Option<Self> {
        let bits = |bits: RangeInclusive<u32>| {
            (register >> bits.start()) as u64 & ((1 << (bits.end() + 1 - bits.start())) - 1)
        };
        let sectors = match bits(126..=127) {
            // SD 5.3.2: C_SIZE, C_SIZE_MULT, READ_BL_LEN
            0 if (9..=11).contains(&bits(80..=83)) => (bits(62..=73) + 1) << (bits(47..=49) + 2) << (bits(80..=83) - 9),
            // SD 5.3.3: C_SIZE, in units of 512 KiB
            1 => (bits(48..=69) + 1) << 10,
            _ => return None,
        };
        // PERM_WRITE_PROTECT, TMP_WRITE_PROTECT
        Some(Self { sectors, is_write_protected: bits(12..=13) != 0 })
    }
}

/// A command whose answer is a card's status.
fn told<R: Registers>(controller: &mut Controller<R>, command: Command, argument: u32) -> Result<(), SdError> {
    judge(controller.ask(command, argument))
}

fn judge(answer: Result<u32, Fault>) -> Result<(), SdError> {
    answer.ok().filter(|status| is_good(*status)).map(|_| ()).ok_or(SdError::Card)
}

/// Announces a command of applications. Errors are of commands before: a card of version 1 did not know [`SEND_IF_COND`].
fn announce<R: Registers>(controller: &mut Controller<R>, address: u32) -> Result<(), Fault> {
    match controller.ask(APP_CMD, address)? {
        status if status & APP != 0 => Ok(()),
        _ => Err(Fault::Garbled),
    }
}

/// Makes the card behind a controller one that can be read and written (SD 4.2, 4.3).
///
/// # Errors
/// If there is none, or one that is of no use.
pub(crate) fn identify<R: Registers>(controller: &mut Controller<R>) -> Result<Card, SdError> {
    let garbled = |_| SdError::Card;
    controller.ask(GO_IDLE_STATE, 0).map_err(|_| SdError::Silent)?;
    let is_second = match controller.ask(SEND_IF_COND, CONDITION) {
        Ok(answer) if answer & 0xfff == CONDITION => true,
        Ok(_) => return Err(SdError::Card),
        Err(Fault::Silent) => return Err(SdError::Silent),
        // Version 1, or no card.
        Err(_) => false,
    };
    let has_high_capacity = power_up(controller, is_second)?;
    controller.ask(ALL_SEND_CID, 0).map_err(garbled)?;
    let address = controller.ask(SEND_RELATIVE_ADDR, 0).map_err(garbled)? & 0xffff_0000;
    controller.ask(SEND_CSD, address).map_err(garbled)?;
    let csd = Csd::of(controller.long_answer()).ok_or(SdError::Card)?;
    let counts_bytes = !has_high_capacity;
    // What commands have room for.
    let most = if counts_bytes { 1 << 23 } else { 1 << 32 };
    if csd.sectors > most {
        return Err(SdError::Card);
    }
    told(controller, SELECT_CARD, address)?;
    controller.set_clock(25_000)?;
    told(controller, SET_BLOCKLEN, 512)?;
    widen(controller, address)?;
    let is_read_only = csd.is_write_protected || controller.is_write_protected();
    Ok(Card { address, sectors: csd.sectors, counts_bytes, is_read_only })
}

/// Waits until a card has powered up (SD 4.2.3). Says whether it has a high capacity.
fn power_up<R: Registers>(controller: &mut Controller<R>, is_second: bool) -> Result<bool, SdError> {
    let deadline = controller.now().saturating_add(POWER_UP);
    let wanted = VOLTAGES | if is_second { HIGH_CAPACITY } else { 0 };
    loop {
        announce(controller, 0).map_err(|_| SdError::NoCard)?;
        let conditions = controller.ask(SD_SEND_OP_COND, wanted).map_err(|_| SdError::NoCard)?;
        if conditions & VOLTAGES == 0 {
            return Err(SdError::Card);
        }
        if conditions & IS_UP != 0 {
            return Ok(is_second && conditions & HIGH_CAPACITY != 0);
        }
        if controller.now() >= deadline {
            return Err(SdError::Card);
        }
        controller.pause(LOOK);
    }
}

/// Uses four lines if the card has them (SD 5.6, SD_BUS_WIDTHS).
fn widen<R: Registers>(controller: &mut Controller<R>, address: u32) -> Result<(), SdError> {
    let mut scr = [0; 8];
    announce(controller, address).map_err(|_| SdError::Card)?;
    judge(controller.ask_for(SEND_SCR, 0, &mut scr))?;
    let [_, widths, ..] = scr;
    if widths & 0b100 != 0 {
        announce(controller, address).map_err(|_| SdError::Card)?;
        told(controller, SET_BUS_WIDTH, 0b10)?;
        controller.set_four_bits();
    }
    Ok(())
}
