//! How many messages a VM may cause.
//!
//! Each VM has a bucket: so many messages at once, then so many a second. Who provokes more loses its own messages, and
//! nobody else's.

/// Messages at once.
const BURST: u32 = 16;
/// One more after each so many nanoseconds.
const INTERVAL: u64 = 125_000_000;
/// Buckets: as many as there can be VMs on the console.
const BUCKETS: usize = crate::console::MAX_VMS as usize;

#[derive(Clone, Copy)]
struct Bucket {
    /// Of the VM's name; zero if the bucket is free.
    hash: u64,
    /// How much of the burst is used up.
    used: u32,
    suppressed: u32,
    /// When `used` was last put right, in nanoseconds.
    when: u64,
}

/// The buckets.
pub(super) struct Limits {
    buckets: [Bucket; BUCKETS],
}

impl Limits {
    pub(super) const fn new() -> Self {
        Self { buckets: [Bucket { hash: 0, used: 0, suppressed: 0, when: 0 }; BUCKETS] }
    }

    /// Whether a message of `vm` may pass now: `None`, or how many have not since the last one that did.
    pub(super) fn admit(&mut self, vm: &str, now: u64) -> Option<u32> {
        let hash = hash(vm);
        let same = |bucket: &Bucket| bucket.hash == hash;
        let place = match self.buckets.iter().position(same) {
            Some(place) => place,
            None => {
                // The bucket that has been quiet for longest, which a free one has been for ever.
                let (place, _) = self.buckets.iter().enumerate().min_by_key(|(_, bucket)| bucket.when)?;
                *self.buckets.get_mut(place)? = Bucket { hash, used: 0, suppressed: 0, when: now };
                place
            }
        };
        let bucket = self.buckets.get_mut(place)?;
        let earned = now.saturating_sub(bucket.when) / INTERVAL;
        if earned > 0 {
            bucket.used = bucket.used.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
            bucket.when = bucket.when.saturating_add(earned.saturating_mul(INTERVAL));
        }
        if bucket.used >= BURST {
            bucket.suppressed = bucket.suppressed.saturating_add(1);
            return None;
        }
        bucket.used = bucket.used.saturating_add(1);
        Some(core::mem::take(&mut bucket.suppressed))
    }
}

/// FNV-1a, never zero.
pub(super) fn hash(text: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_at_a_time_and_the_rest_is_counted() {
        let mut limits = Limits::new();
        for _ in 0..BURST {
            assert_eq!(limits.admit("a", 1), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(limits.admit("a", 1), None);
        }
        assert_eq!(limits.admit("a", 1 + INTERVAL), Some(100));
        assert_eq!(limits.admit("a", 1 + INTERVAL), None);
        assert_eq!(limits.admit("a", 1 + 100 * INTERVAL), Some(1));
    }

    #[test]
    fn one_vm_does_not_use_up_anothers() {
        let mut limits = Limits::new();
        while limits.admit("a", 1).is_some() {}
        assert_eq!(limits.admit("b", 1), Some(0));
    }

    #[test]
    fn names_without_end_are_forgotten_from_the_oldest() {
        let mut limits = Limits::new();
        while limits.admit("noisy", u64::MAX).is_some() {}
        for n in 0..if cfg!(miri) { 70_u32 } else { 1000 } {
            assert!(limits.admit(&alloc::format!("vm{n}"), u64::from(n)).is_some());
        }
        assert_eq!(limits.admit("noisy", u64::MAX), None);
    }
}
