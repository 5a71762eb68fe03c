//! Failures, and messages of the machine's ITS, on command, for images that test what becomes of them. No product image calls this.

use crate::messages::{GuestMessage, MOST, Vectors, Way};
use crate::sync::{Lock, Rank};
use crate::thread;
use alloc::string::String;
use core::fmt;
use machine::MessageTarget;
use types::{Ipa, RequesterId};

/// An EL2 data abort: reads where nothing is mapped.
pub fn data_abort() {
    // The last page of the lower half: no machine has RAM or devices there, and no stack or heap is above.
    let nowhere = core::hint::black_box((1_u64 << 47) - 8) as *const u64;
    // SAFETY: it is not mapped, so nothing is read: the exception is what is wanted.
    core::hint::black_box(unsafe { nowhere.read_volatile() });
}

/// A failure of the hypervisor itself: a panic with a lock of the kernel held.
pub fn failure() {
    static HELD: Lock<()> = Lock::new(Rank::Frames, ());
    let _held = HELD.lock();
    panic!("the hypervisor was told to fail");
}

/// The first of the DeviceIDs of functions that no machine of the tests has: one for each VM.
const DEVICES: u32 = 0xff00;

/// A passed function that is not there: the machine's first ITS raises its events on command.
pub struct Sender(Vectors);

impl Sender {
    /// One of the VM whose thread this is, with as many vectors as there can be. To be dropped before the VM's end.
    ///
    /// # Errors
    /// Why there are no messages.
    pub fn new() -> Result<Self, String> {
        let compartment = thread::current().compartment().ok_or("this is no thread of a VM")?;
        let device = DEVICES + u32::from(compartment.id.0);
        Vectors::open(MessageTarget { its: 0, device }, MOST, compartment).map(Self)
    }

    /// Has vector `n` stand for this message from now on, and raises it.
    pub fn send(&self, n: usize, requester: RequesterId, address: Ipa, data: u32) {
        self.0.route(n, Some(Way::Message(GuestMessage { requester: Some(requester), address, data })));
        self.0.raise(n);
    }

    /// Raises all that stand for a message.
    pub fn flood(&self) {
        (0..self.0.count()).for_each(|n| _ = self.0.raise(n));
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a sender of {:?}", self.0.message(0))
    }
}
