//! Feature bits that belong to no kind of device (6, "Reserved Feature Bits").

bitflags::bitflags! {
    /// A set of feature bits: those that have a name here, and those of a kind of device (0 to 23, 50 to 63), which have none.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Of a legacy device: it makes no assumptions about how a request is divided into buffers.
        const ANY_LAYOUT = 1 << 27;
        /// A descriptor may refer to a table of descriptors (2.7.5.3, 2.8.7).
        const INDIRECT_DESC = 1 << 28;
        /// Both sides say at which index they want to be notified (2.7.7, 2.7.10, 2.8.10).
        const EVENT_IDX = 1 << 29;
        /// This standard, not the legacy interface.
        const VERSION_1 = 1 << 32;
        /// Packed virtqueues (2.8), not split ones (2.7).
        const RING_PACKED = 1 << 34;
        /// Single queues can be reset (2.6.1).
        const RING_RESET = 1 << 40;

        const _ = !0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_spec::F;

    #[test]
    fn bits_are_those_of_the_specification() {
        let pairs = [
            (Features::INDIRECT_DESC, F::INDIRECT_DESC),
            (Features::EVENT_IDX, F::EVENT_IDX),
            (Features::VERSION_1, F::VERSION_1),
            (Features::RING_PACKED, F::RING_PACKED),
            (Features::RING_RESET, F::RING_RESET),
        ];
        assert_eq!(Features::ANY_LAYOUT.bits(), 1 << 27, "which is a legacy device's");
        for (own, theirs) in pairs {
            assert_eq!(u128::from(own.bits()), theirs.bits().to_ne());
        }
    }
}
