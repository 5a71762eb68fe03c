//! Paths resolved as text, the way a configuration's names are resolved inside the boot archive.
//!
//! Answers for: `.` and `..` without looking at the file system, and the deepest folder that several files share.

use std::path::{Component, Path, PathBuf};

/// `path` made absolute and without `.` and `..`; `None` when it climbs above the root.
pub(crate) fn absolute(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if out.parent().is_none() => return None,
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::Prefix(_) | Component::Normal(_) => out.push(component),
        }
    }
    Some(out)
}

/// The deepest folder in which all `files` (absolute, without `..`) lie.
pub(crate) fn common_folder<'a>(files: impl IntoIterator<Item = &'a Path>) -> Option<PathBuf> {
    let mut files = files.into_iter();
    let mut common = files.next()?.parent()?.to_path_buf();
    for file in files {
        while !file.starts_with(&common) {
            if !common.pop() {
                return None;
            }
        }
    }
    Some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_resolved_as_text() {
        assert_eq!(absolute(Path::new("/a/./b/../c")), Some(PathBuf::from("/a/c")));
        assert_eq!(absolute(Path::new("/a/../..")), None);
    }

    #[test]
    fn the_common_folder_is_the_deepest() {
        let files = ["/r/guests/hello/hello.qvmconf", "/r/target/guests/hello.elf"].map(Path::new);
        assert_eq!(common_folder(files), Some(PathBuf::from("/r")));
        assert_eq!(common_folder([Path::new("/r/a/x")]), Some(PathBuf::from("/r/a")));
        assert_eq!(common_folder(["/r/a/x", "/s/b"].map(Path::new)), Some(PathBuf::from("/")));
        assert_eq!(common_folder(["/r/ab/x", "/r/a/y"].map(Path::new)), Some(PathBuf::from("/r")));
    }
}
