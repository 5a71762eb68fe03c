//! The host of a VM that has devices of the machine.
//!
//! Answers for: orders and events in the formats of the architecture, which is what [`vdev::HostStreams`] speaks. Does not answer for: what
//! becomes of them.

use crate::host::{Host, Invalidation, Target};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::fmt;
use smmu::{Command, Event, StreamTableEntry};
use vdev::{HostStreams, STREAM_COMMANDS, StreamCommand, StreamEntry};

/// A VM's streams of the machine.
pub struct Behind {
    streams: Arc<dyn HostStreams>,
    /// What is to be forgotten at the next [`Host::synchronize`].
    due: ArrayVec<StreamCommand, STREAM_COMMANDS>,
}

impl fmt::Debug for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind").field("streams", &self.streams.streams()).finish_non_exhaustive()
    }
}

impl Behind {
    /// These.
    #[must_use]
    pub const fn new(streams: Arc<dyn HostStreams>) -> Self {
        Self { streams, due: ArrayVec::new_const() }
    }

    fn forget(&mut self, command: &Command) {
        if self.due.is_full() {
            self.synchronize();
        }
        // There is room now.
        _ = self.due.try_push(command.encode());
    }
}

/// An entry that says this of a stream.
fn entry(target: &Target) -> StreamEntry {
    let entry = match target {
        Target::Muted => StreamTableEntry::muted(),
        Target::Refused => StreamTableEntry::REFUSED,
        Target::Stage2 => StreamTableEntry::for_guest(None),
        Target::Nested(stage1) => StreamTableEntry::for_guest(Some(stage1)),
    };
    let [word0, word1, ..] = entry.0;
    [word0, word1]
}

impl Host for Behind {
    fn set(&mut self, stream: u32, target: &Target) {
        self.streams.set(stream, entry(target));
    }

    fn forget_contexts(&mut self, stream: u32) {
        self.forget(&Command::CfgiCdAll { stream });
    }

    fn invalidate(&mut self, what: &Invalidation) {
        // The host's own, whatever is said here.
        let vmid = 0;
        self.forget(&match *what {
            Invalidation::All => Command::TlbiNhAll { vmid },
            Invalidation::Asid(asid) => Command::TlbiNhAsid { vmid, asid },
            Invalidation::Address { asid: Some(asid), reach } => Command::TlbiNhVa { vmid, asid, reach },
            Invalidation::Address { asid: None, reach } => Command::TlbiNhVaa { vmid, reach },
        });
    }

    fn synchronize(&mut self) {
        if !self.due.is_empty() {
            self.streams.forget(&self.due);
            self.due.clear();
        }
    }

    fn event(&mut self) -> Option<Event> {
        self.streams.event().map(Event::decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smmu::{Reach, Stage1};
    use std::sync::Mutex;
    use std::vec::Vec;
    use types::Ipa;

    /// What the host was asked for.
    #[derive(Default)]
    struct Log {
        set: Mutex<Vec<(u32, StreamEntry)>>,
        forgotten: Mutex<Vec<Vec<StreamCommand>>>,
    }

    impl HostStreams for Log {
        fn streams(&self) -> &[u32] {
            &[3]
        }
        fn has_asid16(&self) -> bool {
            true
        }
        fn set(&self, stream: u32, entry: StreamEntry) {
            self.set.lock().unwrap().push((stream, entry));
        }
        fn forget(&self, commands: &[StreamCommand]) {
            self.forgotten.lock().unwrap().push(commands.to_vec());
        }
        fn event(&self) -> Option<[u64; 4]> {
            None
        }
    }

    #[test]
    fn each_target_has_an_entry_that_says_so() {
        let stage1 = Stage1 { context: Ipa(0x4000), format: 0, cd_max: 0, default_substream: 0, attributes: 0x15 };
        let features = crate::Shape { stream_bits: 16, address_bits: 40, asid16: true }.features();
        let read = |target| {
            let [word0, word1] = entry(&target);
            let entry = StreamTableEntry([word0, word1, 0, 0, 0, 0, 0, 0]);
            (entry.of_guest(40, &features).ok(), entry.is_muted())
        };
        assert_eq!(read(Target::Nested(stage1)), (Some(Some(stage1)), false));
        assert_eq!(read(Target::Stage2), (Some(None), false));
        assert_eq!(read(Target::Muted), (None, true));
        assert_eq!(read(Target::Refused), (None, false));
    }

    #[test]
    fn what_is_to_be_forgotten_goes_together() {
        let log = Arc::new(Log::default());
        let mut host = Behind::new(log.clone());
        host.synchronize();
        assert!(log.forgotten.lock().unwrap().is_empty(), "nothing to forget");
        let reach = Reach { address: 0x7000, leaf: false, range: None };
        host.set(3, &Target::Muted);
        host.forget_contexts(3);
        host.invalidate(&Invalidation::All);
        host.invalidate(&Invalidation::Asid(5));
        host.invalidate(&Invalidation::Address { asid: Some(5), reach });
        host.invalidate(&Invalidation::Address { asid: None, reach });
        assert!(log.forgotten.lock().unwrap().is_empty());
        host.synchronize();
        let commands = [
            Command::CfgiCdAll { stream: 3 },
            Command::TlbiNhAll { vmid: 0 },
            Command::TlbiNhAsid { vmid: 0, asid: 5 },
            Command::TlbiNhVa { vmid: 0, asid: 5, reach },
            Command::TlbiNhVaa { vmid: 0, reach },
        ];
        assert_eq!(*log.forgotten.lock().unwrap(), [commands.map(|command| command.encode()).to_vec()]);
        for _ in 0..=STREAM_COMMANDS {
            host.forget_contexts(3);
        }
        host.synchronize();
        let lengths: Vec<usize> = log.forgotten.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(lengths, [5, STREAM_COMMANDS, 1]);
        assert_eq!(log.set.lock().unwrap().len(), 1);
    }
}
