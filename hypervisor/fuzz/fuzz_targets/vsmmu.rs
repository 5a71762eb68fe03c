//! A guest that does whatever it likes with its SMMU: registers, commands, tables, memory that changes, and devices that fault meanwhile.
//! The SMMU neither panics nor works without end, asks for no more than a batch has room for, and for nothing but of streams that
//! the VM has and of contexts where its addresses can be; and a host that is told so much knows what to do with it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smmu::{Event, Features, Stage2, StreamTableEntry};
use types::{AccessSize, Ipa, Pa};
use vdev::GuestMemory;
use vdev::testkit::Ram;
use vsmmu::{Host, Invalidation, ORDERS, Shape, Smmu, Target};

const STREAMS: [u32; 3] = [0, 8, 0x1234];
const MEMORY: Ipa = Ipa(0x4000_0000);
const SIZE: usize = 0x4_0000;
const ADDRESS_BITS: u8 = 40;
/// Where guests that have set something up have it.
const COMMANDS: u64 = MEMORY.0;
const EVENTS: u64 = MEMORY.0 + 0x1000;
const TABLE: u64 = MEMORY.0 + 0x1_0000;

const FEATURES: Features = Features {
    stream_bits: 16,
    substream_bits: 0,
    address_bits: 44,
    command_queue_bits: 19,
    event_queue_bits: 19,
    two_level: true,
    stage1: true,
    can_nest: true,
    two_level_contexts: false,
    vmid16: true,
    asid16: true,
    range_invalidation: true,
    el2_stage1: false,
    can_stall: true,
    ats: true,
    overrides_types: true,
    coherent: true,
};

struct Machine;

impl Host for Machine {
    fn set(&mut self, stream: u32, target: &Target) {
        assert!(STREAMS.contains(&stream));
        if let Target::Nested(stage1) = target {
            assert!(stage1.context.0 >> ADDRESS_BITS == 0 && stage1.cd_max == 0);
            let stage2 = Stage2 { vtcr: 0x8002_3558, root: Pa(0x4000_0000) };
            StreamTableEntry::nested(7, &stage2, stage1, &FEATURES).expect("what the machine's SMMU takes");
        }
    }

    fn forget_contexts(&mut self, stream: u32) {
        assert!(STREAMS.contains(&stream));
    }

    fn invalidate(&mut self, _: &Invalidation) {}

    fn synchronize(&mut self) {}
}

/// One batch.
fn step(smmu: &mut Smmu, ram: &Ram) {
    let batch = smmu.begin(ram);
    assert!(batch.orders().len() <= ORDERS);
    batch.carry_out(&mut Machine);
    let _ = smmu.finish();
}

fn set_up(smmu: &mut Smmu) {
    for (offset, value) in [(0x80, TABLE), (0x90, COMMANDS | 8), (0xa0, EVENTS | 7)] {
        smmu.write(offset, AccessSize::Doubleword, value);
    }
    for (offset, value) in [(0x2c, 2), (0x88, 1 << 16 | 8 << 6 | 16), (0x50, 5), (0x20, 0b1101)] {
        smmu.write(offset, AccessSize::Word, value);
    }
}

fuzz_target!(|input: (bool, Vec<(u8, u32, u64, u64)>)| {
    let (is_set_up, acts) = input;
    let shape = Shape { stream_bits: 16, address_bits: ADDRESS_BITS, asid16: true };
    let (mut smmu, ram) = (Smmu::new(shape, &STREAMS), Ram::new(MEMORY, SIZE));
    if is_set_up {
        set_up(&mut smmu);
    }
    for (act, place, a, b) in acts {
        let size =
            [AccessSize::Word, AccessSize::Doubleword, AccessSize::Halfword, AccessSize::Byte][usize::from(act >> 6)];
        let offset = u64::from(place) % Smmu::SIZE;
        match act & 7 {
            0 => {
                let _ = smmu.read(offset, size);
            }
            1 => {
                // Most registers are in the first 256 bytes.
                smmu.write(offset & 0xfc, AccessSize::Word, a);
            }
            2 => {
                smmu.write(offset, size, a);
            }
            3 => {
                let at = MEMORY.0 + u64::from(place) % (SIZE as u64) & !7;
                ram.store(Ipa(at), AccessSize::Doubleword, a).expect("memory");
            }
            4 => {
                let position = smmu.read(0x98, AccessSize::Word);
                let at = COMMANDS + (position & 0xff) * 16;
                ram.store(Ipa(at), AccessSize::Doubleword, a).expect("memory");
                ram.store(Ipa(at + 8), AccessSize::Doubleword, b).expect("memory");
                smmu.write(0x98, AccessSize::Word, position + 1 & 0x1ff);
            }
            5 => {
                let stream = STREAMS[place as usize % STREAMS.len()];
                let event = Event { stream, ..Event::decode([a, b, a, b]) };
                let _ = smmu.report(&event, &ram);
            }
            6 => smmu.reset(),
            _ => step(&mut smmu, &ram),
        }
    }
    // Whatever there is to do comes to an end: a queue has no more than 512 positions.
    let rounds = (0..1000).take_while(|_| {
        let has_work = smmu.has_work();
        if has_work {
            step(&mut smmu, &ram);
        }
        has_work
    });
    assert!(rounds.count() < 1000, "it works without end");
    assert!(!smmu.status().to_string().is_empty());
});
