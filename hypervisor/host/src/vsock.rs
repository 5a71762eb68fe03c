//! Sockets of VMs: connections between guests, and between a guest and services of the host's (virtio 1.3, 5.10).
//!
//! Answers for: who may speak with whom ([`Hub`]), connections and what waits in them, the services at CID 2, and moving packets
//! ([`send`], [`receive`]). Does not answer for: the lock around all this and how a device is reached (the kernel's: [`Table`],
//! [`Door`]), what guests see (`vdevs`).
//!
//! The host stands between: each guest has a half of a connection, which counts what it may send and be sent with the host, not with
//! the other guest. So what a guest has sent is bounded and has its place before it is taken, and no guest waits for another one but
//! in the connections that they have with each other. Nothing is allocated for a packet.

mod half;
mod lines;
mod station;
mod transfer;

pub use half::WINDOW;
pub use lines::LONGEST_LINE;
pub use station::{CONNECTIONS, Counts, OFFERS, REPLIES, Storage};
pub use transfer::{Table, attend, receive, send};

use crate::switch::End;
use alloc::{format, string::String, vec::Vec};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use half::{Half, Other, Pair, Slot, State};
use station::Station;
use vdev::{GUEST_CIDS, VSOCK_RECEIVE, VSOCK_SEND, VSOCK_STREAM, VsockOp, VsockPacket, VsockSignal, VsockWish};

/// Most stations there can be at a time.
pub const STATIONS: usize = 32;
/// The host's CID (5.10.4).
pub const HOST_CID: u32 = 2;
/// Where a guest's agent connects to: what it writes is logged line by line, and it reads [`SHUT_DOWN`].
pub const AGENT_PORT: u32 = 1;
/// Sends back what it gets (RFC 862).
pub const ECHO_PORT: u32 = 7;
/// What an agent reads when its guest is to shut down.
pub const SHUT_DOWN: &[u8] = b"shutdown\n";
/// CIDs that are found for those who ask for none begin here, behind those that people choose.
const FIRST_FREE_CID: u32 = 1024;

/// How a station's device is reached. Called with the lock of the [`Hub`] held.
pub trait Door {
    /// There may be something for the guest.
    fn ring(&self);
    /// The guest's agent says this.
    fn said(&self, line: &str);
}

/// Which station, in which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StationId {
    index: u8,
    serial: u32,
}

impl StationId {
    const fn bit(self) -> u32 {
        1_u32.wrapping_shl(self.index as u32)
    }
}

/// What those say, and ask, who cannot wait for the lock: a bit for each station.
#[derive(Debug, Default)]
pub struct Signals {
    agents: AtomicU32,
    buttons: AtomicU32,
    closed: AtomicU32,
}

impl Signals {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { agents: AtomicU32::new(0), buttons: AtomicU32::new(0), closed: AtomicU32::new(0) }
    }

    /// See [`vdev::VsockPort::signal`].
    pub fn send(&self, id: StationId, signal: VsockSignal) -> bool {
        let is_heard = signal == VsockSignal::Closed || self.agents.load(Relaxed) & id.bit() != 0;
        if is_heard {
            let whose = if signal == VsockSignal::Closed { &self.closed } else { &self.buttons };
            whose.fetch_or(id.bit(), Relaxed);
        }
        is_heard
    }

    /// Whether there is something to look after.
    fn concern(&self, id: StationId) -> bool {
        (self.buttons.load(Relaxed) | self.closed.load(Relaxed)) & id.bit() != 0
    }

    /// Takes one, if there is one.
    fn take(set: &AtomicU32, id: StationId) -> bool {
        set.load(Relaxed) & id.bit() != 0 && set.fetch_and(!id.bit(), Relaxed) & id.bit() != 0
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    /// It has been dealt with.
    Done,
    /// There is a place for its data.
    Data,
    /// Nothing is heard of this guest until it has taken what there is for it.
    Full,
}

/// It is no packet that could come there: whoever sends it has no such connection any more.
struct Refused;

/// All stations.
#[derive(Debug)]
pub struct Hub<D> {
    /// At most [`STATIONS`] places; as many as there have been stations at a time.
    stations: Vec<Option<Station<D>>>,
    /// Of the next station.
    serial: u32,
    signals: &'static Signals,
}

impl<D: Door> Hub<D> {
    /// Without stations.
    #[must_use]
    pub const fn new(signals: &'static Signals) -> Self {
        Self { stations: Vec::new(), serial: 0, signals }
    }

    fn get(&mut self, id: StationId) -> Option<&mut Station<D>> {
        self.stations.get_mut(usize::from(id.index))?.as_mut().filter(|station| station.id == id)
    }

    fn at(&mut self, index: usize) -> Option<&mut Station<D>> {
        self.stations.get_mut(index)?.as_mut()
    }

    fn half(&mut self, slot: Slot) -> Option<&mut Half> {
        self.at(slot.station)?.storage.halves.get_mut(slot.index)
    }

    fn ring(&mut self, station: usize) {
        if let Some(station) = self.at(station) {
            station.door.ring();
        }
    }

    /// A new station for the device `wish.name` of the VM `vm`, and its CID: that of the wish, or the first from 1024 on that nobody
    /// has.
    ///
    /// # Errors
    /// Why it cannot be had, for people: more than [`STATIONS`], a CID that is reserved (5.10.4), or that another one has.
    pub fn attach(&mut self, vm: &str, wish: &VsockWish, parts: (D, Storage)) -> Result<(StationId, u32), String> {
        let end = End::Device { vm: vm.into(), device: wish.name.clone() };
        let index = self.free_place()?;
        let holder = |cid: u32| self.stations.iter().flatten().find(|station| station.cid == cid);
        let cid = match wish.cid {
            Some(cid) if !GUEST_CIDS.contains(&cid) => return Err(format!("{cid} cannot be a guest's CID")),
            Some(cid) => match holder(cid) {
                Some(other) => return Err(format!("{end} cannot have the CID {cid}: {} has it", other.end)),
                None => cid,
            },
            // There are more than stations.
            None => (FIRST_FREE_CID..).find(|cid| holder(*cid).is_none()).unwrap_or(FIRST_FREE_CID),
        };
        self.serial = self.serial.wrapping_add(1);
        let id = StationId { index, serial: self.serial };
        for left in [&self.signals.agents, &self.signals.buttons, &self.signals.closed] {
            Signals::take(left, id);
        }
        if let Some(place) = self.stations.get_mut(usize::from(index)) {
            *place = Some(Station::new(id, end, cid, wish.groups.clone(), parts));
        }
        Ok((id, cid))
    }

    /// A place for one station more.
    fn free_place(&mut self) -> Result<u8, String> {
        let place = self.stations.iter().position(Option::is_none).unwrap_or(self.stations.len());
        let index = u8::try_from(place).ok().filter(|_| place < STATIONS);
        let index = index.ok_or_else(|| format!("there are {STATIONS} of its kind already"))?;
        if place == self.stations.len() {
            self.stations.try_reserve_exact(1).map_err(|_| "there is no memory for one station more")?;
            self.stations.push(None);
        }
        Ok(index)
    }

    /// Those stations are no more whose doors these are. Says of each which it was, and what has come through it; its memory is to be given
    /// back without the lock.
    pub fn end(&mut self, is_its: impl Fn(&D) -> bool) -> Vec<(End, Counts, Storage)> {
        let mut gone = Vec::new();
        for index in 0..self.stations.len() {
            let id = self.at(index).filter(|station| is_its(&station.door)).map(|station| station.id);
            if let Some(id) = id {
                self.clear(id, false);
            }
            if let Some(station) = self.stations.get_mut(index).and_then(|place| place.take_if(|_| id.is_some())) {
                gone.push((station.end, station.counts, station.storage));
            }
        }
        gone
    }

    /// See [`vdev::VsockPort::open`].
    pub fn open(&mut self, id: StationId) {
        Signals::take(&self.signals.closed, id);
        self.clear(id, true);
    }

    /// Ends all connections of a station; whether others can have some with it from now on.
    fn clear(&mut self, id: StationId, is_open: bool) {
        for index in 0..CONNECTIONS {
            self.drop_half(Slot { station: usize::from(id.index), index });
        }
        if let Some(station) = self.get(id) {
            station.is_open = is_open;
            station.storage.replies.clear();
        }
    }

    /// See [`vdev::VsockPort::attend`].
    fn attend(&mut self, id: StationId) {
        if Signals::take(&self.signals.closed, id) {
            self.clear(id, false);
        }
        if Signals::take(&self.signals.buttons, id)
            && let Some(station) = self.get(id)
            && let Some(agent) = station.storage.halves.iter_mut().find(|half| half.other == Other::Agent)
        {
            let _ = agent.put(SHUT_DOWN);
        }
    }

    /// A guest has sent a packet.
    fn accept(&mut self, id: StationId, packet: &VsockPacket) -> Accepted {
        let Some(station) = self.get(id).filter(|station| station.is_open) else { return Accepted::Done };
        if packet.src_cid != u64::from(station.cid) {
            station.counts.forged = station.counts.forged.saturating_add(1);
            return Accepted::Done;
        }
        // What is answered has to have room for its answer.
        if !station.can_refuse() {
            return Accepted::Full;
        }
        station.counts.sent = station.counts.sent.saturating_add(1);
        let pair = Pair {
            own_port: packet.src_port,
            peer_cid: u32::try_from(packet.dst_cid).unwrap_or(u32::MAX),
            peer_port: packet.dst_port,
        };
        let index = station.find(&pair).filter(|_| packet.kind == VSOCK_STREAM);
        let slot = index.map(|index| Slot { station: usize::from(id.index), index });
        let result = match (packet.op, slot) {
            (VsockOp::Rst, Some(slot)) => {
                self.drop_half(slot);
                Ok(Accepted::Done)
            }
            // It is never answered.
            (VsockOp::Rst, None) => Ok(Accepted::Done),
            (VsockOp::Request, None) if packet.kind == VSOCK_STREAM => self.connect(id, pair, packet),
            (_, Some(slot)) => self.go_on(slot, packet),
            (_, None) => Err(Refused),
        };
        result.unwrap_or_else(|Refused| {
            if let Some(slot) = slot {
                self.drop_half(slot);
            }
            if let Some(station) = self.get(id) {
                station.refuse(&pair, packet.dst_cid, packet.kind);
            }
            Accepted::Done
        })
    }

    /// A guest wants a connection.
    fn connect(&mut self, id: StationId, pair: Pair, packet: &VsockPacket) -> Result<Accepted, Refused> {
        let own = self.room(id).ok_or(Refused)?;
        if pair.peer_cid == HOST_CID {
            let other = self.service(id, pair.peer_port)?;
            let half = self.half(own).ok_or(Refused)?;
            half.begin(State::Open, pair, other, Some(VsockOp::Response));
            if !half.note(packet) {
                return Err(self.give_up(own));
            }
            if other == Other::Agent {
                self.signals.agents.fetch_or(id.bit(), Relaxed);
            }
        } else {
            let from =
                Pair { own_port: pair.peer_port, peer_cid: self.get(id).ok_or(Refused)?.cid, peer_port: pair.own_port };
            let theirs = self.partner(id, pair.peer_cid, &from).ok_or(Refused)?;
            let half = self.half(own).ok_or(Refused)?;
            half.begin(State::Asked, pair, Other::Guest(theirs), None);
            if !half.note(packet) {
                return Err(self.give_up(own));
            }
            self.half(theirs).ok_or(Refused)?.begin(State::Offered, from, Other::Guest(own), Some(VsockOp::Request));
            self.ring(theirs.station);
        }
        Ok(Accepted::Done)
    }

    /// A half that nobody else knows of is free again.
    fn give_up(&mut self, own: Slot) -> Refused {
        self.half(own).map(Half::free);
        Refused
    }

    /// A free half of a station's, for its own guest's wish. If there is none, one is given up that the guest has asked for and that has
    /// not been answered: guests do not wait for ever, and do not say so.
    fn room(&mut self, id: StationId) -> Option<Slot> {
        let station = self.get(id)?;
        let slot = |index| Slot { station: usize::from(id.index), index };
        if let Some(index) = station.position(State::Free) {
            return Some(slot(index));
        }
        let index = station.position(State::Asked)?;
        let pair = station.storage.halves.get(index)?.pair;
        station.refuse(&pair, pair.peer_cid.into(), VSOCK_STREAM);
        self.drop_half(slot(index));
        Some(slot(index))
    }

    /// What is at a port of the host's.
    fn service(&mut self, id: StationId, port: u32) -> Result<Other, Refused> {
        let station = self.get(id).ok_or(Refused)?;
        match port {
            ECHO_PORT => Ok(Other::Echo),
            // One that is there stays: nobody is to hear of a shutdown in its place.
            AGENT_PORT if station.storage.halves.iter().all(|half| half.other != Other::Agent) => {
                station.lines.clear();
                Ok(Other::Agent)
            }
            _ => Err(Refused),
        }
    }

    /// A free half of the guest with this CID, if that may be reached.
    fn partner(&mut self, id: StationId, cid: u32, pair: &Pair) -> Option<Slot> {
        let own = self.stations.iter().flatten().find(|station| station.id == id)?;
        let reaches =
            |other: &Station<D>| other.cid == cid && other.id != id && other.is_open && own.shares_group(other);
        let station = self.stations.iter().position(|other| other.as_ref().is_some_and(reaches))?;
        let index = self.at(station)?.offer(pair)?;
        Some(Slot { station, index })
    }

    /// A packet of a connection that there is.
    fn go_on(&mut self, slot: Slot, packet: &VsockPacket) -> Result<Accepted, Refused> {
        let half = self.half(slot).ok_or(Refused)?;
        if !half.note(packet) {
            return Err(Refused);
        }
        match (packet.op, half.state) {
            (VsockOp::Response, State::Offered) if half.is_asked() => {
                half.state = State::Open;
                let other = half.other;
                if let Other::Guest(theirs) = other {
                    self.half(theirs).ok_or(Refused)?.answer();
                    self.ring(theirs.station);
                }
            }
            (VsockOp::Rw, State::Open) => {
                let may = half.shut & VSOCK_SEND == 0 && half.other != Other::Nobody;
                if !may || !half.accept(packet.len) {
                    return Err(Refused);
                }
                return Ok(if packet.len > 0 { Accepted::Data } else { Accepted::Done });
            }
            (VsockOp::CreditUpdate, State::Open) => {}
            (VsockOp::CreditRequest, State::Open) => half.query(),
            (VsockOp::Shutdown, State::Open) => {
                let flags = packet.flags & (VSOCK_RECEIVE | VSOCK_SEND);
                half.shut |= flags;
                let (other, is_quiet) = (half.other, half.shut & VSOCK_RECEIVE != 0);
                match other {
                    Other::Guest(theirs) => {
                        self.half(theirs).ok_or(Refused)?.shut_down(flags);
                        self.ring(theirs.station);
                    }
                    // Nobody is there who would have to know; a guest that hears nothing any more has no use for what there is.
                    Other::Nobody => half.reset(),
                    Other::Echo | Other::Agent if is_quiet => half.reset(),
                    Other::Echo => half.shut_down(VSOCK_RECEIVE | VSOCK_SEND),
                    Other::Agent => {}
                }
            }
            _ => return Err(Refused),
        }
        Ok(Accepted::Done)
    }

    /// The half is no more. What is at its other end hears of that.
    fn drop_half(&mut self, slot: Slot) {
        let Some(other) = self.half(slot).map(Half::free) else { return };
        match other {
            Other::Guest(theirs) => {
                if self.half(theirs).is_some_and(|half| !half.abandon()) {
                    self.half(theirs).map(Half::free);
                }
                self.ring(theirs.station);
            }
            Other::Agent => {
                if let Some(id) = self.at(slot.station).map(|station| station.id) {
                    Signals::take(&self.signals.agents, id);
                }
            }
            Other::Echo | Other::Nobody => {}
        }
    }

    /// The half that a packet is of whose data is being moved.
    fn half_of(&mut self, id: StationId, packet: &VsockPacket) -> Option<Slot> {
        let peer_cid = u32::try_from(packet.dst_cid).ok()?;
        let pair = Pair { own_port: packet.src_port, peer_cid, peer_port: packet.dst_port };
        let index = self.get(id)?.find(&pair)?;
        Some(Slot { station: usize::from(id.index), index })
    }

    /// A part of the data of a packet that has been accepted. If the other end has gone meanwhile, so has the data.
    fn put(&mut self, id: StationId, packet: &VsockPacket, bytes: &[u8]) {
        let Some(slot) = self.half_of(id, packet) else { return };
        let length = u32::try_from(bytes.len()).unwrap_or(WINDOW);
        match self.half(slot).map(|half| half.other) {
            Some(Other::Guest(theirs)) => {
                if self.half(theirs).is_some_and(|half| half.put(bytes)) {
                    self.ring(theirs.station);
                }
            }
            Some(Other::Echo) => {
                let _ = self.half(slot).map(|half| half.put(bytes));
            }
            Some(Other::Agent) => {
                let _ = self.half(slot).map(|half| half.forward(length));
                if let Some(Station { lines, door, .. }) = self.get(id) {
                    lines.add(bytes, |line| door.said(line));
                }
            }
            Some(Other::Nobody) | None => {}
        }
    }

    /// A packet that has been accepted does not have its data: its connection ends.
    fn cut(&mut self, id: StationId, packet: &VsockPacket) {
        if let Some(slot) = self.half_of(id, packet) {
            let pair = self.half(slot).map(|half| half.pair);
            self.drop_half(slot);
            if let (Some(pair), Some(station)) = (pair, self.get(id)) {
                station.refuse(&pair, packet.dst_cid, packet.kind);
            }
        }
    }

    /// The next packet for a guest.
    fn next(&mut self, id: StationId, into: &mut [u8]) -> Option<VsockPacket> {
        let station = self.get(id).filter(|station| station.is_open)?;
        if let Some(reply) = station.storage.replies.pop_at(0) {
            return Some(reply);
        }
        let (index, packet) = station.say(into)?;
        let slot = Slot { station: usize::from(id.index), index };
        let other = self.half(slot)?.other;
        match packet.op {
            VsockOp::Rst => self.drop_half(slot),
            VsockOp::Rw => {
                let from = if other == Other::Echo { Some(slot) } else { Self::guest(other) };
                if let Some(from) = from
                    && self.half(from).is_some_and(|half| half.forward(packet.len))
                {
                    self.ring(from.station);
                }
            }
            _ => {}
        }
        Some(packet)
    }

    const fn guest(other: Other) -> Option<Slot> {
        match other {
            Other::Guest(slot) => Some(slot),
            _ => None,
        }
    }

    /// What has come through a station; `None` if it is no more.
    pub fn counts(&mut self, id: StationId) -> Option<Counts> {
        self.get(id).map(|station| station.counts)
    }
}

#[cfg(test)]
mod tests;
