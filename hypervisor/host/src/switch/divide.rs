//! Frames as wires have them, made of what guests have left undone.
//!
//! Answers for: checksums, and dividing TCP segments that are too long for a frame: what virtio calls NEEDS_CSUM and GSO (virtio 1.3,
//! 5.1.6.2), done in software. Follows RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP), RFC 3168 (ECN). Does not answer for: where
//! frames come from and go to.
//!
//! A guest has written the headers, and what it says of them: nothing is believed that is not found there, and what does not fit
//! together is no frame. How many frames one becomes has a limit, so that short segments are no way to keep a CPU busy.

use super::checksum::Sum;
use vdev::{Checksum, Segments, Unfinished};

/// Most bytes of data in a frame (IEEE 802.3, 3.2.7).
const MOST_DATA: usize = 1500;
/// Most tags of VLANs in a frame, each of which makes it longer (IEEE 802.1Q, 9.5).
const MOST_TAGS: usize = 2;
const TAG: usize = 4;
/// Bytes of the longest frame on a wire.
pub const MOST_ON_WIRE: usize = 14 + MOST_TAGS * TAG + MOST_DATA;
/// Most frames that one becomes. Segments of 536 bytes, which everybody takes (RFC 9293, 3.7.1), are fewer.
pub const MOST_PARTS: usize = 128;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
/// Customer's and service provider's tag (IEEE 802.1Q, 9.5).
const TYPES_OF_TAGS: [u16; 2] = [0x8100, 0x88a8];
const PROTOCOL_TCP: u8 = 6;

/// Fields, counted from the beginning of their header: IPv4's, IPv6's, TCP's.
const IPV4_LEAST_HEADER: usize = 20;
const IPV4_LENGTH: usize = 2;
const IPV4_IDENTIFICATION: usize = 4;
const IPV4_FRAGMENT: usize = 6;
const IPV4_PROTOCOL: usize = 9;
const IPV4_CHECKSUM: usize = 10;
const IPV4_ADDRESSES: usize = 12;
const IPV6_LENGTH: usize = 4;
const IPV6_NEXT_HEADER: usize = 6;
const IPV6_ADDRESSES: usize = 8;
const IPV6_HEADER: usize = 40;
const TCP_SEQUENCE: usize = 4;
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;

/// Flags that only the last of several segments has, and only the first.
const FIN_PSH: u8 = 0x01 | 0x08;
const CWR: u8 = 0x80;

/// More fragments, and where a fragment is.
const FRAGMENT: u16 = 0x3fff;

/// The frames that one becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// It is one, and has not been taken yet.
    Whole,
    Tcp(Tcp),
    /// All have been taken.
    None,
}

/// Segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    is_ipv6: bool,
    /// Where in the frame the headers of IP and of TCP begin, and the data.
    packet: usize,
    segment: usize,
    data: usize,
    /// Bytes of data in each.
    size: usize,
    /// Where the data of the next one begins, and its number.
    next: usize,
    number: u16,
}

fn bytes<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(frame: &[u8], at: usize) -> Option<u16> {
    bytes(frame, at).map(u16::from_be_bytes)
}

/// Where everything is has been seen before.
fn put(frame: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = frame.get_mut(at..at.saturating_add(value.len())) {
        place.copy_from_slice(value);
    }
}

/// The type of what is in a frame, and where it begins.
fn network(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = 12_usize;
    for _ in 0..=MOST_TAGS {
        let kind = half(frame, at)?;
        if !TYPES_OF_TAGS.contains(&kind) {
            return Some((kind, at.saturating_add(2)));
        }
        at = at.saturating_add(TAG);
    }
    None
}

/// Sums up what is behind `start`, and writes the checksum there.
fn finish(frame: &mut [u8], Checksum { start, offset }: Checksum) {
    let mut sum = Sum::default();
    sum.add(frame.get(start.into()..).unwrap_or_default());
    let place = usize::from(start).saturating_add(offset.into());
    put(frame, place, &sum.transport_checksum().to_be_bytes());
}

impl Parts {
    /// What becomes of a frame. `None` if that cannot be sent: it is too long and not to be divided, or into too many, or its headers
    /// are not those of what it is said to be. One that stays whole is finished right here.
    pub(super) fn of(frame: &mut [u8], unfinished: &Unfinished) -> Option<Self> {
        let (kind, packet) = network(frame)?;
        match unfinished.segments {
            None if frame.len() > packet.saturating_add(MOST_DATA) => None,
            None => {
                if let Some(checksum) = unfinished.checksum {
                    finish(frame, checksum);
                }
                Some(Self::Whole)
            }
            Some(segments) => Tcp::new(frame, kind, packet, segments, unfinished.checksum?).map(Self::Tcp),
        }
    }

    /// Writes the next frame to `into`, which has room for [`MOST_ON_WIRE`] bytes, and says how long it is; `None` after the last.
    pub(super) fn next(&mut self, frame: &[u8], into: &mut [u8]) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Whole => {
                *self = Self::None;
                into.get_mut(..frame.len())?.copy_from_slice(frame);
                Some(frame.len())
            }
            Self::Tcp(tcp) => {
                let (mut tcp, end) = (*tcp, tcp.next.saturating_add(tcp.size).min(frame.len()));
                let length = tcp.write(frame, end, into)?;
                (tcp.next, tcp.number) = (end, tcp.number.wrapping_add(1));
                *self = if end < frame.len() { Self::Tcp(tcp) } else { Self::None };
                Some(length)
            }
        }
    }
}

impl Tcp {
    fn new(frame: &[u8], kind: u16, packet: usize, segments: Segments, checksum: Checksum) -> Option<Self> {
        let is_ipv6 = segments.ipv6;
        let (first, size) = (bytes::<1>(frame, packet)?[0], usize::from(segments.size));
        let at = |offset: usize| packet.saturating_add(offset);
        let (header, protocol, is_it) = if is_ipv6 {
            // Other headers between the two are not looked for.
            (IPV6_HEADER, bytes::<1>(frame, at(IPV6_NEXT_HEADER))?[0], kind == TYPE_IPV6 && first >> 4 == 6)
        } else {
            let header = usize::from(first & 0xf).saturating_mul(4);
            let is_whole = half(frame, at(IPV4_FRAGMENT))? & FRAGMENT == 0;
            let is_it = kind == TYPE_IPV4 && first >> 4 == 4 && header >= IPV4_LEAST_HEADER && is_whole;
            (header, bytes::<1>(frame, at(IPV4_PROTOCOL))?[0], is_it)
        };
        let segment = packet.saturating_add(header);
        let is_tcp = protocol == PROTOCOL_TCP
            && usize::from(checksum.start) == segment
            && usize::from(checksum.offset) == TCP_CHECKSUM;
        let words = bytes::<1>(frame, segment.saturating_add(TCP_OFFSET))?[0] >> 4;
        let data = segment.saturating_add(usize::from(words).saturating_mul(4));
        let fits = data.saturating_sub(packet).saturating_add(size) <= MOST_DATA;
        let length = frame.len().checked_sub(data)?;
        let is_possible = is_it && is_tcp && words >= 5 && fits;
        (is_possible && size > 0 && length.div_ceil(size) <= MOST_PARTS).then_some(Self {
            is_ipv6,
            packet,
            segment,
            data,
            size,
            next: data,
            number: 0,
        })
    }

    /// The segment whose data go up to `end`.
    fn write(&self, frame: &[u8], end: usize, into: &mut [u8]) -> Option<usize> {
        let (headers, data) = (frame.get(..self.data)?, frame.get(self.next..end)?);
        let length = headers.len().checked_add(data.len())?;
        let into = into.get_mut(..length)?;
        let (to_headers, to_data) = into.split_at_mut_checked(headers.len())?;
        to_headers.copy_from_slice(headers);
        to_data.copy_from_slice(data);
        let segment_length = u16::try_from(length.checked_sub(self.segment)?).ok()?;
        let mut sum = Sum::default();
        let at = |offset: usize| self.packet.saturating_add(offset);
        if self.is_ipv6 {
            put(into, at(IPV6_LENGTH), &segment_length.to_be_bytes());
            sum.add(&bytes::<32>(into, at(IPV6_ADDRESSES))?);
        } else {
            let identification = half(into, at(IPV4_IDENTIFICATION))?.wrapping_add(self.number);
            put(into, at(IPV4_LENGTH), &u16::try_from(length.checked_sub(self.packet)?).ok()?.to_be_bytes());
            put(into, at(IPV4_IDENTIFICATION), &identification.to_be_bytes());
            put(into, at(IPV4_CHECKSUM), &[0; 2]);
            let mut header = Sum::default();
            header.add(into.get(self.packet..self.segment)?);
            put(into, at(IPV4_CHECKSUM), &header.checksum().to_be_bytes());
            sum.add(&bytes::<8>(into, at(IPV4_ADDRESSES))?);
        }
        let at = |offset: usize| self.segment.saturating_add(offset);
        let passed = u32::try_from(self.next.saturating_sub(self.data)).unwrap_or(0);
        let sequence = u32::from_be_bytes(bytes(into, at(TCP_SEQUENCE))?).wrapping_add(passed);
        put(into, at(TCP_SEQUENCE), &sequence.to_be_bytes());
        let [mut flags] = bytes(into, at(TCP_FLAGS))?;
        flags &= if end < frame.len() { !FIN_PSH } else { u8::MAX };
        flags &= if self.number > 0 { !CWR } else { u8::MAX };
        put(into, at(TCP_FLAGS), &[flags]);
        put(into, at(TCP_CHECKSUM), &[0; 2]);
        // With the addresses before them, these are the pseudo headers of either IP.
        sum.add(&[0, PROTOCOL_TCP]);
        sum.add(&segment_length.to_be_bytes());
        sum.add(into.get(self.segment..)?);
        put(into, at(TCP_CHECKSUM), &sum.transport_checksum().to_be_bytes());
        Some(length)
    }
}

#[cfg(test)]
mod tests;
