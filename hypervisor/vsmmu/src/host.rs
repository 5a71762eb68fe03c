//! What a virtual SMMU asks of the host.
//!
//! Answers for: the words of it, and a host that has nothing to do. Does not answer for: doing it.

use arrayvec::ArrayVec;
use smmu::{Event, Reach, Stage1};

/// Most orders of a batch.
pub const ORDERS: usize = 32;

/// What becomes of a stream's transactions. All of them end at the host's stage 2, or before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// They are aborted without an event.
    Muted,
    /// They are aborted, each with an event, `C_BAD_STE`.
    Refused,
    /// They have the VM's addresses. So it is before anything has been said.
    Stage2,
    /// They go through a stage 1 of the guest's first.
    Nested(Stage1),
}

/// What is not to be used any more of what has been cached of the VM's stage 1, and of combinations with it. It is for the
/// host to add the VMID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidation {
    /// Everything.
    All,
    /// An address space.
    Asid(u16),
    /// Addresses, in one address space or in all.
    Address {
        /// Which.
        asid: Option<u16>,
        /// Which addresses.
        reach: Reach,
    },
}

/// One thing that the host is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The stream is to be like that, and nothing cached of how it was is used any more.
    Set {
        /// The guest's number for it.
        stream: u32,
        /// How.
        target: Target,
    },
    /// What is cached of the stream's context descriptors is not to be used any more.
    ForgetContexts {
        /// The guest's number for it.
        stream: u32,
    },
    /// Translations are not to be used any more.
    Invalidate(Invalidation),
}

/// Whoever has the machine's SMMU, on behalf of one VM. What it cannot do ends in the stream's being aborted, which it reports itself:
/// there is nothing that a guest could do about it.
pub trait Host: Send {
    /// See [`Order::Set`]. Transactions that have begun with how it was may still do so until [`Host::synchronize`].
    fn set(&mut self, stream: u32, target: &Target);

    /// See [`Order::ForgetContexts`].
    fn forget_contexts(&mut self, stream: u32);

    /// See [`Order::Invalidate`].
    fn invalidate(&mut self, what: &Invalidation);

    /// When this returns, everything from before is complete: no transaction uses any more what it was to stop using.
    fn synchronize(&mut self);

    /// The next event of a stream, with the guest's number for it, that may be the guest's to know ([`crate::Smmu::report`]), if there is one.
    fn event(&mut self) -> Option<Event> {
        None
    }
}

/// A host with none of whose devices a VM has anything to do: there is nothing to be set, and nothing is cached.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStreams;

impl Host for NoStreams {
    fn set(&mut self, _: u32, _: &Target) {}
    fn forget_contexts(&mut self, _: u32) {}
    fn invalidate(&mut self, _: &Invalidation) {}
    fn synchronize(&mut self) {}
}

/// What [`crate::Smmu::begin`] has found for the host to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Batch(ArrayVec<Order, ORDERS>);

impl Batch {
    /// Has the host do it. This may take its time: nothing is to be locked.
    pub fn carry_out(&self, host: &mut dyn Host) {
        for order in &self.0 {
            match order {
                Order::Set { stream, target } => host.set(*stream, target),
                Order::ForgetContexts { stream } => host.forget_contexts(*stream),
                Order::Invalidate(what) => host.invalidate(what),
            }
        }
        if !self.0.is_empty() {
            host.synchronize();
        }
    }

    /// What there is to do, in order.
    #[must_use]
    pub fn orders(&self) -> &[Order] {
        &self.0
    }

    /// There is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// There is room for one more.
    pub(crate) fn has_room(&self) -> bool {
        !self.0.is_full()
    }

    /// Adds one. Who adds has asked for room.
    pub(crate) fn push(&mut self, order: Order) {
        let had_room = self.0.try_push(order).is_ok();
        debug_assert!(had_room, "a batch is full");
    }
}
