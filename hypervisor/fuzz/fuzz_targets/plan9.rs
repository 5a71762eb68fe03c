//! A server of files and whatever a client sends it: every message is answered within the room that there is, answers have their own
//! size in front, what is read is what is in the files, and no path is left but by its own names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plan9::{ANSWER, Answer, MOST_FIDS, REQUEST, Server, Tree, kind};
use std::sync::LazyLock;

const PATHS: [&str; 6] = ["a/b/c", "a/b/d", "a/e", "a-b", "big", "f"];
/// Where each byte says where it is.
static BIG: LazyLock<&'static [u8]> =
    LazyLock::new(|| (0..300_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().leak());

/// Types of messages, the likely ones first.
const KINDS: [u8; 16] = [
    kind::TWALK,
    kind::TLOPEN,
    kind::TREAD,
    kind::TREADDIR,
    kind::TWALK,
    kind::TGETATTR,
    kind::TCLUNK,
    kind::TATTACH,
    kind::TVERSION,
    kind::TSTATFS,
    kind::TREMOVE,
    kind::TFLUSH,
    kind::TREADLINK,
    kind::TXATTRWALK,
    kind::TWRITE,
    kind::TSETATTR,
];
const NAMES: [&str; 8] = ["a", "b", "c", "..", "big", "f", ".", "a/b"];

struct Game {
    server: Server,
    answer: Answer,
}

impl Game {
    fn send(&mut self, message: &[u8], room: u64) {
        let copied = &message[..message.len().min(REQUEST)];
        self.server.answer(copied, message.len() as u64, room, &mut self.answer);
        let (bytes, data) = (self.answer.bytes(), self.answer.data());
        let length = bytes.len() + data.len();
        assert!(bytes.len() <= ANSWER && length as u64 <= room);
        assert!(self.server.session().is_none_or(|(_, fids)| fids <= MOST_FIDS));
        if bytes.is_empty() {
            assert!(data.is_empty() && room < 11, "an error would have fitted");
            return;
        }
        assert_eq!(bytes[..4], (length as u32).to_le_bytes());
        if bytes[4] == kind::RLERROR {
            assert_eq!((bytes.len(), data.len()), (11, 0));
        } else {
            assert_eq!(bytes[4], message[4] + 1);
            assert_eq!(bytes[5..7], message[5..7], "the tag");
            if let Some((msize, _)) = self.server.session() {
                assert!(length <= msize as usize);
            }
        }
        if message.get(4) == Some(&kind::TREAD) && !data.is_empty() {
            let offset = u64::from_le_bytes(message[11..19].try_into().unwrap()) as usize;
            let is_of = |content: &[u8]| content.get(offset..offset + data.len()) == Some(data);
            assert!(is_of(*BIG) || PATHS.iter().any(|path| is_of(path.as_bytes())));
        }
    }

    fn message(&mut self, kind: u8, fields: &[u8], room: u64) {
        let size = (fields.len() as u32 + 7).to_le_bytes();
        self.send(&[&size[..], &[kind, 5, 0], fields].concat(), room);
    }
}

fuzz_target!(|data: &[u8]| {
    let content = |path: &'static str| if path == "big" { *BIG } else { path.as_bytes() };
    let tree = Tree::new(PATHS.iter().map(|path| (*path, content(path))).collect()).unwrap();
    let mut game = Game { server: Server::new(tree), answer: Answer::default() };
    let version = [&8192_u32.to_le_bytes()[..], &[8, 0], b"9P2000.L"].concat();
    game.message(kind::TVERSION, &version, 1 << 20);
    game.message(kind::TATTACH, &[0; 20], 1 << 20);
    let mut rest = data;
    while let Some(([what, which, length], more)) = rest.split_first_chunk() {
        let (bytes, more) = more.split_at(more.len().min(usize::from(length & 31)));
        rest = more;
        // As a rule there is room for all.
        let room = if *length >= 0xe0 { u64::from(*which) * 2 } else { 1 << 20 };
        let kind = KINDS[usize::from(what & 15)];
        match what >> 4 {
            // Bytes as they come.
            0 => game.send(bytes, room),
            1 => game.message(*which, bytes, room),
            // A message that makes sense: fids are few, names those that there are, numbers small or not.
            _ => {
                let fid = u32::from(which & 3).to_le_bytes();
                let number = bytes.first().map_or(0, |byte| u64::from(*byte) << (byte & 63));
                let fields = match kind {
                    kind::TWALK => {
                        let names: Vec<u8> =
                            bytes.iter().map(|byte| NAMES[usize::from(byte & 7)]).fold(Vec::new(), |all, name| {
                                [&all[..], &(name.len() as u16).to_le_bytes(), name.as_bytes()].concat()
                            });
                        let new = u32::from(which >> 2 & 7).to_le_bytes();
                        [&fid[..], &new, &(bytes.len() as u16).to_le_bytes(), &names].concat()
                    }
                    kind::TLOPEN => [&fid[..], &(u32::from(*which >> 6) << 9).to_le_bytes()].concat(),
                    kind::TREAD | kind::TREADDIR => {
                        [&fid[..], &number.to_le_bytes(), &(u32::from(*which) << 5).to_le_bytes()].concat()
                    }
                    kind::TVERSION => [&(u32::from(*which) << 10).to_le_bytes()[..], &version[4..]].concat(),
                    _ => [&fid[..], bytes].concat(),
                };
                game.message(kind, &fields, room);
            }
        }
    }
});
