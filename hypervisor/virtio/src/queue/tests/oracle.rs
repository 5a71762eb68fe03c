//! Split queues as `virtio-queue` reads them, whatever is in memory.

use super::*;
use virtio_queue::{Queue as Theirs, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const SIZE: u16 = 8;

fn theirs(layout: &Layout) -> Theirs {
    let mut queue = Theirs::new(SIZE).unwrap();
    queue.set_size(SIZE);
    let [descriptors, driver, device] = [layout.descriptor_area, layout.driver_area, layout.device_area]
        .map(|at| (Some(at.0 as u32), Some((at.0 >> 32) as u32)));
    queue.set_desc_table_address(descriptors.0, descriptors.1);
    queue.set_avail_ring_address(driver.0, driver.1);
    queue.set_used_ring_address(device.0, device.1);
    queue.set_ready(true);
    queue
}

/// A descriptor of which some are as they should be.
fn any_descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![Just(DATA), Just(TABLES), Just(TABLES), any::<u64>()];
    let length = prop_oneof![Just(16_u32), Just(48), Just(128), 0_u32..0x100, any::<u32>()];
    let flags = prop_oneof![Just(0_u16), Just(1), Just(1), Just(3), Just(2), Just(4), any::<u16>()];
    (address, length, flags, 0_u16..SIZE + 1)
}

proptest! {
    #[test]
    fn what_we_take_they_take_too(
        own in prop::collection::vec(any_descriptor(), usize::from(SIZE)),
        table in prop::collection::vec(any_descriptor(), usize::from(SIZE)),
        heads in prop::collection::vec(0_u16..SIZE + 1, usize::from(SIZE)),
        count in 0_u16..SIZE + 2,
    ) {
        let (layout, _) = Driver::place(BASE, SIZE);
        let ram = ram();
        for (at, list) in [(BASE, &own), (TABLES, &table)] {
            for (index, (address, length, flags, next)) in (0..).zip(list) {
                errors::descriptor(&ram, at + 16 * index, *address, *length, *flags, *next);
            }
        }
        let entries = [0, count].into_iter().chain(heads);
        let bytes: Vec<u8> = entries.flat_map(u16::to_le_bytes).collect();
        ram.write(layout.driver_area, &bytes).unwrap();
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(BASE), 0x1_0000)]).unwrap();
        let mut contents = vec![0; 0x1_0000];
        ram.read(Ipa(BASE), &mut contents).unwrap();
        memory.write_slice(&contents, GuestAddress(BASE)).unwrap();

        let mut queue = Queue::new(Features::INDIRECT_DESC, &layout).unwrap();
        let (mut other, mut chain) = (theirs(&layout), Chain::new(SIZE));
        loop {
            match queue.pop(&ram, &mut chain) {
                Ok(true) => {}
                Ok(false) => {
                    prop_assert!(other.pop_descriptor_chain(&memory).is_none());
                    break;
                }
                // Theirs ends a chain early, or goes on.
                Err(_) => break,
            }
            let chain_of_theirs = other.pop_descriptor_chain(&memory).expect("they have it too");
            prop_assert_eq!(chain_of_theirs.head_index(), chain.id());
            let they = chain_of_theirs.filter(|d| d.len() > 0).map(|d| (d.addr().0, d.len(), d.is_write_only()));
            prop_assert_eq!(they.collect::<Vec<_>>(), chain.offered());
        }
    }

    #[test]
    fn we_notify_when_they_do(steps in prop::collection::vec((1_u16..4, any::<u16>()), 1..100)) {
        let (layout, _) = Driver::place(BASE, SIZE);
        // Without event indices they always notify.
        let mut queue = Queue::new(Features::EVENT_IDX, &layout).unwrap();
        let mut other = theirs(&layout);
        other.set_event_idx(true);
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(BASE), 0x1_0000)]).unwrap();
        let (ram, chain) = (ram(), Chain::new(SIZE));
        let mut index = 0_u16;
        for (count, wish) in steps {
            // Near the index, mostly.
            let event = if wish & 1 == 0 { index.wrapping_add(wish >> 13).wrapping_sub(4) } else { wish };
            for (at, value) in [(layout.driver_area.0, wish >> 8 & 1), (layout.driver_area.0 + 4 + 2 * u64::from(SIZE), event)] {
                ram.write(Ipa(at), &value.to_le_bytes()).unwrap();
                memory.write_slice(&value.to_le_bytes(), GuestAddress(at)).unwrap();
            }
            for _ in 0..count {
                queue.push(&ram, &chain, 5).unwrap();
                other.add_used(&memory, 0, 5).unwrap();
            }
            index = index.wrapping_add(count);
            prop_assert_eq!(other.needs_notification(&memory).unwrap(), queue.wants_interrupt(&ram).unwrap());
            let mut used = [[0; 0x60]; 2];
            ram.read(layout.device_area, &mut used[0]).unwrap();
            memory.read_slice(&mut used[1], GuestAddress(layout.device_area.0)).unwrap();
            prop_assert_eq!(used[0], used[1]);
        }
    }
}
