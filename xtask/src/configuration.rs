//! What the tool has to know of a `.qvmconf` file: the VM's name and the files that it names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::Wanted;
use crate::lexical;

/// A VM to run.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    /// The file: absolute, without `.` and `..`.
    pub(crate) path: PathBuf,
    /// The VM's name.
    pub(crate) name: String,
    /// Options added to those of the file.
    pub(crate) options: String,
    /// The file itself and all that it names.
    pub(crate) wanted: Vec<Wanted>,
}

impl Configuration {
    /// Reads a configuration; what is wrong with it is an error with the exit status 65.
    pub(crate) fn read(path: &Path, options: &str) -> Result<Configuration> {
        let path = lexical::absolute(path).with_context(|| format!("{} leads nowhere", path.display()))?;
        let text =
            std::fs::read_to_string(&path).map_err(|e| crate::failure::data(format!("{}: {e}", path.display())))?;
        let mut wanted = vec![Wanted { path: path.clone(), absolute: false }];
        let mut name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let words: Vec<&str> =
            text.lines().map(|l| l.split('#').next().unwrap_or("")).flat_map(str::split_whitespace).collect();
        for pair in words.windows(2) {
            if pair[0] == "system" {
                name = pair[1].into();
            }
            if pair[0] == "load" {
                let file = pair[1].rsplit(',').next().unwrap_or("");
                let full =
                    lexical::absolute(&path.parent().unwrap_or(Path::new("/")).join(file)).context("bad path")?;
                wanted.push(Wanted { path: full, absolute: file.starts_with('/') });
            }
        }
        Ok(Configuration { path, name, options: options.into(), wanted })
    }
}
