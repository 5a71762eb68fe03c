//! What the console is written to.

/// What the console sends bytes to.
pub trait Uart {
    /// Whether it takes a byte now.
    fn ready(&self) -> bool;
    /// Gives it a byte. Only after [`Uart::ready`].
    fn send(&mut self, byte: u8);
    /// Gives it as many of `bytes` as it takes, and says how many. Here so that the two above are called directly, not each
    /// through a table.
    fn send_all(&mut self, bytes: &[u8]) -> usize {
        let mut count = 0_usize;
        for byte in bytes {
            if !self.ready() {
                break;
            }
            self.send(*byte);
            count = count.wrapping_add(1);
        }
        count
    }
}
