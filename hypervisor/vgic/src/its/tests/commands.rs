//! What commands do, and what becomes of those that mean nothing.

use super::*;

#[test]
fn commands_raise_clear_and_move() {
    let mut rig = Rig::new(2);
    assert_eq!(rig.send(&[int(3, 1)]).kick, VcpuSet::of(VcpuId(0)));
    assert_eq!(rig.take(0), 8193);
    rig.send(&[int(3, 1), clear(3, 1)]);
    assert_eq!(rig.take(0), SPURIOUS);
    // Pending ones go along with MOVI; later ones go where it says.
    rig.send(&[int(3, 1), movi(3, 1, 1), int(3, 2)]);
    assert_eq!((rig.take(0), rig.take(0), rig.take(1)), (8194, SPURIOUS, 8193));
    rig.message(1);
    assert_eq!((rig.take(0), rig.take(1)), (SPURIOUS, 8193));
    // MOVALL takes what is pending, in list registers or not, and changes no mapping.
    (2..12).for_each(|event| _ = rig.message(event));
    rig.enter(0);
    rig.send(&[movall(0, 1), movall(1, 1)]);
    assert_eq!(rig.take(0), SPURIOUS);
    let mut moved = vec![];
    loop {
        if rig.cpus[1].maintenance() != 0 {
            let _ = rig.vgic.refill(VcpuId(1), &mut rig.cpus[1]);
        }
        match rig.take(1) {
            SPURIOUS => break,
            lpi => moved.push(lpi),
        }
    }
    moved.sort_unstable();
    assert_eq!(moved, (8194..8204).collect::<Vec<_>>());
    rig.message(2);
    assert_eq!((rig.take(1), rig.take(0)), (SPURIOUS, 8194));
    assert_eq!(rig.refused(), 0);
}

#[test]
fn mappings_come_and_go() {
    let mut rig = Rig::new(2);
    let status = |rig: &Rig| rig.vgic.its_status().map(|status| (status.devices, status.events));
    assert_eq!(status(&rig), Some((1, 16)));
    // MAPI: the EventID is the LPI's number.
    rig.driver.configure(8200, at(0));
    rig.send(&[mapd(0xffff, Some(16)), mapi(0xffff, 8200, 1)]);
    rig.vgic.message(Some(RequesterId(0xffff)), TRANSLATER, 8200);
    assert_eq!((rig.take(1), status(&rig)), (8200, Some((2, 17))));
    rig.send(&[discard(0xffff, 8200)]);
    assert!(rig.vgic.message(Some(RequesterId(0xffff)), TRANSLATER, 8200).is_empty());
    // A device that is mapped anew has no events, and one that is not has none either.
    rig.send(&[mapd(3, Some(3))]);
    assert_eq!((rig.message(1), status(&rig)), (VcpuSet::EMPTY, Some((2, 0))));
    rig.send(&[mapti(3, 7, 8199, 0), mapd(3, None), mapd(3, None), mapd(77, None)]);
    assert_eq!((rig.message(7), status(&rig)), (VcpuSet::EMPTY, Some((1, 0))));
    // A collection that is not mapped takes nothing.
    rig.send(&[mapd(3, Some(3)), mapti(3, 7, 8199, 9)]);
    assert!(rig.message(7).is_empty());
    rig.send(&[mapc(9, Some(1))]);
    assert_eq!(rig.message(7), VcpuSet::of(VcpuId(1)));
    rig.take(1);
    rig.send(&[mapc(9, None)]);
    assert!(rig.message(7).is_empty());
    assert_eq!(rig.refused(), 0);
}

#[test]
fn bad_commands_are_skipped_counted_and_reported() {
    let mut rig = Rig::new(2);
    let beyond = [0x08 | 5 << 32, 5, 1 << 63 | (MEMORY.0 + 0x40_0000 - 0x100), 0];
    let bad: &[(Command, &str)] = &[
        ([0xff, 1, 2, 3], "there is no such command"),
        ([0; 4], "there is no such command"),
        (mapd(0x1_0000, Some(1)), "there is no such DeviceID"),
        (mapd(4, Some(17)), "there are no so large EventIDs"),
        (beyond, "the device's table is not the VM's memory"),
        (mapc(256, Some(0)), "there is no such collection"),
        (mapc(1, Some(2)), "there is no such redistributor"),
        (mapti(4, 0, 8192, 0), "the device is not mapped"),
        (mapti(3, 32, 8192, 0), "the device's table has no such event"),
        (mapti(3, 0x1_0000, 8192, 0), "there is no such EventID"),
        (mapti(3, 1, 8191, 0), "there is no such LPI"),
        (mapti(3, 1, 8192 + 256, 0), "there is no such LPI"),
        (mapti(3, 1, 8192, 256), "there is no such collection"),
        (mapi(3, 1, 0), "there is no such LPI"),
        (movi(3, 16, 0), "the event is not mapped"),
        (movi(3, 1, 7), "the collection is not mapped"),
        (inv(3, 16), "the event is not mapped"),
        (invall(7), "the collection is not mapped"),
        (int(3, 16), "the event is not mapped"),
        (clear(3, 16), "the event is not mapped"),
        (discard(3, 16), "the event is not mapped"),
        (movall(0, 2), "there is no such redistributor"),
    ];
    for (number, (command, reason)) in (1..).zip(bad) {
        let progress = rig.send(&[*command, int(3, 1)]);
        assert_eq!(progress.refused, Some(Refused { command: *command, reason }), "{number}");
        assert_eq!(rig.take(0), 8193, "what comes behind it is done");
    }
    assert_eq!(rig.refused(), bad.len() as u64);
    let status = rig.vgic.its_status().unwrap().to_string();
    assert_eq!(status, "ITS at 0x8080000: 1 devices, 16 events, 256 LPIs, 22 commands skipped");
    let refused = Refused { command: [1, 0x20, 3, 4], reason: "why" }.to_string();
    assert_eq!(refused, "ITS command 0x1 0x20 0x3 0x4 is skipped: why");
}

#[test]
#[cfg_attr(miri, ignore = "thousands of commands and LPIs take Miri long")]
fn long_work_is_done_in_pieces_and_shows_until_it_is() {
    let mut rig = Rig::sized(1, 4, 8192);
    rig.send(&[mapd(8, Some(10))]);
    (0..1000).for_each(|event| _ = rig.send(&[mapti(8, event, 8192 + event, 0)]));
    for command in [invall(0), mapd(8, None)] {
        let before = rig.read(0x90);
        let write = rig.driver.queue(&[command]);
        let mut progress = rig.vgic.write_its(0x88, DOUBLEWORD, write, &rig.driver.memory);
        assert!(progress.more);
        assert_eq!(rig.read(0x90), before, "GITS_CREADR does not pass what is not done");
        // Disabled meanwhile, it is not quiescent before it is done, and its bases stay.
        let _ = rig.vgic.write_its(0, WORD, 0, &rig.driver.memory);
        assert_eq!(rig.vgic.read_its(0, WORD), 0);
        let _ = rig.vgic.write_its(0x80, DOUBLEWORD, 0, &rig.driver.memory);
        let mut pieces = 1;
        while progress.more {
            progress = rig.vgic.go_on(&rig.driver.memory);
            pieces += 1;
        }
        assert!(pieces >= 1000 / 64 - 2, "{pieces}");
        assert_eq!((rig.read(0x90), rig.vgic.read_its(0, WORD)), (write, 1 << 31));
        rig.driver.write_word(&rig.vgic, 0, 1);
    }
    assert_eq!(rig.vgic.its_status().unwrap().events, 16);
    // No more than sixteen commands in the access itself.
    let write = rig.driver.queue(&[sync(0); 40]);
    let before = rig.read(0x90);
    assert!(rig.vgic.write_its(0x88, DOUBLEWORD, write, &rig.driver.memory).more);
    assert_eq!(rig.read(0x90), before + 16 * 32);
    assert!(rig.vgic.go_on(&rig.driver.memory).more);
    assert!(!rig.vgic.go_on(&rig.driver.memory).more);
    assert_eq!(rig.read(0x90), write);
    // GICR_INVALLR
    let first = rig.vgic.write_lpi_register(0xb0, DOUBLEWORD, 0, &rig.driver.memory).unwrap();
    assert_eq!((first.more, rig.vgic.read_redistributor(0xc0, WORD)), (true, 1));
    rig.driver.finish(&rig.vgic, first);
    assert_eq!(rig.vgic.read_redistributor(0xc0, WORD), 0);
}

#[test]
fn there_is_room_for_as_many_events_as_lpis() {
    let mut rig = Rig::sized(1, 4, 32);
    rig.send(&[mapd(9, Some(16))]);
    (0..16).for_each(|event| assert_eq!(rig.send(&[mapti(9, 1000 * event, 8192 + 16 + event, 0)]).refused, None));
    let refused = rig.send(&[mapti(9, 7, 8192, 0)]).refused.map(|refused| refused.reason);
    assert_eq!(refused, Some("there are too many events"));
    // One that is there can be mapped anew.
    assert_eq!(rig.send(&[mapti(9, 1000, 8192, 0)]).refused, None);
    (10..40).for_each(|device| _ = rig.send(&[mapd(device, Some(1))]));
    let refused = rig.send(&[mapd(40, Some(1))]).refused.map(|refused| refused.reason);
    assert_eq!(refused, Some("there are too many devices"));
}
