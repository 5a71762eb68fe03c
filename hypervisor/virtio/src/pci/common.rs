//! The common configuration structure (4.1.4.3): which field is where, and how wide.
//!
//! Answers for: dividing an access into fields. Drivers access each field by itself, and those of 64 bits in halves or whole (4.1.3.1);
//! so an access may have several fields, but not a part of one. Does not answer for: what they mean.

use types::AccessSize;
use vdev::AccessFault;

macro_rules! fields {
    ($($offset:literal $bytes:literal $name:ident),* $(,)?) => {
        /// A field, by its name in the specification; of those of 64 bits a half.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Field {
            $($name),*
        }

        impl Field {
            /// The one that begins at `offset`, and its bytes.
            const fn at(offset: u64) -> Option<(Self, u64)> {
                match offset {
                    $($offset => Some((Self::$name, $bytes)),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    0x00 4 DeviceFeatureSelect,
    0x04 4 DeviceFeature,
    0x08 4 DriverFeatureSelect,
    0x0c 4 DriverFeature,
    0x10 2 ConfigMsixVector,
    0x12 2 NumQueues,
    0x14 1 DeviceStatus,
    0x15 1 ConfigGeneration,
    0x16 2 QueueSelect,
    0x18 2 QueueSize,
    0x1a 2 QueueMsixVector,
    0x1c 2 QueueEnable,
    0x1e 2 QueueNotifyOff,
    0x20 4 QueueDescLow,
    0x24 4 QueueDescHigh,
    0x28 4 QueueDriverLow,
    0x2c 4 QueueDriverHigh,
    0x30 4 QueueDeviceLow,
    0x34 4 QueueDeviceHigh,
    0x38 2 QueueNotifyData,
    0x3a 2 QueueReset,
}

/// Bytes of it. Administration virtqueues, whose fields would follow, there are none (VIRTIO_F_ADMIN_VQ).
pub(super) const LENGTH: u64 = 0x3c;

/// A field in an access.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) field: Field,
    shift: u32,
    mask: u64,
}

impl Part {
    /// Its share of what is stored.
    pub(super) fn of(&self, value: u64) -> u32 {
        u32::try_from(value.wrapping_shr(self.shift) & self.mask).unwrap_or(u32::MAX)
    }

    /// What it reads, where it is in what is loaded.
    pub(super) fn place(&self, value: u32) -> u64 {
        (u64::from(value) & self.mask).wrapping_shl(self.shift)
    }
}

/// The fields of an access, in order.
///
/// # Errors
/// If there is no field, or a part of one only.
pub(super) fn fields(offset: u64, size: AccessSize) -> Result<impl Iterator<Item = Part>, AccessFault> {
    let end = offset.saturating_add(size.bytes());
    if end > LENGTH {
        return Err(AccessFault::Unsupported);
    }
    let next = move |at: u64| {
        let (field, bytes) = Field::at(at)?;
        let after = at.saturating_add(bytes);
        let shift = u32::try_from(at.saturating_sub(offset)).ok()?.saturating_mul(8);
        let mask = u64::MAX.checked_shr(64_u32.saturating_sub(u32::try_from(bytes).ok()?.saturating_mul(8)))?;
        (after <= end).then_some((Part { field, shift, mask }, after))
    };
    let mut at = offset;
    while at < end {
        (_, at) = next(at).ok_or(AccessFault::Size)?;
    }
    let mut at = offset;
    Ok(core::iter::from_fn(move || {
        let (part, after) = next(at)?;
        at = after;
        Some(part)
    }))
}
