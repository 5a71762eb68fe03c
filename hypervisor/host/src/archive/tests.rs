use super::*;
use alloc::{format, vec};

/// A header block, with its checksum, and its contents in whole blocks.
fn entry(name: &str, prefix: &str, kind: u8, contents: &[u8]) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[TYPE_FLAG] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
    sign(&mut header);
    header.extend_from_slice(contents);
    header.resize(header.len().next_multiple_of(BLOCK), 0);
    header
}

fn sign(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut data = entries.concat();
    data.resize(data.len() + 2 * BLOCK, 0);
    // As GNU tar does: to a multiple of 20 blocks.
    data.resize(data.len().next_multiple_of(20 * BLOCK), 0);
    data
}

fn error(data: &[u8]) -> String {
    Archive::new(data).unwrap_err().to_string()
}

#[test]
fn files_are_found_by_name_with_their_contents() {
    let data = archive(&[
        entry("./vms/", "", b'5', b""),
        entry("./vms/linux.qvmconf", "", b'0', b"ram 1M"),
        entry("startup", "", 0, b""),
        entry("/abs//file", "", b'0', &[7; 1000]),
        entry("link", "", b'2', b""),
    ]);
    let found = Archive::new(&data).unwrap();
    assert_eq!(vm::Files::file(&found, "vms/linux.qvmconf"), Some(&b"ram 1M"[..]));
    assert_eq!(found.get("startup"), Some(&b""[..]));
    assert_eq!(found.get("abs/file").map(<[u8]>::len), Some(1000));
    assert_eq!((found.get("vms"), found.get("link"), found.get("nothing")), (None, None, None));
    assert!(found.files().map(|(name, _)| name).eq(["abs/file", "startup", "vms/linux.qvmconf"]));
    assert!(found.skipped().eq(["link"]));
}

#[test]
fn long_names_come_from_the_prefix_or_from_an_extended_header() {
    let long = "d/".repeat(200) + "file";
    let record = format!(" path={long}\n");
    let record = format!("{}{record}", record.len() + 3);
    let data = archive(&[
        entry("file", &"p/".repeat(70), b'0', b"1"),
        entry("PaxHeaders/d", "", b'x', b"18 path=some/dir/\n"),
        entry("cut off", "", b'5', b""),
        entry("plain", "", b'0', b""),
        entry("PaxHeaders/y", "", b'x', format!("13 mtime=123\n{record}").as_bytes()),
        entry("cut off", "", b'0', b"2"),
        entry("next", "", b'0', b"3"),
    ]);
    let found = Archive::new(&data).unwrap();
    assert_eq!(found.get(&("p/".repeat(70) + "file")), Some(&b"1"[..]));
    assert_eq!(found.get(&long), Some(&b"2"[..]));
    assert_eq!(found.get("next"), Some(&b"3"[..]));
    assert_eq!(found.get("plain"), Some(&b""[..]), "the header before a folder is the folder's");
}

#[test]
fn a_damaged_archive_is_refused_with_the_block() {
    let data = archive(&[entry("a", "", b'0', &[1; 600]), entry("b", "", b'0', &[2; 5])]);
    assert_eq!(error(&[]), "block 0: too short to be an archive");
    assert_eq!(error(&[b'x'; 4096]), "block 0: this is not a tar archive");
    let mut wrong = data.clone();
    wrong[3 * BLOCK] ^= 1;
    assert_eq!(error(&wrong), "block 3: a header's checksum is wrong");
    assert_eq!(error(&data[..5 * BLOCK]), "block 5: it ends too early: the two empty blocks of its end are missing");
    assert_eq!(error(&data[..2 * BLOCK]), "block 0: too short to be an archive");
    for record in ["11 path=b\n", "0 path=b\n", "path=b\n", "8 path=b", "8 path=b\n7"] {
        let data = archive(&[entry("x", "", b'x', record.as_bytes()), entry("a", "", b'0', b"")]);
        assert_eq!(error(&data), "block 0: an extended header is malformed", "{record:?}");
    }
    let mut cut = entry("a", "", b'0', &[1; 6000]);
    cut.truncate(8 * BLOCK);
    assert_eq!(error(&cut), "block 0: a file runs over the end; was the archive cut off?");
}

#[test]
fn every_cut_and_every_single_changed_byte_is_survived() {
    let data = entry("a", "", b'0', b"abc");
    let data = archive(&[data, entry("x", "", b'x', b"14 path=y/z/w\n"), entry("b", "", b'0', b"")]);
    let data = &data[..8 * BLOCK];
    // Miri takes a second for each: a few are enough to see that nothing undefined happens.
    let step = if cfg!(miri) { 2203 } else { 1 };
    for length in (0..data.len()).step_by(step) {
        drop(Archive::new(&data[..length]));
    }
    for at in (0..2 * BLOCK).chain(2 * BLOCK..4 * BLOCK).step_by(step) {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = data.to_vec();
            changed[at] ^= flip;
            drop(Archive::new(&changed));
            // And with a checksum that is right all the same.
            sign(&mut changed[..BLOCK]);
            sign(&mut changed[2 * BLOCK..3 * BLOCK]);
            drop(Archive::new(&changed));
        }
    }
}

#[test]
fn what_is_behind_the_end_does_not_matter() {
    let mut data = archive(&[entry("a", "", b'0', b"1")]);
    data.extend_from_slice(b"garbage");
    assert!(Archive::new(&data).is_ok());
}

#[test]
fn names_that_cannot_be_are_refused() {
    let refused = |entries: &[Vec<u8>]| error(&archive(entries));
    assert_eq!(refused(&[entry("../secret", "", b'0', b"")]), "block 0: `../secret` cannot be a file's name");
    assert_eq!(refused(&[entry("./", "", b'0', b"")]), "block 0: `./` cannot be a file's name");
    let twice = [entry("a", "", b'0', b"1"), entry("./a", "", b'0', b"2")];
    assert_eq!(refused(&twice), "`a` is there twice");
    let gnu = refused(&[entry("././@LongLink", "", b'L', b"long")]);
    assert!(gnu.starts_with("block 0: a long name in GNU tar's own format"), "{gnu}");
}

#[test]
fn a_directory_is_what_files_are_below() {
    let names = ["share/a", "share/b/c", "share-d/e", "shared", "sh", "vms/one/x", "vms/two/y", "z"];
    let data = archive(&names.map(|name| entry(name, "", b'0', name.as_bytes())));
    let archive = Archive::new(&data).unwrap();
    assert_eq!(archive.directory("share"), Ok(vec![("a", &b"share/a"[..]), ("b/c", b"share/b/c")]));
    assert_eq!(archive.directory("share/b"), Ok(vec![("c", &b"share/b/c"[..])]));
    let error = |path: &str| archive.directory(path).unwrap_err();
    assert_eq!(error("nothing"), "`nothing` is no directory of the boot archive; there are `share-d`, `share`, `vms`");
    assert_eq!(error("shar"), error("nothing").replace("nothing", "shar"), "half a name is none");
    assert_eq!(
        error("vms/three/deep"),
        "`vms/three/deep` is no directory of the boot archive; there are `vms/one`, `vms/two`"
    );
    assert_eq!(error("share/b/d"), "`share/b/d` is no directory of the boot archive; `share/b` has none");
    assert!(
        error("share/a").starts_with("`share/a` is a file, not a directory of the boot archive; there are `share/b`")
    );
}

#[test]
fn of_many_directories_some_are_named() {
    let entries: Vec<Vec<u8>> = (0..9).map(|at| entry(&format!("d{at}/f"), "", b'0', b"")).collect();
    let data = archive(&entries);
    let error = Archive::new(&data).unwrap().directory("e").unwrap_err();
    assert!(error.ends_with("there are `d0`, `d1`, `d2`, `d3`, `d4`, `d5` and 3 more"), "{error}");
    let data = archive(&[entry("f", "", b'0', b"")]);
    let error = Archive::new(&data).unwrap().directory("e").unwrap_err();
    assert_eq!(error, "`e` is no directory of the boot archive; there are none");
}
