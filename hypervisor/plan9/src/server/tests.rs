//! A client by hand, sentences of the manual, and a model of files by path.

use super::*;
use crate::{ANSWER, MOST_FIDS};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use proptest::prelude::*;

const RDONLY: u32 = 0;

/// A session, with `big` too large for one answer.
struct Client {
    server: Server,
    answer: Answer,
    room: u64,
}

type Outcome = Result<Vec<u8>, u32>;

/// Bytes by which one can tell where they are.
fn big() -> &'static [u8] {
    static BIG: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BIG.get_or_init(|| (0..600_000_u32).map(|at| (at / 3) as u8).collect())
}

fn tree(paths: &[&'static str]) -> Tree {
    let content = |path: &'static str| if path == "big" { big() } else { path.as_bytes() };
    Tree::new(paths.iter().map(|path| (*path, content(path))).collect()).unwrap()
}

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes()[..], text].concat()
}

/// `size[4] type[1] tag[2]` and the rest.
fn message(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let fields = fields.concat();
    [&(fields.len() as u32 + 7).to_le_bytes()[..], &[kind], &[0x34, 0x12], &fields].concat()
}

impl Client {
    /// One that has said nothing.
    fn silent(paths: &[&'static str]) -> Self {
        Self { server: Server::new(tree(paths)), answer: Answer::default(), room: 1 << 20 }
    }

    /// One whose fid 0 is the root.
    fn new(paths: &[&'static str]) -> Self {
        let mut client = Self::silent(paths);
        client.version(128 << 10, b"9P2000.L").unwrap();
        client.attach(0, b"").unwrap();
        client
    }

    /// Sends bytes; the whole answer.
    fn raw(&mut self, message: &[u8]) -> Vec<u8> {
        let copied = &message[..message.len().min(REQUEST)];
        self.server.answer(copied, message.len() as u64, self.room, &mut self.answer);
        let whole = [self.answer.bytes(), self.answer.data()].concat();
        assert!(self.answer.bytes().len() <= ANSWER && whole.len() as u64 <= self.room);
        assert!(whole.is_empty() || whole[..4] == (whole.len() as u32).to_le_bytes());
        whole
    }

    /// Sends a message; what is behind the answer's header, or the error's number.
    fn call(&mut self, kind: u8, fields: &[&[u8]]) -> Outcome {
        let answer = self.raw(&message(kind, fields));
        assert_eq!(answer[5..7], [0x34, 0x12], "the tag");
        if answer[4] == kind::RLERROR {
            assert_eq!(answer.len(), 11);
            return Err(u32::from_le_bytes(answer[7..].try_into().unwrap()));
        }
        assert_eq!(answer[4], kind + 1);
        Ok(answer[7..].to_vec())
    }

    fn version(&mut self, msize: u32, version: &[u8]) -> Outcome {
        self.call(kind::TVERSION, &[&msize.to_le_bytes(), &text(version)])
    }

    fn attach(&mut self, fid: u32, name: &[u8]) -> Outcome {
        let none = u32::MAX.to_le_bytes();
        self.call(kind::TATTACH, &[&fid.to_le_bytes(), &none, &text(b"root"), &text(name), &[0; 4]])
    }

    /// How many names could be walked, of a path.
    fn walk(&mut self, fid: u32, new: u32, path: &str) -> Result<u16, u32> {
        let names: Vec<Vec<u8>> =
            path.split('/').filter(|name| !name.is_empty()).map(|name| text(name.as_bytes())).collect();
        let count = (names.len() as u16).to_le_bytes();
        let answer = self.call(kind::TWALK, &[&fid.to_le_bytes(), &new.to_le_bytes(), &count, &names.concat()])?;
        let walked = u16::from_le_bytes(answer[..2].try_into().unwrap());
        assert_eq!(answer.len(), 2 + 13 * usize::from(walked));
        Ok(walked)
    }

    fn open(&mut self, fid: u32, flags: u32) -> Outcome {
        self.call(kind::TLOPEN, &[&fid.to_le_bytes(), &flags.to_le_bytes()])
    }

    fn data(&mut self, kind: u8, fid: u32, offset: u64, count: u32) -> Outcome {
        let answer = self.call(kind, &[&fid.to_le_bytes(), &offset.to_le_bytes(), &count.to_le_bytes()])?;
        assert_eq!(answer[..4], (answer.len() as u32 - 4).to_le_bytes());
        Ok(answer[4..].to_vec())
    }

    fn read(&mut self, fid: u32, offset: u64, count: u32) -> Outcome {
        self.data(kind::TREAD, fid, offset, count)
    }

    fn of_fid(&mut self, kind: u8, fid: u32) -> Outcome {
        self.call(kind, &[&fid.to_le_bytes(), &[0xff; 8]])
    }

    /// Names, inodes and types of a whole directory, read in answers of at most so many bytes.
    fn list(&mut self, fid: u32, count: u32) -> Vec<(String, u64, u8)> {
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let entries = self.data(kind::TREADDIR, fid, offset, count).unwrap();
            assert!(entries.len() <= count as usize);
            let mut rest = &entries[..];
            if rest.is_empty() {
                return all;
            }
            while !rest.is_empty() {
                let number = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
                let length = usize::from(u16::from_le_bytes(rest[22..24].try_into().unwrap()));
                let name = String::from_utf8(rest[24..24 + length].to_vec()).unwrap();
                assert_eq!(rest[0] == QTDIR, rest[21] == DT_DIR);
                offset = number(13);
                all.push((name, number(5), rest[21]));
                rest = &rest[24 + length..];
            }
        }
    }
}

const PATHS: [&str; 6] = ["a/b/c", "a/b/d", "a/e", "a-b", "big", "f"];

/// version(5): "The server responds with its own maximum, msize, which must be less than or equal to the client's value."
#[test]
fn a_session_begins_with_a_version() {
    let mut client = Client::silent(&PATHS);
    assert_eq!(client.attach(0, b""), Err(71), "EPROTO: no session");
    for (msize, given) in [(4096, 4096), (8192, 8192), (MOST_MSIZE, MOST_MSIZE), (u32::MAX, MOST_MSIZE)] {
        let agreed = [&given.to_le_bytes()[..], &text(b"9P2000.L")].concat();
        assert_eq!(client.version(msize, b"9P2000.L"), Ok(agreed));
        assert_eq!(client.server.session(), Some((given, 0)));
    }
    assert_eq!(client.version(4095, b"9P2000.L"), Err(90), "EMSGSIZE");
    assert_eq!(client.server.session(), None);
}

/// version(5): "If the server does not understand the client's version string, it should respond with an Rversion message (not
/// Rerror) with the version string the 7 characters ``unknown''."
#[test]
fn other_versions_are_unknown() {
    for version in [&b"9P2000"[..], b"9P2000.u", b"9P2000.LL", b"", b"\xff\xfe"] {
        let mut client = Client::new(&PATHS);
        let unknown = [&8192_u32.to_le_bytes()[..], &text(b"unknown")].concat();
        assert_eq!(client.version(8192, version), Ok(unknown));
        assert_eq!(client.walk(0, 1, "a"), Err(71));
    }
}

/// version(5): "all active fids are freed (`clunked') automatically."
#[test]
fn a_version_ends_the_session_that_there_was() {
    let mut client = Client::new(&PATHS);
    client.version(8192, b"9P2000.L").unwrap();
    assert_eq!(client.walk(0, 1, "a"), Err(9));
    client.attach(0, b"/").unwrap();
    assert_eq!(client.walk(0, 1, "a"), Ok(1));
}

#[test]
fn there_is_one_tree_to_attach_to() {
    let mut client = Client::new(&PATHS);
    let root = client.attach(1, b"/").unwrap();
    assert_eq!(root, [&[QTDIR][..], &1_u32.to_le_bytes(), &0_u64.to_le_bytes()].concat());
    assert_eq!(client.attach(1, b""), Err(22), "the fid is in use");
    assert_eq!(client.attach(2, b"/etc"), Err(2));
    assert_eq!(client.attach(2, b"a"), Err(2));
}

/// walk(5): the rules for names and fids.
#[test]
fn walks_go_as_far_as_there_is_a_way() {
    let mut client = Client::new(&PATHS);
    assert_eq!(client.walk(0, 1, "a/b/c"), Ok(3));
    assert_eq!(client.walk(0, 1, "a"), Err(22), "newfid is in use");
    // "If the first element cannot be walked for any reason, Rerror is returned."
    assert_eq!(client.walk(0, 2, "x/b"), Err(2));
    // Only if all names have been walked newfid is affected.
    assert_eq!(client.walk(0, 2, "a/x/c"), Ok(1));
    assert_eq!(client.of_fid(kind::TCLUNK, 2), Err(9));
    assert_eq!(client.walk(0, 2, "f/x"), Ok(1), "f is no directory");
    assert_eq!(client.walk(1, 2, "x"), Err(20), "ENOTDIR");
    assert_eq!(client.walk(1, 2, ".."), Err(20));
    assert_eq!(client.walk(7, 2, "a"), Err(9));
    // Without names newfid is the same as fid.
    assert_eq!((client.walk(1, 2, ""), client.walk(2, 2, "")), (Ok(0), Ok(0)));
    let same = client.of_fid(kind::TGETATTR, 2);
    assert_eq!(client.of_fid(kind::TGETATTR, 1), same);
    client.open(2, RDONLY).unwrap();
    assert_eq!(client.walk(2, 2, ""), Err(22), "it is open");
    let names = vec![text(b".."); 17].concat();
    let fields = |count: u16| [&0_u32.to_le_bytes()[..], &9_u32.to_le_bytes(), &count.to_le_bytes(), &names].concat();
    assert_eq!(client.call(kind::TWALK, &[&fields(17)]), Err(22), "MAXWELEM is 16");
    assert_eq!(client.call(kind::TWALK, &[&fields(16)]).map(|answer| answer.len()), Ok(2 + 16 * 13));
}

/// walk(5): the name `..` is the parent directory, and a walk to `..` from the root ends in the root; intro(5): the name `.` is not used
/// in the protocol.
#[test]
fn nobody_walks_out_of_the_root() {
    let mut client = Client::new(&PATHS);
    let root = client.of_fid(kind::TGETATTR, 0);
    for (fid, path) in ["..", "../..", "a/../..", "a/b/../../../.."].into_iter().enumerate() {
        let fid = fid as u32 + 1;
        assert_eq!(client.walk(0, fid, path), Ok(path.split('/').count() as u16));
        assert_eq!(client.of_fid(kind::TGETATTR, fid), root);
    }
    for name in [".", "/", "a/b", "\0", "..\0", "...", "a\0"] {
        let name = text(name.as_bytes());
        let fields = [&0_u32.to_le_bytes()[..], &9_u32.to_le_bytes(), &1_u16.to_le_bytes(), &name].concat();
        assert_eq!(client.call(kind::TWALK, &[&fields]), Err(2), "{name:?}");
    }
}

#[test]
fn only_reading_is_opened() {
    let mut client = Client::new(&PATHS);
    client.walk(0, 1, "f").unwrap();
    assert_eq!(client.read(1, 0, 1), Err(9), "EBADF: not open");
    for flags in [1, 2, 3, 0o1000, 0o1001, 0o102] {
        assert_eq!(client.open(1, flags), Err(30), "EROFS: {flags:o}");
    }
    assert_eq!(client.open(1, 0o20_0000), Err(20), "ENOTDIR");
    // APPEND, LARGEFILE, NOFOLLOW, CLOEXEC and the like do not write.
    let qid = client.open(1, 0o241_2000).unwrap();
    assert_eq!((qid.len(), &qid[13..]), (17, &[0; 4][..]), "iounit 0");
    assert_eq!(client.open(1, RDONLY), Err(22), "it is open already");
    assert_eq!(client.data(kind::TREADDIR, 1, 0, 100), Err(20));
    client.open(0, 0o20_0000).unwrap();
    assert_eq!(client.read(0, 0, 100), Err(21), "EISDIR: under .L directories are read by Treaddir");
}

/// read(5): "If the offset field is greater than or equal to the number of bytes in the file, a count of zero will be returned."
#[test]
fn files_are_read_in_pieces_of_any_size() {
    let mut client = Client::new(&PATHS);
    client.walk(0, 1, "a/b/c").unwrap();
    client.open(1, RDONLY).unwrap();
    for (offset, count, part) in [(0, 100, &b"a/b/c"[..]), (2, 2, b"b/"), (4, 9, b"c"), (5, 1, b""), (u64::MAX, 9, b"")]
    {
        assert_eq!(client.read(1, offset, count), Ok(part.to_vec()));
    }
    client.walk(0, 2, "big").unwrap();
    client.open(2, RDONLY).unwrap();
    let whole = big();
    let most = (128 << 10) - 11;
    assert_eq!(client.read(2, 1, u32::MAX), Ok(whole[1..=most].to_vec()), "as much as msize allows");
    client.room = 5000;
    assert_eq!(client.read(2, 599_000, u32::MAX).unwrap().len(), 1000);
    assert_eq!(client.read(2, 7, u32::MAX), Ok(whole[7..7 + 4989].to_vec()), "as much as there is room for");
    client.room = 1 << 20;
    let mut read = Vec::new();
    while let Some(part) = Some(client.read(2, read.len() as u64, 77_777).unwrap()).filter(|part| !part.is_empty()) {
        read.extend(part);
    }
    assert!(read == whole);
}

#[test]
fn directories_are_listed_in_pieces_of_any_size() {
    let names: Vec<&'static str> =
        (0..500).map(|at| &*format!("many/{at:03}{}", "n".repeat(at % 250)).leak()).collect();
    let mut client = Client::new(&[&names[..], &["f"]].concat());
    client.walk(0, 1, "many").unwrap();
    assert_eq!(client.data(kind::TREADDIR, 1, 0, 1000), Err(9));
    client.open(1, RDONLY).unwrap();
    let all = client.list(1, 100_000);
    let found: Vec<&str> = all.iter().map(|(name, ..)| name.as_str()).collect();
    let expected: Vec<&str> = [".", ".."].into_iter().chain(names.iter().map(|name| &name[5..])).collect();
    assert_eq!(found, expected);
    assert_eq!(client.list(1, 300), all);
    client.room = 311;
    assert_eq!(client.list(1, 300), all);
    assert_eq!(client.data(kind::TREADDIR, 1, u64::MAX, 100), Ok(vec![]));
    assert_eq!(client.data(kind::TREADDIR, 1, 502, 100), Ok(vec![]));
    // Nothing would mean that there are no more.
    assert_eq!(client.data(kind::TREADDIR, 1, 0, 24), Err(22));
    assert_eq!(client.data(kind::TREADDIR, 1, 0, 25).map(|entries| entries.len()), Ok(25));
    client.open(0, RDONLY).unwrap();
    client.room = 1 << 20;
    let root = client.list(0, 8000);
    let entry = |name: &str, inode, kind| (name.to_string(), inode, kind);
    assert_eq!(root, [entry(".", 0, 4), entry("..", 0, 4), entry("f", 1, 8), entry("many", 2, 4)]);
}

#[test]
fn attributes_are_the_same_for_all() {
    let mut client = Client::new(&PATHS);
    client.walk(0, 1, "big").unwrap();
    client.walk(0, 2, "a").unwrap();
    let half = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    for (fid, kind, mode, links, size) in [(1, 0, 0o100_555, 1, 600_000_u64), (2, QTDIR, 0o40_555, 3, 0)] {
        let stat = client.of_fid(kind::TGETATTR, fid).unwrap();
        assert_eq!((stat.len(), word(&stat, 0), stat[8]), (153, 0x7ff, kind));
        assert_eq!((half(&stat, 21), half(&stat, 25), half(&stat, 29)), (mode, 0, 0));
        assert_eq!([33, 41, 49, 57, 65].map(|at| word(&stat, at)), [links, 0, size, 4096, size.div_ceil(512)]);
        assert!(stat[73..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(client.of_fid(kind::TGETATTR, 3), Err(9));
    let stat = client.of_fid(kind::TSTATFS, 1).unwrap();
    assert_eq!((stat.len(), half(&stat, 0), half(&stat, 4), half(&stat, 56)), (60, 0x0102_1997, 4096, 255));
    assert_eq!([8, 16, 24, 32, 40].map(|at| word(&stat, at)), [147, 0, 0, 9, 0], "full, and all of it files");
}

/// clunk(5), remove(5): "It is correct to consider remove to be a clunk with the side effect of removing the file if permissions
/// allow."
#[test]
fn fids_end() {
    let mut client = Client::new(&PATHS);
    client.walk(0, 1, "a").unwrap();
    client.walk(0, 2, "f").unwrap();
    assert_eq!((client.of_fid(kind::TCLUNK, 1), client.of_fid(kind::TCLUNK, 1)), (Ok(vec![]), Err(9)));
    assert_eq!((client.of_fid(kind::TREMOVE, 2), client.of_fid(kind::TREMOVE, 2)), (Err(30), Err(9)));
    client.walk(0, 1, "f").unwrap();
    client.server.reset();
    assert_eq!(client.server.session(), None);
    assert_eq!(client.of_fid(kind::TCLUNK, 1), Err(71));
}

#[test]
fn a_client_has_so_many_fids_and_no_more() {
    let mut client = Client::new(&PATHS);
    for fid in 1..MOST_FIDS as u32 {
        client.server.fids.set(fid, Fid { node: NodeId::ROOT, is_open: false }).unwrap();
    }
    assert_eq!(client.walk(0, u32::MAX, "a"), Err(23), "ENFILE");
    client.of_fid(kind::TCLUNK, 5).unwrap();
    assert_eq!(client.walk(0, u32::MAX, "a"), Ok(1));
}

#[test]
fn what_writes_is_refused_and_what_nobody_knows_too() {
    let mut client = Client::new(&PATHS);
    for kind in [14, 16, 18, 20, 26, 32, 50, 70, 72, 74, 76, 118] {
        assert_eq!(client.of_fid(kind, 0), Err(30), "EROFS: {kind}");
    }
    for kind in [0, 6, 10, 30, 52, 54, 102, 106, 112, 114, 124, 126, 200, 255] {
        assert_eq!(client.of_fid(kind, 0), Err(95), "EOPNOTSUPP: {kind}");
    }
    assert_eq!(client.of_fid(kind::TREADLINK, 0), Err(22), "nothing is a link");
    assert_eq!(client.of_fid(kind::TFLUSH, 0), Ok(vec![]));
    for kind in [kind::TREADLINK, kind::TXATTRWALK, kind::TSTATFS] {
        assert_eq!(client.of_fid(kind, 77), Err(9));
    }
}

/// intro(5): "Each message begins with a four-byte size field specifying the length in bytes of the complete message including the four
/// bytes of the size field itself."
#[test]
fn sizes_are_checked() {
    let mut client = Client::new(&PATHS);
    let error = |tag: u16, number: u32| [&[11, 0, 0, 0, 7][..], &tag.to_le_bytes(), &number.to_le_bytes()].concat();
    assert_eq!(client.raw(&[]), error(0xffff, 74));
    assert_eq!(client.raw(&[7, 0, 0, 0, 120, 1]), error(0xffff, 74), "no tag");
    let clunk = |size: u32| [&size.to_le_bytes()[..], &[120, 1, 0, 9, 0, 0, 0]].concat();
    for size in [0, 6, 12, u32::MAX] {
        assert_eq!(client.raw(&clunk(size)), error(1, 90), "{size}");
    }
    assert_eq!(client.raw(&clunk(10)), error(1, 74), "it ends within the fid");
    assert_eq!(client.raw(&clunk(11)), error(1, 9));
    let long = [&clunk(11)[..], &[0; 300_000]].concat();
    assert_eq!(client.raw(&long), error(1, 9), "what is behind is not its business");
    let large = [&clunk((128 << 10) + 1)[..], &[0; 300_000]].concat();
    assert_eq!(client.raw(&large), error(1, 90), "larger than msize");
    client.room = 159;
    assert_eq!(client.of_fid(kind::TGETATTR, 0), Err(90), "no room for the answer");
    client.room = 160;
    assert!(client.of_fid(kind::TGETATTR, 0).is_ok());
    client.room = 10;
    assert_eq!(client.raw(&clunk(11)), [], "nor for an error");
}

/// Files by path, as plainly as it can be said.
struct Model(Vec<&'static str>);

impl Model {
    fn is_file(&self, path: &[String]) -> bool {
        self.0.contains(&&*path.join("/"))
    }

    fn exists(&self, path: &[String]) -> bool {
        let prefix = path.join("/") + "/";
        path.is_empty() || self.is_file(path) || self.0.iter().any(|file| file.starts_with(&prefix))
    }

    /// The path, and how many names of `names` were walked.
    fn walk(&self, from: &[String], names: &[&str]) -> (Vec<String>, u16) {
        let (mut at, mut walked) = (from.to_vec(), 0);
        for name in names {
            let mut next = at.clone();
            match *name {
                ".." => drop(next.pop()),
                name => next.push(name.to_string()),
            }
            if self.is_file(&at) || *name == "." || !self.exists(&next) {
                break;
            }
            (at, walked) = (next, walked + 1);
        }
        (at, walked)
    }

    fn names(&self, path: &[String]) -> Vec<String> {
        let prefix = if path.is_empty() { String::new() } else { path.join("/") + "/" };
        let inside = self.0.iter().filter_map(|file| file.strip_prefix(&prefix));
        let mut names: Vec<String> = inside.filter_map(|rest| rest.split('/').next()).map(str::to_string).collect();
        names.sort();
        names.dedup();
        names
    }
}

const NAMES: [&str; 6] = ["a", "b", "c", "a-", "..", "."];

proptest! {
    // No file of past failures: a failure prints what was sent.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever a client walks, it is where the model is, or gets the error that the model has; and reads what is there.
    #[test]
    fn walks_and_reads_are_those_of_a_model(
        files in proptest::collection::btree_set(proptest::collection::vec(0_usize..4, 1..4), 0..12),
        steps in proptest::collection::vec((0_u32..5, 0_u32..5, proptest::collection::vec(0_usize..6, 0..6)), 1..40),
    ) {
        let all: Vec<String> = files.iter().map(|parts| parts.iter().map(|part| NAMES[*part]).collect::<Vec<_>>().join("/")).collect();
        // Nothing is both a file and a directory.
        let is_plain = |path: &&String| !all.iter().any(|other| other.starts_with(&format!("{path}/")));
        let paths: Vec<&'static str> = all.iter().filter(is_plain).map(|path| &*path.clone().leak()).collect();
        let (mut client, model) = (Client::new(&paths), Model(paths));
        let mut fids: [Option<Vec<String>>; 5] = [Some(vec![]), None, None, None, None];
        for (from, to, names) in steps {
            let names: Vec<&str> = names.into_iter().map(|name| NAMES[name]).collect();
            let walked = client.walk(from, to, &names.join("/"));
            let Some(path) = fids[from as usize].clone() else {
                prop_assert_eq!(walked, Err(9));
                continue;
            };
            if from != to && fids[to as usize].is_some() {
                prop_assert_eq!(walked, Err(22));
                client.of_fid(kind::TCLUNK, to).unwrap();
                fids[to as usize] = None;
                continue;
            }
            let (end, count) = model.walk(&path, &names);
            match walked {
                Ok(walked) => prop_assert_eq!(walked, count),
                Err(error) => {
                    prop_assert_eq!(count, 0);
                    prop_assert_eq!(error, if model.is_file(&path) { 20 } else { 2 });
                }
            }
            if walked.is_ok() && usize::from(count) == names.len() {
                // Another fid for looking, so that this one stays closed.
                client.walk(to, 99, "").unwrap();
                client.open(99, RDONLY).unwrap();
                if model.is_file(&end) {
                    prop_assert_eq!(client.read(99, 0, 1000), Ok(end.join("/").into_bytes()));
                } else {
                    let names: Vec<String> = client.list(99, 100).into_iter().skip(2).map(|(name, ..)| name).collect();
                    prop_assert_eq!(names, model.names(&end));
                }
                client.of_fid(kind::TCLUNK, 99).unwrap();
                fids[to as usize] = Some(end);
            }
        }
    }

    /// Whatever a client sends, it is answered, within the room that there is.
    #[test]
    fn anything_is_answered(
        messages in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60), 0_u64..300), 1..60),
    ) {
        let mut client = Client::new(&PATHS);
        for (kind, fields, room) in messages {
            client.room = room;
            let answer = client.raw(&message(kind, &[&fields]));
            prop_assert!(answer.len() as u64 <= room);
            // The shortest answer has a header and nothing else, an error a number as well.
            let is_right = if answer.is_empty() { room < 11 } else { room >= 7 };
            prop_assert!(is_right, "{} bytes in room for {room}", answer.len());
        }
    }
}
