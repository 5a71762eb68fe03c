//! Programs with the libraries that they need, as an archive.
//!
//! Answers for: which libraries that is, and where they go. Does not answer for: where files come from.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::cpio::{self, Entry};

/// A file of a package.
#[derive(Debug)]
pub(crate) enum Content {
    /// Its bytes.
    File(Vec<u8>),
    /// Where a symbolic link points.
    Link(String),
}

/// Files by path.
pub(crate) type Contents = BTreeMap<String, Content>;

/// An archive of `programs`, of the libraries in `folder` that they name, those that these name, and so on, and of a link
/// from `loader` to the library of that name.
pub(crate) fn archive(files: &Contents, programs: &[&str], folder: &str, loader: &str) -> Result<Vec<u8>> {
    let mut wanted: Vec<&str> = programs.to_vec();
    let loader_name = loader.rsplit('/').next().unwrap_or(loader);
    let start = format!("{folder}{loader_name}");
    let start = files.get_key_value(&start).with_context(|| format!("no package has {start}"))?.0;
    wanted.push(start);
    let mut done = 0;
    while let Some(path) = wanted.get(done) {
        let content = files.get(*path).with_context(|| format!("no package has {path}"))?;
        for name in names(content) {
            if let Some((other, _)) = files.get_key_value(&format!("{folder}{name}"))
                && !wanted.contains(&other.as_str())
            {
                wanted.push(other);
            }
        }
        done += 1;
    }
    let folders: Vec<String> = folders(wanted.iter().copied().chain([loader]));
    let target = format!("/{start}");
    let mut entries: Vec<(&str, Entry<'_>)> = folders.iter().map(|folder| (folder.as_str(), Entry::Folder)).collect();
    for path in wanted {
        entries.push(match files.get(path) {
            Some(Content::Link(to)) => (path, Entry::Link(to.rsplit('/').next().unwrap_or(to))),
            Some(Content::File(bytes)) => (path, Entry::Executable(bytes)),
            None => continue,
        });
    }
    if loader != start {
        entries.push((loader, Entry::Link(&target)));
    }
    Ok(cpio::archive(&entries))
}

/// What may be a library's name in a file: in a program it stands in a table of strings, each with a zero behind it.
fn names(content: &Content) -> Vec<&str> {
    match content {
        Content::Link(to) => to.rsplit('/').next().into_iter().collect(),
        Content::File(bytes) => {
            let texts = bytes.split(|byte| *byte == 0).filter(|text| text.starts_with(b"l"));
            texts.filter_map(|text| std::str::from_utf8(text).ok()).filter(|text| text.contains(".so")).collect()
        }
    }
}

/// All folders above these paths, each before what is in it.
fn folders<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all = std::collections::BTreeSet::new();
    for path in paths {
        all.extend(path.match_indices('/').map(|(end, _)| path[..end].to_string()));
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_along_and_nothing_else() {
        let files: Contents = [
            ("usr/bin/a", Content::File(b"\x7fELF\0libb.so.1\0".to_vec())),
            ("lib/x/libb.so.1", Content::Link("libb.so.1.2".into())),
            ("lib/x/libb.so.1.2", Content::File(b"\0libc.so\0".to_vec())),
            ("lib/x/libc.so", Content::File(b"see libd.so".to_vec())),
            ("lib/x/libd.so", Content::File(Vec::new())),
            ("lib/x/ld.so", Content::File(Vec::new())),
        ]
        .map(|(path, content)| (path.to_string(), content))
        .into();
        let archive = archive(&files, &["usr/bin/a"], "lib/x/", "lib/ld.so").unwrap();
        let has = |name: &str| archive.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(
            ["usr/bin/a", "lib/x/libb.so.1", "lib/x/libb.so.1.2", "lib/x/libc.so", "/lib/x/ld.so"].into_iter().all(has)
        );
        assert!(!has("lib/x/libd.so"));
        assert_eq!(archive.len() % 4, 0, "another archive may follow");
    }
}
