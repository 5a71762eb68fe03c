//! What stands behind a device: the `hostdev`.

/// Where a device's events go that are to appear in traces.
pub trait TraceSink: Sync {
    /// Whether anybody records them now.
    fn is_on(&self) -> bool;
    /// Records one, if so. Never blocks.
    fn event(&self, number: u32, value: u64);
}

/// Nothing is ever recorded.
#[derive(Debug)]
pub struct Untraced;

impl TraceSink for Untraced {
    fn is_on(&self) -> bool {
        false
    }

    fn event(&self, _: u32, _: u64) {}
}

/// What has become of a byte for a [`CharDevice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// There was no space for it.
    No,
    /// It was taken. Whoever passes it on knows that there is something.
    Yes,
    /// It was taken, and whoever passes it on has to be told: [`crate::Context::output`].
    Ring,
}

impl Taken {
    /// Whether the byte was taken.
    #[inline]
    #[must_use]
    pub const fn is_taken(self) -> bool {
        !matches!(self, Self::No)
    }

    /// What has become of two bytes, or more, together: of those that were taken.
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ring, _) | (_, Self::Ring) => Self::Ring,
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, Self::No) => Self::No,
        }
    }
}

/// A character back end: a console stream, a file, nothing at all.
///
/// Neither call blocks. When `space` has become non-zero again, or bytes have arrived, the owner of the back end wakes the
/// device ([`crate::Wake::Backend`]).
pub trait CharDevice: Send {
    /// How many bytes [`CharDevice::write`] would take now.
    fn space(&self) -> usize;
    /// Appends one byte, if there is space.
    fn write(&mut self, byte: u8) -> Taken;
    /// Appends as many of `bytes`, from the first on, as there is space for: how many, and what has become of those. When not all
    /// were taken, the same call with the rest takes none ([`Taken::No`]) unless there is space again; only after that does the owner
    /// say when there is. Who calls bounds how long this takes by how much it offers.
    fn append(&mut self, bytes: &[u8]) -> (usize, Taken);
    /// The next byte from outside, if there is one.
    fn read(&mut self) -> Option<u8>;
}

/// Sixty-four bits from a generator that deserves the name; `None` if it has none to give now. Does not wait, and is called with
/// interrupts masked.
pub type Entropy = fn() -> Option<u64>;
