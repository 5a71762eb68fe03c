//! The driver against a controller and a card that do as they are told, or not.

use super::*;
use crate::disk::SLOTS;
use crate::sdhci;
use crate::virtio::Memory;
use std::alloc::{Layout, alloc};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::vec::Vec;
use types::Pa;

/// A PC's memory.
struct Heap;

// SAFETY: pages of our own, never freed.
unsafe impl Memory for Heap {
    fn take(pages: usize) -> Option<Pa> {
        let layout = Layout::from_size_align(pages * PAGE_SIZE as usize, PAGE_SIZE as usize).ok()?;
        // SAFETY: there is at least one page.
        Some(Pa(unsafe { alloc(layout) } as u64))
    }
}

/// No memory at all.
struct Nothing;

// SAFETY: gives nothing.
unsafe impl Memory for Nothing {
    fn take(_: usize) -> Option<Pa> {
        None
    }
}

/// Kinds of cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Standard capacity, version 1: does not know CMD8.
    First,
    /// Standard capacity, version 2.
    Second,
    High,
}

/// What goes wrong with a command, by its number, once or always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// These bits of the error interrupt status come in place of an answer.
    Error(u32),
    /// Nothing comes at all.
    Silent,
    /// These bits are set in the answer.
    Bits(u32),
    /// The answer is this.
    Is(u32),
}

/// Standby, transfer, programming (SD 4.10.1).
const READY: u32 = 1 << 8;

#[derive(Debug)]
struct Model {
    words: [u32; 64],
    now: u64,
    status: u32,
    // The card.
    kind: Kind,
    content: Vec<u8>,
    csd: u128,
    widths: u8,
    state: u32,
    address: u32,
    has_app: bool,
    /// How often it is asked before it has powered up.
    sleepy: u32,
    /// How often it is asked for its status before it has programmed.
    busy: u32,
    // What goes on.
    buffer: VecDeque<u32>,
    left: u32,
    at: usize,
    reads: bool,
    is_data: bool,
    auto_stop: bool,
    /// All commands so far.
    log: Vec<(u8, u32)>,
    wrong: Vec<(u8, Wrong)>,
    /// Whether resets of lines, and of all, never end.
    is_stuck: bool,
    /// Whether the clock never is stable.
    is_unstable: bool,
    clocks: Vec<u32>,
    /// Whether data stops coming.
    is_dry: bool,
}

/// Clones are handles of the same.
#[derive(Clone, Debug)]
struct Fake(Arc<Mutex<Model>>);

impl Fake {
    fn with<R>(&self, work: impl FnOnce(&mut Model) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }
    fn next(&self, command: u8, wrong: Wrong) {
        self.with(|model| model.wrong.push((command, wrong)));
    }
    fn commands(&self) -> Vec<u8> {
        self.with(|model| model.log.drain(..).map(|(index, _)| index).collect())
    }
}

impl Model {
    fn tell(&mut self, bits: u32) {
        self.status |= bits & self.words[sdhci::STATUS_ENABLE / 4];
    }

    fn block_size(&self) -> usize {
        (self.words[sdhci::BLOCKS / 4] & 0xfff) as usize
    }

    /// Puts the next block to read where it can be read.
    fn fill(&mut self) {
        if self.is_dry {
            return;
        }
        let size = self.block_size();
        let block: Vec<u8> = if size == 8 {
            [2, self.widths, 0, 0, 0, 0, 0, 0].to_vec()
        } else {
            self.content[self.at..self.at + size].to_vec()
        };
        self.at += size;
        self.buffer = block.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        self.tell(1 << 5);
    }

    fn end_block(&mut self) {
        self.left -= 1;
        if self.left > 0 {
            if self.reads {
                self.fill();
            } else {
                self.tell(1 << 4);
            }
            return;
        }
        self.is_data = false;
        self.words[sdhci::PRESENT / 4] &= !0b10;
        self.state = 4;
        if self.auto_stop {
            self.log.push((12, 0));
        }
        self.tell(1 << 1);
    }

    fn answer(&mut self, value: u32) {
        self.words[sdhci::RESPONSE / 4] = value;
        self.tell(1);
    }

    fn command(&mut self, word: u32) {
        let (index, argument) = ((word >> 24) as u8 & 0x3f, self.words[sdhci::ARGUMENT / 4]);
        assert_eq!(self.words[sdhci::PRESENT / 4] & 1, 0);
        self.log.push((index, argument));
        let found = self.wrong.iter().position(|(wrong, _)| *wrong == index);
        let wrong = found.map(|at| self.wrong.remove(at).1);
        match wrong {
            Some(Wrong::Error(bits)) => return self.tell(bits),
            Some(Wrong::Silent) => return,
            _ => {}
        }
        let was_app = core::mem::take(&mut self.has_app);
        let before = self.status;
        let r1 = self.state << 9 | READY;
        let short = 0x1a;
        let expects = match (index, was_app) {
            (0, _) => 0,
            (2 | 9, _) => 0x09,
            (41, true) => 0x02,
            (7, _) => 0x1b,
            (12, _) => 0x1b | 0b11 << 6,
            (17 | 18 | 24 | 25, _) | (51, true) => short | 1 << 5,
            _ => short,
        };
        assert_eq!(word >> 16 & 0xff, expects, "command {index}");
        let none = 1 << 16;
        match (index, was_app) {
            (0, _) => {
                self.state = 0;
                self.tell(1);
            }
            (8, _) if self.kind == Kind::First => self.tell(none),
            (8, _) => self.answer(argument & 0xfff),
            (55, _) => {
                // Illegal commands before are told of here.
                let illegal = if self.kind == Kind::First && self.state == 0 { 1 << 22 } else { 0 };
                assert_eq!(argument, if self.state == 0 { 0 } else { self.address });
                self.has_app = true;
                self.answer(r1 | 1 << 5 | illegal);
            }
            (41, true) => {
                // SD 4.2.3: of a host that does not say that it knows its capacity it stays busy.
                let knows = argument & 1 << 30 != 0;
                assert!(!knows || self.kind != Kind::First);
                let is_up = self.sleepy == 0 && (knows || self.kind != Kind::High);
                self.sleepy = self.sleepy.saturating_sub(1);
                self.state = u32::from(is_up);
                let high = u32::from(is_up && self.kind == Kind::High) << 30;
                self.answer(u32::from(is_up) << 31 | high | 0x00ff_8000);
            }
            (2, _) => self.answer(0),
            (3, _) => {
                (self.address, self.state) = (0x4567_0000, 3);
                self.answer(self.address | r1 & 0xffff);
            }
            (9, _) if argument == self.address => {
                let csd = self.csd >> 8;
                for n in 0..4 {
                    self.words[sdhci::RESPONSE / 4 + n] = (csd >> (32 * n)) as u32;
                }
                self.tell(1);
            }
            (7, _) if argument == self.address => {
                self.state = 4;
                self.answer(r1);
                self.tell(1 << 1);
            }
            (16, _) => self.answer(if argument == 512 { r1 } else { r1 | 1 << 29 }),
            (6, true) => self.answer(r1),
            (51, true) => {
                assert_eq!(word & 0xffff, 0x10);
                (self.left, self.reads, self.is_data) = (1, true, true);
                self.answer(r1);
                self.fill();
            }
            (13, _) if argument == self.address => {
                let is_busy = self.busy > 0;
                self.busy -= u32::from(is_busy);
                self.answer(if is_busy { 7 << 9 } else { r1 });
            }
            (12, _) if self.is_data => {
                (self.is_data, self.state) = (false, 4);
                self.answer(r1);
                self.tell(1 << 1);
            }
            (17 | 18 | 24 | 25, _) if self.state == 4 => {
                let several = matches!(index, 18 | 25);
                self.reads = matches!(index, 17 | 18);
                self.left = if several { self.words[sdhci::BLOCKS / 4] >> 16 } else { 1 };
                let mode = u32::from(self.reads) << 4 | if several { 0x26 } else { 0 };
                assert_eq!((word & 0xffff, self.block_size()), (mode, 512));
                self.auto_stop = several;
                let unit = if self.kind == Kind::High { 512 } else { 1 };
                self.at = argument as usize * unit;
                self.is_data = true;
                self.words[sdhci::PRESENT / 4] |= 0b10;
                self.state = if self.reads { 5 } else { 6 };
                self.answer(r1);
                if self.reads {
                    self.fill();
                } else {
                    self.tell(1 << 4);
                }
            }
            _ => self.tell(none),
        }
        match wrong {
            Some(Wrong::Bits(bits)) => self.words[sdhci::RESPONSE / 4] |= bits,
            Some(Wrong::Is(value)) => {
                self.words[sdhci::RESPONSE / 4] = value;
                self.status = before | self.status & !0xffff_0000 | 1;
            }
            _ => {}
        }
    }
}

impl Registers for Fake {
    fn read(&self, offset: usize) -> u32 {
        assert_eq!(offset % 4, 0);
        self.with(|model| match offset {
            sdhci::STATUS => model.status | u32::from(model.status >> 16 != 0) << 15,
            sdhci::DATA => {
                let word = model.buffer.pop_front().expect("more is read than there is");
                if model.buffer.is_empty() {
                    model.end_block();
                }
                word
            }
            _ => model.words[offset / 4],
        })
    }

    fn write(&mut self, offset: usize, value: u32) {
        assert_eq!(offset % 4, 0);
        self.with(|model| match offset {
            sdhci::STATUS => model.status &= !value,
            sdhci::COMMAND => model.command(value),
            sdhci::DATA => {
                model.buffer.push_back(value);
                if model.buffer.len() == 128 {
                    let bytes: Vec<u8> = model.buffer.drain(..).flat_map(u32::to_le_bytes).collect();
                    let at = model.at;
                    model.content[at..at + 512].copy_from_slice(&bytes);
                    model.at += 512;
                    model.end_block();
                }
            }
            sdhci::CLOCK => {
                let resets = value & (sdhci::RESET_ALL | sdhci::RESET_COMMAND | sdhci::RESET_DATA);
                if resets & sdhci::RESET_DATA != 0 {
                    model.buffer.clear();
                    model.words[sdhci::PRESENT / 4] &= !0b10;
                }
                let stays = if model.is_stuck { resets } else { 0 };
                let stable = if value & 1 != 0 && !model.is_unstable { 2 } else { 0 };
                model.words[offset / 4] = value & 0x00ff_ffff | stays | stable;
                model.clocks.extend((value & 4 != 0 && resets == 0).then_some(value & 0xffff));
            }
            _ => model.words[offset / 4] = value,
        });
    }

    fn now(&self) -> u64 {
        self.with(|model| {
            model.now += 1;
            model.now
        })
    }
}

/// A register CSD of version 1 with this C_SIZE, C_SIZE_MULT, READ_BL_LEN.
fn first_csd(size: u128, multiplier: u128, length: u128) -> u128 {
    size << 62 | multiplier << 47 | length << 80
}

/// One of version 2.
fn second_csd(size: u128) -> u128 {
    1 << 126 | size << 48
}

fn card(kind: Kind) -> Fake {
    let content: Vec<u8> = (0..512 * 512_u32).map(|at| (at / 512) as u8).collect();
    let mut words = [0; 64];
    words[sdhci::PRESENT / 4] = sdhci::WRITABLE;
    words[sdhci::CAPABILITIES / 4] = 52 << 8;
    words[sdhci::VERSION / 4] = 0x1002 << 16;
    Fake(Arc::new(Mutex::new(Model {
        words,
        now: 0,
        status: 0,
        kind,
        content,
        csd: if kind == Kind::High { second_csd(0) } else { first_csd(127, 0, 9) },
        widths: 5,
        state: 0,
        address: 0,
        has_app: false,
        sleepy: 3,
        busy: 0,
        buffer: VecDeque::new(),
        left: 0,
        at: 0,
        reads: false,
        is_data: false,
        auto_stop: false,
        log: Vec::new(),
        wrong: Vec::new(),
        is_stuck: false,
        is_unstable: false,
        clocks: Vec::new(),
        is_dry: false,
    })))
}

type Tested = Disk<Fake>;

fn try_begin(fake: &Fake) -> Result<Tested, SdError> {
    Disk::new(fake.clone(), 100, &Host::new::<Heap>(|| 0))
}

fn begin(fake: &Fake) -> Tested {
    let disk = try_begin(fake).unwrap();
    fake.commands();
    disk
}

/// Takes answers as long as something is told, a block a turn at most.
fn settle(disk: &mut Tested, ticket: Ticket) -> Option<Result<(), Failed>> {
    for _ in 0..40_000 {
        if !disk.acknowledge() || disk.result(ticket).is_some() {
            break;
        }
        disk.take_answers();
    }
    disk.result(ticket)
}

fn data(disk: &mut Tested, ticket: Ticket) -> &mut [u8] {
    // SAFETY: the slot's, which the test holds.
    unsafe { core::slice::from_raw_parts_mut(disk.data(ticket).unwrap().as_ptr(), MOST) }
}

fn ask(disk: &mut Tested, operation: Operation, sector: u64, length: usize) -> Option<Result<(), Failed>> {
    let ticket = disk.take(None).unwrap();
    disk.send(ticket, operation, sector, length).unwrap();
    let result = settle(disk, ticket);
    disk.release(ticket);
    result
}

#[test]
fn cards_of_all_kinds_are_identified_as_the_specification_says() {
    // SD 4.2, figure 4-2; behind CMD8 of the second version.
    let common = [55, 41, 55, 41, 55, 41, 55, 41, 2, 3, 9, 7, 16, 55, 51, 55, 6];
    for (kind, sectors) in [(Kind::First, 512), (Kind::Second, 512), (Kind::High, 1024)] {
        let fake = card(kind);
        let disk = try_begin(&fake).unwrap();
        assert_eq!(fake.commands(), [&[0, 8], &common[..]].concat(), "{kind:?}");
        assert_eq!((disk.sectors(), disk.block_size(), disk.is_read_only()), (sectors, 512, false));
        assert_eq!(fake.with(|model| model.words[sdhci::CONTROL / 4]), 0xf02, "3.3 V, on, 4 bits");
        // 52 MHz: divided by 130 is 400 kHz, by 4 is 13 MHz (SDHC 2.2.14).
        assert_eq!(fake.with(|model| model.clocks.clone()), [65 << 8 | 7 & !2, 2 << 8 | 7 & !2]);
        assert_eq!(fake.with(|model| model.words[sdhci::CLOCK / 4] >> 16), 0xe, "the longest timeout");
    }
}

#[test]
fn the_clock_is_divided_from_what_the_capabilities_say_or_the_board() {
    for (says, dividers) in [(0, [125, 2]), (200, [250, 4]), (255, [319, 6]), (1, [2, 0])] {
        let fake = card(Kind::High);
        fake.with(|model| model.words[sdhci::CAPABILITIES / 4] = says << 8);
        begin(&fake);
        let clocks = fake.with(|model| model.clocks.clone());
        let found: Vec<u32> = clocks.iter().map(|clock| clock >> 8 | (clock >> 6 & 3) << 8).collect();
        assert_eq!(found, dividers, "{says}");
    }
}

#[test]
fn a_card_with_one_line_keeps_it() {
    let fake = card(Kind::High);
    fake.with(|model| model.widths = 1);
    let disk = try_begin(&fake).unwrap();
    assert!(!fake.commands().contains(&6) && disk.sectors() == 1024);
    assert_eq!(fake.with(|model| model.words[sdhci::CONTROL / 4]), 0xf00);
}

#[test]
fn capacities_are_those_of_the_register() {
    let sectors = |kind, csd| {
        let fake = card(kind);
        fake.with(|model| model.csd = csd);
        try_begin(&fake).map(|disk| disk.sectors())
    };
    // SD 5.3.2: the largest, 2 GiB, and with blocks of 1024 and 2048 bytes.
    assert_eq!(sectors(Kind::Second, first_csd(4095, 7, 11)), Ok(1 << 23));
    assert_eq!(sectors(Kind::First, first_csd(4095, 7, 10)), Ok(1 << 22));
    assert_eq!(sectors(Kind::First, first_csd(0, 0, 9)), Ok(4));
    // SD 5.3.3: 4 GiB, 2 TiB.
    assert_eq!(sectors(Kind::High, second_csd(8191)), Ok(1 << 23));
    assert_eq!(sectors(Kind::High, second_csd((1 << 22) - 1)), Ok(1 << 32));
    // Blocks of lengths that there are not, a version that there is not, bytes that cannot be counted in a command.
    for (kind, csd) in [
        (Kind::Second, first_csd(4095, 7, 12)),
        (Kind::Second, first_csd(4095, 7, 8)),
        (Kind::High, 2 << 126),
        (Kind::High, u128::MAX),
        (Kind::Second, second_csd(8192)),
    ] {
        assert_eq!(sectors(kind, csd), Err(SdError::Card), "{csd:#x}");
    }
}

#[test]
fn what_is_written_is_read_and_in_the_right_place() {
    for kind in [Kind::First, Kind::Second, Kind::High] {
        let fake = card(kind);
        let mut disk = begin(&fake);
        fake.with(|model| model.busy = 2);
        for (sector, length) in [(9, 512), (100, 4096), (300, MOST)] {
            let ticket = disk.take(None).unwrap();
            data(&mut disk, ticket)[..length].fill(0xa5);
            disk.send(ticket, Operation::Write, sector, length).unwrap();
            assert_eq!(settle(&mut disk, ticket), Some(Ok(())), "{kind:?}");
            disk.release(ticket);
        }
        assert_eq!(fake.commands(), [24, 13, 13, 13, 25, 12, 13, 25, 12, 13]);
        let changed = |at: usize| matches!(at / 512, 9 | 100..108 | 300..428);
        fake.with(|model| {
            assert!(
                (0..).zip(&model.content).all(|(at, byte)| *byte == if changed(at) { 0xa5 } else { (at / 512) as u8 })
            );
        });
        let ticket = disk.take(None).unwrap();
        disk.send(ticket, Operation::Read, 99, 1024).unwrap();
        assert_eq!(settle(&mut disk, ticket), Some(Ok(())));
        assert_eq!(data(&mut disk, ticket)[..1024], [[99; 512], [0xa5; 512]].concat());
        disk.release(ticket);
        assert_eq!(ask(&mut disk, Operation::Read, 511, 512), Some(Ok(())));
        assert_eq!(fake.commands(), [18, 12, 17]);
        assert_eq!(ask(&mut disk, Operation::Flush, 0, 0), Some(Ok(())));
        assert_eq!(fake.commands(), [0; 0]);
        assert!(!disk.acknowledge(), "its interrupt is not raised any more");
    }
}

#[test]
fn a_turn_moves_a_block_at_most() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    let ticket = disk.take(None).unwrap();
    disk.send(ticket, Operation::Read, 0, 4 * 512).unwrap();
    for left in [3, 2, 1, 0] {
        assert!(!disk.take_answers());
        assert_eq!(fake.with(|model| model.left), left);
    }
    assert!(disk.take_answers());
    assert_eq!(disk.result(ticket), Some(Ok(())));
}

#[test]
fn requests_have_their_turns_in_the_order_in_which_they_came() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    let tickets: Vec<Ticket> = (0..SLOTS).map(|_| disk.take(None).unwrap()).collect();
    assert_eq!(disk.take(None), None);
    for (sector, ticket) in (10..).zip(tickets.iter().rev()) {
        disk.send(*ticket, Operation::Read, sector, 512).unwrap();
    }
    assert_eq!(disk.send(tickets[0], Operation::Read, 0, 512), Err(Failed), "it is sent");
    for (sector, ticket) in (10..).zip(tickets.iter().rev()) {
        assert_eq!(settle(&mut disk, *ticket), Some(Ok(())));
        assert_eq!(data(&mut disk, *ticket)[..512], [sector; 512]);
    }
    let sectors: Vec<u32> = fake.with(|model| model.log.iter().map(|(_, argument)| *argument).collect());
    assert_eq!(sectors, [10, 11, 12, 13]);
}

#[test]
fn what_is_not_there_is_not_asked_for() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    let ticket = disk.take(None).unwrap();
    for (sector, length) in [(1024, 512), (1023, 1024), (u64::MAX, 512), (0, 100), (0, 0), (0, MOST + 512)] {
        assert_eq!(disk.send(ticket, Operation::Read, sector, length), Err(Failed), "{sector} {length}");
    }
    assert_eq!(disk.send(ticket, Operation::Flush, 0, 512), Err(Failed));
    assert_eq!(disk.send(Ticket(3), Operation::Read, 0, 512), Err(Failed), "a slot that nobody has");
    assert_eq!(fake.commands(), [0; 0]);
}

#[test]
fn a_protected_card_is_only_read() {
    let switch: fn(&mut Model) = |model| model.words[sdhci::PRESENT / 4] = 0;
    for protect in [switch, |model| model.csd |= 1 << 12, |model| model.csd |= 1 << 13] {
        let fake = card(Kind::High);
        fake.with(protect);
        let mut disk = begin(&fake);
        assert!(disk.is_read_only());
        let ticket = disk.take(None).unwrap();
        assert_eq!(disk.send(ticket, Operation::Write, 0, 512), Err(Failed));
        disk.release(ticket);
        assert_eq!(ask(&mut disk, Operation::Read, 0, 512), Some(Ok(())));
    }
}

#[test]
fn a_failure_at_each_step_of_identification_is_an_error_and_leaves_the_controller_off() {
    for command in [0, 8, 55, 41, 2, 3, 9, 7, 16, 51, 6] {
        // No answer, a checksum that is wrong, nothing at all.
        for wrong in [Wrong::Error(1 << 16), Wrong::Error(1 << 17), Wrong::Silent] {
            let fake = card(Kind::High);
            fake.next(command, wrong);
            let error = try_begin(&fake).map(|_| ());
            let expected = match (command, wrong) {
                (0, _) | (8, Wrong::Silent) => Err(SdError::Silent),
                (55 | 41, _) => Err(SdError::NoCard),
                _ => Err(SdError::Card),
            };
            assert_eq!(error, expected, "{command} {wrong:?}");
            let left = fake.with(|model| (model.words[sdhci::SIGNAL_ENABLE / 4], model.words[sdhci::CLOCK / 4] & 4));
            assert_eq!(left, (0, 0));
        }
    }
    for command in [7, 16, 51, 6] {
        let fake = card(Kind::High);
        fake.next(command, Wrong::Bits(1 << 19));
        assert_eq!(try_begin(&fake).map(|_| ()), Err(SdError::Card), "{command} says that it has failed");
    }
    // Another voltage: the pattern does not come back.
    let fake = card(Kind::High);
    fake.next(8, Wrong::Is(0x0aa));
    assert_eq!(try_begin(&fake).map(|_| ()), Err(SdError::Card));
    let fake = card(Kind::High);
    fake.next(41, Wrong::Is(1 << 31));
    assert_eq!(try_begin(&fake).map(|_| ()), Err(SdError::Card), "no voltage at all");
    let fake = card(Kind::High);
    fake.with(|model| model.sleepy = u32::MAX);
    assert_eq!(try_begin(&fake).map(|_| ()), Err(SdError::Card), "it never powers up");
    assert!(fake.with(|model| model.now) < 3_000_000, "within seconds");
    let fake = card(Kind::High);
    fake.with(|model| model.is_dry = true);
    assert_eq!(try_begin(&fake).map(|_| ()), Err(SdError::Card), "no data comes");
}

#[test]
fn a_controller_that_is_of_no_use_is_left_alone() {
    let refused = |change: fn(&mut Model)| {
        let fake = card(Kind::High);
        fake.with(change);
        let error = try_begin(&fake).map(|_| ()).unwrap_err();
        assert!(fake.with(|model| model.now) < 2_000_000, "within two seconds");
        error
    };
    assert_eq!(refused(|model| model.words[sdhci::VERSION / 4] = 1 << 16), SdError::Version);
    assert_eq!(refused(|model| model.is_stuck = true), SdError::Silent);
    assert_eq!(refused(|model| model.is_unstable = true), SdError::Silent);
    assert_eq!(refused(|model| model.words[sdhci::PRESENT / 4] = 1), SdError::Silent, "its line is never free");
    let fake = card(Kind::High);
    let error = Disk::new(fake, 100, &Host::new::<Nothing>(|| 0)).map(|_| ()).unwrap_err();
    assert_eq!(error, SdError::Memory);
}

#[test]
fn an_error_fails_the_request_and_not_the_next() {
    let errors = [1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 22, 1 << 24];
    for (operation, length, command) in [
        (Operation::Read, 512, 17),
        (Operation::Read, 2048, 18),
        (Operation::Write, 512, 24),
        (Operation::Write, 2048, 25),
    ] {
        for wrong in errors.map(Wrong::Error).into_iter().chain([Wrong::Bits(1 << 31), Wrong::Bits(1 << 26)]) {
            let fake = card(Kind::High);
            let mut disk = begin(&fake);
            fake.next(command, wrong);
            let first = disk.take(None).unwrap();
            let second = disk.take(None).unwrap();
            disk.send(first, operation, 0, length).unwrap();
            disk.send(second, Operation::Read, 7, 512).unwrap();
            assert_eq!(settle(&mut disk, first), Some(Err(Failed)), "{command} {wrong:?}");
            assert_eq!(settle(&mut disk, second), Some(Ok(())), "{command} {wrong:?}");
            assert_eq!(data(&mut disk, second)[..512], [7; 512]);
            assert_eq!(fake.commands(), [command, 12, 17], "it was told to stop");
            assert_eq!(disk.why_broken(), None);
        }
    }
}

#[test]
fn an_error_amid_data_fails_the_request_and_not_the_next() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    let ticket = disk.take(None).unwrap();
    disk.send(ticket, Operation::Read, 0, 8 * 512).unwrap();
    disk.take_answers();
    fake.with(|model| model.tell(1 << 21));
    assert_eq!(settle(&mut disk, ticket), Some(Err(Failed)));
    disk.release(ticket);
    assert_eq!(ask(&mut disk, Operation::Read, 5, 1024), Some(Ok(())));
    assert_eq!(fake.commands(), [18, 12, 18, 12]);
}

#[test]
fn a_write_that_the_card_reports_lost_has_failed() {
    for wrong in [Wrong::Bits(1 << 26), Wrong::Bits(1 << 19), Wrong::Error(1 << 16)] {
        let fake = card(Kind::High);
        let mut disk = begin(&fake);
        fake.next(13, wrong);
        assert_eq!(ask(&mut disk, Operation::Write, 0, 1024), Some(Err(Failed)), "{wrong:?}");
        assert_eq!(ask(&mut disk, Operation::Write, 0, 1024), Some(Ok(())), "{wrong:?}");
    }
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    fake.with(|model| model.busy = u32::MAX);
    assert_eq!(ask(&mut disk, Operation::Write, 0, 512), Some(Err(Failed)), "it programs for ever");
    assert_eq!(fake.commands().len(), 2 + MOST_ASKED as usize);
}

#[test]
fn a_card_that_is_taken_out_fails_all_requests_and_another_one_is_not_written_to() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    // A new one has no address and waits to be identified: it answers none of these.
    fake.with(|model| (model.state, model.address) = (0, 0));
    let before = fake.with(|model| model.content.clone());
    for _ in 0..20 {
        assert_eq!(ask(&mut disk, Operation::Write, 0, 1024), Some(Err(Failed)));
        assert_eq!(ask(&mut disk, Operation::Read, 0, 512), Some(Err(Failed)));
    }
    assert_eq!((disk.why_broken(), fake.with(|model| model.content.clone())), (None, before));
}

#[test]
fn a_silent_card_fails_all_that_wait_when_it_is_given_up() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    let (first, second) = (disk.take(None).unwrap(), disk.take(Some(VmId(1))).unwrap());
    fake.next(18, Wrong::Silent);
    disk.send(first, Operation::Read, 0, 1024).unwrap();
    disk.send(second, Operation::Read, 0, 1024).unwrap();
    for _ in 0..10 {
        assert!(!disk.take_answers());
    }
    assert!(disk.result(first).is_none() && disk.data(first).is_none());
    disk.abandon();
    assert_eq!((disk.result(first), disk.result(second)), (Some(Err(Failed)), Some(Err(Failed))));
    assert_eq!(disk.why_broken(), Some("it has not answered in time"));
    assert_eq!(fake.with(|model| model.words[sdhci::SIGNAL_ENABLE / 4]), 0);
    disk.release(first);
    let again = disk.take(None).unwrap();
    fake.commands();
    assert_eq!(disk.send(again, Operation::Read, 0, 512), Err(Failed));
    assert!(!disk.take_answers());
    assert_eq!(fake.commands(), [0; 0]);
}

#[test]
fn a_controller_that_does_not_reset_is_given_up_within_milliseconds() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    fake.with(|model| model.is_stuck = true);
    fake.next(17, Wrong::Error(1 << 17));
    let (first, second) = (disk.take(None).unwrap(), disk.take(None).unwrap());
    let before = fake.with(|model| model.now);
    disk.send(first, Operation::Read, 0, 512).unwrap();
    disk.send(second, Operation::Read, 0, 512).unwrap();
    assert!(disk.take_answers());
    assert!(fake.with(|model| model.now) - before < 5000);
    assert_eq!((disk.result(first), disk.result(second)), (Some(Err(Failed)), Some(Err(Failed))));
    assert!(disk.why_broken().is_some());
}

#[test]
fn a_controller_whose_lines_stay_busy_fails_requests_within_milliseconds() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    fake.with(|model| model.words[sdhci::PRESENT / 4] |= 1);
    let ticket = disk.take(None).unwrap();
    let before = fake.with(|model| model.now);
    disk.send(ticket, Operation::Read, 0, 512).unwrap();
    assert_eq!(disk.result(ticket), Some(Err(Failed)));
    assert!(fake.with(|model| model.now) - before < 10_000);
    assert_eq!(fake.commands(), [0; 0]);
}

#[test]
fn a_slot_whose_vm_is_gone_is_free_when_the_card_has_answered() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    let sent = disk.take(Some(VmId(1))).unwrap();
    disk.send(sent, Operation::Read, 0, 1024).unwrap();
    let held = disk.take(Some(VmId(1))).unwrap();
    disk.release_all(VmId(1));
    assert_eq!(disk.take(None), Some(held));
    for _ in 0..4 {
        disk.take_answers();
    }
    assert_eq!(disk.take(None), Some(sent));
}

#[test]
fn what_nobody_has_asked_for_is_taken_and_forgotten() {
    let fake = card(Kind::High);
    let mut disk = begin(&fake);
    fake.with(|model| model.tell(u32::MAX));
    assert!(disk.acknowledge() && !disk.take_answers() && !disk.acknowledge());
    assert_eq!(ask(&mut disk, Operation::Read, 0, 512), Some(Ok(())));
}

/// A controller whose registers say anything.
#[derive(Clone)]
struct Noise(Arc<Mutex<(u64, u64)>>);

impl Registers for Noise {
    fn read(&self, offset: usize) -> u32 {
        let mut state = self.0.lock().unwrap();
        state.0 ^= state.0 << 13;
        state.0 ^= state.0 >> 7;
        state.0 ^= state.0 << 17;
        // Of a version that is used, with lines that are free now and then.
        if offset == sdhci::VERSION { 2 << 16 } else { (state.0 >> 16) as u32 & (state.0 >> 8) as u32 }
    }
    fn write(&mut self, _: usize, _: u32) {}
    fn now(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        state.1 += 500;
        state.1
    }
}

#[test]
fn noise_does_no_harm() {
    for seed in 1..300 {
        let noise = Noise(Arc::new(Mutex::new((0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), 0))));
        let Ok(mut disk) = Disk::new(noise, 100, &Host::new::<Heap>(|| 0)) else { continue };
        for turn in 0..200 {
            if let Some(ticket) = disk.take(None) {
                let operation = if turn % 2 == 0 { Operation::Read } else { Operation::Write };
                let _ = disk.send(ticket, operation, turn % disk.sectors(), 512);
            }
            disk.take_answers();
            (0..SLOTS)
                .map(Ticket)
                .filter(|ticket| disk.result(*ticket).is_some())
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|ticket| disk.release(ticket));
        }
    }
}
