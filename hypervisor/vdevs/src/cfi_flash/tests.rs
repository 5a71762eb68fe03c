//! The bank as its drivers talk to it.

use super::*;
use alloc::{string::ToString, vec, vec::Vec};
use vdev::Files;
use vdev::testkit::{NoFiles, Rig, Wires};

const BLOCK: u64 = 256 << 10;
/// What a driver of two chips beside each other stores for a command, and sees of a status register that says "ready".
const BOTH: u64 = 0x0001_0001;
const READY: u64 = 0x80 * BOTH;
const READ_ARRAY: u64 = 0xff * BOTH;

struct One(&'static str, Vec<u8>);

impl Files for One {
    fn file(&self, path: &str) -> Option<&[u8]> {
        (path == self.0).then_some(&self.1)
    }
}

fn blank() -> Rig {
    Rig::new(&FACTORY, &[], &mut Wires::default()).unwrap()
}

fn with(contents: Vec<u8>) -> Result<Rig, Vec<OptionError>> {
    Rig::with_files(&FACTORY, &[("file", Some("vars.fd"))], &mut Wires::default(), &One("vars.fd", contents))
}

fn load(rig: &mut Rig, offset: u64, size: AccessSize) -> u64 {
    rig.try_read(offset, size).unwrap()
}

/// A word of the bus is stored as a command, in both chips.
fn command(rig: &mut Rig, offset: u64, command: u64) {
    rig.try_write(offset, AccessSize::Word, command * BOTH).unwrap();
}

/// Waits as all drivers do, by asking for the status again and again; that, and how often it was asked for.
fn wait(rig: &mut Rig, offset: u64) -> (u64, usize) {
    for asked in 1..=1000 {
        command(rig, 0, 0x70);
        let status = load(rig, offset, AccessSize::Word);
        if status & READY == READY {
            return (status, asked);
        }
    }
    panic!("it stays busy");
}

fn erase(rig: &mut Rig, block: u64) -> usize {
    command(rig, block, 0x20);
    command(rig, block, 0xd0);
    let (status, asked) = wait(rig, 0);
    assert_eq!(status, READY);
    command(rig, 0, 0xff);
    asked
}

fn program(rig: &mut Rig, offset: u64, word: u64) {
    command(rig, offset, 0x40);
    rig.try_write(offset, AccessSize::Word, word).unwrap();
    assert_eq!(wait(rig, offset).0, READY);
    command(rig, 0, 0x50);
    command(rig, 0, 0xff);
}

/// As `flash_detect_cfi` of U-Boot does: every width of the port, every width of a chip, with words as far apart as they are
/// wide or `apart` times that, until one answers. Widths in bytes.
fn detect(rig: &mut Rig, apart: &[u64]) -> Option<(u64, u64)> {
    for size in [AccessSize::Byte, AccessSize::Halfword, AccessSize::Word, AccessSize::Doubleword] {
        for chip in [1, 2, 4, 8].into_iter().filter(|chip| *chip <= size.bytes()) {
            // A byte in each chip's lowest lane.
            let lanes = |byte: u64| (0..size.bytes() / chip).fold(0, |word, lane| word | byte << (lane * chip * 8));
            for apart in apart.iter().map(|apart| apart * size.bytes()) {
                for (at, byte) in [(0, 0xff), (0, 0xf0), (0x55, 0x98)] {
                    rig.try_write(at * apart, size, lanes(byte)).unwrap();
                }
                let says = |rig: &mut Rig, at: u64, byte: u8| load(rig, at * apart, size) == lanes(byte.into());
                if says(rig, 0x10, b'Q') && says(rig, 0x11, b'R') && says(rig, 0x12, b'Y') {
                    return Some((size.bytes(), chip));
                }
            }
        }
    }
    None
}

#[test]
#[cfg_attr(miri, ignore = "a mebibyte takes Miri long, and there is no unsafe code in it")]
fn u_boot_finds_chips_of_16_bits_with_four_blocks() {
    let mut rig = blank();
    assert_eq!(detect(&mut rig, &[1, 2]), Some((2, 2)), "new ones are content with one of the two");
    assert_eq!(detect(&mut rig, &[1]), Some((4, 2)));
    let mut query = |at: u64| load(&mut rig, (0x10 + at) * 4, AccessSize::Byte);
    let two = |query: &mut dyn FnMut(u64) -> u64, at| query(at) | query(at + 1) << 8;
    assert_eq!(two(&mut query, 3), 1, "the Intel extended command set");
    let table = two(&mut query, 5);
    assert_eq!(1 << query(0x17), SIZE / 2, "the size of a chip");
    assert_eq!(1 << two(&mut query, 0x1a), 64, "the buffer of a chip");
    assert_eq!(query(0x1c), 1, "one kind of blocks");
    assert_eq!(two(&mut query, 0x1d) + 1, SIZE / BLOCK);
    assert_eq!(two(&mut query, 0x1f) * 256, BLOCK / 2);
    let mut own = |at: u64| load(&mut rig, (table + at) * 4, AccessSize::Byte);
    assert_eq!([own(0), own(1), own(2), own(3)], [b'P', b'R', b'I', b'1'].map(u64::from));
    assert_eq!(own(5) | own(6) | own(7) | own(8), 0, "no optional features");
    assert_eq!(load(&mut rig, 0x100 * 4, AccessSize::Word), 0, "nothing behind the tables");
    assert_eq!(load(&mut rig, 0x10 * 4, AccessSize::Doubleword), 0x0052_0052_0051_0051);
    command(&mut rig, 0, 0x90);
    assert_eq!([load(&mut rig, 0, AccessSize::Word), load(&mut rig, 4, AccessSize::Word)], [0x89 * BOTH, 0x18 * BOTH]);
}

#[test]
#[cfg_attr(miri, ignore = "a mebibyte takes Miri long, and there is no unsafe code in it")]
fn u_boot_saves_its_environment() {
    let mut rig = with(vec![0x5a; 1 << 20]).unwrap();
    assert_eq!(load(&mut rig, BLOCK, AccessSize::Word), 0x5a5a_5a5a);
    erase(&mut rig, 0);
    // 32 words at a time by the write buffer, as `flash_write_cfibuffer` does it.
    let word = |n: u64| (n * 0x0101_0101) ^ 0x1234_5678;
    for start in (0..1024).step_by(32) {
        command(&mut rig, 0, 0x50);
        command(&mut rig, 0, 0xe8);
        assert_eq!(load(&mut rig, 0, AccessSize::Word), READY, "the buffer is free");
        command(&mut rig, 0, 31);
        for n in start..start + 32 {
            rig.try_write(n * 4, AccessSize::Word, word(n) & 0xffff_ffff).unwrap();
        }
        command(&mut rig, 0, 0xd0);
        assert_eq!(wait(&mut rig, 0).0, READY);
        command(&mut rig, 0, 0xff);
    }
    for n in 0..1024 {
        assert_eq!(load(&mut rig, n * 4, AccessSize::Word), word(n) & 0xffff_ffff);
    }
    assert_eq!(load(&mut rig, 4096, AccessSize::Doubleword), u64::MAX, "blank behind it");
    assert_eq!(load(&mut rig, BLOCK - 1, AccessSize::Byte), 0xff);
    assert_eq!(load(&mut rig, BLOCK, AccessSize::Word), 0x5a5a_5a5a, "another block");
    assert_eq!(rig.status(), "device: Array, status 0x80; 1 blocks erased, 1024 words programmed\n");
}

#[test]
#[cfg_attr(miri, ignore = "a mebibyte takes Miri long, and there is no unsafe code in it")]
fn edk2_asks_for_a_lock_and_changes_a_word_without_erasing() {
    let mut rig = blank();
    let block = 2 * BLOCK;
    // NorFlashBlockIsLocked, NorFlashWriteSingleWord.
    command(&mut rig, block + 8, 0x90);
    assert_eq!(load(&mut rig, block + 8, AccessSize::Word) & 0x0003_0003, 0);
    program(&mut rig, block + 0x40, 0xffff_00ff);
    program(&mut rig, block + 0x40, 0x7fff_00ff);
    assert_eq!(load(&mut rig, block + 0x40, AccessSize::Word), 0x7fff_00ff);
    program(&mut rig, block + 0x40, 0xffff_ffff);
    assert_eq!(load(&mut rig, block + 0x40, AccessSize::Word), 0x7fff_00ff, "a one takes an erase");
    assert_eq!(load(&mut rig, block + 0x44, AccessSize::Word), 0xffff_ffff);
    // An unlock does no harm, and says that it is done.
    command(&mut rig, block, 0x60);
    command(&mut rig, block, 0xd0);
    assert_eq!(wait(&mut rig, 0).0, READY);
}

#[test]
#[cfg_attr(miri, ignore = "a mebibyte takes Miri long, and there is no unsafe code in it")]
fn an_erase_takes_its_time_from_the_guest_that_waits_for_it() {
    let mut rig = with(vec![0; 1 << 20]).unwrap();
    let asked = erase(&mut rig, 3 * BLOCK);
    assert!((16..=256).contains(&asked), "asked {asked} times");
    assert_eq!(load(&mut rig, 3 * BLOCK - 8, AccessSize::Doubleword), 0);
    for at in [3 * BLOCK, SIZE - 8] {
        assert_eq!(load(&mut rig, at, AccessSize::Doubleword), u64::MAX);
    }
    // Meanwhile it takes no command.
    command(&mut rig, 0, 0x20);
    command(&mut rig, 0, 0xd0);
    rig.try_write(0, AccessSize::Word, READ_ARRAY).unwrap();
    assert_eq!(load(&mut rig, 0, AccessSize::Word), 0, "busy, and the array holds the same; so look at the end of it");
    assert_eq!(wait(&mut rig, 0).0, READY);
    command(&mut rig, 0, 0xff);
    assert_eq!(load(&mut rig, 0, AccessSize::Word), 0xffff_ffff);
}

#[test]
#[cfg_attr(miri, ignore = "a mebibyte takes Miri long, and there is no unsafe code in it")]
fn a_wrong_sequence_is_told_until_it_is_cleared_and_changes_nothing() {
    let wrong = 0x30 * BOTH;
    for sequence in [&[0x20, 0xff][..], &[0x60, 0x55], &[0xe8, 32], &[0xe8, 0, 0x1234, 0xff]] {
        let mut rig = with(vec![0x77; 8]).unwrap();
        sequence.iter().for_each(|word| command(&mut rig, 0, *word));
        assert_eq!(wait(&mut rig, 0).0, READY | wrong, "{sequence:x?}");
        assert_eq!(wait(&mut rig, 0).0, READY | wrong);
        command(&mut rig, 0, 0x50);
        assert_eq!(wait(&mut rig, 0).0, READY);
        command(&mut rig, 0, 0xff);
        assert_eq!(load(&mut rig, 0, AccessSize::Doubleword), 0x7777_7777_7777_7777);
    }
}

#[test]
#[cfg_attr(miri, ignore = "a mebibyte takes Miri long, and there is no unsafe code in it")]
fn a_file_fills_it_from_the_start_and_the_rest_is_blank() {
    let mut rig = with((1..=11).collect()).unwrap();
    assert_eq!(load(&mut rig, 0, AccessSize::Doubleword), 0x0807_0605_0403_0201);
    assert_eq!(load(&mut rig, 8, AccessSize::Doubleword), 0xffff_ffff_ff0b_0a09);
    assert_eq!([load(&mut rig, 9, AccessSize::Byte), load(&mut rig, 10, AccessSize::Halfword)], [0x0a, 0xff0b]);
    let message = |made: Result<Rig, Vec<OptionError>>| made.unwrap_err()[0].to_string();
    assert_eq!(message(with(vec![0; (1 << 20) + 1])), "1048577 bytes do not fit into 1048576");
    let missing = Rig::with_files(&FACTORY, &[("file", Some("vars.fd"))], &mut Wires::default(), &NoFiles);
    assert_eq!(message(missing), "there is no file `vars.fd`");
}

#[test]
#[cfg_attr(miri, ignore = "a mebibyte takes Miri long, and there is no unsafe code in it")]
fn a_reset_leaves_what_is_stored() {
    let mut rig = with(vec![0; 1 << 20]).unwrap();
    command(&mut rig, BLOCK, 0x20);
    command(&mut rig, BLOCK, 0xd0);
    rig.control(Control::Reset).unwrap();
    assert_eq!([load(&mut rig, 0, AccessSize::Word), load(&mut rig, BLOCK, AccessSize::Word)], [0, 0xffff_ffff]);
    command(&mut rig, 0, 0x40);
    rig.control(Control::Reset).unwrap();
    command(&mut rig, 0, 0x70);
    assert_eq!(load(&mut rig, 0, AccessSize::Word), READY, "it does not wait for a word any more");
}

#[test]
#[cfg_attr(miri, ignore = "a mebibyte takes Miri long, and there is no unsafe code in it")]
fn its_node_is_what_the_binding_wants() {
    let tree = blank().describe();
    let reg = "reg = <0x00 0x1c090000 0x00 0x100000>;";
    for line in ["flash@1c090000 {", r#"compatible = "cfi-flash";"#, reg, "bank-width = <0x04>;"] {
        assert!(tree.contains(line), "{line} is not in {tree}");
    }
}
