//! What devices need of an interrupt controller.

use types::{IntId, VcpuId, VcpuSet};

/// The inputs of a VM's interrupt controller. Each call returns the vCPUs that now have something to take, for
/// [`crate::Effects::kick`].
pub trait InterruptController: Send + Sync {
    /// The shared input `intid` is now asserted (`true`) or not. Level and edge configuration decide what that means; the
    /// same level twice is no event. An `intid` that is not an implemented SPI is ignored.
    fn set_level(&self, intid: IntId, asserted: bool) -> VcpuSet;

    /// The private input `intid` of one vCPU is now asserted or not. An `intid` that is not a PPI is ignored.
    fn set_private_level(&self, vcpu: VcpuId, intid: IntId, asserted: bool) -> VcpuSet;
}
