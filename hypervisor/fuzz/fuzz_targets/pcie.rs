//! What a machine's functions say of themselves: any configuration space, whose bits can be written or not as they please, is scanned, placed
//! and brought to rest, and there is an end to each.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use machine::{PciHost, PciInterrupts, PciSpace, PciWindow};
use pcie::{Configuration, PciAddress, Rest, RestProgress};
use types::{AccessSize, Frequency, Pa, Range, Ticks};

/// Bytes of a function that differ from others; behind them it goes round.
const OWN: usize = 0x140;

/// A function for each part of the input, at the first numbers of every bus; of each byte a mask says which bits can be written.
struct Space<'a> {
    masks: &'a [u8],
    registers: RefCell<Vec<u8>>,
    functions: usize,
}

impl Space<'_> {
    fn at(&self, address: PciAddress, offset: u16) -> Option<usize> {
        let number = usize::from(address.device() << 3 | address.function());
        (number < self.functions).then(|| number * OWN + usize::from(offset) % OWN)
    }
}

impl Configuration for Space<'_> {
    fn read(&self, address: PciAddress, offset: u16, size: AccessSize) -> u32 {
        assert!(offset < 4096 && offset.is_multiple_of(1 << size as u16));
        let registers = self.registers.borrow();
        (0..1 << size as u16).rev().fold(0, |value, byte| {
            value << 8 | self.at(address, offset + byte).map_or(0xff, |at| u32::from(registers[at]))
        })
    }

    fn write(&self, address: PciAddress, offset: u16, size: AccessSize, value: u32) {
        assert!(offset < 4096 && offset.is_multiple_of(1 << size as u16));
        for (byte, value) in (0..1 << size as u16).zip(value.to_le_bytes()) {
            let Some(at) = self.at(address, offset + byte) else { return };
            let mask = self.masks[at % self.masks.len()];
            let register = &mut self.registers.borrow_mut()[at];
            *register = *register & !mask | value & mask;
        }
    }
}

fn host() -> PciHost {
    let window = |space, bus, length| {
        let cpu = Range::new(Pa(bus), length).expect("no wrap");
        PciWindow { space, is_prefetchable: false, bus, cpu }
    };
    PciHost {
        path: String::new(),
        domain: None,
        configuration: Range::new(Pa(0x40_1000_0000), 256 << 20).expect("no wrap"),
        first_bus: 0,
        last_bus: 255,
        windows: vec![
            window(PciSpace::Memory32, 0x1000_0000, 0x1000_0000),
            window(PciSpace::Memory64, 0x80_0000_0000, 0x10_0000_0000),
        ],
        interrupts: PciInterrupts::default(),
        is_coherent: true,
    }
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (masks, mut registers) = input;
    if masks.is_empty() || registers.is_empty() {
        return;
    }
    let functions = registers.len().div_ceil(OWN).min(12);
    registers.resize(functions * OWN, 0);
    let space = Space { masks: &masks, registers: RefCell::new(registers), functions };
    let found = pcie::scan(&space, &host(), 0);
    assert!(found.functions.len() <= pcie::MAX_FUNCTIONS);
    let host = host();
    for bar in found.functions.iter().flat_map(|function| &function.bars) {
        let Some(place) = bar.place else { continue };
        let fits = |window: &PciWindow| window.bus <= place.bus && place.bus + bar.room() <= window.bus + window.cpu.length();
        assert!(host.windows.iter().any(fits) && place.bus.is_multiple_of(bar.size));
    }
    let frequency = Frequency::new(1_000_000).expect("not zero");
    for function in found.functions.iter().take(16) {
        let mut rest = Rest::of(&found.functions, function.address, frequency);
        let (mut now, mut turns) = (Ticks(0), 0);
        while let RestProgress::Waiting(until) = rest.advance(&space, now) {
            assert!(until > now);
            (now, turns) = (until, turns + 1);
            assert!(turns < 10_000);
        }
    }
});
