//! The server: what a client is answered.
//!
//! Answers for: the session, and each message's meaning. What would write is refused before anything else is looked at. Messages are
//! answered one after the other, so whatever a `Tflush` is about has been answered when it comes. Does not answer for: the form of
//! messages (`message`), who is where (`tree`).
//!
//! What files and directories have besides names and contents is the same for all: everybody may read, enter and run them (modes
//! 0444 with 0111), they are root's, and as old as the epoch.

use crate::fids::{Fid, Fids};
use crate::message::{Answer, DATA_HEADER, Errno, Fields, HEADER, QID, REQUEST, kind};
use crate::tree::{LONGEST_NAME, NodeId, Tree};

/// The only version that is spoken.
const VERSION: &[u8] = b"9P2000.L";
/// What is answered to any other (version(5)).
const UNKNOWN: &str = "unknown";
/// The least `msize` that a client may have: every answer but one of data fits, and Linux asks for no less.
pub const LEAST_MSIZE: u32 = 4096;
/// The most that it is given: this bounds how long one answer takes.
pub const MOST_MSIZE: u32 = 256 << 10;
/// `MAXWELEM` (walk(5)).
const MOST_NAMES: u16 = 16;

/// `qid.type` of directories (stat(5)).
const QTDIR: u8 = 0x80;
/// Not 0, by which Linux would know what must not be cached.
const QID_VERSION: u32 = 1;
/// `S_IFDIR`, `S_IFREG`, and the bits for reading and running (`stat(2)`).
const DIRECTORY_MODE: u32 = 0o040_555;
const FILE_MODE: u32 = 0o100_555;
/// `DT_DIR`, `DT_REG` (`readdir(3)`).
const DT_DIR: u8 = 4;
const DT_REG: u8 = 8;
/// `P9_GETATTR_BASIC`: what there is in a `Rgetattr`.
const BASIC: u64 = 0x7ff;
/// `V9FS_MAGIC` (`statfs(2)`).
const V9FS_MAGIC: u32 = 0x0102_1997;
const BLOCK: u32 = 4096;
/// What `st_blocks` counts.
const SECTOR: u64 = 512;

/// Flags of `Tlopen` (`P9_DOTL_*`).
mod flag {
    pub(super) const ACCESS: u32 = 3;
    pub(super) const RDONLY: u32 = 0;
    pub(super) const TRUNC: u32 = 0o1000;
    pub(super) const DIRECTORY: u32 = 0o20_0000;
}

/// A tree of files, for one client.
#[derive(Debug)]
pub struct Server {
    tree: Tree,
    fids: Fids,
    /// The `msize` that has been agreed upon, if one has.
    msize: Option<u32>,
}

impl Server {
    /// For a client that has said nothing yet.
    #[must_use]
    pub fn new(tree: Tree) -> Self {
        Self { tree, fids: Fids::default(), msize: None }
    }

    /// Forgets the client: another one comes.
    pub fn reset(&mut self) {
        self.fids.clear();
        self.msize = None;
    }

    /// The agreed `msize`, and how many fids there are; `None` before there is a session.
    #[must_use]
    pub fn session(&self) -> Option<(u32, usize)> {
        self.msize.map(|msize| (msize, self.fids.len()))
    }

    /// Answers a message: its first [`REQUEST`] bytes, or all if it has less, and how many it has been sent in. The answer takes at
    /// most `room` bytes: it is an error if it would take more, and nothing if even that does not fit.
    pub fn answer(&mut self, message: &[u8], length: u64, room: u64, answer: &mut Answer) {
        let mut tag = None;
        let done = self.dispatch(message, length, room, &mut tag, answer);
        let length = |answer: &Answer| u64::try_from(answer.length()).unwrap_or(u64::MAX);
        match done {
            Ok(()) if length(answer) <= room => {}
            Ok(()) => answer.error(tag, Errno::EMSGSIZE),
            Err(error) => answer.error(tag, error),
        }
        if length(answer) > room {
            return answer.none();
        }
        answer.end();
    }

    fn dispatch(
        &mut self,
        message: &[u8],
        length: u64,
        room: u64,
        tag: &mut Option<u16>,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let mut fields = Fields(message.get(..REQUEST).unwrap_or(message));
        let (size, kind, its_tag) = (fields.u32()?, fields.u8()?, fields.u16()?);
        *tag = Some(its_tag);
        // What has been sent behind the message is not its business.
        let rest = usize::try_from(size).ok().and_then(|size| size.checked_sub(HEADER)).ok_or(Errno::EMSGSIZE)?;
        if u64::from(size) > length || self.msize.is_some_and(|msize| size > msize) {
            return Err(Errno::EMSGSIZE);
        }
        fields.0 = fields.0.get(..rest).unwrap_or(fields.0);
        answer.begin(kind.wrapping_add(1), its_tag);
        if kind == kind::TVERSION {
            return self.version(&mut fields, answer);
        }
        let msize = self.msize.ok_or(Errno::EPROTO)?;
        let data_room = room.min(msize.into()).saturating_sub(DATA_HEADER.into());
        match kind {
            kind::TATTACH => self.attach(&mut fields, answer),
            kind::TFLUSH => fields.u16().map(|_| ()),
            kind::TWALK => self.walk(&mut fields, answer),
            kind::TLOPEN => self.open(&mut fields, answer),
            kind::TREAD => self.read(&mut fields, data_room, answer),
            kind::TREADDIR => self.read_directory(&mut fields, data_room, answer),
            kind::TGETATTR => self.get_attributes(&mut fields, answer),
            kind::TSTATFS => self.stat_file_system(&mut fields, answer),
            kind::TCLUNK => self.fids.remove(fields.u32()?),
            kind::TREMOVE => {
                // The fid goes, whatever becomes of the file (remove(5)).
                self.fids.remove(fields.u32()?)?;
                Err(Errno::EROFS)
            }
            // Nothing here is a link, and nothing has further attributes.
            kind::TREADLINK => self.fids.get(fields.u32()?).and(Err(Errno::EINVAL)),
            kind::TXATTRWALK => self.fids.get(fields.u32()?).and(Err(Errno::EOPNOTSUPP)),
            kind::TWRITE
            | kind::TLCREATE
            | kind::TSYMLINK
            | kind::TMKNOD
            | kind::TRENAME
            | kind::TSETATTR
            | kind::TXATTRCREATE
            | kind::TFSYNC
            | kind::TLINK
            | kind::TMKDIR
            | kind::TRENAMEAT
            | kind::TUNLINKAT => Err(Errno::EROFS),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// `msize[4] version[s]`: a session begins, or none does, and whatever there was ends (version(5)).
    fn version(&mut self, fields: &mut Fields<'_>, answer: &mut Answer) -> Result<(), Errno> {
        let (msize, version) = (fields.u32()?, fields.text()?);
        self.reset();
        if msize < LEAST_MSIZE {
            return Err(Errno::EMSGSIZE);
        }
        let msize = msize.min(MOST_MSIZE);
        answer.u32(msize);
        if version == VERSION {
            self.msize = Some(msize);
            answer.text("9P2000.L");
        } else {
            answer.text(UNKNOWN);
        }
        Ok(())
    }

    /// `fid[4] afid[4] uname[s] aname[s] n_uname[4]`: whoever it is, they get the root (attach(5)). There is no other tree to name.
    fn attach(&mut self, fields: &mut Fields<'_>, answer: &mut Answer) -> Result<(), Errno> {
        let (fid, _, _, name) = (fields.u32()?, fields.u32()?, fields.text()?, fields.text()?);
        if !matches!(name, b"" | b"/") {
            return Err(Errno::ENOENT);
        }
        self.new_fid(fid, NodeId::ROOT)?;
        self.put_qid(NodeId::ROOT, answer);
        Ok(())
    }

    /// A fid that stands for nothing yet.
    fn new_fid(&mut self, number: u32, node: NodeId) -> Result<(), Errno> {
        if self.fids.has(number) {
            return Err(Errno::EINVAL);
        }
        self.fids.set(number, Fid { node, is_open: false })
    }

    /// `fid[4] newfid[4] nwname[2] nwname*(wname[s])` (walk(5)): as far as there is a way. `newfid` stands for its end, if that is the
    /// end of the names too.
    fn walk(&mut self, fields: &mut Fields<'_>, answer: &mut Answer) -> Result<(), Errno> {
        let (number, new, names) = (fields.u32()?, fields.u32()?, fields.u16()?);
        let fid = self.fids.get(number)?;
        if names > MOST_NAMES || (number == new && fid.is_open) || (number != new && self.fids.has(new)) {
            return Err(Errno::EINVAL);
        }
        answer.u16(0);
        let (mut at, mut walked) = (fid.node, 0_u16);
        for _ in 0..names {
            let name = fields.text()?;
            match self.step(at, name) {
                Ok(next) => at = next,
                // "If the first element cannot be walked for any reason, Rerror is returned."
                Err(error) if walked == 0 => return Err(error),
                Err(_) => break,
            }
            walked = walked.saturating_add(1);
            self.put_qid(at, answer);
        }
        answer.set_walked(walked);
        if walked < names {
            return Ok(());
        }
        self.fids.set(new, Fid { node: at, is_open: false })
    }

    /// One name further on: `..` is the directory above, the root's is itself (walk(5)).
    fn step(&self, from: NodeId, name: &[u8]) -> Result<NodeId, Errno> {
        if self.tree.contents(from).is_some() {
            return Err(Errno::ENOTDIR);
        }
        if name == b".." {
            return Ok(self.tree.parent(from));
        }
        self.tree.child(from, name).ok_or(Errno::ENOENT)
    }

    /// `fid[4] flags[4]`: for reading, and nothing else.
    fn open(&mut self, fields: &mut Fields<'_>, answer: &mut Answer) -> Result<(), Errno> {
        let (number, flags) = (fields.u32()?, fields.u32()?);
        let fid = self.fids.get(number)?;
        if flags & flag::ACCESS != flag::RDONLY || flags & flag::TRUNC != 0 {
            return Err(Errno::EROFS);
        }
        if fid.is_open {
            return Err(Errno::EINVAL);
        }
        if flags & flag::DIRECTORY != 0 && self.tree.contents(fid.node).is_some() {
            return Err(Errno::ENOTDIR);
        }
        self.fids.set(number, Fid { is_open: true, ..fid })?;
        self.put_qid(fid.node, answer);
        // `iounit` 0: as much at once as `msize` allows (open(5)).
        answer.u32(0);
        Ok(())
    }

    /// What an open fid stands for.
    fn opened(&self, number: u32) -> Result<NodeId, Errno> {
        self.fids.get(number).and_then(|fid| if fid.is_open { Ok(fid.node) } else { Err(Errno::EBADF) })
    }

    /// `fid[4] offset[8] count[4]`: a file's bytes, nothing behind its end (read(5)).
    fn read(&self, fields: &mut Fields<'_>, room: u64, answer: &mut Answer) -> Result<(), Errno> {
        let (number, offset, count) = (fields.u32()?, fields.u64()?, fields.u32()?);
        let contents = self.tree.contents(self.opened(number)?).ok_or(Errno::EISDIR)?;
        let left = usize::try_from(offset).ok().and_then(|offset| contents.get(offset..)).unwrap_or_default();
        let count = usize::try_from(u64::from(count).min(room)).unwrap_or(usize::MAX);
        answer.set_data(left.get(..count).unwrap_or(left));
        Ok(())
    }

    /// `fid[4] offset[8] count[4]`: `qid[13] offset[8] type[1] name[s]` of whole entries, as many as there is room for. An entry's
    /// offset is where the next one is: the first two are `.` and `..`.
    fn read_directory(&self, fields: &mut Fields<'_>, room: u64, answer: &mut Answer) -> Result<(), Errno> {
        let (number, offset, count) = (fields.u32()?, fields.u64()?, fields.u32()?);
        let directory = self.opened(number)?;
        let children = self.tree.children(directory).ok_or(Errno::ENOTDIR)?;
        let room = usize::try_from(u64::from(count).min(room)).unwrap_or(usize::MAX);
        let start = answer.length();
        answer.u32(0);
        let dots = [(".", directory), ("..", self.tree.parent(directory))];
        let names = children.map(|child| (self.tree.name(NodeId(child)), NodeId(child)));
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut left = room.min(crate::ANSWER.saturating_sub(start).saturating_sub(4));
        for ((name, node), next) in dots.into_iter().chain(names).skip(skipped).zip(offset.saturating_add(1)..) {
            let entry = QID.saturating_add(8 + 1 + 2).saturating_add(name.len());
            left = match left.checked_sub(entry) {
                Some(rest) => rest,
                // No entry at all would mean that there are no more.
                None if next == offset.saturating_add(1) => return Err(Errno::EINVAL),
                None => break,
            };
            self.put_qid(node, answer);
            answer.u64(next);
            answer.u8(if self.tree.contents(node).is_some() { DT_REG } else { DT_DIR });
            answer.text(name);
        }
        answer.set_count();
        Ok(())
    }

    /// `fid[4] request_mask[8]`: all that there is, whatever is asked for.
    fn get_attributes(&self, fields: &mut Fields<'_>, answer: &mut Answer) -> Result<(), Errno> {
        let node = self.fids.get(fields.u32()?)?.node;
        let contents = self.tree.contents(node);
        let size = contents.map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        let (mode, links) = match contents {
            Some(_) => (FILE_MODE, 1),
            // Its own name, its `.`, and the `..` of those in it: what `find` goes by.
            None => (DIRECTORY_MODE, self.tree.subdirectories(node).saturating_add(2)),
        };
        answer.u64(BASIC);
        self.put_qid(node, answer);
        // `mode[4] uid[4] gid[4]`
        [mode, 0, 0].into_iter().for_each(|value| answer.u32(value));
        // `nlink[8] rdev[8] size[8] blksize[8] blocks[8]`
        [links, 0, size, BLOCK.into(), size.div_ceil(SECTOR)].into_iter().for_each(|value| answer.u64(value));
        // `atime_sec[8] atime_nsec[8]` and so on for `mtime`, `ctime` and `btime`, then `gen[8] data_version[8]`
        (0..10).for_each(|_| answer.u64(0));
        Ok(())
    }

    /// `fid[4]`: `type[4] bsize[4] blocks[8] bfree[8] bavail[8] files[8] ffree[8] fsid[8] namelen[4]`. It is full.
    fn stat_file_system(&self, fields: &mut Fields<'_>, answer: &mut Answer) -> Result<(), Errno> {
        self.fids.get(fields.u32()?)?;
        let nodes = u64::try_from(self.tree.size()).unwrap_or(u64::MAX);
        [V9FS_MAGIC, BLOCK].into_iter().for_each(|value| answer.u32(value));
        let blocks = self.tree.bytes().div_ceil(BLOCK.into());
        [blocks, 0, 0, nodes, 0, 0].into_iter().for_each(|value| answer.u64(value));
        answer.u32(u32::try_from(LONGEST_NAME).unwrap_or(u32::MAX));
        Ok(())
    }

    fn put_qid(&self, node: NodeId, answer: &mut Answer) {
        answer.u8(if self.tree.contents(node).is_some() { 0 } else { QTDIR });
        answer.u32(QID_VERSION);
        answer.u64(node.0.into());
    }
}

#[cfg(test)]
mod tests;
