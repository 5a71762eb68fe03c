//! Files as they come over a line that others use as well.

use super::*;
use host::file::transfer::{LINE as PAYLOAD, begin, data, end};
use host::file::{Packer, Store};
use vm::dump::Sink;

struct Kept<'a>(&'a mut Vec<u8>);

impl Store for Kept<'_> {
    type Error = ();
    fn append(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// The lines of a file with text at its ends and much nothing between.
fn lines(name: &str) -> Vec<String> {
    let mut packed = Vec::new();
    let mut packer = Packer::new(Kept(&mut packed));
    packer.bytes(&[b"front".as_slice(), &(0..=255).collect::<Vec<u8>>()].concat()).unwrap();
    packer.zeroes(1 << 30).unwrap();
    packer.bytes(b"back").unwrap();
    let size = packer.finish().unwrap();
    let mut lines = vec![begin(name, size, packed.len() as u64, Checksum::default().with(&packed).value())];
    lines.extend((0..).zip(packed.chunks(PAYLOAD)).map(|(number, bytes)| data(number, bytes)));
    lines.push(end(name));
    lines
}

/// What is shown of `text`, which comes in pieces of `step` bytes, and how many files have come and not come.
fn receive(folder: &Path, text: &str, step: usize) -> (String, (usize, usize)) {
    let mut shown = Vec::new();
    let mut receiver = Receiver::new(Some(folder), &mut shown);
    for piece in text.as_bytes().chunks(step) {
        assert_eq!(receiver.write(piece).unwrap(), piece.len());
    }
    let counts = receiver.finish();
    (String::from_utf8(shown).unwrap(), counts)
}

#[test]
fn a_file_comes_whole_between_other_lines_which_are_shown_as_they_are() {
    for step in [1, 7, 4096] {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::from("@ @fil @file\r\nhello| @file end x\r\n");
        for (number, line) in lines("dumps/a.bin").iter().enumerate() {
            text.push_str(&format!("{line}\r\nhello| tick {number}\r\n"));
        }
        text.push_str("last @file ");
        let (shown, counts) = receive(folder.path(), &text, step);
        assert_eq!(counts, (1, 0));
        let expected: Vec<&str> = text.split_inclusive('\n').filter(|line| read(line.trim_end()).is_none()).collect();
        assert_eq!(shown, expected.concat());
        let file = File::open(folder.path().join("a.bin")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5 + 256 + (1 << 30) + 4);
        let mut ends = ([0; 5], [0; 4]);
        file.read_exact_at(&mut ends.0, 0).unwrap();
        file.read_exact_at(&mut ends.1, 5 + 256 + (1 << 30)).unwrap();
        assert_eq!((&ends.0, &ends.1), (b"front", b"back"));
    }
}

#[test]
fn what_is_damaged_is_not_kept() {
    let whole = lines("a.bin");
    assert!(whole.len() >= 4, "several lines of data");
    let folder = tempfile::tempdir().unwrap();
    for damaged in 0..whole.len() {
        let mut missing = whole.clone();
        missing.remove(damaged);
        let mut changed = whole.clone();
        changed[damaged].push('x');
        let mut twice = whole.clone();
        twice.insert(damaged, whole[damaged].clone());
        for lines in [missing, changed, twice] {
            let (_, (received, failed)) = receive(folder.path(), &(lines.join("\n") + "\n"), 100);
            // A first or last line that comes twice does no harm.
            let harmless = lines.len() > whole.len() && (damaged == 0 || damaged == whole.len() - 1);
            assert!(received == usize::from(harmless), "{damaged}: {lines:?}");
            assert!(damaged == 0 || harmless || failed == 1, "{damaged}");
        }
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().count() <= 2);
}

#[test]
fn a_name_leads_nowhere_else_and_takes_no_files_place() {
    let folder = tempfile::tempdir().unwrap();
    for (name, expected) in [
        ("../../x.bin", "x.bin"),
        ("/etc/x.bin", "x.2.bin"),
        ("x.bin", "x.3.bin"),
        ("..", "file"),
        ("a/..", "file.2"),
        ("a/", "file.3"),
    ] {
        let text = lines(name).join("\n") + "\n";
        assert_eq!(receive(folder.path(), &text, 4096).1, (1, 0), "{name}");
        assert!(folder.path().join(expected).is_file(), "{name}");
    }
}

#[test]
fn a_size_that_nobody_has_is_an_error_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{}\n{}\n", begin("a.bin", u64::MAX, 0, Checksum::default().value()), end("a.bin"));
    assert_eq!(receive(folder.path(), &text, 4096).1, (0, 1));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
