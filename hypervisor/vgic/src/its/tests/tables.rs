//! The guest's memory for the ITS and for LPIs: tables, queue, table of pending LPIs.

use super::*;

#[test]
fn tables_are_where_software_says_and_their_attributes_are_fixed() {
    let (vgic, driver) = (bare(1, 64), Driver::default());
    let fixed = 7 << 59 | 7 << 48 | 1 << 10;
    let (devices, collections) = (fixed | 1 << 56, fixed | 4 << 56);
    for (number, reset) in [(0, devices), (1, collections), (2, 0), (7, 0)] {
        assert_eq!(vgic.read_its(0x100 + 8 * number, DOUBLEWORD), reset);
        driver.write_base(&vgic, number, 1 << 63 | 1 << 62 | 0x1234_5678_9000 | 1 << 8 | 0x42);
        let indirect = if number == 0 { 1 << 62 } else { 0 };
        let written = if number < 2 { reset | 1 << 63 | indirect | 0x1234_5678_9000 | 1 << 8 | 0x42 } else { 0 };
        assert_eq!(vgic.read_its(0x100 + 8 * number, DOUBLEWORD), written, "{number}");
    }
    // A page size that is reserved is treated as 64 KiB.
    driver.write_base(&vgic, 0, 3 << 8);
    assert_eq!(vgic.read_its(0x100, DOUBLEWORD), devices | 2 << 8);
    // By halves as well.
    driver.write_word(&vgic, 0x104, 1 << 31);
    assert_eq!(vgic.read_its(0x104, WORD), (devices | 1 << 63) >> 32);
    driver.write(&vgic, 0x80, u64::MAX);
    assert_eq!(vgic.read_its(0x80, DOUBLEWORD), 1 << 63 | 7 << 59 | 0x000f_ffff_ffff_f000 | 1 << 10 | 0xff);
    // While it is enabled they stay.
    driver.write_word(&vgic, 0, 1);
    assert_eq!(vgic.read_its(0, WORD), 1);
    driver.write(&vgic, 0x80, 0);
    driver.write_base(&vgic, 0, 0);
    assert_eq!(vgic.read_its(0x80, DOUBLEWORD) >> 63 & vgic.read_its(0x100, DOUBLEWORD) >> 63, 1);
}

#[test]
fn bases_of_redistributors_are_fixed_once_lpis_are_enabled_which_they_stay() {
    let (vgic, driver) = (bare(2, 64), Driver::default());
    let read = |vcpu, offset| vgic.read_redistributor(rd_base(vcpu) + offset, DOUBLEWORD);
    let write = |vcpu, offset, value| {
        driver.write_redistributor(&vgic, vcpu, offset, if offset == 0 { WORD } else { DOUBLEWORD }, value).unwrap()
    };
    write(0, 0x70, u64::MAX);
    write(0, 0x78, u64::MAX);
    assert_eq!((read(0, 0x70), read(1, 0x70)), (0x000f_ffff_ffff_f79f, 0x000f_ffff_ffff_f79f), "there is one table");
    assert_eq!((read(0, 0x78), read(1, 0x78)), (0x000f_ffff_ffff_0780, 0x780), "PTZ reads as zero");
    write(0, 0x70, PROPERTIES | 13);
    write(0, 0x78, PENDING | 1 << 62);
    assert_eq!(vgic.read_redistributor(0x74, WORD), 0);
    write(0, 0, 1);
    for (vcpu, offset, value) in [(0, 0x70, 0), (1, 0x70, 0), (0, 0x78, 0), (0, 0, 0), (1, 0x78, PENDING)] {
        write(vcpu, offset, value);
    }
    assert_eq!((read(0, 0x70), read(0, 0x78)), (PROPERTIES | 0x780 | 13, PENDING | 0x780));
    assert_eq!((vgic.read_redistributor(0, WORD) & 1, vgic.read_redistributor(rd_base(1), WORD) & 1), (1, 0));
    assert_eq!(read(1, 0x78), PENDING | 0x780);
}

#[test]
fn the_guest_has_to_give_memory_for_tables_that_stay_empty() {
    let mut rig = Rig::new(1);
    rig.driver.write_word(&rig.vgic, 0, 0);
    let attempt = |rig: &mut Rig, number, base, command: Command| {
        rig.driver.write_word(&rig.vgic, 0, 0);
        rig.driver.write_base(&rig.vgic, number, base);
        rig.driver.write_word(&rig.vgic, 0, 1);
        rig.send(&[command]).refused.map(|refused| refused.reason)
    };
    // 4 KiB: 512 entries; with two levels 512 times as many.
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | DEVICES, mapd(511, Some(1))), None);
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | DEVICES, mapd(512, Some(1))), Some("its table is too small"));
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | 1 << 62 | DEVICES, mapd(0xffff, Some(1))), None);
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | 2 << 8 | DEVICES, mapd(8191, Some(1))), None);
    let beyond = MEMORY.0 + 0x40_0000;
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | beyond, mapd(5, Some(1))), Some("its table is not the VM's memory"));
    assert_eq!(attempt(&mut rig, 0, DEVICES, mapd(5, Some(1))), Some("there is no table for it"));
    assert_eq!(attempt(&mut rig, 1, COLLECTIONS, mapc(5, Some(0))), Some("there is no table for it"));
    assert_eq!(attempt(&mut rig, 1, 1 << 63 | COLLECTIONS, mapc(255, Some(0))), None);
    // Bits 51 to 48 of the address of 64 KiB pages.
    assert_eq!(
        attempt(&mut rig, 1, 1 << 63 | 2 << 8 | COLLECTIONS | 0x1000, mapc(5, Some(0))),
        Some("its table is not the VM's memory")
    );
    let mut page = [0; 4096];
    for table in [DEVICES, COLLECTIONS] {
        rig.driver.memory.read(Ipa(table), &mut page).unwrap();
        assert_eq!(page, [0; 4096]);
    }
}

#[test]
#[cfg_attr(miri, ignore = "thousands of commands and LPIs take Miri long")]
fn with_another_table_nothing_is_mapped() {
    // As after a guest's kernel has started another.
    let mut rig = Rig::sized(1, 4, 256);
    rig.send(&[mapd(9, Some(8))]);
    (0..200).for_each(|event| _ = rig.send(&[mapti(9, event, 8192 + event, 0)]));
    rig.driver.write_word(&rig.vgic, 0, 0);
    rig.driver.write_base(&rig.vgic, 0, rig.read(0x100));
    assert_eq!(rig.vgic.its_status().unwrap().events, 216, "it is the same table");
    let progress = rig.vgic.write_its(0x100, DOUBLEWORD, 1 << 63 | 1 << 62 | (DEVICES + 0x1000), &rig.driver.memory);
    assert!(progress.more);
    assert_eq!(rig.vgic.read_its(0, WORD), 0, "GITS_CTLR.Quiescent");
    let _ = rig.vgic.write_its(0, WORD, 1, &rig.driver.memory);
    assert!(rig.message(1).is_empty());
    rig.driver.finish(&rig.vgic, progress);
    let status = rig.vgic.its_status().unwrap();
    assert_eq!((status.devices, status.events), (0, 0));
    assert_eq!(rig.send(&[mapd(3, Some(5)), mapti(3, 1, 8193, 0), int(3, 1)]).refused, None);
    assert_eq!(rig.take(0), 8193);
    rig.driver.write_word(&rig.vgic, 0, 0);
    rig.driver.write_base(&rig.vgic, 1, 1 << 63 | (COLLECTIONS + 0x1000));
    rig.driver.write_word(&rig.vgic, 0, 1);
    assert!(rig.message(1).is_empty(), "its collection is not mapped");
}

#[test]
fn what_is_not_the_vms_memory_is_no_command_and_disables() {
    let rig = Rig::new(1);
    // The table of configurations ends before these: IDbits.
    let driver = Driver::default();
    (0..256).for_each(|lpi| driver.configure(8192 + lpi, at(0x80)));
    for (properties, is_known) in
        [(PROPERTIES | 12, false), ((MEMORY.0 + 0x40_0000) | 13, false), (PROPERTIES | 13, true)]
    {
        let vgic = bare(1, 256);
        let mut cpu = CpuInterface::new(4, 5);
        vgic.load(VcpuId(0), &mut cpu);
        driver.write_redistributor(&vgic, 0, 0x70, DOUBLEWORD, properties);
        driver.memory.write(Ipa(PENDING + 1024), &[1]).unwrap();
        driver.write_redistributor(&vgic, 0, 0x78, DOUBLEWORD, PENDING);
        let kick = driver.write_redistributor(&vgic, 0, 0, WORD, 1).unwrap().kick;
        assert_eq!(!kick.is_empty(), is_known, "{properties:#x}");
    }
    rig.driver.write_word(&rig.vgic, 0, 0);
    rig.driver.write(&rig.vgic, 0x80, 1 << 63 | 0x1_0000);
    rig.driver.write_word(&rig.vgic, 0, 1);
    let progress = rig.driver.write(&rig.vgic, 0x88, 96);
    assert_eq!(progress.refused, Some(Refused::unreadable()));
    assert_eq!((rig.read(0x90), rig.refused()), (96, 3));
    // An offset outside of the queue is no offset.
    rig.driver.write(&rig.vgic, 0x88, 0x1000);
    assert_eq!(rig.read(0x88), 96);
}

#[test]
#[cfg_attr(miri, ignore = "thousands of commands and LPIs take Miri long")]
fn the_queue_goes_round_and_is_read_while_the_its_is_enabled() {
    let mut rig = Rig::new(1);
    rig.driver.write_word(&rig.vgic, 0, 0);
    let write = rig.driver.queue(&[int(3, 1)]);
    rig.driver.write(&rig.vgic, 0x88, write);
    assert_eq!((rig.take(0), rig.read(0x90)), (SPURIOUS, write - 32));
    rig.driver.write_word(&rig.vgic, 0, 1);
    assert_eq!((rig.take(0), rig.read(0x90)), (8193, write));
    for _ in 0..0x1_0000 / 32 {
        rig.send(&[sync(0)]);
    }
    assert_eq!(rig.read(0x90), write);
    // A new base begins at its beginning.
    rig.driver.write_word(&rig.vgic, 0, 0);
    rig.driver.write(&rig.vgic, 0x80, 1 << 63 | QUEUE);
    assert_eq!((rig.read(0x90), rig.read(0x88)), (0, 0));
}

#[test]
#[cfg_attr(miri, ignore = "thousands of commands and LPIs take Miri long")]
fn the_table_of_pending_lpis_is_read_when_they_are_enabled_unless_it_is_zero() {
    for is_zero in [false, true] {
        let vgic = bare(1, 8192);
        vgic.write_distributor(VcpuId(0), 0, WORD, 3);
        let driver = Driver::default();
        let mut cpu = CpuInterface::new(4, 5);
        vgic.load(VcpuId(0), &mut cpu);
        cpu.enable_group(1, true);
        cpu.set_mask(0xff);
        for lpi in [8192, 8199, 16383] {
            driver.configure(lpi, at(0x40));
            let (at, bit) = (Ipa(PENDING + lpi / 8), 1 << (lpi % 8));
            let mut byte = [0];
            driver.memory.read(at, &mut byte).unwrap();
            driver.memory.write(at, &[byte[0] | bit]).unwrap();
        }
        // The first kilobyte is not LPIs'.
        driver.memory.write(Ipa(PENDING), &[0xff; 1024]).unwrap();
        driver.write_redistributor(&vgic, 0, 0x70, DOUBLEWORD, PROPERTIES | 13);
        driver.write_redistributor(&vgic, 0, 0x78, DOUBLEWORD, PENDING | u64::from(is_zero) << 62);
        driver.write_redistributor(&vgic, 0, 0, WORD, 1);
        let mut taken = vec![];
        loop {
            let _ = vgic.refill(VcpuId(0), &mut cpu);
            match cpu.acknowledge(1) {
                SPURIOUS => break,
                lpi => {
                    cpu.end(1, lpi);
                    taken.push(lpi);
                }
            }
        }
        assert_eq!(taken, if is_zero { vec![] } else { vec![8192, 8199, 16383] });
    }
}
