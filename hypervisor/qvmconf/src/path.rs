//! Paths in the boot archive.
//!
//! Answers for: which file a path in a configuration names. Names in the archive have no leading slash; a relative path
//! starts at the folder of the text it stands in, an absolute one at the archive's root. `.` and `..` are worked out
//! lexically: an archive has no links to follow. Does not answer for: whether the file exists.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Longest path, resolved or not, in bytes: what the `ustar` format can hold (prefix, slash, name).
pub(crate) const MAX_PATH: usize = 256;

/// Why a path names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathError {
    /// It is empty, or names the root itself.
    Empty,
    /// Its `..` lead out of the archive.
    AboveRoot,
    /// It is longer than any name in an archive can be.
    TooLong,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the path names nothing in the archive"),
            Self::AboveRoot => f.write_str("the path leads out of the archive"),
            Self::TooLong => write!(f, "the path is longer than {MAX_PATH} bytes"),
        }
    }
}

/// The archive name of what `path` names in a text of `folder` (an archive name too; empty for the root).
///
/// # Errors
/// If it names nothing that an archive could hold.
pub fn resolve(folder: &str, path: &str) -> Result<String, PathError> {
    let start = if path.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = Vec::new();
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or(PathError::AboveRoot)?;
            }
            part => parts.push(part),
        }
    }
    let resolved = parts.join("/");
    match resolved.len() {
        0 => Err(PathError::Empty),
        length if length > MAX_PATH => Err(PathError::TooLong),
        _ => Ok(resolved),
    }
}

/// The folder part of a path; empty if there is none.
#[must_use]
pub fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The file's name without folders and without what follows its last dot: `vms/linux.qvmconf` is `linux`.
#[must_use]
pub fn stem_of(path: &str) -> &str {
    let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
    match file.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_folder_and_absolute_ones_at_the_root() {
        assert_eq!(resolve("guests/linux", "Image").as_deref(), Ok("guests/linux/Image"));
        assert_eq!(resolve("guests/linux", "../../target/hello.elf").as_deref(), Ok("target/hello.elf"));
        assert_eq!(resolve("guests", "/vms//./a").as_deref(), Ok("vms/a"));
        assert_eq!(resolve("", "a").as_deref(), Ok("a"));
    }

    #[test]
    fn leaving_the_root_and_naming_nothing_are_errors() {
        assert_eq!(resolve("guests", "../../x"), Err(PathError::AboveRoot));
        assert_eq!(resolve("guests", "/.."), Err(PathError::AboveRoot));
        assert_eq!(resolve("guests", ".."), Err(PathError::Empty));
        assert_eq!(resolve("", ""), Err(PathError::Empty));
        assert_eq!(resolve("", &"a".repeat(257)), Err(PathError::TooLong));
    }

    #[test]
    fn the_stem_names_the_vm() {
        assert_eq!(stem_of("vms/linux.qvmconf"), "linux");
        assert_eq!(stem_of("a.b.c"), "a.b");
        assert_eq!(stem_of("x/.hidden"), ".hidden");
        assert_eq!(folder_of("vms/linux.qvmconf"), "vms");
        assert_eq!(folder_of("linux.qvmconf"), "");
    }
}
