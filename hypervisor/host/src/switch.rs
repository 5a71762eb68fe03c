//! Networks of VMs: links between two devices, switches, and the cards that lead out of the machine.
//!
//! Answers for: who is connected with whom ([`Net`]), which ports a frame goes to, what of it waits where, moving it from a
//! sender to its receivers ([`send`], [`receive`]), and what cards are to send ([`Outbox`]). Does not answer for: the lock around all
//! this and how a port's device is reached (the kernel's: [`Table`], [`Door`]), what guests see (`vdevs`), cards (`drivers`).
//!
//! A frame is copied into pieces of the sender's port and exchanged for as many free ones of the receiver's; nothing is allocated for
//! it. Copying is done outside of the lock. So what a port can hold is bounded, a full one loses what comes, and nobody waits for it.

mod buffer;
mod checksum;
mod divide;
mod outbox;
mod port;
mod rate;
mod station;
mod transfer;

pub use buffer::{FRAME_PIECES, PIECE};
pub use divide::{MOST_ON_WIRE, MOST_PARTS};
pub use outbox::{Next, Outbox};
pub use port::{Counts, POOL, Storage};
pub use station::{Place, derive_address};
pub use transfer::{Table, receive, send};

use alloc::{format, string::String, vec::Vec};
use arrayvec::ArrayVec;
use buffer::Buffer;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use port::Port;
use station::is_for_bridges;
use types::{Frequency, Ticks};
use vdev::{Mac, NetFilter, NetWish, Offloads, Unfinished};

/// Most ports there can be at a time.
pub const PORTS: usize = 32;

/// How a port's device is reached. Called with the lock of the [`Net`] held.
pub trait Door {
    /// There are frames, and there were none.
    fn ring(&self);
    /// The link has come or gone.
    fn link_changed(&self);
}

/// Which port, in which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortId {
    index: u8,
    serial: u32,
}

impl PortId {
    /// The bit of it in the set of ports that are up.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1_u32.wrapping_shl(self.index as u32)
    }
}

/// One end of a link, or who is at a port of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A device of a VM.
    Device {
        /// What the VM is called.
        vm: String,
        /// What the device is called.
        device: String,
    },
    /// A network card of the machine, by its number.
    Card(u32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { vm, device } => write!(f, "/dev/qvm/{vm}/{device}"),
            Self::Card(number) => write!(f, "/dev/net{number}"),
        }
    }
}

/// What there is to say of a port.
#[derive(Clone, Debug)]
pub struct Report {
    /// Who is there.
    pub end: End,
    /// Its address.
    pub mac: Mac,
    /// Whether its link is up.
    pub is_up: bool,
    /// What it is connected to.
    pub place: String,
    /// What has come through it.
    pub counts: Counts,
}

/// All ports.
#[derive(Debug)]
pub struct Net<D> {
    /// At most [`PORTS`] places; as many as there have been ports at a time.
    ports: Vec<Option<Port<D>>>,
    /// Of the next port.
    serial: u32,
    /// A bit for each port whose link is up.
    up: &'static AtomicU32,
}

impl<D: Door> Net<D> {
    /// Without ports. In `up` it keeps a bit for each that is up, for those who cannot wait for the lock.
    #[must_use]
    pub const fn new(up: &'static AtomicU32) -> Self {
        Self { ports: Vec::new(), serial: 0, up }
    }

    fn get(&mut self, id: PortId) -> Option<&mut Port<D>> {
        self.ports.get_mut(usize::from(id.index))?.as_mut().filter(|port| port.id == id)
    }

    fn port(&self, id: PortId) -> Option<&Port<D>> {
        self.ports.get(usize::from(id.index))?.as_ref().filter(|port| port.id == id)
    }

    fn all(&self) -> impl Iterator<Item = &Port<D>> {
        self.ports.iter().flatten()
    }

    /// A new port for the device `wish.name` of the VM `vm`, and its address: that of the wish, or [`derive_address`]'s. `frequency` is
    /// that of the ticks of [`send`] and [`receive`], by which rates are counted.
    ///
    /// # Errors
    /// Why it cannot be had, for people: a peer that is neither switch nor device, or has another one; an address that somebody
    /// has whom it can reach, or that is not the expected one; more than [`PORTS`].
    pub fn attach(
        &mut self,
        vm: &str,
        wish: &NetWish,
        frequency: Frequency,
        parts: (D, Storage),
    ) -> Result<(PortId, Mac), String> {
        let end = End::Device { vm: vm.into(), device: wish.name.clone() };
        let mac = wish.mac.unwrap_or_else(|| derive_address(vm, &wish.name));
        self.plug(end, mac, wish, frequency, parts)
    }

    /// A new port for a card of the machine: what is sent to it leaves the machine, and what comes from there is sent from it. It is
    /// open from the beginning, and takes all that an [`Outbox`] can do.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn attach_card(
        &mut self,
        number: u32,
        mac: Mac,
        wish: &NetWish,
        frequency: Frequency,
        parts: (D, Storage),
    ) -> Result<PortId, String> {
        let end = End::Card(number);
        if let Some(there) = self.all().find(|port| port.end == end) {
            return Err(format!("{end} is the uplink of {} already", there.described_place()));
        }
        let place = wish.peer.as_deref().map(Place::parse).transpose()?;
        let is_other = |port: &&Port<D>| Some(&port.place) == place.as_ref() && port.group == wish.group;
        if let Some(other) = self.all().filter(is_other).find(|port| port.is_card()) {
            let (there, place) = (&other.end, other.described_place());
            return Err(format!("{there} is the uplink of {place}: what comes in there would go out by {end}"));
        }
        let (id, _) = self.plug(end, mac, wish, frequency, parts)?;
        self.open(id, Outbox::TAKES);
        Ok(id)
    }

    fn plug(
        &mut self,
        end: End,
        mac: Mac,
        wish: &NetWish,
        frequency: Frequency,
        parts: (D, Storage),
    ) -> Result<(PortId, Mac), String> {
        let place = wish.peer.as_deref().map_or(Ok(Place::Link(None)), Place::parse)?;
        if wish.group != 0 && !matches!(place, Place::Switch(_)) {
            return Err("only switches have groups".into());
        }
        self.check(&end, mac, &place, wish.peer_mac)?;
        let index = self.free_place()?;
        self.serial = self.serial.wrapping_add(1);
        let id = PortId { index, serial: self.serial };
        let port = Port::new(id, end, mac, place, wish, frequency, parts);
        if let Some(slot) = self.ports.get_mut(usize::from(index)) {
            *slot = Some(port);
        }
        self.connect();
        Ok((id, mac))
    }

    /// A place for one port more.
    fn free_place(&mut self) -> Result<u8, String> {
        let place = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        let index = u8::try_from(place).ok().filter(|_| place < PORTS);
        let index = index.ok_or_else(|| format!("there are {PORTS} ports already"))?;
        if place == self.ports.len() {
            self.ports.try_reserve_exact(1).map_err(|_| "there is no memory for one port more")?;
            self.ports.push(None);
        }
        Ok(index)
    }

    /// Whether a port can be connected like that.
    fn check(&self, end: &End, mac: Mac, place: &Place, peer_mac: Option<Mac>) -> Result<(), String> {
        for other in self.all() {
            let together = match (place, &other.place) {
                (Place::Switch(name), Place::Switch(theirs)) => name == theirs,
                (Place::Link(peer), Place::Link(theirs)) => {
                    let (named, names) = (peer.as_ref() == Some(&other.end), theirs.as_ref() == Some(end));
                    let elsewhere = if named { theirs.as_ref() } else { peer.as_ref() };
                    match elsewhere {
                        Some(elsewhere) if named != names && (named || names) => {
                            return Err(format!("{end} and {} do not name each other, but {elsewhere}", other.end));
                        }
                        _ => {}
                    }
                    if named && let Some(taken) = self.partner(other) {
                        return Err(format!("{} is connected with {} already", other.end, taken.end));
                    }
                    for (expected, there, who) in [(peer_mac, other.mac, &other.end), (other.peer_mac, mac, end)] {
                        if (named || names) && expected.is_some_and(|expected| expected != there) {
                            return Err(format!("`peermac`: {who} has the address {there}"));
                        }
                    }
                    named || names
                }
                _ => false,
            };
            if together && mac == other.mac {
                return Err(format!("{end} and {} have the same address, {mac}", other.end));
            }
        }
        Ok(())
    }

    /// The other end of a link.
    fn partner(&self, port: &Port<D>) -> Option<&Port<D>> {
        let Place::Link(peer) = &port.place else { return None };
        self.all().find(|other| {
            let Place::Link(theirs) = &other.place else { return false };
            let is_named = peer.as_ref() == Some(&other.end);
            let names = theirs.as_ref() == Some(&port.end);
            other.id != port.id && (is_named || names) && (is_named || peer.is_none()) && (names || theirs.is_none())
        })
    }

    /// Ports have come or gone: those whose links have are told.
    fn connect(&mut self) {
        let ups = self.all().filter(|port| matches!(port.place, Place::Switch(_)) || self.partner(port).is_some());
        let ups = ups.fold(0, |ups, port| ups | port.id.bit());
        let changed = self.up.swap(ups, Ordering::AcqRel) ^ ups;
        self.all().filter(|port| changed & port.id.bit() != 0).for_each(|port| port.door.link_changed());
    }

    /// Those ports are no more whose doors these are. Says of each which it was, and what has come through it; its memory is to be
    /// given back without the lock.
    pub fn end(&mut self, is_its: impl Fn(&D) -> bool) -> Vec<(End, Counts, Storage)> {
        let mut gone = Vec::new();
        for slot in &mut self.ports {
            if let Some(port) = slot.take_if(|port| is_its(&port.door)) {
                gone.push((port.end, port.counts, port.storage));
            }
        }
        self.connect();
        gone
    }

    /// See [`vdev::NetPort::open`].
    pub fn open(&mut self, id: PortId, takes: Offloads) {
        if let Some(port) = self.get(id) {
            port.open(takes);
        }
    }

    /// See [`vdev::NetPort::set_filter`].
    pub fn set_filter(&mut self, id: PortId, filter: &NetFilter) {
        if let Some(port) = self.get(id) {
            port.filter = *filter;
        }
    }

    /// What has come through a port; `None` if it is no more.
    pub fn counts(&mut self, id: PortId) -> Option<Counts> {
        self.get(id).map(|port| port.counts)
    }

    /// What there is to say of all ports.
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
        let report = |port: &Port<D>| Report {
            end: port.end.clone(),
            mac: port.mac,
            is_up: self.is_up(port.id),
            place: self.partner(port).map_or_else(|| port.described_place(), |partner| format!("{}", partner.end)),
            counts: port.counts,
        };
        self.all().map(report).collect()
    }

    /// A frame that a card's port had taken cannot be sent by a card.
    fn count_undivided(&mut self, id: PortId) {
        if let Some(port) = self.get(id) {
            port.counts.undivided = port.counts.undivided.saturating_add(1);
        }
    }

    fn is_up(&self, id: PortId) -> bool {
        self.up.load(Ordering::Acquire) & id.bit() != 0
    }

    /// Room for a frame of so many bytes that is to be sent, if anybody is there to get it. An error if it has to wait.
    fn begin(
        &mut self,
        id: PortId,
        now: Ticks,
        unfinished: Unfinished,
        length: usize,
    ) -> Result<Option<Buffer>, Ticks> {
        let is_up = self.is_up(id);
        let Some(port) = self.get(id) else { return Ok(None) };
        if let Some(limit) = &mut port.limit {
            limit.take(now, length)?;
        }
        Ok(if is_up { port.begin(unfinished, length) } else { None })
    }

    /// Which ports a frame goes to.
    fn route(&mut self, id: PortId, frame: &Buffer) -> ArrayVec<PortId, PORTS> {
        let (to, from) = frame.addresses();
        let mut whom = ArrayVec::new();
        self.learn(id, from);
        let Some(port) = self.port(id) else { return whom };
        let is_forged = !from.is_station() || self.is_of_another(port, from);
        if !is_forged {
            match self.owner(port, to) {
                Owner::One(one) => whom.push(one),
                Owner::Nobody => {}
                Owner::Unknown => whom.extend(self.neighbours(port).map(|other| other.id)),
            }
        }
        let stays = is_for_bridges(to);
        if stays && self.port(id).is_some_and(Port::is_card) {
            whom.clear();
        }
        whom.retain(|other| {
            let other = self.get(*other).filter(|other| !stays || !other.is_card());
            other.is_some_and(|other| other.wants(to, &frame.unfinished))
        });
        if let Some(port) = self.get(id) {
            port.counts.sent = port.counts.sent.saturating_add(1);
            port.counts.forged = port.counts.forged.saturating_add(is_forged.into());
        }
        whom
    }
}

/// Whose an address is.
enum Owner {
    One(PortId),
    /// One's whom the frame does not reach.
    Nobody,
    Unknown,
}

impl<D: Door> Net<D> {
    /// The ports that a frame from `port` can reach.
    fn neighbours<'a>(&'a self, port: &'a Port<D>) -> impl Iterator<Item = &'a Port<D>> {
        let partner = self.partner(port).map(|partner| partner.id);
        self.all().filter(move |other| {
            partner == Some(other.id)
                || (other.id != port.id && port.is_on_switch_of(other) && port.group == other.group)
        })
    }

    /// Whether an address is that of another port, by configuration: nobody else sends from it.
    fn is_of_another(&self, port: &Port<D>, address: Mac) -> bool {
        self.all().any(|other| other.id != port.id && other.mac == address && port.is_on_switch_of(other))
    }

    /// Who gets a frame to this address.
    fn owner(&self, port: &Port<D>, to: Mac) -> Owner {
        if to.is_group() || !matches!(port.place, Place::Switch(_)) {
            return Owner::Unknown;
        }
        if let Some(owner) = self.all().find(|other| other.mac == to && port.is_on_switch_of(other)) {
            let reached = owner.id != port.id && owner.group == port.group;
            return if reached { Owner::One(owner.id) } else { Owner::Nobody };
        }
        if port.learned.contains(to) {
            return Owner::Nobody;
        }
        self.neighbours(port).find(|other| other.learned.contains(to)).map_or(Owner::Unknown, |one| Owner::One(one.id))
    }

    /// Behind this port, if it is a switch's, there is somebody with this address.
    fn learn(&mut self, id: PortId, address: Mac) {
        let Some(port) = self.port(id).filter(|port| matches!(port.place, Place::Switch(_))) else { return };
        if !address.is_station() || port.mac == address || self.is_of_another(port, address) {
            return;
        }
        let others: ArrayVec<PortId, PORTS> = self.neighbours(port).map(|other| other.id).collect();
        if self.get(id).is_some_and(|port| port.learned.add(address)) {
            for other in others {
                if let Some(other) = self.get(other) {
                    other.learned.remove(address);
                }
            }
        }
    }

    /// Room for a copy of a frame that is being sent.
    fn second(&mut self, id: PortId, frame: &Buffer) -> Option<Buffer> {
        self.get(id)?.begin(frame.unfinished, frame.length)
    }

    /// Gives a frame to a port in exchange for free pieces, which `from` gets instead of those. A port that has not so many loses
    /// the frame.
    fn hand_over(&mut self, from: PortId, to: PortId, frame: Buffer) {
        let back = match self.get(to) {
            Some(port) => port.exchange(frame),
            None => frame,
        };
        self.give_back(from, back);
    }

    fn give_back(&mut self, id: PortId, pieces: Buffer) {
        if let Some(port) = self.get(id) {
            port.give_back(pieces);
        }
    }

    /// The first frame that waits at a port, and what that takes.
    fn next(&mut self, id: PortId) -> Option<(Buffer, Offloads)> {
        let port = self.get(id)?;
        Some((port.next()?, port.takes))
    }

    /// A frame has been taken, or is the first one again.
    fn finish(&mut self, id: PortId, frame: Buffer, taken: bool) {
        if let Some(port) = self.get(id) {
            port.finish(frame, taken);
        }
    }
}

#[cfg(test)]
mod tests;
