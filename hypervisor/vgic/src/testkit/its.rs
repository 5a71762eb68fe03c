//! A guest's driver of the ITS, for tests on a PC.
//!
//! Answers for: tables in the guest's memory, and commands as a driver writes them. Does not answer for: what comes of them.
//!
//! Follows IHI 0069, "ITS commands". Written from the specification, apart from the code that it tests: it shares no constants
//! with it.

use crate::{Progress, Refused, Vgic};
use types::{AccessSize, Ipa, VcpuSet};
use vdev::GuestMemory;
use vdev::testkit::Ram;

/// Where the guest has its memory for tables, and how much.
pub const MEMORY: Ipa = Ipa(0x4000_0000);
const SIZE: usize = 0x40_0000;
/// Where the ITS is.
pub const ITS: Ipa = Ipa(0x808_0000);
/// Where devices send their messages.
pub const TRANSLATER: Ipa = Ipa(ITS.0 + 0x1_0040);

/// The configuration of all LPIs, a byte each.
pub const PROPERTIES: u64 = MEMORY.0;
/// The queue of commands, and its size.
pub const QUEUE: u64 = MEMORY.0 + 0x1_0000;
const QUEUE_SIZE: u64 = 0x1_0000;
/// The tables of devices, of collections, and of every device's events.
pub const DEVICES: u64 = MEMORY.0 + 0x2_0000;
/// See [`DEVICES`].
pub const COLLECTIONS: u64 = MEMORY.0 + 0x3_0000;
/// See [`DEVICES`].
pub const EVENTS: u64 = MEMORY.0 + 0x8_0000;
/// The table of pending LPIs of vCPU 0; those of others are 64 KiB further on each.
pub const PENDING: u64 = MEMORY.0 + 0x10_0000;

/// The offset of a vCPU's RD_base frame.
#[must_use]
pub const fn rd_base(vcpu: usize) -> u64 {
    vcpu as u64 * Vgic::REDISTRIBUTOR_SIZE
}

/// Commands.
pub mod command {
    /// Four doublewords.
    pub type Command = [u64; 4];

    /// `MAPD`: `bits` of EventID; `None` unmaps.
    #[must_use]
    pub const fn mapd(device: u64, bits: Option<u64>) -> Command {
        match bits {
            Some(bits) => [0x08 | device << 32, bits - 1, 1 << 63 | super::EVENTS, 0],
            None => [0x08 | device << 32, 0, 0, 0],
        }
    }

    /// `MAPC`: to a redistributor; `None` unmaps.
    #[must_use]
    pub const fn mapc(collection: u64, redistributor: Option<u64>) -> Command {
        match redistributor {
            Some(redistributor) => [0x09, 0, 1 << 63 | redistributor << 16 | collection, 0],
            None => [0x09, 0, collection, 0],
        }
    }

    /// `MAPTI`.
    #[must_use]
    pub const fn mapti(device: u64, event: u64, lpi: u64, collection: u64) -> Command {
        [0x0a | device << 32, event | lpi << 32, collection, 0]
    }

    /// `MAPI`.
    #[must_use]
    pub const fn mapi(device: u64, event: u64, collection: u64) -> Command {
        [0x0b | device << 32, event, collection, 0]
    }

    /// `MOVI`.
    #[must_use]
    pub const fn movi(device: u64, event: u64, collection: u64) -> Command {
        [0x01 | device << 32, event, collection, 0]
    }

    /// `INT`.
    #[must_use]
    pub const fn int(device: u64, event: u64) -> Command {
        [0x03 | device << 32, event, 0, 0]
    }

    /// `CLEAR`.
    #[must_use]
    pub const fn clear(device: u64, event: u64) -> Command {
        [0x04 | device << 32, event, 0, 0]
    }

    /// `SYNC`.
    #[must_use]
    pub const fn sync(redistributor: u64) -> Command {
        [0x05, 0, redistributor << 16, 0]
    }

    /// `INV`.
    #[must_use]
    pub const fn inv(device: u64, event: u64) -> Command {
        [0x0c | device << 32, event, 0, 0]
    }

    /// `INVALL`.
    #[must_use]
    pub const fn invall(collection: u64) -> Command {
        [0x0d, 0, collection, 0]
    }

    /// `MOVALL`.
    #[must_use]
    pub const fn movall(from: u64, to: u64) -> Command {
        [0x0e, 0, from << 16, to << 16]
    }

    /// `DISCARD`.
    #[must_use]
    pub const fn discard(device: u64, event: u64) -> Command {
        [0x0f | device << 32, event, 0, 0]
    }
}

use command::Command;

/// What has come of all that an access called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// See [`Progress::kick`].
    pub kick: VcpuSet,
    /// See [`Progress::refused`].
    pub refused: Option<Refused>,
}

/// A driver, and the guest's memory.
#[derive(Debug)]
pub struct Driver {
    /// The guest's memory.
    pub memory: Ram,
    write: u64,
}

impl Default for Driver {
    fn default() -> Self {
        Self { memory: Ram::new(MEMORY, SIZE), write: 0 }
    }
}

impl Driver {
    /// A driver that has set up everything, for `vcpus` vCPUs: collection `n` is that of vCPU `n`.
    #[must_use]
    pub fn new(vgic: &Vgic, vcpus: usize) -> Self {
        let mut driver = Self::default();
        for vcpu in 0..vcpus {
            driver.write_redistributor(vgic, vcpu, 0x70, AccessSize::Doubleword, PROPERTIES | 13);
            let pending = PENDING + vcpu as u64 * 0x1_0000;
            driver.write_redistributor(vgic, vcpu, 0x78, AccessSize::Doubleword, pending | 1 << 62);
            driver.write_redistributor(vgic, vcpu, 0, AccessSize::Word, 1);
        }
        driver.write_base(vgic, 0, 1 << 63 | 1 << 62 | DEVICES);
        driver.write_base(vgic, 1, 1 << 63 | COLLECTIONS);
        driver.write(vgic, 0x80, 1 << 63 | QUEUE | (QUEUE_SIZE / 4096 - 1));
        driver.write_word(vgic, 0, 1);
        (0..vcpus as u64).for_each(|vcpu| _ = driver.send(vgic, &[command::mapc(vcpu, Some(vcpu))]));
        driver
    }

    /// Does all that an access calls for.
    pub fn finish(&self, vgic: &Vgic, first: Progress) -> Done {
        let (mut progress, mut all) = (first, Done { kick: VcpuSet::EMPTY, refused: None });
        for piece in 0.. {
            assert!(piece < 100_000, "the work does not end");
            all = Done { kick: all.kick.union(progress.kick), refused: all.refused.or(progress.refused) };
            if !progress.more {
                break;
            }
            progress = vgic.go_on(&self.memory);
        }
        all
    }

    /// Writes a doubleword register of the ITS.
    pub fn write(&self, vgic: &Vgic, offset: u64, value: u64) -> Done {
        self.finish(vgic, vgic.write_its(offset, AccessSize::Doubleword, value, &self.memory))
    }

    /// Writes a word register of the ITS.
    pub fn write_word(&self, vgic: &Vgic, offset: u64, value: u64) -> Done {
        self.finish(vgic, vgic.write_its(offset, AccessSize::Word, value, &self.memory))
    }

    /// Writes `GITS_BASER<n>`.
    pub fn write_base(&self, vgic: &Vgic, number: u64, value: u64) {
        let _ = self.write(vgic, 0x100 + 8 * number, value);
    }

    /// Writes a redistributor's register for LPIs. Says what has come of it, if it is one.
    pub fn write_redistributor(
        &self,
        vgic: &Vgic,
        vcpu: usize,
        offset: u64,
        size: AccessSize,
        value: u64,
    ) -> Option<Done> {
        let progress = vgic.write_lpi_register(rd_base(vcpu) + offset, size, value, &self.memory)?;
        Some(self.finish(vgic, progress))
    }

    /// Puts commands into the queue, without telling the ITS. Returns what `GITS_CWRITER` is to be.
    pub fn queue(&mut self, commands: &[Command]) -> u64 {
        for command in commands {
            let bytes = command.map(u64::to_le_bytes).concat();
            self.memory.write(Ipa(QUEUE + self.write), &bytes).unwrap();
            self.write = (self.write + 32) % QUEUE_SIZE;
        }
        self.write
    }

    /// Sends commands, and waits until they are done.
    pub fn send(&mut self, vgic: &Vgic, commands: &[Command]) -> Done {
        let write = self.queue(commands);
        let progress = self.write(vgic, 0x88, write);
        assert_eq!(vgic.read_its(0x90, AccessSize::Doubleword), write, "all commands are done");
        progress
    }

    /// Configures an LPI, without telling anybody: bits 7 to 2 are its priority, bit 0 enables it.
    pub fn configure(&self, lpi: u64, byte: u8) {
        self.memory.write(Ipa(PROPERTIES + lpi - 8192), &[byte]).unwrap();
    }
}
