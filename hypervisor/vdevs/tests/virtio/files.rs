//! `vdev virtio-9p`.

use crate::driver::{Machine, Place, Registers, Words, World, tests};
use vdev::testkit::{Rig, Wires};
use virtio_drivers::device::virtio_9p::VirtIO9p;
use virtio_drivers::transport::Transport;

tests! {
    a_driver_reads_files and legacy,
    nobody_writes,
    messages_that_make_no_sense_are_answered,
    when_the_driver_goes_its_session_does_too,
    the_configuration_space_is_the_tag,
}

const NAME: &str = "virtio-9p";
type Driver = VirtIO9p<Machine, Registers>;
const OPTIONS: [(&str, Option<&str>); 2] = [("hostdev", Some("share")), ("tag", Some("share"))];

const TVERSION: u8 = 100;
const TATTACH: u8 = 104;
const TWALK: u8 = 110;
const TLOPEN: u8 = 12;
const TREAD: u8 = 116;
const TWRITE: u8 = 118;

fn big() -> &'static [u8] {
    (0..40_000_u32).map(|at| (at / 5) as u8).collect::<Vec<_>>().leak()
}

fn wires() -> Wires {
    let mut wires = Wires::default();
    wires.files = vec![("etc/motd", b"hello"), ("big", big())];
    wires
}

fn world(place: Place, options: Words<'_>) -> World {
    World::new(place, NAME, options, wires())
}

fn message(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let fields = fields.concat();
    [&(fields.len() as u32 + 7).to_le_bytes()[..], &[kind, 1, 0], &fields].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

/// What is behind the answer's header, or the error's number; with so many bytes of room for the answer.
fn ask(driver: &mut Driver, kind: u8, fields: &[&[u8]], room: usize) -> Result<Vec<u8>, u32> {
    let mut answer = vec![0xee; room];
    let length = driver.request(&message(kind, fields), &mut answer).unwrap() as usize;
    assert_eq!(answer[..4], (length as u32).to_le_bytes());
    match answer[4] {
        7 => Err(u32::from_le_bytes(answer[7..11].try_into().unwrap())),
        found => {
            assert_eq!(found, kind + 1);
            Ok(answer[7..length].to_vec())
        }
    }
}

/// A driver whose fid 0 is the root.
fn mount(world: &World) -> Driver {
    let mut driver = Driver::new(world.transport()).unwrap();
    let answer = ask(&mut driver, TVERSION, &[&65_536_u32.to_le_bytes(), &text("9P2000.L")], 100);
    assert_eq!(answer, Ok([&65_536_u32.to_le_bytes()[..], &text("9P2000.L")].concat()));
    let none = u32::MAX.to_le_bytes();
    ask(&mut driver, TATTACH, &[&[0; 4], &none, &text("root"), &text(""), &[0; 4]], 100).unwrap();
    driver
}

fn walk(driver: &mut Driver, fid: u32, names: &[&str]) -> Result<Vec<u8>, u32> {
    let all: Vec<u8> = names.iter().flat_map(|name| text(name)).collect();
    ask(driver, TWALK, &[&[0; 4], &fid.to_le_bytes(), &(names.len() as u16).to_le_bytes(), &all], 300)
}

fn read(driver: &mut Driver, fid: u32, offset: u64, count: u32, room: usize) -> Result<Vec<u8>, u32> {
    let answer = ask(driver, TREAD, &[&fid.to_le_bytes(), &offset.to_le_bytes(), &count.to_le_bytes()], room)?;
    assert_eq!(answer[..4], (answer.len() as u32 - 4).to_le_bytes());
    Ok(answer[4..].to_vec())
}

fn a_driver_reads_files(place: Place) {
    let world = world(place, &OPTIONS);
    assert!(world.status().contains("; not mounted"));
    let mut driver = mount(&world);
    assert_eq!(driver.mount_tag(), "share");
    walk(&mut driver, 1, &["etc", "motd"]).unwrap();
    ask(&mut driver, TLOPEN, &[&1_u32.to_le_bytes(), &[0; 4]], 100).unwrap();
    assert_eq!(read(&mut driver, 1, 1, 3, 100), Ok(b"ell".to_vec()));
    walk(&mut driver, 2, &["big"]).unwrap();
    ask(&mut driver, TLOPEN, &[&2_u32.to_le_bytes(), &[0; 4]], 100).unwrap();
    let mut all = Vec::new();
    while all.len() < 40_000 {
        // Over more pages than are copied at once, and with room for less than is asked for.
        let part = read(&mut driver, 2, all.len() as u64, 30_000, 20_011).unwrap();
        assert!(part.len() == 20_000 || part.len() == 40_000 - all.len());
        all.extend(part);
    }
    assert!(all == big());
    assert!(world.status().contains("; 3 fids, messages of 65536 bytes"));
    assert!(world.line(), "it interrupts");
}

fn nobody_writes(place: Place) {
    let world = world(place, &OPTIONS);
    let mut driver = mount(&world);
    walk(&mut driver, 1, &["etc", "motd"]).unwrap();
    assert_eq!(ask(&mut driver, TLOPEN, &[&1_u32.to_le_bytes(), &1_u32.to_le_bytes()], 100), Err(30));
    // More than is looked at of a message.
    let data = [1_u32.to_le_bytes().to_vec(), vec![0; 8], 20_000_u32.to_le_bytes().to_vec(), vec![7; 20_000]].concat();
    assert_eq!(ask(&mut driver, TWRITE, &[&data], 100), Err(30), "EROFS");
}

fn messages_that_make_no_sense_are_answered(place: Place) {
    let world = world(place, &OPTIONS);
    let mut driver = mount(&world);
    let mut answer = [0; 100];
    for (message, error) in [(&[1, 2, 3][..], 74), (&[200, 0, 0, 0, 120, 1, 0], 90), (&[7, 0, 0, 0, 120, 1, 0], 74)] {
        assert_eq!(driver.request(message, &mut answer), Ok(11));
        assert_eq!((answer[4], answer[7]), (7, error));
    }
    assert!(driver.request(&message(120, &[&[9; 4]]), &mut [0; 10]).is_err(), "no room for any answer: none comes");
    assert!(walk(&mut driver, 1, &["etc"]).is_ok(), "and all goes on");
}

fn when_the_driver_goes_its_session_does_too(place: Place) {
    let world = world(place, &OPTIONS);
    for _ in 0..3 {
        let mut driver = mount(&world);
        walk(&mut driver, 1, &["big"]).unwrap();
    }
    let mut driver = Driver::new(world.transport()).unwrap();
    assert_eq!(walk(&mut driver, 2, &["big"]), Err(71), "EPROTO: no version yet");
}

fn the_configuration_space_is_the_tag(place: Place) {
    for tag in ["x", "a-tag/with:signs", "1234567890123456789012345678901"] {
        let world = world(place, &[OPTIONS[0], ("tag", Some(tag))]);
        let transport = world.transport();
        assert_eq!(transport.read_config_space::<u16>(0), Ok(tag.len() as u16));
        let bytes = (0..tag.len() + 2).map(|at| transport.read_config_space::<u8>(2 + at).unwrap());
        assert_eq!(bytes.collect::<Vec<_>>(), [tag.as_bytes(), &[0, 0]].concat(), "and nothing behind it");
    }
}

#[test]
fn options_are_checked() {
    let factory = vdevs::CATALOGUE.iter().find(|factory| factory.name == NAME).unwrap();
    let error = |options: Words<'_>, mut wires: Wires| {
        let made = Rig::new(factory, options, &mut wires);
        made.err().map(|errors| errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; "))
    };
    assert_eq!(error(&OPTIONS, wires()), None);
    assert_eq!(error(&[], wires()).unwrap(), "option `hostdev` is missing; option `tag` is missing");
    for tag in ["", "two words", "tag\n", "tag\u{e9}", "12345678901234567890123456789012"] {
        let message = error(&[OPTIONS[0], ("tag", Some(tag))], wires()).unwrap();
        assert!(
            message.contains("is no tag: 1 to 31") && message.contains(&format!("{} bytes", tag.len())),
            "{message}"
        );
    }
    assert_eq!(error(&OPTIONS, Wires::default()).unwrap(), "there is no directory `share`");
    let mut twice = Wires::default();
    twice.files = vec![("a", b""), ("a/b", b"")];
    assert!(error(&OPTIONS, twice).unwrap().contains("`a` is there twice"));
}
