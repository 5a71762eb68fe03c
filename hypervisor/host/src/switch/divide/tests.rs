//! Frames whose bytes are known, and frames of anybody's.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

// A frame of ten bytes of data, and what becomes of it in segments of 4 and of 8: computed elsewhere, by other means. The sequence
// number and the identification begin anew on the way, the flags are CWR, ACK, PSH and FIN.
const IPV4: &str = "52540012345602000000000108004500003effff4000400622aa0a00020f0a0002029c400050fffffffe11223344809901f61841\
    00000101080a000102030405060730313233343536373839";
const IPV4_0: &str = "525400123456020000000001080045000038ffff4000400622b00a00020f0a0002029c400050fffffffe11223344809001f60cc9\
    00000101080a000102030405060730313233";
const IPV4_1: &str = "52540012345602000000000108004500003800004000400622b00a00020f0a0002029c4000500000000211223344801001f6053e\
    00000101080a000102030405060734353637";
const IPV4_2: &str = "52540012345602000000000108004500003600014000400622b10a00020f0a0002029c4000500000000611223344801901f63766\
    00000101080a00010203040506073839";
const IPV6: &str = "52540012345602000000000186dd60000000001e0640fec00000000000000000000000000015fec0000000000000000000000000\
    00029c400050000003e811223344501801f6fdbc000030313233343536373839";
const IPV6_0: &str = "52540012345602000000000186dd60000000001c0640fec00000000000000000000000000015fec0000000000000000000000000\
    00029c400050000003e811223344501001f6fe8e00003031323334353637";
const IPV6_1: &str = "52540012345602000000000186dd6000000000160640fec00000000000000000000000000015fec0000000000000000000000000\
    00029c400050000003f011223344501801f6931c00003839";

fn hexadecimal(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn left(ipv6: bool, size: u16) -> Unfinished {
    let start = if ipv6 { 54 } else { 34 };
    let checksum = Some(Checksum { start, offset: 16 });
    Unfinished { checksum, segments: Some(Segments { ipv6, size, headers: 0 }) }
}

/// All that becomes of a frame.
fn divide(frame: &[u8], unfinished: &Unfinished) -> Option<Vec<Vec<u8>>> {
    let mut frame = frame.to_vec();
    let mut parts = Parts::of(&mut frame, unfinished)?;
    let mut all = Vec::new();
    let mut into = [0xee; MOST_ON_WIRE];
    while let Some(length) = parts.next(&frame, &mut into) {
        all.push(into[..length].to_vec());
        assert!(all.len() <= MOST_PARTS);
    }
    Some(all)
}

#[test]
fn the_checksum_of_a_known_header() {
    let mut sum = Sum::default();
    sum.add(&hexadecimal("45000073000040004011"));
    sum.add(&hexadecimal("0000c0a80001c0a800c7"));
    assert_eq!(sum.checksum(), 0xb861);
    // Where it is divided makes no difference.
    let mut parts = Sum::default();
    hexadecimal("45000073000040004011c0a80001c0a800c7").chunks(3).for_each(|part| parts.add(part));
    assert_eq!(parts.checksum(), 0xb861);
    let mut nothing = Sum::default();
    nothing.add(&[0xff, 0xff]);
    assert_eq!((nothing.checksum(), nothing.transport_checksum()), (0, 0xffff));
}

#[test]
fn known_segments_over_ipv4() {
    let expected = [IPV4_0, IPV4_1, IPV4_2].map(hexadecimal).to_vec();
    assert_eq!(divide(&hexadecimal(IPV4), &left(false, 4)), Some(expected));
}

#[test]
fn known_segments_over_ipv6() {
    let expected = [IPV6_0, IPV6_1].map(hexadecimal).to_vec();
    assert_eq!(divide(&hexadecimal(IPV6), &left(true, 8)), Some(expected));
}

#[test]
fn what_is_not_divided_gets_its_checksum() {
    // The same two, as frames that need no more than that: what was said to be the last segment is the whole.
    let checksum = Some(Checksum { start: 34, offset: 16 });
    let whole = Unfinished { checksum, segments: None };
    let [done] = divide(&hexadecimal(IPV4), &whole).unwrap().try_into().unwrap();
    assert_eq!(Some(vec![done.clone()]), divide(&hexadecimal(IPV4), &left(false, 10)), "one segment is the same");
    assert_eq!(divide(&done, &Unfinished::default()), Some(vec![done.clone()]), "nothing was left to be done");
}

#[test]
fn tags_of_vlans_are_in_every_frame() {
    let tagged = |frame: &str, tags: &str| hexadecimal(&std::format!("{}{tags}{}", &frame[..24], &frame[24..]));
    for (tags, bytes) in [("81000005", 4), ("88a8000781000005", 8)] {
        let mut unfinished = left(false, 4);
        unfinished.checksum = Some(Checksum { start: 34 + bytes, offset: 16 });
        let expected = [IPV4_0, IPV4_1, IPV4_2].map(|frame| tagged(frame, tags)).to_vec();
        assert_eq!(divide(&tagged(IPV4, tags), &unfinished), Some(expected), "{tags}");
    }
    let mut unfinished = left(false, 4);
    unfinished.checksum = Some(Checksum { start: 46, offset: 16 });
    assert_eq!(divide(&tagged(IPV4, "810000018100000281000003"), &unfinished), None, "more than wires have");
}

#[test]
fn headers_that_do_not_fit_together_are_no_frame() {
    let good = hexadecimal(IPV4);
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        divide(&frame, &left(false, 4))
    };
    assert!(with(14, 0x45).is_some());
    for (at, byte, why) in [
        (12, 0x86, "another type"),
        (14, 0x65, "another version"),
        (14, 0x46, "a longer header than is said"),
        (14, 0x44, "a shorter one than there is"),
        (20, 0x20, "a first fragment"),
        (21, 0x01, "a later fragment"),
        (23, 17, "UDP"),
        (46, 0x40, "TCP's own header is too short"),
        (46, 0xf0, "and longer than the frame"),
    ] {
        assert_eq!(with(at, byte), None, "{why}");
    }
    assert_eq!(divide(&good, &left(true, 4)), None, "it is not IPv6");
    assert_eq!(divide(&hexadecimal(IPV6), &left(false, 4)), None, "and that one not IPv4");
    let mut other = hexadecimal(IPV6);
    other[20] = 0;
    assert_eq!(divide(&other, &left(true, 4)), None, "options before TCP");
    for length in 0..66 {
        assert_eq!(divide(&good[..length], &left(false, 4)), None, "cut off after {length} bytes");
    }
    for (start, offset) in [(33, 16), (34, 15)] {
        let unfinished = Unfinished { checksum: Some(Checksum { start, offset }), ..left(false, 4) };
        assert_eq!(divide(&good, &unfinished), None, "the checksum is elsewhere");
    }
    assert_eq!(
        divide(&good, &Unfinished { checksum: None, ..left(false, 4) }),
        None,
        "there is no checksum to compute"
    );
    assert_eq!(divide(&good, &left(false, 0)), None, "segments of nothing");
}

#[test]
fn what_is_too_long_or_too_much_is_not_sent() {
    let mut frame = hexadecimal(IPV4);
    frame.resize(66 + 60_000, 7);
    // 52 bytes of headers behind the addresses and the type.
    assert_eq!(divide(&frame, &left(false, 1448)).unwrap().len(), 42);
    assert_eq!(divide(&frame, &left(false, 1449)), None, "longer than a wire has it");
    assert_eq!(divide(&frame, &left(false, 536)).unwrap().len(), 112);
    assert_eq!(divide(&frame, &left(false, 460)), None, "131 frames");
    assert_eq!(divide(&frame[..1514], &Unfinished::default()).unwrap().len(), 1);
    assert_eq!(divide(&frame[..1515], &Unfinished::default()), None);
}

/// The ones' complement sum of the words, the other way round than what is tested.
fn folded(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    words.fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

proptest! {
    /// Put together again, segments are what they were made of, and each has its checksums.
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn segments_are_the_whole(data in prop::collection::vec(any::<u8>(), 0..9000), ipv6: bool, size in 80_u16..1440, sequence: u32) {
        let mut frame = hexadecimal(if ipv6 { IPV6 } else { IPV4 });
        let (segment, headers) = if ipv6 { (54, 74) } else { (34, 66) };
        frame.truncate(headers);
        frame[segment + 4..segment + 8].copy_from_slice(&sequence.to_be_bytes());
        frame.extend(&data);
        let mut together = Vec::new();
        for part in divide(&frame, &left(ipv6, size)).unwrap() {
            let expected = sequence.wrapping_add(together.len() as u32);
            prop_assert_eq!(&part[segment + 4..segment + 8], &expected.to_be_bytes());
            prop_assert!(part.len() <= headers + usize::from(size));
            let addresses = if ipv6 { &part[22..54] } else { &part[26..34] };
            let pseudo = [addresses, &[0, 6], &((part.len() - segment) as u16).to_be_bytes(), &part[segment..]].concat();
            prop_assert_eq!(folded(&pseudo), 0xffff);
            if !ipv6 {
                prop_assert_eq!(folded(&part[14..34]), 0xffff);
                prop_assert_eq!(usize::from(u16::from_be_bytes([part[16], part[17]])), part.len() - 14);
            }
            together.extend_from_slice(&part[headers..]);
        }
        prop_assert_eq!(together, data);
    }

    /// Whatever a guest has written, and says of it: nothing fails, no frame is longer than wires have them, and there are not too many.
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn nothing_is_believed(
        random in prop::collection::vec(any::<u8>(), 0..2000), known in 0_usize..3, changes in prop::collection::vec((0_usize..90, any::<u8>()), 0..4),
        start in prop_oneof![Just(34_u16), Just(54), any::<u16>()], offset in prop_oneof![Just(16_u16), any::<u16>()],
        ipv6: bool, size in prop_oneof![0_u16..2000, any::<u16>()], headers: u16, has_checksum: bool, has_segments: bool,
    ) {
        let mut frame = match known {
            0 => Vec::new(),
            1 => hexadecimal(IPV4),
            _ => hexadecimal(IPV6),
        };
        frame.extend(random);
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        let checksum = has_checksum.then_some(Checksum { start, offset });
        let unfinished = Unfinished { checksum, segments: has_segments.then_some(Segments { ipv6, size, headers }) };
        for part in divide(&frame, &unfinished).unwrap_or_default() {
            prop_assert!(part.len() <= MOST_ON_WIRE && (frame.len() < 14 || part[..12] == frame[..12] || !has_segments));
        }
    }
}
