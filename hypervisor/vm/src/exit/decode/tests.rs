use super::super::syndrome::{fault_ipa, sysreg};
use super::*;
use proptest::prelude::*;
use types::{AccessSize, Ipa};

fn synchronous(esr: u64) -> RawExit {
    RawExit { kind: RawExitKind::Synchronous, esr, far: 0, hpfar: 0 }
}

fn decode(esr: u64) -> Exit {
    Exit::decode(&synchronous(esr))
}

#[test]
fn interrupts_belong_to_the_host_whatever_the_stale_syndrome_says() {
    for kind in [RawExitKind::Irq, RawExitKind::Fiq] {
        assert_eq!(Exit::decode(&RawExit { kind, esr: u64::MAX, far: 0, hpfar: 0 }), Exit::Irq);
    }
    let error = RawExit { kind: RawExitKind::SError, esr: 0xbe00_0000, far: 0, hpfar: 0 };
    assert_eq!(Exit::decode(&error), Exit::Rare(Rare::SystemError(Syndrome(0xbe00_0000))));
}

#[test]
fn a_call_knows_its_conduit_and_immediate() {
    let Exit::Call(hvc) = decode(0x16 << 26 | 1 << 25 | 0x1234) else { panic!() };
    assert!(!hvc.is_smc());
    assert_eq!(hvc.immediate(), 0x1234);
    let Exit::Call(smc) = decode(0x17 << 26 | 1 << 25) else { panic!() };
    assert!(smc.is_smc());
}

#[test]
fn a_described_translation_fault_is_an_mmio_access() {
    // ldr w3, [x1]: ISV, SAS word, SRT 3, translation fault level 2.
    let esr = 0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 3 << 16 | 0x06;
    let Exit::Mmio(access) = decode(esr) else { panic!() };
    assert!(!access.is_write());
    assert_eq!(access.size(), AccessSize::Word);
    assert_eq!(access.register(), 3);
    for not_emulated in [
        esr & !(1 << 24),     // not described
        esr | 1 << 7,         // on a table walk
        esr | 1 << 8,         // cache maintenance
        esr | 1 << 9,         // external abort
        (esr & !0x3f) | 0x0e, // permission
        (esr & !0x3f) | 0x10, // external
        (esr & !0x3f) | 0x21, // alignment
        (esr & !0x3f) | 0x24, // reserved: bit 5 and a level
    ] {
        assert!(matches!(decode(not_emulated), Exit::Rare(Rare::DataAbort(_))), "{not_emulated:#x}");
    }
}

#[test]
fn the_ipa_is_put_together_from_both_fault_address_registers() {
    let exit =
        RawExit { kind: RawExitKind::Synchronous, esr: 0, far: 0xffff_8000_1234_5678, hpfar: 0x8000_0000_0000_9000 };
    assert_eq!(fault_ipa(&exit), Ipa(0x90_0678), "NS (bit 63) is no part of the address");
}

#[test]
fn loads_extend_as_the_instruction_says() {
    let base = 1 << 24;
    let access = |bits: u64| DataAbort(Syndrome(base | bits));
    let (sse, sf) = (1 << 21, 1 << 15);
    assert_eq!(access(0).loaded(0xffff_ff80), 0x80, "LDRB zeroes what it does not load");
    assert_eq!(access(sse).loaded(0x80), 0xffff_ff80, "LDRSB to W clears the upper half");
    assert_eq!(access(sse | sf).loaded(0x80), 0xffff_ffff_ffff_ff80, "LDRSB to X");
    assert_eq!(access(1 << 22 | sse | sf).loaded(0x7fff), 0x7fff);
    assert_eq!(access(2 << 22 | sse | sf).loaded(0x8000_0000), 0xffff_ffff_8000_0000, "LDRSW");
    assert_eq!(access(2 << 22).loaded(u64::MAX), 0xffff_ffff, "LDR W");
    assert_eq!(access(3 << 22 | sf).loaded(u64::MAX), u64::MAX, "LDR X");
}

#[test]
fn a_register_access_names_register_direction_and_operand() {
    // mrs x7, CNTPCT_EL0 = S3_3_C14_C0_1
    let iss = sysreg(3, 3, 14, 0, 1) | 7 << 5 | 1;
    let Exit::Sysreg(access) = decode(0x18 << 26 | 1 << 25 | iss) else { panic!() };
    assert!(access.is_read());
    assert_eq!(access.register(), 7);
    assert_eq!(access.name(), sysreg(3, 3, 14, 0, 1));
    assert_eq!(access.encoding(), (3, 3, 14, 0, 1));
}

#[test]
fn waits_tell_event_from_interrupt_and_know_their_timeout() {
    let wfx = |iss: u64| match decode(0x01 << 26 | 1 << 25 | iss) {
        Exit::Wfx(wfx) => (wfx.for_event(), wfx.timeout_register()),
        other => panic!("{other:?}"),
    };
    assert_eq!(wfx(0), (false, None));
    assert_eq!(wfx(1), (true, None));
    assert_eq!(wfx(2 | 9 << 5), (false, Some(9)));
    assert_eq!(wfx(3 | 31 << 5), (true, Some(31)));
}

#[test]
fn features_not_given_and_classes_unheard_of_are_undefined() {
    for class in [0x00, 0x02, 0x03, 0x05, 0x07, 0x09, 0x0a, 0x12, 0x13, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x27, 0x3f] {
        assert_eq!(decode(class << 26), Exit::Rare(Rare::Undefined), "{class:#x}");
    }
    assert_eq!(decode(0x0e << 26), Exit::Rare(Rare::IllegalState));
    assert!(matches!(decode(0x3c << 26), Exit::Rare(Rare::Debug(_))));
}

#[test]
fn the_instruction_length_is_two_or_four() {
    assert_eq!(Syndrome(1 << 25).instruction_length(), 4);
    assert_eq!(Syndrome(!(1 << 25)).instruction_length(), 2);
}

proptest! {
    #[test]
    fn every_syndrome_decodes_to_something(esr: u64, far: u64, hpfar: u64) {
        let exit = RawExit { kind: RawExitKind::Synchronous, esr, far, hpfar };
        if let Exit::Mmio(access) | Exit::Rare(Rare::DataAbort(access)) = Exit::decode(&exit) {
            prop_assert!(access.register() < 32);
            prop_assert!(access.ipa(&exit).0 < 1 << 52);
            // A doubleword has no sign to extend: that combination of fields does not occur.
            if access.size() != AccessSize::Doubleword {
                let mask = access.size().mask();
                prop_assert_eq!(access.loaded(esr) & mask, esr & mask, "what was loaded is there");
            }
        }
    }
}
