//! What a guest gives to a virtual SMMU, and what a real one records: any bytes are a command, an entry, an event, or are
//! refused; and what is taken over from a guest's entry says nothing that only the host may say.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smmu::{Command, ContextDescriptor, Event, Features, Stage2, StreamTableEntry};
use types::Pa;

const FEATURES: Features = Features {
    stream_bits: 16,
    substream_bits: 8,
    address_bits: 44,
    command_queue_bits: 19,
    event_queue_bits: 19,
    two_level: true,
    stage1: true,
    can_nest: true,
    two_level_contexts: true,
    vmid16: true,
    asid16: true,
    range_invalidation: true,
    el2_stage1: false,
    can_stall: true,
    ats: true,
    overrides_types: true,
    coherent: true,
};

fuzz_target!(|words: [u64; 8]| {
    let [a, b, c, d, ..] = words;
    if let Ok(command) = Command::decode([a, b]) {
        assert_eq!(Command::decode(command.encode()), Ok(command));
    }
    assert!(!Event::decode([a, b, c, d]).to_string().is_empty());
    let _ = ContextDescriptor::decode(&words);
    let stage2 = Stage2 { vtcr: 0x8002_3558, root: Pa(0x4000_0000) };
    if let Ok(Some(stage1)) = StreamTableEntry(words).of_guest(40, &FEATURES) {
        assert!(stage1.context.0 >> 40 == 0 && stage1.cd_max <= FEATURES.substream_bits);
        let host = StreamTableEntry::stage2(7, &stage2, &FEATURES).expect("a stage 2 that the SMMU walks");
        let both = StreamTableEntry::nested(7, &stage2, &stage1, &FEATURES).expect("the same");
        // S1 fields of word 1 (S1DSS to S1CSH, S1STALLD), S2PTW of word 2; all else is the host's.
        assert_eq!(both.0[1] & !(0xff | 1 << 27), host.0[1]);
        assert_eq!(both.0[2] & !(1 << 54), host.0[2]);
        assert_eq!((both.0[0] & 0xf, &both.0[3..]), (0xf, &host.0[3..]));
    }
});
