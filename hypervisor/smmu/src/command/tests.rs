use super::*;
use proptest::prelude::*;

const LEAF_4K: Reach = Reach { address: 0x1234_5000, leaf: true, range: None };

#[test]
fn commands_look_as_in_the_specification() {
    let range = Reach { range: Some(Range { granule: 1, scale: 9, num: 3, level: 2 }), ..LEAF_4K };
    for (command, words) in [
        (Command::CfgiSte { stream: 0x12, leaf: true }, [0x12_0000_0003, 1]),
        (Command::CfgiSte { stream: 0x12, leaf: false }, [0x12_0000_0003, 0]),
        (Command::CfgiSteRange { stream: 0x40, range: 5 }, [0x40_0000_0004, 5]),
        (Command::CfgiAll, [0x04, 31]),
        (Command::CfgiCd { stream: 1, substream: 0xabcde, leaf: true }, [0x1_abcd_e005, 1]),
        (Command::CfgiCdAll { stream: 1 }, [0x1_0000_0006, 0]),
        (Command::TlbiNhAll { vmid: 7 }, [0x7_0000_0010, 0]),
        (Command::TlbiNhAsid { vmid: 7, asid: 9 }, [0x0009_0007_0000_0011, 0]),
        (Command::TlbiNhVa { vmid: 7, asid: 9, reach: LEAF_4K }, [0x0009_0007_0000_0012, 0x1234_5001]),
        (Command::TlbiNhVaa { vmid: 7, reach: LEAF_4K }, [0x7_0000_0013, 0x1234_5001]),
        (Command::TlbiEl2All, [0x20, 0]),
        (Command::TlbiS12Vmall { vmid: 0xffff }, [0xffff_0000_0028, 0]),
        (Command::TlbiS2Ipa { vmid: 7, reach: LEAF_4K }, [0x7_0000_002a, 0x1234_5001]),
        // NUM in bits 16:12, SCALE in 24:20, TG in 75:74, TTL in 73:72.
        (Command::TlbiS2Ipa { vmid: 7, reach: range }, [0x7_0090_302a, 0x1234_5001 | 1 << 10 | 2 << 8]),
        (Command::TlbiNsnhAll, [0x30, 0]),
        (
            Command::AtcInv { stream: 8, substream: Some(3), global: true, address: 0x5000, size: 52 },
            [0x8_0000_3a40, 0x5034],
        ),
        (
            Command::PriResp { stream: 8, substream: None, group: 0x1ff, response: PageResponse::Success },
            [0x8_0000_0041, 0x21ff],
        ),
        (Command::Resume { stream: 8, stag: 0xffff, action: Action::Retry }, [0x8_0000_1044, 0xffff]),
        (Command::Resume { stream: 8, stag: 1, action: Action::Abort }, [0x8_0000_2044, 1]),
        (Command::Resume { stream: 8, stag: 1, action: Action::Ignore }, [0x8_0000_0044, 1]),
        (Command::StallTerm { stream: 8 }, [0x8_0000_0045, 0]),
        (Command::Sync(Signal::None), [0x46, 0]),
        (Command::Sync(Signal::Irq { address: 0x0809_0040, data: 5, attributes: 0x3f }), [0x5_0fc0_1046, 0x0809_0040]),
        (Command::Sync(Signal::Sev), [0x2046, 0]),
    ] {
        assert_eq!(command.encode(), words, "{command:?}");
        assert_eq!(Command::decode(words), Ok(command));
    }
}

#[test]
fn what_no_smmu_takes_is_illegal() {
    // Reserved, EL3's, the Secure queue's, and of the implementation.
    for opcode in [0x00, 0x07, 0x08, 0x18, 0x1a, 0x42, 0x47, 0x50, 0x58, 0x5a, 0x60, 0x70, 0x80, 0xff] {
        assert_eq!(Command::decode([opcode, 0]), Err(Illegal), "{opcode:#x}");
    }
    for opcode in [0x01, 0x03, 0x04, 0x05, 0x06, 0x44, 0x45] {
        assert!(Command::decode([opcode, 0]).is_ok());
        assert_eq!(Command::decode([opcode | 1 << 10, 0]), Err(Illegal), "SSec, {opcode:#x}");
    }
    assert_eq!(Command::decode([0x46 | 3 << 12, 0]), Err(Illegal), "4.7.3: CS 3 is Reserved");
    assert_eq!(Command::decode([0x41, 3 << 12]), Err(Illegal), "4.5.2: Resp 3 is Reserved");
    for opcode in [0x12, 0x13, 0x2a] {
        assert_eq!(Command::decode([opcode, 1 << 10]), Err(Illegal), "4.4.1.1: TG without NUM, SCALE and TTL");
        assert!(Command::decode([opcode, 1 << 10 | 1 << 8]).is_ok());
    }
}

#[test]
fn without_a_granule_there_is_no_range() {
    let words = [0x2a | 3 << 12 | 9 << 20, 0x1000 | 2 << 8];
    let reach = Reach { address: 0x1000, leaf: false, range: None };
    assert_eq!(Command::decode(words), Ok(Command::TlbiS2Ipa { vmid: 0, reach }));
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn what_a_guest_writes_is_a_command_or_illegal_and_means_the_same_written_again(words: [u64; 2], opcode in 0u64..0x80) {
        if let Ok(command) = Command::decode([words[0] & !0xff | opcode, words[1]]) {
            prop_assert_eq!(Command::decode(command.encode()), Ok(command));
        }
    }
}
