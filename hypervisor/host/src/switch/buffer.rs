//! A frame in pieces.
//!
//! Answers for: its bytes, and the checksum that a sender has left to others. Does not answer for: whose the pieces are.

use super::checksum::Sum;
use alloc::{boxed::Box, vec::Vec};
use arrayvec::ArrayVec;
use vdev::{Checksum, FillFrame, MOST_FRAME, Mac, Unfinished};

/// Bytes of a piece: a frame that is not to be divided takes one.
pub const PIECE: usize = 2048;
/// Most pieces of a frame.
pub const FRAME_PIECES: usize = MOST_FRAME.div_ceil(PIECE);

/// Memory for a part of a frame.
pub(super) type Piece = Box<[u8; PIECE]>;

/// A new piece; `None` if there is no memory.
pub(super) fn piece() -> Option<Piece> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(PIECE).ok()?;
    bytes.resize(PIECE, 0);
    bytes.into_boxed_slice().try_into().ok()
}

/// A frame, or room for one.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(super) pieces: ArrayVec<Piece, FRAME_PIECES>,
    pub(super) length: usize,
    pub(super) unfinished: Unfinished,
}

impl Buffer {
    /// How many pieces a frame takes.
    pub(super) fn pieces_for(length: usize) -> usize {
        length.div_ceil(PIECE).clamp(1, FRAME_PIECES)
    }

    /// Its bytes, piece by piece.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = self.length;
        self.pieces.iter().map_while(move |piece| {
            let part = piece.get(..left.min(piece.len())).filter(|part| !part.is_empty())?;
            left = left.saturating_sub(part.len());
            Some(part)
        })
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let mut left = self.length;
        self.pieces.iter_mut().map_while(move |piece| {
            let length = left.min(piece.len());
            left = left.saturating_sub(length);
            piece.get_mut(..length).filter(|part| !part.is_empty())
        })
    }

    /// Has its bytes filled in. Says whether all of them were.
    pub(super) fn fill(&mut self, fill: &mut FillFrame<'_>) -> bool {
        self.parts_mut().all(fill)
    }

    /// Becomes the same as another.
    pub(super) fn copy_from(&mut self, other: &Self) {
        (self.length, self.unfinished) = (other.length, other.unfinished);
        for (to, from) in self.parts_mut().zip(other.parts()) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    }

    /// To whom, and from whom.
    pub(super) fn addresses(&self) -> (Mac, Mac) {
        let mut addresses = [[0; 6]; 2];
        if let Some(first) = self.parts().next() {
            addresses.as_flattened_mut().iter_mut().zip(first).for_each(|(to, from)| *to = *from);
        }
        let [to, from] = addresses;
        (Mac(to), Mac(from))
    }

    /// Computes the checksum that has been left to others, if one has (RFC 1071; virtio 1.3, 5.1.6.2.1).
    pub(super) fn finish_checksum(&mut self) {
        let Some(Checksum { start, offset }) = self.unfinished.checksum.take() else { return };
        let (mut sum, mut at) = (Sum::default(), 0_usize);
        for part in self.parts() {
            let skipped = usize::from(start).saturating_sub(at).min(part.len());
            at = at.saturating_add(part.len());
            sum.add(part.get(skipped..).unwrap_or_default());
        }
        let place = usize::from(start).saturating_add(offset.into());
        for (byte, place) in sum.transport_checksum().to_be_bytes().into_iter().zip(place..) {
            let Some((piece, place)) = place.checked_div(PIECE).zip(place.checked_rem(PIECE)) else { return };
            if let Some(to) = self.pieces.get_mut(piece).and_then(|piece| piece.get_mut(place)) {
                *to = byte;
            }
        }
    }
}
