//! Sections 7.2 to 7.5.

use crate::testing::*;
use alloc::vec::Vec;
use smmu::{Class, Event, Fault, Kind};
use types::{Ipa, Pa};

const FAULT: Fault = Fault { stage2: false, class: Class::Input, ipa: None, stalled: None };

/// The machine's SMMU says that stream 3 has had this fault.
fn fault(kind: Kind) -> Event {
    Event {
        address: Some(0x1_2345_6789),
        is_read: Some(true),
        is_privileged: Some(false),
        is_instruction: Some(false),
        fault: Some(FAULT),
        ..Event::new(kind, 3)
    }
}

/// A guest whose stream 3 is translated.
fn translating() -> Guest {
    let mut guest = Guest::alone();
    guest.translate(3, 5, &[DATA]);
    guest.send(&[CFGI_ALL, SYNC]);
    guest
}

#[test]
fn faults_of_its_own_tables_are_the_guests_to_know() {
    for kind in [Kind::Translation, Kind::AddrSize, Kind::Access, Kind::Permission, Kind::TlbConflict] {
        let mut guest = translating();
        assert!(guest.report(&fault(kind)).eventq);
        assert_eq!(guest.get(EVENTQ_PROD), 1);
        assert_eq!(Event::decode(guest.loaded(EVENTS)), fault(kind));
        guest.set(EVENTQ_CONS, 1);
    }
    let mut guest = translating();
    let event = Event { fault: Some(Fault { class: Class::Ttd, ..FAULT }), ..fault(Kind::Permission) };
    let _ = guest.report(&event);
    let class_ttd_read = 1 << 40 | 1 << 35;
    assert_eq!(guest.loaded(EVENTS), [3 << 32 | 0x13, class_ttd_read, 0x1_2345_6789, 0]);
    for kind in [Kind::BadCd, Kind::CdFetch, Kind::StreamDisabled, Kind::BadSubstreamId] {
        let mut guest = translating();
        let event = Event { substream: Some(2), fetch: Some(Pa(0x7_0000_0040)), ..Event::new(kind, 3) };
        assert!(guest.report(&event).eventq);
        let told = Event::decode(guest.loaded(EVENTS));
        assert_eq!((told.kind, told.stream, told.substream), (kind, 3, Some(2)));
        assert!(told.fetch.is_none_or(|at| at == Pa(0)), "no address of the machine's is shown");
    }
    let mut guest = translating();
    let walk = Event { fetch: Some(Pa(0x7_0000_0040)), ..fault(Kind::WalkEabt) };
    assert!(guest.report(&walk).eventq);
    assert_eq!(Event::decode(guest.loaded(EVENTS)), Event { fetch: Some(Pa(0)), ..walk });
}

#[test]
fn stage_2_and_the_machine_are_not() {
    let stage2 = Fault { stage2: true, ipa: Some(Ipa(0x8000_0000)), ..FAULT };
    let mut events: Vec<Event> =
        [Kind::Translation, Kind::Permission, Kind::AddrSize, Kind::Access, Kind::WalkEabt, Kind::TlbConflict]
            .map(|kind| Event { fault: Some(stage2), ..fault(kind) })
            .to_vec();
    let others = [Kind::SteFetch, Kind::BadSte, Kind::BadStreamId, Kind::BadAtsTreq, Kind::CfgConflict];
    events.extend(others.map(|kind| Event::new(kind, 3)));
    events.extend([Kind::PageRequest, Kind::VmsFetch, Kind::Other(0xe0)].map(|kind| Event::new(kind, 3)));
    // A stream that is not the VM's, and one that is not translated.
    events.push(Event { stream: 4, ..fault(Kind::Translation) });
    events.push(Event { stream: 8, ..fault(Kind::Translation) });
    for event in events {
        let mut guest = translating();
        guest.entry(8, [1 | 0b100 << 1, 0]);
        guest.send(&[cfgi_ste(8), SYNC]);
        assert!(!guest.report(&event).any(), "{event}");
        assert_eq!(guest.get(EVENTQ_PROD), 0, "{event}");
    }
}

#[test]
fn a_refused_stream_says_why() {
    let refused = Event { substream: Some(1), ..Event::new(Kind::BadSte, 3) };
    let told = |guest: &mut Guest| {
        let signals = guest.report(&refused);
        signals.eventq.then(|| guest.loaded(EVENTS))
    };
    let mut guest = Guest::alone();
    assert_eq!(told(&mut guest), Some([3 << 32 | 1 << 12 | 1 << 11 | 0x04, 0, 0, 0]), "C_BAD_STE");
    // The table does not reach so far: C_BAD_STREAMID, if CR2.RECINVSID says so.
    for (records, event) in [(2, Some([3 << 32 | 1 << 12 | 1 << 11 | 0x02, 0, 0, 0])), (0, None)] {
        let mut guest = Guest::alone();
        guest.set(CR0, 0b1100);
        guest.put(CR2, records);
        guest.put(STRTAB_BASE_CFG, 1);
        guest.set(CR0, 0b1101);
        assert_eq!(told(&mut guest), event);
    }
    let mut guest = Guest::alone();
    guest.set(CR0, 0b1100);
    guest.put_wide(STRTAB_BASE, 0x8000_0000);
    guest.set(CR0, 0b1101);
    let event = [3 << 32 | 1 << 12 | 1 << 11 | 0x03, 0, 0, 0x8000_0000 + 3 * 64];
    assert_eq!(told(&mut guest), Some(event), "F_STE_FETCH, and where");
    // A muted one says nothing.
    guest = Guest::alone();
    guest.entry(3, [1, 0]);
    guest.send(&[CFGI_ALL, SYNC]);
    assert_eq!(told(&mut guest), None);
}

#[test]
fn a_queue_that_is_off_records_nothing() {
    for control in [0b1001, 0b1100] {
        let mut guest = translating();
        guest.set(CR0, control);
        assert!(!guest.report(&fault(Kind::Translation)).any());
        assert_eq!(guest.get(EVENTQ_PROD), 0);
    }
}

#[test]
fn there_is_an_interrupt_when_a_queue_is_empty_no_more() {
    let mut guest = translating();
    assert!(guest.report(&fault(Kind::Translation)).eventq);
    assert!(!guest.report(&fault(Kind::Translation)).any());
    guest.set(EVENTQ_CONS, 2);
    assert!(guest.report(&fault(Kind::Translation)).eventq);
    guest.set(EVENTQ_CONS, 3);
    guest.set(IRQ_CTRL, 1);
    assert!(!guest.report(&fault(Kind::Translation)).any());
    assert_eq!((guest.get(EVENTQ_PROD), guest.smmu.status().events), (4, 4));
}

#[test]
fn a_full_queue_overflows_once_until_that_is_acknowledged() {
    let mut guest = translating();
    for _ in 0..128 {
        let _ = guest.report(&fault(Kind::Translation));
    }
    assert_eq!(guest.get(EVENTQ_PROD), 1 << 7, "full, and not over");
    let last = guest.loaded(EVENTS + 127 * 32);
    for _ in 0..3 {
        assert!(!guest.report(&Event::new(Kind::BadCd, 3)).any());
        assert_eq!(guest.get(EVENTQ_PROD), 1 << 31 | 1 << 7, "7.4: OVFLG is toggled, but not back");
    }
    assert_eq!((guest.loaded(EVENTS), guest.loaded(EVENTS + 127 * 32)), (last, last), "nothing is overwritten");
    assert_eq!(guest.smmu.status().lost, 3);
    guest.set(EVENTQ_CONS, 1 << 31 | 1 << 7);
    assert!(guest.report(&fault(Kind::Translation)).eventq);
    assert_eq!(guest.get(EVENTQ_PROD), 1 << 31 | 1 << 7 | 1);
    // A position that cannot be is a full queue.
    guest.set(EVENTQ_CONS, 1 << 31 | 0x82);
    let _ = guest.report(&fault(Kind::Translation));
    assert_eq!(guest.get(EVENTQ_PROD), 1 << 7 | 1, "OVFLG");
}

#[test]
fn a_queue_that_is_not_the_vms_memory_is_a_global_error() {
    let mut guest = translating();
    guest.set(CR0, 0b1001);
    guest.put_wide(EVENTQ_BASE, 0x8000_0000 | 7);
    guest.set(CR0, 0b1101);
    assert!(guest.report(&fault(Kind::Translation)).gerror);
    assert_eq!((guest.get(GERROR), guest.get(EVENTQ_PROD)), (1 << 2, 0), "EVENTQ_ABT_ERR");
    assert!(!guest.report(&fault(Kind::Translation)).any(), "active already");
    // Where there is memory now, but the error has not been acknowledged.
    guest.set(CR0, 0b1001);
    guest.put_wide(EVENTQ_BASE, EVENTS | 7);
    guest.set(CR0, 0b1101);
    let _ = guest.report(&fault(Kind::Translation));
    assert_eq!(guest.get(EVENTQ_PROD), 0);
    guest.set(CR0, 0b1001);
    guest.put_wide(EVENTQ_BASE, 0x8000_0000 | 7);
    guest.set(CR0, 0b1101);
    guest.set(GERRORN, 1 << 2);
    assert!(guest.report(&fault(Kind::Translation)).gerror);
}
