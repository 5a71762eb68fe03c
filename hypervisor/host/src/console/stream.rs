//! A VM's end of the console.
//!
//! Answers for: the two queues between a VM's serial devices and the console's host thread, and for saying when that
//! thread has something to do ([`Bell`]). Does not answer for: what happens to the bytes ([`super::Multiplexer`]).
//!
//! Several devices of a VM may have the console behind them, written from different CPUs: a queue is behind a lock, held
//! for a few instructions.

use super::ring::Ring;
use alloc::{boxed::Box, format, sync::Arc, vec::Vec};
use core::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};
use types::Lock;
use vdev::{BackendError, CharDevice, DeviceId, Direction, HostDevice};

/// Bytes of output that wait for the console.
const OUTPUT: usize = 4096;
/// Bytes of input that wait for the guest: more than a line, so that a pasted one arrives whole.
const INPUT: usize = 1024;

/// When the console's thread should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Urgency {
    /// Within a millisecond or so: a byte was written. More are likely to follow, and cost less together.
    Soon = 1,
    /// At once: a queue is half full.
    Now = 2,
}

/// How streams call the console's thread: rung when a queue becomes non-empty and when it becomes half full, not for every
/// byte.
#[derive(Debug, Default)]
pub struct Bell {
    /// 0, or an [`Urgency`].
    rung: AtomicU8,
    /// What was last told to whoever asked.
    told: AtomicU8,
}

impl Bell {
    /// Asks for the thread.
    pub fn ring(&self, urgency: Urgency) {
        self.rung.fetch_max(urgency as u8, Ordering::Release);
    }

    /// What has to be done after an exit that produced output ([`vdev::Effects::output`]), if it has not been said before.
    #[inline]
    pub fn answer(&self) -> Option<Urgency> {
        let rung = self.rung.load(Ordering::Acquire);
        if rung == self.told.load(Ordering::Relaxed) {
            return None;
        }
        match (self.told.fetch_max(rung, Ordering::Relaxed), rung) {
            (told, rung) if told >= rung => None,
            (_, rung) if rung == Urgency::Now as u8 => Some(Urgency::Now),
            _ => Some(Urgency::Soon),
        }
    }

    /// The thread is about to look.
    pub(super) fn quiet(&self) {
        self.told.store(0, Ordering::Relaxed);
        self.rung.store(0, Ordering::Release);
    }
}

/// What output waits, and whether somebody could not be served.
struct Output {
    ring: Ring<OUTPUT>,
    /// A byte was refused since the queue was last drained.
    starved: bool,
}

/// A VM's end of the console.
pub struct Stream {
    output: Lock<Output>,
    input: Lock<Ring<INPUT>>,
    /// The devices behind which this is; the first that reads is the one that gets the input.
    users: Lock<Vec<(DeviceId, Direction)>>,
    bell: Arc<Bell>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    /// With empty queues.
    #[must_use]
    pub fn new(bell: Arc<Bell>) -> Arc<Self> {
        let output = Lock::new(Output { ring: Ring::new(), starved: false });
        Arc::new(Self { output, input: Lock::new(Ring::new()), users: Lock::new(Vec::new()), bell })
    }

    /// Puts the stream behind a device that names it in `hostdev`. Only one device can get what is typed: the first that
    /// asked for input. Others that left the direction open are output only.
    ///
    /// # Errors
    /// If a second device asks for input by `<`.
    pub fn open(self: &Arc<Self>, id: DeviceId, device: &HostDevice) -> Result<Box<dyn CharDevice>, BackendError> {
        let mut users = self.users.lock();
        let taken = users.iter().any(|(_, direction)| direction.reads());
        let direction = match device.direction {
            Direction::Both if taken => Direction::Output,
            Direction::Input if taken => {
                let message = format!("`{device}`: another device of this VM has the console's input already");
                return Err(BackendError(message));
            }
            direction => direction,
        };
        users.push((id, direction));
        Ok(Box::new(End { stream: self.clone(), direction }))
    }

    /// The device to wake when something has been typed.
    #[must_use]
    pub fn reader(&self) -> Option<DeviceId> {
        self.users.lock().iter().find(|(_, direction)| direction.reads()).map(|(id, _)| *id)
    }

    /// The devices to wake when there is space again.
    #[must_use]
    pub fn writers(&self) -> Vec<DeviceId> {
        self.users.lock().iter().filter(|(_, direction)| direction.writes()).map(|(id, _)| *id).collect()
    }

    /// Something is typed. `false` if the guest has left so much unread that it is dropped.
    pub fn type_in(&self, byte: u8) -> bool {
        self.input.lock().push(byte)
    }

    /// Whether output waits.
    pub(super) fn has_output(&self) -> bool {
        self.output.lock().ring.len() != 0
    }

    /// Takes output that waits. The second value is `true` when a device that was refused may go on.
    pub(super) fn take_output(&self, into: &mut [u8]) -> (usize, bool) {
        let mut output = self.output.lock();
        let count = output.ring.take(into);
        // Half a queue at a time: a wake for every byte of space would cost more than the byte.
        let relieved = output.starved && output.ring.len() <= OUTPUT / 2;
        if relieved {
            output.starved = false;
        }
        (count, relieved)
    }
}

/// The stream as a device has it.
struct End {
    stream: Arc<Stream>,
    direction: Direction,
}

impl CharDevice for End {
    fn space(&self) -> usize {
        let mut output = self.stream.output.lock();
        let space = output.ring.space();
        if space == 0 {
            output.starved = true;
        }
        space
    }

    #[inline]
    fn write(&mut self, byte: u8) -> bool {
        let mut output = self.stream.output.lock();
        if !output.ring.push(byte) {
            output.starved = true;
            return false;
        }
        match output.ring.len() {
            1 => self.stream.bell.ring(Urgency::Soon),
            length if length == OUTPUT / 2 => self.stream.bell.ring(Urgency::Now),
            _ => {}
        }
        true
    }

    fn read(&mut self) -> Option<u8> {
        if self.direction.reads() { self.stream.input.lock().pop() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::HostDevice;

    fn stream() -> (Arc<Stream>, Arc<Bell>) {
        let bell = Arc::new(Bell::default());
        (Stream::new(bell.clone()), bell)
    }

    fn towards(direction: Direction) -> HostDevice {
        HostDevice { direction, ..HostDevice::console() }
    }

    #[test]
    fn the_bell_is_rung_for_the_first_byte_and_at_half_full_and_no_more() {
        let (stream, bell) = stream();
        let mut end = stream.open(DeviceId(0), &HostDevice::console()).unwrap();
        let mut answers = Vec::new();
        for n in 1..=OUTPUT {
            assert!(end.write(0));
            if let Some(urgency) = bell.answer() {
                answers.push((n, urgency));
            }
        }
        assert_eq!(answers, [(1, Urgency::Soon), (OUTPUT / 2, Urgency::Now)]);
        bell.quiet();
        assert_eq!(bell.answer(), None);
        while stream.take_output(&mut [0; 64]).0 > 0 {}
        assert!(end.write(0));
        assert_eq!(bell.answer(), Some(Urgency::Soon));
    }

    #[test]
    fn who_was_refused_hears_of_space_once_when_the_queue_is_half_empty() {
        let (stream, _) = stream();
        let mut end = stream.open(DeviceId(3), &HostDevice::console()).unwrap();
        while end.write(0) {}
        assert_eq!(end.space(), 0);
        let mut relieved = Vec::new();
        for n in 0..OUTPUT / 64 {
            if stream.take_output(&mut [0; 64]).1 {
                relieved.push(n);
            }
        }
        assert_eq!(relieved, [OUTPUT / 64 / 2 - 1]);
        assert_eq!(stream.writers(), [DeviceId(3)]);
    }

    #[test]
    fn what_is_typed_goes_to_the_first_reader() {
        let (stream, _) = stream();
        let mut output = stream.open(DeviceId(0), &towards(Direction::Output)).unwrap();
        let mut first = stream.open(DeviceId(1), &HostDevice::console()).unwrap();
        let mut second = stream.open(DeviceId(2), &HostDevice::console()).unwrap();
        assert!(stream.type_in(b'x'));
        assert_eq!((output.read(), second.read(), first.read()), (None, None, Some(b'x')));
        assert_eq!(stream.reader(), Some(DeviceId(1)));
        let error = stream.open(DeviceId(3), &towards(Direction::Input)).err().unwrap();
        assert_eq!(error.0, "`<-`: another device of this VM has the console's input already");
    }

    #[test]
    fn a_guest_that_does_not_read_makes_typing_vanish_not_wait() {
        let (stream, _) = stream();
        let taken = (0..2 * INPUT).filter(|_| stream.type_in(0)).count();
        assert_eq!(taken, INPUT);
    }
}
