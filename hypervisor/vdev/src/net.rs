//! Networks behind devices.
//!
//! Answers for: what a device asks of a network, whatever that is: another VM's device, a switch; and what frames carry along that
//! senders leave to be done. Does not answer for: who is on which network (`host`, the kernel), nor what a guest sees (`vdevs`).

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use types::Ticks;

/// Bytes that a frame begins with: two addresses and a type (IEEE 802.3, 3.1.1).
pub const LEAST_FRAME: usize = 14;
/// Most bytes of a frame: what begins it, and the largest IP packet (virtio 1.3, 5.1.6.3.1).
pub const MOST_FRAME: usize = 65_550;
/// Most addresses of a kind that a [`NetFilter`] knows: beyond them everything of that kind passes.
pub const FILTER_ADDRESSES: usize = 32;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of all.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it is one of a group, or of all (IEEE 802, 8.2).
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it can be that of one end.
    #[must_use]
    pub fn is_station(self) -> bool {
        !self.is_group() && self != Self::default()
    }
}

impl FromStr for Mac {
    type Err = ();

    /// Six pairs of hexadecimal digits with colons between them.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(())?;
            let is_hexadecimal = part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| is_hexadecimal).ok_or(())?;
        }
        if parts.next().is_none() { Ok(Self(mac)) } else { Err(()) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What the sender of a frame has left to others; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// The checksum of what follows.
    pub checksum: Option<Checksum>,
    /// The frame is several: of a TCP segment that is too long for one.
    pub segments: Option<Segments>,
}

/// A checksum of the Internet's (RFC 1071) that is to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Offset in the frame of the first byte of which; up to the frame's end.
    pub start: u16,
    /// Where it goes, counted from `start`. What is there is part of it.
    pub offset: u16,
}

/// How a frame is to be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// TCP over IPv6, not IPv4.
    pub ipv6: bool,
    /// Most bytes of data in each.
    pub size: u16,
    /// Bytes of headers that each has, as the sender thinks.
    pub headers: u16,
}

/// What a receiver takes of unfinished frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Without checksum.
    pub checksum: bool,
    /// Not divided: TCP over IPv4, over IPv6.
    pub tcp4: bool,
    /// See `tcp4`.
    pub tcp6: bool,
}

impl Offloads {
    /// Whether a frame that is still to be divided can be handed on.
    #[must_use]
    pub const fn take(self, unfinished: &Unfinished) -> bool {
        match unfinished.segments {
            Some(Segments { ipv6: false, .. }) => self.tcp4,
            Some(Segments { ipv6: true, .. }) => self.tcp6,
            None => true,
        }
    }
}

/// Which frames a receiver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetFilter {
    /// All.
    pub promiscuous: bool,
    /// All that go to groups.
    pub all_groups: bool,
    /// Those to these, besides its own address and that of all; zeroes for none.
    pub stations: [Mac; FILTER_ADDRESSES],
    /// Those to these groups; zeroes for none.
    pub groups: [Mac; FILTER_ADDRESSES],
}

impl Default for NetFilter {
    /// Everything passes, until somebody says what is to.
    fn default() -> Self {
        let none = [Mac::default(); FILTER_ADDRESSES];
        Self { promiscuous: true, all_groups: false, stations: none, groups: none }
    }
}

impl NetFilter {
    /// Whether a frame to `to` passes to a receiver that is `own`.
    #[must_use]
    pub fn passes(&self, to: Mac, own: Mac) -> bool {
        let is_listed = || if to.is_group() { self.groups.contains(&to) } else { self.stations.contains(&to) };
        self.promiscuous || to == own || to == Mac::BROADCAST || (to.is_group() && self.all_groups) || is_listed()
    }
}

/// What a configuration says of a device's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetWish {
    /// What the device is called.
    pub name: String,
    /// Its address; one is made up if there is none.
    pub mac: Option<Mac>,
    /// What it is connected to, if it does not wait for who connects to it.
    pub peer: Option<String>,
    /// The address that the other end has to have.
    pub peer_mac: Option<Mac>,
    /// Which group of its switch it belongs to.
    pub group: u16,
    /// Most bytes that it sends in a second, if there is a limit.
    pub rate: Option<u64>,
}

/// What has become of a frame that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It has been sent, or lost as frames may be.
    Gone,
    /// It is not to be sent before that time: nothing has been read of it.
    Wait(Ticks),
}

/// What has become of a frame that was there to be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// There was one, and it has been taken.
    Taken,
    /// There is one, which has been left where it is.
    Left,
    /// There is none.
    None,
}

/// A frame that has come.
pub struct Frame<'f, 'b> {
    /// What is left to be done, which the receiver has said that it would take.
    pub unfinished: Unfinished,
    /// Bytes.
    pub length: usize,
    /// These.
    pub parts: &'f mut dyn Iterator<Item = &'b [u8]>,
}

impl fmt::Debug for Frame<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Fills a part of a frame. Says whether it could: if not, there is no frame.
pub type FillFrame<'a> = dyn FnMut(&mut [u8]) -> bool + 'a;
/// Takes a frame, or leaves it where it is ([`Received::Left`]).
pub type TakeFrame<'a> = dyn FnMut(Frame<'_, '_>) -> Received + 'a;

/// A device's port of a network. Calls are for the device's workers, but for [`NetPort::is_up`]; none waits for anybody.
///
/// When a frame has come and there was none, the device's first worker is rung; when the link has come or gone, the device is woken
/// ([`crate::Wake::Backend`]).
pub trait NetPort: Send + Sync {
    /// The other end is there. At any time.
    fn is_up(&self) -> bool;

    /// A receiver is there who takes such frames. What had come before is gone.
    fn open(&self, takes: Offloads);

    /// From now on these frames are wanted: before the first call, and after one with the filter's default, all.
    fn set_filter(&self, filter: &NetFilter);

    /// Sends a frame of so many bytes, from [`LEAST_FRAME`] to [`MOST_FRAME`], which `fill` fills in from first to last.
    fn send(&self, now: Ticks, unfinished: Unfinished, length: usize, fill: &mut FillFrame<'_>) -> Sent;

    /// Has `take` look at the first frame that has come.
    fn receive(&self, take: &mut TakeFrame<'_>) -> Received;
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn addresses_are_six_pairs_of_digits() {
        let mac = Mac([0x02, 0, 0xab, 0xcd, 0xef, 9]);
        assert_eq!("02:00:ab:CD:ef:09".parse(), Ok(mac));
        assert_eq!(mac.to_string(), "02:00:ab:cd:ef:09");
        for wrong in
            ["", "02:00:ab:cd:ef", "02:00:ab:cd:ef:09:", "2:00:ab:cd:ef:09", "+2:00:ab:cd:ef:09", "0200abcdef09"]
        {
            assert_eq!(wrong.parse::<Mac>(), Err(()), "{wrong}");
        }
        assert!(mac.is_station() && !Mac::BROADCAST.is_station() && !Mac::default().is_station());
    }

    #[test]
    fn a_filter_passes_what_it_says() {
        let (own, other, group) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]), Mac([1, 0, 0x5e, 0, 0, 1]));
        let passes = |filter: &NetFilter| [own, other, group, Mac::BROADCAST].map(|to| filter.passes(to, own));
        let mut filter = NetFilter::default();
        assert_eq!(passes(&filter), [true; 4]);
        filter.promiscuous = false;
        assert_eq!(passes(&filter), [true, false, false, true]);
        filter.all_groups = true;
        assert_eq!(passes(&filter), [true, false, true, true]);
        filter.all_groups = false;
        (filter.stations[3], filter.groups[3]) = (other, group);
        assert_eq!(passes(&filter), [true; 4]);
    }

    #[test]
    fn who_takes_one_kind_of_segments_does_not_take_the_other() {
        let of = |ipv6| Unfinished { segments: Some(Segments { ipv6, size: 1, headers: 0 }), checksum: None };
        let four = Offloads { checksum: true, tcp4: true, tcp6: false };
        assert!(four.take(&of(false)) && !four.take(&of(true)) && four.take(&Unfinished::default()));
    }
}
