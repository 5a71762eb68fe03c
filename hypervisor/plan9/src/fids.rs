//! Fids: the numbers by which a client knows what it has walked to (intro(5)).

use crate::message::Errno;
use crate::tree::NodeId;
use alloc::vec::Vec;

/// Most fids that a client can have: Linux keeps one for each name that it remembers.
pub const MOST_FIDS: usize = 16_384;

/// What a fid stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fid {
    /// A file or a directory.
    pub(crate) node: NodeId,
    /// It has been opened.
    pub(crate) is_open: bool,
}

/// A client's fids, by number.
#[derive(Debug, Default)]
pub(crate) struct Fids(Vec<(u32, Fid)>);

impl Fids {
    fn place(&self, number: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&number, |(number, _)| *number)
    }

    /// What a fid stands for.
    pub(crate) fn get(&self, number: u32) -> Result<Fid, Errno> {
        let place = self.place(number).map_err(|_| Errno::EBADF)?;
        self.0.get(place).map(|(_, fid)| *fid).ok_or(Errno::EBADF)
    }

    /// Whether a fid stands for something.
    pub(crate) fn has(&self, number: u32) -> bool {
        self.place(number).is_ok()
    }

    /// From now on a fid stands for this, whatever it stood for.
    pub(crate) fn set(&mut self, number: u32, fid: Fid) -> Result<(), Errno> {
        match self.place(number) {
            Ok(place) => {
                if let Some((_, old)) = self.0.get_mut(place) {
                    *old = fid;
                }
                Ok(())
            }
            Err(_) if self.0.len() >= MOST_FIDS => Err(Errno::ENFILE),
            Err(place) => {
                self.0.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                self.0.insert(place, (number, fid));
                Ok(())
            }
        }
    }

    /// It stands for nothing any more.
    pub(crate) fn remove(&mut self, number: u32) -> Result<(), Errno> {
        let place = self.place(number).map_err(|_| Errno::EBADF)?;
        self.0.remove(place);
        Ok(())
    }

    /// None stands for anything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many() {
        let (mut fids, fid) = (Fids::default(), Fid { node: NodeId::ROOT, is_open: false });
        for number in 0..MOST_FIDS as u32 {
            assert_eq!(fids.set(number * 2, fid), Ok(()));
        }
        assert_eq!(fids.set(1, fid), Err(Errno::ENFILE));
        assert_eq!(fids.set(2, Fid { is_open: true, ..fid }), Ok(()), "one that is there");
        assert_eq!((fids.get(2), fids.get(1)), (Ok(Fid { is_open: true, ..fid }), Err(Errno::EBADF)));
        assert_eq!((fids.remove(4), fids.remove(4)), (Ok(()), Err(Errno::EBADF)));
        assert_eq!((fids.set(1, fid), fids.len()), (Ok(()), MOST_FIDS));
    }
}
