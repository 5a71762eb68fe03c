//! Two guests that do as they like.

use crate::testing::*;
use alloc::{sync::Arc, vec};
use proptest::prelude::*;
use std::sync::Mutex;

#[derive(Clone, Debug)]
enum Act {
    Register(u64, u64),
    /// A word of the guest's memory, where what matters is.
    Store(u64, u64),
    Command([u64; 2]),
    Entry(u64, u64),
    Translate(u64, u64, u64),
    Transact(u32, u64),
    Step,
}

fn act() -> impl Strategy<Value = Act> {
    let somewhere = prop_oneof![
        Just(MEMORY),
        Just(CONTEXT),
        Just(TABLES),
        Just(TABLES + 0x1000),
        Just(TABLES + 0x2000),
        Just(DATA),
        Just(0x8000_0000),
        any::<u64>()
    ];
    let register = prop_oneof![
        Just(CR0),
        Just(GBPA),
        Just(GERRORN),
        Just(STRTAB_BASE),
        Just(STRTAB_BASE_CFG),
        Just(CMDQ_BASE),
        Just(CMDQ_PROD),
        Just(CMDQ_CONS),
        Just(EVENTQ_BASE),
        Just(EVENTQ_CONS),
        0..0x2_0000_u64
    ];
    let opcode = prop_oneof![
        Just(3_u64),
        Just(4),
        Just(5),
        Just(6),
        Just(0x10),
        Just(0x11),
        Just(0x12),
        Just(0x13),
        Just(0x30),
        Just(0x46),
        any::<u64>()
    ];
    let stream = prop_oneof![Just(3_u64), Just(8)];
    prop_oneof![
        1 => (register, any::<u64>()).prop_map(|(offset, value)| Act::Register(offset & !3, value)),
        1 => (somewhere.clone(), 0..64_u64, somewhere.clone(), 0..0x1000_u64)
            .prop_map(|(at, word, value, low)| Act::Store(at & !7 | (word * 8) & 0xfff, value ^ low)),
        3 => (opcode, stream.clone(), 0..4_u64, any::<u64>())
            .prop_map(|(opcode, stream, asid, word)| Act::Command([opcode | stream << 32 | asid << 48, word])),
        2 => (stream.clone(), somewhere.clone(), 0..16_u64).prop_map(|(stream, at, low)| Act::Entry(stream, at & !0x3f | low)),
        2 => (stream, 0..4_u64, somewhere.clone()).prop_map(|(stream, asid, page)| Act::Translate(stream, asid, page)),
        3 => (prop_oneof![Just(3), Just(8)], prop_oneof![Just(0), Just(0x1000), Just(DATA), somewhere])
            .prop_map(|(stream, address)| Act::Transact(stream, address)),
        3 => Just(Act::Step),
    ]
}

fn perform(guest: &mut Guest, act: &Act) {
    match act {
        Act::Register(offset, value) => {
            guest.put(*offset, *value);
        }
        Act::Store(at, value) if (MEMORY..MEMORY + MEMORY_SIZE as u64).contains(at) => guest.store(*at, &[*value]),
        Act::Store(..) => {}
        Act::Command(command) => {
            let position = guest.prepare(&[*command]);
            guest.put(CMDQ_PROD, position);
        }
        Act::Entry(stream, word) => guest.entry(*stream, [*word, 0]),
        Act::Translate(stream, asid, page) => guest.translate(*stream, *asid, &[*page & !0xfff]),
        Act::Transact(stream, address) => {
            if let Outcome::Reached(page) = guest.transact(*stream, *address) {
                assert_eq!(page >> 40, u64::from(guest.host.vmid), "a device has reached another VM's memory");
                let ipa = (page & 0xff_ffff_ffff) << 12;
                assert!((MEMORY..MEMORY + MEMORY_SIZE as u64).contains(&ipa));
            }
        }
        Act::Step => {
            let _ = guest.step();
        }
    }
}

proptest! {
    /// Whatever two guests write, no device of theirs reaches more than their VM's own memory, and neither has the machine forget a
    /// translation of the other's.
    #[test]
    fn nobody_reaches_beyond_stage_2_or_touches_anothers_translations(acts in prop::collection::vec((any::<bool>(), act()), 0..120)) {
        let world: Arc<Mutex<World>> = Arc::default();
        let mut guests = [1, 2].map(|vmid| {
            let mut guest = Guest::new(&world, vmid, &[3, 8]);
            guest.boot();
            guest.translate(3, 1, &[DATA]);
            guest.send(&[CFGI_ALL, SYNC]);
            guest
        });
        for (which, act) in &acts {
            let (acting, other) = (usize::from(*which), 2 - u16::from(*which));
            let before = world.lock().unwrap().cached(other);
            perform(&mut guests[acting], act);
            prop_assert_eq!(world.lock().unwrap().cached(other), before);
        }
        for guest in &mut guests {
            guest.work();
        }
    }

    /// Whatever has been before: after CFGI and SYNC a stream is as the guest's entry says, and after an invalidation its translations
    /// are those of the guest's tables.
    #[test]
    fn after_a_sync_the_machine_does_as_the_guest_has_said(acts in prop::collection::vec(act(), 0..60), page in 0..256_u64) {
        let mut guest = Guest::new(&Arc::default(), 1, &[3, 8]);
        guest.boot();
        for act in &acts {
            perform(&mut guest, act);
        }
        guest.work();
        guest.boot_again();
        let page = DATA + (page << 12);
        guest.translate(3, 2, &[page]);
        guest.entry(8, [1 | 0b100 << 1, 0]);
        guest.send(&[cfgi_ste(3), cfgi_ste(8), TLBI_NH_ALL, SYNC]);
        prop_assert_eq!(guest.get(CMDQ_PROD), guest.get(CMDQ_CONS));
        prop_assert_eq!(guest.transact(3, 0), guest.reached(page));
        prop_assert_eq!(guest.transact(8, page), guest.reached(page));
    }
}

impl Guest {
    /// As a driver that finds the SMMU in whatever state: errors are acknowledged first.
    fn boot_again(&mut self) {
        self.set(CR0, 0);
        self.set(GERRORN, self.get(GERROR));
        self.boot();
    }
}
