//! The back end of every device of a VM that never runs.
//!
//! Answers for: being there, whatever it is asked for. Does not answer for: whether there would be one (`devices`).

use host::disk::PageStore;
use host::switch::Door;
use types::{AccessSize, Ipa, Range, Ticks};

/// A back end that swallows what is written, and shares nothing.
pub(super) struct Silence;

impl vdev::SharedMemory for Silence {
    fn attach(&mut self, _: vdev::RegionName, _: u32) -> bool {
        false
    }

    fn answer(&mut self) -> Option<Result<vdev::Attached, vdev::RegionError>> {
        None
    }

    fn detach(&mut self, _: u8) {}

    fn notify(&mut self, _: u8, _: u16) {}

    fn look(&mut self, _: u8) -> u32 {
        0
    }

    fn has_news(&self) -> bool {
        false
    }

    fn region(&self, _: u32) -> Option<(vdev::RegionName, u32)> {
        None
    }
}

impl vdev::HostFunction for Silence {
    fn configuration(&self, _: u16, _: AccessSize, _: Option<u32>) -> u32 {
        0
    }

    fn registers(&self, _: u8, _: u64, _: AccessSize, _: Option<u64>) -> Result<u64, vdev::AccessFault> {
        Err(vdev::AccessFault::Nothing)
    }

    fn map(&self, _: Ipa, _: vdev::FunctionPart, _: bool) -> bool {
        false
    }

    fn message(&self, _: u16, _: vdev::GuestMessage) -> Option<(u64, u32)> {
        None
    }

    fn signal(&self, _: vdev::FunctionSignal) {}
}

impl vdev::Registers for Silence {
    fn read(&self, _: u64, _: AccessSize) -> Result<u64, vdev::AccessFault> {
        Err(vdev::AccessFault::Nothing)
    }

    fn write(&self, _: u64, _: AccessSize, _: u64) -> Result<(), vdev::AccessFault> {
        Err(vdev::AccessFault::Nothing)
    }
}

impl Door for Silence {
    fn ring(&self) {}

    fn link_changed(&self) {}
}

impl vdev::NetPort for Silence {
    fn is_up(&self) -> bool {
        false
    }

    fn open(&self, _: vdev::Offloads) {}

    fn set_filter(&self, _: &vdev::NetFilter) {}

    fn send(&self, _: Ticks, _: vdev::Unfinished, _: usize, _: &mut vdev::FillFrame<'_>) -> vdev::Sent {
        vdev::Sent::Gone
    }

    fn receive(&self, _: &mut vdev::TakeFrame<'_>) -> vdev::Received {
        vdev::Received::None
    }
}

impl host::vsock::Door for Silence {
    fn ring(&self) {}

    fn said(&self, _: &str) {}
}

impl vdev::VsockPort for Silence {
    fn open(&self) {}

    fn signal(&self, _: vdev::VsockSignal) -> bool {
        false
    }

    fn attend(&self) {}

    fn send(&self, _: &vdev::VsockPacket, _: &mut vdev::FillFrame<'_>) -> bool {
        true
    }

    fn receive(&self, _: &mut [u8]) -> Option<vdev::VsockPacket> {
        None
    }
}

impl vdev::Balloon for Silence {
    fn holding(&self) -> vdev::Holding {
        vdev::Holding::default()
    }

    fn give_back(&self, _: Range<Ipa>) -> u64 {
        0
    }
}

impl PageStore for Silence {
    fn add(&mut self) -> Option<u32> {
        None
    }

    fn pages(&mut self, _: u32) -> Option<&mut [u8]> {
        None
    }

    fn free(&mut self, _: u32) {}
}

impl vdev::CharDevice for Silence {
    fn space(&self) -> usize {
        usize::MAX
    }

    fn write(&mut self, _: u8) -> vdev::Taken {
        vdev::Taken::Yes
    }

    fn append(&mut self, bytes: &[u8]) -> (usize, vdev::Taken) {
        (bytes.len(), vdev::Taken::Yes)
    }

    fn read(&mut self) -> Option<u8> {
        None
    }
}
