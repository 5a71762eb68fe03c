//! The console as a VM's devices have it.
//!
//! Answers for: letting several devices of a VM, on several CPUs, print to one [`Stream`], and for which of them gets what
//! is typed. Does not answer for: the queues ([`super::stream`]). Only the VM's own threads come here: should one of them
//! die with a lock in its hand, nobody else waits for it.

use super::Stream;
use alloc::{boxed::Box, format, sync::Arc};
use arrayvec::ArrayVec;
use core::fmt;
use types::Lock;
use vdev::{BackendError, CharDevice, DeviceId, Direction, HostDevice, Taken};

/// Most devices of a VM that can have the console behind them: a `vdev pl011` that says nothing else is one of them.
const USERS: usize = 64;

/// A VM's console.
pub struct Terminal {
    stream: &'static Stream,
    /// Held while a device prints, and while one reads.
    output: Lock<()>,
    input: Lock<()>,
    /// The devices behind which this is; the first that reads is the one that gets the input.
    users: Lock<ArrayVec<(DeviceId, Direction), USERS>>,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}

impl Terminal {
    /// Without devices.
    #[must_use]
    pub fn new(stream: &'static Stream) -> Arc<Self> {
        let users = Lock::new(ArrayVec::new_const());
        Arc::new(Self { stream, output: Lock::new(()), input: Lock::new(()), users })
    }

    /// Puts the console behind a device that names it in `hostdev`. Only one device can get what is typed: the first that
    /// asked for input. Others that left the direction open are output only.
    ///
    /// # Errors
    /// If a second device asks for input by `<`, or there are 64 devices already.
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
        if users.try_push((id, direction)).is_err() {
            return Err(BackendError(format!("{USERS} devices of this VM have the console already")));
        }
        Ok(Box::new(End { terminal: self.clone(), direction }))
    }

    /// The device to wake when something has been typed.
    #[must_use]
    pub fn reader(&self) -> Option<DeviceId> {
        self.users.lock().iter().find(|(_, direction)| direction.reads()).map(|(id, _)| *id)
    }

    /// The devices to wake when there is space again.
    #[must_use]
    pub fn writers(&self) -> ArrayVec<DeviceId, USERS> {
        self.users.lock().iter().filter(|(_, direction)| direction.writes()).map(|(id, _)| *id).collect()
    }
}

/// The terminal as a device has it.
struct End {
    terminal: Arc<Terminal>,
    direction: Direction,
}

impl CharDevice for End {
    /// Without the lock: who asks learns what was true a moment ago, with it or without.
    fn space(&self) -> usize {
        self.terminal.stream.space()
    }

    #[inline]
    fn write(&mut self, byte: u8) -> Taken {
        let _held = self.terminal.output.lock();
        self.terminal.stream.write(byte)
    }

    fn append(&mut self, bytes: &[u8]) -> (usize, Taken) {
        let _held = self.terminal.output.lock();
        self.terminal.stream.append(bytes)
    }

    fn read(&mut self) -> Option<u8> {
        if !self.direction.reads() {
            return None;
        }
        let _held = self.terminal.input.lock();
        self.terminal.stream.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Bell;

    fn terminal() -> (&'static Stream, Arc<Terminal>) {
        let stream = Stream::leaked(Arc::new(Bell::default()));
        (stream, Terminal::new(stream))
    }

    fn towards(direction: Direction) -> HostDevice {
        HostDevice { direction, ..HostDevice::console() }
    }

    #[test]
    fn what_is_typed_goes_to_the_first_reader() {
        let (stream, terminal) = terminal();
        let mut output = terminal.open(DeviceId(0), &towards(Direction::Output)).unwrap();
        let mut first = terminal.open(DeviceId(1), &HostDevice::console()).unwrap();
        let mut second = terminal.open(DeviceId(2), &HostDevice::console()).unwrap();
        stream.type_in(b'x');
        assert_eq!((output.read(), second.read(), first.read()), (None, None, Some(b'x')));
        assert_eq!(terminal.reader(), Some(DeviceId(1)));
        assert_eq!(terminal.writers()[..], [DeviceId(0), DeviceId(1), DeviceId(2)]);
        let error = terminal.open(DeviceId(3), &towards(Direction::Input)).err().unwrap();
        assert_eq!(error.0, "`<-`: another device of this VM has the console's input already");
    }

    #[test]
    fn there_is_room_for_64_devices_and_no_more() {
        let (_, terminal) = terminal();
        for id in 0..64 {
            assert!(terminal.open(DeviceId(id), &HostDevice::console()).is_ok());
        }
        let error = terminal.open(DeviceId(64), &HostDevice::console()).err().unwrap();
        assert_eq!(error.0, "64 devices of this VM have the console already");
        assert_eq!(terminal.writers().len(), USERS);
    }

    #[test]
    fn a_thread_that_dies_with_the_locks_in_its_hands_is_nobody_elses_problem() {
        let (stream, terminal) = terminal();
        let mut end = terminal.open(DeviceId(0), &HostDevice::console()).unwrap();
        assert!(end.write(b'a').is_taken());
        core::mem::forget((terminal.output.lock(), terminal.input.lock(), terminal.users.lock()));
        let mut some = [0; 4];
        assert_eq!((stream.take_output(&mut some, stream.end()), some[0]), ((1, false), b'a'));
        stream.type_in(b'x');
        // The VM comes again, on the same stream.
        stream.hand_over();
        let again = Terminal::new(stream);
        let mut end = again.open(DeviceId(0), &HostDevice::console()).unwrap();
        assert_eq!((end.read(), end.write(b'b').is_taken()), (None, true));
    }
}
