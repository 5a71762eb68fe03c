//! A virtio network card of the machine (virtio 1.3, 5.1).
//!
//! Answers for: frames out and in, each through memory of the card's own; its address, its link; what becomes of a card that lies. Does
//! not answer for: who waits (the kernel), where frames come from and go to (`host::switch`).
//!
//! Nothing is agreed on but what frames need: no checksums, no segments, no filters. So a frame is what is on the wire, the header
//! before it is empty both ways, and nobody looks into it. Of the package `virtio-drivers` the queues and the registers are used.
//!
//! A card that has used what it was not given is given up for good: it is reset, and nothing is sent or received any more. One that
//! does nothing is in nobody's way. Its memory is never used for anything else.

#[cfg(test)]
mod tests;

use crate::virtio::{Features, Identity, Memory, VirtioError, negotiate, publish_and_look, zeroed};
use core::fmt;
use core::ptr::NonNull;
use types::PAGE_SIZE;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport};

/// Frames that can be under way at a time, in each direction.
pub const FRAMES: usize = 64;
/// Bytes that a frame begins with (IEEE 802.3, 3.1.1).
const LEAST_FRAME: usize = 14;
/// Bytes for a frame and what is before it: more than any card without larger ones makes of it (5.1.6.3.1 wants 1526).
const BUFFER: usize = 2048;
const PAGES: usize = FRAMES * BUFFER / PAGE_SIZE as usize;
/// Bytes of the longest frame that can be sent.
pub const MOST: usize = BUFFER - HEADER;

/// `receiveq1`, `transmitq1` (5.1.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// `struct virtio_net_hdr` (5.1.6), and without its last field, which there is not in the interface of version 1 (5.1.6.1).
const HEADER: usize = 12;
const LEGACY_HEADER: usize = 10;

/// The configuration space (5.1.4).
const MAC: usize = 0;
const STATUS: usize = 6;
/// VIRTIO_NET_S_LINK_UP
const LINK_UP: u16 = 1;
/// How often it is read before it is taken to change all the time.
const READS: usize = 8;

/// The address that the card says it has, if it has one. It need not be in use for that (2.5.1).
pub fn address(transport: &mut impl Transport) -> Option<[u8; 6]> {
    if !Features::from_bits_truncate(transport.read_device_features()).contains(Features::NET_MAC) {
        return None;
    }
    (0..READS).find_map(|_| {
        let before = transport.read_config_generation();
        let mut mac = [0; 6];
        for (at, byte) in mac.iter_mut().enumerate() {
            *byte = transport.read_config_space(MAC + at).ok()?;
        }
        (transport.read_config_generation() == before).then_some(mac)
    })
}

/// Buffers of one direction.
struct Buffers<M: Memory> {
    queue: VirtQueue<Identity<M>, FRAMES>,
    /// [`PAGES`] pages.
    memory: NonNull<u8>,
    /// By what the card knows each that it has.
    tokens: [Option<u16>; FRAMES],
    /// Whether the card writes them.
    is_written: bool,
}

// SAFETY: the memory is its own.
unsafe impl<M: Memory> Send for Buffers<M> {}

impl<M: Memory> Buffers<M> {
    fn new(transport: &mut impl Transport, number: u16) -> Result<Self, VirtioError> {
        let queue = VirtQueue::new(transport, number, false, false).map_err(|error| match error {
            virtio_drivers::Error::DmaError => VirtioError::Memory,
            _ => VirtioError::Queue,
        })?;
        let memory = zeroed::<M>(PAGES).ok_or(VirtioError::Memory)?;
        Ok(Self { queue, memory, tokens: [None; FRAMES], is_written: number == RECEIVE })
    }

    fn at(&self, index: usize) -> *mut u8 {
        self.memory.as_ptr().wrapping_add(index * BUFFER)
    }

    /// Calls `work` with the buffer as the queue wants it.
    fn with<R>(
        &mut self,
        index: usize,
        length: usize,
        work: impl for<'a> FnOnce(&mut VirtQueue<Identity<M>, FRAMES>, &'a [&'a [u8]], &'a mut [&'a mut [u8]]) -> R,
    ) -> R {
        let at = self.at(index);
        if self.is_written {
            // SAFETY: a buffer of its own. Whatever the card does to it, this is not looked into: only its address is used.
            let buffer = unsafe { core::slice::from_raw_parts_mut(at, length) };
            work(&mut self.queue, &[], &mut [buffer])
        } else {
            // SAFETY: as above.
            let buffer = unsafe { core::slice::from_raw_parts(at, length) };
            work(&mut self.queue, &[buffer], &mut [])
        }
    }

    /// Gives the card one that it does not have.
    fn give(&mut self, index: usize, length: usize) -> Result<(), VirtioError> {
        // SAFETY: it is the queue's for good, and nobody reaches it until `take` has found it used.
        let added = self.with(index, length, |queue, inputs, outputs| unsafe { queue.add(inputs, outputs) });
        let token = added.map_err(|_| VirtioError::Queue)?;
        if let Some(place) = self.tokens.get_mut(index) {
            *place = Some(token);
        }
        Ok(())
    }

    /// Takes one back that the card has used: which, and how much it says that it has written.
    fn take(&mut self) -> Result<Option<(usize, usize)>, VirtioError> {
        let Some(token) = self.queue.peek_used() else { return Ok(None) };
        let index = self.tokens.iter().position(|own| *own == Some(token)).ok_or(VirtioError::WrongRequest)?;
        // SAFETY: the same that was added for this token; its length is not looked at.
        let taken =
            self.with(index, BUFFER, |queue, inputs, outputs| unsafe { queue.pop_used(token, inputs, outputs) });
        let written = taken.map_err(|_| VirtioError::WrongRequest)? as usize;
        if let Some(place) = self.tokens.get_mut(index) {
            *place = None;
        }
        Ok(Some((index, written)))
    }
}

/// What came of looking for a frame that has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// One of so many bytes.
    Frame(usize),
    /// Something that is none.
    Void,
    /// Nothing has come.
    None,
}

/// A card that is in use.
pub struct Card<M: Memory, T: Transport> {
    transport: T,
    incoming: Buffers<M>,
    outgoing: Buffers<M>,
    /// Bytes before each frame.
    header: usize,
    features: Features,
    /// Why it is not used any more.
    broken: Option<VirtioError>,
}

impl<M: Memory, T: Transport> fmt::Debug for Card<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card").field("features", &self.features).field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl<M: Memory, T: Transport> Card<M, T> {
    /// Begins with the card that is there: from now on frames come in. It raises no interrupt before [`Card::listen`].
    ///
    /// # Errors
    /// If it is of no use.
    pub fn new(mut transport: T) -> Result<Self, VirtioError> {
        let wanted = Features::NET_MAC | Features::NET_STATUS | Features::ANY_LAYOUT;
        let features = negotiate(&mut transport, wanted)?;
        let is_modern = features.contains(Features::VERSION_1);
        if !is_modern && !features.contains(Features::ANY_LAYOUT) {
            // It would want header and frame in buffers of their own (5.1.6.6).
            return Err(VirtioError::Features);
        }
        let header = if is_modern { HEADER } else { LEGACY_HEADER };
        let incoming = Buffers::new(&mut transport, RECEIVE)?;
        let outgoing = Buffers::new(&mut transport, TRANSMIT)?;
        let mut card = Self { transport, incoming, outgoing, header, features, broken: None };
        card.listen(false, false);
        for index in 0..FRAMES {
            card.incoming.give(index, BUFFER)?;
        }
        card.transport.finish_init();
        card.notify(RECEIVE);
        Ok(card)
    }

    /// Why it is not used any more, if that is so.
    #[must_use]
    pub const fn broken(&self) -> Option<VirtioError> {
        self.broken
    }

    /// Whether there is somebody at the other end of the wire. A card that does not know says yes (5.1.4.2).
    #[must_use]
    pub fn is_up(&self) -> bool {
        let status = || self.transport.read_config_space::<u16>(STATUS).is_ok_and(|status| status & LINK_UP != 0);
        self.broken.is_none() && (!self.features.contains(Features::NET_STATUS) || status())
    }

    /// Acknowledges its interrupt. Says whether it was one.
    pub fn acknowledge(&mut self) -> bool {
        self.transport.ack_interrupt() != InterruptStatus::empty()
    }

    /// Asks for interrupts when a frame has come in, and when one has left; or for none. Says whether there is no need to wait for one,
    /// as what it would tell of is there already.
    pub fn listen(&mut self, incoming: bool, outgoing: bool) -> bool {
        self.incoming.queue.set_dev_notify(incoming);
        self.outgoing.queue.set_dev_notify(outgoing);
        // What the card does before it has seen that, it has done before this looks (2.7.7.2).
        publish_and_look();
        let is_there = |is_wanted, buffers: &Buffers<M>| is_wanted && buffers.queue.can_pop();
        self.broken.is_some() || is_there(incoming, &self.incoming) || is_there(outgoing, &self.outgoing)
    }

    /// Copies the next frame that has come in to `into`. What is longer is cut off.
    pub fn receive(&mut self, into: &mut [u8]) -> Received {
        match self.take_frame(into) {
            Ok(received) => received,
            Err(error) => {
                self.give_up(error);
                Received::None
            }
        }
    }

    fn take_frame(&mut self, into: &mut [u8]) -> Result<Received, VirtioError> {
        if self.broken.is_some() {
            return Ok(Received::None);
        }
        let Some((index, written)) = self.incoming.take()? else { return Ok(Received::None) };
        if written > BUFFER {
            return Err(VirtioError::WrongRequest);
        }
        let length = written.saturating_sub(self.header).min(into.len());
        let from = self.incoming.at(index).wrapping_add(self.header);
        // SAFETY: within the buffer, which the card has given back. One that writes there all the same makes it another frame.
        unsafe { into.as_mut_ptr().copy_from_nonoverlapping(from, length) };
        self.incoming.give(index, BUFFER)?;
        Ok(if length < LEAST_FRAME { Received::Void } else { Received::Frame(length) })
    }

    /// Takes back what has left, and says whether there is room for a frame.
    pub fn has_room(&mut self) -> bool {
        // Each turn takes back one of those that the card has.
        while self.broken.is_none() {
            match self.outgoing.take() {
                Ok(Some(_)) => {}
                Ok(None) => return self.outgoing.tokens.contains(&None),
                Err(error) => {
                    self.give_up(error);
                }
            }
        }
        false
    }

    /// Gives the card a frame to send. Says whether there was room for it, and it has no more than [`MOST`] bytes.
    /// [`Card::notify_all`] has to follow.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let index = self.outgoing.tokens.iter().position(Option::is_none);
        let Some(index) = index.filter(|_| self.broken.is_none() && frame.len() <= MOST) else { return false };
        let at = self.outgoing.at(index);
        // SAFETY: a buffer that the card does not have; the header before the frame fits as well.
        unsafe { at.write_bytes(0, self.header) };
        // SAFETY: as above.
        unsafe { at.wrapping_add(self.header).copy_from_nonoverlapping(frame.as_ptr(), frame.len()) };
        match self.outgoing.give(index, self.header + frame.len()) {
            Ok(()) => true,
            Err(error) => {
                self.give_up(error);
                false
            }
        }
    }

    /// Tells the card of what is new in a queue, if it wants to hear of it (2.7.10).
    fn notify(&mut self, number: u16) {
        let queue = if number == RECEIVE { &self.incoming.queue } else { &self.outgoing.queue };
        publish_and_look();
        if queue.should_notify() {
            self.transport.notify(number);
        }
    }

    /// Tells the card of buffers that it has again to receive into, and of frames to send.
    pub fn notify_all(&mut self, incoming: bool, outgoing: bool) {
        for (queue, is_new) in [(RECEIVE, incoming), (TRANSMIT, outgoing)] {
            if is_new && self.broken.is_none() {
                self.notify(queue);
            }
        }
    }

    /// Never uses the card again.
    pub fn give_up(&mut self, why: VirtioError) {
        if self.broken.is_none() {
            self.broken = Some(why);
            self.transport.set_status(DeviceStatus::empty());
        }
    }
}
