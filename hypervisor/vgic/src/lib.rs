//! The Generic Interrupt Controller as guests see it.
//!
//! Answers for: a GICv3 with affinity routing, one security state and message-based SPIs: distributor, redistributors, software
//! generated interrupts, LPIs and the ITS that translates messages to them; a GICv2 for up to eight vCPUs; and the list registers of the virtual CPU
//! interface, through which interrupts reach a guest.
//! Does not answer for: the host's own GIC (`drivers`), where the register windows are in a guest's address space (`vm`), or
//! bringing a running vCPU to its next exit (`kernel`): calls return whom to kick.
//!
//! Follows the Arm Generic Interrupt Controller Architecture Specification, GICv3 and GICv4 (IHI 0069), and version 2.0
//! (IHI 0048). What both have is called as the former does.
//!
//! # How an interrupt travels
//!
//! Something makes it pending: [`Vgic::send_sgi`], a device's line ([`vdev::InterruptController`]),
//! [`Vgic::inject_hardware`], a register write. Its state changes under a lock (one for all SPIs, one per vCPU for the
//! private ones), the target's flag goes up, and the target is in the set that the call returns. The kernel kicks it.
//! Before each entry it asks [`Vgic::needs_refill`], one load, and if so calls [`Vgic::refill`], which alone writes list
//! registers. Nothing is done about an interrupt that the guest has finished with until then.
//!
//! # How exact it is
//!
//! Everything in memory is exact at once. What is in the list registers of a loaded vCPU is known to that CPU alone:
//!
//! - Changes of such an interrupt (disabled, made inactive, its line went low, ...) count from the holder's next refill,
//!   for which it is kicked. For the vCPU that makes the change that is before its next instruction.
//! - Reads of `ISPENDR` and `ISACTIVER` through [`Vgic::observe_distributor`] and [`Vgic::observe_redistributor`] are exact for
//!   the reader's own interrupts. For those in another running vCPU's list registers they are as of its last
//!   synchronisation, and the read asks for the next (the holder is kicked), so a guest that polls sees the truth within a
//!   kick. As long as such an interrupt has been changed and its holder has not looked yet, it reads as active: a guest that
//!   disables an interrupt and then waits for it to be inactive does not go on too early.
//!
//! # Locks
//!
//! A vCPU's or the ITS's, then the one for SPIs and LPIs; never two vCPUs'. None is held across a call out, except to the list registers.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

extern crate alloc;

mod bank;
mod best;
mod ends;
mod input;
mod interface;
mod its;
mod messages;
mod private;
mod registers;
mod senders;
mod shared;
mod signals;
#[cfg(any(test, feature = "testkit"))]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::precedence,
    clippy::unwrap_used
)] // Tests speak to it, never a guest.
pub mod testkit;
mod v2;
mod v3;
mod wake;
mod word;

pub use ends::Ended;
pub use interface::Saved;
pub use its::{ItsStatus, Progress, Refused};
pub use messages::MessageFrame;
pub use registers::ListRegisters;
pub use v3::sgi::SgiRegister;

use alloc::{boxed::Box, vec::Vec};
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use ends::Flag;
use its::Unit;
use messages::Doorbell;
use private::Private;
use shared::Shared;
use signals::{Cell, Signals};
use types::{Ipa, Lock, MAX_VCPUS, VcpuId, VcpuSet};

/// The architecture of an interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// GICv2: a CPU interface in memory, which the host's hardware has for guests.
    V2,
    /// GICv3: redistributors, a CPU interface in system registers.
    V3,
}

impl Version {
    /// Most vCPUs.
    #[must_use]
    pub const fn vcpus(self) -> usize {
        match self {
            Self::V2 => v2::VCPUS,
            Self::V3 => MAX_VCPUS,
        }
    }

    /// Size of the distributor's window in bytes.
    #[must_use]
    pub const fn distributor_size(self) -> u64 {
        match self {
            Self::V2 => v2::DISTRIBUTOR_SIZE,
            Self::V3 => Vgic::DISTRIBUTOR_SIZE,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "GICv2",
            Self::V3 => "GICv3",
        })
    }
}

/// What a VM's interrupt controller is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VgicConfig {
    /// What the guest sees, which is what the host has.
    pub version: Version,
    /// Number of vCPUs: 1 to [`Version::vcpus`]. vCPU `n` has the affinity [`types::Mpidr::of_vcpu`].
    pub vcpus: usize,
    /// Number of INTIDs, SGIs and PPIs among them: a multiple of 32 from 64 to 1024 (of which 1020 exist).
    pub intids: u32,
    /// List registers of every host CPU: `ICH_VTR_EL2.ListRegs + 1`, 1 to 16.
    pub list_registers: usize,
    /// Priority bits of the host's virtual CPU interface: `ICH_VTR_EL2.PRIbits + 1`, 5 to 8 (of which at most 7 can
    /// preempt).
    pub priority_bits: u8,
}

/// Why there can be no such interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VgicError {
    /// No vCPU, or more than [`Version::vcpus`].
    Vcpus(Version, usize),
    /// Not a multiple of 32 from 64 to 1024.
    Intids(u32),
    /// Not 1 to 16.
    ListRegisters(usize),
    /// Not 5 to 8.
    PriorityBits(u8),
    /// Not 1 to [`Vgic::MOST_LPIS`], or no GICv3.
    Lpis(Version, u32),
}

impl fmt::Display for VgicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcpus(version, count) => {
                write!(f, "{version} for {count} vCPUs: 1 to {} are possible", version.vcpus())
            }
            Self::Intids(count) => {
                write!(f, "interrupt controller with {count} INTIDs: a multiple of 32 from 64 to 1024 is possible")
            }
            Self::ListRegisters(count) => write!(f, "host has {count} list registers: 1 to 16 are possible"),
            Self::Lpis(Version::V2, _) => f.write_str("a GICv2 has no LPIs"),
            Self::Lpis(_, count) => write!(f, "{count} LPIs: 1 to {} are possible", Vgic::MOST_LPIS),
            Self::PriorityBits(bits) => write!(f, "host has {bits} virtual priority bits: 5 to 8 are possible"),
        }
    }
}

impl core::error::Error for VgicError {}

/// The interrupt controller of one VM.
#[derive(Debug)]
pub struct Vgic {
    version: Version,
    cells: Vec<Cell>,
    shared: Lock<Shared>,
    /// Whether an interrupt has ended whose end is reported.
    any_ended: Flag,
    /// Where messages are taken, if anywhere.
    messages: Option<Doorbell>,
    /// The ITS, if there is one.
    unit: Option<Box<Unit>>,
    /// `GICD_CTLR.EnableGrp0` and `EnableGrp1`. Written under the lock of the SPIs.
    groups: AtomicU32,
    /// vCPUs that take their part of 1-of-N interrupts: on and awake.
    participating: AtomicU64,
    /// `GICD_TYPER`.
    typer: u32,
    list_registers: usize,
    /// One bit for each list register.
    all_list_registers: u32,
    /// Implemented bits of a priority.
    priority_mask: u8,
    /// How many `ICH_AP0R<n>_EL2` there are, and as many `ICH_AP1R<n>_EL2`.
    active_priorities: usize,
    /// Where in a priority the bits that can preempt begin.
    preemption_shift: u32,
}

impl Vgic {
    /// Size of the distributor's window in bytes.
    pub const DISTRIBUTOR_SIZE: u64 = 0x1_0000;
    /// Size of one vCPU's part of the redistributors' window in bytes: RD_base frame and SGI_base frame.
    pub const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

    /// An interrupt controller after a reset.
    ///
    /// # Errors
    /// If `config` is outside of what the architecture or this crate knows.
    pub fn new(config: VgicConfig) -> Result<Self, VgicError> {
        let VgicConfig { version, vcpus, intids, list_registers, priority_bits } = config;
        if vcpus == 0 || vcpus > version.vcpus() {
            return Err(VgicError::Vcpus(version, vcpus));
        }
        if !(64..=1024).contains(&intids) || !intids.is_multiple_of(32) {
            return Err(VgicError::Intids(intids));
        }
        if list_registers == 0 || list_registers > best::MAX_LIST_REGISTERS {
            return Err(VgicError::ListRegisters(list_registers));
        }
        let preemption_bits = u32::from(priority_bits).min(7);
        let (Some(preemption_shift), Some(register_order), 5..=8) =
            (8_u32.checked_sub(preemption_bits), preemption_bits.checked_sub(5), priority_bits)
        else {
            return Err(VgicError::PriorityBits(priority_bits));
        };
        let cells = (0..vcpus)
            .map(|_| Cell { attention: AtomicU32::new(0), private: Lock::new(Private::new(version)) })
            .collect();
        let any_ended = Flag::default();
        Ok(Self {
            version,
            cells,
            shared: Lock::new(Shared::new(version, intids, vcpus, any_ended.clone())),
            any_ended,
            messages: None,
            unit: None,
            groups: AtomicU32::new(0),
            participating: AtomicU64::new(0),
            typer: match version {
                Version::V2 => v2::typer(vcpus, intids),
                Version::V3 => v3::typer(intids),
            },
            list_registers,
            // At most 16 of them.
            all_list_registers: word::bit(u32::try_from(list_registers).unwrap_or(0)).wrapping_sub(1),
            priority_mask: word::low_byte(0xff00_u64.wrapping_shr(u32::from(priority_bits))),
            active_priorities: 1_usize.wrapping_shl(register_order),
            preemption_shift,
        })
    }

    /// Takes messages of devices at this address of the distributor ([`vdev::InterruptController::message`]).
    #[must_use]
    pub fn with_messages_at(mut self, distributor: Ipa) -> Self {
        self.messages = Some(Doorbell::Distributor(distributor));
        self
    }

    /// Takes messages of devices and of the guest in a frame of its own.
    #[must_use]
    pub fn with_message_frame(mut self, frame: MessageFrame) -> Self {
        self.messages = Some(Doorbell::Frame(frame));
        self
    }

    /// What the guest sees.
    #[must_use]
    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Number of vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> usize {
        self.cells.len()
    }

    /// Whether none of its locks is held for good by a thread that has died: each is seen free within `looks` looks.
    #[must_use]
    pub fn can_be_entered(&self, looks: usize) -> bool {
        let private = |cell: &Cell| (0..looks).any(|_| cell.private.try_lock().is_some());
        let its = |unit: &Unit| (0..looks).any(|_| unit.its.try_lock().is_some());
        (0..looks).any(|_| self.shared.try_lock().is_some())
            && self.cells.iter().all(private)
            && self.unit.as_deref().is_none_or(its)
    }

    /// What a change of shared state has to know.
    #[inline]
    fn signals(&self, current: Option<VcpuId>) -> Signals<'_> {
        Signals {
            cells: &self.cells,
            groups: self.groups.load(Ordering::Relaxed),
            participating: self.participating.load(Ordering::Relaxed),
            current,
            kick: VcpuSet::EMPTY,
        }
    }

    /// The vCPU takes 1-of-N interrupts from now on, if it is on and awake.
    #[inline(always)]
    fn take_part(&self, vcpu: VcpuId, private: &Private) {
        let is_in = self.participating.load(Ordering::Relaxed).wrapping_shr(u32::from(vcpu.0)) & 1 != 0;
        if !is_in && private.on && !private.asleep {
            self.enter(vcpu);
        }
    }

    /// The vCPU takes 1-of-N interrupts from now on.
    #[cold]
    #[inline(never)]
    fn enter(&self, vcpu: VcpuId) {
        let mut shared = self.shared.lock();
        self.participating.fetch_or(VcpuSet::of(vcpu).0, Ordering::Relaxed);
        // What nobody could take goes to this one, who is about to look; what others have stays with them.
        shared.reconsider(&mut self.signals(Some(vcpu)));
    }

    /// The vCPU does not take 1-of-N interrupts any more: those chosen for it go to others, who are returned.
    fn leave(&self, vcpu: VcpuId) -> VcpuSet {
        let mut shared = self.shared.lock();
        self.participating.fetch_and(!VcpuSet::of(vcpu).0, Ordering::Relaxed);
        let mut signals = self.signals(Some(vcpu));
        shared.reconsider(&mut signals);
        signals.kick
    }

    /// The vCPU was switched off (PSCI CPU_OFF) or reset, after [`Vgic::save`]: its CPU interface is as after a reset,
    /// and it takes no 1-of-N interrupts until it is loaded again. Its redistributor keeps its state, as a CPU's does.
    /// Returns the vCPUs that have to take what it would have taken.
    pub fn power_off(&self, vcpu: VcpuId) -> VcpuSet {
        let Some(cell) = self.cells.get(vcpu.index()) else { return VcpuSet::EMPTY };
        {
            let mut private = cell.private.lock();
            if private.interface.loaded {
                return VcpuSet::EMPTY;
            }
            private.interface = private::Interface::new(self.version);
            private.on = false;
        }
        self.leave(vcpu)
    }
}

#[cfg(test)]
mod tests;
