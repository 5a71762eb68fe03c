//! Writes the archive from which Linux fills its first file system.
//!
//! Answers for: the `newc` form of cpio. Follows the kernel's `Documentation/driver-api/early-userspace/
//! buffer-format.rst`. The result is the same for the same input, byte for byte: no time, no owner, inode numbers count up.

/// What an entry of the archive is.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    /// A folder.
    Folder,
    /// A program or a script.
    Executable(&'a [u8]),
    /// A symbolic link and where it points.
    Link(&'a str),
    /// A character device: major, minor.
    Device(u32, u32),
}

/// `S_IFDIR | 0755` and so on, see `stat(2)`.
const FOLDER: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const DEVICE: u32 = 0o020_600;

/// An archive with `entries`, in this order; a folder comes before what is in it.
pub(crate) fn archive(entries: &[(&str, Entry<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (inode, (name, entry)) in (1..).zip(entries) {
        match *entry {
            Entry::Folder => put(&mut out, inode, FOLDER, (0, 0), name, &[]),
            Entry::Executable(content) => put(&mut out, inode, EXECUTABLE, (0, 0), name, content),
            Entry::Link(to) => put(&mut out, inode, LINK, (0, 0), name, to.as_bytes()),
            Entry::Device(major, minor) => put(&mut out, inode, DEVICE, (major, minor), name, &[]),
        }
    }
    put(&mut out, 0, 0, (0, 0), "TRAILER!!!", &[]);
    out
}

fn put(out: &mut Vec<u8>, inode: u32, mode: u32, (major, minor): (u32, u32), name: &str, content: &[u8]) {
    let links = if mode == FOLDER { 2 } else { 1 };
    // c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, c_maj, c_min, c_rmaj, c_rmin, c_namesize, c_chksum
    let fields = [inode, mode, 0, 0, links, 0, content.len() as u32, 0, 0, major, minor, name.len() as u32 + 1, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_names_and_contents_are_aligned_to_four_bytes() {
        let out = archive(&[("a", Entry::Folder), ("a/bc", Entry::Executable(b"12345")), ("l", Entry::Link("a/bc"))]);
        assert_eq!(out.len() % 4, 0);
        for (offset, _) in out.windows(6).enumerate().filter(|(_, window)| window == b"070701") {
            assert_eq!(offset % 4, 0);
        }
        assert!(out.windows(11).any(|window| window == b"TRAILER!!!\0"));
    }

    #[test]
    fn a_header_says_mode_size_and_length_of_the_name() {
        let out = archive(&[("init", Entry::Executable(b"x"))]);
        let text = std::str::from_utf8(&out[..110]).unwrap();
        assert_eq!(&text[14..22], "000081ed", "c_mode");
        assert_eq!(&text[54..62], "00000001", "c_filesize");
        assert_eq!(&text[94..102], "00000005", "c_namesize counts the NUL");
    }
}
