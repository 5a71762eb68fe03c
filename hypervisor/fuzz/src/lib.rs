//! What the targets share.

/// Input made from `data`: itself, or, if its first byte is the number of one of `samples`, that one with the changes that
/// the rest describes, each an offset of two bytes and a byte. So a target gets past the first checks of its subject
/// without any corpus.
pub fn changed(samples: &[&[u8]], data: &[u8]) -> Vec<u8> {
    let Some((sample, changes)) =
        data.split_first().and_then(|(&number, changes)| Some((samples.get(usize::from(number))?, changes)))
    else {
        return data.to_vec();
    };
    let mut made = sample.to_vec();
    for change in changes.chunks_exact(3) {
        let offset = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = made.get_mut(offset) {
            *byte = change[2];
        }
    }
    made
}
